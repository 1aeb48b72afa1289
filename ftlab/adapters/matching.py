"""Whether an adapter's tensors are exactly those that its config asks of a model: one rule for all who use it.

PEFT loads what it finds and only warns of what is missing, strange or left over; such an adapter answers, and answers
something else. What should be there is found by letting PEFT wrap the model without its weights (PyTorch's meta
device): the names and shapes that it would save are those that the file has to have.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from ftlab.adapters import config as adapter_config
from ftlab.adapters import tensors as adapter_tensors
from ftlab.adapters.config import CONFIG, WEIGHTS
from ftlab.adapters.targets import trained_in_full
from ftlab.adapters.tensors import Adapter, rank_of
from ftlab.errors import BadInput
from ftlab.internals.peft import BASE_LAYER, COPIES, PART, PREFIX
from ftlab.models import meta
from ftlab.wording import one_line, shown, some

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Fit:
    """An adapter that fits a model, its keys by what they are.

    `parts` has the keys of a module's factors by the module's name: A, B, M (DoRA's magnitude) and bias (that of B).
    `whole` has the keys of tensors that take the place of the model's, by the tensor's name. Of these, `unasked` are
    embeddings that PEFT saved although the config trains none: they may be the base's own, or a resized vocabulary's.
    `vocabulary` is the number of tokens that the adapter brings, where the model has another.
    """

    adapter: Adapter
    parts: Mapping[str, Mapping[str, str]]
    whole: Mapping[str, str]
    unasked: frozenset[str]
    vocabulary: int | None

    def named_as(self, wrapped: Any) -> dict[str, torch.Tensor]:
        """The adapter's tensors under the names that PEFT loads into `wrapped`, the model with this adapter."""
        held = self.adapter.tensors()
        there = {name.removeprefix(PREFIX) for name, _ in wrapped.named_parameters(remove_duplicate=False)}
        named = {}
        for name, key in self.whole.items():
            module, _, last = name.rpartition(".")
            inside = f"{module}{BASE_LAYER}{last}"  # where PEFT has put a layer of its own around it
            named[PREFIX + (inside if inside in there else name)] = held[key]
        for module, keys in self.parts.items():
            for key in keys.values():
                found = PART.fullmatch(key.removeprefix(PREFIX))
                assert found is not None  # or it would be no part
                named[f"{PREFIX}{module}{key.removeprefix(PREFIX + found['module'])}"] = held[key]
        return named


def fit(adapter: Adapter, model: Any, base: Any, *, tokens: Callable[[], int] = int) -> Fit:
    """Hold an adapter against a model that has none; `model` is not changed, and may be without weights.

    `base` names the model in sentences, `tokens` tells how many tokens its tokenizer has. Raises BadInput, by name, for
    a tensor that is missing, left over, of no module of the model's or of another shape, for a vocabulary that does
    not hold the tokens, and for another kind of model.
    """
    architecture = type(model).__name__
    adapter_config.require_patterns(adapter.config, [name for name, _ in model.named_modules()], adapter.folder)
    names = _Names(adapter, model, base)
    parts, given, copies = names.sorted()
    vocabulary = _vocabulary(names, given, tokens)
    adapter_config.require_task(adapter.config, architecture, adapter.folder, base)
    trained_in_full(model, adapter.config)  # or PEFT passes over a module that there is not
    expected = _expected(adapter, model, vocabulary)
    whole, unasked = {}, set()
    for name, key in given.items():
        if name in expected.whole:
            whole[name] = key
        elif name in names.embeddings:
            whole[name] = key
            unasked.add(name)
        else:
            raise BadInput(
                f"{adapter.folder / WEIGHTS} holds {shown(key)}, and its {CONFIG} trains no {name}; the two files are "
                "not of one adapter: save it again"
            )
    for module, keys in parts.items():
        names.require_parts(module, keys, expected.parts.get(module))
    if lacking := sorted({*expected.parts} - {*parts} | {*expected.whole} - {*whole}):
        raise BadInput(
            f"{adapter.folder / WEIGHTS} holds nothing for {some(lacking)}, which its {CONFIG} names: the adapter is "
            "not of one piece, saved only in part or for another model; save it again"
        )
    sizes = {key: expected.parts[module][part] for module, keys in parts.items() for part, key in keys.items()}
    resized = names.embeddings if vocabulary is None else expected.embeddings
    sizes |= {key: expected.whole.get(name) or resized[name] for name, key in whole.items()}
    for key, size in sizes.items():
        if adapter.shapes[key] != size:
            names.refuse_shape(key, size)
    names.require_copies(copies, whole)
    adapter_tensors.require_range(adapter, parts)
    return Fit(adapter, parts, whole, frozenset(unasked), vocabulary)


@dataclass(frozen=True)
class _Expected:
    """The shapes of an adapter's tensors, by module and part or by the tensor's name; those of embeddings as well."""

    parts: Mapping[str, Mapping[str, tuple[int, ...]]]
    whole: Mapping[str, tuple[int, ...]]
    embeddings: Mapping[str, tuple[int, ...]]


def _expected(adapter: Adapter, model: Any, vocabulary: int | None) -> _Expected:
    """What PEFT would save of a model that is wrapped with the adapter's config."""
    import torch
    from peft import get_peft_model, get_peft_model_state_dict

    config = copy.deepcopy(adapter.config)
    config.init_lora_weights = True  # another one would look at weights, and there are none
    config.inference_mode = False  # with it PEFT leaves biases out
    with torch.device("meta"), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hollow = meta.from_model(model)
        if vocabulary is not None:
            hollow.resize_token_embeddings(vocabulary, mean_resizing=False)
        sizes = {name: tuple(each.shape) for name, each in embeddings(hollow).items()}
        try:
            wrapped = get_peft_model(hollow, config)
            saved = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
        except Exception as problem:  # PEFT has many classes for a config that does not fit a model
            raise BadInput(
                f"{adapter.folder / CONFIG} does not fit the model, a {type(model).__name__} ({one_line(problem)}); "
                "give the model that the adapter was trained on, or save the adapter again"
            ) from problem
    parts: dict[str, dict[str, tuple[int, ...]]] = {}
    whole = {}
    for key, tensor in saved.items():
        name = key.removeprefix(PREFIX)
        if found := PART.fullmatch(name):
            parts.setdefault(found["module"], {})[_part(found)] = tuple(tensor.shape)
        else:
            whole[name.replace(BASE_LAYER, ".")] = tuple(tensor.shape)
    return _Expected(parts, whole, sizes)


def embeddings(model: Any) -> dict[str, torch.Tensor]:
    """The tensors that have a row for each token, by name: of the input embedding and of the output layer."""
    ends = [layer for layer in (model.get_input_embeddings(), model.get_output_embeddings()) if layer is not None]
    return {
        f"{name}.{last}": tensor
        for name, module in model.named_modules()
        if any(module is layer for layer in ends)
        for last, tensor in module.named_parameters(recurse=False)
    }


def _part(found: re.Match[str]) -> str:
    return found["letter"] or found["embedding"] or ("M" if found["m"] else "bias")


class _Names:
    """From the adapter's keys to the model's names."""

    def __init__(self, adapter: Adapter, model: Any, base: Any) -> None:
        self.adapter, self.base, self.architecture = adapter, base, type(model).__name__
        self.body = f"{getattr(model, 'base_model_prefix', '')}."
        self.modules = dict(model.named_modules())
        self.tensors = {*dict(model.named_parameters(remove_duplicate=False)), *dict(model.named_buffers())}
        self.embeddings = {name: tuple(tensor.shape) for name, tensor in embeddings(model).items()}

    def sorted(self) -> tuple[dict[str, dict[str, str]], dict[str, str], dict[tuple[str, str], str]]:
        """The keys by module and part, by whole tensor, and of PEFT's two copies of an embedding that it trains."""
        parts: dict[str, dict[str, str]] = {}
        whole: dict[str, str] = {}
        copies: dict[tuple[str, str], str] = {}
        for key in self.adapter.shapes:
            name = key.removeprefix(PREFIX)
            if name == key:
                raise BadInput(
                    f"{shown(key)} in {self.adapter.folder / WEIGHTS} does not begin with {PREFIX}, as PEFT's keys do; "
                    "save the adapter with PEFT's `save_pretrained`"
                )
            if found := PART.fullmatch(name):
                self._add(parts.setdefault(self._module(found["module"], key), {}), _part(found), key)
            elif (found := COPIES.fullmatch(name)) and (own := self._own(f"{found['module']}.{found['last']}")):
                self._add(copies, (found["kind"], own), key)
            else:
                own = self._own(name.replace(BASE_LAYER, "."))
                self._add(whole, own or self._unmatched(name, key), key)
        return parts, whole, copies

    def _add(self, there: dict[Any, str], name: Any, key: str) -> None:
        if name in there:
            raise BadInput(
                f"{self.adapter.folder / WEIGHTS} holds {shown(there[name])} and {shown(key)}, which are of one place "
                "in the model; save the adapter again"
            )
        there[name] = key

    def _variants(self, name: str) -> tuple[str, ...]:
        """An adapter of the body alone leaves away the body's name: transformer.h.0 is h.0 there."""
        return (name,) if self.body == "." else (name, name.removeprefix(self.body), self.body + name)

    def _own(self, name: str) -> str | None:
        return next((each for each in self._variants(name) if each in self.tensors), None)

    def _module(self, name: str, key: str) -> str:
        own = next((each for each in self._variants(name) if f"{each}.weight" in self.tensors), None)
        if own is None:
            self._unmatched(name, key)
        module = self.modules[own]
        if not _can_be_adapted(module):
            raise BadInput(
                f"{self.adapter.folder} changes {own}, a {type(module).__name__}, and only Linear, Conv1D and "
                "Embedding layers can have factors here; use PEFT itself"
            )
        return own

    def _unmatched(self, name: str, key: str) -> NoReturn:
        kind = adapter_config.other_kind(self.adapter.config, self.architecture)
        raise BadInput(
            f"{shown(key)} of {self.adapter.folder} names {shown(name)}, and the base {self.base} (a "
            f"{self.architecture}) has none; merge the adapter into the model that it was trained on"
            f"{f', {kind},' if kind else ''} or load it with that"
        )

    def require_parts(self, module: str, keys: Mapping[str, str], wanted: Mapping[str, Any] | None) -> None:
        """Raise BadInput unless the module's factors are those that the config asks for."""
        path = self.adapter.folder / WEIGHTS
        if wanted is None:
            raise BadInput(
                f"{path} holds {shown(min(keys.values()))}, and its {CONFIG} does not name that module: the adapter is "
                "not of one piece; save it again"
            )
        if keys.keys() != wanted.keys():
            raise BadInput(
                f"{path} holds {some(sorted(keys.values()))} and should hold {len(wanted)} tensors for {module} "
                "(lora_A, lora_B, and lora_magnitude_vector for DoRA alone); save the adapter again"
            )

    def refuse_shape(self, key: str, size: tuple[int, ...]) -> NoReturn:
        """Raise BadInput for a tensor of another shape than its place in the model."""
        rank = f" for rank {self._rank(key)}" if ".lora_" in key else ""
        raise BadInput(
            f"the adapter in {self.adapter.folder} has other shapes than the model (size mismatch for {shown(key)}: it "
            f"is {self.adapter.shapes[key]}, expected {size}{rank} and {self.base}); give the model that it was "
            "trained on, with as many tokens in its vocabulary"
        )

    def _rank(self, key: str) -> Any:
        found = PART.fullmatch(key.removeprefix(PREFIX))
        return rank_of(self.adapter.config, found["module"] if found else "")

    def require_copies(self, copies: Mapping[tuple[str, str], str], whole: Mapping[str, str]) -> None:
        """Raise BadInput unless PEFT's copies of a trained embedding say the same as the tensor beside them.

        PEFT saves a resized embedding that it trains three times: as it is used, under the copy's own name, and the
        one from before training, which nothing reads.
        """
        import torch
        from safetensors import safe_open

        with safe_open(self.adapter.folder / WEIGHTS, framework="pt") as file:
            for (kind, name), key in copies.items():
                if name not in whole:
                    self._unmatched(key.removeprefix(PREFIX), key)
                if self.adapter.shapes[key] != self.adapter.shapes[whole[name]]:
                    self.refuse_shape(key, self.adapter.shapes[whole[name]])
                if kind == "modules_to_save" and not torch.equal(file.get_tensor(key), file.get_tensor(whole[name])):
                    raise BadInput(
                        f"{self.adapter.folder / WEIGHTS} holds {shown(whole[name])} and {shown(key)}, which should be "
                        "one tensor and differ; save the adapter again"
                    )


def _vocabulary(names: _Names, whole: Mapping[str, str], tokens: Callable[[], int]) -> int | None:
    """How many tokens the adapter's own embeddings have, where that is another number than the model's."""
    brought = {name: names.adapter.shapes[whole[name]] for name in names.embeddings if name in whole}
    others = {name: size for name, size in brought.items() if size[:1] != names.embeddings[name][:1]}
    if not others:
        return None
    name, size = next(iter(others.items()))
    inputs = [each for each in names.embeddings if each in brought]
    if len(size) == 0 or len(inputs) < len(names.embeddings) or len({each[:1] for each in brought.values()}) > 1:
        names.refuse_shape(whole[name], names.embeddings[name])
    if size[0] < (needed := max(tokens(), 1)):
        raise BadInput(
            f"the adapter in {names.adapter.folder} has other shapes than the model (size mismatch for "
            f"{shown(whole[name])}: a vocabulary of {size[0]:,}, and with its pad token the tokenizer of {names.base} "
            f"has {needed:,} tokens); merge the adapter into its base (`ftlab merge`), and use the merged model"
        )
    return size[0]


def _can_be_adapted(module: Any) -> bool:
    import torch
    from transformers import Conv1D

    return isinstance(module, torch.nn.Linear | torch.nn.Embedding | Conv1D)
