"""LoRA adapters: configs by preset, the count of trainable parameters, saving, loading and checking.

The lesson itself uses `LoraConfig`, `get_peft_model` and `SFTTrainer(peft_config=...)`; PEFT does the work. `resolve`
(in `targets`) tells before that which modules will be wrapped, and how many parameters will train.

LoRA (Hu et al., 2021) adds scale * B @ A to a weight: A is rank x in, B is out x rank and starts at 0. DoRA (Liu et
al., 2024) trains a magnitude for each output too. rsLoRA (Kalajdzievski, 2023) scales by alpha / sqrt(rank) instead of
alpha / rank. PiSSA (Meng et al., 2024) starts A and B at the weight's largest singular vectors, and subtracts these
from the base. The names of the files are PEFT's.
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
    PRESETS,
    QUANTIZED,
    Targets,
    all_linear,
    layer_kind,
    linear_layers,
    model_type,
    require_unwrapped,
    resolve,
    trained_in_full,
)
from ftlab.data import chat
from ftlab.errors import BadInput, CourseError
from ftlab.internals.bitsandbytes import UNPACKED, layers_that_pack
from ftlab.models import loading, meta, model_files, shards
from ftlab.wording import some

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "ALL_LINEAR", "PRESETS", "VARIANTS", "Targets", "attach", "config", "four_bit_config", "keep_trainable", "load",
    "own_tokenizer", "record_base", "record_fitting_base", "require_amp", "require_answers", "require_base",
    "require_counts", "require_fit", "resolve", "same_as_base", "same_tokens", "save", "tokenizer", "trainable",
]  # fmt: skip

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
    """Return a `LoraConfig` that fits `model`, for benchmarks; the lesson writes its own.

    Args:
        model: without an adapter. Its class decides the task.
        rank, alpha, dropout: of each adapted module.
        target_modules: names, a regular expression, or ALL_LINEAR, which leaves out a head that trains in full. By
            default the preset of the architecture.
        variant: one of VARIANTS.
        options: more settings for `LoraConfig`.

    Raises:
        BadInput: the variant or an option is unknown, the architecture has no preset, or as `resolve`.
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
        raise BadInput(f"LoraConfig refuses its options ({problem}); correct or leave out that option") from problem
    if names == ALL_LINEAR and not made.exclude_modules:
        made.exclude_modules = all_linear(model, made.task_type) & set(trained_in_full(model, made)) or None
    return resolve(model, made).config


def trainable(peft_model: PeftModel) -> int:
    """Return the number of parameters of `peft_model` that train now, as PEFT counts them."""
    return int(peft_model.get_nb_trainable_parameters()[0])


def require_counts(peft_model: PeftModel, targets: Targets) -> None:
    """Raise CourseError, with both numbers, unless `peft_model` trains as many parameters as `targets` predicts."""
    if (counted := trainable(peft_model)) != targets.trainable:
        raise CourseError(
            f"{counted:,} parameters of the wrapped model train, and by formula it should be {targets.trainable:,}; "
            "wrap a fresh model once, with targets.config, and let nothing else set requires_grad"
        )


def same_as_base(peft_model: PeftModel, batch: Mapping[str, torch.Tensor]) -> float:
    """Return the largest difference between the logits of `peft_model` with and without its adapter.

    It is exactly 0 before the first step if B starts at 0 (LoRA, rsLoRA, DoRA). PiSSA without its adapter is not the
    base, but the base minus the initial factors. Dropout is off here. Afterwards the state of the model is restored:
    PEFT's `disable_adapter` makes a frozen adapter trainable, and evaluation can pack 4-bit weights (see
    `keep_trainable`). Labels in `batch` are ignored.
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
    """Record `base` as the base of the adapter in `adapter_folder`, after a check that the adapter fits it.

    An existing record is kept, and checked. Raises BadInput as `require_base` and `matching.fit` do.

    Returns:
        The record, as `record_base` writes it.
    """
    folder = Path(adapter_folder).expanduser()
    adapter = adapter_tensors.read(folder)
    if adapter_config.read_record(folder) is not None:
        return require_base(folder, base)
    checkpoint = shards.read(loading.folder(base))
    matching.fit(adapter, meta.from_checkpoint(checkpoint), base, tokens=lambda: _tokens(folder, base))
    return record_base(folder, base)


def save(peft_model: PeftModel, folder: Path, base: str, *, chat_template: str | None = None) -> Path:
    """Save the adapter of `peft_model` without the base, with a record of its base. Nothing half-written is left.

    A frozen embedding is not saved (PEFT by itself saves a resized one in full): `loading.causal_lm` adds the pad
    token's row again.

    Args:
        peft_model: a wrapped model with the one adapter "default".
        folder: of the adapter; an older adapter there is replaced.
        base: name or folder of the wrapped model, as for `loading.folder`.
        chat_template: the format that the adapter was trained in (`alpaca_chat.with_template`); the base's is another
            one, if it has any. `Generator` and a merge take it from the folder.

    Returns:
        The folder.

    Raises:
        BadInput: the model has other adapters, `folder` contains anything but an adapter, the wrapped weights are not
            those of `base` (see `base_weights.require_same`), or the adapter contains NaN.
    """
    folder = Path(folder).expanduser()
    if list(peft_model.peft_config) != ["default"]:
        raise BadInput(
            f"the model has the adapters {', '.join(peft_model.peft_config)}; expected one, named 'default': keep "
            "only that one (`delete_adapter`)"
        )
    known = {CONFIG, WEIGHTS, BASE, chat.ALONE}
    if folder.exists() and not (folder.is_dir() and {path.name for path in folder.iterdir()} <= known):
        raise BadInput(f"{folder} is not just an adapter, and would be replaced; name a new folder")
    require_loaded_from(peft_model.get_base_model(), base)
    base_weights.require_same(peft_model, base, brought=base_weights.brought_by(peft_model))
    with files.atomic(folder, folder=True) as partial:
        peft_model.save_pretrained(str(partial), save_embedding_layers=False)
        (partial / "README.md").unlink()  # PEFT's empty model card, which contains the base's private path
        record = record_base(partial, base)
        settings = json.loads((partial / CONFIG).read_text(encoding="utf-8"))
        pinned = loading.HUB_MODELS.get(base)
        settings["base_model_name_or_path"] = pinned.repo_id if pinned else record["name"]
        files.write_json(partial / CONFIG, settings)
        if chat_template:
            (partial / chat.ALONE).write_text(chat_template, encoding="utf-8", newline="")
        try:
            adapter_tensors.read(partial)
        except BadInput as problem:
            raise BadInput(str(problem).replace(str(partial), str(folder))) from problem
    return folder


def load(base_model: torch.nn.Module, adapter_folder: Path, base: str, *, trainable: bool = False) -> PeftModel:
    """Load an adapter, after a check that it is complete, fits the model and belongs to its base.

    Args:
        base_model: the model as loaded from `base`, in any precision; it is changed in place.
        adapter_folder: of the adapter.
        base: name or folder of the model, as for `loading.folder`.
        trainable: whether the adapter trains; by default all parameters are frozen.

    Returns:
        The wrapped model, in evaluation mode unless `trainable`.

    Raises:
        BadInput: as `require_base` and `require_fit`; or the model was loaded from another folder than `base`, or has
            changed since.
    """
    require_base(adapter_folder, base)
    fitted = require_fit(base_model, adapter_folder, base, trainable=trainable)
    base_weights.require_same(base_model, base, brought=frozenset(fitted.whole))
    loaded = attach(base_model, fitted, trainable=trainable)
    return loaded if trainable else loaded.requires_grad_(False)  # PEFT leaves biases trainable


def require_fit(base_model: torch.nn.Module, adapter_folder: Path, base: str, *, trainable: bool = False) -> Fit:
    """Return the adapter in `adapter_folder`, checked to fit `base_model`, for `attach`. Nothing is changed.

    `base_model` has no adapter yet; `base` is its name or folder. If `trainable`, the adapter must also pass `resolve`.

    Raises:
        BadInput: the file does not contain the tensors that the config asks for (see `matching.fit`; PEFT would
            ignore them, or leave them at their initial values), or the model was loaded from a folder with other
            weights.
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
                f"the adapter in {folder} subtracts its initial factors from the base (init_lora_weights="
                f"{adapter.config.init_lora_weights}), whose weights are quantized; load the base in full precision"
            )
        if whole := [name for name in fitted.whole if name.rpartition(".")[0] in in_few_bits]:
            raise BadInput(
                f"the adapter in {folder} brings {some(whole)} in full, and the model's are quantized; load the model "
                f"with llm_int8_skip_modules={sorted({name.rpartition('.')[0] for name in whole})} in its "
                "BitsAndBytesConfig, or in full precision"
            )
    return fitted


def attach(model: Any, fitted: Fit, name: str = "default", *, trainable: bool = False) -> PeftModel:
    """Add an adapter to a model, after `require_base` and `require_fit` have checked it.

    Each tensor is loaded under any of the spellings of its name. PEFT's own loading knows one, and ignores the rest.

    Args:
        model: the base, wrapped by PEFT or not; it is changed in place.
        fitted: of `require_fit`.
        name: of the adapter in the model.
        trainable: whether the adapter trains.

    Returns:
        The wrapped model, in evaluation mode unless `trainable`.

    Raises:
        BadInput: a tensor has no place in the model.
    """
    from peft import PeftModel, get_peft_model, set_peft_model_state_dict

    config = copy.deepcopy(fitted.adapter.config)
    config.inference_mode = not trainable
    config.fan_in_fan_out = any(kind == "Conv1D" for kind in map(layer_kind, model.modules()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names and patterns that match nothing; `require_fit` has checked them
        if fitted.vocabulary is not None:
            model.resize_token_embeddings(fitted.vocabulary, mean_resizing=False)
        if isinstance(model, PeftModel):
            model.add_adapter(name, config)
        else:
            model = get_peft_model(model, config, adapter_name=name)
        result = set_peft_model_state_dict(model, fitted.named_as(model), adapter_name=name)
    if lost := result.unexpected_keys:  # nor is one missing: `require_fit` has checked that
        raise BadInput(
            f"{some(lost)} of the adapter in {fitted.adapter.folder} found no place in the model; load it with PEFT "
            "itself (`PeftModel.from_pretrained`)"
        )
    return model if trainable else model.eval()


def require_answers(logits: torch.Tensor, when: str) -> None:
    """Raise BadInput if `logits` (..., vocabulary) are NaN, infinite or all equal, which is a sign of overflow.

    All equal, because a norm divides by an infinite number and returns zeros. `when` begins the message.
    """
    if not logits.isfinite().all() or bool((logits.amax(-1) == logits.amin(-1)).any()):
        raise BadInput(
            f"{when} the model's numbers leave the range of {str(logits.dtype).removeprefix('torch.')}, and it answers "
            "at random; the adapter's factors or its scale (lora_alpha) are too large: train it again"
        )


def _tokens(adapter: Path, base: str) -> int:
    """Return the number of tokens of an adapter's tokenizer, pad token included."""
    return len(tokenizer(adapter, base))


def tokenizer(adapter: Path, base: str) -> PreTrainedTokenizerBase:
    """Return the tokenizer saved in the folder `adapter`, or that of `base` if there is none.

    Raises BadInput for a tokenizer that cannot be loaded.
    """
    if not adapter_config.brings_tokenizer(adapter):
        return loading.tokenizer(base)
    loaded = adapter_config.load_tokenizer(adapter)
    loading.prepare_padding(loaded)
    return loaded


def own_tokenizer(fitted: Fit, base: Path, rows: int) -> PreTrainedTokenizerBase | None:
    """Return the tokenizer beside an adapter, ready to pad, if the adapter needs it; None if that of its base serves.

    An adapter needs its own for a vocabulary of its own. It also does if it was trained with other tokens, or another
    BOS or EOS, than the base's tokenizer has: a base may have spare embedding rows, so tokens need no resizing.

    Args:
        fitted: the adapter, checked to fit.
        base: the folder of the base.
        rows: of the base's stored embedding.

    Raises:
        BadInput: a tokenizer cannot be loaded, or a token of the adapter's has no embedding row. Its pad token needs
            none, because padding is masked.
    """
    folder = fitted.adapter.folder
    if not adapter_config.brings_tokenizer(folder):
        return None
    loaded = tokenizer(folder, str(base))
    if fitted.vocabulary is not None:
        return loaded
    if any((base / name).is_file() for name in model_files.TOKENIZERS):
        usual = adapter_config.load_tokenizer(base)
        loading.prepare_padding(usual)
        if same_tokens(loaded, usual):
            return None
    if without := sorted(
        number for number in loaded.get_vocab().values() if number >= rows and number != loaded.pad_token_id
    ):
        named = some(loaded.convert_ids_to_tokens(without))
        raise BadInput(
            f"the tokenizer beside the adapter in {folder} has {named}, and the embedding of {base} has {rows:,} rows, "
            "none for that; train with rows for all tokens (`model.resize_token_embeddings`) and save them with the "
            "adapter, or take that tokenizer out of its folder"
        )
    return loaded


def same_tokens(one: PreTrainedTokenizerBase | None, other: PreTrainedTokenizerBase | None) -> bool:
    """Return whether the tokenizers `one` and `other` have the same tokens, BOS and EOS; None equals None alone.

    Their pad tokens may differ: padding is masked.
    """
    if one is None or other is None:
        return one is other
    if (one.bos_token_id, one.eos_token_id) != (other.bos_token_id, other.eos_token_id):
        return False
    pads = {(each.pad_token, each.pad_token_id) for each in (one, other)}
    return not (set(one.get_vocab().items()) ^ set(other.get_vocab().items())) - pads
