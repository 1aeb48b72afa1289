"""Saved models at work: loaded once, many texts answered in batches, in the order in which they came."""

from ftlab.inference.classifier import UNSURE, Classifier
from ftlab.inference.generator import Generator

__all__ = ["UNSURE", "Classifier", "Generator"]
