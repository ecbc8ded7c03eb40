"""Robots that share a floor: maps of free and blocked cells, and random worlds."""
