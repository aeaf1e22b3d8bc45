"""What Fedrax ships, whatever another test has registered in this process."""


def shipped(registry):
    """The names of a registry's components that are Fedrax's own, sorted."""
    return [name for name in registry.names() if registry[name].__module__.startswith("fedrax.")]
