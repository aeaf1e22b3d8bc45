"""Attacks on what a federation's messages reveal, and how well they do against a run's protection (docs/audit.md).

A package of its own beside :mod:`fedrax.privacy`, which learners and the configuration use: an audit needs a runtime.
"""
