"""What merging a LoRA adapter into a checkpoint will change, worked out before anything is written.

An adapter names modules of a model, a checkpoint stores tensors in files. `read` brings the two together from headers
and configs alone: the model is built without weights (PyTorch's meta device), which says what kind of layer a module
is and which tensors are one and the same. Whatever cannot be merged truly is refused here, by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlab.adapters import config as adapter_config
from ftlab.adapters import matching
from ftlab.adapters import tensors as adapter_tensors
from ftlab.adapters.config import APART, CONFIG, FOLLOWED, INITS_THAT_LEAVE_THE_BASE, SILENT, WEIGHTS, one_line, shown
from ftlab.adapters.matching import Fit
from ftlab.errors import BadInput
from ftlab.internals import transformers as transformers_internals
from ftlab.models import meta, shards
from ftlab.models.shards import Checkpoint, Layout, Place

if TYPE_CHECKING:
    from peft import LoraConfig

__all__ = ["CONFIG", "FOLLOWED", "INITS_THAT_LEAVE_THE_BASE", "SILENT", "WEIGHTS", "Change", "Plan", "read"]

TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "vocab.txt", "merges.txt", "*.model", "*.tiktoken", "chat_template.json*", "chat_template.jinja",
)  # fmt: skip


@dataclass(frozen=True)
class Change:
    """What becomes of one stored tensor: another tensor in its place (`replacement`), then a LoRA delta (`factors`).

    `replacement` and `factors` (A, B, and DoRA's M) are keys of the adapter's file. `kind` is that of the layer:
    linear, conv1d (GPT-2's, stored as (in, out)) or embedding. `target` is where the tensor will lie, which is `place`
    unless a shard is laid out anew for a larger vocabulary.
    """

    name: str
    place: Place
    replacement: str | None = None
    factors: Mapping[str, str] | None = None
    scaling: float = 1.0
    kind: str = "linear"
    target: Place = field(kw_only=True)


@dataclass(frozen=True)
class Plan:
    """A merge to be made: the base, the adapter's folder, and every change.

    `vocabulary` is the number of tokens that the merged model has, where the base has another; then `layouts` are the
    new headers of the shards that change in size, and `tokenizer` is the folder whose tokenizer goes with the model.
    `recorded` says whether the adapter's `base.json` names this base.
    """

    base: Checkpoint
    adapter: Path
    changes: tuple[Change, ...]
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    vocabulary: int | None = None
    tokenizer: Path | None = None
    recorded: bool = False


def read(base: Path, adapter: Path) -> Plan:
    """The plan of merging `adapter` (a folder that PEFT saved) into `base` (config and safetensors). Writes nothing.

    Raises BadInput, in one sentence, for what is missing, damaged or of another base, and for what would not give
    what PEFT's `merge_and_unload` gives, or not what the adapter gave.
    """
    held = adapter_tensors.read(adapter)
    _require_mergeable(held.config, adapter)
    checkpoint = shards.read(base)
    recorded = adapter_config.read_record(adapter) is not None  # the hash of the weights that it was trained on
    if recorded:
        from ftlab.adapters import lora

        lora.require_base(adapter, str(base.resolve()))  # absolute: a path, whatever its name
    model = meta.from_checkpoint(checkpoint)
    tokenizer = adapter if adapter_config.brings_tokenizer(adapter) else base
    fitted = matching.fit(held, model, base, tokens=lambda: _tokens(tokenizer))
    names = _Names(checkpoint, fitted, model)
    shapes: dict[str, tuple[int, ...]] = {}
    changes: dict[str, Change] = {}
    for name, key in fitted.whole.items():
        if (stored := names.stored(name, key)) is not None:
            place = checkpoint.tensors[stored]
            changes[stored] = Change(stored, place, replacement=key, target=place)
            shapes[stored] = held.shapes[key]
    for module, keys in fitted.parts.items():
        stored = names.stored(f"{module}.weight", next(iter(keys.values())))
        assert stored is not None  # only a whole tensor can turn out to change nothing
        place = checkpoint.tensors[stored]
        change = changes.get(stored, Change(stored, place, target=place))
        kind = shards.layer_kind(model.get_submodule(module)) or ""
        changes[stored] = replace(
            change, factors=keys, scaling=adapter_tensors.scaling_of(held.config, module), kind=kind
        )
    if fitted.vocabulary is None:
        return Plan(checkpoint, adapter, tuple(changes.values()), recorded=recorded)
    _require_vocabulary(checkpoint)
    layouts = shards.lay_out(checkpoint, shapes)
    moved = (
        replace(change, target=layouts[change.place.shard].places[change.name])
        if change.place.shard in layouts
        else change
        for change in changes.values()
    )
    return Plan(checkpoint, adapter, tuple(moved), layouts, fitted.vocabulary, tokenizer, recorded)


def _tokens(folder: Path) -> int:
    """How many tokens the tokenizer in a folder has; 0 where there is none, as beside a model of other things."""
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt")):
        return 0
    from transformers import AutoTokenizer

    try:
        return len(AutoTokenizer.from_pretrained(folder))
    except Exception as problem:  # each kind of tokenizer has errors of its own
        raise BadInput(f"the tokenizer in {folder} cannot be loaded ({one_line(problem)}); save it again") from problem


def _require_mergeable(config: LoraConfig, adapter: Path) -> None:
    """Raise BadInput for what can be used apart, and not be merged from file to file."""
    if strange := sorted(name for name in APART if getattr(config, name)):
        raise BadInput(
            f"{adapter / CONFIG} sets {', '.join(strange)}, which a merge from file to file does not support; use the "
            "adapter apart, or PEFT's `merge_and_unload`"
        )
    if (init := str(config.init_lora_weights)) not in INITS_THAT_LEAVE_THE_BASE:
        raise BadInput(
            f"{adapter / CONFIG} has init_lora_weights={shown(init)}, which also changes the base's weights; convert "
            "the adapter to plain LoRA (path_initial_model_for_weight_conversion of PEFT's `save_pretrained`), then "
            "merge"
        )


def _require_vocabulary(base: Checkpoint) -> None:
    """Raise BadInput unless the base's config says in a known place how many tokens it has."""
    if type(base.config.get("vocab_size")) is not int:
        raise BadInput(
            f"the adapter has another vocabulary than the base {base.folder}, whose config.json has no vocab_size to "
            "change; save the base enlarged in the same way (`resize_token_embeddings`), then merge into that"
        )


class _Names:
    """From the model's names to the base's: tensors of its files, and the one that stands for several."""

    def __init__(self, base: Checkpoint, fitted: Fit, model: Any) -> None:
        self.base, self.fitted, self.adapter = base, fitted, fitted.adapter
        self.body = f"{model.base_model_prefix}."
        ties = transformers_internals.tied_weights(model)
        self.sources = ties
        self.tied = set(ties) | set(ties.values())

    def _variants(self, name: str) -> tuple[str, ...]:
        """A checkpoint of the body alone leaves away the body's name: transformer.h.0 is h.0 there."""
        return name, name.removeprefix(self.body), self.body + name

    def stored(self, own: str, key: str) -> str | None:
        """The base's name of the tensor that the adapter's `key` changes; None for a tied one left as it is."""
        # Of tied tensors the base stores one.
        places = [each for alias in (own, self.sources.get(own, own)) for each in self._variants(alias)]
        stored = next((each for each in places if each in self.base.tensors), None)
        if stored is None:
            raise BadInput(
                f"{shown(key)} of {self.adapter.folder} belongs to {own}, which {self.base.folder} does not store; "
                "save the base with that part (`save_pretrained` of the model that the adapter was trained on), then "
                "merge"
            )
        place = self.base.tensors[stored]
        if place.dtype not in shards.DTYPES:
            raise BadInput(
                f"{stored} of {self.base.folder} is stored in {place.dtype}; expected "
                f"{', '.join(shards.DTYPES.values())}: merge into the weights that it was made from"
            )
        if own not in self.tied:
            return stored
        # PEFT saves embeddings that nobody trained as well, to be safe: a tied tensor may be there, unchanged.
        if own in self.fitted.whole and self._is_the_same(key, place):
            return None
        # Of a resized vocabulary the adapter holds the tensor under each of its names.
        if own in self.fitted.unasked and self.fitted.vocabulary is not None and self._is_one_tensor(own):
            return stored
        raise BadInput(
            f"{self.adapter.folder} changes {own}, which is tied: one tensor is the input embedding and the output "
            "layer, and a merge would change both; save the base untied (tie_word_embeddings=False), or use the "
            "adapter apart"
        )

    def _is_the_same(self, key: str, place: Place) -> bool:
        """Whether the adapter's whole tensor equals the base's, in the base's dtype."""
        import torch

        if self.adapter.shapes[key] != place.shape:
            return False
        with self._adapter_file() as file, (self.base.folder / place.shard).open("rb") as shard:
            before = shards.read_tensor(shard, place)
            return torch.equal(file.get_tensor(key).to(before.dtype), before)

    def _is_one_tensor(self, own: str) -> bool:
        """Whether the adapter holds the same numbers for all names of a tied tensor."""
        import torch

        source = self.sources.get(own, own)
        keys = [key for name, key in self.fitted.whole.items() if self.sources.get(name, name) == source]
        touched = {f"{module}.weight" for module in self.fitted.parts}
        with self._adapter_file() as file:
            first, *others = map(file.get_tensor, keys)
            return not touched & self.tied and all(torch.equal(first, other) for other in others)

    def _adapter_file(self) -> Any:
        from safetensors import safe_open

        return safe_open(self.adapter.folder / WEIGHTS, framework="pt")
