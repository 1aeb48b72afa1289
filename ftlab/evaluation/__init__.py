"""Metrics, confidence intervals and baselines: how good a model is, and compared with what."""
