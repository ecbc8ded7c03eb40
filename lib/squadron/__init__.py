"""Squadron: published research methods as jobs on Ray."""

__version__ = "0.1.0"
