"""A job, sent to a cluster from anywhere with all that it needs: code, settings, small files, chosen variables."""
