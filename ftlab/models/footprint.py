"""How much memory does training take? An estimate before the first step."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

# Bytes of fp32 training for each token, layer and unit of the width, when a layer's inner width is four times its own.
# On CUDA 16 values of four bytes and two dropout masks, without the attention matrix, which a fused kernel does not
# keep (Korthikanti et al., Reducing Activation Recomputation in Large Transformer Models, 2022, section 4.1). On a CPU
# masks are values too, and its allocator keeps gaps: measured as 86 to 90 with rows of one length, and up to 106 with
# rows of many lengths (MiniLM's shape at 16x128, 16x256 and 8x512; Trainer with AdamW).
BYTES_PER_UNIT = {"cuda": 66, "cpu": 112}
# For each weight of an attention matrix that is kept: on a CPU with attention dropout softmax, mask and their product.
BYTES_PER_ATTENTION_WEIGHT = 15  # measured as 13 to 14


def training_memory(model: PreTrainedModel, *, batch_size: int, length: int, trained_layers: int | None = None) -> int:
    """Bytes that training holds at its peak with AdamW in fp32: weights, gradients, optimizer, activations.

    For encoders; `length` is the longest row in tokens. Only layers that train keep activations, all of them unless
    `trained_layers` says how many from the last. Mixed precision takes less.
    """
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    weights = sum(parameter.numel() for parameter in model.parameters())
    config = model.config
    tokens = batch_size * length
    layers = config.num_hidden_layers if trained_layers is None else trained_layers
    on_cuda = model.device.type == "cuda"
    activations = BYTES_PER_UNIT["cuda" if on_cuda else "cpu"] * tokens * layers * config.hidden_size
    names = ("attention_probs_dropout_prob", "attention_dropout", "attn_pdrop")
    if any(getattr(config, name, 0.0) or 0.0 for name in names) and not on_cuda:
        activations += BYTES_PER_ATTENTION_WEIGHT * tokens * length * config.num_attention_heads * layers
    return 4 * weights + 12 * trained + activations


def free_memory(device: torch.device) -> int:
    """Bytes that are free on the device of a model: the GPU's own memory, else the machine's."""
    import psutil
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)
