"""Low-rank adapters with nothing silent: presets, the count proven, the base's identity kept beside the adapter.

`LoraConfig`, `get_peft_model` and `SFTTrainer(peft_config=...)` stand in the lesson, and PEFT does the work; `resolve`
(of adapter_targets) says before that what will be wrapped and how many parameters will train.

LoRA (Hu et al., 2021) adds scale * B @ A to a weight: A is rank x in, B is out x rank and starts at 0. DoRA (Liu et
al., 2024) trains a magnitude for each output too. rsLoRA (Kalajdzievski, 2023) scales by alpha / sqrt(rank) instead of
alpha / rank. PiSSA (Meng et al., 2024) starts A and B at the weight's largest singular vectors and takes them out of
the base. The names of the files are PEFT's.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlab import files
from ftlab.adapters import base_weights, matching
from ftlab.adapters import config as adapter_config
from ftlab.adapters import tensors as adapter_tensors
from ftlab.adapters.base_record import record_base, require_base, require_loaded_from
from ftlab.adapters.config import BASE, CONFIG, INITS_THAT_LEAVE_THE_BASE, WEIGHTS
from ftlab.adapters.matching import Fit
from ftlab.adapters.quantized import four_bit_config, keep_trainable, require_amp
from ftlab.adapters.targets import (
    ALL_LINEAR,
    QUANTIZED,
    Targets,
    all_linear,
    linear_layers,
    model_type,
    require_unwrapped,
    resolve,
    trained_in_full,
)
from ftlab.errors import BadInput, CourseError
from ftlab.internals.bitsandbytes import UNPACKED, layers_that_pack
from ftlab.models import loading, meta, shards
from ftlab.wording import one_line, some

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "ALL_LINEAR", "PRESETS", "VARIANTS", "Targets", "attach", "config", "four_bit_config", "keep_trainable", "load",
    "record_base", "record_fitting_base", "require_amp", "require_answers", "require_base", "require_counts",
    "require_fit", "resolve", "same_as_base", "save", "tokenizer", "trainable",
]  # fmt: skip

# The projections that make queries and values (GPT-2 makes its keys in the same matrix), by `config.model_type`.
PRESETS = {
    "distilbert": ["q_lin", "v_lin"],
    "bert": ["query", "value"],
    "roberta": ["query", "value"],
    "gpt2": ["c_attn"],
    "llama": ["q_proj", "v_proj"],
    "phi": ["q_proj", "v_proj"],
}
_OPTIONS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "pissa": {"init_lora_weights": "pissa"},
}
VARIANTS = tuple(_OPTIONS)
TASKS = {
    "ForCausalLM": "CAUSAL_LM", "LMHeadModel": "CAUSAL_LM", "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS", "ForQuestionAnswering": "QUESTION_ANS",
}  # fmt: skip


def config(
    model: torch.nn.Module,
    *,
    rank: int,
    alpha: float,
    target_modules: Sequence[str] | str | None = None,
    variant: str = "lora",
    dropout: float = 0.0,
    **options: Any,
) -> LoraConfig:
    """A `LoraConfig` that fits `model`, for benchmarks; the lesson writes its own.

    `target_modules` None stands for the preset of the architecture, `variant` is one of VARIANTS, the task follows
    from the model's class, and `options` go to `LoraConfig`. With ALL_LINEAR, a head that trains in full is left out.
    Raises BadInput for an unknown variant or option, an architecture without preset, and whatever `resolve` refuses.
    """
    from peft import LoraConfig

    if variant not in VARIANTS:
        raise BadInput(f"there is no variant {variant!r}; there are {', '.join(VARIANTS)}")
    if target_modules is None:
        target_modules = PRESETS.get(model_type(model))
    if target_modules is None:
        raise BadInput(
            f"there is no preset for {model_type(model)!r} ({type(model).__name__}), only for {', '.join(PRESETS)}; "
            f"pass target_modules: some of {linear_layers(model)}, or {ALL_LINEAR!r}"
        )
    task = next((task for ending, task in TASKS.items() if type(model).__name__.endswith(ending)), None)
    chosen = {"task_type": task, **_OPTIONS[variant], **options}
    names = target_modules if isinstance(target_modules, str) else list(target_modules)
    try:
        made = LoraConfig(r=rank, lora_alpha=alpha, target_modules=names, lora_dropout=dropout, **chosen)
    except (TypeError, ValueError) as problem:
        raise BadInput(f"LoraConfig cannot be made so ({problem}); correct or leave out that option") from problem
    if names == ALL_LINEAR and not made.exclude_modules:
        made.exclude_modules = all_linear(model, made.task_type) & set(trained_in_full(model, made)) or None
    return resolve(model, made).config


def trainable(peft_model: PeftModel) -> int:
    """How many parameters of a wrapped model train now, as PEFT counts them."""
    return int(peft_model.get_nb_trainable_parameters()[0])


def require_counts(peft_model: PeftModel, targets: Targets) -> None:
    """Raise CourseError, with both numbers, unless the wrapped model trains as many parameters as the formula says."""
    if (counted := trainable(peft_model)) != targets.trainable:
        raise CourseError(
            f"{counted:,} parameters of the wrapped model train, and by formula it should be {targets.trainable:,}; "
            "wrap a fresh model once, with targets.config, and let nothing else set requires_grad"
        )


def same_as_base(peft_model: PeftModel, batch: Mapping[str, torch.Tensor]) -> float:
    """The largest difference between the logits with the adapter and without, over `batch`; labels are ignored.

    Exactly 0 before the first step where B starts at 0 (LoRA, rsLoRA, DoRA). PiSSA without its adapter is not the base
    but what is left of it. Dropout is off meanwhile, and afterwards everything is as before: PEFT's `disable_adapter`
    makes an adapter trainable that was loaded frozen, and evaluation can pack 4-bit weights (see `keep_trainable`).
    """
    import torch

    modules = list(peft_model.modules())
    before: list[tuple[Any, str, bool]] = [(module, "training", module.training) for module in modules]
    before += [(layer, UNPACKED, getattr(layer, UNPACKED)) for layer in layers_that_pack(peft_model)]
    before += [(parameter, "requires_grad", parameter.requires_grad) for parameter in peft_model.parameters()]
    inputs = {name: tensor.to(peft_model.device) for name, tensor in batch.items() if name != "labels"}
    try:
        keep_trainable(peft_model)
        with torch.no_grad():
            peft_model.eval()
            on = peft_model(**inputs).logits
            with peft_model.disable_adapter():
                off = peft_model(**inputs).logits
    finally:
        for thing, name, value in before:
            setattr(thing, name, value)
    return float((on.float() - off.float()).abs().max())


def record_fitting_base(adapter_folder: Path, base: str) -> dict[str, Any]:
    """`record_base` for an adapter that fits `base`: its tensors are those that its config asks of that model.

    A record that is there is not written over. Raises BadInput as `require_base` and `adapter_fit.fit` do.
    """
    folder = Path(adapter_folder).expanduser()
    adapter = adapter_tensors.read(folder)
    if adapter_config.read_record(folder) is not None:
        return require_base(folder, base)
    checkpoint = shards.read(loading.folder(base))
    matching.fit(adapter, meta.from_checkpoint(checkpoint), base, tokens=lambda: _tokens(folder, base))
    return record_base(folder, base)


def save(peft_model: PeftModel, folder: Path, base: str) -> Path:
    """Save the adapter alone, with the identity of its base, whole or not at all; an older one there is replaced.

    A frozen embedding is not saved (PEFT by itself saves a resized one in full): `loading.causal_lm` adds the pad
    token's row again. Raises BadInput when `folder` holds anything but an adapter, the weights that were wrapped are
    not those of `base` (see `base_weights.require_same`), or the adapter has a NaN.
    """
    folder = Path(folder).expanduser()
    if list(peft_model.peft_config) != ["default"]:
        raise BadInput(
            f"the model has the adapters {', '.join(peft_model.peft_config)}; expected one, named 'default': keep "
            "only that one (`delete_adapter`)"
        )
    if folder.exists() and not (folder.is_dir() and {p.name for p in folder.iterdir()} <= {CONFIG, WEIGHTS, BASE}):
        raise BadInput(f"{folder} holds other things than an adapter, and would be replaced; name a new folder")
    require_loaded_from(peft_model.get_base_model(), base)
    base_weights.require_same(peft_model, base, brought=base_weights.brought_by(peft_model))
    with files.atomic(folder, folder=True) as partial:
        peft_model.save_pretrained(str(partial), save_embedding_layers=False)
        (partial / "README.md").unlink()  # PEFT's empty model card, with the base's private path in it
        record = record_base(partial, base)
        settings = json.loads((partial / CONFIG).read_text(encoding="utf-8"))
        pinned = loading.HUB_MODELS.get(base)
        settings["base_model_name_or_path"] = pinned.repo_id if pinned else record["name"]
        files.write_json(partial / CONFIG, settings)
        try:
            adapter_tensors.read(partial)
        except BadInput as problem:
            raise BadInput(str(problem).replace(str(partial), str(folder))) from problem
    return folder


def load(base_model: torch.nn.Module, adapter_folder: Path, base: str, *, trainable: bool = False) -> PeftModel:
    """`PeftModel.from_pretrained`, once it is proven that the adapter is whole, fits the model and belongs to `base`.

    `base_model` is the model as loaded from `base`, in any precision; it is changed in place. Raises BadInput as
    `require_base` and `require_fit` do, and when the model's own weights are others than those of `base`: loaded from
    another folder, or changed since. Not `trainable`, nothing of it trains.
    """
    require_base(adapter_folder, base)
    fitted = require_fit(base_model, adapter_folder, base, trainable=trainable)
    base_weights.require_same(base_model, base, brought=frozenset(fitted.whole))
    loaded = attach(base_model, fitted, trainable=trainable)
    return loaded if trainable else loaded.requires_grad_(False)  # PEFT leaves biases as if they should train


def require_fit(base_model: torch.nn.Module, adapter_folder: Path, base: str, *, trainable: bool = False) -> Fit:
    """An adapter that fits `base_model`, which has none yet, ready for `attach`; nothing is changed.

    Raises BadInput when the file holds other tensors than the config asks for (PEFT would leave those as they
    started, or out) as `adapter_fit.fit` says, as `resolve` does for one that is to train, and when the model was
    loaded from another folder with other weights.
    """
    folder = Path(adapter_folder).expanduser()
    adapter = adapter_tensors.read(folder)
    require_unwrapped(base_model)
    require_loaded_from(base_model, base)
    fitted = matching.fit(adapter, base_model, base, tokens=lambda: _tokens(folder, base))
    if trainable:
        resolve(base_model, adapter.config)
    if in_few_bits := [name for name, layer in base_model.named_modules() if type(layer).__name__ in QUANTIZED]:
        if str(adapter.config.init_lora_weights) not in INITS_THAT_LEAVE_THE_BASE:
            raise BadInput(
                f"the adapter in {folder} takes the weights of the base apart (init_lora_weights="
                f"{adapter.config.init_lora_weights}), and they are quantized; load the base in full precision"
            )
        if whole := [name for name in fitted.whole if name.rpartition(".")[0] in in_few_bits]:
            raise BadInput(
                f"the adapter in {folder} brings {some(whole)} in full, and the model's are quantized; load the model "
                f"with llm_int8_skip_modules={sorted({name.rpartition('.')[0] for name in whole})} in its "
                "BitsAndBytesConfig, or in full precision"
            )
    return fitted


def attach(model: Any, fitted: Fit, name: str = "default", *, trainable: bool = False) -> PeftModel:
    """`model` with one adapter more, which `require_base` and `require_fit` have looked at.

    Every tensor of the adapter goes to its place in the model, under the names of either: PEFT's own loading looks at
    one spelling, and passes over the rest.
    """
    from peft import PeftModel, get_peft_model, set_peft_model_state_dict

    config = copy.deepcopy(fitted.adapter.config)
    config.inference_mode = not trainable
    config.fan_in_fan_out = any(layer == "conv1d" for layer in map(shards.layer_kind, model.modules()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names and patterns that match nothing; `require_fit` knows what will match
        if fitted.vocabulary is not None:
            model.resize_token_embeddings(fitted.vocabulary, mean_resizing=False)
        if isinstance(model, PeftModel):
            model.add_adapter(name, config)
        else:
            model = get_peft_model(model, config, adapter_name=name)
        result = set_peft_model_state_dict(model, fitted.named_as(model), adapter_name=name)
    if lost := result.unexpected_keys:  # none is missing either: `require_fit` has counted them
        raise BadInput(
            f"{some(lost)} of the adapter in {fitted.adapter.folder} found no place in the model; load it with PEFT "
            "itself (`PeftModel.from_pretrained`)"
        )
    return model if trainable else model.eval()


def require_answers(logits: torch.Tensor, when: str) -> None:
    """Raise BadInput when logits (..., vocabulary) are NaN, infinite or all the same: numbers overflowed on the way.

    A norm divides what has become infinite away, so that nothing but zeros may arrive. `when` begins the sentence.
    """
    if not logits.isfinite().all() or bool((logits.amax(-1) == logits.amin(-1)).any()):
        raise BadInput(
            f"{when} the model's numbers leave the range of {str(logits.dtype).removeprefix('torch.')}, and it answers "
            "at random; the adapter's factors or its scale (lora_alpha) are too large: train it again"
        )


def _tokens(adapter: Path, base: str) -> int:
    """How many tokens the tokenizer has that goes with an adapter, the one that pads included."""
    return len(tokenizer(adapter, base))


def tokenizer(adapter: Path, base: str) -> PreTrainedTokenizerBase:
    """The tokenizer of an adapter with a vocabulary of its own: the one saved beside it, else that of its base."""
    if not adapter_config.brings_tokenizer(adapter):
        return loading.tokenizer(base)
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(adapter)
    except Exception as problem:  # each kind of tokenizer has errors of its own
        raise BadInput(f"the tokenizer in {adapter} cannot be loaded ({one_line(problem)}); save it again") from problem
    loading.prepare_padding(loaded)
    return loaded
