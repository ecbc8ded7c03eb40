"""HoT: answers that highlight the facts of the question on which they rest (arXiv 2503.02003)."""
