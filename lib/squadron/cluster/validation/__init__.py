"""Whether such files are right: by the definitions of their kinds, and by our own rules."""
