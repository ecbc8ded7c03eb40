"""Data that jobs start from: readers of the usual formats, and small worlds whose answers can be checked."""
