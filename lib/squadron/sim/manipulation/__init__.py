"""Simulated table-top manipulation: four tasks, a seven-joint arm, worlds that differ in fourteen ways."""
