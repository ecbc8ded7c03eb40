"""Decoding by transformers models: batches, adapters, grammars."""
