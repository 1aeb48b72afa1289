"""How much memory does training take? An estimate before the first step."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

# Bytes that one token leaves for the backward pass, for each layer and each unit of its width, in fp32: about 16 values
# of four bytes and two dropout masks. Source: Korthikanti et al., Reducing Activation Recomputation in Large
# Transformer Models, 2022, section 4.1, without the attention matrix, which a fused kernel does not keep.
BYTES_PER_UNIT = 66
BYTES_PER_ATTENTION_WEIGHT = 9  # softmax in, softmax out, and a mask, where attention dropout keeps the matrix


def training_memory(model: PreTrainedModel, *, batch_size: int, length: int) -> int:
    """Bytes that training holds at its peak with AdamW in fp32: weights, gradients, optimizer, activations.

    For encoders; `length` is the longest row in tokens. Mixed precision takes less.
    """
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    weights = sum(parameter.numel() for parameter in model.parameters())
    config = model.config
    tokens = batch_size * length
    activations = BYTES_PER_UNIT * tokens * config.num_hidden_layers * config.hidden_size
    names = ("attention_probs_dropout_prob", "attention_dropout", "attn_pdrop")
    if any(getattr(config, name, 0.0) or 0.0 for name in names) and model.device.type == "cpu":
        activations += (
            BYTES_PER_ATTENTION_WEIGHT * tokens * length * config.num_attention_heads * config.num_hidden_layers
        )
    return 4 * weights + 12 * trained + activations


def free_memory(device: torch.device) -> int:
    """Bytes that are free on the device of a model: the GPU's own memory, else the machine's."""
    import psutil
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)
