"""Models without weights: a config, and the real class built from it on the meta device, as it would be trained.

An outline has every parameter with its shape and dtype and not one value, so a model of any size takes no memory, and
its parameters are counted rather than estimated. It can be given adapters (by peft itself) and 4-bit layers.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from ftlab.errors import BadInput
from ftlab.internals import transformers as transformers_internals
from ftlab.models import loading

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

CONFIGS = Path(__file__).parent / "configs"  # of the hub models, as published: their weights are gigabytes
# How architectures call the projections that LoRA adapts by default, query and value (Hu et al., LoRA, 2021, section
# 4.2). Where query, key and value are one matrix, it is that one.
QUERY_AND_VALUE = (("q_proj", "v_proj"), ("query", "value"), ("q_lin", "v_lin"), ("c_attn",), ("qkv_proj",))
# NF4 as QLoRA has it (Dettmers et al. 2023, section 3): a scale for each block of 64 values, and double quantization,
# which turns the scales into 8 bits with a scale of their own for each 256.
BLOCK, BLOCK_OF_SCALES = 64, 256
NF4_CODE, SCALES_CODE = 16, 256  # the values that 4 and 8 bits stand for, as float32, with each matrix


def config_of(model: str | PreTrainedConfig) -> Any:
    """The config of a model: itself, by a name of `loading.MODELS` (no network for hub models), or from a folder.

    Raises BadInput when there is none under that name.
    """
    from transformers import AutoConfig

    if not isinstance(model, str):
        return model
    if model in loading.HUB_MODELS:
        return AutoConfig.from_pretrained(CONFIGS / f"{model.replace('/', '--')}.json")
    folder = loading.folder(model) if model in loading.MODELS else Path(model).expanduser()
    if not (folder / "config.json").is_file():
        loading.check(model)  # a name that is no model's, or a folder without a config
        raise BadInput(
            f"the config of {model} is not on this machine; expected one of {', '.join(loading.MODELS)}, or a folder "
            "with a config.json: give its path, or the config itself (`AutoConfig.from_pretrained`)"
        )
    try:
        return AutoConfig.from_pretrained(folder)
    except (ValueError, KeyError) as problem:
        raise BadInput(
            f"{model} has a config.json that transformers does not know ({problem}); use another model"
        ) from problem


def build(config: PreTrainedConfig, dtype: str) -> Any:
    """The outline of a config's model in `dtype`: a decoder with its LM head, an encoder with a classification head."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    kind = AutoModelForCausalLM if _is_decoder(config) else AutoModelForSequenceClassification
    config = copy.deepcopy(config)
    config.use_cache = False  # as Trainer sets it
    with torch.device("meta"):
        return kind.from_config(config, dtype=getattr(torch, dtype))


def lm_head(outline: Any) -> nn.Module | None:
    """The head of a language model; None for a classifier."""
    return outline.get_output_embeddings() if type(outline).__name__.endswith(("ForCausalLM", "LMHeadModel")) else None


def adapt(outline: Any, *, rank: int, target_modules: Sequence[str] | str | None = None) -> Any:
    """The outline with LoRA adapters, made by peft; a classification head is trained whole beside them.

    Raises BadInput when no module is called so.
    """
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import Conv1D

    linear = {
        name.rpartition(".")[2]: module
        for name, module in outline.named_modules()
        if isinstance(module, (nn.Linear, Conv1D))
    }
    if target_modules is None:
        found = [names for names in QUERY_AND_VALUE if set(names) <= set(linear)]
        target_modules = list(found[0]) if found else []
    try:
        if not target_modules:
            raise ValueError("no target modules")
        lora = LoraConfig(
            r=rank,
            target_modules=target_modules if isinstance(target_modules, str) else list(target_modules),
            task_type=TaskType.CAUSAL_LM if lm_head(outline) is not None else TaskType.SEQ_CLS,
            fan_in_fan_out=any(isinstance(module, Conv1D) for module in linear.values()),
        )
        with torch.device("meta"):
            return get_peft_model(outline, lora)
    except ValueError as problem:
        raise BadInput(
            f"target_modules {target_modules!r} match nothing that LoRA can adapt in {type(outline).__name__}; its "
            f"linear modules are {', '.join(linear)}: name some of these"
        ) from problem


def quantize(outline: Any, *, double: bool = True) -> None:
    """Put the linear layers of an outline into 4 bits: those that transformers would replace by bitsandbytes' own.

    The head, what is tied to it, and everything that is no linear layer stay as they are.
    """
    from transformers import Conv1D

    is_converted = transformers_internals.is_converted(outline)
    for name, module in list(outline.named_modules()):
        if type(module) in (nn.Linear, Conv1D) and is_converted(name):
            inside, outside = module.weight.shape if isinstance(module, Conv1D) else module.weight.shape[::-1]
            outline.set_submodule(name, FourBitLinear(inside, outside, module.bias, double))


def four_bit_bytes(values: int, *, double: bool = True) -> tuple[int, int]:
    """Bytes of the packed values of one NF4 matrix, and of the scales that come with them."""
    blocks = math.ceil(values / BLOCK)
    if not double:
        return math.ceil(values / 2), 4 * (blocks + NF4_CODE)
    offset = 1
    return math.ceil(values / 2), blocks + 4 * (math.ceil(blocks / BLOCK_OF_SCALES) + NF4_CODE + SCALES_CODE + offset)


class FourBitLinear(nn.Linear):
    """A linear layer in NF4, for the meta device: packed weights, unpacked for each product and then forgotten.

    bitsandbytes' `Linear4bit` does the same: its backward pass unpacks once more, so the layer keeps neither its input
    nor an unpacked weight.
    """

    def __init__(self, inside: int, outside: int, bias: nn.Parameter | None, double: bool) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = inside, outside
        packed, scales = four_bit_bytes(inside * outside, double=double)
        self.weight = nn.Parameter(torch.empty(packed, 1, dtype=torch.uint8, device="meta"), requires_grad=False)
        self.bias = bias
        self.register_buffer("scales", torch.empty(scales, dtype=torch.uint8, device="meta"))

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """The product with a weight that is there only now."""
        return _FourBitProduct.apply(given, self.out_features, self.bias)


class _FourBitProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, given: torch.Tensor, outside: int, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.shape = (outside, given.shape[-1])
        return functional.linear(given, given.new_empty(ctx.shape), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        (gradient,) = gradients
        return gradient @ gradient.new_empty(ctx.shape), None, None


def _is_decoder(config: Any) -> bool:
    """Whether a config's model is trained to continue texts, by the class that it was saved from, else by its kind."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

    saved_as = (getattr(config, "architectures", None) or [""])[0]
    if saved_as.endswith(("ForCausalLM", "LMHeadModel")):
        return True
    if type(config) in MODEL_FOR_MASKED_LM_MAPPING:
        return False
    if saved_as.endswith("ForSequenceClassification"):
        return False
    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        return True
    raise BadInput(
        f"a {config.model_type} model is neither a decoder nor an encoder of texts, as far as transformers says; "
        "expected one that AutoModelForCausalLM or AutoModelForSequenceClassification can build: give another config"
    )
