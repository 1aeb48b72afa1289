"""The same model asked in several formats: what it costs to ask in another one than that of its training.

A tuned model has learned to answer after one format: the headings or the chat template, down to the last line end. A
tool that asks in another format gets worse answers, and nothing reports an error. This is the most common reason why a
model "gets worse" after an export.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

import pandas as pd

from ftlab.data import chat, prompts, special_tokens
from ftlab.data.chat import Chat
from ftlab.data.prompts import ALPACA, Format, Template
from ftlab.errors import BadInput
from ftlab.evaluation import losses
from ftlab.models import generation

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NO_FORMAT = Template("{instruction}\n\n{input}", "{instruction}")


def wrong_formats(trained: Format, tokenizer: PreTrainedTokenizerBase) -> dict[str, Format]:
    """Return formats in which a model is often asked by mistake, by name.

    For headings these are the chat template of `tokenizer`, if it has one that rows can be asked in; no format, which
    an engine without a template gives; the headings without their last line end, or with a space after it; and, if the
    tokenizer puts BOS before a text, the headings with another BOS, which results if template and engine both add it.
    For a chat template they are the Alpaca headings and no format.

    Args:
        trained: the format in which the model was trained.
        tokenizer: of the base, with the chat template of the base.
    """
    if isinstance(trained, Chat):
        return {"Alpaca headings": ALPACA, "no format": NO_FORMAT}
    found: dict[str, Format] = {}
    if tokenizer.chat_template:
        with suppress(BadInput):  # not every chat template can be learned from, and so have a loss
            found["chat template of the base"] = chat.for_rows(tokenizer)
    found["no format"] = NO_FORMAT
    texts = trained.with_input, trained.without_input
    if all(text.endswith("\n") for text in texts):
        found["without the last line end"] = Template(*(text.removesuffix("\n") for text in texts))
    found["with a space at the end"] = Template(*(f"{text} " for text in texts))
    if special_tokens.around(tokenizer)[0] == [tokenizer.bos_token_id]:
        bos = str(tokenizer.bos_token).replace("{", "{{").replace("}", "}}")  # in a template, braces name a column
        found["with two BOS"] = Template(*(bos + text for text in texts))
    return found


def compare(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    formats: Mapping[str, Format],
    *,
    max_new_tokens: int,
    max_length: int,
) -> pd.DataFrame:
    """Ask one model the questions of `rows` in each of `formats`, greedily.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer, with a pad token.
        rows: held-out rows, with instruction, input and output.
        formats: by name; the first one is the format in which the model was trained.
        max_new_tokens: the longest answer.
        max_length: the most tokens of a row for the loss.

    Returns:
        One line a format. `held-out loss` is the mean loss of a token of the reference answers, their ends included, in
        nats. `right` is the share of answers that equal the reference, `stopped` the share that ended, and `same
        answer` the share that equal the answer in the first format.

    Raises:
        BadInput: there is no format or no row; or a row does not fit (`prompts.encode`, `generation.generate`).
    """
    if not formats or not len(rows):
        raise BadInput(f"there are {len(formats)} formats and {len(rows)} rows to compare; give at least one of each")
    loss = _losses(model, tokenizer, rows, formats, max_length)
    answers = _answers(model, tokenizer, rows, formats, max_new_tokens)
    first = answers[next(iter(formats))]
    expected = [output.strip() for output in rows["output"]]
    lines = {
        name: {
            "held-out loss": loss[name],
            "right": _share(said.text.strip() == output for said, output in zip(found, expected, strict=True)),
            "stopped": _share(said.stopped for said in found),
            "same answer": _share(said.text == trained.text for said, trained in zip(found, first, strict=True)),
        }
        for name, found in answers.items()
    }
    return pd.DataFrame(lines).T.rename_axis("asked as")


def _losses(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    formats: Mapping[str, Format],
    max_length: int,
) -> dict[str, float]:
    """Return the mean loss of each format. The rows of all formats share batches."""
    from datasets import concatenate_datasets

    parts = [prompts.encode(rows, tokenizer, max_length=max_length, template=one)[0] for one in formats.values()]
    every = concatenate_datasets([part.select_columns(["input_ids", "labels"]) for part in parts])
    found = losses.row_losses(model, tokenizer, every)
    starts = range(0, len(every), len(rows))
    return {
        name: losses.mean_loss(found.iloc[start : start + len(rows)]).value
        for name, start in zip(formats, starts, strict=True)
    }


def _answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    formats: Mapping[str, Format],
    max_new_tokens: int,
) -> dict[str, list[generation.Answer]]:
    """Return the answers in each format. Formats that end an answer with the same tokens share batches."""
    alike: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for name, template in formats.items():
        ends = template.known_ends if isinstance(template, Chat) else []
        alike[tuple(sorted(generation.end_tokens(model, tokenizer, ends)))].append(name)
    found: dict[str, list[generation.Answer]] = {}
    for shared, names in alike.items():
        ids = [prompts.question_ids(row, tokenizer, template=formats[name]) for name in names for row in rows]
        said = generation.generate(model, tokenizer, ids, max_new_tokens=max_new_tokens, ends=shared)
        found |= {name: said[place * len(rows) :][: len(rows)] for place, name in enumerate(names)}
    return {name: found[name] for name in formats}


def _share(values: Iterable[bool]) -> float:
    each = list(values)
    return sum(each) / len(each)
