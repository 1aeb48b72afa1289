"""Undocumented names of the GGUF readers: of llama.cpp's library, and of the loader of transformers."""

from __future__ import annotations

import contextlib
import functools
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# Long lists of the tokenizer that a model's weights and config do not depend on.
UNREAD = ("tokenizer.ggml.merges", "tokenizer.ggml.scores", "tokenizer.ggml.token_type")

MOST = 2_000_000  # entries of a list in the head; the longest are the merges of a vocabulary of some 262,000 tokens


def open_reader(path: Path) -> Any:
    """Return llama.cpp's `GGUFReader` of the file at `path`, which reads nothing beyond the end of the file.

    Raises:
        ValueError: a length or a count in the head cannot be right. Other errors of a damaged file are the library's.
    """
    import gguf
    import numpy as np

    class Reader(gguf.GGUFReader):
        """The library's reader over a plain array: the same memory, read four times as fast as a `memmap`.

        The library believes each length. Beyond the end of the file it reads nothing at all, as often as it is told to.
        """

        @property
        def data(self) -> Any:
            return self._plain

        @data.setter
        def data(self, mapped: Any) -> None:
            self._plain = np.asarray(mapped)

        def _get(self, offset: int, dtype: Any, count: Any = 1, *order: Any, **named: Any) -> Any:
            found = super()._get(offset, dtype, count, *order, **named)
            if len(found) != int(count):
                raise ValueError(f"{int(count):,} entries at byte {int(offset):,} do not fit into it")
            return found

        def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
            if raw_type == gguf.GGUFValueType.ARRAY:
                length = int(self._get(orig_offs + 4, np.uint64)[0])  # after the type of the entries
                _require_count(length, f"list at byte {orig_offs:,}")
            return super()._get_field_parts(orig_offs, raw_type)

        def _build_fields(self, offs: int, count: int) -> int:
            _require_count(count, "head")
            return super()._build_fields(offs, count)

        def _build_tensor_info(self, offs: int, count: int) -> Any:
            _require_count(count, "list of tensors")
            return super()._build_tensor_info(offs, count)

    return Reader(path)


def _require_count(count: int, where: str) -> None:
    if count > MOST:
        raise ValueError(f"the {where} would have {count:,} entries")


def load(kind: Any, path: Path, reader: Any, **options: Any) -> Any:
    """Return the model of class `kind` that transformers reads from the GGUF file at `path`.

    `from_pretrained(gguf_file=...)`, the public way, reads the head of the file three times and the table of names once
    for each module, which takes 20 s for SmolLM2. Here it gets the `reader` that is open, and one table: 2 s.

    Args:
        kind: an AutoModel class.
        path: the absolute path of the file.
        reader: the `GGUFReader` of that file.
        options: of `from_pretrained`.
    """
    # The folder is an empty one, so that no config.json or adapter beside the file is taken for its own.
    with tempfile.TemporaryDirectory() as empty, _reading_once(reader), contextlib.redirect_stderr(io.StringIO()):
        return kind.from_pretrained(empty, gguf_file=str(path), **options)


def tensor_names(model: Any, reader: Any) -> dict[str, str]:
    """Return the name in the GGUF file of each tensor of `model`, by its name in the state dict.

    The loader's own table, which has no public name.
    """
    from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor, get_gguf_hf_weights_map

    architecture = reader.fields["general.architecture"].contents()
    processor = TENSOR_PROCESSORS.get(architecture, TensorProcessor)(config={})
    with _reading_once(reader):
        found = get_gguf_hf_weights_map(model, processor)
    return {name: in_file for in_file, name in found.items()}


@contextlib.contextmanager
def _reading_once(reader: Any) -> Iterator[None]:
    import gguf
    from transformers import modeling_gguf_pytorch_utils as loader

    was = gguf.GGUFReader, gguf.get_tensor_name_map, loader.tqdm
    fields = {name: field for name, field in reader.fields.items() if name not in UNREAD}
    opened: Any = SimpleNamespace(fields=fields, tensors=reader.tensors)
    gguf.GGUFReader = lambda path: opened
    gguf.get_tensor_name_map = functools.cache(gguf.get_tensor_name_map)
    loader.tqdm = lambda tensors, **_: tensors  # in a notebook the bar is a widget, and no setting turns it off
    try:
        yield
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map, loader.tqdm = was
