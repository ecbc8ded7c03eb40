"""MoR: questions of a text-rich graph answered by structure and by text together."""
