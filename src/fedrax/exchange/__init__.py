"""Networks in and out of Fedrax: checkpoints of other programs become runs, and runs' policies files for others."""
