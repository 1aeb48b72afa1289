"""Checks of the weights of a classifier against its base, tensor by tensor: what moved, and what did not."""

from __future__ import annotations

from collections.abc import Collection

from ftlab.errors import AssetError, BadInput
from ftlab.exercises import saved_models
from ftlab.exercises.checks import fix, passed, unchecked
from ftlab.exercises.handed_in import HandedIn
from ftlab.exercises.outcomes import Answer
from ftlab.exercises.training_checks import Run
from ftlab.freezing.plans import EMBEDDINGS, HEAD, layer_name
from ftlab.models import loading
from ftlab.wording import some

FROZEN_LAYERS = 4


def weights(work: HandedIn) -> Answer:
    """Check that the saved model is whole, fits its base, and was trained. `work` is what was handed in."""
    tensors = _moved(work)
    if isinstance(tensors, Answer):
        return tensors
    count = sum(tensors.values())
    if not count:
        return fix(
            "weights that training has moved", f"all {len(tensors)} tensors of the base, unchanged", "model",
            advice="Record the model that was trained: trainer.model.",
        )  # fmt: skip
    return passed(f"{count} of the {len(tensors)} pretrained tensors moved", "model")


def whole(work: HandedIn) -> Answer:
    """Check that the models of both runs can be loaded. `work` is what was handed in."""
    for run in ("full", "frozen"):
        found = _moved(Run(work, run))
        if isinstance(found, Answer):
            return Answer(found.status, found.expected, f"{run} run: {found.found}", found.where, found.advice)
    return passed("both models are whole", "full/model, frozen/model")


def frozen_layers(work: HandedIn) -> Answer:
    """Check that layers 1 to 4 of the frozen run are the base's, bit by bit. `work` is what was handed in."""
    return _unmoved(work, [layer_name(number) for number in _frozen(work)])


def frozen_embeddings(work: HandedIn) -> Answer:
    """Check that the embeddings of the frozen run are the base's, bit by bit. `work` is what was handed in."""
    return _unmoved(work, [EMBEDDINGS])


def trained_layers(work: HandedIn) -> Answer:
    """Check that each part which should train did move, in both runs. `work` is what was handed in."""
    stay = {EMBEDDINGS, *(layer_name(number) for number in _frozen(work))}
    counts = []
    for run, still in (("full", set[str]()), ("frozen", stay)):
        found = _parts(Run(work, run))
        if isinstance(found, Answer):
            return unchecked(f"{run} run: {found.found}", advice="See the rule weights.")
        parts = [part for part in found if part not in still and part != HEAD]
        if idle := [part for part in parts if not any(found[part].values())]:
            return fix(
                "layers that training has moved", f"the {run} run did not move {some(idle)}", f"{run}/model",
                advice="Nothing but the first layers and the embeddings is frozen, and that in one run only.",
            )  # fmt: skip
        counts.append(f"{run}: {len(parts)} parts moved")
    return passed("; ".join(counts), "full/model, frozen/model")


def _unmoved(work: HandedIn, parts: Collection[str]) -> Answer:
    found = _parts(Run(work, "frozen"))
    if isinstance(found, Answer):
        return unchecked(f"frozen run: {found.found}", advice="See the rule weights.")
    for part in parts:
        if changed := [name for name, moved in found[part].items() if moved]:
            return fix(
                f"{part} as in the base, to the last bit", f"the frozen run moved {part}: {some(changed)}",
                "frozen/model", advice=_cause(part, found),
            )  # fmt: skip
    tensors = sum(len(found[part]) for part in parts)
    return passed(f"{tensors} tensors are the base's, to the last bit", "frozen/model")


def _cause(part: str, found: dict[str, dict[str, bool]]) -> str:
    """Return the likely cause of a part that moved."""
    if part == EMBEDDINGS:
        return "The layers were frozen without the embeddings in front of them."
    if all(any(found[one].values()) for one in found if one != HEAD):
        return "Nothing was frozen: requires_grad was set after the training, or on another model."
    return f"A part of what was to be frozen trained: look at the names of the parameters of {part}, counted from 1."


def _frozen(work: HandedIn) -> range:
    """Return the numbers of the layers to freeze: 1 to 4, or two thirds of a model with fewer than six."""
    depth = loading.depth(work.attempt["model"])
    return range(1, min(FROZEN_LAYERS, max(1, 2 * depth // 3)) + 1)


def _parts(run: HandedIn) -> dict[str, dict[str, bool]] | Answer:
    """Return for each part which of its pretrained tensors moved, or the answer if that cannot be said."""
    moved = _moved(run)
    if isinstance(moved, Answer):
        return moved
    found = {
        part: {name: moved[name] for name in names if name in moved} for part, names in saved_models.parts(run).items()
    }
    return {part: tensors for part, tensors in found.items() if tensors}


def _moved(run: HandedIn) -> dict[str, bool] | Answer:
    """Return `saved_models.moved`, or the answer if the model or its base cannot be loaded."""
    key = f"moved {run.path('model')}"
    if key not in run.loaded:
        try:
            run.loaded[key] = saved_models.moved(run)
        except AssetError as problem:
            return unchecked(f"the base {run.attempt['model']} cannot be loaded: {problem}")
        except BadInput as problem:
            return fix("a whole model, trained from the base, as safetensors", str(problem), "model")
    return run.loaded[key]
