"""Private names of PEFT: which modules a config matches, the names of wrapped tensors, LoRA layers, parameter counts.

Those of `peft.tuners.tuners_utils` and `peft.utils.other` are the rules by which `get_peft_model` wraps a model. PEFT
has no public way to ask for the result before it changes the model.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig

# Names of tensors in an adapter's file. PEFT describes some on its page "Checkpoint format", without public code.
PREFIX = "base_model.model."  # before each name
PART = re.compile(
    r"(?P<module>.+)\.(lora_(?P<letter>[AB])\.weight|lora_embedding_(?P<embedding>[AB])|(?P<m>lora_magnitude_vector)"
    r"|lora_B\.(?P<bias>bias))"
)
COPIES = re.compile(r"(?P<module>.+)\.(?P<kind>modules_to_save|original_module)\.(?P<last>[^.]+)")
# Names of tensors in a wrapped model. PEFT has no public way from such a name to that in the base.
BASE_LAYER = ".base_layer."  # a layer with an adapter around it
TRAINED_COPY = ".modules_to_save.default."  # a module that trains in full
WRAPPED = re.compile(r"\.(base_layer|original_module)(?=\.)")  # what was there before
ADDED = re.compile(r"\.(lora_\w+|modules_to_save|token_adapter)\.")  # what PEFT adds
DROPOUT = "lora_dropout"  # part of the name of an adapter's dropout
# What PEFT trains in full because of the task, beside the adapter. It is written inside of PEFT's classes for a task.
HEADS = {"SEQ_CLS": ["classifier", "score"], "TOKEN_CLS": ["classifier", "score"], "QUESTION_ANS": ["qa_outputs"]}
# The regular expressions that PEFT makes of a config's texts, written inside of its functions.
_MADE_OF = {
    "layers_pattern": r"(?:^|.*?\.){}\.(?P<idx>\d+)\.", "modules_to_save": r"(^|.*\.){}($|\..*)",
    "rank_pattern": r"(.*\.)?({})$", "alpha_pattern": r"(.*\.)?({})$",
}  # fmt: skip


def regular_expressions(config: LoraConfig) -> list[tuple[str, str, str, str]]:
    """Return the regular expressions that PEFT makes of `config`: setting, its text, expression, method of `re`."""
    whole = {field: getattr(config, field) for field in ("target_modules", "exclude_modules")}
    found = [(field, value, value, "fullmatch") for field, value in whole.items() if isinstance(value, str)]
    for field, around in _MADE_OF.items():
        value = getattr(config, field) or []
        for text in [value] if isinstance(value, str) else value:
            found.append((field, text, around.replace("{}", text), "match"))
    return found


def value_of(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    """Return the value of the first pattern in `patterns` that matches the name of `module`, else `default`.

    PEFT's rule for rank_pattern and alpha_pattern.
    """
    from peft.utils.other import get_pattern_key

    return patterns.get(get_pattern_key(list(patterns), module), default)


def with_all_linear(config: LoraConfig, model: torch.nn.Module) -> LoraConfig:
    """Return `config` with the names of the linear layers of `model` in the place of "all-linear"; else as it is.

    The config is changed in place.
    """
    from peft.tuners.tuners_utils import _maybe_include_all_linear_layers

    return _maybe_include_all_linear_layers(config, model)


def joined_experts(config: LoraConfig, model: torch.nn.Module) -> list[str]:
    """Return the parameters with several experts each that PEFT would adapt for `config` beside modules.

    transformers joins the experts of a layer into one parameter. While PEFT wraps such a model it changes the config.

    Raises:
        ValueError: the targets are some of the matrices that are joined.
    """
    from peft.utils.transformers_weight_conversion import _convert_peft_config_moe

    changed = copy.deepcopy(config)
    _convert_peft_config_moe(changed, model)
    return sorted(changed.target_parameters or [])


def is_target(config: LoraConfig, name: str) -> bool:
    """Return whether PEFT would wrap the module `name` with `config`, whose target_modules are names or one pattern."""
    from peft.tuners.tuners_utils import check_target_module_exists

    return bool(check_target_module_exists(config, name))


def tied_to_embedding(model: torch.nn.Module) -> list[str]:
    """Return the names of the modules of `model` that share their weights with its input embedding."""
    from peft.utils.other import _get_module_names_tied_with_embedding

    return _get_module_names_tied_with_embedding(model)


def count_parameters(model: torch.nn.Module) -> int:
    """Return the number of parameters of `model`, wrapped or not, as PEFT counts: a byte of 4-bit weights is two.

    PEFT has this as a method of wrapped models, which needs nothing of them.
    """
    from peft import PeftModel

    unwrapped: Any = model
    return int(PeftModel.get_nb_trainable_parameters(unwrapped)[1])


def adapted_layers(model: torch.nn.Module) -> Iterator[Any]:
    """Yield the layers of `model` that have an adapter of any kind. The class has no place among PEFT's public names.

    `peft.get_layer_status`, the public way, refuses a model without an adapter and looks at each tensor.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    return (module for module in model.modules() if isinstance(module, BaseTunerLayer))


def lora_layers(model: torch.nn.Module, adapter: str) -> dict[str, Any]:
    """Return the layers of `model` that have LoRA matrices of `adapter`, by name."""
    from peft.tuners.lora import LoraLayer

    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer) and (adapter in module.lora_A or adapter in module.lora_embedding_A)
    }


def set_scaling(layer: Any, adapter: str, scaling: float) -> None:
    """Make a LoRA `layer` multiply the matrices of `adapter` by `scaling`.

    `set_scale`, the documented method, multiplies this by alpha / rank.
    """
    layer.scaling[adapter] = scaling


def can_start_from_base(layer: Any, init: str) -> bool:
    """Return whether `layer` is a LoRA layer that can start as `init` says: "pissa" or "olora"."""
    return hasattr(layer, f"{init}_init")


def start_from_base(layer: Any, init: str) -> None:
    """Start the default adapter of a LoRA `layer` from its base weight, as `init` says, and change that weight.

    PEFT does this only while it wraps a model.
    """
    getattr(layer, f"{init}_init")(*(["default", init] if init == "pissa" else ["default"]))
