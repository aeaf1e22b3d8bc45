"""What one agent learns from its own experience, blind to the federation."""
