"""What can this machine train? Full fine-tuning, LoRA and QLoRA of six models, by predicted memory, without weights."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlab.course.advice_input import check_count, check_gb
from ftlab.errors import BadInput
from ftlab.wording import quoted

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedConfig

    from ftlab.memory.footprint import Footprint

A_7B = "mistral-7b"  # the shape of Mistral-7B-v0.1
MODELS = ("minilm", "distilbert-base-uncased", "gpt2", "smollm2", "microsoft/phi-2", A_7B)
CHECKPOINTED = 1_000_000_000  # parameters from which layers are run again in the backward pass, to save activations
# Tokens of a batch from which a layer's input is larger than its adapters' gradients. Below, the peak may move
# to another place as layers are added, so all layers are counted.
LEAST_TOKENS = 1024
COUNTED_LAYERS = (3, 4)  # of a deep model; the others are like these
DEEP = 12  # layers from which counting a few is quicker than counting all
TIGHT = 0.8  # share of the free memory above which a training just fits: other programs, or longer rows, may end it
# What the tutorials say of the same model and method.
PUBLISHED = {
    ("microsoft/phi-2", "lora"): "about 8 GB (tutorial A)",
    (A_7B, "lora"): "8 to 16 GB (tutorial A)",
}


def trainable_here(
    models: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = MODELS,
    *,
    memory_gb: float | None = None,
    gpu_gb: float | None = None,
    batch_size: int = 4,
    length: int = 256,
) -> pd.DataFrame:
    """Predict the memory of training each model by each method, and say whether it fits this machine.

    It needs no network and no weights (see `footprint.estimate`). On a GPU, full fine-tuning is counted in fp32: mixed
    precision keeps weights, gradients and moments in it, and only its activations take less. The frozen weights of LoRA
    are in bf16 there. On a CPU everything is in fp32. Models of more than a billion parameters run their layers again
    in the backward pass (activation checkpointing).

    Args:
        models: names of `MODELS`, or folders with a config.json.
        memory_gb: free memory in GB; by default what this machine has free now.
        gpu_gb: free memory of the GPU in GB, 0 for none; by default what a CUDA GPU of this machine has free now.
        batch_size: rows a step.
        length: tokens of each row.

    Returns:
        A line for each model and method (index). Columns: "million parameters"; "trained %"; "weights", how the base is
        stored; "GB", the predicted peak; "fits", whether that is free, on the GPU if there is one: "yes", "tight" (it
        takes more than 80 % of what is free) or "no"; and "published", what a tutorial says. The name of the columns
        states the rows of a batch, the device, and its free GB.

    Raises:
        BadInput: a model is not known, rows do not fit it, or a number is impossible.
    """
    import pandas as pd

    names = _names(models)
    for name, value in (("batch_size", batch_size), ("length", length)):
        check_count(name, value, least=1)
    if memory_gb is not None:
        check_gb("memory_gb", memory_gb, "None for what is free now")
    if gpu_gb is not None:
        check_gb("gpu_gb", gpu_gb, "0 for no GPU")
    gpu = _free_on_gpu() if gpu_gb is None else gpu_gb
    device = "cuda" if gpu else "cpu"
    free = gpu or (_free_in_memory() if memory_gb is None else memory_gb)
    lines = [line for model in names for line in _lines(model, free, device, batch_size, length)]
    table = pd.DataFrame(lines).set_index(["model", "method"])
    table.columns.name = f"{batch_size} x {length} tokens on the {'GPU' if gpu else 'CPU'}, {free:.1f} GB free"
    return table


def _names(models: Any) -> list[str]:
    """The names of models and folders, checked."""
    from ftlab.memory import meta_models
    from ftlab.models import loading

    expected = f"expected names out of {', '.join(MODELS)}, or folders with a config.json"
    if isinstance(models, str | os.PathLike):
        models = [models]
    if models is None or not hasattr(models, "__iter__"):
        raise BadInput(f"models is {quoted(models)}; {expected}: leave it out to get all of them")
    models = list(models)
    if not models:
        raise BadInput(f"models is empty; {expected}: leave it out to get all of them")
    for model in models:
        if not isinstance(model, str | os.PathLike):
            raise BadInput(f"models contains {quoted(model)}; {expected}: give it as text")
        name = os.fspath(model)
        if name not in {*meta_models.shipped(), *loading.MODELS} and not _has_config(name):
            raise BadInput(f"there is no model {quoted(name)}; {expected}: give one of these")
    return [os.fspath(model) for model in models]


def _has_config(folder: str) -> bool:
    """Whether there is such a folder, with a config.json."""
    try:
        return (Path(folder).expanduser() / "config.json").is_file()
    except (OSError, ValueError, RuntimeError):  # a path that cannot be
        return False


def _lines(model: str, free: float, device: str, batch_size: int, length: int) -> list[dict[str, Any]]:
    """The lines of a model: one for each method."""
    from ftlab.memory import footprint, meta_models

    config = meta_models.config_of(model)
    lines = []
    for method in footprint.METHODS:
        found = _predicted(model, config, method, device, batch_size, length)
        in_16_bits = device == "cuda" and method != "full"
        lines.append(
            {
                "model": model,
                "method": method,
                "million parameters": round(found.parameters / 1e6, 1),
                "trained %": round(found.trainable_percent, 2),
                "weights": "4 bits" if method == "qlora" else "bf16" if in_16_bits else "fp32",
                "GB": round(found.total / 1e9, 1),
                "fits": _fits(found.total, free * 1e9),
                "published": PUBLISHED.get((model, method), ""),
            }
        )
    return lines


def _fits(needed: float, free: float) -> str:
    return "no" if needed > free else "tight" if needed > TIGHT * free else "yes"


def _predicted(
    model: str, config: PreTrainedConfig, method: str, device: str, batch_size: int, length: int
) -> Footprint:
    """The footprint of a training."""
    from ftlab.memory import footprint

    count = by_layers if method != "full" and model in MODELS else footprint.estimate
    return count(
        config,
        method=method,
        batch_size=batch_size,
        length=length,
        dtype="bfloat16" if device == "cuda" and method != "full" else "float32",
        checkpointing=_parameters(model, config.to_json_string()) > CHECKPOINTED,
        device=device,
    )


@lru_cache(maxsize=256)
def _parameters(model: str, config_text: str) -> int:
    """The number of parameters, without adapters. It is counted again if the text of a folder's config has changed."""
    from ftlab.memory import meta_models

    built = meta_models.build(meta_models.config_of(model), "float32")
    return sum(parameter.numel() for parameter in built.parameters())


def by_layers(config: PreTrainedConfig, **settings: Any) -> Footprint:
    """Return what `footprint.estimate` does for LoRA or QLoRA, from a few of the model's layers.

    Layers are alike, and each keeps what the backward pass needs: with checkpointing its input, else all activations.
    So each part grows by the same bytes with each layer, if the base has no gradients and the batch is not tiny; a test
    compares with all layers. It takes a quarter of the time for 32 layers.

    Args:
        config: of a model whose layers are all of one kind, such as those of `MODELS`.
        settings: as for `footprint.estimate`, with method "lora" or "qlora".
    """
    from ftlab.memory import footprint

    few, more = COUNTED_LAYERS
    depth = config.num_hidden_layers
    if depth < DEEP or settings["batch_size"] * settings["length"] < LEAST_TOKENS:
        return footprint.estimate(config, **settings)
    counted = []
    for layers in (few, more):
        shallow = copy.deepcopy(config)
        shallow.num_hidden_layers = layers
        counted.append(footprint.estimate(shallow, **settings))
    parts = {
        field.name: (getattr(counted[0], field.name), getattr(counted[1], field.name)) for field in fields(counted[0])
    }
    return footprint.Footprint(
        **{
            name: at_few + (at_more - at_few) * (depth - few) // (more - few)
            for name, (at_few, at_more) in parts.items()
        }
    )


def _free_in_memory() -> float:
    """Free memory of this machine, in GB."""
    import psutil

    return psutil.virtual_memory().available / 1e9


def _free_on_gpu() -> float:
    """Free memory of this machine's CUDA GPU, in GB; 0 if there is none."""
    import torch

    from ftlab.memory import footprint

    return footprint.free_memory(torch.device("cuda")) / 1e9 if torch.cuda.is_available() else 0.0
