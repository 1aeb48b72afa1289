"""The loading report of `from_pretrained`: refuse a model whose weights are missing and would be random.

`from_pretrained` draws a tensor at random if the files lack it or have it in another shape; it only logs a warning. The
answers of such a model mean nothing. So ask for the report, and check it:

    model, report = AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True, ignore_mismatched_sizes=True, ...
    )
    require_whole(model, report, folder)

(`ignore_mismatched_sizes` puts a tensor of another shape into the report; without it there is a traceback.)

The files may have tensors for which the model has no place. They are ignored if they belong to another task's head
(masked language modelling, an LM head under a classifier) or are not weights (position ids, masks, rotary frequencies).
They are refused if they belong to the model: a layer more than the config describes, a bias that the config turns off,
an adapter that was not merged, or a second copy under the name of a wrapper. Without them it would be another model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlab.errors import BadInput
from ftlab.internals import bitsandbytes as bitsandbytes_internals
from ftlab.internals import peft as peft_internals
from ftlab.internals import transformers as transformers_internals
from ftlab.models import model_files
from ftlab.models.model_files import FLOATS, WRAPPERS
from ftlab.wording import some

if TYPE_CHECKING:
    from transformers import PreTrainedModel

REPORTED = {"output_loading_info": True, "ignore_mismatched_sizes": True}
POOLER = "pooler"  # after the layers of BERT and similar models; pretraining by masked words alone trains none
# Older versions of transformers saved these with the weights; newer ones compute them.
NO_WEIGHTS = re.compile(r"(^|\.)(position_ids|token_type_ids|inv_freq|masked_bias|attn\.bias|attention\.bias)$")
CLASSIFIERS = ("Classification", "MultipleChoice")  # parts of the names of their classes
MEND_CONFIG = "give it the config that it was trained with, or save it again"
SAVE = "save the whole model again with `save_pretrained`"


def require_whole(model: PreTrainedModel, report: Mapping[str, Any], name: str | Path) -> None:
    """Raise BadInput unless every tensor of `model` was loaded from its files.

    Refused are: missing tensors, tensors of another shape, weights that the model has no place for (see the module),
    integers instead of floats, NaN or infinite values, and two different tensors that the config ties into one
    (`tie_word_embeddings`): one library would use the first of them and another the second.

    Args:
        model: as loaded.
        report: the second result of `from_pretrained(..., **REPORTED)`.
        name: of the model, for error messages.
    """
    _require(model, report, name, may_be_fresh=set(), head_counts=True)


def start_fresh_head(model: PreTrainedModel, report: Mapping[str, Any], name: str | Path) -> dict[str, Any]:
    """Check a model as `require_whole` does, but let its head start at random, and a pooler that was not pretrained.

    The head is everything outside the pretrained body. The head of a trained classifier is drawn anew, whatever its
    size, because it was trained for other labels, and the config forgets its kind of loss (`problem_type`). All of
    these tensors must be trained, as `plans.freeze` does.

    Args:
        model: as loaded; its head may be drawn anew.
        report: the second result of `from_pretrained(..., **REPORTED)`.
        name: of the model, for error messages.

    Returns:
        The parameters that start at random, by name.
    """
    head = set(_head(model))
    pooler = {key for key in report["missing_keys"] if POOLER in key.split(".")}
    _require(model, report, name, may_be_fresh=head | pooler, head_counts=False)
    drawn = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    if _was_a_classifier(model):
        _draw_again(model)
        drawn |= head
    parameters = dict(model.named_parameters())
    fresh = {key: parameters[key] for key in parameters if key in drawn}
    model.fresh_tensors = frozenset(fresh)
    model.config.problem_type = None  # of the old head: with that of several labels the loss would be another one
    return fresh


def fresh_tensors(model: Any) -> frozenset[str]:
    """Return the names of the tensors of `model` that `start_fresh_head` left random; none if it was not called."""
    return getattr(model, "fresh_tensors", frozenset())


def _require(
    model: PreTrainedModel, report: Mapping[str, Any], name: str | Path, *, may_be_fresh: set[str], head_counts: bool
) -> None:
    folder = Path(model.name_or_path)
    stored = model_files.tensors(folder, str(name)) if folder.is_dir() else {}
    unexpected = sorted(report["unexpected_keys"])
    if missing := sorted(report["missing_keys"] - may_be_fresh):
        instead = f"its files hold {some(unexpected)} instead: {MEND_CONFIG}"
        raise BadInput(
            f"{name} lacks {len(missing)} of the {len(model.state_dict())} tensors of {type(model).__name__} "
            f"({some(missing)}), and transformers would draw them at random; "
            f"{_way_out(unexpected) or (SAVE if len(unexpected) < len(missing) else instead)}"
        )
    other = [(key, tuple(has), tuple(wants)) for key, has, wants in report["mismatched_keys"]]
    other += _other_shapes_in_4_bits(model, stored)
    if shapes := [one for one in other if one[0] not in may_be_fresh]:
        key, has, wants = min(shapes)
        more = f" and {len(shapes) - 1} more" if len(shapes) > 1 else ""
        raise BadInput(
            f"{name} holds {key}{more} in another shape than its config.json describes: {has} for {wants}; give it the "
            "config that it was trained with (id2label for a head, vocab_size for embeddings), or save it again"
        )
    if foreign := [key for key in unexpected if _belongs_to(model, key, head_counts)]:
        raise BadInput(
            f"{name} holds {some(foreign)}, for which the {type(model).__name__} that its config.json describes has no "
            f"place, and without them it would be another model; {_way_out(foreign) or MEND_CONFIG}"
        )
    if not _written(model).get("quantization_config") and (integers := sorted(_integers(model, stored))):
        raise BadInput(
            f"{name} stores {some(integers)} as {stored[integers[0]].dtype}, where a model has floats; a quantized "
            "model needs its quantization_config in config.json: save it again, or give what it was made from"
        )
    if apart := sorted(_tied_but_apart(model)):
        raise BadInput(
            f"the config.json of {name} ties {some(apart)} to the embeddings (tie_word_embeddings), and its files hold "
            "two different tensors, of which each library would take another; set tie_word_embeddings to false if both "
            "were trained, or save the model again"
        )
    if broken := _not_finite(model, may_be_fresh):
        raise BadInput(
            f"{name} holds numbers that are NaN or infinite in {broken}, as {model.dtype}; if its files are in another "
            "precision load it in that, else its training diverged: give an earlier checkpoint"
        )


def _head(model: PreTrainedModel) -> dict[str, Any]:
    """Return the tensors outside the pretrained body, by name; none if the model is a body."""
    if model.base_model is model:
        return {}
    body = {id(tensor) for tensor in (*model.base_model.parameters(), *model.base_model.buffers())}
    named = (*model.named_parameters(), *model.named_buffers())
    return {name: tensor for name, tensor in named if id(tensor) not in body}


def _was_a_classifier(model: PreTrainedModel) -> bool:
    """Return whether the files are those of a classifier, of texts or tokens, whose head was trained for its labels."""
    return any(kind in str(name) for name in _written(model).get("architectures") or () for kind in CLASSIFIERS)


def _written(model: PreTrainedModel) -> dict[str, Any]:
    """Return the config.json on disk; options of `from_pretrained` may have changed the model's own config."""
    path = Path(model.name_or_path) / "config.json"
    return model_files.read_json(path) if path.is_file() else {}


def _draw_again(model: PreTrainedModel) -> None:
    """Draw the head's weights by the architecture's own rule, as `from_pretrained` draws missing ones."""
    body = {id(module) for module in model.base_model.modules()}
    outside = [module for module in model.modules() if id(module) not in body and module is not model]
    transformers_internals.draw_weights(model, outside)


def _belongs_to(model: PreTrainedModel, key: str, head_counts: bool) -> bool:
    """Return whether a tensor without a place in the model belongs to the model all the same (see the module)."""
    if NO_WEIGHTS.search(key):
        return False
    body, prefix = model.base_model, f"{model.base_model_prefix}."
    parts = key.removeprefix(prefix).split(".")
    if parts[0] == POOLER:
        return False
    of_body = {name for name, _ in (*body.named_children(), *body.named_parameters(recurse=False))}
    if parts[0] in of_body or (key.startswith(prefix) and body is not model):
        return True
    if head_counts and parts[0] in {name for name, child in model.named_children() if child is not body}:
        return True
    if any(f".{wrapper}" in f".{key}" for wrapper in WRAPPERS):
        return True
    within = {f"{prefix}{name}" for name in body.state_dict()} | body.state_dict().keys()
    return any(".".join(parts[place:]) in within for place in range(len(parts)))  # a second copy of the body's


def _way_out(keys: list[str]) -> str | None:
    """Return what to do about files with `keys` that have no place in the model; None if the keys do not tell."""
    for prefix, (whose, inside) in WRAPPERS.items():
        if wrapped := [key for key in keys if f".{prefix}" in f".{key}"]:
            return (
                f"{wrapped[0]} is named as {whose} wraps a model: save the model inside (`save_pretrained` of {inside})"
            )
    if adapted := [key for key in keys if "lora_" in key or peft_internals.BASE_LAYER in key]:
        return f"{adapted[0]} is an adapter's, never merged: save the result of `merge_and_unload`"
    return None


def _integers(model: PreTrainedModel, stored: Mapping[str, model_files.Stored]) -> Iterator[str]:
    """Yield the names of tensors that are floats in the model and not in the files."""
    prefix = f"{model.base_model_prefix}."
    floats = {n for n, p in model.named_parameters() if p.is_floating_point() or bitsandbytes_internals.is_4bit(p)}
    for name, one in stored.items():
        if one.dtype not in FLOATS and floats & {name, prefix + name, name.removeprefix(prefix)}:
            yield name


def _other_shapes_in_4_bits(
    model: PreTrainedModel, stored: Mapping[str, model_files.Stored]
) -> Iterator[tuple[str, tuple[int, ...], tuple[int, ...]]]:
    """Yield layers that were quantized while loading from a matrix of another shape: the report leaves these out."""
    prefix = f"{model.base_model_prefix}."
    for name, module in model.named_modules():
        if not (hasattr(module, "in_features") and bitsandbytes_internals.is_4bit(getattr(module, "weight", None))):
            continue
        weight, wants = f"{name}.weight", (module.out_features, module.in_features)
        there = stored.get(weight) or stored.get(weight.removeprefix(prefix))
        both = (wants, wants[::-1])  # GPT-2's matrices are stored transposed
        if there is not None and there.dtype in FLOATS and there.shape not in both:
            yield weight, there.shape, wants


def _tied_but_apart(model: PreTrainedModel) -> set[str]:
    """Return tensors that the config ties and that `from_pretrained` did not tie, because they differ in the files."""
    return transformers_internals.tied_but_apart(model)


def _not_finite(model: PreTrainedModel, fresh: set[str]) -> str | None:
    """Return the name of the first tensor with a NaN or an infinity. A sum is quick, and shows both."""
    import torch

    for name, tensor in model.named_parameters():
        state = getattr(tensor, "quant_state", None)  # 4 bits: the largest value of each block, or their own scale
        values = tensor.detach() if state is None else state.offset if state.nested else state.absmax
        if name in fresh or values is None or not values.is_floating_point() or values.is_meta:
            continue
        if not values.sum(dtype=torch.float32).isfinite() and not values.isfinite().all():
            return name
    return None
