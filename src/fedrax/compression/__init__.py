"""Compression of agents' updates: what travels in their place, and what the server makes of it."""
