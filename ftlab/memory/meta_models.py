"""Models without weights, as they are trained: built from a config, with LoRA adapters and 4-bit layers.

On PyTorch's meta device each parameter has a shape and a dtype, but no values. So a model of any size takes no memory,
and its parameters are counted, not estimated. PEFT itself adds the adapters.
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

from ftlab.adapters.targets import PRESETS
from ftlab.errors import BadInput
from ftlab.internals import transformers as transformers_internals
from ftlab.models import loading, meta

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

CONFIGS = Path(__file__).parent / "configs"  # as published; the weights are large, and may not be on this machine
# The layers that LoRA adapts by default. Architectures without a preset use the same names, so the names are searched
# in the model. The last is Phi-3's, which makes queries, keys and values in one matrix.
QUERY_AND_VALUE = (*PRESETS.values(), ["qkv_proj"])
# NF4 in QLoRA (Dettmers et al. 2023, section 3): each block of 64 values has a scale. Double quantization stores the
# scales in 8 bits, and each block of 256 scales has a scale of its own.
BLOCK, BLOCK_OF_SCALES = 64, 256
NF4_CODE, SCALES_CODE = 16, 256  # entries of the float32 tables, one for 4 and one for 8 bits, stored with each matrix


def config_of(model: str | PreTrainedConfig) -> Any:
    """Return the transformers config of `model`; hub models need no network.

    Args:
        model: a name of `loading.MODELS` or in `CONFIGS` (a 7B model), a folder with a config.json, or a config, which
            is returned as it is. Of a model for texts and images, for example, it is the config of the text part.

    Raises:
        BadInput: there is no such model or config.json, or transformers does not know its architecture.
    """
    from transformers import AutoConfig

    if not isinstance(model, str):
        return model.get_text_config()
    if model in shipped():
        return AutoConfig.from_pretrained(CONFIGS / f"{model.replace('/', '--')}.json")
    folder = loading.folder(model) if model in loading.MODELS else Path(model).expanduser()
    if not (folder / "config.json").is_file():
        loading.check(model)  # refuses an unknown name and a folder that does not exist
        raise BadInput(
            f"the config of {model} is not on this machine; expected one of {', '.join(loading.MODELS)}, or a folder "
            "with a config.json: give its path, or the config itself (`AutoConfig.from_pretrained`)"
        )
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False).get_text_config()
    except (ValueError, KeyError) as problem:
        raise BadInput(
            f"{model} has a config.json that transformers does not know ({problem}); use another model"
        ) from problem


def shipped() -> list[str]:
    """Return the names of the models whose configs are part of the package."""
    return sorted(path.stem.replace("--", "/") for path in CONFIGS.glob("*.json"))


def build(config: PreTrainedConfig, dtype: str) -> Any:
    """Return the model of `config` without weights: a decoder with its LM head, an encoder with a classification head.

    Args:
        config: of the model; it is copied, not changed.
        dtype: of the parameters, as in "bfloat16".
    """
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    kind = AutoModelForCausalLM if _is_decoder(config) else AutoModelForSequenceClassification
    config = copy.deepcopy(config)
    config.use_cache = False  # as Trainer sets it
    return meta.from_config(kind, config, dtype=getattr(torch, dtype))


def lm_head(model: Any) -> nn.Module | None:
    """Return the head of `model` if it is a language model, or None for a classifier."""
    return model.get_output_embeddings() if type(model).__name__.endswith(("ForCausalLM", "LMHeadModel")) else None


def adapt(model: Any, *, rank: int, target_modules: Sequence[str] | str | None = None) -> Any:
    """Add LoRA adapters to a model without weights; a classification head is trained in full.

    Args:
        model: as `build` returns it. It is changed in place.
        rank: of the adapters.
        target_modules: as in PEFT's LoraConfig; None adapts the query and value projections.

    Returns:
        The model, wrapped by PEFT.

    Raises:
        BadInput: no linear layer has one of these names, which is a ValueError in PEFT.
    """
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import Conv1D

    linear = {
        name.rpartition(".")[2]: module
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D))
    }
    if target_modules is None:
        found = [names for names in QUERY_AND_VALUE if set(names) <= set(linear)]
        target_modules = found[0] if found else []
    try:
        if not target_modules:
            raise ValueError("no target modules")
        lora = LoraConfig(
            r=rank,
            target_modules=target_modules if isinstance(target_modules, str) else list(target_modules),
            task_type=TaskType.CAUSAL_LM if lm_head(model) is not None else TaskType.SEQ_CLS,
            fan_in_fan_out=any(isinstance(module, Conv1D) for module in linear.values()),
        )
        with torch.device("meta"):
            return get_peft_model(model, lora)
    except ValueError as problem:
        raise BadInput(
            f"target_modules {target_modules!r} match nothing that LoRA can adapt in {type(model).__name__}; its "
            f"linear modules are {', '.join(linear)}: name some of these"
        ) from problem


def quantize(model: Any, *, double: bool = True) -> None:
    """Replace linear layers of a model without weights by 4-bit ones: the layers that transformers would replace.

    The LM head, layers tied to it, and layers of other kinds keep their dtype. So does a classification head: it is new
    and trains in full, which 4-bit weights cannot (`llm_int8_skip_modules` of BitsAndBytesConfig spares it).

    Args:
        model: as `build` returns it. It is changed in place.
        double: use double quantization (see `four_bit_bytes`).
    """
    from transformers import Conv1D

    is_converted = transformers_internals.is_converted(model)
    body = "" if lm_head(model) is not None else f"{model.base_model_prefix}."
    for name, module in list(model.named_modules()):
        if type(module) in (nn.Linear, Conv1D) and name.startswith(body) and is_converted(name):
            in_features, out_features = module.weight.shape if isinstance(module, Conv1D) else module.weight.shape[::-1]
            model.set_submodule(name, FourBitLinear(in_features, out_features, module.bias, double))


def four_bit_bytes(values: int, *, double: bool = True) -> tuple[int, int]:
    """Return the bytes of one matrix in NF4, as (packed values, scales and tables).

    Args:
        values: of the matrix: rows times columns.
        double: store the scales in 8 bits, with a float32 scale for each 256 and one float32 offset.

    64 x 64 values are 64 blocks. Their scales and the 16 NF4 values are float32, so 4 * (64 + 16) bytes. With double
    quantization the scales take 64 bytes, and one scale, two tables and the offset 4 * (1 + 16 + 256 + 1).

    >>> four_bit_bytes(64 * 64, double=False)
    (2048, 320)
    >>> four_bit_bytes(64 * 64, double=True)
    (2048, 1160)
    """
    blocks = math.ceil(values / BLOCK)
    if not double:
        return math.ceil(values / 2), 4 * (blocks + NF4_CODE)
    offset = 1
    return math.ceil(values / 2), blocks + 4 * (math.ceil(blocks / BLOCK_OF_SCALES) + NF4_CODE + SCALES_CODE + offset)


class FourBitLinear(nn.Linear):
    """A linear layer in NF4 on the meta device: each matrix product unpacks the weight and frees it at once.

    It takes as much memory as bitsandbytes' `Linear4bit`. The backward pass unpacks the weight again, so the layer
    keeps neither its input nor an unpacked weight.
    """

    def __init__(self, in_features: int, out_features: int, bias: nn.Parameter | None, double: bool) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = in_features, out_features
        packed, scales = four_bit_bytes(in_features * out_features, double=double)
        self.weight = nn.Parameter(torch.empty(packed, 1, dtype=torch.uint8, device="meta"), requires_grad=False)
        self.bias = bias
        self.register_buffer("scales", torch.empty(scales, dtype=torch.uint8, device="meta"))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the product of `inputs` (..., in) with an unpacked weight, which exists only during the product."""
        return _FourBitProduct.apply(inputs, self.out_features, self.bias)


class _FourBitProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, out_features: int, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.shape = (out_features, inputs.shape[-1])
        return functional.linear(inputs, inputs.new_empty(ctx.shape), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        (gradient,) = gradients
        return gradient @ gradient.new_empty(ctx.shape), None, None


def _is_decoder(config: Any) -> bool:
    """Whether the model of a config continues text: by the class that saved it, else by its architecture."""
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
        f"a {config.model_type} model is neither a decoder nor an encoder of text in transformers' lists; "
        "expected one that AutoModelForCausalLM or AutoModelForSequenceClassification can build: give another config"
    )
