"""One name, one folder: weights from an asset, a hub repository or your own disk load the same way.

`folder(name)` gives a local folder that `from_pretrained` reads; the lessons call `from_pretrained` themselves.
Only safetensors are accepted: a `.bin` or `.pt` checkpoint is a pickle, and opening a pickle runs its code.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlab import files
from ftlab.data import assets, hub
from ftlab.errors import BadInput
from ftlab.models import model_files, tiny
from ftlab.models.loading_report import REPORTED, require_whole, start_fresh_head
from ftlab.models.padding import PAD_TOKEN as PAD_TOKEN
from ftlab.models.padding import ensure_pad_token as ensure_pad_token
from ftlab.models.padding import match_pad_token, prepare_padding

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TOKENIZER_FILES = ["*.json", "*.txt", "*.model", "*.jinja"]  # and the config, which tells what model it is for
NO_LIMIT = 10**9  # tokens: what a model takes that has neither positions that end nor a tokenizer that says where


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
        return model_files.checked(Path(model).expanduser())
    return model_files.checked(_fetched(model, ["*.safetensors", *TOKENIZER_FILES]), model)


def tokenizer_folder(model: str) -> Path:
    """The local folder of a model's tokenizer, for whoever needs no more of it: no weights are fetched from the hub.

    Nor need a folder of yours hold any. Raises BadInput when it holds no tokenizer, AssetError when it cannot be
    fetched.
    """
    if model in MODEL_ASSETS or model in tiny.BUILDERS:  # one package each, weights and all
        return folder(model)
    check_tokenizer(model)
    if model not in HUB_MODELS and _is_folder_name(model):
        return Path(model).expanduser()
    path = _fetched(model, TOKENIZER_FILES)
    model_files.require_tokenizer(path, model)
    return path


def _fetched(model: str, patterns: list[str]) -> Path:
    repo_id, _, revision = model.partition("@")
    pinned = HUB_MODELS.get(model, HubModel(repo_id, revision))
    return hub.folder(pinned.repo_id, pinned.revision or None, kind="model", patterns=patterns)


def check_tokenizer(model: str) -> None:
    """Raise BadInput unless `model` is a known name, a hub id, or a folder with a tokenizer. Downloads nothing."""
    if model not in MODELS and _is_folder_name(model):
        model_files.require_tokenizer(Path(model).expanduser(), model)
    else:
        check(model)


def check(model: str) -> None:
    """Raise BadInput unless `model` is a known name, a hub id, or a folder with a model in it. Downloads nothing."""
    if model in MODELS:
        return
    if _is_folder_name(model):
        model_files.checked(Path(model).expanduser())
    elif model.count("/") != 1:
        raise BadInput(
            f"there is no model {model!r}; there are {', '.join(MODELS)}, a hub id (namespace/name), or the path of "
            "a folder"
        )


def max_positions(model: str) -> int:
    """The most tokens, special ones included, that one row may have for this model.

    By the model's own positions (`positions.most_tokens`), and by its tokenizer's `model_max_length` where that is
    less. Raises BadInput for a config that describes no model.
    """
    path = folder(model)
    if model in MODELS:  # their positions begin at 0, so there is no need of a library that takes seconds to import
        written = model_files.read_json(path / "config.json")
        limits = [written[key] for key in ("max_position_embeddings", "n_positions") if key in written]
    else:
        limits = [_positions(model)]
    tokenizer_config = path / "tokenizer_config.json"
    if tokenizer_config.is_file():
        limits.append(model_files.read_json(tokenizer_config).get("model_max_length"))
    counted = [limit for limit in limits if isinstance(limit, (int, float)) and 0 < limit < NO_LIMIT]
    return int(min(counted, default=NO_LIMIT))


def _positions(model: str) -> int | None:
    from ftlab.models import positions

    try:
        return positions.most_tokens(positions.outline(config(model)))
    except BadInput:
        raise
    except Exception as problem:  # each architecture has errors of its own for a config that is not its own
        raise BadInput(
            f"{model} has a config.json that describes no model ({_reason(problem)}); save it again"
        ) from problem


def hidden_size(model: str) -> int:
    """The width of the model's layers; its weights are not needed for it. Raises BadInput where the config has none."""
    described = _config_in(tokenizer_folder(model), model)
    width = getattr(described.get_text_config(), "hidden_size", None)
    if not isinstance(width, int):
        raise BadInput(f"the config.json of {model} does not say how wide its layers are (hidden_size); use another")
    return width


def depth(model: str) -> int:
    """How many layers the model has."""
    if model in MODELS:  # known to be whole, so there is no need of a library that takes seconds to import
        written = model_files.read_json(folder(model) / "config.json")
        return int(next(written[name] for name in ("num_hidden_layers", "n_layers", "n_layer") if name in written))
    return int(config(model).num_hidden_layers)


def config(model: str) -> Any:
    """The model's config, in which architectures that have names of their own answer to the common ones too.

    Raises BadInput where transformers knows no such model, or a value in it is none.
    """
    return _config_in(folder(model), model)


def _config_in(path: Path, model: str) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(path)
    except Exception as problem:  # each architecture checks its config in its own way
        raise BadInput(
            f"{model} has a config.json that transformers does not know ({_reason(problem)}); use another model"
        ) from problem


def without_attention_dropout(model: str) -> dict[str, float]:
    """The `from_pretrained` option that turns attention dropout off, where there is no CUDA; else nothing.

    On a CPU, dropout on the attention weights draws a random number for each of them and keeps PyTorch from its fused
    attention kernel: most of the time of a step at long lengths. Dropout on the hidden states stays as shipped.
    """
    import torch

    if torch.cuda.is_available():
        return {}
    written = model_files.read_json(folder(model) / "config.json")
    names = ("attention_probs_dropout_prob", "attention_dropout", "attn_pdrop")
    return {name: 0.0 for name in names if name in written}


def weights_sha256(path: Path) -> str:
    """One hash for all safetensors of a folder: equal means the same weights."""
    parts = sorted(path.glob("*.safetensors"))
    if len(parts) == 1:
        return files.sha256(parts[0])
    import hashlib

    return hashlib.sha256("".join(files.sha256(part) for part in parts).encode()).hexdigest()


def tokenizer(model: str, *, pad_token_id: int | None = None, **options: Any) -> PreTrainedTokenizerBase:
    """The model's tokenizer, ready to pad (see `prepare_padding`). Raises BadInput for one that cannot be loaded.

    `options` are those of `AutoTokenizer.from_pretrained`. What trains a classifier says `split_special_tokens=True`:
    a text that says "[SEP]" is then no two texts. It is saved with the tokenizer, so whoever loads the model reads
    texts as its training did.
    """
    loaded = _tokenizer_in(folder(model), model, **options)
    prepare_padding(loaded, pad_token_id)
    return loaded


def bare_tokenizer(model: str) -> PreTrainedTokenizerBase:
    """The model's tokenizer as it comes, without the weights (`tokenizer_folder`). Raises BadInput as `tokenizer`."""
    return _tokenizer_in(tokenizer_folder(model), model)


def _tokenizer_in(path: Path, model: str, **options: Any) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(path, **options)
    except Exception as problem:  # a tokenizer is made by several libraries, each with errors of its own
        raise BadInput(
            f"the tokenizer of {model} cannot be loaded ({_reason(problem)}); save it with `tokenizer.save_pretrained`"
        ) from problem


def load(kind: Any, model: str, **options: Any) -> PreTrainedModel:
    """`kind.from_pretrained` (an Auto class of transformers) of the folder of `model`, with every weight found there.

    Raises BadInput where one is missing (`loading_report.require_whole`), or the folder holds no such model.
    """
    loaded, report = _from_pretrained(kind, model, **options)
    require_whole(loaded, report, model)
    return loaded


def encoder(model: str, label_names: Sequence[str], **options: Any) -> PreTrainedModel:
    """A classifier over `label_names`, in this order: a fresh head on the pretrained `model`, encoder or decoder.

    It is in float32, to be trained, and ready for the pad token of `tokenizer(model)`. Raises BadInput as
    `loading_report.start_fresh_head` does.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    loaded, report = _from_pretrained(
        AutoModelForSequenceClassification,
        model,
        num_labels=len(label_names),
        id2label=dict(enumerate(label_names)),
        label2id={name: index for index, name in enumerate(label_names)},
        **{"dtype": torch.float32, **options},
    )
    start_fresh_head(loaded, report, model)
    match_pad_token(loaded, tokenizer(model))
    return loaded


def body(model: str, **options: Any) -> PreTrainedModel:
    """The pretrained body of `model` in float32, without a head. A pooler may be random: hidden states come before it.

    Raises BadInput as `load` does.
    """
    import torch
    from transformers import AutoModel

    loaded, report = _from_pretrained(AutoModel, model, **{"dtype": torch.float32, **options})
    start_fresh_head(loaded, report, model)
    return loaded


def causal_lm(model: str, *, dtype: torch.dtype | None = None, **options: Any) -> PreTrainedModel:
    """A causal language model in `dtype` (float32 by default), ready for the pad token of `tokenizer(model)`.

    Raises BadInput as `load` does.
    """
    import torch
    from transformers import AutoModelForCausalLM

    loaded = load(AutoModelForCausalLM, model, dtype=dtype or torch.float32, **options)
    match_pad_token(loaded, tokenizer(model))
    return loaded


def _from_pretrained(kind: Any, model: str, **options: Any) -> tuple[PreTrainedModel, dict[str, Any]]:
    """A model and its loading report. What the folder's files make impossible is a BadInput; no memory is not."""
    import torch

    path = folder(model)
    config(model)  # or its faults would be told as those of the weights
    try:
        return kind.from_pretrained(path, use_safetensors=True, **REPORTED, **options)
    except torch.OutOfMemoryError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, OSError, ImportError) as problem:
        raise BadInput(
            f"{model} cannot be loaded as a {kind.__name__.removeprefix('AutoModelFor')} ({_reason(problem)}); give "
            "another model, or save this one again"
        ) from problem


def _reason(problem: Exception) -> str:
    """What another library says, on one line."""
    return " ".join(f"{type(problem).__name__}: {problem}".split())[:200]


def _is_folder_name(model: str) -> bool:
    path, there = files.named_path(model, "a model's name or folder")
    return there or path.is_absolute() or model.startswith((".", "~", os.sep)) or model.count("/") > 1
