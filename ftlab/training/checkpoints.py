"""Resume an interrupted training from its last checkpoint, if the checkpoint is complete and of the same training."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import fields
from itertools import takewhile
from pathlib import Path
from typing import Any

from ftlab import files
from ftlab.errors import BadInput
from ftlab.internals import torch as torch_internals
from ftlab.internals import transformers as transformers_internals
from ftlab.models import processes
from ftlab.wording import one_line, some

WITHIN = 1e-6  # epochs: closer to a whole number is the end of one
AWAY = "take the checkpoint away, or train without resume, which removes it and starts anew"
IDENTITY = "identity.json"
SCHEDULER, SCALER, RNG = "scheduler.pt", "scaler.pt", "rng_state.pth"
RNG_OF_MAIN = "rng_state_0.pth"  # in several processes each has a file
# Of FSDP: each process writes its shards into two folders, and at last one of them a table of contents.
SHARDED_WEIGHTS, SHARDED_OPTIMIZER, CONTENTS = "pytorch_model_fsdp_0", "optimizer_0", ".metadata"
OPTIMIZERS = ("optimizer.pt", f"{SHARDED_OPTIMIZER}/{CONTENTS}")
PICKLED_WEIGHTS = ("pytorch_model.bin", "adapter_model.bin", "pytorch_model_fsdp.bin")  # Trainer writes safetensors
PLAIN = ("numpy.", "_codecs.encode")  # of NumPy's state of random numbers, as transformers admits it


def checkpoint(folder: Path, identity: Mapping[str, Any], *, resume: bool) -> str | None:
    """Return the checkpoint for `trainer.train(resume_from_checkpoint=...)`, or None to start at the first step.

    The final weights equal those of an uninterrupted training, bit for bit on the same machine, on two conditions.
    Trainer saves at the end of epochs, or within the first; within a later one it would draw another order of the rows.
    And it restores the states of its callbacks (restore_callback_states_from_checkpoint); otherwise patience starts
    anew. In another number of processes they equal it up to rounding, and up to dropout.

    Args:
        folder: Trainer's output_dir. Without `resume` it is removed with everything in it.
        identity: everything that the training depends on (model, label names, rows, settings), as JSON can store it. It
            is written beside the checkpoints.
        resume: return the last checkpoint from which training can resume, and remove later ones.

    Raises:
        BadInput: the checkpoints have another identity (resuming would mix two trainings), their identity cannot be
            read, a file in the last one names code to run, another version of transformers wrote it, it lies within a
            later epoch, or older ones cannot be removed.
    """
    identity = json.loads(json.dumps(identity))
    found = _numbered(folder)
    if resume and (found or (folder / IDENTITY).is_file()):
        files.sweep(folder)  # what a process has left that was killed while it wrote the identity
        _require_same(folder, _read_identity(folder), identity)
        while found and not _is_resumable(found[-1]):
            files.remove(found.pop())
        if found:
            _require_this_version(found[-1])
            for path in found:  # the best one may be loaded at the end
                _require_no_code(path)
            _require_its_order(found[-1])
            _fit_processes(found[-1])
        return str(found[-1]) if found else None
    remove(folder)
    if _numbered(folder):
        raise BadInput(f"older checkpoints in {folder} cannot be removed; remove that folder, or train in another one")
    files.write_json(folder / IDENTITY, identity)
    return None


def remove(folder: Path) -> None:
    """Delete the checkpoints in `folder` and its subfolders, and last what says of which training they are.

    If the process is killed on the way, what is left can be resumed from, or begins anew.
    """
    for checkpoint in [path for path in folder.rglob("checkpoint-*") if path.is_dir()]:
        files.remove(checkpoint)
    files.remove(folder)


def _numbered(folder: Path) -> list[Path]:
    """Return the folders checkpoint-<step> in the order of their steps; Trainer makes no others."""
    found = [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-[0-9]+", path.name)]
    return sorted((path for path in found if path.is_dir()), key=lambda path: int(path.name.partition("-")[2]))


def _read_identity(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / IDENTITY).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as problem:
        raise BadInput(
            f"the settings of the checkpoints in {folder} cannot be read from {IDENTITY} "
            f"({type(problem).__name__}); train without resume, which removes them and starts anew"
        ) from problem


def _require_same(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for name in {**now, **before}:
        if before.get(name) != now.get(name):
            one, other = (_shown(identity.get(name)) for identity in (before, now))
            raise BadInput(
                f"the checkpoints in {folder} were made with {name} {_excerpt(one, other)}, and this training has "
                f"{name} {_excerpt(other, one)}; use the settings of the first run, or train without resume to start "
                "anew"
            )


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _excerpt(text: str, other: str, width: int = 80) -> str:
    """Return `text`, or if it is long, an excerpt around the first character that differs from `other`."""
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(text, other, strict=False)))
    start = max(0, min(same - width // 2, len(text) - width))
    return ("..." if start else "") + text[start : start + width] + ("..." if start + width < len(text) else "")


def _is_resumable(path: Path) -> bool:
    """Return whether training can resume here: the checkpoint is complete, and patience had not ended the training.

    Trainer writes trainer_state.json last. When it resumes, it does not remember that a callback told it to stop.
    """
    from safetensors import SafetensorError, safe_open

    try:
        state = json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        for weights in (found := list(path.glob("*model*.safetensors"))):  # a model's, or an adapter's
            with safe_open(weights, framework="numpy"):
                pass
        steps = state["global_step"], state["max_steps"]
        told_to_stop = transformers_internals.was_told_to_stop(state)
    except (OSError, ValueError, SafetensorError, LookupError, TypeError, AttributeError, RecursionError):
        return False
    if steps[0] != int(path.name.partition("-")[2]) or not isinstance(steps[1], int):
        return False
    shards = [path / folder / CONTENTS for folder in (SHARDED_WEIGHTS, SHARDED_OPTIMIZER)]
    if not (found and (path / OPTIMIZERS[0]).exists()) and not all(shard.is_file() for shard in shards):
        return False
    if not (path / SCHEDULER).exists() or not any((path / name).exists() for name in (RNG, RNG_OF_MAIN)):
        return False
    if not all(map(zipfile.is_zipfile, _torch_parts(path))):  # torch.save's table of contents comes last
        return False
    return not (told_to_stop and steps[0] < steps[1])


def _require_no_code(path: Path) -> None:
    """Raise BadInput if a pickle in the checkpoint `path` would run code; the names in it are read, and no code is run.

    torch refuses such a file, too, but in the midst of a training and not in one sentence.
    """
    import pickle

    import torch

    for name in PICKLED_WEIGHTS:
        if (path / name).exists():
            raise BadInput(f"{path} holds the pickle {name}, which no training of the course writes; {AWAY}")
    for part in _torch_parts(path):
        try:
            named = torch.serialization.get_unsafe_globals_in_checkpoint(part)
        except (RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as problem:
            raise BadInput(f"{part} is no part of a checkpoint ({one_line(problem)}); {AWAY}") from problem
        if code := [name for name in named if not name.startswith(PLAIN)]:
            raise BadInput(f"{part} would run code when it is opened ({some(code)}); {AWAY}")
    for contents in path.glob(f"*/{CONTENTS}"):
        try:
            unknown = torch_internals.names_in_shards(contents)
        except (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, RuntimeError,
                pickle.UnpicklingError) as problem:  # fmt: skip
            raise BadInput(f"{contents} is no part of a checkpoint ({one_line(problem)}); {AWAY}") from problem
        if code := [name for name in unknown if not name.startswith(PLAIN)]:
            raise BadInput(f"{contents.parent} would run code when it is opened ({some(code)}); {AWAY}")


def _torch_parts(path: Path) -> list[Path]:
    """Return the files in the checkpoint `path` that torch.save wrote."""
    return sorted(
        part
        for part in (path / OPTIMIZERS[0], path / SCHEDULER, path / SCALER, *path.glob("rng_state*.pth"))
        if part.exists()
    )


def _require_its_order(path: Path) -> None:
    """Raise BadInput if the checkpoint `path` lies within a later epoch, whose order of rows is not drawn again.

    Trainer draws it from random numbers that the epochs before have used, and keeps only those of the checkpoint.
    """
    state = json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
    epoch = float(state.get("epoch") or 0)
    if epoch > 1 and abs(epoch - round(epoch)) > WITHIN and state["global_step"] < state["max_steps"]:
        raise BadInput(
            f"{path} was written within epoch {int(epoch) + 1}, whose order of rows cannot be drawn again; {AWAY}"
        )


def _fit_processes(path: Path) -> None:
    """Give each process a state of random numbers in the checkpoint `path`, which fewer of them may have written.

    New ones get that of the main process, which alone draws the order of the rows.
    """
    count = processes.count()
    main = next(path / name for name in (RNG_OF_MAIN, RNG) if (path / name).exists())
    for name in [RNG] if count == 1 else [f"rng_state_{number}.pth" for number in range(count)]:
        if not (path / name).exists():
            with files.atomic(path / name) as partial:
                shutil.copyfile(main, partial)


def _require_this_version(path: Path) -> None:
    """Raise BadInput if the state of the checkpoint `path` has what this version of transformers does not know."""
    from transformers import TrainerState

    state = json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
    if unknown := sorted(set(state) - {field.name for field in fields(TrainerState)}):
        raise BadInput(
            f"{path} was written by another version of transformers (its trainer_state.json has {unknown[0]!r}); "
            f"install that version to go on, or {AWAY}"
        )
