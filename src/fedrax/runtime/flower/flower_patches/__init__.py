"""Patches of Flower's internals, of the versions that :mod:`.commands` names: what ``runtime.flower.fast`` is made of.

Nothing else in Fedrax depends on how Flower works inside; without these modules a federation only waits longer.
"""
