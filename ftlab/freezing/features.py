"""Feature caching: the output of frozen layers, computed once and read again in each epoch.

The output of frozen layers for a row is the same every time. So each row runs through the frozen layers once, and
training reads the stored output instead of computing it. Source: AutoFreeze (Liu et al., arXiv 2102.01386), section 4.
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

MEMORY = 1_000_000_000  # bytes of features in memory; larger ones are stored on disk
LABELS = (
    "labels",
    "label",
)  # columns of the label; a batch calls it labels, and if a row has both, the last one here counts

_replaced: WeakKeyDictionary[Any, int] = (
    WeakKeyDictionary()
)  # models inside `in_place`, and how many layers are replaced


@dataclass(frozen=True)
class Features:
    """The output of the frozen layers for each token of each row. Made by `compute`.

    Give Trainer `rows` as its data set (with `remove_unused_columns=False`) and `collate` as its `data_collator`, and
    train inside `in_place`.
    """

    rows: Dataset
    values: np.ndarray  # (tokens of all rows, hidden size), in memory or memory-mapped
    starts: np.ndarray  # (rows,) the index of each row's first token in values
    lengths: np.ndarray  # (rows,) in tokens
    frozen_layers: int
    dtype: torch.dtype  # of the frozen layers' output; values are stored in fp32
    tokenizer: PreTrainedTokenizerBase
    _folder: Any = field(default=None, repr=False)  # a temporary folder, kept as long as this object exists

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def bytes(self) -> int:
        """The size of the features of `rows`."""
        return int(self.lengths[list(self.rows["place"])].sum()) * self.values.shape[1] * self.values.itemsize

    def part(self, places: Sequence[int]) -> Features:
        """Return the features of the rows at `places`, in that order, without copying any values."""
        rows = self.rows.select(places)
        return Features(
            rows, self.values, self.starts, self.lengths, self.frozen_layers, self.dtype, self.tokenizer, self._folder
        )

    def collate(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Collate `rows` of `Features.rows` to a batch, padded to its longest row.

        Returns:
            What `DataCollatorWithPadding` returns, and `features`, (rows, tokens, hidden size). Their padding is 0; the
            attention mask excludes it.

        Raises:
            BadInput: a row is not one of these features.
        """
        import torch
        from torch.nn.utils.rnn import pad_sequence

        if any("place" not in row for row in rows):
            raise BadInput(
                "a row has no column 'place', since Trainer removes columns that the model's forward does not name; "
                "set remove_unused_columns=False"
            )
        places = [row["place"] for row in rows]
        for row, place in zip(rows, places, strict=True):
            if len(row["input_ids"]) != self.lengths[place]:
                raise BadInput(
                    f"a row has {len(row['input_ids'])} tokens, and these features have {self.lengths[place]} for it; "
                    "use rows and collate of one Features"
                )
        names = [name for name in batches.MODEL_INPUTS if name in rows[0]]
        batch = batches.pad(self.tokenizer, {name: [row[name] for row in rows] for name in names})
        for name in LABELS:
            if name in rows[0]:
                batch["labels"] = torch.tensor([row[name] for row in rows])
        spans = [slice(self.starts[place], self.starts[place] + self.lengths[place]) for place in places]
        of_rows = [
            torch.from_numpy(np.array(self.values[span])) for span in spans
        ]  # copied: the memory map is read-only
        return {**batch, "features": pad_sequence(of_rows, batch_first=True).to(self.dtype)}

    @contextmanager
    def in_place(self, model: PreTrainedModel) -> Iterator[PreTrainedModel]:
        """Inside the block, `model` uses a batch's `features` instead of running its frozen layers.

        Its parameter names and what `save_pretrained` writes do not change. A batch without features is refused. The
        features of a batch are used once, in its forward pass: a part of the model that is called directly
        (`model.base_model(...)`) computes the same as outside the block.

        Yields:
            `model`.

        Raises:
            BadInput: an outer block replaces another number of its layers.
        """
        if model in _replaced:
            if _replaced[model] != self.frozen_layers:
                raise BadInput(
                    f"{_replaced[model]} layers of this model are already replaced, and these features replace "
                    f"{self.frozen_layers}; leave the outer block first"
                )
            yield model
            return
        layers = plans.structure(model).layers
        first = replacement.input_module(model.base_model, layers)
        left_out = layers[: self.frozen_layers] if first is None else (first, *layers[: self.frozen_layers])
        over = threading.Event()
        passes = Passes(over)
        stand_ins = dict.fromkeys(left_out, passes.pass_on) | {left_out[0]: passes.take_features}
        forwards = {
            module: replacement.forward_while(passes.is_running, module, does) for module, does in stand_ins.items()
        }
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
        """Run the trained layers of `model` on the features, like `batches.run`.

        Args:
            model: the model that `compute` was given, or a trained copy.
            read: takes the output and the attention mask of a batch, and returns one line a row.
            what: the text of the progress bar.

        Returns:
            (rows, ...) the results of `read`, in the order of the rows.
        """
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
    """Run tokenized rows once through the frozen layers, and store the output.

    Rows are stored by length, the longest first, since rows of similar length are read together.

    Args:
        model: as `plans.freeze` left it.
        plan: of `plans.freeze`.
        rows: with input_ids, and label or labels.
        tokenizer: pads the rows, on the right.
        precision: bf16 and fp16 as TrainingArguments takes them (`devices.mixed_precision`), so that the features are
            what training would compute; fp32 if left out.
        memory: in bytes; larger features are stored on disk and memory-mapped.
        folder: where to keep the features for the next call, which reads them if rows, tokens, frozen weights and
            precision are the same.

    Returns:
        The features, in the order of `rows`.

    Raises:
        BadInput: no layer is frozen, there are no rows, the tokenizer pads on the left (a token's position would depend
            on the batch), `folder` holds something else or other features, or the layers return more than hidden
            states, or other ones for a row that is padded (ConvBERT mixes a token with the padding beside it).
        CourseError: the disk is full; nothing half-written is left.
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
            on_failure.callback(temporary.cleanup)  # now, and not only when the traceback is garbage-collected
        if not (place / store.INDEX).is_file():
            store.require_empty(place)
            with files.atomic(place, folder=True) as unfinished:
                # A file and not a memory map: on a full disk, writing to a memory map kills the process.
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
    """Call `write(first token's index, features)` for each row, the longest first; return the features' dtype."""
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
    was_training, at, tested = model.training, 0, False

    def of_rows(places: Sequence[int]) -> torch.Tensor:
        batch = batches.pad(tokenizer, {name: [column[place] for place in places] for name, column in columns.items()})
        model.base_model(**{name: tensor.to(model.device) for name, tensor in batch.items()})
        return seen.pop()

    model.eval()
    try:
        with (
            torch.no_grad(),
            autocast,
            replacement.replaced(dict.fromkeys(rest, replacement.pass_on)),  # the later layers are not needed
            Bar(desc="frozen layers", total=len(rows), unit="rows") as progress,
        ):
            for places in batches.by_length(lengths.tolist(), tokens):
                output, short = of_rows(places), places[-1]
                if not tested and lengths[places[0]] != lengths[short]:
                    tested = True
                    if not batches.same_answer(model, of_rows([short])[0], output[-1, : lengths[short]]):
                        raise BadInput(
                            f"the layers of {type(model).__name__} give another output for a row that is padded than "
                            "for the row alone, so its features depend on the rows beside it; train without features"
                        )
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
    """Raise BadInput unless a layer returns one tensor: any other output would be lost."""
    import torch

    seen: list[Any] = []
    hook = layers[0].register_forward_hook(lambda module, arguments, output: seen.append(output))
    try:
        plans.run_few_tokens(model.base_model)
    finally:
        hook.remove()
    if not isinstance(seen[0], torch.Tensor):
        raise BadInput(
            f"the layers of {type(model).__name__} return more than hidden states, which cannot be stored; train "
            "without features"
        )


def _name(precision: Mapping[str, bool] | None) -> str:
    return next((name for name in ("bf16", "fp16") if (precision or {}).get(name)), "fp32")
