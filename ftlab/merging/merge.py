"""A LoRA adapter merged into a checkpoint from file to file: no model is loaded, memory is that of one tensor.

A merged shard has exactly the layout of its base's shard, the same header and offsets. So the tensors that the adapter
changes are written where they lie, what is around them is copied, and no byte is written twice. Only where the adapter
brings a vocabulary of another size, its shards are laid out anew, in the same order. The formulas are those of PEFT's
`merge_and_unload` (peft 0.21: tuners/lora/layer.py, variants.py, dora.py), in the same order and the same precision.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlab import files
from ftlab.errors import BadInput
from ftlab.merging import plan as merge_plan
from ftlab.merging.plan import TOKENIZER, Change, Plan
from ftlab.models import model_files, shards
from ftlab.models.shards import Place
from ftlab.progress import Bar

if TYPE_CHECKING:
    import torch

# What stands beside the weights and belongs to the model whatever it has learned.
BESIDE = ("generation_config.json", *TOKENIZER, "preprocessor_config.json", "LICENSE*", "NOTICE*")
UNFINISHED = "config.json.unfinished"  # until all else is there: a folder without config.json loads as no model
BLOCK = 2**18  # numbers that are computed at a time: 1 MB in fp32, which stays in a core's cache (8 times as fast)
ROWS = 64  # of outputs, at least: a product of whole tiles has the bits that PEFT's product of the whole has


@dataclass(frozen=True)
class Merged:
    """What a merge did: the folder, the tensors that got a delta (`merged`) or another tensor's place (`replaced`).

    `tensors` and `bytes` are those of all `shards`; `dtype` is the one that most of the weights are stored in.
    `vocabulary` is the number of tokens where the adapter has brought another one than the base's, and `tokenizer` the
    folder that the tokenizer came from. `recorded` says whether the adapter's base.json names this base.
    """

    folder: Path
    merged: tuple[str, ...]
    replaced: tuple[str, ...]
    tensors: int
    shards: int
    bytes: int
    dtype: str
    vocabulary: int | None = None
    tokenizer: Path | None = None
    recorded: bool = False


def merge(base: Path, adapter: Path, out: Path) -> Merged:
    """Merge the adapter that PEFT saved in `adapter` into the model in `base`, as a new model in `out`.

    `base` holds config.json and safetensors, in one file or in shards with an index; `out` gets the same files, the
    tokenizer and the generation config. LoRA, rsLoRA and DoRA on Linear, Conv1D and Embedding layers, rank and alpha
    patterns, modules_to_save and trained biases. The result is what PEFT's `merge_and_unload` gives with the base
    loaded in its own dtype. Where the adapter brings its own embeddings for a larger vocabulary, the model gets that
    vocabulary, and the tokenizer that lies beside the adapter, if there is one. Raises BadInput for anything else
    before it writes, and for a full disk.

    The folder appears under its name only when it is whole: it is written under another one, its config last, and
    renamed. What a killed process leaves beside `out` (`.partial-*`) goes with the next merge to that place.
    """
    with begun(base, adapter, out) as (_, merged):
        pass
    return merged


@contextmanager
def begun(base: Path, adapter: Path, out: Path) -> Iterator[tuple[Path, Merged]]:
    """As `merge`, but gives the folder to look at before it becomes `out`; an error in the block removes it.

    The folder in the block has its config under another name, UNFINISHED: load it with that.
    """
    base, adapter = Path(base).expanduser(), Path(adapter).expanduser()
    place = _place(base, adapter, out)
    plan = merge_plan.read(base, adapter)
    merged = _summary(plan, place)
    _require_disk(place, merged.bytes + sum(file.stat().st_size for file in _beside(plan)))
    with files.atomic(place, folder=True, replace=False, error=BadInput) as partial:
        _write(plan, partial)
        yield partial, merged
        (partial / UNFINISHED).replace(partial / "config.json")


def _place(base: Path, adapter: Path, out: Path) -> Path:
    """Where to write, links resolved. Raises BadInput for a folder that is not empty, and for base and adapter."""
    place, there = files.named_path(str(out), "another folder for the merged model")
    place = place.resolve()
    for what, folder in (("base", base), ("adapter", adapter)):
        if place == folder.resolve():
            raise BadInput(f"{out} is the {what}'s own folder, which a merge must not change; give a new folder")
    if there and not place.is_dir():
        raise BadInput(f"{out} is a file, and the merged model needs a folder; give a new one")
    if there and any(place.iterdir()):
        raise BadInput(f"{out} is not empty; give a new folder for the merged model, or empty that one")
    return place


def _require_disk(place: Path, needed: int) -> None:
    """Raise BadInput unless the disk of `place` has room for `needed` bytes."""
    nearest = next(folder for folder in place.parents if folder.is_dir())
    free = shutil.disk_usage(nearest).free
    if free < needed:
        raise BadInput(
            f"the merged model needs {needed / 1e9:.3g} GB, and the disk of {nearest} has {free / 1e9:.3g} GB free; "
            "free some space there, or choose a folder on another disk"
        )


def _beside(plan: Plan) -> list[Path]:
    """The files that go with the weights; the tokenizer is that of one folder, the base's or the adapter's."""
    own = plan.tokenizer or plan.base.folder
    sources = {pattern: own if pattern in TOKENIZER else plan.base.folder for pattern in BESIDE}
    return sorted({file for pattern, folder in sources.items() for file in folder.glob(pattern) if file.is_file()})


def _summary(plan: Plan, place: Path) -> Merged:
    base = plan.base
    return Merged(
        folder=place,
        merged=tuple(change.name for change in plan.changes if change.factors),
        replaced=tuple(change.name for change in plan.changes if not change.factors),
        tensors=len(base.tensors),
        shards=len(base.shards),
        bytes=sum(_size(plan, shard) for shard in base.shards),
        dtype=base.dtype,
        vocabulary=plan.vocabulary,
        tokenizer=plan.tokenizer,
        recorded=plan.recorded,
    )


def _size(plan: Plan, shard: str) -> int:
    """How many bytes a merged shard has."""
    return plan.layouts[shard].size if shard in plan.layouts else (plan.base.folder / shard).stat().st_size


def _write(plan: Plan, folder: Path) -> None:
    """Everything but config.json, which stays under a name that nothing loads.

    One thread copies, shard after shard, what stays, while this one computes and writes what changes.
    """
    from safetensors import safe_open

    base = plan.base.folder
    changes: dict[str, list[Change]] = {shard: [] for shard in plan.base.shards}
    for change in sorted(plan.changes, key=lambda change: change.place.start):
        changes[change.place.shard].append(change)
    copying = ThreadPoolExecutor(max_workers=1)
    try:
        copies = {}
        for shard, those in changes.items():
            layout = plan.layouts.get(shard)
            shards.make_room(base / shard, folder / shard, layout)
            moves = [(change.place, change.target) for change in those]
            if layout is not None:  # the header is written already
                moves = _around_header(base / shard, len(layout.header), moves)
            copies[shard] = copying.submit(shards.copy_around, base / shard, folder / shard, moves)
        with safe_open(plan.adapter / merge_plan.WEIGHTS, framework="pt") as adapter, _one_thread():
            for shard in Bar(plan.base.shards, desc="merging", unit="shards"):
                with (base / shard).open("rb") as old, (folder / shard).open("r+b") as new:
                    for change in changes[shard]:
                        shards.write_tensor(new, change.target, _merged(change, old, adapter))
                copies[shard].result()
    finally:
        copying.shutdown(cancel_futures=True)
    for path in [*_beside(plan), base / shards.INDEX]:
        if path.is_file():
            shutil.copyfile(path, folder / path.name)
    shutil.copyfile(base / "config.json", folder / UNFINISHED)
    if plan.vocabulary is not None:
        _say_vocabulary(plan, folder)


def _around_header(shard: Path, length: int, moves: list[tuple[Place, Place]]) -> list[tuple[Place, Place]]:
    """The moves of a shard that is laid out anew, the first one from the end of the old header to that of the new."""
    old, new = (Place(shard.name, 0, end, (end,), "U8") for end in (shards.header_length(shard), length))
    return [(old, new), *moves]


def _say_vocabulary(plan: Plan, folder: Path) -> None:
    """Write the number of tokens into the config, and the number of bytes into the index."""
    config = {**plan.base.config, "vocab_size": plan.vocabulary}
    (folder / UNFINISHED).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    if (index := folder / shards.INDEX).is_file():
        said = model_files.read_json(index)
        if isinstance(about := said.get("metadata"), dict) and "total_size" in about:
            about.pop("total_parameters", None)  # optional, and no longer right
            grown = sum(change.target.end - change.target.start for change in plan.changes)
            grown -= sum(change.place.end - change.place.start for change in plan.changes)
            about["total_size"] = int(about["total_size"]) + grown
        index.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")


@contextmanager
def _one_thread() -> Iterator[None]:
    """Blocks this small gain nothing from a second thread, and the copy needs one."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _merged(change: Change, file: Any, adapter: Any) -> torch.Tensor:
    """The tensor that takes the place of one in the base's open shard `file`: its shape and dtype."""
    import torch

    dtype = getattr(torch, shards.DTYPES[change.target.dtype])
    if change.replacement is None:
        weight = shards.read_tensor(file, change.place)
    else:
        whole = adapter.get_tensor(change.replacement)
        _require_range(whole, dtype, change)
        weight = whole.to(dtype).contiguous()
    if change.factors:
        factors = {part: adapter.get_tensor(key).float() for part, key in change.factors.items()}
        for new in add(weight, factors, change.scaling, change.kind):
            _require_range(new, dtype, change)
    return weight


def _require_range(new: torch.Tensor, dtype: torch.dtype, change: Change) -> None:
    """Raise BadInput if a number would be NaN or infinity in `dtype`. Rounding keeps order, so the extremes say it."""
    import torch

    if not torch.stack(torch.aminmax(new)).to(dtype).isfinite().all():
        raise BadInput(
            f"{change.name} leaves the range of {change.place.dtype} when the adapter is merged into it; save the base "
            "in float32 or bfloat16, and merge into that"
        )


def add(weight: torch.Tensor, factors: dict[str, torch.Tensor], scaling: float, kind: str) -> Iterator[torch.Tensor]:
    """Add scaling * B @ A to a weight in place, for DoRA with each output's norm set to its magnitude, as PEFT does.

    A is (r, in), B is (out, r), M is (out,), all fp32; the weight is (out, in) in a linear layer, and (in, out) in
    conv1d and embedding. Half-precision weights are added to in fp32 and rounded once; an embedding's delta is rounded
    before the addition, too. DoRA: Liu et al., arXiv 2402.09353, equation 5. Gives each block of outputs as it was
    before it was rounded into the weight.
    """
    import torch

    a, b, magnitude = factors["A"], factors["B"], factors.get("M")
    for outs in _blocks(len(b), a.shape[1]):
        old = weight[outs] if kind == "linear" else weight[:, outs].T
        delta = (b[outs] @ a).mul_(scaling)
        if kind == "embedding" and magnitude is None:
            new = old + delta.to(old.dtype)
        elif magnitude is None:
            new = delta.add_(old)
        else:
            new = old + delta  # in the memory order of `old`: a norm depends on it in its last bit
            new = (magnitude[outs] / torch.linalg.norm(new, dim=1)).view(-1, 1) * new
        old.copy_(new)
        yield new


def _blocks(outs: int, ins: int) -> Iterator[slice]:
    """The outputs of a layer in blocks of about BLOCK numbers, the last one larger rather than small."""
    rows = max(ROWS, BLOCK // ins // ROWS * ROWS)
    starts = list(range(0, outs, rows))
    if len(starts) > 1 and outs - starts[-1] < ROWS:
        starts.pop()
    for start, end in zip(starts, [*starts[1:], outs], strict=True):
        yield slice(start, end)
