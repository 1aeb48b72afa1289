"""ftlab: the helper package of a course on fine-tuning language models.

A row comes in as raw text and leaves as an answer. The rooms stand in the order in which it passes them, and none
imports from a later one: ``data``, ``models``, ``freezing``, ``adapters``, ``merging``, ``memory``, ``training``,
``evaluation``, ``inference``, ``serving``, ``course``, ``exercises``, ``commands``, ``cli``. A lesson, its room and its
tests share a name.

Importing this package is cheap on purpose: torch and transformers load when they are first needed.
"""

import os

# ONNX Runtime calls Microsoft, and writes an id of this computer into the home folder, as soon as it is imported. So it
# is told not to before any module of ours, or a script that has imported ftlab, imports it.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

__version__ = "0.1.0"
