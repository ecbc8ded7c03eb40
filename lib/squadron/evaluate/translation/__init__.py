"""Translations measured: by words in common, by encoders, by models that judge; and measures held against people.

A metric says what it needs of a segment and gives each a score, NaN where it has none. `squadron.core.rows` spreads
segments over a cluster: a metric is opened once a worker.
"""
