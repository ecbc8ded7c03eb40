"""Sweeps over the settings of any job, on Ray Tune."""
