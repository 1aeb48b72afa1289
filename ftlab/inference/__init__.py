"""Saved models in use: load a classifier or a language model once, and answer many texts in batches."""

from ftlab.inference.classifier import UNSURE, Classifier
from ftlab.inference.generator import Generator

__all__ = ["UNSURE", "Classifier", "Generator"]
