"""What merging a LoRA adapter into a checkpoint will change, worked out before anything is written.

An adapter names modules of a model, a checkpoint stores tensors in files. `read` brings the two together from headers
and configs alone: the model is built without weights (PyTorch's meta device), which says what kind of layer a module
is and which tensors are one and the same. Whatever cannot be merged truly is refused here, by name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ftlab.errors import BadInput
from ftlab.models import loading, shards
from ftlab.models.shards import Checkpoint, Place, some

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."  # what PEFT puts before a name
PART = re.compile(
    r"(?P<module>.+)\.(lora_(?P<letter>[AB])\.weight|lora_embedding_(?P<embedding>[AB])|(?P<m>lora_magnitude_vector))"
)
# Settings of a LoRA adapter that a merge follows, or that say nothing about its result. Any other setting that is in
# force makes another kind of adapter (aLoRA, VeLoRA, trained token rows, ...), today's or one of a later PEFT.
FOLLOWED = {
    "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "target_modules", "modules_to_save",
    "bias", "fan_in_fan_out", "exclude_modules", "layers_to_transform", "layers_pattern", "init_lora_weights",
}  # fmt: skip
SILENT = {
    "peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    "lora_dropout", "loftq_config", "eva_config", "corda_config", "lora_ga_config", "megatron_core", "runtime_config",
    "qalora_group_size", "ensure_weight_tying",
}  # fmt: skip
# The others (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA, MiCA) change the base's weights too, whenever the adapter is loaded.
INITS_THAT_LEAVE_THE_BASE = {"True", "False", "gaussian", "eva", "orthogonal"}


@dataclass(frozen=True)
class Change:
    """What becomes of one stored tensor: another tensor in its place (`replacement`), then a LoRA delta (`factors`).

    `replacement` and `factors` (A, B, and DoRA's M) are keys of the adapter's file. `kind` is that of the layer:
    linear, conv1d (GPT-2's, stored as (in, out)) or embedding.
    """

    name: str
    place: Place
    replacement: str | None = None
    factors: Mapping[str, str] | None = None
    scaling: float = 1.0
    kind: str = "linear"


@dataclass(frozen=True)
class Plan:
    """A merge to be made: the base, the adapter's folder, and every change."""

    base: Checkpoint
    adapter: Path
    changes: tuple[Change, ...]


def read(base: Path, adapter: Path) -> Plan:
    """The plan of merging `adapter` (a folder that PEFT saved) into `base` (config and safetensors). Writes nothing.

    Raises BadInput, in one sentence, for what is missing, damaged or of another base, and for what would not give
    what PEFT's `merge_and_unload` gives, or not what the adapter gave.
    """
    settings = _settings(adapter)
    parts, others = _keys(adapter)
    checkpoint = shards.read(base)
    if (adapter / "base.json").is_file():  # the hash of the weights that it was trained on
        from ftlab.models import adapters

        adapters.require_base(adapter, str(base.resolve()))  # absolute: a path, whatever its name
    names = _Names(checkpoint, adapter)
    changes: dict[str, Change] = {}
    for name, key in others.items():
        if (stored := names.stored(name, key)) is not None:
            changes[stored] = Change(stored, checkpoint.tensors[stored], replacement=key)
    targets: dict[str, str] = {}
    for module, keys in parts.items():
        own = targets[module] = names.module(module, keys)
        kind, stored = names.kind(own), names.stored(f"{own}.weight", next(iter(keys.values())))
        assert stored is not None  # only a whole tensor can turn out to change nothing
        change = changes.get(stored, Change(stored, checkpoint.tensors[stored]))
        scaling = _scaling(settings, module)
        changes[stored] = _checked(adapter, settings, replace(change, factors=keys, scaling=scaling, kind=kind), module)
    names.require_all(settings, set(targets.values()), others)
    return Plan(checkpoint, adapter, tuple(changes.values()))


def _settings(adapter: Path) -> dict[str, Any]:
    """The adapter's config, if it is of a LoRA that can be merged."""
    if not (adapter / CONFIG).is_file():
        there = "has no adapter_config.json" if adapter.is_dir() else "is no folder"
        raise BadInput(f"{adapter} is no adapter: it {there}; give a folder that PEFT's `save_pretrained` wrote")
    settings = shards.read_json(adapter / CONFIG)
    if settings.get("peft_type") != "LORA":
        raise BadInput(
            f"{adapter} holds an adapter of type {settings.get('peft_type')}, and only LORA (rsLoRA and DoRA too) can "
            "be merged from file to file; use PEFT's `merge_and_unload` where PEFT can merge it"
        )
    strange = sorted(name for name, value in settings.items() if value and name not in FOLLOWED | SILENT)
    if strange:
        raise BadInput(
            f"{adapter / CONFIG} sets {', '.join(strange)}, which a merge from file to file does not support; use the "
            "adapter apart, or PEFT's `merge_and_unload` where PEFT can merge it"
        )
    for name in ("r", "lora_alpha"):
        if not isinstance(value := settings.get(name), int | float) or value <= 0:
            raise BadInput(
                f"{adapter / CONFIG} has {name}={value!r}; expected a number above 0: save the adapter again"
            )
    if (init := str(settings.get("init_lora_weights", True))) not in INITS_THAT_LEAVE_THE_BASE:
        raise BadInput(
            f"{adapter / CONFIG} has init_lora_weights={init}, which also changes the base's weights; convert the "
            "adapter to plain LoRA (path_initial_model_for_weight_conversion of PEFT's `save_pretrained`), then merge"
        )
    return settings


def _keys(adapter: Path) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """The adapter's keys: of LoRA by module and part (A, B, M), and of whole tensors by the tensor's name.

    Reads every tensor once, one at a time, since a NaN would go into the merged model unseen.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    path = adapter / WEIGHTS
    if not path.is_file():
        pickles = [file.name for pattern in loading.PICKLES for file in adapter.glob(pattern)]
        there = f" (only the pickle {pickles[0]}, which can run any code when it is opened)" if pickles else ""
        raise BadInput(f"{adapter} has no {WEIGHTS}{there}; save the adapter again with PEFT's `save_pretrained`")
    parts: dict[str, dict[str, str]] = {}
    others: dict[str, str] = {}
    try:
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118  # safe_open is no dict
                tensor = file.get_tensor(key)
                if not (tensor.is_floating_point() and torch.isfinite(tensor).all()):
                    raise BadInput(
                        f"{key} in {path} holds NaN, infinity or no fractions at all: its training failed, or the file "
                        "is damaged; take an earlier checkpoint or train again"
                    )
                name = key.removeprefix(PREFIX)
                if name == key:
                    raise BadInput(
                        f"{key} in {path} does not begin with {PREFIX}, as PEFT's keys do; save it with PEFT"
                    )
                if found := PART.fullmatch(name):
                    part = found["letter"] or found["embedding"] or "M"
                    parts.setdefault(found["module"], {})[part] = key
                else:  # a module to save, a bias, or the base layer that PEFT stores beside a trained embedding
                    others[name.replace(".base_layer.", ".")] = key
    except SafetensorError as problem:
        raise BadInput(f"{path} is not a whole safetensors file ({problem}); copy or save it again") from problem
    if not parts and not others:
        raise BadInput(f"{path} holds no tensors, so there is nothing to merge; save the adapter again")
    return parts, others


class _Names:
    """From the adapter's names to the base's: modules of the model that its config describes, tensors of its files."""

    def __init__(self, base: Checkpoint, adapter: Path) -> None:
        self.base, self.adapter = base, adapter
        self.model = shards.skeleton(base)
        self.own = set(self.model.state_dict())
        ties = self.model.all_tied_weights_keys
        self.sources = dict(ties)
        self.tied = set(ties) | set(ties.values())

    def _variants(self, name: str) -> tuple[str, ...]:
        """A checkpoint or an adapter of the body alone leaves away the body's name: transformer.h.0 is h.0 there."""
        body = f"{self.model.base_model_prefix}."
        return name, name.removeprefix(body), body + name

    def module(self, name: str, keys: Mapping[str, str]) -> str:
        """The model's own name of a module that the adapter names."""
        for own in self._variants(name):
            if f"{own}.weight" in self.own:
                return own
        raise self._unmatched(name, next(iter(keys.values())))

    def kind(self, name: str) -> str:
        """The kind of a module: linear, conv1d or embedding."""
        if kind := shards.layer_kind(module := self.model.get_submodule(name)):
            return kind
        raise BadInput(
            f"{self.adapter} changes {name}, a {type(module).__name__}; from file to file only Linear, Conv1D and "
            "Embedding layers can be merged: use PEFT's `merge_and_unload`"
        )

    def stored(self, name: str, key: str) -> str | None:
        """The base's name of the tensor that the adapter's `key` changes; None for a tied one left as it is."""
        own = self._own(name)
        if own is None:
            raise self._unmatched(name, key)
        # Of tied tensors the base stores one.
        places = [each for alias in (own, self.sources.get(own, own)) for each in self._variants(alias)]
        stored = next((each for each in places if each in self.base.tensors), None)
        if stored is None:
            raise BadInput(
                f"{key} of {self.adapter} belongs to {own}, which {self.base.folder} does not store; save the base "
                "with that part (`save_pretrained` of the model that the adapter was trained on), then merge"
            )
        place = self.base.tensors[stored]
        if place.dtype not in shards.DTYPES:
            raise BadInput(
                f"{stored} of {self.base.folder} is stored in {place.dtype}; expected "
                f"{', '.join(shards.DTYPES.values())}: merge into the weights that it was made from"
            )
        whole = PART.fullmatch(key) is None
        with self._adapter_file() as file:
            shape = tuple(file.get_slice(key).get_shape())
        if whole and shape != place.shape:
            raise BadInput(
                f"{key} of {self.adapter} is {shape}, and {stored} of {self.base.folder} is {place.shape}; if the "
                "vocabulary was enlarged in training, save the base enlarged in the same way, then merge into that"
            )
        if own not in self.tied:
            return stored
        # PEFT saves embeddings that nobody trained as well, to be safe: a tied tensor may be there, unchanged.
        if whole and self._is_the_same(key, place):
            return None
        raise BadInput(
            f"{self.adapter} changes {own}, which is tied: one tensor is the input embedding and the output layer, and "
            "a merge would change both; save the base untied (tie_word_embeddings=False), or use the adapter apart"
        )

    def require_all(self, settings: Mapping[str, Any], targets: set[str], others: Iterable[str]) -> None:
        """Raise BadInput unless the adapter holds something for everything that its config names.

        PEFT only warns, and goes on with factors that do nothing.
        """
        from peft.tuners.tuners_utils import check_target_module_exists

        config = SimpleNamespace(**{**settings, "target_modules": settings.get("target_modules") or []})
        named = {name for name, module in self.model.named_modules() if shards.layer_kind(module)}
        lacking = {name for name in named - targets if check_target_module_exists(config, name)}
        given = {self._own(name) for name in others}
        bias, saved = settings.get("bias", "none"), settings.get("modules_to_save") or ()
        for name in self.own - given:
            module, _, last = name.rpartition(".")
            if (last == "bias" and (bias == "all" or (bias == "lora_only" and module in targets))) or any(
                re.fullmatch(rf"(.*\.)?{each}\..+", name) for each in saved
            ):
                lacking.add(name)
        if lacking:
            raise BadInput(
                f"{self.adapter / WEIGHTS} holds nothing for {some(sorted(lacking))}, which its {CONFIG} names; it was "
                "saved only in part or for another model: save it again"
            )

    def _own(self, name: str) -> str | None:
        return next((each for each in self._variants(name) if each in self.own), None)

    def _adapter_file(self) -> Any:
        from safetensors import safe_open

        return safe_open(self.adapter / WEIGHTS, framework="pt")

    def _is_the_same(self, key: str, place: Place) -> bool:
        """Whether the adapter's whole tensor equals the base's, in the base's dtype."""
        import torch

        with self._adapter_file() as file, (self.base.folder / place.shard).open("rb") as shard:
            before = shards.read_tensor(shard, place)
            return torch.equal(file.get_tensor(key).to(before.dtype), before)

    def _unmatched(self, name: str, key: str) -> BadInput:
        return BadInput(
            f"{key} of {self.adapter} names {name}, and the base {self.base.folder} (a {type(self.model).__name__}) "
            "has none; merge the adapter into the model that it was trained on"
        )


def _checked(adapter: Path, settings: Mapping[str, Any], change: Change, module: str) -> Change:
    """`change`, if the factors are all there and of the shapes that the layer and the config ask for."""
    from safetensors import safe_open

    keys = change.factors or {}
    wanted = {"A", "B"} | ({"M"} if settings.get("use_dora") else set())
    if set(keys) != wanted:
        raise BadInput(
            f"{adapter / WEIGHTS} holds {', '.join(sorted(keys.values()))} and should hold {len(wanted)} tensors for "
            f"{module} (lora_A, lora_B, and lora_magnitude_vector for DoRA alone); save the adapter again"
        )
    rank = _of_pattern(settings, "rank_pattern", module, settings["r"])
    outs, ins = change.place.shape if change.kind == "linear" else change.place.shape[::-1]
    shapes = {"A": (rank, ins), "B": (outs, rank), "M": (outs,)}
    with safe_open(adapter / WEIGHTS, framework="pt") as file:
        for part in sorted(wanted):
            if (shape := tuple(file.get_slice(keys[part]).get_shape())) != shapes[part]:
                raise BadInput(
                    f"{keys[part]} of {adapter} is {shape}; expected {shapes[part]} for rank {rank} and {change.name}, "
                    f"{change.place.shape}, of the base: merge it into the model that it was trained on"
                )
    return change


def _scaling(settings: Mapping[str, Any], module: str) -> float:
    """What the product of the factors is multiplied by: alpha / r (LoRA, arXiv 2106.09685), or alpha / sqrt(r).

    The root is that of rank-stabilized LoRA (arXiv 2312.03732).
    """
    rank = _of_pattern(settings, "rank_pattern", module, settings["r"])
    alpha = _of_pattern(settings, "alpha_pattern", module, settings["lora_alpha"])
    return alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def _of_pattern(settings: Mapping[str, Any], name: str, module: str, default: Any) -> Any:
    """The value of the first pattern that the module's name matches, as PEFT finds it."""
    from peft.utils.other import get_pattern_key

    patterns = settings.get(name) or {}
    return patterns.get(get_pattern_key(patterns, module), default)
