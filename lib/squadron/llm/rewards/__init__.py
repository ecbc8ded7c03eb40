"""Reward models, judges and checkers."""
