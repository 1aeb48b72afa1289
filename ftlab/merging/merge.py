"""Merge a LoRA adapter into a checkpoint from file to file: no model is loaded, and memory holds one tensor at a time.

A merged shard has the layout of its base's shard: the same header, the same offsets. So the changed tensors are written
in their places, the bytes around them are copied, and no byte is written twice. Only for a vocabulary of another size,
a shard gets a new layout, in the same order. The formulas are those of PEFT's `merge_and_unload` (peft 0.21:
tuners/lora/layer.py, variants.py, dora.py), in the same order and the same precision.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlab import files
from ftlab.adapters import config as adapter_config
from ftlab.adapters.config import WEIGHTS
from ftlab.data import chat
from ftlab.errors import BadInput
from ftlab.merging import plan as merge_plan
from ftlab.merging.plan import TOKENIZER, Change, Plan
from ftlab.models import model_files, shards
from ftlab.models.shards import Place
from ftlab.progress import Bar

if TYPE_CHECKING:
    import torch

GENERATION, SPECIAL = "generation_config.json", ("bos_token_id", "eos_token_id", "pad_token_id")
# Files of the base that belong to the merged model too.
BESIDE = (GENERATION, *TOKENIZER, "preprocessor_config.json", "LICENSE*", "NOTICE*")
UNFINISHED = "config.json.unfinished"  # the config until all else is written: no folder loads without config.json
BLOCK = 2**18  # numbers in one computation: 1 MB in fp32, which stays in a core's cache (8 times as fast)
ROWS = 64  # the fewest outputs in a block: then a product by blocks has the same bits as PEFT's single product


@dataclass(frozen=True)
class Merged:
    """The result of a merge: the folder, and the names of the tensors with a delta (`merged`) or `replaced`.

    `tensors`, `shards` and `bytes` are totals of the model; `dtype` is that of most of its bytes. `vocabulary` is the
    number of tokens, if the adapter has another one than the base. `tokenizer` is the adapter's folder if the model got
    the tokenizer there, and None if it got the base's. `recorded` tells whether the adapter's base.json names this
    base, `chat_template` whether its own one came along.
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
    chat_template: bool = False


def merge(base: Path, adapter: Path, out: Path) -> Merged:
    """Merge the adapter that PEFT saved in `adapter` into the model in `base`, as a new model in `out`.

    The result equals that of PEFT's `merge_and_unload` with the base loaded in its own dtype. Supported are LoRA,
    rsLoRA and DoRA on Linear, Conv1D and Embedding layers, rank and alpha patterns, modules_to_save and trained
    biases. If the adapter has embeddings for a larger vocabulary, the model gets that vocabulary. It gets the tokenizer
    in the adapter's folder, if there is one with that vocabulary, or with other tokens, BOS or EOS than the base's.

    The folder is written under another name, its config last, and then renamed, so `out` is complete or absent. The
    next merge to the same place removes what a killed process left (`.partial-*`).

    Args:
        base: a folder with config.json and safetensors, in one file or in shards with an index.
        adapter: a folder that PEFT saved.
        out: a new or empty folder. It gets the same files as the base, the tokenizer and the generation config. The
            chat template is the adapter's, if its folder has one: the format in which it was trained.

    Returns:
        What was merged.

    Raises:
        BadInput: the adapter cannot be merged exactly (nothing is written then), or the disk is full.
    """
    with staged(base, adapter, out) as (_, merged):
        pass
    return merged


@contextmanager
def staged(base: Path, adapter: Path, out: Path) -> Iterator[tuple[Path, Merged]]:
    """Merge `adapter` into `base` as `merge` does, but yield the folder to check before it becomes `out`.

    An error in the block removes it. In the block its config has the name UNFINISHED; load the model with that.

    Yields:
        The unfinished folder, and what was merged.
    """
    base, adapter = Path(base).expanduser(), Path(adapter).expanduser()
    place = _place(base, adapter, out)
    plan = merge_plan.read(base, adapter)
    merged = _summary(plan, place)
    _require_disk(place, merged.bytes + sum(file.stat().st_size for file in _files_beside(plan).values()))
    with files.atomic(place, folder=True, replace=False, error=BadInput) as partial:
        _write(plan, partial)
        yield partial, merged
        (partial / UNFINISHED).replace(partial / "config.json")


def _place(base: Path, adapter: Path, out: Path) -> Path:
    """Return the folder to write to, links resolved. Raises BadInput unless it is new or empty."""
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


def _files_beside(plan: Plan) -> dict[Path, Path]:
    """Return the files to copy with the weights, by their places in the merged model's folder.

    Those of the tokenizer are all from the base or all from the adapter.
    """
    own = plan.tokenizer or plan.base.folder
    sources = {pattern: own if pattern in TOKENIZER else plan.base.folder for pattern in BESIDE}
    found = {(folder, file) for pattern, folder in sources.items() for file in folder.glob(pattern) if file.is_file()}
    return {file.relative_to(folder): file for folder, file in sorted(found)}


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
        chat_template=plan.chat_template is not None,
    )


def _size(plan: Plan, shard: str) -> int:
    """Return the number of bytes of a merged shard."""
    return plan.layouts[shard].size if shard in plan.layouts else (plan.base.folder / shard).stat().st_size


def _write(plan: Plan, folder: Path) -> None:
    """Write the merged model, with its config under the name UNFINISHED.

    One thread copies the unchanged bytes, shard after shard, while this one computes and writes the changed tensors.
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
        with safe_open(plan.adapter / WEIGHTS, framework="pt") as adapter, _one_thread():
            for shard in Bar(plan.base.shards, desc="merging", unit="shards"):
                with (base / shard).open("rb") as old, (folder / shard).open("r+b") as new:
                    for change in changes[shard]:
                        shards.write_tensor(new, change.target, _merged(change, old, adapter))
                copies[shard].result()
    finally:
        copying.shutdown(cancel_futures=True)
    beside = _files_beside(plan)
    if (base / shards.INDEX).is_file():
        beside[Path(shards.INDEX)] = base / shards.INDEX
    for name, source in beside.items():
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(source, folder / name)
    if plan.chat_template:
        (folder / chat.ALONE).write_text(plan.chat_template, encoding="utf-8", newline="")
    if plan.chat_template or plan.tokenizer:
        _write_ends(plan, folder)
    shutil.copyfile(base / "config.json", folder / UNFINISHED)
    if plan.vocabulary is not None:
        _write_vocabulary(plan, folder)


def _write_ends(plan: Plan, folder: Path) -> None:
    """Name the EOS of the adapter's own tokenizer, and what ends a turn in its template, in the generation config.

    `pipeline` and `generate` stop at the tokens of that config alone; if it names none, at those of the model's config.
    """
    if not any((folder / name).is_file() for name in model_files.TOKENIZERS):
        return
    ends: list[int] = []
    with suppress(BadInput):  # a template that no prompt fits: whoever asks in it is told
        tokenizer = adapter_config.load_tokenizer(folder)
        if plan.tokenizer and tokenizer.eos_token_id is not None:
            ends.append(tokenizer.eos_token_id)
        if plan.chat_template:
            ends += chat.Chat(tokenizer).known_ends
    path, config = folder / GENERATION, plan.base.config
    of_config = {name: config[name] for name in SPECIAL if config.get(name) is not None}
    said = model_files.read_json(path) if path.is_file() else of_config
    own = said.get("eos_token_id", config.get("eos_token_id"))
    known = own if isinstance(own, list) else [one for one in [own] if one is not None]
    if new := [one for one in dict.fromkeys(ends) if one not in known]:
        files.write_json(path, {**said, "eos_token_id": [*known, *new]})


def _around_header(shard: Path, length: int, moves: list[tuple[Place, Place]]) -> list[tuple[Place, Place]]:
    """Return the moves of a shard with a new layout; the first is from the end of the old header to that of the new."""
    old, new = (Place(shard.name, 0, end, (end,), "U8") for end in (shards.header_length(shard), length))
    return [(old, new), *moves]


def _write_vocabulary(plan: Plan, folder: Path) -> None:
    """Write the number of tokens into the config, and the number of bytes into the index."""
    config = {**plan.base.config, "vocab_size": plan.vocabulary}
    (folder / UNFINISHED).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    if (index := folder / shards.INDEX).is_file():
        said = model_files.read_json(index)
        if isinstance(about := said.get("metadata"), dict) and "total_size" in about:
            about.pop("total_parameters", None)  # optional, and now wrong
            grown = sum(change.target.end - change.target.start for change in plan.changes)
            grown -= sum(change.place.end - change.place.start for change in plan.changes)
            about["total_size"] = int(about["total_size"]) + grown
        index.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute with one thread: small blocks gain nothing from a second one, and the copy needs one."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _merged(change: Change, file: Any, adapter: Any) -> torch.Tensor:
    """Return the merged tensor of a change, from the base's open shard `file` and the open file of the adapter."""
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
    """Raise BadInput if a number would be NaN or infinite in `dtype`. Rounding keeps order: the extremes suffice."""
    import torch

    if not torch.stack(torch.aminmax(new)).to(dtype).isfinite().all():
        raise BadInput(
            f"{change.name} leaves the range of {change.place.dtype} when the adapter is merged into it; save the base "
            "in float32 or bfloat16, and merge into that"
        )


def add(weight: torch.Tensor, factors: dict[str, torch.Tensor], scaling: float, kind: str) -> Iterator[torch.Tensor]:
    """Add scaling * B @ A to a weight in place; for DoRA, then set the norm of each output to its magnitude M.

    As PEFT does: the sum with a half-precision weight is computed in fp32 and rounded once; the delta of an Embedding
    is rounded before the addition too. DoRA: Liu et al., arXiv 2402.09353, equation 5.

    Args:
        weight: (out, in) of a Linear layer, (in, out) of a Conv1D or an Embedding.
        factors: float32 by part: A (r, in), B (out, r), and M (out,) for DoRA.
        scaling: as of `tensors.scaling_of`.
        kind: as of `targets.layer_kind`.

    Yields:
        Each block of outputs, before it is rounded to the dtype of the weight.

    Rank 1 on a 2 x 2 weight, where B @ A is [[1, 2], [3, 6]]:

    >>> import torch
    >>> weight = torch.eye(2)
    >>> factors = {"A": torch.tensor([[1.0, 2.0]]), "B": torch.tensor([[1.0], [3.0]])}
    >>> blocks = list(add(weight, factors, scaling=2.0, kind="Linear"))
    >>> weight.tolist()
    [[3.0, 4.0], [6.0, 13.0]]
    """
    import torch

    a, b, magnitude = factors["A"], factors["B"], factors.get("M")
    for outs in _blocks(len(b), a.shape[1]):
        old = weight[outs] if kind == "Linear" else weight[:, outs].T
        delta = (b[outs] @ a).mul_(scaling)
        if kind == "Embedding" and magnitude is None:
            new = old + delta.to(old.dtype)
        elif magnitude is None:
            new = delta.add_(old)
        else:
            new = old + delta  # in the memory order of `old`: the last bit of a norm depends on it
            new = (magnitude[outs] / torch.linalg.norm(new, dim=1)).view(-1, 1) * new
        old.copy_(new)
        yield new


def _blocks(outs: int, ins: int) -> Iterator[slice]:
    """Yield slices of a layer's outputs, of about BLOCK numbers each; a small rest joins the last one."""
    rows = max(ROWS, BLOCK // ins // ROWS * ROWS)
    starts = list(range(0, outs, rows))
    if len(starts) > 1 and outs - starts[-1] < ROWS:
        starts.pop()
    for start, end in zip(starts, [*starts[1:], outs], strict=True):
        yield slice(start, end)
