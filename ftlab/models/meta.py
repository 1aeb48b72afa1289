"""Models without weights, on PyTorch's meta device: every module, name, shape and dtype, for a few MB of memory."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from ftlab.errors import BadInput
from ftlab.internals import transformers as transformers_internals

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

    from ftlab.models.shards import Checkpoint


def from_config(kind: Any, config: PreTrainedConfig, **options: Any) -> PreTrainedModel:
    """Return the model that `kind`, an Auto class of transformers, builds from `config` with `options`."""
    import torch

    with transformers_internals.LOADING, torch.device("meta"):
        return kind.from_config(config, **options)


def from_checkpoint(base: Checkpoint) -> PreTrainedModel:
    """Return the model of the checkpoint `base`, in the class that its config names.

    Raises:
        BadInput: transformers has no such class, or the config does not describe one.
    """
    import torch
    import transformers

    path = base.folder / "config.json"
    architecture = (base.config.get("architectures") or ["none"])[0]
    kind = getattr(transformers, str(architecture), None)
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
        raise BadInput(
            f"{path} names the architecture {architecture}, which transformers does not have; merge such a model with "
            "its own code and PEFT's `merge_and_unload`"
        )
    try:
        with transformers_internals.LOADING, torch.device("meta"):
            return kind(transformers.AutoConfig.from_pretrained(base.folder, trust_remote_code=False))
    except Exception as problem:  # each architecture raises errors of its own for a wrong config
        raise BadInput(f"{path} does not describe a {architecture} ({problem!r}); save the model again") from problem


def from_model(model: Any) -> Any:
    """Return a model of the class and config of `model`; its linear layers are not quantized."""
    import torch

    if all(parameter.is_meta for parameter in model.parameters()):
        return copy.deepcopy(model)
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # packed 4-bit weights do not have the shape of their layer
    with transformers_internals.LOADING, torch.device("meta"):
        return type(model)(config)
