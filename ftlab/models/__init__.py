"""Pretrained models and tokenizers: one name, one folder on disk."""
