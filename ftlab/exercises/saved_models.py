"""The models of a work folder and their base: loaded once for a check, never from a pickle, and asked again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ftlab.errors import BadInput
from ftlab.exercises.checks import CannotCheck
from ftlab.exercises.handed_in import HandedIn
from ftlab.freezing import plans
from ftlab.memory import footprint
from ftlab.models import loading, loading_report, model_files
from ftlab.models.label_names import UNNAMED
from ftlab.wording import shown, some

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from transformers import PreTrainedModel

    from ftlab.inference import Classifier

FREE = 1.5  # times the size of the weights that must be free to load them
SAME_CONFIG = ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")


def folder(work: HandedIn) -> Path:
    """Return the folder of the saved model in `work`, checked: safetensors, whole, and not larger than the memory.

    Raises:
        BadInput: it holds a pickle instead, or is incomplete.
        CannotCheck: it does not fit into the free memory.
    """
    path = work.path("model")
    model_files.checked(path)
    model_files.tensors(path, str(path))
    require_memory(path)
    return path


def require_memory(path: Path) -> None:
    """Raise CannotCheck if the safetensors in the folder `path` do not fit into the free memory."""
    import torch

    needed = FREE * sum(file.stat().st_size for file in path.glob("*.safetensors"))
    free = footprint.free_memory(torch.device("cpu"))
    if needed > free:
        raise CannotCheck(
            f"the weights in {path} need {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free; close something, or "
            "check on a larger machine"
        )


def classifier(work: HandedIn) -> Classifier:
    """Return the saved classifier of `work`, in float32. Raises BadInput if it cannot be loaded or is none."""
    import torch

    from ftlab.inference import Classifier

    path = folder(work)
    require_same_architecture(path, work.attempt["model"])
    key = str(path)
    if key not in work.loaded:
        loaded = Classifier(key, dtype=torch.float32)
        require_labels(loaded.labels, work.labels)
        work.loaded[key] = loaded
    return work.loaded[key]


def require_labels(model: Sequence[str], rows: Sequence[str]) -> None:
    """Raise BadInput unless the labels of a `model` are the labels of the `rows`."""
    if {*model} == {*rows}:
        return
    if all(map(UNNAMED.fullmatch, model)):
        raise BadInput(
            f"the saved model calls its labels {some(model)}, and the rows call them {some(rows)}; give the names to "
            "from_pretrained, as id2label and label2id, and train again"
        )
    other = sorted({*model} ^ {*rows})
    raise BadInput(f"{some(other)} is a label of the saved model or of the rows, and not of both; record one training")


def base_classifier(work: HandedIn, labels: list[str]) -> PreTrainedModel:
    """Return the base of `work`, in float32, with a fresh head for `labels`. Raises CourseError if it is not there."""
    if "base" not in work.loaded:
        work.loaded["base"] = loading.encoder(work.attempt["model"], labels)
    return work.loaded["base"]


def require_same_architecture(path: Path, base: str) -> None:
    """Raise BadInput unless the model in the folder `path` has the architecture and the size of `base`."""
    here, there = loading.config(str(path)), loading.config(base)
    for name in SAME_CONFIG:
        found, wanted = getattr(here, name, None), getattr(there, name, None)
        if found != wanted and not (name == "vocab_size" and found is not None):
            raise BadInput(
                f"the model in {path} is of another architecture than {shown(base)}: its {name} is {found}, and that "
                f"of {shown(base)} is {wanted}; hand in the model that you trained from {shown(base)}"
            )
    size, pad = getattr(here, "vocab_size", None), getattr(here, "pad_token_id", None)
    if size is not None and (size < 1 or not (pad is None or 0 <= pad < size)):
        raise BadInput(
            f"the config.json in {path} names {shown(size)} tokens and the pad token {shown(pad)}, which is none of "
            "them; save the model that you trained again"
        )


def moved(work: HandedIn) -> dict[str, bool]:
    """Return for each pretrained tensor of the saved classifier whether it differs from the base's in a bit.

    What the base has not from pretraining (the head, perhaps a pooler) is left out: it is drawn at random.

    Raises:
        BadInput: the saved model cannot be loaded, is stored in half precision, has other tensors, or holds NaN.
        CourseError: the base cannot be loaded.
    """
    trained = classifier(work)
    _require_full_precision(work)
    base = base_classifier(work, trained.labels)
    ours, fresh = dict(trained.model.named_parameters()), loading_report.fresh_tensors(base)
    return {name: _moved(name, ours, tensor) for name, tensor in base.named_parameters() if name not in fresh}


def parts(work: HandedIn) -> dict[str, list[str]]:
    """Return the names of the tensors of each part of the base: embeddings, layer 1 and so on (`plans.structure`).

    Raises CannotCheck if the parts of the architecture are not found.
    """
    try:
        found = plans.structure(base_classifier(work, classifier(work).labels)).parts
    except BadInput as problem:
        raise CannotCheck(f"{problem}; for this level take a model such as BERT, DistilBERT or RoBERTa") from problem
    return {part: list(tensors) for part, tensors in found.items()}


def _require_full_precision(work: HandedIn) -> None:
    stored = model_files.tensors(work.path("model"), "model").values()
    if half := sorted({one.dtype for one in stored} & {"BF16", "F16"}):
        raise BadInput(
            f"the weights are stored in {half[0]}, in which training loses small steps; load the model with "
            "dtype=torch.float32, and train again"
        )


def _moved(name: str, ours: Mapping[str, Any], base: Any) -> bool:
    """Return whether a tensor of the saved model `differs` from the base's. Raises BadInput if it is none like it."""
    import torch

    if name not in ours or ours[name].shape[1:] != base.shape[1:]:
        raise BadInput(f"the saved model has no tensor {name} like the base's; save the whole model that you trained")
    found = ours[name].detach().cpu()
    if not torch.isfinite(found).all():
        raise BadInput(
            f"the tensor {name} of the saved model holds NaN; the training diverged: lower the learning rate"
        )
    return differs(found, base)


def differs(found: torch.Tensor, base: torch.Tensor) -> bool:
    """Return whether `found` differs from `base` in a bit; of a grown vocabulary, in the rows that both have."""
    import torch

    found, base = found.detach().cpu(), base.detach().cpu()
    rows = min(len(found), len(base)) if found.dim() and base.dim() else 0
    return not torch.equal(found[:rows], base[:rows]) if rows else not torch.equal(found, base)


def roughly(arguments: Mapping[str, Any]) -> bool:
    """Return whether a run with these Trainer `arguments` computed otherwise than a check does: half precision, GPU."""
    return bool(arguments.get("bf16") or arguments.get("fp16") or arguments.get("device") not in (None, "cpu"))


def row_losses(work: HandedIn, split: str, *, most_tokens: int) -> tuple[np.ndarray, bool]:
    """Return the cross-entropy of the saved classifier for rows of `split`, and whether these are all rows of it.

    If all rows have more than `most_tokens` tokens, the losses are those of a random part of them.
    """
    model, rows = classifier(work), work.part(split)
    drawn = some_rows(work, rows, most_tokens)
    probabilities = model.probabilities(list(drawn["text"]))
    places = [model.labels.index(label) for label in drawn["label"]]
    return -np.log(np.maximum(probabilities[np.arange(len(drawn)), places], 1e-12)), len(drawn) == len(rows)


def some_rows(work: HandedIn, rows: pd.DataFrame, most_tokens: int, *, least: int = 16) -> pd.DataFrame:
    """Return all `rows`, or as many of them, drawn at random, as `most_tokens` allow: at least `least`."""
    if rows.empty:
        return rows
    model = classifier(work)
    order = rows.sample(frac=1, random_state=0)
    lengths = model.tokenizer(list(order["text"]), truncation=True, max_length=model.max_length)["input_ids"]
    fit = int((np.cumsum([len(ids) for ids in lengths]) <= most_tokens).sum())
    return order.head(max(least, fit))
