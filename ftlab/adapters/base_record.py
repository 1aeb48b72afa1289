"""Which base an adapter belongs to: written down beside it, by the hash of the base's weights, and asked for again."""

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
    """Write `base.json` into an adapter's folder: which base it belongs to. Returns what was written.

    `base` is a name or folder as for `loading.folder`; of a folder only its own name is kept, not where it lies.
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
    """The record of an adapter that is whole and belongs to `base`.

    Raises BadInput when a file is missing or unreadable, a tensor holds NaN or infinity, nothing says which base the
    adapter was trained on, or that base has other weights (by their hash).
    """
    folder = Path(adapter_folder).expanduser()
    adapter_tensors.read(folder)
    record = adapter_config.read_record(folder)
    if record is None:
        raise BadInput(
            f"{folder} has no {BASE}, so it cannot be proven that its adapter was trained on {base}; save it again "
            "with `adapters.save`, or, if you know its base, write that down once: add --record-base to `ftlab "
            "generate` or `ftlab merge`, or call `adapters.record_base`"
        )
    trained_on = record["weights_sha256"]
    if (given := loading.weights_sha256(loading.folder(base))) != trained_on:
        raise BadInput(
            f"the adapter in {folder} was trained on {shown(record['name'])} (weights {trained_on[:12]}), and {base} "
            f"has other weights ({given[:12]}); load it onto the base that it was trained on"
        )
    return record


def require_loaded_from(model: Any, base: str) -> None:
    """Raise BadInput when the folder that `model` was loaded from, if there is one, has other weights than `base`."""
    name = str(getattr(model, "name_or_path", "") or "")
    if not name or not Path(name).is_dir() or Path(name).resolve() == loading.folder(base).resolve():
        return
    if loading.weights_sha256(Path(name)) != loading.weights_sha256(loading.folder(base)):
        raise BadInput(f"the model was loaded from {name}, which has other weights than {base}; name its own base")
