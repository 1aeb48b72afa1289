"""The plan of a merge: which stored tensors a LoRA adapter changes, found before anything is written.

An adapter names modules of a model; a checkpoint stores tensors in files. `read` matches the two from headers and
configs alone. The model is built without weights (on PyTorch's meta device): it shows the kind of each layer, and
which tensors are tied. An adapter that cannot be merged exactly is refused here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlab.adapters import config as adapter_config
from ftlab.adapters import matching
from ftlab.adapters import tensors as adapter_tensors
from ftlab.adapters.config import APART, CONFIG, INITS_THAT_LEAVE_THE_BASE, WEIGHTS
from ftlab.adapters.matching import Fit
from ftlab.adapters.targets import layer_kind
from ftlab.adapters.tensors import with_or_without_body
from ftlab.data import chat
from ftlab.errors import BadInput
from ftlab.internals import transformers as transformers_internals
from ftlab.models import meta, shards
from ftlab.models.shards import Checkpoint, Layout, Place
from ftlab.wording import shown

if TYPE_CHECKING:
    from peft import LoraConfig


TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "vocab.txt", "merges.txt", "*.model", "*.tiktoken", "chat_template.json*", "chat_template.jinja",
    "additional_chat_templates/*.jinja",
)  # fmt: skip


@dataclass(frozen=True)
class Change:
    """The change of one stored tensor: its replacement, if there is one, then a LoRA delta, if there are factors.

    `replacement` and `factors` (A, B, and DoRA's M) are keys of the adapter's file. `kind` is that of the layer:
    Linear, Conv1D (GPT-2's, stored as (in, out)) or Embedding. `target` is the new place of the tensor; it is `place`
    unless the shard has a new layout for a larger vocabulary.
    """

    name: str
    place: Place
    replacement: str | None = None
    factors: Mapping[str, str] | None = None
    scaling: float = 1.0
    kind: str = "Linear"
    target: Place = field(kw_only=True)


@dataclass(frozen=True)
class Plan:
    """A planned merge: the base, the adapter's folder, and all changes.

    `vocabulary` is the number of tokens of the merged model, if the base has another. Then `layouts` are the new
    headers of the shards that change in size. `tokenizer` is the adapter's folder if the merged model needs the
    tokenizer in it (`lora.own_tokenizer`). `recorded` tells whether the adapter's `base.json` names this base.
    `chat_template` is the adapter's own, the format in which it was trained; None if its folder has none.
    """

    base: Checkpoint
    adapter: Path
    changes: tuple[Change, ...]
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    vocabulary: int | None = None
    tokenizer: Path | None = None
    recorded: bool = False
    chat_template: str | None = None


def read(base: Path, adapter: Path) -> Plan:
    """Return the plan of merging `adapter` (a folder that PEFT saved) into `base` (config and safetensors).

    Nothing is written.

    Raises:
        BadInput: a file is missing or damaged, the adapter belongs to another base, its tokenizer has a token without
            an embedding row, or the merged model would differ from PEFT's `merge_and_unload` or from the unmerged
            adapter.
    """
    from ftlab.adapters import lora

    held = adapter_tensors.read(adapter)
    _require_mergeable(held.config, adapter)
    checkpoint = shards.read(base)
    recorded = adapter_config.read_record(adapter) is not None  # the hash of the weights that it was trained on
    if recorded:
        lora.require_base(adapter, str(base.resolve()))  # absolute: a path, whatever its name
    model = meta.from_checkpoint(checkpoint)
    brings = adapter_config.brings_tokenizer(adapter)
    fitted = matching.fit(held, model, base, tokens=lambda: _tokens(adapter if brings else base))
    own = brings and lora.own_tokenizer(fitted, base, len(model.get_input_embeddings().weight)) is not None
    tokenizer = adapter if own else None
    names = _StoredNames(checkpoint, fitted, model)
    shapes: dict[str, tuple[int, ...]] = {}
    changes: dict[str, Change] = {}
    for name, key in fitted.whole.items():
        if (stored := names.stored(name, key)) is not None:
            place = checkpoint.tensors[stored]
            changes[stored] = Change(stored, place, replacement=key, target=place)
            shapes[stored] = held.shapes[key]
    for module, keys in fitted.parts.items():
        stored = names.stored(f"{module}.weight", next(iter(keys.values())))
        assert stored is not None  # it can only be None for a whole tensor
        place = checkpoint.tensors[stored]
        change = changes.get(stored, Change(stored, place, target=place))
        kind = layer_kind(model.get_submodule(module)) or ""
        scaling = adapter_tensors.scaling_of(held.config, module)
        changes[stored] = replace(change, factors=keys, scaling=scaling, kind=kind)
    named = chat.of_folder(adapter)
    trained_in = named.get(chat.DEFAULT) if isinstance(named, Mapping) else named
    if fitted.vocabulary is None:
        unmoved = tuple(changes.values())
        return Plan(checkpoint, adapter, unmoved, tokenizer=tokenizer, recorded=recorded, chat_template=trained_in)
    _require_vocabulary(checkpoint)
    layouts = shards.lay_out(checkpoint, shapes)
    moved = (
        replace(change, target=layouts[change.place.shard].places[change.name])
        if change.place.shard in layouts
        else change
        for change in changes.values()
    )
    return Plan(checkpoint, adapter, tuple(moved), layouts, fitted.vocabulary, tokenizer, recorded, trained_in)


def _tokens(folder: Path) -> int:
    """Return the number of tokens of the tokenizer in a folder, or 0 if there is none: the model may not need one."""
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt")):
        return 0
    return len(adapter_config.load_tokenizer(folder))


def _require_mergeable(config: LoraConfig, adapter: Path) -> None:
    """Raise BadInput for settings that work unmerged, and cannot be merged from file to file."""
    if strange := sorted(name for name in APART if getattr(config, name)):
        raise BadInput(
            f"{adapter / CONFIG} sets {', '.join(strange)}, which a merge from file to file does not support; use the "
            "unmerged adapter, or PEFT's `merge_and_unload`"
        )
    if (init := str(config.init_lora_weights)) not in INITS_THAT_LEAVE_THE_BASE:
        raise BadInput(
            f"{adapter / CONFIG} has init_lora_weights={shown(init)}, which also changes the base's weights; convert "
            "the adapter to plain LoRA (path_initial_model_for_weight_conversion of PEFT's `save_pretrained`), then "
            "merge"
        )


def _require_vocabulary(base: Checkpoint) -> None:
    """Raise BadInput unless the base's config has its number of tokens in a known place."""
    if type(base.config.get("vocab_size")) is not int:
        raise BadInput(
            f"the adapter has another vocabulary than the base {base.folder}, whose config.json has no vocab_size to "
            "change; save the base enlarged in the same way (`resize_token_embeddings`), then merge into that"
        )


class _StoredNames:
    """Finds the stored tensor for each name in the model; of tied tensors one is stored."""

    def __init__(self, base: Checkpoint, fitted: Fit, model: Any) -> None:
        self.base, self.fitted, self.adapter = base, fitted, fitted.adapter
        self.body = model.base_model_prefix
        self.sources = transformers_internals.tied_weights(model)
        self.tied = set(self.sources) | set(self.sources.values())

    def stored(self, own: str, key: str) -> str | None:
        """Return the stored name of the model's tensor `own`, which the adapter's `key` changes.

        None for a tied tensor that the adapter does not change. Raises BadInput for one that cannot be merged.
        """
        aliases = (own, self.sources.get(own, own))
        spellings = [each for alias in aliases for each in with_or_without_body(alias, self.body)]
        stored = next((each for each in spellings if each in self.base.tensors), None)
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
        # PEFT may save embeddings that were not trained: then the tied tensor is unchanged.
        if own in self.fitted.whole and self._is_the_same(key, place):
            return None
        # For a resized vocabulary the adapter contains the tensor under each of its names.
        if own in self.fitted.unasked and self.fitted.vocabulary is not None and self._is_one_tensor(own):
            return stored
        raise BadInput(
            f"{self.adapter.folder} changes {own}, which is tied: one tensor is the input embedding and the output "
            "layer, and a merge would change both; save the base untied (tie_word_embeddings=False), or use the "
            "unmerged adapter"
        )

    def _is_the_same(self, key: str, place: Place) -> bool:
        """Return whether the adapter's whole tensor equals the base's, in the base's dtype."""
        import torch

        if self.adapter.shapes[key] != place.shape:
            return False
        with self._adapter_file() as file, (self.base.folder / place.shard).open("rb") as shard:
            before = shards.read_tensor(shard, place)
            return torch.equal(file.get_tensor(key).to(before.dtype), before)

    def _is_one_tensor(self, own: str) -> bool:
        """Return whether the adapter has the same numbers under all names of a tied tensor."""
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
