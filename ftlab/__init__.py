"""ftlab: the helper package of a course on fine-tuning language models.

A row comes in as raw text and leaves as an answer; the rooms that it passes stand in this order, and none
imports from a later one: ``data``, ``models``, ``training``, ``evaluation``, ``course``, ``cli``.

Importing this package is cheap on purpose: torch and transformers load when they are first needed.
"""

__version__ = "0.1.0"
