"""What can this machine train? Full fine-tuning, LoRA and QLoRA of six models, by predicted memory, without weights."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from ftlab.course.advice_input import check_count, check_gb
from ftlab.errors import BadInput

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
COUNTED_LAYERS = (3, 4)  # of a large model; the others are like these
# What the tutorials say of the same model and method.
PUBLISHED = {
    ("microsoft/phi-2", "lora"): "about 8 GB (tutorial A)",
    (A_7B, "lora"): "8 to 16 GB (tutorial A)",
}


def trainable_here(
    models: Sequence[str] = MODELS,
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
        stored; "GB", the predicted peak; "fits", whether that is free, on the GPU if there is one; and "published",
        what a tutorial says. The name of the columns states the rows of a batch, the device, and its free GB.

    Raises:
        BadInput: a model is not known, rows do not fit it, or a number is impossible.
    """
    import pandas as pd

    models = [models] if isinstance(models, str) else list(models)
    if not models:
        raise BadInput(
            f"models is empty; expected at least one of {', '.join(MODELS)}: leave it out to get all of them"
        )
    for name, value in (("batch_size", batch_size), ("length", length)):
        check_count(name, value, least=1)
    if memory_gb is not None:
        check_gb("memory_gb", memory_gb, "None for what is free now")
    if gpu_gb is not None:
        check_gb("gpu_gb", gpu_gb, "0 for no GPU")
    gpu = _free_on_gpu() if gpu_gb is None else gpu_gb
    device = "cuda" if gpu else "cpu"
    free = gpu or (_free_in_memory() if memory_gb is None else memory_gb)
    lines = [line for model in models for line in _lines(model, free, device, batch_size, length)]
    table = pd.DataFrame(lines).set_index(["model", "method"])
    table.columns.name = f"{batch_size} x {length} tokens on the {'GPU' if gpu else 'CPU'}, {free:.1f} GB free"
    return table


def _lines(model: str, free: float, device: str, batch_size: int, length: int) -> list[dict[str, Any]]:
    """The lines of a model: one for each method."""
    from ftlab.memory import footprint, meta_models

    config = meta_models.config_of(model)
    of_base = sum(parameter.numel() for parameter in meta_models.build(config, "float32").parameters())
    lines = []
    for method in footprint.METHODS:
        dtype = "bfloat16" if device == "cuda" and method != "full" else "float32"
        settings: dict[str, Any] = {
            "method": method, "batch_size": batch_size, "length": length, "dtype": dtype, "device": device
        }  # fmt: skip
        if of_base <= CHECKPOINTED:
            found = footprint.estimate(config, **settings)
        elif method == "full":
            found = footprint.estimate(config, checkpointing=True, **settings)
        else:
            found = by_layers(config, **settings)
        lines.append(
            {
                "model": model,
                "method": method,
                "million parameters": round(found.parameters / 1e6, 1),
                "trained %": round(found.trainable_percent, 2),
                "weights": "4 bits" if method == "qlora" else {"bfloat16": "bf16", "float32": "fp32"}[dtype],
                "GB": round(found.total / 1e9, 1),
                "fits": found.total <= free * 1e9,
                "published": PUBLISHED.get((model, method), ""),
            }
        )
    return lines


def by_layers(config: PreTrainedConfig, **settings: Any) -> Footprint:
    """Return what `footprint.estimate` does for LoRA or QLoRA with checkpointing, from a few of the model's layers.

    Layers are alike, and a training with checkpointing keeps the input of each until the backward pass. So each part
    grows by the same bytes with each layer, if the base has no gradients and the batch is not tiny; a test compares
    with all layers. It takes a quarter of the time for 32 layers.

    Args:
        config: of a model whose layers are all of one kind.
        settings: as for `footprint.estimate`, with method "lora" or "qlora".
    """
    from ftlab.memory import footprint

    few, more = COUNTED_LAYERS
    depth = config.num_hidden_layers
    if depth <= more or settings["batch_size"] * settings["length"] < LEAST_TOKENS:
        return footprint.estimate(config, checkpointing=True, **settings)
    counted = []
    for layers in (few, more):
        shallow = copy.deepcopy(config)
        shallow.num_hidden_layers = layers
        counted.append(footprint.estimate(shallow, checkpointing=True, **settings))
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
