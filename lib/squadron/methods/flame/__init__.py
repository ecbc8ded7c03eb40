"""FLAME: many simulated homes teach one manipulation policy and keep their data at home (arXiv 2503.01729)."""
