"""Read a GGUF file: its metadata, its tokens and its tensors, by the library `gguf` of llama.cpp.

A GGUF file has a head of named values (architecture, sizes, tokenizer, chat template), then the names, shapes and types
of the tensors, then their numbers. Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlab import files
from ftlab.errors import BadInput
from ftlab.internals import gguf as loader_internals
from ftlab.wording import one_line, shown

if TYPE_CHECKING:
    from gguf import GGUFReader

MAGIC = b"GGUF"
FLOATS = ("f32", "f16", "bf16")  # types that hold each number by itself; the others are quantised in blocks
AGAIN = "copy or export it again"
# Tokenizers for which llama.cpp puts BOS before a text if the file does not say (llama-vocab.cpp).
ADDS_BOS = ("llama",)
# Phi's positions in short and in long texts; llama.cpp takes one of them by the context that it was started for.
SHORT_FACTORS, LONG_FACTORS = "rope_factors_short.weight", "rope_factors_long.weight"


@dataclass(frozen=True)
class GgufFile:
    """What a GGUF file says of itself.

    `type` is how most of the weights are stored, as llama.cpp names it: f32, f16, bf16, q8_0, q4_k_m and so on. `ends`
    are the ids that the file names as the end of an answer (EOS, end of turn, end of message); llama.cpp knows further
    ones by their text. `adds_bos` tells whether llama.cpp puts `bos` before a text. `tokens` and `tensors` are counts.
    `short_context` is the longest context, in tokens, for which llama.cpp takes the positions of short texts; None if
    all texts have the same.
    """

    path: Path
    architecture: str
    type: str
    bos: int | None
    eos: int | None
    pad: int | None
    ends: tuple[int, ...]
    adds_bos: bool
    chat_template: str | None
    tokens: int
    tensors: int
    bytes: int
    short_context: int | None = None

    @property
    def quantised(self) -> bool:
        """Whether the weights are rounded in blocks, to 8 bits or fewer each."""
        return self.type not in FLOATS


@dataclass(frozen=True)
class Content:
    """A GGUF file, open: its facts, its values by name, and the library's reader, which has the tensors."""

    facts: GgufFile
    values: dict[str, Any]
    reader: GGUFReader


def read(path: Path) -> GgufFile:
    """Return what the GGUF file at `path` says of itself; its head is read, and its length checked.

    Raises:
        BadInput: there is no such file, or it is truncated, damaged, a part of a split file, big-endian, or no language
            model in GGUF.
    """
    path = _named(path)
    _require_gguf(path)
    return _known.get(_version(path)) or open_file(path).facts


# The facts of files that were read: exporting, certifying and serving each ask for them, and a head takes a second.
_known: dict[tuple[Path, int, int], GgufFile] = {}


def _version(path: Path) -> tuple[Path, int, int]:
    about = path.stat()
    return path, about.st_size, about.st_mtime_ns


def open_file(path: Path) -> Content:
    """Return the open GGUF file at `path`; its tensors stay on disk until they are used. Raises BadInput as `read`."""
    path = _named(path)
    _require_gguf(path)
    size = path.stat().st_size
    try:
        reader = loader_internals.open_reader(path)
        values = {name: field.contents() for name, field in reader.fields.items()}
    except (ValueError, IndexError, KeyError, TypeError, ArithmeticError, OSError, MemoryError) as problem:
        raise BadInput(f"{path} is truncated or damaged ({size:,} bytes; {one_line(problem)}); {AGAIN}") from problem
    if reader.byte_order != "I":
        raise BadInput(f"{path} is a big-endian GGUF file, which llama.cpp cannot run here; {AGAIN} on this machine")
    _require_model(path, values, len(reader.tensors))
    content = Content(_facts(path, values, reader, size), values, reader)
    _known[_version(path)] = content.facts
    return content


def _named(path: Path) -> Path:
    return files.named_path(str(path), "a GGUF file")[0].absolute()


def _require_gguf(path: Path) -> None:
    if path.is_dir():
        raise BadInput(f"{path} is a folder; expected a GGUF file: export it with `ftlab export {path} OUT.gguf`")
    try:
        with path.open("rb") as file:
            begins = file.read(len(MAGIC))
    except OSError as problem:
        raise BadInput(f"{path} cannot be read ({problem.strerror or problem}); give a GGUF file") from problem
    if not begins:
        raise BadInput(f"{path} is empty; {AGAIN}")
    if begins != MAGIC:
        raise BadInput(f"{path} is not a GGUF file (it begins with {begins!r}); give one that `ftlab export` wrote")


def _require_model(path: Path, values: dict[str, Any], tensors: int) -> None:
    """Raise BadInput unless the file holds one whole language model with its tokenizer."""
    parts = values.get("split.count")
    if isinstance(parts, int) and parts > 1:
        raise BadInput(
            f"{path} is part {int(values.get('split.no') or 0) + 1} of {parts} of a split file; join them first, with "
            "`llama-gguf-split --merge`"
        )
    kind = values.get("general.type") or "model"
    if kind != "model":
        raise BadInput(f"{path} holds no whole model, but of type {shown(kind)}; give the GGUF file of the model")
    lacks = [name for name in ("general.architecture", "tokenizer.ggml.tokens") if not values.get(name)]
    if lacks or not tensors:
        raise BadInput(f"{path} has no {lacks[0] if lacks else 'tensors'}, so it is no language model; {AGAIN}")


def _facts(path: Path, values: dict[str, Any], reader: GGUFReader, size: int) -> GgufFile:
    tokenizer = {name.removeprefix("tokenizer.ggml."): value for name, value in values.items()}
    named = (tokenizer.get(f"{one}_token_id") for one in ("eos", "eot", "eom"))
    bos = tokenizer.get("bos_token_id")
    adds = tokenizer.get("add_bos_token", tokenizer.get("model") in ADDS_BOS)
    architecture = str(values["general.architecture"])
    by_context = any(tensor.name == LONG_FACTORS for tensor in reader.tensors)
    return GgufFile(
        path=path,
        architecture=architecture,
        type=_type(values.get("general.file_type"), reader),
        bos=bos,
        eos=tokenizer.get("eos_token_id"),
        pad=tokenizer.get("padding_token_id"),
        ends=tuple(dict.fromkeys(one for one in named if one is not None)),
        adds_bos=bool(adds) and bos is not None,
        chat_template=values.get("tokenizer.chat_template"),
        tokens=len(tokenizer["tokens"]),
        tensors=len(reader.tensors),
        bytes=size,
        short_context=values.get(f"{architecture}.rope.scaling.original_context_length") if by_context else None,
    )


def _type(file_type: Any, reader: GGUFReader) -> str:
    """Return the type of the weights: by the file's own name of it, unless its tensors are of another kind."""
    import gguf

    sizes: Counter[str] = Counter()
    for tensor in reader.tensors:
        sizes[tensor.tensor_type.name.lower()] += int(tensor.n_bytes)
    most = max(sizes, key=sizes.__getitem__)
    quantised = any(name not in FLOATS for name in sizes)
    try:  # the flag GUESSED says that the converter took the name from the first tensor
        named = gguf.LlamaFileType(int(file_type) & ~gguf.LlamaFileType.GUESSED).name
    except (ValueError, TypeError):
        return most
    said = named.lower().removeprefix("all_").removeprefix("mostly_")
    blocks = [name for name in sizes if name not in FLOATS]
    if quantised:
        return said if said not in FLOATS else max(blocks, key=sizes.__getitem__)
    return most
