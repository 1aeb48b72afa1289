"""What `from_pretrained` found and what it made up: its loading report, held against what may be missing.

A tensor that the files lack, or hold in another shape, `from_pretrained` draws at random; it warns of that in its log,
and goes on. A model that answers with such a tensor answers at random. So ask for the report, and hand it on:

    model, report = AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True, ignore_mismatched_sizes=True, ...
    )
    require_whole(model, report, folder)

(`ignore_mismatched_sizes` puts a tensor of another shape into the report; without it there is a traceback.)

What the files hold beyond the model is set aside where it belongs to another task's head (of masked words, a language
model's head under a classifier) or is no weight (positions counted out, masks, rotary frequencies). It is refused where
it belongs to the model: a layer more than the config describes, a bias that the config turns off, an adapter that was
not merged, or a second copy under the name of a wrapper. Without it the model would be another one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlab.errors import BadInput
from ftlab.models import model_files
from ftlab.models.model_files import WRAPPERS
from ftlab.wording import some

if TYPE_CHECKING:
    from transformers import PreTrainedModel

REPORTED = {"output_loading_info": True, "ignore_mismatched_sizes": True}
POOLER = "pooler"  # behind the layers of BERT and its like; pretraining on masked words alone leaves none
# Older versions of transformers saved these with the weights; today's compute them.
NO_WEIGHTS = re.compile(r"(^|\.)(position_ids|token_type_ids|inv_freq|masked_bias|attn\.bias|attention\.bias)$")
MEND_CONFIG = "give it the config that it was trained with, or save it again"
SAVE = "save the whole model again with `save_pretrained`"
FLOATS = {"F64", "F32", "F16", "BF16"}  # as safetensors names them


def require_whole(model: PreTrainedModel, report: Mapping[str, Any], name: str | Path) -> None:
    """Raise BadInput unless every tensor of `model` came from its files, as it stands there; `name` is what to call it.

    `report` is what `from_pretrained` gives beside the model with `**REPORTED`. Refused are tensors that are missing or
    of another shape, weights that the model has no place for (see above), integers where floats belong, numbers that
    are NaN or infinite, and two different tensors that the config says are one (`tie_word_embeddings`), of which each
    library would take another.
    """
    _require(model, report, name, may_be_fresh=set(), head_counts=True)


def start_fresh_head(model: PreTrainedModel, report: Mapping[str, Any], name: str | Path) -> dict[str, Any]:
    """The tensors of `model` that begin at random, by name, where a lesson trains them: the head, perhaps a pooler.

    As `require_whole`, but for these: the head is all that lies outside the pretrained body, and a pooler is fresh
    where pretraining had none. A classifier's own head was trained for its own labels: it is drawn anew, whatever its
    size. Train them all: `freezing.freeze` does, and leaves no fresh pooler frozen.
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
    return fresh


def fresh_tensors(model: Any) -> frozenset[str]:
    """The names of the tensors that `start_fresh_head` left at random; none where it was not called."""
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
    """The tensors outside the pretrained body, by name; none where the model is a body."""
    if model.base_model is model:
        return {}
    body = {id(tensor) for tensor in (*model.base_model.parameters(), *model.base_model.buffers())}
    named = (*model.named_parameters(), *model.named_buffers())
    return {name: tensor for name, tensor in named if id(tensor) not in body}


def _was_a_classifier(model: PreTrainedModel) -> bool:
    """Whether the files are those of a classifier, whose head knows its own labels."""
    return any("SequenceClassification" in str(kind) for kind in _written(model).get("architectures") or ())


def _written(model: PreTrainedModel) -> dict[str, Any]:
    """The config.json that the model was loaded with; `from_pretrained` may have been told otherwise."""
    path = Path(model.name_or_path) / "config.json"
    return model_files.read_json(path) if path.is_file() else {}


def _draw_again(model: PreTrainedModel) -> None:
    """Draw the head's weights as `from_pretrained` draws those that are missing, by the architecture's own rule."""
    import torch

    body = {id(module) for module in model.base_model.modules()}
    outside = [module for module in model.modules() if id(module) not in body and module is not model]
    with torch.no_grad():
        for module in outside:
            for tensor in module.parameters(recurse=False):
                tensor._is_hf_initialized = False  # or it is left as it is
            model._init_weights(module)


def _belongs_to(model: PreTrainedModel, key: str, head_counts: bool) -> bool:
    """Whether a tensor that the model has no place for belongs to it all the same (see the module's own words)."""
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
    """What to do about files that hold `keys`, for which the model has no place; None where they do not tell."""
    for prefix, (whose, inside) in WRAPPERS.items():
        if wrapped := [key for key in keys if f".{prefix}" in f".{key}"]:
            return (
                f"{wrapped[0]} is named as {whose} wraps a model: save the model inside (`save_pretrained` of {inside})"
            )
    if adapted := [key for key in keys if "lora_" in key or ".base_layer." in key]:
        return f"{adapted[0]} is an adapter's, never merged: save what `merge_and_unload` gives"
    return None


def _integers(model: PreTrainedModel, stored: Mapping[str, model_files.Stored]) -> Iterator[str]:
    """The names in the files of what is a float in the model and none there."""
    prefix = f"{model.base_model_prefix}."
    floats = {n for n, p in model.named_parameters() if p.is_floating_point() or hasattr(p, "quant_state")}
    for name, one in stored.items():
        if one.dtype not in FLOATS and floats & {name, prefix + name, name.removeprefix(prefix)}:
            yield name


def _other_shapes_in_4_bits(
    model: PreTrainedModel, stored: Mapping[str, model_files.Stored]
) -> Iterator[tuple[str, tuple[int, ...], tuple[int, ...]]]:
    """Layers that were quantized while loading, out of a matrix of another shape: the report leaves these out."""
    prefix = f"{model.base_model_prefix}."
    for name, module in model.named_modules():
        if not (hasattr(module, "in_features") and hasattr(getattr(module, "weight", None), "quant_state")):
            continue
        weight, wants = f"{name}.weight", (module.out_features, module.in_features)
        there = stored.get(weight) or stored.get(weight.removeprefix(prefix))
        if (
            there is not None and there.dtype in FLOATS and there.shape not in (wants, wants[::-1])
        ):  # GPT-2's lie across
            yield weight, there.shape, wants


def _tied_but_apart(model: PreTrainedModel) -> set[str]:
    """Tensors that the config ties to others and that `from_pretrained` left apart, since the files' differ."""
    return model.get_expanded_tied_weights_keys(all_submodels=True).keys() - model.all_tied_weights_keys.keys()


def _not_finite(model: PreTrainedModel, fresh: set[str]) -> str | None:
    """The name of the first tensor with a NaN or an infinity in it. A sum is quick, and shows both."""
    import torch

    for name, tensor in model.named_parameters():
        state = getattr(tensor, "quant_state", None)  # 4 bits: each block's largest value, or what these were stored by
        values = tensor.detach() if state is None else state.offset if state.nested else state.absmax
        if name in fresh or values is None or not values.is_floating_point() or values.is_meta:
            continue
        if not values.sum(dtype=torch.float32).isfinite() and not values.isfinite().all():
            return name
    return None
