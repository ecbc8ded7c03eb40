"""Actor and Reasoner: a car that decides at once while a language model thinks."""
