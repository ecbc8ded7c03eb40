"""Asking models in bulk: every question answered once, answers cached on disk, costs capped."""
