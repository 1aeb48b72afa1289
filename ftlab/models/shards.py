"""Read and write single tensors of safetensors files in place: where each tensor is, by the headers of the shards.

Format: 8 bytes for the length of the header, the header as JSON (dtype, shape and offsets of each tensor), then the
tensors (https://huggingface.co/docs/safetensors).
"""

from __future__ import annotations

import errno
import json
import math
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ftlab.errors import BadInput
from ftlab.models import model_files
from ftlab.wording import some

if TYPE_CHECKING:
    from io import FileIO

    import torch

SINGLE, INDEX = model_files.SINGLE, model_files.INDEX
PIECE = 2**24  # bytes in one copy
NO_KERNEL_COPY = (
    errno.EXDEV,
    errno.ENOSYS,
    errno.EINVAL,
    errno.EOPNOTSUPP,
)  # not between these disks or on this system
BYTES = {"F32": 4, "BF16": 2, "F16": 2}
DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}  # as stored -> as torch names it


@dataclass(frozen=True)
class Place:
    """Where a tensor is stored: its shard, its bytes from `start` to `end` of that file, its shape and dtype."""

    shard: str
    start: int
    end: int
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Layout:
    """The new layout of a shard: its header as bytes, with their length before them, and the place of each tensor."""

    header: bytes
    places: Mapping[str, Place]
    size: int  # of the whole file, in bytes


@dataclass(frozen=True)
class Checkpoint:
    """A model's folder: its config, its shards, and the place of each tensor."""

    folder: Path
    config: Mapping[str, Any]
    shards: tuple[str, ...]
    tensors: Mapping[str, Place]

    @property
    def dtype(self) -> str:
        """The dtype of most of the stored bytes, by its torch name. Raises BadInput for 8 bits and fewer."""
        sizes: dict[str, int] = {}
        for place in self.tensors.values():
            sizes[place.dtype] = sizes.get(place.dtype, 0) + place.end - place.start
        most = max(sizes, key=sizes.__getitem__, default="nothing")
        if most not in DTYPES:
            raise BadInput(f"the base {self.folder} is stored in {most}; expected {', '.join(DTYPES.values())}")
        return DTYPES[most]


def read(folder: Path) -> Checkpoint:
    """Return the checkpoint in `folder`, from its config and the headers of its shards.

    Raises:
        BadInput: the folder is not a model, has only a pickle, is quantized, or is incomplete.
    """
    if not (folder / "config.json").is_file():
        there = "has no config.json" if folder.is_dir() else "is no folder"
        raise BadInput(f"the base {folder} {there}; give the folder of the model that the adapter was trained on")
    config = model_files.read_json(folder / "config.json")
    if config.get("quantization_config"):
        raise BadInput(
            f"the base {folder} is quantized, says its config.json, and a delta added to rounded weights is lost in "
            "part; merge into the weights that it was made from"
        )
    named: set[str] = set()
    if (folder / SINGLE).is_file():
        shards = [SINGLE]
    elif (folder / INDEX).is_file():
        by_name = model_files.read_json(folder / INDEX).get("weight_map", {})
        shards, named = sorted(set(map(str, by_name.values()))), set(by_name)
        if outside := [
            shard for shard in shards if Path(shard).name != shard
        ]:  # a merge would write outside its folder, too
            raise BadInput(f"{folder / INDEX} names {some(outside)}, which is no file of its folder; fetch it again")
    else:
        pickles = model_files.pickles(folder)
        there = f"only a pickle ({pickles[0]}), {model_files.RISK}" if pickles else "no weights"
        raise BadInput(
            f"the base {folder} holds {there}; expected {SINGLE}, or shards with {INDEX}: load it where you trust it, "
            "and save it again with `save_pretrained`"
        )
    missing = [shard for shard in shards if not (folder / shard).is_file()]
    if missing or not shards:
        raise BadInput(
            f"the base {folder} lacks {some(missing) or 'every shard'}, named in its {INDEX}; fetch or copy it again"
        )
    tensors = {name: place for shard in shards for name, place in _places(folder / shard).items()}
    if lost := sorted(named - set(tensors)):
        raise BadInput(
            f"no shard of the base {folder} holds {some(lost)}, named in its {INDEX}; fetch or copy it again"
        )
    return Checkpoint(folder, config, tuple(shards), tensors)


def lay_out(base: Checkpoint, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Layout]:
    """Return the new layout of each shard of `base` in which a tensor changes its shape.

    Order and dtypes stay. `shapes` has the new shapes by the names of the tensors; others keep theirs.
    """
    found = {}
    for shard in base.shards:
        inside = {name: place for name, place in base.tensors.items() if place.shard == shard}
        if all(shapes.get(name, place.shape) == place.shape for name, place in inside.items()):
            continue
        _, header = _header(base.folder / shard)
        offsets, end = {}, 0
        for name, place in sorted(inside.items(), key=lambda one: one[1].start):
            shape = shapes.get(name, place.shape)
            size = place.end - place.start if shape == place.shape else math.prod(shape) * BYTES[place.dtype]
            offsets[name] = (end, end + size, shape)
            end += size
            header[name] |= {"shape": list(shape), "data_offsets": list(offsets[name][:2])}
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of 8
        begin = 8 + len(text)
        places = {
            name: Place(shard, begin + start, begin + stop, shape, inside[name].dtype)
            for name, (start, stop, shape) in offsets.items()
        }
        found[shard] = Layout(struct.pack("<Q", len(text)) + text, places, begin + end)
    return found


def header_length(path: Path) -> int:
    """Return the byte at which the tensors of the shard `path` begin."""
    return 8 + _header(path)[0]


def _header(path: Path) -> tuple[int, dict[str, Any]]:
    """Return the length of a shard's header in bytes, and its content."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return length, json.loads(file.read(length))


def _places(path: Path) -> dict[str, Place]:
    """Return the place of each tensor of one shard. Raises BadInput for an incomplete file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt"):  # safetensors checks the header against the file's length
            pass
        length, entries = _header(path)
    except (SafetensorError, OSError, ValueError) as problem:
        size = path.stat().st_size
        raise BadInput(
            f"{path} is not a whole safetensors file: {size:,} bytes, {problem}; copy or save it again"
        ) from problem
    entries.pop("__metadata__", None)
    found = {}
    for name, entry in entries.items():
        start, end = (8 + length + offset for offset in entry["data_offsets"])
        found[name] = Place(path.name, start, end, tuple(entry["shape"]), entry["dtype"])
    return found


def read_tensor(file: BinaryIO, place: Place) -> torch.Tensor:
    """Return the tensor at `place` of the open shard `file`, in its stored dtype and in memory of its own.

    Raises BadInput if the file ends within the tensor.
    """
    import torch

    memory = torch.empty(place.end - place.start, dtype=torch.uint8)
    file.seek(place.start)
    if file.readinto(memory.numpy()) != len(memory):  # type: ignore[attr-defined]  # BufferedIOBase has it
        raise BadInput(f"{place.shard} ended within a tensor; another process may be writing it: copy it again")
    return memory.view(getattr(torch, DTYPES[place.dtype])).view(place.shape)


def write_tensor(file: BinaryIO, place: Place, tensor: torch.Tensor) -> None:
    """Write `tensor` over the bytes at `place` of the open shard `file`; shape and dtype must be those of `place`."""
    import torch

    file.seek(place.start)
    file.write(tensor.contiguous().view(-1).view(torch.uint8).numpy())


def make_room(source: Path, target: Path, layout: Layout | None = None) -> None:
    """Create the file `target`: as long as `source` and empty, or by `layout` with its header and its length."""
    with target.open("wb") as file:
        if layout is not None:
            file.write(layout.header)
        file.truncate(source.stat().st_size if layout is None else layout.size)


def copy_around(source: Path, target: Path, moves: Sequence[tuple[Place, Place]]) -> None:
    """Copy all bytes of `source` to `target` except the tensors of `moves`.

    Args:
        source: a shard.
        target: a file made by `make_room`.
        moves: the place of each such tensor in the source and in the target, in the order of the file. The bytes after
            a tensor in the source are copied to the bytes after it in the target.
    """
    with source.open("rb", buffering=0) as old, target.open("r+b", buffering=0) as new:
        starts = [0, *(before.end for before, _ in moves)]
        ends = [*(before.start for before, _ in moves), source.stat().st_size]
        ats = [0, *(after.end for _, after in moves)]
        for start, end, at in zip(starts, ends, ats, strict=True):
            _copy(old, new, start, end, at)


def _copy(old: FileIO, new: FileIO, start: int, end: int, at: int | None = None) -> None:
    """Copy the bytes from `start` to `end`, to `at` (by default `start`): in the kernel (Linux) or through memory."""
    shift = 0 if at is None else at - start
    if hasattr(os, "copy_file_range"):
        try:
            while start < end:
                copied = os.copy_file_range(
                    old.fileno(), new.fileno(), min(PIECE, end - start), offset_src=start, offset_dst=start + shift
                )
                if not copied:
                    break
                start += copied
        except OSError as problem:
            if problem.errno not in NO_KERNEL_COPY:
                raise
    old.seek(start)
    new.seek(start + shift)
    while start < end:
        piece = old.read(min(PIECE, end - start))
        if not piece:
            raise BadInput(f"{old.name} ended early; another process may be writing it: copy it again")
        written = new.write(piece)
        start += written
        old.seek(start)
