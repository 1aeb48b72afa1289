"""The record of an adapter's base model (`base.json`): write it, and check a base against it by its weights' hash."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ftlab import files
from ftlab.adapters import config as adapter_config
from ftlab.adapters import tensors as adapter_tensors
from ftlab.adapters.config import BASE
from ftlab.errors import BadInput
from ftlab.models import loading
from ftlab.wording import shown


def record_base(folder: Path, base: str) -> dict[str, str | None]:
    """Write `base.json`, the record of its base, into an adapter's folder.

    Args:
        folder: of the adapter.
        base: a name or folder as for `loading.folder`. Only the name of a folder is kept, not its path.

    Returns:
        What was written: name, revision, weights_sha256, architecture.
    """
    path = loading.folder(base)
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    name, _, revision = base.partition("@")
    if base in loading.HUB_MODELS:
        revision = loading.HUB_MODELS[base].revision
    elif base not in loading.MODELS and not loading.comes_from_hub(base):
        name, revision = path.resolve().name, ""
    record = {
        "name": name,
        "revision": revision or None,
        "weights_sha256": loading.weights_sha256(path),
        "architecture": (config.get("architectures") or [config["model_type"]])[0],
    }
    files.write_json(Path(folder) / BASE, record)
    return record


def require_base(adapter_folder: Path, base: str) -> dict[str, Any]:
    """Return the record of the adapter in `adapter_folder`, checked to be complete and to belong to `base`.

    Raises:
        BadInput: a file is missing or unreadable, a tensor contains NaN or infinity, there is no record of the base,
            or the recorded base has other weights (by their hash).
    """
    folder = Path(adapter_folder).expanduser()
    adapter_tensors.read(folder)
    record = adapter_config.read_record(folder)
    if record is None:
        raise BadInput(
            f"{folder} has no {BASE}, so it cannot be proven that its adapter was trained on {base}; save it again "
            "with `lora.save`, or, if you know its base, record it once: add --record-base to `ftlab generate`, "
            "`ftlab merge` or `ftlab export`, or call `lora.record_base`"
        )
    trained_on = record["weights_sha256"]
    if (given := loading.weights_sha256(loading.folder(base))) != trained_on:
        raise BadInput(
            f"the adapter in {folder} was trained on {shown(record['name'])} (weights {trained_on[:12]}), and {base} "
            f"has other weights ({given[:12]}); load it onto the base that it was trained on"
        )
    return record


def require_loaded_from(model: Any, base: str) -> None:
    """Raise BadInput if `model` was loaded from a folder that has other weights than `base`."""
    name = str(getattr(model, "name_or_path", "") or "")
    if not name or not Path(name).is_dir() or Path(name).resolve() == loading.folder(base).resolve():
        return
    if loading.weights_sha256(Path(name)) != loading.weights_sha256(loading.folder(base)):
        raise BadInput(f"the model was loaded from {name}, which has other weights than {base}; name its own base")
