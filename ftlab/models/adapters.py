"""Low-rank adapters with nothing silent: presets, the count proven, the base's identity kept beside the adapter.

`LoraConfig`, `get_peft_model` and `SFTTrainer(peft_config=...)` stand in the lesson, and PEFT does the work; `resolve`
(of adapter_targets) says before that what will be wrapped and how many parameters will train.

LoRA (Hu et al., 2021) adds scale * B @ A to a weight: A is rank x in, B is out x rank and starts at 0. DoRA (Liu et
al., 2024) trains a magnitude for each output too. rsLoRA (Kalajdzievski, 2023) scales by alpha / sqrt(rank) instead of
alpha / rank. PiSSA (Meng et al., 2024) starts A and B at the weight's largest singular vectors and takes them out of
the base. The names of the files are PEFT's.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlab import files
from ftlab.errors import BadInput, CourseError
from ftlab.models import loading
from ftlab.models.adapter_targets import (
    ALL_LINEAR,
    Targets,
    all_linear,
    linear_layers,
    model_type,
    resolve,
    trained_in_full,
)
from ftlab.models.quantized import UNPACKED, four_bit_config, keep_trainable, require_amp

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig, PeftModel

__all__ = [
    "ALL_LINEAR", "PRESETS", "VARIANTS", "Targets", "attach", "config", "four_bit_config", "keep_trainable", "load",
    "record_base", "require_amp", "require_base", "require_counts", "require_fit", "resolve", "same_as_base", "save",
    "trainable",
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
CONFIG, WEIGHTS, BASE = "adapter_config.json", "adapter_model.safetensors", "base.json"


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
    before += [(layer, UNPACKED, getattr(layer, UNPACKED)) for layer in modules if hasattr(layer, UNPACKED)]
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


def record_base(folder: Path, base: str) -> dict[str, str | None]:
    """Write `base.json` into an adapter's folder: which base it belongs to. Returns what was written.

    `base` is a name or folder as for `loading.folder`; of a folder only its own name is kept, not where it lies.
    """
    path = loading.folder(base)
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    name, _, revision = base.partition("@")
    if base in loading.HUB_MODELS:
        revision = loading.HUB_MODELS[base].revision
    elif base not in loading.MODELS and not loading.comes_from_hub(base):
        name, revision = path.resolve().name, ""
    record = {
        "name": name,
        "revision": revision or None,
        "weights_sha256": loading.weights_sha256(path),
        "architecture": (config.get("architectures") or [config["model_type"]])[0],
    }
    files.write_json(Path(folder) / BASE, record)
    return record


def require_base(adapter_folder: Path, base: str) -> dict[str, str | None]:
    """The record of an adapter that is whole and belongs to `base`.

    Raises BadInput when a file is missing or unreadable, a tensor holds NaN or infinity, nothing says which base the
    adapter was trained on, or that base has other weights (by their hash).
    """
    folder = Path(adapter_folder).expanduser()
    _read_weights(folder)
    if not (folder / BASE).is_file():
        raise BadInput(
            f"{folder} has no {BASE}, so it cannot be proven that its adapter was trained on {base}; save it again "
            "with `adapters.save`, or, if you know its base, write that down with `adapters.record_base`"
        )
    try:
        record = json.loads((folder / BASE).read_text(encoding="utf-8"))
        name, trained_on = record["name"], record["weights_sha256"]
    except (ValueError, KeyError, TypeError) as problem:
        raise BadInput(f"{folder / BASE} cannot be read ({problem!r}); save the adapter again") from problem
    if (given := loading.weights_sha256(loading.folder(base))) != trained_on:
        raise BadInput(
            f"the adapter in {folder} was trained on {name} (weights {str(trained_on)[:12]}), and {base} has other "
            f"weights ({given[:12]}); load it onto the base that it was trained on"
        )
    return record


def save(peft_model: PeftModel, folder: Path, base: str) -> Path:
    """Save the adapter alone, with the identity of its base, whole or not at all; an older one there is replaced.

    A frozen embedding is not saved, resized or not (PEFT by itself saves a resized one in full): `loading.causal_lm`
    adds the pad token's row again. Raises BadInput when `folder` holds anything but an adapter, the model was loaded
    from other weights than `base`, or the adapter has a NaN.
    """
    folder = Path(folder).expanduser()
    if list(peft_model.peft_config) != ["default"]:
        raise BadInput(
            f"the model has the adapters {', '.join(peft_model.peft_config)}; expected one, named 'default': keep "
            "only that one (`delete_adapter`)"
        )
    if folder.exists() and not (folder.is_dir() and {p.name for p in folder.iterdir()} <= {CONFIG, WEIGHTS, BASE}):
        raise BadInput(f"{folder} holds other things than an adapter, and would be replaced; name a new folder")
    _require_loaded_from(peft_model.get_base_model(), base)
    with files.whole(folder, folder=True) as partial:
        peft_model.save_pretrained(str(partial), save_embedding_layers=False)
        (partial / "README.md").unlink()  # PEFT's empty model card, with the base's private path in it
        record = record_base(partial, base)
        settings = json.loads((partial / CONFIG).read_text(encoding="utf-8"))
        pinned = loading.HUB_MODELS.get(base)
        settings["base_model_name_or_path"] = pinned.repo_id if pinned else record["name"]
        files.write_json(partial / CONFIG, settings)
        _read_weights(partial, shown=folder)
    return folder


def load(base_model: torch.nn.Module, adapter_folder: Path, base: str, *, trainable: bool = False) -> PeftModel:
    """`PeftModel.from_pretrained`, once it is proven that the adapter is whole, fits the model and belongs to `base`.

    `base_model` is the model as loaded from `base`, in any precision; it is changed in place. Raises BadInput as
    `require_base` and `resolve` do, when the model was loaded from other weights, and when the file holds other
    matrices than its config asks for (PEFT would leave those as they started). Not `trainable`, nothing of it trains.
    """
    require_base(adapter_folder, base)
    folder = require_fit(base_model, adapter_folder, base, trainable=trainable)
    loaded = attach(base_model, folder, trainable=trainable)
    return loaded if trainable else loaded.requires_grad_(False)  # PEFT leaves biases as if they should train


def require_fit(base_model: torch.nn.Module, adapter_folder: Path, base: str, *, trainable: bool = False) -> Path:
    """The folder of an adapter that fits `base_model`, which has none yet; nothing is changed.

    Raises BadInput as `load` does, for all but what `require_base` proves.
    """
    from peft import LoraConfig

    folder = Path(adapter_folder).expanduser()
    try:
        asked = LoraConfig.from_pretrained(str(folder))
        if not isinstance(asked, LoraConfig):
            raise TypeError(f"its peft_type is {asked.peft_type}")
    except (ValueError, TypeError, KeyError) as problem:
        raise BadInput(f"{folder / CONFIG} is no LoRA config ({problem}); save the adapter again") from problem
    asked.inference_mode = not trainable
    targets = resolve(base_model, asked)
    _require_loaded_from(base_model, base)
    held = {key.partition(".lora_")[0] for key in _read_weights(folder) if ".lora_" in key}
    if held != {f"base_model.model.{module.name}" for module in targets.modules}:
        raise BadInput(
            f"the adapter in {folder} is not of one piece: {WEIGHTS} holds matrices for {len(held)} modules, which are "
            f"not the {len(targets.modules)} that {CONFIG} asks for; save it again"
        )
    return folder


def attach(model: Any, folder: Path, name: str = "default", *, trainable: bool = False) -> PeftModel:
    """`model` with one adapter more, of which `require_base` and `require_fit` have proven what can be proven before.

    Raises BadInput when a tensor of the adapter has another shape than its place in the model.
    """
    from peft import PeftModel

    try:
        with warnings.catch_warnings():
            # PEFT mistrusts names such as "a", for they stand in "lora_"; `require_fit` has counted what will be read.
            warnings.filterwarnings("ignore", message="Adapter name '.*' should not be contained")
            if not isinstance(model, PeftModel):
                return PeftModel.from_pretrained(model, str(folder), adapter_name=name, is_trainable=trainable)
            model.load_adapter(str(folder), adapter_name=name, is_trainable=trainable)
    except RuntimeError as problem:
        reason = " ".join(str(problem).split("\n\t")[-1].split())[:200]
        raise BadInput(
            f"the adapter in {folder} has other shapes than the model ({reason}); load it onto the model that it was "
            "trained on, with as many tokens in its vocabulary"
        ) from problem
    return model


def _require_loaded_from(model: Any, base: str) -> None:
    """Raise BadInput when the folder that `model` was loaded from, if there is one, has other weights than `base`."""
    name = str(getattr(model, "name_or_path", "") or "")
    if not name or not Path(name).is_dir() or Path(name).resolve() == loading.folder(base).resolve():
        return
    if loading.weights_sha256(Path(name)) != loading.weights_sha256(loading.folder(base)):
        raise BadInput(f"the model was loaded from {name}, which has other weights than {base}; name its own base")


def _read_weights(folder: Path, shown: Path | None = None) -> dict[str, torch.Tensor]:
    """The tensors of a saved adapter; BadInput unless its two files are there, readable and finite."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    shown = shown or folder
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise BadInput(f"{shown} is no adapter: it has no {name}; give a folder that `adapters.save` wrote")
    try:
        tensors = load_file(folder / WEIGHTS)
    except (SafetensorError, OSError) as problem:
        raise BadInput(f"{shown / WEIGHTS} is not whole ({problem}); copy or save it again") from problem
    if broken := [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]:
        raise BadInput(
            f"the adapter in {shown} holds NaN or infinity in {len(broken)} of {len(tensors)} tensors "
            f"({', '.join(broken[:3])}{', ...' if len(broken) > 3 else ''}); its training failed: train it again"
        )
    return tensors
