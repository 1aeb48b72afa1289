"""Check that an adapter fits a model: its file has exactly the tensors that its config asks for, each in its shape.

PEFT loads what it finds, and only warns of tensors that are missing or unexpected; the adapter then gives other
answers. To know the expected tensors, PEFT wraps the model without its weights (on PyTorch's meta device): the names
and shapes that it would save are those that the file must have.
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
from ftlab.adapters.targets import layer_kind, trained_in_full
from ftlab.adapters.tensors import Adapter, rank_of, with_or_without_body
from ftlab.errors import BadInput
from ftlab.internals.peft import BASE_LAYER, COPIES, PART, PREFIX
from ftlab.models import meta
from ftlab.wording import one_line, shown, some

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Fit:
    """An adapter that fits a model, with the keys of its tensors by purpose.

    `parts` has the keys of a module's factors by the module's name: A, B, M (DoRA's magnitude) and bias (that of B).
    `whole` has the keys of tensors that replace the model's, by the tensor's name. `unasked` are those of them that
    are embeddings and that the config does not train: PEFT saved the base's own, or those of a resized vocabulary.
    `vocabulary` is the adapter's number of tokens, if the model has another.
    """

    adapter: Adapter
    parts: Mapping[str, Mapping[str, str]]
    whole: Mapping[str, str]
    unasked: frozenset[str]
    vocabulary: int | None

    def named_as(self, wrapped: Any) -> dict[str, torch.Tensor]:
        """Return the adapter's tensors by the names that PEFT loads into `wrapped`, the model with this adapter."""
        held = self.adapter.tensors()
        there = {name.removeprefix(PREFIX) for name, _ in wrapped.named_parameters(remove_duplicate=False)}
        named = {}
        for name, key in self.whole.items():
            module, _, last = name.rpartition(".")
            inside = f"{module}{BASE_LAYER}{last}"  # if PEFT has put a layer of its own around it
            named[PREFIX + (inside if inside in there else name)] = held[key]
        for module, keys in self.parts.items():
            for key in keys.values():
                found = PART.fullmatch(key.removeprefix(PREFIX))
                assert found is not None  # else it would not be a part
                named[f"{PREFIX}{module}{key.removeprefix(PREFIX + found['module'])}"] = held[key]
        return named


def fit(adapter: Adapter, model: Any, base: Any, *, tokens: Callable[[], int] = int) -> Fit:
    """Check that an adapter fits a model, and sort the keys of its tensors.

    Args:
        adapter: as read from its folder.
        model: without an adapter; it may be without weights, and is not changed.
        base: the name of the model in messages.
        tokens: returns the number of tokens of the tokenizer.

    Returns:
        The adapter with its keys by purpose.

    Raises:
        BadInput: a tensor is missing, unexpected, or of another shape; the vocabulary is smaller than the tokenizer's;
            or the adapter is for another kind of model.
    """
    architecture = type(model).__name__
    adapter_config.require_patterns(
        adapter.config, [name for name, _ in model.named_modules()], adapter.folder / CONFIG
    )
    names = _ModelNames(adapter, model, base)
    parts, given, copies = names.sorted()
    vocabulary = _vocabulary(names, given, tokens)
    adapter_config.require_task(adapter.config, architecture, adapter.folder, base)
    trained_in_full(model, adapter.config)  # refuses a module that does not exist, which PEFT would ignore
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
    """The shapes of an adapter's tensors, by module and part or by the tensor's name, and of the model's embeddings."""

    parts: Mapping[str, Mapping[str, tuple[int, ...]]]
    whole: Mapping[str, tuple[int, ...]]
    embeddings: Mapping[str, tuple[int, ...]]


def _expected(adapter: Adapter, model: Any, vocabulary: int | None) -> _Expected:
    """Return the shapes of what PEFT would save of the model, wrapped with the adapter's config."""
    import torch
    from peft import get_peft_model, get_peft_model_state_dict

    config = copy.deepcopy(adapter.config)
    config.init_lora_weights = True  # another one would read weights, and there are none
    config.inference_mode = False  # in inference mode PEFT leaves biases out
    with torch.device("meta"), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hollow = meta.from_model(model)
        if vocabulary is not None:
            hollow.resize_token_embeddings(vocabulary, mean_resizing=False)
        sizes = {name: tuple(each.shape) for name, each in embeddings(hollow).items()}
        try:
            wrapped = get_peft_model(hollow, config)
            saved = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
        except Exception as problem:  # PEFT raises many classes for a config that does not fit a model
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
    """Return the tensors of `model` that have a row for each token, by name: input embedding and output layer."""
    ends = [layer for layer in (model.get_input_embeddings(), model.get_output_embeddings()) if layer is not None]
    return {
        f"{name}.{last}": tensor
        for name, module in model.named_modules()
        if any(module is layer for layer in ends)
        for last, tensor in module.named_parameters(recurse=False)
    }


def _part(found: re.Match[str]) -> str:
    return found["letter"] or found["embedding"] or ("M" if found["m"] else "bias")


class _ModelNames:
    """Finds the name in the model of each key of the adapter."""

    def __init__(self, adapter: Adapter, model: Any, base: Any) -> None:
        self.adapter, self.base, self.architecture = adapter, base, type(model).__name__
        self.body = getattr(model, "base_model_prefix", "")
        self.modules = dict(model.named_modules())
        self.tensors = {*dict(model.named_parameters(remove_duplicate=False)), *dict(model.named_buffers())}
        self.embeddings = {name: tuple(tensor.shape) for name, tensor in embeddings(model).items()}

    def sorted(self) -> tuple[dict[str, dict[str, str]], dict[str, str], dict[tuple[str, str], str]]:
        """Return the keys by module and part, by whole tensor, and those of PEFT's copies of a trained embedding."""
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
                f"{self.adapter.folder / WEIGHTS} holds {shown(there[name])} and {shown(key)}, which have the same "
                "place in the model; save the adapter again"
            )
        there[name] = key

    def _own(self, name: str) -> str | None:
        """Return the model's spelling of the tensor `name`, or None."""
        return next((each for each in with_or_without_body(name, self.body) if each in self.tensors), None)

    def _module(self, name: str, key: str) -> str:
        """Return the model's spelling of the module `name`. Raises BadInput unless it is of an adaptable kind."""
        spellings = with_or_without_body(name, self.body)
        own = next((each for each in spellings if f"{each}.weight" in self.tensors), None)
        if own is None:
            self._unmatched(name, key)
        module = self.modules[own]
        if layer_kind(module) is None:
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
        """Raise BadInput unless the factors of `module` in the file (`keys`) are the `wanted` ones of the config."""
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
        """Raise BadInput: the tensor `key` has another shape than its place in the model, `size`."""
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
        """Raise BadInput unless PEFT's copies of a trained embedding equal the tensor itself.

        PEFT saves a resized embedding that it trains three times: as the tensor itself, as its trained copy, and as
        it was before training, which nothing reads.
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
                        "equal, and differ; save the adapter again"
                    )


def _vocabulary(names: _ModelNames, whole: Mapping[str, str], tokens: Callable[[], int]) -> int | None:
    """Return the number of tokens of the adapter's own embeddings, or None if it is that of the model."""
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
