"""Where jobs run: clusters of several machines, and how a job gets there with its code."""
