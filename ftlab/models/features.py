"""The output of frozen layers, computed once and read again at each epoch.

What does not train gives the same for a row every time. So the rows go through the frozen layers once, and training
goes on from there: the frozen layers hand out what was stored in place of computing it. Source: AutoFreeze (Liu et al.,
arXiv 2102.01386), section 4.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ftlab import files
from ftlab.errors import BadInput
from ftlab.models import batches, freezing
from ftlab.progress import Bar

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MEMORY = 1_000_000_000  # bytes of features that are held in memory; more go to the disk
VALUES, INDEX = "features.f32", "index.json"


@dataclass(frozen=True)
class Features:
    """What the frozen layers gave for each token of each row. Made by `compute`.

    `rows` and `collate` are what Trainer takes as its data set (with `remove_unused_columns=False`) and its
    `data_collator`; train inside `in_place`.
    """

    rows: Dataset
    values: np.ndarray  # (tokens of all rows, hidden size), in memory or memory-mapped
    starts: np.ndarray  # where each row's tokens begin in values
    lengths: np.ndarray  # how many they are
    frozen_layers: int
    dtype: torch.dtype  # in which the frozen layers gave them
    tokenizer: PreTrainedTokenizerBase
    _folder: Any = field(default=None, repr=False)  # a temporary folder lives as long as this

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def bytes(self) -> int:
        """The size of the features."""
        return int(self.lengths.sum()) * self.values.shape[1] * self.values.itemsize

    def part(self, places: Sequence[int]) -> Features:
        """The features of some of the rows, in the order of `places`; nothing is copied but the row's own columns."""
        rows = self.rows.select(places)
        return Features(
            rows, self.values, self.starts, self.lengths, self.frozen_layers, self.dtype, self.tokenizer, self._folder
        )

    def collate(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """A batch, padded to its longest row: what `DataCollatorWithPadding` makes, and `features`.

        The shape of `features` is (rows, tokens, hidden size). Padding is 0: no row looks at it.
        """
        import torch
        from transformers import DataCollatorWithPadding

        places = [row["place"] for row in rows]
        columns = [{name: value for name, value in row.items() if name != "place"} for row in rows]
        batch = DataCollatorWithPadding(self.tokenizer)(columns)
        features = np.zeros((len(rows), batch["input_ids"].shape[1], self.values.shape[1]), dtype=np.float32)
        for line, place in zip(features, places, strict=True):
            start, length = self.starts[place], self.lengths[place]
            line[:length] = self.values[start : start + length]
        return {**batch, "features": torch.from_numpy(features).to(self.dtype)}

    @contextmanager
    def in_place(self, model: PreTrainedModel) -> Iterator[PreTrainedModel]:
        """Inside the block `model` takes a batch's `features` instead of running its frozen layers.

        The names of its parameters and what `save_pretrained` writes stay as they are. After the block it computes the
        frozen layers again. A batch without features is refused inside the block.
        """
        layers = freezing.structure(model).layers[: self.frozen_layers]
        given: dict[str, torch.Tensor] = {}

        def take(module: Any, arguments: Any, batch: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            if "features" not in batch:
                raise BadInput(
                    "this batch has no features, and the frozen layers do not run here; use rows and collate of one "
                    "Features, or leave the block"
                )
            given["features"] = batch.pop("features")
            return arguments, batch

        hook = model.register_forward_pre_hook(take, with_kwargs=True)
        for layer in layers[:-1]:
            layer.forward = _pass_on
        layers[-1].forward = lambda *arguments, **options: given["features"]
        try:
            yield model
        finally:
            hook.remove()
            for layer in layers:
                del layer.forward

    def run(
        self, model: PreTrainedModel, read: Callable[[Any, torch.Tensor], torch.Tensor], *, what: str = "predicting"
    ) -> np.ndarray:
        """As `batches.run`, from the features on: `read(output, attention_mask)` of each row, in their order."""
        lengths = [int(self.lengths[place]) for place in self.rows["place"]]
        with self.in_place(model):
            return batches.run_batches(model, lengths, self._batch, read, what=what)

    def _batch(self, places: Sequence[int]) -> dict[str, torch.Tensor]:
        return self.collate([self.rows[place] for place in places])


def compute(
    model: PreTrainedModel,
    plan: freezing.Plan,
    rows: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    bf16: bool = False,
    memory: int = MEMORY,
    folder: Path | None = None,
) -> Features:
    """One pass of tokenized `rows` through the frozen layers of `plan`, which `freeze` has made for `model`.

    `bf16` as in TrainingArguments, so that they are what training itself would compute. Features of more than `memory`
    bytes lie on the disk, memory-mapped; with `folder` they do in any case, and stay there for the next call, which
    reads them if rows, tokens, frozen weights and precision are the same, and refuses them (BadInput) if not. Rows are
    stored by length, the longest first, so that what is read together lies together.

    Raises BadInput where no layer is frozen, for padding on the left (a token's position would depend on the batch),
    and for a full disk, which leaves nothing half-written.
    """
    if plan.frozen_layers < 1:
        raise BadInput(
            f"policy {plan.policy!r} freezes no layer, so there is nothing to compute once; train without features"
        )
    if tokenizer.padding_side != "right":
        raise BadInput(
            "the tokenizer pads on the left, where a token's position, and so its features, depend on the other rows "
            "of the batch; set tokenizer.padding_side = 'right'"
        )
    names = [name for name in batches.MODEL_INPUTS if name in rows.column_names]
    kept = rows.select_columns([*names, *(name for name in ("label", "labels") if name in rows.column_names)])
    lengths = np.array([len(ids) for ids in kept["input_ids"]])
    order = np.argsort(-lengths, kind="stable")
    starts = np.empty(len(lengths), dtype=np.int64)
    starts[order] = np.concatenate([[0], np.cumsum(lengths[order])[:-1]])
    width = model.config.hidden_size
    size = 4 * int(lengths.sum()) * width

    def made(values: np.ndarray, dtype: torch.dtype, holder: Any = None) -> Features:
        placed = kept.add_column("place", list(range(len(kept))))
        return Features(placed, values, starts, lengths, plan.frozen_layers, dtype, tokenizer, holder)

    if folder is None and size <= memory:
        values = np.empty((int(lengths.sum()), width), dtype=np.float32)
        return made(values, _fill(model, plan, kept, tokenizer, lengths, bf16, partial(_put, values)))
    identity = _identity(model, plan, rows, lengths, bf16)
    temporary = None if folder is not None else tempfile.TemporaryDirectory(prefix="ftlab-features-")
    place = folder if folder is not None else Path(temporary.name) / "features"  # type: ignore[union-attr]
    if not (place / INDEX).is_file():
        with files.whole(place, folder=True) as unfinished:
            with (unfinished / VALUES).open("wb") as file:  # and not a memory map: writing to one kills on a full disk
                dtype = _fill(model, plan, kept, tokenizer, lengths, bf16, lambda _, found: file.write(found.tobytes()))
            files.write_json(unfinished / INDEX, {**identity, "dtype": str(dtype), "bytes": size})
    dtype = _require_same(place, identity, size)
    values = np.memmap(place / VALUES, dtype=np.float32, mode="r", shape=(int(lengths.sum()), width))
    return made(values, dtype, temporary)


def _fill(
    model: PreTrainedModel,
    plan: freezing.Plan,
    rows: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    lengths: np.ndarray,
    bf16: bool,
    write: Callable[[int, np.ndarray], Any],
) -> torch.dtype:
    """Hand out the features of row after row, the longest first, with the token at which they begin; their dtype."""
    import torch

    layers = freezing.structure(model).layers
    frozen, rest = layers[: plan.frozen_layers], layers[plan.frozen_layers :]
    seen: list[torch.Tensor] = []
    hook = frozen[-1].register_forward_hook(lambda module, arguments, output: seen.append(output))
    for layer in rest:
        layer.forward = _pass_on  # what comes after is not asked for
    columns = {name: list(rows[name]) for name in batches.MODEL_INPUTS if name in rows.column_names}
    autocast = torch.autocast(model.device.type, torch.bfloat16) if bf16 else nullcontext()
    was_training, at = model.training, 0
    model.eval()
    try:
        with torch.no_grad(), autocast, Bar(desc="frozen layers", total=len(rows), unit="rows") as progress:
            for places in batches.by_length(lengths.tolist()):
                picked = {name: [column[place] for place in places] for name, column in columns.items()}
                model.base_model(**tokenizer.pad(picked, return_tensors="pt").to(model.device))
                output = seen.pop()
                found = output.float().cpu().numpy()
                for line, place in zip(found, places, strict=True):
                    write(at, line[: lengths[place]])
                    at += int(lengths[place])
                progress.update(len(places))
    finally:
        hook.remove()
        for layer in rest:
            del layer.forward
        model.train(was_training)
    return output.dtype


def _put(values: np.ndarray, at: int, found: np.ndarray) -> None:
    values[at : at + len(found)] = found


def _pass_on(hidden_states: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
    """The forward of a layer that is left out."""
    return hidden_states


def _identity(
    model: PreTrainedModel, plan: freezing.Plan, rows: Dataset, lengths: np.ndarray, bf16: bool
) -> dict[str, Any]:
    """What features depend on. The names are those that a refusal uses."""
    prints = freezing.fingerprints(model)
    in_front = {name: prints[name] for name in sorted(plan.frozen)}
    return {
        "model": f"{plan.architecture}, weights {_hash(in_front)[:12]}",
        "frozen layers": str(plan.frozen_layers),
        "texts": _hash(list(rows["text"]))[:12] if "text" in rows.column_names else "unknown",
        "rows": str(len(rows)),
        "longest row (see max_length)": f"{lengths.max()} tokens",
        "tokens": _hash([list(rows[name]) for name in batches.MODEL_INPUTS if name in rows.column_names])[:12],
        "precision": "bf16" if bf16 else "fp32",
    }


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=False).encode()).hexdigest()


def _require_same(folder: Path, identity: Mapping[str, str], size: int) -> torch.dtype:
    """The dtype of stored features. Raises BadInput if they are not those of `identity`, or not whole."""
    import torch

    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        there = (folder / VALUES).stat().st_size
    except (OSError, ValueError) as problem:
        raise BadInput(
            f"the cached features in {folder} cannot be read ({type(problem).__name__}); remove that folder, and they "
            "are computed again"
        ) from problem
    for name, now in identity.items():
        if index.get(name) != now:
            raise BadInput(
                f"the cached features in {folder} were made with {name}: {index.get(name)}, and this training has "
                f"{now}; remove that folder or choose another, and they are computed anew"
            )
    if there != size:
        raise BadInput(
            f"the cached features in {folder} are not whole ({there:,} bytes of {size:,}); remove that folder, and "
            "they are computed again"
        )
    return getattr(torch, index["dtype"].removeprefix("torch."))
