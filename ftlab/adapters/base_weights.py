"""Compare the weights of a model in memory with the files of its base, before an adapter is recorded as the base's.

The hash in an adapter's record names files. It does not show that the wrapped model was still equal to them: a base
that was trained or edited in memory keeps its folder's name. So each tensor in memory is compared with the stored one,
in the precision in which the model was loaded.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Set
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlab.adapters.config import INITS_MADE_AGAIN
from ftlab.adapters.tensors import with_or_without_body
from ftlab.errors import BadInput
from ftlab.internals import bitsandbytes as bitsandbytes_internals
from ftlab.internals import peft as peft_internals
from ftlab.internals import transformers as transformers_internals
from ftlab.internals.peft import ADDED, TRAINED_COPY, WRAPPED
from ftlab.models import loading
from ftlab.models.loading_report import REPORTED
from ftlab.models.model_files import INDEX, SINGLE, read_json
from ftlab.wording import some

if TYPE_CHECKING:
    import torch

ROUNDED = 1e-3  # of a weight's largest number: a second decomposition of the weight may differ by this


@dataclass(frozen=True)
class _Own:
    """A tensor of the base in memory, its layer, and PEFT's layer around that layer, if there is one."""

    tensor: torch.Tensor
    layer: Any
    wrapper: Any

    def is_of(self, layers: list[Any]) -> bool:
        """Return whether it is a tensor of one of `layers`."""
        return any(self.layer is layer or self.wrapper is layer for layer in layers)


def require_same(model: Any, base: str, *, brought: Set[str] = frozenset()) -> None:
    """Raise BadInput unless the weights of `model`, wrapped by PEFT or not, are those in the folder of `base`.

    The model may be in any dtype, or in float32 after half precision. Quantized weights are compared with the stored
    ones, quantized again. An embedding may have one row more than the stored one, for the pad token. A vocabulary that
    was enlarged further must be part of the adapter: the names of such tensors are in `brought`.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    init = next((str(config.init_lora_weights) for config in getattr(model, "peft_config", {}).values()), "True")
    folder = loading.folder(base)
    ends = [layer for layer in (inner.get_input_embeddings(), inner.get_output_embeddings()) if layer is not None]
    differ: list[str] = []
    unknown: dict[str, _Own] = {}
    with _Files(folder, inner.base_model_prefix) as files:
        for name, one in _own(inner).items():
            if name in brought:
                continue
            stored = files.get(name)
            if stored is None:
                unknown[name] = one
            elif one.is_of(ends) and one.tensor.shape[1:] == stored.shape[1:] and len(one.tensor) > len(stored):
                _require_pad_row(inner, name, len(one.tensor), len(stored), base)
                if not _is(one.tensor[: len(stored)], stored):
                    differ.append(name)
            elif not _is_loaded_from(one, stored, init):
                differ.append(name)
    differ += _differ_from_load(inner, folder, unknown, init)
    if differ:
        raise BadInput(
            f"{some(sorted(differ))} of the model in memory {'is' if len(differ) == 1 else 'are'} not what {base} "
            "holds, so the base was changed after it was loaded, and an adapter belongs to the weights that it was "
            "trained on; save the changed base (`save_pretrained`, with its tokenizer) and name that folder, or start "
            "from the unchanged base"
        )


def brought_by(peft_model: Any) -> set[str]:
    """Return the names of the base's tensors that PEFT saves with the adapter of `peft_model`.

    These are the tensors of whole modules, and trained biases.
    """
    inner, config = peft_model.get_base_model(), peft_model.peft_config["default"]
    found = {name.replace(TRAINED_COPY, ".") for name, _ in inner.named_parameters() if TRAINED_COPY in name}
    for name, one in _own(inner).items():
        if name.endswith("bias") and (config.bias == "all" or (config.bias == "lora_only" and one.wrapper is not None)):
            found.add(name)
    return found


def _require_pad_row(inner: Any, name: str, rows: int, there: int, base: str) -> None:
    """Raise BadInput unless the only additional token is the pad token, whose row nothing reads."""
    if rows == there + 1 and getattr(inner.config, "pad_token_id", None) == there:
        return
    raise BadInput(
        f"{name} of the model in memory has {rows:,} rows and {base} has {there:,}: tokens were added, and the adapter "
        "does not hold them; train them with it (modules_to_save with the embedding and the output layer), or save the "
        "enlarged base (`save_pretrained`, with its tokenizer) and name that folder"
    )


class _Files:
    """The tensors in a model's folder, read one at a time, with or without the body's name before theirs."""

    def __init__(self, folder: Path, body: str) -> None:
        self.folder, self.body = folder, body

    def __enter__(self) -> _Files:
        from safetensors import safe_open

        self.open = ExitStack()
        shards = [SINGLE]
        if not (self.folder / SINGLE).is_file():
            shards = sorted(set(read_json(self.folder / INDEX)["weight_map"].values()))
        self.found: dict[str, Any] = {}
        for shard in shards:
            file = self.open.enter_context(safe_open(self.folder / shard, framework="pt"))
            self.found |= dict.fromkeys(file.keys(), file)
        return self

    def __exit__(self, *_: object) -> None:
        self.open.close()

    def get(self, name: str) -> torch.Tensor | None:
        """Return the tensor `name` of the model in its stored dtype, or None if the files have no such name."""
        for each in with_or_without_body(name, self.body):
            if each in self.found:
                return self.found[each].get_tensor(each)
        return None


def _own(inner: Any) -> dict[str, _Own]:
    """Return the tensors of the base by their names before PEFT wrapped it; of tied ones the first."""
    found: dict[str, _Own] = {}
    seen: set[int] = set()
    for where, layer in inner.named_modules():
        for last, tensor in layer.named_parameters(recurse=False):
            name = f".{where}.{last}"
            if id(tensor) in seen or ADDED.search(name):
                continue
            seen.add(id(tensor))
            parent = WRAPPED.sub("", f".{where}.")[1:-1]
            wrapper = inner.get_submodule(parent) if parent != where else None
            found[WRAPPED.sub("", name)[1:]] = _Own(tensor, layer, wrapper)
    return found


def _is_loaded_from(one: _Own, stored: torch.Tensor, init: str) -> bool:
    """Return whether a tensor in memory is the stored one after loading, and after PEFT's initialization."""
    import torch
    from transformers import Conv1D

    if bitsandbytes_internals.is_quantized_to_4bit(one.tensor):
        return _is_in_4_bits(one, stored)
    if one.tensor.dtype == torch.int8:
        return _is_in_8_bits(one, stored)
    adapted = peft_internals.can_start_from_base(one.wrapper, init) and isinstance(one.layer, torch.nn.Linear | Conv1D)
    if init in INITS_MADE_AGAIN and adapted and one.tensor is one.layer.weight and one.tensor.shape == stored.shape:
        return _is_residual(one, stored, init)
    return _is(one.tensor, stored)


def _is(tensor: torch.Tensor, stored: torch.Tensor) -> bool:
    """Return whether `tensor` is `stored` in its own dtype, or in float32 after half precision."""
    import torch

    tensor = tensor.detach()
    if tensor.shape != stored.shape:
        return False
    stored = stored.to(tensor.device)
    ways = [stored.dtype, torch.bfloat16, torch.float16] if tensor.dtype == torch.float32 else [stored.dtype]
    return any(torch.equal(stored.to(way).to(tensor.dtype), tensor) for way in ways)


def _is_residual(one: _Own, stored: torch.Tensor, init: str) -> bool:
    """Return whether a weight is the stored one without the part that PiSSA or OLoRA moved into the factors."""
    import torch

    fresh = copy.deepcopy(one.wrapper)
    with torch.no_grad():
        fresh.get_base_layer().weight.data = stored.to(one.tensor.device, one.tensor.dtype).clone()
        peft_internals.start_from_base(fresh, init)
        gap = (fresh.get_base_layer().weight - one.tensor).abs().max()
    return bool(gap <= ROUNDED * stored.abs().max())


def _is_in_4_bits(one: _Own, stored: torch.Tensor) -> bool:
    """Return whether a 4-bit weight is the stored one, quantized by bitsandbytes as at loading."""
    if transformers_internals.was_conv1d(one.layer):
        stored = stored.T  # quantized, a Conv1D is a linear layer
    same_shape = stored.shape == (one.layer.out_features, one.layer.in_features)
    return same_shape and bitsandbytes_internals.is_4bit_of(one.tensor, stored)


def _is_in_8_bits(one: _Own, stored: torch.Tensor) -> bool:
    """Return whether an 8-bit weight is the stored one, quantized by bitsandbytes as at loading."""
    if transformers_internals.was_conv1d(one.layer):
        stored = stored.T
    same_shape = stored.shape == one.tensor.shape
    return same_shape and bitsandbytes_internals.is_8bit_of(one.tensor, one.layer, stored)


def _differ_from_load(inner: Any, folder: Path, unknown: Mapping[str, _Own], init: str) -> list[str]:
    """Return the names of `unknown` tensors that differ after the folder is loaded again.

    Their names in the files are other ones, so only a second load finds their stored values.
    """
    if not unknown:
        return []
    dtype = inner.dtype if inner.dtype.is_floating_point else None
    with transformers_internals.LOADING, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again, report = type(inner).from_pretrained(folder, dtype=dtype, use_safetensors=True, **REPORTED)
    drawn = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    there = again.state_dict()
    return [
        name
        for name, one in unknown.items()
        if name in drawn or name not in there or not _is_loaded_from(one, there[name], init)
    ]
