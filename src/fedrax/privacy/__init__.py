"""Differential privacy: what a run's noisy releases amount to."""
