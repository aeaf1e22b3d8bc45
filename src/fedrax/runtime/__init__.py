"""Where a federation runs: who steps environments, how agents are mapped, what is compiled."""
