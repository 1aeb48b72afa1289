"""One name, one folder: weights from an asset, a hub repository or your own disk load the same way.

`folder(name)` gives a local folder that `from_pretrained` reads; the lessons call `from_pretrained` themselves.
Only safetensors are accepted: a `.bin` or `.pt` checkpoint is a pickle, and opening a pickle runs its code.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlab import files
from ftlab.data import assets, hub
from ftlab.errors import BadInput
from ftlab.models import tiny

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PAD_TOKEN = "<|pad|>"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True)
class HubModel:
    """A model of the hub at the revision that the course was written for."""

    repo_id: str
    revision: str


HUB_MODELS = {
    "distilbert-base-uncased": HubModel(
        "distilbert/distilbert-base-uncased", "12040accade4e8a0f71eabdb258fecc2e7e948be"
    ),
    "gpt2": HubModel("openai-community/gpt2", "607a30d783dfa663caf39e06633721c8d4cfcd7e"),
    "microsoft/phi-2": HubModel("microsoft/phi-2", "ef382358ec9e382308935a992d908de099b64c23"),
}
MODEL_ASSETS = ("minilm", "smollm2")
MODELS = (*MODEL_ASSETS, *HUB_MODELS, *tiny.BUILDERS)


def required_assets(model: str) -> list[str]:
    """The assets that loading `model` needs in the cache."""
    return [model] if model in MODEL_ASSETS else []


def comes_from_hub(model: str) -> bool:
    """Whether `model` is fetched from the model hub."""
    return model in HUB_MODELS or not (model in MODELS or _is_folder_name(model))


def folder(model: str) -> Path:
    """The local folder of a model: config, tokenizer and safetensors.

    `model` is one of MODELS, a folder of yours, or any other hub id, with its revision if you want it pinned
    (`namespace/name@revision`). What is missing is fetched. Raises BadInput when the folder is no model or holds
    only a pickle, AssetError when it cannot be fetched.
    """
    if model in MODEL_ASSETS:
        return assets.path(model)
    if model in tiny.BUILDERS:
        return tiny.folder(model)
    if model not in HUB_MODELS and _is_folder_name(model):
        return _checked(Path(model).expanduser())
    repo_id, _, revision = model.partition("@")
    pinned = HUB_MODELS.get(model, HubModel(repo_id, revision))
    patterns = ["*.safetensors", "*.json", "*.txt", "*.model"]
    return _checked(hub.folder(pinned.repo_id, pinned.revision or None, kind="model", patterns=patterns), model)


def check(model: str) -> None:
    """Raise BadInput unless `model` is a known name, a hub id, or a folder with a model in it. Downloads nothing."""
    if model in MODELS:
        return
    if _is_folder_name(model):
        _checked(Path(model).expanduser())
    elif model.count("/") != 1:
        raise BadInput(
            f"there is no model {model!r}; there are {', '.join(MODELS)}, a hub id (namespace/name), or the path of "
            "a folder"
        )


def max_positions(model: str) -> int:
    """The most tokens, special ones included, that one row may have for this model."""
    path = folder(model)
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    limits = [config[key] for key in ("max_position_embeddings", "n_positions") if key in config]
    tokenizer_config = path / "tokenizer_config.json"
    if tokenizer_config.is_file():  # RoBERTa counts two positions that no token can have; its tokenizer knows
        limits.append(json.loads(tokenizer_config.read_text(encoding="utf-8")).get("model_max_length"))
    return min((limit for limit in limits if limit is not None), default=10**9)


def hidden_size(model: str) -> int:
    """The width of the model's layers."""
    return int(_config(model).hidden_size)


def depth(model: str) -> int:
    """How many layers the model has."""
    if model in MODELS:  # known to be whole, so there is no need of a library that takes seconds to import
        config = json.loads((folder(model) / "config.json").read_text(encoding="utf-8"))
        return int(next(config[name] for name in ("num_hidden_layers", "n_layers", "n_layer") if name in config))
    return int(_config(model).num_hidden_layers)


def _config(model: str) -> Any:
    """The model's config, in which architectures that have names of their own answer to the common ones too."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder(model))
    except (ValueError, KeyError) as problem:
        raise BadInput(
            f"{model} has a config.json that transformers does not know ({problem}); use another model"
        ) from problem


def without_attention_dropout(model: str) -> dict[str, float]:
    """The `from_pretrained` option that turns attention dropout off, where there is no CUDA; else nothing.

    On a CPU, dropout on the attention weights draws a random number for each of them and keeps PyTorch from its fused
    attention kernel: most of the time of a step at long lengths. Dropout on the hidden states stays as shipped.
    """
    import torch

    if torch.cuda.is_available():
        return {}
    config = json.loads((folder(model) / "config.json").read_text(encoding="utf-8"))
    names = ("attention_probs_dropout_prob", "attention_dropout", "attn_pdrop")
    return {name: 0.0 for name in names if name in config}


def best_device() -> str:
    """Where a model answers fastest on this machine: "cuda", "mps" or "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def frozen_dtype(device: str | None = None) -> torch.dtype:
    """The dtype in which to hold weights that do not train: on a GPU half precision, of the kind that it computes in.

    fp32 elsewhere, in which a batch changes no answer. `device` is `best_device()` unless given.
    """
    import torch

    if not (device or best_device()).startswith("cuda"):
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def weights_sha256(path: Path) -> str:
    """One hash for all safetensors of a folder: equal means the same weights."""
    parts = sorted(path.glob("*.safetensors"))
    if len(parts) == 1:
        return files.sha256(parts[0])
    import hashlib

    return hashlib.sha256("".join(files.sha256(part) for part in parts).encode()).hexdigest()


def tokenizer(model: str) -> PreTrainedTokenizerBase:
    """The model's tokenizer, with a pad token that is not EOS (see `ensure_pad_token`)."""
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(folder(model))
    ensure_pad_token(loaded)
    return loaded


def encoder(model: str, label_names: Sequence[str], **options: Any) -> PreTrainedModel:
    """A classifier over `label_names`, in this order, on the pretrained encoder `model`."""
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(
        folder(model),
        num_labels=len(label_names),
        id2label=dict(enumerate(label_names)),
        label2id={name: index for index, name in enumerate(label_names)},
        use_safetensors=True,
        **options,
    )


def causal_lm(model: str, *, dtype: torch.dtype | None = None, **options: Any) -> PreTrainedModel:
    """A causal language model in `dtype` (float32 by default), ready for the pad token of `tokenizer(model)`."""
    import torch
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(
        folder(model), dtype=dtype or torch.float32, use_safetensors=True, **options
    )
    match_pad_token(loaded, tokenizer(model))
    return loaded


def ensure_pad_token(loaded: PreTrainedTokenizerBase) -> None:
    """Give the tokenizer a pad token that is not EOS, if it has none.

    With pad equal to EOS, whatever masks padding out of the loss hides the real EOS as well, and the model never
    learns to stop (transformers issue 23530). An unknown token that is not EOS serves, since a byte-level tokenizer
    never produces it; else PAD_TOKEN is added to the vocabulary.
    """
    if loaded.pad_token is not None and loaded.pad_token_id != loaded.eos_token_id:
        return
    if loaded.unk_token is not None and loaded.unk_token_id != loaded.eos_token_id:
        loaded.pad_token = loaded.unk_token
    else:
        loaded.add_special_tokens({"pad_token": PAD_TOKEN})


def match_pad_token(model: PreTrainedModel, loaded: PreTrainedTokenizerBase) -> None:
    """Tell the model its tokenizer's pad id, and add rows to its embedding where the vocabulary outgrew it."""
    if len(loaded) > model.get_input_embeddings().num_embeddings:
        import torch

        with torch.random.fork_rng():  # new rows are drawn at random: the same ones each time that a model is loaded
            torch.manual_seed(0)
            model.resize_token_embeddings(len(loaded))
    model.config.pad_token_id = loaded.pad_token_id
    if getattr(model, "generation_config", None) is not None:  # a body without a head has none
        model.generation_config.pad_token_id = loaded.pad_token_id


@contextmanager
def held_in(model: torch.nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Inside the block the model's weights are in `dtype`; afterwards they are the very tensors that they were.

    Half precision halves what a step of generation reads from memory, which is most of its time. Buffers stay as they
    are (rotary frequencies would lose their accuracy), and so do weights in 4 bits. A weight that is written to inside
    the block is not kept.
    """
    before = [(parameter, parameter.data) for parameter in model.parameters() if parameter.is_floating_point()]
    try:
        for parameter, data in before:
            parameter.data = data.to(dtype)
        yield
    finally:
        for parameter, data in before:
            parameter.data = data


def _is_folder_name(model: str) -> bool:
    path, there = files.look_at(model, "a model's name or folder")
    return there or path.is_absolute() or model.startswith((".", "~", os.sep)) or model.count("/") > 1


def _checked(path: Path, name: str | None = None) -> Path:
    """`path`, if it holds a model that may be loaded."""
    shown = name or path
    if not path.is_dir():
        there = "is a file, not a folder" if path.exists() else "does not exist"
        raise BadInput(f"the model folder {shown} {there}; give a folder with config.json and safetensors")
    if not (path / "config.json").is_file():
        raise BadInput(f"{shown} is no model: it has no config.json; give a folder that `save_pretrained` wrote")
    try:
        if not isinstance(json.loads((path / "config.json").read_text(encoding="utf-8")).get("model_type"), str):
            raise ValueError("it names no model_type")
    except (ValueError, AttributeError) as problem:
        raise BadInput(f"{shown} is no model: its config.json cannot be used ({problem}); save it again") from problem
    weights = [*path.glob("model.safetensors"), *path.glob("model-*-of-*.safetensors")]
    if not weights:
        pickles = sorted(file.name for pattern in PICKLES for file in path.glob(pattern))
        if pickles:
            raise BadInput(
                f"{shown} holds a pickle checkpoint ({pickles[0]}), which can run any code when it is opened; convert "
                "it to safetensors where you trust it (`model.save_pretrained`), then load that"
            )
        raise BadInput(f"{shown} has a config.json but no safetensors; give a folder that `save_pretrained` wrote")
    if not any((path / file).is_file() for file in ("tokenizer.json", "tokenizer_config.json", "vocab.txt")):
        raise BadInput(f"{shown} has no tokenizer; save it there with `tokenizer.save_pretrained`")
    for part in weights:
        _require_readable(part)
    return path


def _require_readable(weights: Path) -> None:
    """Read the header of a safetensors file, which knows how long the file should be."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, framework="numpy"):
            pass
    except (SafetensorError, OSError) as problem:
        raise BadInput(f"{weights} is not a whole safetensors file ({problem}); copy or save it again") from problem
