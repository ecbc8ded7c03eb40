"""Robots that share a floor: routes, maps of free and blocked cells, and random worlds."""
