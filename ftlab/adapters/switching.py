"""Several LoRA adapters on one base in memory: switched without loading, and mixed.

The base's weights are read once, and an adapter adds a few numbers to them as the model runs. So whatever changes the
base itself (trained biases, PiSSA) cannot be switched off, and is refused here, by name, where it would be.
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
    """The causal language model `base` with an adapter from each folder, under its name; the first one is switched on.

    In evaluation mode, and nothing of it trains. Raises BadInput as `adapters.load` does, for a name that PEFT cannot
    take, and for an adapter that changes the base's own weights beside another one.
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
            raise BadInput(f"the adapter {name!r} {reason}, so no other one can stand on that base; load it alone")
        _require_answers(loaded, name, folders[name])
    return loaded.requires_grad_(False).eval()


def tokenizer(base: str, folders: Mapping[str, Path], model: Any) -> PreTrainedTokenizerBase:
    """The tokenizer of a model that `load` gave: that of `base`, but beside an adapter with a vocabulary of its own."""
    for name, folder in folders.items():
        if name in getattr(model, "brought_embeddings", {}):  # then it is the only one
            return lora.tokenizer(Path(folder).expanduser(), base)
    return loading.tokenizer(base)


def names(model: Any) -> list[str]:
    """The names of the model's adapters, in the order in which they came; none for a model without PEFT."""
    return list(getattr(model, "peft_config", {}))


def active(model: Any) -> str | None:
    """The name of the adapter that is switched on; None for the base alone."""
    off = all(layer.disable_adapters for layer in peft_internals.adapted_layers(model))
    return None if off else str(model.active_adapter)


def use(model: Any, name: str | None) -> None:
    """Switch an adapter on, alone, or with None all of them off. What trains in the model stays as it is.

    Raises BadInput for a name that there is not, and for None where an adapter has changed the base itself.
    """
    if name is None and not names(model):
        return
    if name is not None:
        _require_known(model, [name])
        with _training_as_it_is(model):
            model.base_model.enable_adapter_layers()
            model.set_adapter(name)
        return
    for other in names(model):
        if reason := _changes_the_base(model, other):
            raise BadInput(
                f"the adapter {other!r} {reason}, so the base is not there without it; load the base without adapters"
            )
    with _training_as_it_is(model):
        model.base_model.disable_adapter_layers()


def mix(model: Any, name: str, weights: Mapping[str, float]) -> None:
    """Add an adapter `name` that does what the named adapters do, each times its weight, all in one.

    For a layer with W + s1 B1 A1 and W + s2 B2 A2 it is W + w1 s1 B1 A1 + w2 s2 B2 A2, exactly, but for
    rounding to the base's dtype: PEFT's `add_weighted_adapter` with "cat" stacks the factors, so that its rank is the
    sum of theirs. ("linear" adds the factors instead, and so multiplies A1 with B2, which nobody trained.) Which
    adapter is on stays as it is.

    Raises BadInput for fewer than two adapters, weights that are no finite numbers, a name that is taken, and adapters
    that no sum of matrices describes: DoRA, whole modules or biases trained beside, other target modules.
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
        if reason := _no_sum(model, each):
            raise BadInput(f"the adapter {each!r} {reason}, so it cannot be mixed with others; leave it out")
    first, *others = weights
    wrapped = peft_internals.lora_layers(model, first)
    for other in others:
        if (found := peft_internals.lora_layers(model, other)) != wrapped:
            raise BadInput(
                f"{first!r} adapts {len(wrapped)} modules and {other!r} {len(found)}, which are not the same ones; mix "
                "adapters with equal target_modules"
            )
    with _training_as_it_is(model):
        try:
            model.base_model.add_weighted_adapter(list(weights), list(weights.values()), name, combination_type="cat")
        except (ValueError, TypeError) as problem:
            if name in names(model):
                model.delete_adapter(name)
            raise BadInput(f"{', '.join(weights)} cannot be mixed ({problem}); leave one out") from problem
    # The factors hold the scales. PEFT copies the first config, and under rsLoRA's would scale the sum once more.
    model.peft_config[name].use_rslora = False
    for layer in peft_internals.lora_layers(model, name).values():
        peft_internals.set_scaling(layer, name, 1.0)


def _changes_the_base(model: Any, name: str) -> str | None:
    """How an adapter changes the base itself, as the rest of a sentence; None if it does not."""
    config = model.peft_config[name]
    if config.bias != "none":
        return f"has trained the base's own biases (bias={config.bias!r})"
    if str(config.init_lora_weights) not in INITS_THAT_LEAVE_THE_BASE:
        return f"takes its beginning out of the base's weights (init_lora_weights={config.init_lora_weights!r})"
    return getattr(model, "brought_embeddings", {}).get(name)


def _brings_embeddings(model: Any, fitted: Fit) -> str | None:
    """How an adapter's file changes the embeddings of the base, as the rest of a sentence; None if it does not."""
    import torch

    if fitted.vocabulary is not None:
        return f"has a vocabulary of its own ({fitted.vocabulary:,} tokens)"
    held = fitted.adapter.tensors() if fitted.unasked else {}
    for name in sorted(fitted.unasked):
        own = model.get_parameter(name)
        if not torch.equal(held[fitted.whole[name]].to(own.device, own.dtype), own):
            return f"brings {name} of its own, which it has not trained"
    return None


def _require_answers(model: Any, name: str, folder: Path) -> None:
    """Raise BadInput when the model's numbers overflow with the adapter on."""
    import torch

    with torch.inference_mode():
        before = active(model)
        use(model, name)
        found = model(input_ids=torch.tensor([[0, 1, 2, 3]], device=model.device)).logits
        use(model, before)
    lora.require_answers(found, f"with the adapter in {folder}")


def _no_sum(model: Any, name: str) -> str | None:
    """Why an adapter is more than a product of matrices added to a weight, as the rest of a sentence."""
    config = model.peft_config[name]
    if config.use_dora:
        return "is a DoRA, which scales the whole weight and adds no matrix"
    if config.modules_to_save:
        return f"has trained whole modules beside ({', '.join(config.modules_to_save)})"
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
    """Raise BadInput for a name that cannot stand in the path of a parameter."""
    import torch

    taken = hasattr(torch.nn.ModuleDict(), name) or hasattr(torch.nn.ParameterDict(), name) if name else True
    if taken or "." in name:
        raise BadInput(f"an adapter cannot have the name {name!r}; take another, without a dot")


@contextmanager
def _training_as_it_is(model: Any) -> Iterator[None]:
    """Keep which parameters train: PEFT makes an adapter trainable as it is switched on. New ones do not train."""
    before = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    try:
        yield
    finally:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in before)
