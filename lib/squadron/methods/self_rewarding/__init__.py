"""Process-based self-rewarding language models, arXiv 2503.03746."""
