"""Corpora, tokenizers, token streams and batches."""
