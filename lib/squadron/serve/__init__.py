"""Endpoints for what a job has trained, on Ray Serve."""
