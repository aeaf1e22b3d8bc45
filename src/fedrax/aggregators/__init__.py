"""Robust aggregation: pure rules from agents' vectors to one vector, and steps before them."""
