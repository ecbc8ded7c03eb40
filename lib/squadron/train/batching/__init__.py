"""Which rows make up a batch: by seed and step, packed, or streamed from Parquet."""
