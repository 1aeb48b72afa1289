"""Cached features on disk: an index of what they were computed from, and checks that they fit this training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ftlab.errors import BadInput
from ftlab.freezing import plans
from ftlab.internals.transformers import CONFIG_PATH
from ftlab.models import batches

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedModel

VALUES, INDEX = "features.f32", "index.json"
# Settings of the head, or of the file that the config came from: the layers do not depend on them.
NOT_FOR_LAYERS = ("id2label", "label2id", "num_labels", "problem_type", CONFIG_PATH, "architectures", "dtype")


def identity(
    model: PreTrainedModel, plan: plans.Plan, rows: Dataset, lengths: np.ndarray, precision: str
) -> dict[str, Any]:
    """Collect what features depend on; error messages use its keys.

    Args:
        model: with the frozen layers.
        plan: of `plans.freeze`.
        rows: tokenized, perhaps with text.
        lengths: (rows,) in tokens.
        precision: "fp32", "bf16" or "fp16".

    Returns:
        A description or a hash of each dependency, by name.
    """
    prints = plans.fingerprints(model)
    config = {name: value for name, value in model.config.to_dict().items() if name not in NOT_FOR_LAYERS}
    return {
        "frozen layers": str(plan.frozen_layers),
        "model": f"{plan.architecture}, weights {_hash([prints[name] for name in sorted(plan.in_front)])[:12]}, "
        f"config {_hash(config)[:12]}",
        "texts": _hash(list(rows["text"]))[:12] if "text" in rows.column_names else "unknown",
        "rows": str(len(rows)),
        "longest row (see max_length)": f"{lengths.max()} tokens",
        "tokens": _hash([list(rows[name]) for name in batches.MODEL_INPUTS if name in rows.column_names])[:12],
        "precision": precision,
    }


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, default=str, sort_keys=True).encode()).hexdigest()


def require_empty(folder: Path) -> None:
    """Raise BadInput unless `folder` is empty or does not exist: its content would be replaced."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder} holds something other than features; choose an empty folder or a new one")


def require_same(folder: Path, wanted: Mapping[str, str], size: int) -> torch.dtype:
    """Return the dtype of the features stored in `folder`.

    Raises BadInput if they differ from the identity `wanted`, have not `size` bytes, or cannot be read.
    """
    import torch

    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        there, dtype = (folder / VALUES).stat().st_size, getattr(torch, index["dtype"].removeprefix("torch."))
        if not isinstance(dtype, torch.dtype):
            raise TypeError(f"{dtype} is no dtype")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as problem:
        raise BadInput(
            f"the cached features in {folder} cannot be read ({type(problem).__name__}); remove that folder, and they "
            "are computed again"
        ) from problem
    for name, now in wanted.items():
        if index.get(name) != now:
            raise BadInput(
                f"the cached features in {folder} were made with {name}: {index.get(name)}, and this training has "
                f"{now}; remove that folder or choose another, and they are computed again"
            )
    if there != size:
        raise BadInput(
            f"the cached features in {folder} are not whole ({there:,} bytes of {size:,}); remove that folder, and "
            "they are computed again"
        )
    return dtype
