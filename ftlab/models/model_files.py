"""The files of a model's folder: check that config, tokenizer and safetensors are complete, before loading anything.

Only headers are read, so it takes no time. `loading_report` checks the tensors themselves.
Format: https://huggingface.co/docs/safetensors; the index: https://huggingface.co/docs/transformers/main_classes/model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftlab.errors import BadInput
from ftlab.internals.peft import PREFIX
from ftlab.internals.torch import COMPILED, FSDP
from ftlab.wording import shown as name_of
from ftlab.wording import some

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FLOATS = {"F64", "F32", "F16", "BF16"}  # as safetensors names them
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
# Names in a config: num_hidden_layers, n_layer, num_decoder_layers, num_hidden_groups; of words; of positions.
DEPTH, WORDS = re.compile(r"(^|_)(layers?|hidden_groups)$"), re.compile(r"^vocab_size$")
POSITIONS = re.compile(r"^(max_position_embeddings|n_positions)$")
USUAL_DEPTH = 100  # layers can share their tensors, as those of ALBERT do
MANY_WORDS, MANY_POSITIONS = 1_000_000, 100_000_000  # more than any model has
RISK = "which can run any code when it is opened"  # a pickle
TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "tokenizer.model", "spiece.model", "vocab.json")
# A wrapper puts its own prefix before the name of each tensor: prefix -> the wrapper, and the model inside.
WRAPPERS = {
    "module.": ("torch's DataParallel", "model.module"),
    COMPILED: ("torch.compile", "model._orig_mod"),
    FSDP: ("FSDP", "the model that it wraps"),
    PREFIX: ("PEFT", "model.merge_and_unload()"),
}


@dataclass(frozen=True)
class Stored:
    """One tensor by the header of its safetensors file: its shape, and its dtype by its safetensors name."""

    shape: tuple[int, ...]
    dtype: str


def checked(path: Path, shown: str = "") -> Path:
    """Return the folder `path`, or raise BadInput (naming it `shown`) if config, tokenizer or weights are missing."""
    shown = shown or str(path)
    _require_folder(path, f"the model folder {shown}", "config.json and safetensors")
    if not (path / "config.json").is_file():
        if (path / "adapter_config.json").is_file():
            raise BadInput(
                f"{shown} is no model: it has no config.json, and is an adapter; give the base that it was trained on, "
                "or both merged (`ftlab merge` for a language model, `merge_and_unload` and `save_pretrained` else)"
            )
        raise BadInput(f"{shown} is no model: it has no config.json; give a folder that `save_pretrained` wrote")
    if (path / "adapter_config.json").is_file():  # transformers would load the adapter with the model, silently
        raise BadInput(
            f"{shown} has both a model (config.json) and an adapter (adapter_config.json); expected a model alone: "
            "move the adapter's files (adapter_config.json, adapter_model.safetensors) to a folder of their own"
        )
    try:
        config = _require_model_type(path / "config.json")
    except (ValueError, AttributeError, OSError, RecursionError) as problem:
        raise BadInput(f"{shown} is no model: its config.json cannot be used ({problem}); save it again") from problem
    _require_no_code(config, shown)
    stored = tensors(path, shown)
    _require_possible(config, stored, shown)
    require_tokenizer(path, shown)
    for prefix, (whose, inside) in WRAPPERS.items():
        if stored and all(name.startswith(prefix) for name in stored):
            raise BadInput(
                f"every tensor of {shown} has a name that begins with {prefix!r}, as {whose} wraps a model, so none is "
                f"one of the model's own; save the model inside (`save_pretrained` of {inside}) and give that folder"
            )
    return path


def _require_model_type(path: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(config.get("model_type"), str):
        raise ValueError("it names no model_type")
    return config


def _require_no_code(config: dict[str, Any], shown: str) -> None:
    """Raise BadInput if the model can only be loaded by code of its own: transformers would ask whether to run it."""
    for name in ("_attn_implementation", "attn_implementation"):
        if "/" in str(config.get(name, "")):
            raise BadInput(
                f"{shown} names a kernel of the model hub ({name} {name_of(config[name])} in its config.json), which "
                "would be fetched and run; the course runs no code of a model: take that line out, or use another model"
            )
    if not config.get("auto_map"):
        return
    from transformers import CONFIG_MAPPING

    if config["model_type"] not in CONFIG_MAPPING:
        raise BadInput(
            f"{shown} is of the type {name_of(config['model_type'])}, which transformers does not know, and brings "
            "code of its own to be run (auto_map in its config.json); the course runs none: use another model"
        )


def _require_possible(config: dict[str, Any], stored: dict[str, Stored], shown: str) -> None:
    """Raise BadInput for a size in the config that the files cannot have: building it might take all memory or time."""
    longest = max((side for tensor in stored.values() for side in tensor.shape), default=0)
    for pattern, most in (
        (DEPTH, max(len(stored), USUAL_DEPTH)),
        (WORDS, 10 * max(longest, MANY_WORDS)),
        (POSITIONS, MANY_POSITIONS),
    ):
        for name, size in _sizes(config):
            if pattern.search(name) and size > most:
                raise BadInput(
                    f"{shown} cannot have {size:,} as its {name_of(name)} (in config.json): its files hold "
                    f"{len(stored):,} tensors, the longest of {longest:,} rows or columns; save or fetch it again"
                )


def _sizes(config: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Yield each whole number of a config with its name, those of the configs inside it, such as text_config, too."""
    left = [config]
    while left:
        for name, value in left.pop().items():
            if isinstance(value, dict):
                left.append(value)
            elif isinstance(value, int):
                yield name, value


def require_tokenizer(path: Path, shown: str) -> None:
    """Raise BadInput, naming the folder `shown`, unless the folder `path` has a tokenizer."""
    _require_folder(path, f"the folder {shown}", "a tokenizer, as `tokenizer.save_pretrained` writes it")
    if not any((path / file).is_file() for file in TOKENIZERS):
        raise BadInput(f"{shown} has no tokenizer; save it there with `tokenizer.save_pretrained`")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        if (path / file).is_file():
            read_json(path / file)


def _require_folder(path: Path, shown: str, wanted: str) -> None:
    if not path.is_dir():
        there = "is a file, not a folder" if path.exists() else "does not exist"
        raise BadInput(f"{shown} {there}; give a folder with {wanted}")
    if strange := [file.name for file in path.iterdir() if file.exists() and not (file.is_file() or file.is_dir())]:
        raise BadInput(f"{shown} holds {strange[0]}, which is no file; reading it might never end: take it out")


def tensors(path: Path, shown: str) -> dict[str, Stored]:
    """Return the shape and dtype of each tensor in the folder `path`, by name, from the headers of its safetensors.

    The files are those that transformers reads: model.safetensors, else the shards that the index names. `shown` names
    the folder in error messages.

    Raises:
        BadInput: a file is missing or incomplete, or index and shards contradict each other.
    """
    names = _shards(path, shown)
    found: dict[str, Stored] = {}
    for shard in sorted(set(names.values())) or [SINGLE]:
        there = _header(path / shard)
        if twice := sorted(found.keys() & there.keys()):
            raise BadInput(f"two shards of {shown} hold {some(twice)}; save or fetch the model again")
        found |= there
    if lost := sorted(names.keys() - found.keys()):
        raise BadInput(f"no shard of {shown} holds {some(lost)}, named in its {INDEX}; fetch or copy it again")
    return found


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in the file `path`. Raises BadInput if the file has none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as problem:
        raise BadInput(f"{path} cannot be read as JSON ({problem}); save or fetch it again") from problem
    if not isinstance(found, dict):
        raise BadInput(f"{path} holds no JSON object; save or fetch it again")
    return found


def _shards(path: Path, shown: str) -> dict[str, str]:
    """Return {tensor: its shard} from the index; empty for a single file. Raises BadInput if a file is missing."""
    if (path / SINGLE).is_file():
        return {}
    if not (path / INDEX).is_file():
        raise BadInput(_without_weights(path, shown))
    names = read_json(path / INDEX).get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(shard, str) for shard in names.values()):
        raise BadInput(f"{path / INDEX} names no shards (its weight_map is {str(names)[:40]}); fetch it again")
    shards = sorted(set(names.values()))
    if outside := [shard for shard in shards if Path(shard).name != shard or not shard.endswith(".safetensors")]:
        raise BadInput(
            f"{path / INDEX} names {some(outside)}, which is no safetensors file of its folder; fetch it again"
        )
    if missing := [shard for shard in shards if not (path / shard).is_file()]:
        raise BadInput(f"{shown} lacks {some(missing)}, named in its {INDEX}; fetch or copy it again")
    return names


def pickles(folder: Path, stem: str = "*") -> list[str]:
    """Return the names of the pickle files in `folder` whose name without its ending matches `stem`."""
    return sorted(file.name for ending in PICKLES for file in folder.glob(f"{stem}{ending}"))


def _without_weights(path: Path, shown: str) -> str:
    """Return why a folder with neither the single file nor an index cannot be loaded."""
    if found := pickles(path):
        return (
            f"{shown} holds a pickle checkpoint ({found[0]}), {RISK}; convert it to safetensors where you trust it "
            "(`model.save_pretrained`), then load that"
        )
    if others := sorted(file.name for file in path.glob("*.safetensors")):
        return (
            f"{shown} has a config.json but no safetensors that can be loaded: neither {SINGLE} nor the {INDEX} that "
            f"names its shards (there is {some(others)}); give a folder that `save_pretrained` wrote"
        )
    return f"{shown} has a config.json but no safetensors; give a folder that `save_pretrained` wrote"


def _header(weights: Path) -> dict[str, Stored]:
    """Return the header of a safetensors file; safetensors checks it against the length of the file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
            return {name: Stored(tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}
    except (SafetensorError, OSError) as problem:
        raise BadInput(f"{weights} is not a whole safetensors file ({problem}); copy or save it again") from problem
