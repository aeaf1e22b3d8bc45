"""What a trained policy is worth: statistics over seeds, and videos."""
