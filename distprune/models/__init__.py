"""Checkpoints: from a name to a model with known units, its tokenizer and its fingerprint."""
