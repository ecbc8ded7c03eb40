"""Checkpoints without a pickle, and what is exported from them."""
