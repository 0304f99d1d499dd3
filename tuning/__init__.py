"""Pivotal tuning: fits a copy of the generator to one identity and stores only the changed tensors."""
