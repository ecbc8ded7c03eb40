"""Coordination: who goes first where paths cross, by a variational autoencoder on graphs (arXiv 2503.02954)."""
