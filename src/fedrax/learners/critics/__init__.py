"""What judges observations and actions, for off-policy learners."""
