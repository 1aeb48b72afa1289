"""The output of frozen layers, computed once and read again at each epoch.

What does not train gives the same for a row every time. So the rows go through the frozen layers once, and training
goes on from there: the frozen layers hand out what was stored in place of computing it. Source: AutoFreeze (Liu et al.,
arXiv 2102.01386), section 4.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from ftlab import files
from ftlab.errors import BadInput
from ftlab.freezing import plans, replacement, store
from ftlab.freezing.passes import Passes
from ftlab.models import batches
from ftlab.progress import Bar

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MEMORY = 1_000_000_000  # bytes of features that are held in memory; more go to the disk
LABELS = ("labels", "label")  # what a row's label may be called; a model calls it labels, and the last one counts

_replaced: WeakKeyDictionary[Any, int] = WeakKeyDictionary()  # models that take features now, and for how many layers


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
        return int(self.lengths[list(self.rows["place"])].sum()) * self.values.shape[1] * self.values.itemsize

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
        from torch.nn.utils.rnn import pad_sequence

        if any("place" not in row for row in rows):
            raise BadInput(
                "a row came without its place: Trainer drops what a model's forward does not name, unless its "
                "arguments say remove_unused_columns=False"
            )
        places = [row["place"] for row in rows]
        for row, place in zip(rows, places, strict=True):
            if len(row["input_ids"]) != self.lengths[place]:
                raise BadInput(
                    f"a row of {len(row['input_ids'])} tokens is none of these features' (theirs has "
                    f"{self.lengths[place]}); use rows and collate of one Features"
                )
        names = [name for name in batches.MODEL_INPUTS if name in rows[0]]
        batch = batches.pad(self.tokenizer, {name: [row[name] for row in rows] for name in names})
        for name in LABELS:
            if name in rows[0]:
                batch["labels"] = torch.tensor([row[name] for row in rows])
        spans = [slice(self.starts[place], self.starts[place] + self.lengths[place]) for place in places]
        of_rows = [torch.from_numpy(np.array(self.values[span])) for span in spans]  # copies: a map is only read
        return {**batch, "features": pad_sequence(of_rows, batch_first=True).to(self.dtype)}

    @contextmanager
    def in_place(self, model: PreTrainedModel) -> Iterator[PreTrainedModel]:
        """Inside the block `model` takes a batch's `features` instead of running its frozen layers.

        The names of its parameters and what `save_pretrained` writes stay as they are. A batch without features is
        refused inside the block. A batch's features serve that batch's forward pass, once: a part of the model that is
        called by itself (`model.base_model(...)`) computes what it would compute behind the block.
        """
        if model in _replaced:
            if _replaced[model] != self.frozen_layers:
                raise BadInput(
                    f"{_replaced[model]} layers of this model are replaced already, and these features stand for "
                    f"{self.frozen_layers}; leave the outer block first"
                )
            yield model
            return
        layers = plans.structure(model).layers
        entrance = replacement.entrance(model.base_model, layers)
        left_out = layers[: self.frozen_layers] if entrance is None else (entrance, *layers[: self.frozen_layers])
        over = threading.Event()
        passes = Passes(over)
        stand_ins = dict.fromkeys(left_out, passes.pass_on) | {left_out[0]: passes.hand_out}
        forwards = {module: replacement.unless(module, does, passes.going_on) for module, does in stand_ins.items()}
        hooks = [
            model.register_forward_pre_hook(passes.begin, with_kwargs=True, prepend=True),
            model.register_forward_hook(passes.end, always_call=True),
        ]
        _replaced[model] = self.frozen_layers
        try:
            with replacement.replaced(forwards):
                yield model
        finally:
            over.set()
            for hook in hooks:
                hook.remove()
            del _replaced[model]

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
    plan: plans.Plan,
    rows: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    precision: Mapping[str, bool] | None = None,
    memory: int = MEMORY,
    folder: Path | None = None,
) -> Features:
    """One pass of tokenized `rows` through the frozen layers of `plan`, which `freeze` has made for `model`.

    `precision` holds bf16 and fp16 as TrainingArguments takes them (`devices.mixed_precision`), so that they are
    what training itself would compute; fp32 if it is left out. Features of more than `memory`
    bytes lie on the disk, memory-mapped; with `folder` they do in any case, and stay there for the next call, which
    reads them if rows, tokens, frozen weights and precision are the same, and refuses them (BadInput) if not. Rows are
    stored by length, the longest first, so that what is read together lies together.

    Raises BadInput where no layer is frozen or there are no rows, for padding on the left (a token's position would
    depend on the batch), for a folder that holds something else, and for layers that hand on more than hidden states;
    CourseError for a full disk, which leaves nothing half-written.
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
    if not len(rows):
        raise BadInput("there are no rows to compute features of; expected at least one")
    wanted = (*batches.MODEL_INPUTS, "label", "labels", "id")
    kept = rows.select_columns([name for name in wanted if name in rows.column_names])
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
        return made(values, _fill(model, plan, kept, tokenizer, lengths, precision, partial(_put, values)))
    identity = store.identity(model, plan, rows, lengths, _name(precision))
    temporary = None if folder is not None else tempfile.TemporaryDirectory(prefix="ftlab-features-")
    place = folder if folder is not None else Path(temporary.name) / "features"  # type: ignore[union-attr]
    with ExitStack() as on_failure:
        if temporary is not None:
            on_failure.callback(temporary.cleanup)  # at once, and not when the error that is told has been forgotten
        if not (place / store.INDEX).is_file():
            store.require_empty(place)
            with files.atomic(place, folder=True) as unfinished:
                # A file and not a memory map: writing to one kills on a full disk.
                with (unfinished / store.VALUES).open("wb") as file:
                    dtype = _fill(
                        model, plan, kept, tokenizer, lengths, precision, lambda _, found: file.write(found.tobytes())
                    )
                files.write_json(unfinished / store.INDEX, {**identity, "dtype": str(dtype), "bytes": size})
        dtype = store.require_same(place, identity, size)
        on_failure.pop_all()
    values = np.memmap(place / store.VALUES, dtype=np.float32, mode="r", shape=(int(lengths.sum()), width))
    return made(values, dtype, temporary)


def _fill(
    model: PreTrainedModel,
    plan: plans.Plan,
    rows: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    lengths: np.ndarray,
    precision: Mapping[str, bool] | None,
    write: Callable[[int, np.ndarray], Any],
) -> torch.dtype:
    """Hand out the features of row after row, the longest first, with the token at which they begin; their dtype."""
    import torch

    layers = plans.structure(model).layers
    _require_hidden_states(model, layers)
    frozen, rest = layers[: plan.frozen_layers], layers[plan.frozen_layers :]
    seen: list[torch.Tensor] = []
    hook = frozen[-1].register_forward_hook(lambda module, arguments, output: seen.append(output))
    columns = {name: list(rows[name]) for name in batches.MODEL_INPUTS if name in rows.column_names}
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(_name(precision))
    autocast = nullcontext() if dtype is None else torch.autocast(model.device.type, dtype)
    tokens = batches.TOKENS * (1 if dtype is None else 2)  # half precision takes half the memory
    was_training, at = model.training, 0
    model.eval()
    try:
        with (
            torch.no_grad(),
            autocast,
            replacement.replaced(dict.fromkeys(rest, replacement.pass_on)),  # what comes after is not asked for
            Bar(desc="frozen layers", total=len(rows), unit="rows") as progress,
        ):
            for places in batches.by_length(lengths.tolist(), tokens):
                picked = {name: [column[place] for place in places] for name, column in columns.items()}
                batch = batches.pad(tokenizer, picked)
                model.base_model(**{name: tensor.to(model.device) for name, tensor in batch.items()})
                output = seen.pop()
                found = output.float().cpu().numpy()
                for line, place in zip(found, places, strict=True):
                    write(at, line[: lengths[place]])
                    at += int(lengths[place])
                progress.update(len(places))
    finally:
        hook.remove()
        model.train(was_training)
    return output.dtype


def _put(values: np.ndarray, at: int, found: np.ndarray) -> None:
    values[at : at + len(found)] = found


def _require_hidden_states(model: PreTrainedModel, layers: Sequence[Any]) -> None:
    """Raise BadInput unless a layer gives one tensor: what it gives besides would be lost."""
    import torch

    seen: list[Any] = []
    hook = layers[0].register_forward_hook(lambda module, arguments, output: seen.append(output))
    try:
        plans.run_few_tokens(model.base_model)
    finally:
        hook.remove()
    if not isinstance(seen[0], torch.Tensor):
        raise BadInput(
            f"the layers of {type(model).__name__} hand on more than hidden states, which cannot be stored; train "
            "without features"
        )


def _name(precision: Mapping[str, bool] | None) -> str:
    return next((name for name in ("bf16", "fp16") if (precision or {}).get(name)), "fp32")
