"""Load models and tokenizers by name: from an asset, a hub repository or your own disk, in the same way.

`folder(name)` returns a local folder that `from_pretrained` reads; the lessons call `from_pretrained` themselves.
Only safetensors are accepted: a `.bin` or `.pt` checkpoint is a pickle, and opening a pickle can run any code.
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
from ftlab.internals import transformers as transformers_internals
from ftlab.models import model_files, tiny
from ftlab.models.loading_report import REPORTED, require_whole, start_fresh_head
from ftlab.models.padding import PAD_TOKEN as PAD_TOKEN
from ftlab.models.padding import ensure_pad_token as ensure_pad_token
from ftlab.models.padding import match_pad_token, prepare_padding

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TOKENIZER_FILES = ["*.json", "*.txt", "*.model", "*.jinja"]  # with the config, which names the kind of model
NO_LIMIT = 10**9  # tokens: of a model whose positions have no end and whose tokenizer has no limit


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
    """Return the names of the assets that `model` needs in the cache."""
    return [model] if model in MODEL_ASSETS else []


def comes_from_hub(model: str) -> bool:
    """Return whether `model` is fetched from the model hub."""
    return model in HUB_MODELS or not (model in MODELS or _is_folder_name(model))


def folder(model: str) -> Path:
    """Return the local folder of a model, with config, tokenizer and safetensors; fetch it if it is missing.

    Args:
        model: one of MODELS, a folder, or a hub id (`namespace/name`, or `namespace/name@revision` to pin it).

    Raises:
        BadInput: the folder is not a model, or has only a pickle.
        AssetError: the model cannot be fetched.
    """
    if model in MODEL_ASSETS:
        return assets.path(model)
    if model in tiny.BUILDERS:
        return tiny.folder(model)
    if model not in HUB_MODELS and _is_folder_name(model):
        return model_files.checked(Path(model).expanduser())
    fetched = _fetched(model, ["*.safetensors", *TOKENIZER_FILES])
    try:
        return model_files.checked(fetched, model)
    except BadInput as problem:  # what its owner uploaded is no model, or not a whole one
        raise BadInput(f"{problem}, or {hub.instead('model')}") from problem


def tokenizer_folder(model: str) -> Path:
    """Return the local folder of the tokenizer of `model`, without fetching weights from the hub.

    A folder of your own need not have weights either.

    Raises:
        BadInput: the folder has no tokenizer.
        AssetError: the tokenizer cannot be fetched.
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
    """Raise BadInput unless `model` is a known name, a hub id, or a folder with a tokenizer. Download nothing."""
    if model not in MODELS and _is_folder_name(model):
        model_files.require_tokenizer(Path(model).expanduser(), model)
    else:
        check(model)


def check(model: str) -> None:
    """Raise BadInput unless `model` is a known name, a hub id, or a folder with a model in it. Download nothing."""
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
    """Return the most tokens, special ones included, that one row may have for `model`.

    It is the smaller of the model's positions (`positions.most_tokens`) and its tokenizer's `model_max_length`, or
    NO_LIMIT if it has neither. Raises BadInput for a config that describes no model.
    """
    path = folder(model)
    if model in MODELS:  # their positions begin at 0, so transformers is not needed, which takes seconds to import
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
    from transformers import AutoModel

    from ftlab.models import meta, positions

    try:
        return positions.most_tokens(meta.from_config(AutoModel, config(model)))
    except BadInput:
        raise
    except Exception as problem:  # each architecture raises errors of its own for a wrong config
        raise BadInput(
            f"{model} has a config.json that describes no model ({_reason(problem)}); save it again"
        ) from problem


def hidden_size(model: str) -> int:
    """Return the width of the layers of `model`, from its config alone. Raises BadInput if the config has none."""
    described = _config_in(tokenizer_folder(model), model)
    width = getattr(described.get_text_config(), "hidden_size", None)
    if not isinstance(width, int):
        raise BadInput(f"the config.json of {model} does not say how wide its layers are (hidden_size); use another")
    return width


def depth(model: str) -> int:
    """Return the number of layers of `model`."""
    if model in MODELS:  # known to be whole, so transformers is not needed, which takes seconds to import
        written = model_files.read_json(folder(model) / "config.json")
        return int(next(written[name] for name in ("num_hidden_layers", "n_layers", "n_layer") if name in written))
    return int(config(model).get_text_config().num_hidden_layers)


def config(model: str) -> Any:
    """Return the transformers config of `model`, which has the common names of settings for every architecture.

    Raises BadInput if transformers does not know the model, or a value of the config is invalid.
    """
    return _config_in(folder(model), model)


def _config_in(path: Path, model: str) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(path, trust_remote_code=False)
    except Exception as problem:  # each architecture checks its config in its own way
        raise BadInput(
            f"{model} has a config.json that transformers does not know ({_reason(problem)}); use another model"
        ) from problem


def without_attention_dropout(model: str) -> dict[str, float]:
    """Return the `from_pretrained` option that turns attention dropout of `model` off; on CUDA an empty dict.

    On a CPU, dropout on the attention weights draws a random number for each of them, and PyTorch cannot use its fused
    attention kernel: at long lengths that is most of the time of a step. Dropout on the hidden states is not changed.
    """
    import torch

    if torch.cuda.is_available():
        return {}
    written = model_files.read_json(folder(model) / "config.json")
    names = ("attention_probs_dropout_prob", "attention_dropout", "attn_pdrop")
    return {name: 0.0 for name in names if name in written}


def weights_sha256(path: Path) -> str:
    """Return one SHA-256 for all safetensors of the folder `path`: equal hashes mean equal files."""
    parts = sorted(path.glob("*.safetensors"))
    if len(parts) == 1:
        return files.sha256(parts[0])
    import hashlib

    return hashlib.sha256("".join(files.sha256(part) for part in parts).encode()).hexdigest()


def tokenizer(model: str, *, pad_token_id: int | None = None, **options: Any) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a model, ready to pad (see `prepare_padding`).

    Args:
        model: a name, folder or hub id, as in `folder`.
        pad_token_id: the pad id of a trained classifier; see `prepare_padding`.
        options: of `AutoTokenizer.from_pretrained`. To train a classifier, pass `split_special_tokens=True`: "[SEP]" in
            a text is then plain text, and does not separate two texts. The option is saved with the tokenizer.

    Raises:
        BadInput: the tokenizer cannot be loaded.
    """
    loaded = _tokenizer_in(folder(model), model, **options)
    prepare_padding(loaded, pad_token_id)
    return loaded


def bare_tokenizer(model: str) -> PreTrainedTokenizerBase:
    """Return the tokenizer of `model` unchanged, without fetching weights. Raises BadInput if it cannot be loaded."""
    return _tokenizer_in(tokenizer_folder(model), model)


def _tokenizer_in(path: Path, model: str, **options: Any) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(path, trust_remote_code=False, **options)
    except Exception as problem:  # a tokenizer is made by several libraries, each with errors of its own
        raise BadInput(
            f"the tokenizer of {model} cannot be loaded ({_reason(problem)}); save it with `tokenizer.save_pretrained`"
        ) from problem


def load(kind: Any, model: str, **options: Any) -> PreTrainedModel:
    """Return the model `model`, loaded by `kind` (an Auto class of transformers) with `options` of `from_pretrained`.

    Raises BadInput if a weight is missing (`loading_report.require_whole`), or the folder has no such model.
    """
    loaded, report = _from_pretrained(kind, model, **options)
    require_whole(loaded, report, model)
    return loaded


def encoder(model: str, label_names: Sequence[str], **options: Any) -> PreTrainedModel:
    """Return a classifier in float32: a fresh head on a pretrained model, encoder or decoder.

    It has the pad token of `tokenizer(model)`.

    Args:
        model: a name, folder or hub id, as in `folder`.
        label_names: the labels, in the order of the outputs.
        options: of `from_pretrained`.

    Raises:
        BadInput: a weight of the body is missing (`loading_report.start_fresh_head`).
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
    """Return the pretrained body of `model` in float32, without a head; `options` are those of `from_pretrained`.

    Its pooler may be random, which does not change the hidden states. Raises BadInput as `load` does.
    """
    import torch
    from transformers import AutoModel

    loaded, report = _from_pretrained(AutoModel, model, **{"dtype": torch.float32, **options})
    start_fresh_head(loaded, report, model)
    return loaded


def causal_lm(model: str, *, dtype: torch.dtype | None = None, **options: Any) -> PreTrainedModel:
    """Return the causal language model `model` in `dtype` (float32 by default), with the pad token of its tokenizer.

    `options` are those of `from_pretrained`. Raises BadInput as `load` does.
    """
    import torch
    from transformers import AutoModelForCausalLM

    loaded = load(AutoModelForCausalLM, model, dtype=dtype or torch.float32, **options)
    match_pad_token(loaded, tokenizer(model))
    return loaded


def _from_pretrained(kind: Any, model: str, **options: Any) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Return a model and its loading report. Files that cannot be loaded are a BadInput; lack of memory is not."""
    import torch

    path = folder(model)
    config(model)  # a faulty config is reported as such, and not as a fault of the weights
    try:
        with transformers_internals.LOADING:
            return kind.from_pretrained(path, use_safetensors=True, trust_remote_code=False, **REPORTED, **options)
    except torch.OutOfMemoryError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, OSError, ImportError) as problem:
        raise BadInput(
            f"{model} cannot be loaded as a {kind.__name__.removeprefix('AutoModelFor')} ({_reason(problem)}); give "
            "another model, or save this one again"
        ) from problem


def _reason(problem: Exception) -> str:
    """Return the type and message of an error, on one line."""
    return " ".join(f"{type(problem).__name__}: {problem}".split())[:200]


def _is_folder_name(model: str) -> bool:
    path, there = files.named_path(model, "a model's name or folder")
    return there or path.is_absolute() or model.startswith((".", "~", os.sep)) or model.count("/") > 1
