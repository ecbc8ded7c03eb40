"""Actor-Reasoner: a car that reasons slowly about other drivers and acts fast from memory (arXiv 2503.00502)."""
