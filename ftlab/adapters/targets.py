"""The target modules of a LoRA config and its trainable parameters, found by PEFT's rules before it wraps a model.

PEFT ignores some mistakes without a message (one of several names that matches nothing, a rank above a layer's width,
alpha 0), and finds others when the model is half wrapped. Here each is refused in one sentence. The rules are those of
PEFT 0.21.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from ftlab.adapters import config as adapter_config
from ftlab.adapters import quantized
from ftlab.adapters.tensors import alpha_of, rank_of, scaling_of
from ftlab.errors import BadInput
from ftlab.internals import peft as peft_internals
from ftlab.internals.peft import HEADS
from ftlab.models import loading_report

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig

# The projections that make queries and values, which LoRA adapts by default (Hu et al., LoRA, 2021, section 4.2), by
# `config.model_type`. GPT-2 makes its keys in the same matrix.
PRESETS = {
    "llama": ["q_proj", "v_proj"],
    "phi": ["q_proj", "v_proj"],
    "bert": ["query", "value"],
    "roberta": ["query", "value"],
    "distilbert": ["q_lin", "v_lin"],
    "gpt2": ["c_attn"],
}
ALL_LINEAR = "all-linear"  # PEFT's name for every linear layer but the output layer
# Options that train parameters which are not counted here.
UNCOUNTED = (
    "target_parameters", "trainable_token_indices", "layer_replication", "use_bdlora", "kasa_config",
    "monteclora_config", "arrow_config", "use_qalora", "ensure_weight_tying", "megatron_config",
)  # fmt: skip
QUANTIZED = {"Linear4bit": "4-bit", "Linear8bitLt": "8-bit"}
FEW_BITS = set(QUANTIZED.values())


@dataclass(frozen=True)
class Target:
    """A module that gets an adapter."""

    name: str
    kind: str  # "Linear", "Conv1D", "4-bit", "8-bit" or "Embedding"
    in_features: int
    out_features: int
    rank: int
    scale: float  # the factor of B @ A
    parameters: int  # rank * (in + out), and those of DoRA and lora_bias


@dataclass(frozen=True)
class Targets:
    """The modules that a config will adapt, and the parameters that it will train: the result of `resolve`."""

    architecture: str
    modules: tuple[Target, ...]
    base: int  # parameters of the unwrapped model; a byte of 4-bit weights counts as two
    kept: int  # parameters of the copies that PEFT trains in full: modules_to_save, a classifier's head
    biases: int  # parameters of the base's biases that train because of `bias`
    config: LoraConfig  # a copy of the config with fan_in_fan_out as the modules need it: wrap with this one

    @property
    def adapter(self) -> int:
        """The number of parameters of the adapter's own matrices."""
        return sum(module.parameters for module in self.modules)

    @property
    def trainable(self) -> int:
        """The number of parameters that will train."""
        return self.adapter + self.kept + self.biases

    @property
    def total(self) -> int:
        """The number of parameters of the wrapped model."""
        return self.base + self.adapter + self.kept

    @property
    def share(self) -> float:
        """The share of the wrapped model's parameters that trains."""
        return self.trainable / self.total

    def table(self) -> pd.DataFrame:
        """Return one row for each module, in the order of the model: kind, in, out, rank, scale, parameters."""
        columns = {"name": "module", "in_features": "in", "out_features": "out"}
        return pd.DataFrame([vars(module) for module in self.modules]).rename(columns=columns).set_index("module")

    def __str__(self) -> str:
        names = ", ".join(sorted({module.name.rpartition(".")[2] for module in self.modules}))
        return (
            f"{len(self.modules)} modules of {self.architecture} ({names}): {self.trainable:,} of {self.total:,} "
            f"parameters train ({self.share:.4%})"
        )


def resolve(model: torch.nn.Module, config: LoraConfig) -> Targets:
    """Find the modules that `get_peft_model(model, config)` would wrap, and count the parameters that would train.

    A Linear layer of 10 inputs and 20 outputs gets r * (10 + 20) parameters of LoRA. Nothing is changed; wrap with the
    `config` of the result.

    Args:
        model: without an adapter; it may be without weights (on the meta device).
        config: of PEFT.

    Returns:
        The modules, the counts, and a prepared copy of `config`.

    Raises:
        BadInput: the model has an adapter already; a name matches no module; the targets are only embeddings, not
            linear, tied to the embedding or trained in full too; a rank or a scale cannot learn; an option trains
            parameters that are not counted here; or the matching of a pattern does not come to an end.
    """
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

    architecture = type(model).__name__
    require_unwrapped(model)
    uncounted = [name for name in UNCOUNTED if getattr(config, name, None)]
    if config.init_lora_weights == "mica":  # leaves B frozen
        uncounted.append("init_lora_weights='mica'")
    if uncounted:
        raise BadInput(
            f"the config sets {uncounted[0]}, which trains parameters that are not counted here; leave it out, or wrap "
            "the model with PEFT alone"
        )
    if not 0 <= config.lora_dropout < 1:
        raise BadInput(f"lora_dropout is {config.lora_dropout}; expected 0 or more and less than 1")
    if config.bias not in ("none", "all", "lora_only"):
        raise BadInput(f"there is no bias {config.bias!r}; expected none, all or lora_only")
    asked = copy.deepcopy(config)  # PEFT and this function change it
    if asked.target_modules is None:
        asked.target_modules = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(model_type(model))
        if asked.target_modules is None:
            raise BadInput(
                f"PEFT has no target_modules of its own for {architecture}; name some of its linear layers "
                f"({linear_layers(model)}), or pass {ALL_LINEAR!r}"
            )
    _require_no_experts(model, asked)
    kept = trained_in_full(model, asked)
    _require_no_idle_head(model, kept)
    if asked.task_type == "SEQ_CLS":  # for other tasks PEFT adds the head only after it has matched the targets
        asked.modules_to_save = [*(asked.modules_to_save or []), *HEADS["SEQ_CLS"]]
    asked = peft_internals.with_all_linear(asked, model)
    names = _matched(model, asked, config.target_modules or asked.target_modules)
    if both := [name for name in names if any(f"{name}.".startswith(f"{whole}.") for whole in kept)]:
        raise BadInput(
            f"{both[0]} is a target and trains in full too (PEFT trains modules in full whose names end in "
            f"{' or '.join(_to_keep(asked))}); take it out of the targets with exclude_modules={both}"
        )
    if tied := sorted(set(peft_internals.tied_to_embedding(model)) & {*names, *kept}):
        raise BadInput(
            f"{tied[0]} of {architecture} shares its weights with the embedding (tie_word_embeddings), so training it "
            "alone would untie them; leave it out of target_modules and modules_to_save"
        )
    modules = []
    for name in names:
        module = model.get_submodule(name)
        kind = _kind(module)
        if kind is None:
            raise BadInput(
                f"{name} is a {type(module).__name__}, not a linear layer; the linear layers of {architecture} are "
                f"{linear_layers(model)}: name some of these"
            )
        inside, outside = _widths(module)
        rank, alpha = rank_of(asked, name), alpha_of(asked, name)
        if type(rank) is not int or not 1 <= rank <= min(inside, outside):
            raise BadInput(
                f"rank {rank!r} does not fit {name} ({inside} to {outside}): expected a whole number from 1 to "
                f"{min(inside, outside)}, the smaller of its widths; choose another r (or rank_pattern)"
            )
        if not alpha > 0:
            raise BadInput(f"alpha is {alpha} for {name}, so its adapter would change nothing; choose one above 0")
        extra = outside * (bool(asked.use_dora) + bool(asked.lora_bias))
        scale = scaling_of(asked, name)
        modules.append(Target(name, kind, inside, outside, rank, scale, rank * (inside + outside) + extra))
    kinds = {module.kind for module in modules}
    if kinds == {"Embedding"}:
        raise BadInput(
            f"target_modules match only embeddings ({', '.join(names)}), and LoRA learns in linear layers; those of "
            f"{architecture} are {linear_layers(model)}: name some of these, or pass {ALL_LINEAR!r}"
        )
    if kinds & FEW_BITS and str(asked.init_lora_weights).startswith("pissa"):
        raise BadInput(
            f"PiSSA decomposes the weights of {names[0]}, and they are quantized; use 'lora', or a base in full "
            "precision"
        )
    if few := [whole for whole in kept if any(_kind(m) in FEW_BITS for m in model.get_submodule(whole).modules())]:
        raise BadInput(
            f"{few[0]} would train in full, and its weights are quantized; load the model with "
            f"llm_int8_skip_modules={kept} in its BitsAndBytesConfig"
        )
    if not config.inference_mode and (packed := quantized.packed(model)):
        raise BadInput(
            f"bitsandbytes has packed the 4-bit weights of {packed[0]} for inference, and no gradient passes through "
            "them; load the model again, and call `keep_trainable(model)` before its first forward pass"
        )
    prepared = copy.deepcopy(config)
    prepared.fan_in_fan_out = "Conv1D" in kinds
    biases = {"none": [], "all": [name for name, _ in model.named_parameters() if f".{name}".endswith(".bias")]}
    biases["lora_only"] = [name for name in (f"{name}.bias" for name in names) if _has(model, name)]
    return Targets(
        architecture=architecture,
        modules=tuple(modules),
        base=peft_internals.count_parameters(model),
        kept=sum(parameter.numel() for whole in kept for parameter in model.get_submodule(whole).parameters()),
        biases=sum(
            model.get_parameter(name).numel()
            for name in biases[asked.bias]
            if not any(name.startswith(f"{whole}.") for whole in kept)  # there the copy's bias trains; `kept` counts it
        ),
        config=prepared,
    )


def _require_no_experts(model: torch.nn.Module, config: LoraConfig) -> None:
    """Raise BadInput if PEFT would adapt experts that a mixture of experts holds in one parameter."""
    if not hasattr(model, "config"):  # no model of transformers
        return
    try:
        found = peft_internals.joined_experts(config, model)
    except ValueError as problem:
        found = [str(problem)]
    if found:
        raise BadInput(
            f"the experts of {type(model).__name__} are joined in parameters ({found[0]}), whose adapters are not "
            f"counted or saved here; name other linear layers, such as those of attention ({linear_layers(model)})"
        )


def _require_no_idle_head(model: torch.nn.Module, kept: Collection[str]) -> None:
    """Raise BadInput if a weight of `model` started at random and is none of the modules `kept`, which train in full.

    It would neither train nor be saved with the adapter.
    """
    fresh = loading_report.fresh_tensors(model)
    idle = sorted(name for name in fresh if not any(name.startswith(f"{whole}.") for whole in kept))
    if idle:
        modules = sorted({name.rpartition(".")[0] for name in idle})
        raise BadInput(
            f"{idle[0]} of {type(model).__name__} starts at random, and would neither train nor be saved with the "
            f"adapter; train it in full: modules_to_save={modules}"
        )


def require_unwrapped(model: torch.nn.Module) -> None:
    """Raise BadInput if `model` has an adapter already: PEFT would only warn, and discard it."""
    from peft import PeftModel
    from peft.utils import AuxiliaryTrainingWrapper

    wrapped = any(isinstance(module, PeftModel | AuxiliaryTrainingWrapper) for module in model.modules())
    if wrapped or next(peft_internals.adapted_layers(model), None) is not None:
        raise BadInput(
            f"this {type(model).__name__} has an adapter already, and a second wrap would discard it; load the base "
            "model again, and wrap that"
        )


def all_linear(model: torch.nn.Module, task_type: str | None = None) -> set[str]:
    """Return the names of the modules of `model` that PEFT finds for "all-linear", given the `task_type`."""
    from peft import LoraConfig

    asked = LoraConfig(target_modules=ALL_LINEAR, task_type=task_type)
    return peft_internals.with_all_linear(asked, model).target_modules


def linear_layers(model: torch.nn.Module) -> str:
    """Return the last parts of the names of the linear layers of `model`, as a list to choose from in a message."""
    endings = sorted({name.rpartition(".")[2] for name in all_linear(model)})
    return ", ".join(endings[:12]) + (", ..." if len(endings) > 12 else "") or "none"


def trained_in_full(model: torch.nn.Module, asked: LoraConfig) -> list[str]:
    """Return the names of the modules of `model` that PEFT trains in full by the config `asked`.

    These are its `modules_to_save`, and a classifier's head. PEFT compares the ends of names: "classifier" matches
    DistilBERT's pre_classifier too. Raises BadInput for an entry of `modules_to_save` in which no name ends.
    """
    named = [name for name, _ in model.named_modules() if name]
    for entry in asked.modules_to_save or []:
        if entry not in HEADS.get(asked.task_type, []) and not any(name.endswith(entry) for name in named):
            raise BadInput(f"modules_to_save names {entry!r}, which no module's name ends in; correct or drop it")
    kept: list[str] = []
    for name in named:
        if name.endswith(tuple(_to_keep(asked))) and not any(name.startswith(f"{whole}.") for whole in kept):
            kept.append(name)
    return kept


def model_type(model: torch.nn.Module) -> str:
    """Return the architecture of `model` by its name in transformers ("gpt2"), or "" if it has none."""
    return getattr(getattr(model, "config", None), "model_type", "")


def _matched(model: Any, asked: Any, shown: Any) -> list[str]:
    """Return the names of the modules that PEFT would wrap; each entry of a list must match one."""
    named = [name for name, _ in model.named_modules() if name]
    shown = shown if isinstance(shown, str) else sorted(shown)
    there = f"the linear layers of {type(model).__name__} are {linear_layers(model)}: name some of these"
    try:
        for pattern in (asked.target_modules, asked.exclude_modules):
            if isinstance(pattern, str):
                re.compile(pattern)
        adapter_config.require_patterns(asked, named, "the LoRA config")  # they may take years
        names = [name for name in named if peft_internals.is_target(asked, name)]
        by_name = copy.copy(asked)
        by_name.exclude_modules = by_name.layers_to_transform = by_name.modules_to_save = None
        ruled_out = not names and any(peft_internals.is_target(by_name, name) for name in named)
    except re.error as problem:
        raise BadInput(f"target_modules or exclude_modules is no regular expression ({problem}); {there}") from problem
    if ruled_out:
        raise BadInput(
            f"target_modules {shown} match modules, but exclude_modules, layers_to_transform or modules_to_save rules "
            "out every one of them; loosen these"
        )
    if isinstance(shown, str) and not names:
        raise BadInput(
            f"target_modules {shown!r} match no module, because a string is a regular expression of a whole name; "
            f"{there} in a list, or pass {ALL_LINEAR!r}"
        )
    idle = [] if isinstance(asked.target_modules, str) else [
        entry for entry in sorted(asked.target_modules) if not any(f".{name}".endswith(f".{entry}") for name in named)
    ]  # fmt: skip
    if idle or not names:
        raise BadInput(f"target_modules {idle or shown} match no module; {there}, or pass {ALL_LINEAR!r}")
    return names


def _to_keep(asked: Any) -> list[str]:
    return sorted({*(asked.modules_to_save or []), *HEADS.get(asked.task_type, [])})


def layer_kind(module: torch.nn.Module) -> str | None:
    """Return the kind of layer that `module` is for LoRA: Linear, Conv1D, Embedding, or None for any other."""
    import torch
    from transformers import Conv1D

    kinds = {torch.nn.Linear: "Linear", Conv1D: "Conv1D", torch.nn.Embedding: "Embedding"}
    return next((name for kind, name in kinds.items() if isinstance(module, kind)), None)


def _kind(module: torch.nn.Module) -> str | None:
    """Return the kind of a layer, or its number of bits if it is quantized."""
    return (kind := layer_kind(module)) and QUANTIZED.get(type(module).__name__, kind)


def _widths(module: Any) -> tuple[int, int]:
    """Return the numbers of inputs and outputs of a layer of a known kind. The weight of a Conv1D is (in, out)."""
    import torch

    if isinstance(module, torch.nn.Linear):
        return module.in_features, module.out_features
    if isinstance(module, torch.nn.Embedding):
        return module.num_embeddings, module.embedding_dim
    inside, outside = module.weight.shape
    return inside, outside


def _has(model: Any, name: str) -> bool:
    owner, _, last = name.rpartition(".")
    return getattr(model.get_submodule(owner), last, None) is not None
