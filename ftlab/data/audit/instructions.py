"""Instruction data: a prompt and the completion that the model is to learn, and what truncation does to the pair."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ftlab.data import sources
from ftlab.data.audit import debris, lengths, repeats
from ftlab.data.audit.report import SEVERITIES, AuditReport, Finding, finding
from ftlab.data.audit.table import Table, prepare
from ftlab.data.words import normalise
from ftlab.errors import BadInput
from ftlab.progress import bar

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedTokenizerBase

COPIED_WORDS, COPIED_SHARE = 5, 0.5


def audit_instructions(
    frame: pd.DataFrame,
    *,
    validation: pd.DataFrame | None = None,
    test: pd.DataFrame | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    max_length: int | None = None,
    hidden_size: int = lengths.HIDDEN_SIZE,
) -> AuditReport:
    """Look for what spoils instruction tuning in a table of columns id, prompt and completion.

    With the tokenizer, lengths are those of prompt and completion tokenized apart and joined, with one end-of-sequence
    token; with `max_length`, what cutting that from the right would take. In the report, `classes` has a line for
    each part of a row, and `lengths` the tokens of each part, with those that are supervised before and after the cut.

    Raises BadInput when a table lacks a column or has fewer than two rows, or when no row has a prompt.
    """
    frames = {"training": frame, "validation": validation, "test": test}
    name, frame, others = prepare(frames, ("prompt", "completion"))
    if sources.blank(frame["prompt"]).all():
        raise BadInput(f"{name}: none of the {len(frame):,} rows has a prompt; is it the right column?")
    lengths.require(max_length)
    size = len(frame) + sum(map(len, others.values()))
    with bar("auditing", total=size * (4 if tokenizer else 2), unit="rows") as progress:
        table = Table(frame, others, progress, ("prompt", "completion"))
        found = [*_completions(table), *_prompts(table), *debris.check(table), *repeats.check(table)]
        measured = _measure(table.frame, tokenizer, progress.update)
    if tokenizer is not None:
        found += [*_ends(table.frame, tokenizer), *_cut(measured, max_length)]
    found.sort(key=lambda each: SEVERITIES.index(each.severity))
    skipped = [] if tokenizer else ["truncation and supervision: name the tokenizer that you will train with"]
    if not others:
        skipped.append("leakage between splits: give the validation or the test rows too")
    return AuditReport(
        findings=tuple(found),
        classes=_parts(measured, max_length),
        lengths=measured,
        budgets=lengths.budgets(
            measured.get("tokens", pd.Series(dtype=int)),
            max_length,
            hidden_size,
            tokenizer and tokenizer.model_max_length,
        ),
        shortcuts=pd.DataFrame(),
        skipped=tuple(skipped),
        table=table,
        max_length=max_length if tokenizer else None,
        tokenizer=tokenizer,
    )


def _completions(table: Table) -> list[Finding]:
    frame = table.frame
    nothing = sources.blank(frame["prompt"])
    found = [finding("missing_prompt", "no prompt in {count}", frame.loc[nothing, "id"])] if nothing.any() else []
    empty = sources.blank(frame["completion"])
    if empty.any():
        found.append(finding("empty_completion", "an empty completion in {count}", frame.loc[empty, "id"]))
    there = frame[~empty & ~sources.blank(frame["prompt"])]
    pairs = zip(there["completion"].map(normalise), there["prompt"].map(normalise), strict=True)
    copied = np.array([_is_copy(completion, prompt) for completion, prompt in pairs], dtype=bool)
    if copied.any():
        what = "a completion that repeats the prompt, or most of it, in {count}"
        found.append(finding("copied_completion", what, there.loc[copied, "id"]))
    return found


def _is_copy(completion: str, prompt: str) -> bool:
    """Whether a normalised completion is the prompt, or a part of it that makes up most of it; closing marks aside."""
    completion, prompt = completion.rstrip(".!? "), prompt.rstrip(".!? ")
    if not completion or completion == prompt:
        return completion == prompt != ""
    words, of = len(completion.split()), len(prompt.split())
    return words >= COPIED_WORDS and words >= COPIED_SHARE * of and f" {completion} " in f" {prompt} "


def _prompts(table: Table) -> list[Finding]:
    """Prompts that come again with another completion; with the same one they are duplicates of the whole row."""
    there = table.frame[~sources.blank(table.frame["prompt"])]
    keys = there["prompt"].map(normalise)
    answers = there["completion"].fillna("").map(normalise)
    again = (answers != answers.groupby(keys).transform("first")) & (keys != "")
    if not again.any():
        return []
    firsts = there["id"].groupby(keys).transform("first")
    evidence = pd.DataFrame({"id": there["id"][again], "same_prompt_as": firsts[again]})
    what = "the prompt of an earlier row with another completion in {count}"
    return [finding("duplicate_prompts", what, evidence=evidence)]


def _measure(
    frame: pd.DataFrame, tokenizer: PreTrainedTokenizerBase | None, done: Callable[[int], object]
) -> pd.DataFrame:
    prompts, completions = (frame[column].fillna("").astype(str) for column in ("prompt", "completion"))
    measured = pd.DataFrame({"id": frame["id"], "characters": prompts.str.len() + completions.str.len()})
    if tokenizer is None:
        return measured
    begin = int(tokenizer.bos_token_id is not None and tokenizer.bos_token_id in tokenizer("")["input_ids"])
    measured["prompt tokens"] = begin + lengths.count_tokens(tokenizer, prompts.tolist(), done, special=False)
    measured["completion tokens"] = lengths.count_tokens(tokenizer, completions.tolist(), done, special=False)
    measured["end tokens"] = 0 if tokenizer.eos_token is None else 1
    if tokenizer.eos_token is not None:  # a completion that brings its own end is given no second one
        ended = completions.str.rstrip().str.endswith(tokenizer.eos_token)
        measured.loc[ended, "completion tokens"] -= 1
    measured["tokens"] = measured[["prompt tokens", "completion tokens", "end tokens"]].sum(axis=1)
    return measured


def _ends(frame: pd.DataFrame, tokenizer: PreTrainedTokenizerBase) -> list[Finding]:
    if tokenizer.eos_token_id is None:
        what = "the tokenizer has no end-of-sequence token, so none of {count} can teach the model to stop"
        return [finding("no_eos", what, count=len(frame))]
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        what = f"the tokenizer has no padding token but {tokenizer.eos_token!r}, which ends a sequence: {{count}}"
        return [finding("pad_is_eos", what, count=len(frame))]
    return []


def _cut(measured: pd.DataFrame, max_length: int | None) -> list[Finding]:
    if max_length is None:
        return []
    prompt, whole = measured["prompt tokens"], measured["tokens"]
    masked, longer = prompt >= max_length, (whole > max_length) & (measured["end tokens"] > 0)
    cases = (
        (
            "all_masked",
            masked,
            f"a prompt of {max_length} tokens or more in {{count}}: nothing is left to learn",
        ),
        (
            "completion_cut",
            ~masked & (whole - measured["end tokens"] > max_length),
            f"a completion that {max_length} tokens cut in {{count}}",
        ),
        ("eos_lost", ~masked & longer, f"the end-of-sequence token lost at {max_length} tokens in {{count}}"),
    )
    return [
        finding(finding_id, what, evidence=measured.loc[rows, ["id", "prompt tokens", "tokens"]])
        for finding_id, rows, what in cases
        if rows.any()
    ]


def _parts(measured: pd.DataFrame, max_length: int | None) -> pd.DataFrame:
    """Tokens in prompts, in completions and in ends, whole and after the cut, each with its share."""
    if "tokens" not in measured:
        return pd.DataFrame()
    parts = ("prompt", "completion", "end")
    prompt, completion, end = (measured[f"{part} tokens"].to_numpy() for part in parts)
    table = pd.DataFrame({"tokens": [prompt.sum(), completion.sum(), end.sum()]}, index=[*parts])
    table["share"] = (table["tokens"] / table["tokens"].sum()).round(3)
    table["supervised"] = [False, True, True]
    if max_length is not None:
        left = np.minimum(prompt, max_length)
        kept = np.minimum(completion, max_length - left)
        ends = end * (measured["tokens"] <= max_length).to_numpy()
        table["kept"] = [left.sum(), kept.sum(), ends.sum()]
        table["share of kept"] = (table["kept"] / table["kept"].sum()).round(3)
    return table
