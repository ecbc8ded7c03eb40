"""Texts found by words, by vectors and by models that read query and document together."""
