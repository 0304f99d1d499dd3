"""Pivotal tuning: fit a copy of the generator to one identity, and store only what changed."""
