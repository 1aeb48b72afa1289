"""Several LoRA adapters on one base in memory: switch between them without loading, and mix them.

The base's weights are read once, and the active adapter adds its part in the forward pass. An adapter that changes the
base itself (trained biases, PiSSA) cannot be switched off, so it is refused where it would have to be. So is one that
brings a tokenizer of its own, for which the others were not trained.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlab.adapters import lora
from ftlab.adapters.config import INITS_THAT_LEAVE_THE_BASE
from ftlab.adapters.matching import Fit
from ftlab.errors import BadInput
from ftlab.internals import peft as peft_internals
from ftlab.models import loading

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase


def load(base: str, folders: Mapping[str, Path], *, dtype: torch.dtype | None = None) -> PeftModel:
    """Load a causal language model with several adapters; the first one is active.

    Args:
        base: a name or folder as for `loading.folder`.
        folders: of the adapters, by the names that they get.
        dtype: of the base; by default that of `loading.causal_lm`.

    Returns:
        The model in evaluation mode, with all parameters frozen.

    Raises:
        BadInput: as `lora.load` and `lora.own_tokenizer`; there is no adapter; PEFT cannot use a name; or one of
            several adapters changes the base's own weights, or was trained with another tokenizer than the first.
    """
    if not folders:
        raise BadInput("there are no adapters to load; name at least one, or load the base alone")
    for name, folder in folders.items():
        _require_name(name)
        lora.require_base(folder, base)
    loaded: Any = loading.causal_lm(base, dtype=dtype)
    fitting = {name: lora.require_fit(loaded, folder, base) for name, folder in folders.items()}
    own = {name: reason for name, fitted in fitting.items() if (reason := _brings_embeddings(loaded, fitted))}
    for name, fitted in fitting.items():
        loaded = lora.attach(loaded, fitted, name)
        loaded.brought_embeddings = own
        if len(fitting) > 1 and (reason := _changes_the_base(loaded, name)):
            raise BadInput(f"the adapter {name!r} {reason}, so no other one can use that base; load it alone")
        _require_answers(loaded, name, folders[name])
    loaded.brought_tokenizer = _one_tokenizer(base, fitting)
    return loaded.requires_grad_(False).eval()


def tokenizer(base: str, model: Any) -> PreTrainedTokenizerBase:
    """Return the tokenizer of `model`, loaded by `load` from `base`: that of its adapters if they bring their own.

    Its chat template is that of the base in any case: each adapter is asked in the one in its own folder.
    """
    usual = loading.tokenizer(base)
    own = getattr(model, "brought_tokenizer", None)
    if own is None:
        return usual
    own.chat_template = usual.chat_template
    if own.pad_token_id >= len(model.get_input_embeddings().weight) and own.eos_token is not None:
        own.pad_token = own.eos_token  # padding is masked, so any token with an embedding row serves
    return own


def _one_tokenizer(base: str, fitting: Mapping[str, Fit]) -> PreTrainedTokenizerBase | None:
    """Return the tokenizer that all adapters bring, or None for that of `base`. Raises BadInput if they differ."""
    folder, rows = loading.folder(base), loading.config(base).get_text_config().vocab_size
    brought = {name: lora.own_tokenizer(fitted, folder, rows) for name, fitted in fitting.items()}
    first = next(iter(brought))
    for name, one in brought.items():
        if not lora.same_tokens(brought[first], one):
            raise BadInput(
                f"the adapters {first!r} and {name!r} were trained with tokenizers that have other tokens, or another "
                "BOS or EOS, than each other (see their folders), so they cannot share a model; load each by itself"
            )
    return brought[first]


def names(model: Any) -> list[str]:
    """Return the names of the adapters of `model`, in the order in which they were added; none without PEFT."""
    return list(getattr(model, "peft_config", {}))


def active(model: Any) -> str | None:
    """Return the name of the active adapter of `model`, or None for the base alone."""
    off = all(layer.disable_adapters for layer in peft_internals.adapted_layers(model))
    return None if off else str(model.active_adapter)


def use(model: Any, name: str | None) -> None:
    """Activate only the adapter `name` of `model`, or with None no adapter. Which parameters train does not change.

    Raises BadInput for an unknown name, and for None if an adapter has changed the base itself or its tokenizer.
    """
    if name is None and not names(model):
        return
    if name is not None:
        _require_known(model, [name])
        with _keep_trainability(model):
            model.base_model.enable_adapter_layers()
            model.set_adapter(name)
        return
    for other in names(model):
        own = "has a tokenizer of its own" if getattr(model, "brought_tokenizer", None) else None
        if reason := _changes_the_base(model, other) or own:
            raise BadInput(
                f"the adapter {other!r} {reason}, so the base cannot run without it; load the base without adapters"
            )
    with _keep_trainability(model):
        model.base_model.disable_adapter_layers()


def mix(model: Any, name: str, weights: Mapping[str, float]) -> None:
    """Add to `model` the adapter `name`: the sum of other adapters, each times its weight. The active one stays active.

    A layer with W + s1 B1 A1 and W + s2 B2 A2 becomes W + w1 s1 B1 A1 + w2 s2 B2 A2, exact but for rounding to the
    base's dtype. PEFT's `add_weighted_adapter` with "cat" stacks the factors, so its rank is the sum of the ranks.
    ("linear" adds the factors instead, and so multiplies A1 with B2, which were not trained together.)

    Args:
        model: of `load`.
        name: of the new adapter.
        weights: finite numbers by the names of at least two adapters.

    Raises:
        BadInput: an argument is none of these, or an adapter is more than a sum of matrices: DoRA, modules or biases
            that were trained too, other target modules.
    """
    _require_name(name)
    if name in names(model):
        raise BadInput(f"there is an adapter {name!r} already ({', '.join(names(model))}); give the mixture a new name")
    _require_known(model, weights)
    if len(weights) < 2:
        raise BadInput(f"a mixture needs at least two adapters, and {len(weights)} is named; name more of them")
    for each, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not math.isfinite(weight):
            raise BadInput(f"the weight of {each!r} is {weight!r}; expected a finite number")
        if reason := _why_no_sum(model, each):
            raise BadInput(f"the adapter {each!r} {reason}, so it cannot be mixed with others; leave it out")
    first, *others = weights
    wrapped = peft_internals.lora_layers(model, first)
    for other in others:
        if (found := peft_internals.lora_layers(model, other)) != wrapped:
            raise BadInput(
                f"{first!r} adapts {len(wrapped)} modules and {other!r} {len(found)}, and they are not the same; mix "
                "adapters with equal target_modules"
            )
    with _keep_trainability(model):
        try:
            model.base_model.add_weighted_adapter(list(weights), list(weights.values()), name, combination_type="cat")
        except (ValueError, TypeError) as problem:
            if name in names(model):
                model.delete_adapter(name)
            raise BadInput(f"{', '.join(weights)} cannot be mixed ({problem}); leave one out") from problem
    # The factors contain the scales. PEFT copies the first config; with that of rsLoRA it would scale the sum again.
    model.peft_config[name].use_rslora = False
    for layer in peft_internals.lora_layers(model, name).values():
        peft_internals.set_scaling(layer, name, 1.0)


def _changes_the_base(model: Any, name: str) -> str | None:
    """Return how an adapter changes the base itself, as the predicate of a sentence; None if it does not."""
    config = model.peft_config[name]
    if config.bias != "none":
        return f"has trained the base's own biases (bias={config.bias!r})"
    if str(config.init_lora_weights) not in INITS_THAT_LEAVE_THE_BASE:
        return f"starts from a part of the base's weights (init_lora_weights={config.init_lora_weights!r})"
    return getattr(model, "brought_embeddings", {}).get(name)


def _brings_embeddings(model: Any, fitted: Fit) -> str | None:
    """Return how an adapter changes the base's embeddings, as the predicate of a sentence; None if it does not."""
    import torch

    if fitted.vocabulary is not None:
        return f"has a vocabulary of its own ({fitted.vocabulary:,} tokens)"
    held = fitted.adapter.tensors() if fitted.unasked else {}
    for name in sorted(fitted.unasked):
        own = model.get_parameter(name)
        if not torch.equal(held[fitted.whole[name]].to(own.device, own.dtype), own):
            return f"contains its own {name}, which it has not trained"
    return None


def _require_answers(model: Any, name: str, folder: Path) -> None:
    """Raise BadInput if the model's numbers overflow with this adapter."""
    import torch

    with torch.inference_mode():
        before = active(model)
        use(model, name)
        found = model(input_ids=torch.tensor([[0, 1, 2, 3]], device=model.device)).logits
        use(model, before)
    lora.require_answers(found, f"with the adapter in {folder}")


def _why_no_sum(model: Any, name: str) -> str | None:
    """Return why an adapter is more than a matrix added to a weight, as the predicate of a sentence; None if not."""
    config = model.peft_config[name]
    if config.use_dora:
        return "is a DoRA, which scales the whole weight and adds no matrix"
    if config.modules_to_save:
        return f"has trained whole modules too ({', '.join(config.modules_to_save)})"
    if config.lora_bias:
        return "has biases of its own (lora_bias)"
    return _changes_the_base(model, name)


def _require_known(model: Any, wanted: Sequence[str] | Mapping[str, float]) -> None:
    there = names(model)
    for name in wanted:
        if name not in there:
            raise BadInput(f"there is no adapter {name!r}; there {_are(there)}")


def _are(there: Sequence[str]) -> str:
    return f"are {', '.join(there)}" if len(there) > 1 else f"is {there[0]}" if there else "are none, only the base"


def _require_name(name: str) -> None:
    """Raise BadInput for a name that cannot be part of a parameter's name."""
    import torch

    taken = hasattr(torch.nn.ModuleDict(), name) or hasattr(torch.nn.ParameterDict(), name) if name else True
    if taken or "." in name:
        raise BadInput(f"an adapter cannot have the name {name!r}; choose another, without a dot")


@contextmanager
def _keep_trainability(model: Any) -> Iterator[None]:
    """Keep which parameters train: PEFT makes an adapter trainable when it activates it. New ones do not train."""
    before = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    try:
        yield
    finally:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in before)
