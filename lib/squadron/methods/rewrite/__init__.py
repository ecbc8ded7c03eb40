"""Rewrite and Fusion (arXiv 2502.18860): a question of a conversation, made one that stands by itself."""
