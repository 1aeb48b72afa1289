"""Checkpoints that a training which was cut off can go on from: the right ones, or none."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

from ftlab import files
from ftlab.errors import BadInput
from ftlab.internals import transformers as transformers_internals

IDENTITY = "identity.json"
TORCH_PARTS = ("optimizer.pt", "scheduler.pt", "rng_state.pth")


def checkpoint(folder: Path, identity: Mapping[str, Any], *, resume: bool) -> str | None:
    """Where `trainer.train(resume_from_checkpoint=...)` goes on, or None to start at the first step.

    `identity` is what a training depends on (model, label names, rows, settings), as JSON can hold it; it is kept
    beside the checkpoints. Without `resume` older checkpoints are removed. With it the last one that training can go on
    from is returned, and later ones are removed. Raises BadInput when they were made with another identity (going on
    from them would mix two trainings), or do not say with which; and when older ones cannot be removed.

    The weights at the end are those of a training that was never cut off, bit for bit on the same machine, if Trainer
    saves at the end of epochs (within one, it would draw another order of the rows) and restores its callbacks' states
    (restore_callback_states_from_checkpoint; else patience starts anew).
    """
    identity = json.loads(json.dumps(identity))
    there = _numbered(folder)
    if resume and (there or (folder / IDENTITY).is_file()):
        _require_same(folder, _identity(folder), identity)
        while there and not _goes_on(there[-1]):
            files.remove(there.pop())
        return str(there[-1]) if there else None
    files.remove(folder)
    if _numbered(folder):
        raise BadInput(f"older checkpoints in {folder} cannot be removed; remove that folder, or train in another one")
    files.write_json(folder / IDENTITY, identity)
    return None


def _numbered(folder: Path) -> list[Path]:
    """The folders checkpoint-<step>, by their steps; others are not Trainer's."""
    found = [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-[0-9]+", path.name)]
    return sorted((path for path in found if path.is_dir()), key=lambda path: int(path.name.partition("-")[2]))


def _identity(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / IDENTITY).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as problem:
        raise BadInput(
            f"what the checkpoints in {folder} were made with cannot be read from {IDENTITY} "
            f"({type(problem).__name__}); train without resume, which removes them and starts anew"
        ) from problem


def _require_same(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for name in {**now, **before}:
        if before.get(name) != now.get(name):
            one, other = (_shown(identity.get(name)) for identity in (before, now))
            raise BadInput(
                f"the checkpoints in {folder} were made with {name} {_cut(one, other)}, and this training has {name} "
                f"{_cut(other, one)}; train with what they were made with, or without resume to start anew"
            )


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _cut(text: str, other: str, width: int = 80) -> str:
    """A long `text`, cut to where it begins to differ from `other`."""
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(text, other, strict=False)))
    start = max(0, min(same - width // 2, len(text) - width))
    return ("..." if start else "") + text[start : start + width] + ("..." if start + width < len(text) else "")


def _goes_on(path: Path) -> bool:
    """Whether training can go on from a checkpoint: written to its end, and not where patience had ended it.

    Trainer writes trainer_state.json last. It forgets, when it goes on, that it had been told to stop.
    """
    from safetensors import SafetensorError, safe_open

    try:
        state = json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        for weights in (found := list(path.glob("*model*.safetensors"))):  # a model's, or an adapter's
            with safe_open(weights, framework="numpy"):
                pass
    except (OSError, ValueError, SafetensorError):
        return False
    if not found:
        return False
    if not all(zipfile.is_zipfile(path / part) for part in TORCH_PARTS):  # torch.save's table of contents comes last
        return False
    return not (transformers_internals.was_told_to_stop(state) and state["global_step"] < state["max_steps"])
