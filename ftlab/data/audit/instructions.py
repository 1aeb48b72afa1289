"""Audit of instruction data: pairs of prompt and completion, and conversations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ftlab.data import prompts, sources
from ftlab.data.audit import (
    generated,
    groups,
    lengths,
    mismatched_answers,
    part_leakage,
    personal_data,
    placeholders,
    repeated_prompts,
    repeats,
    supervision,
    text_noise,
    tokens,
)
from ftlab.data.audit.findings import SEVERITIES, Finding, finding
from ftlab.data.audit.report import AuditReport
from ftlab.data.audit.table import Table, prepare
from ftlab.data.chat import Chat
from ftlab.data.words import normalise
from ftlab.errors import BadInput
from ftlab.progress import bar

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

COPIED_WORDS, COPIED_SHARE = 5, 0.5
HEADING = 8  # characters: a shorter line of a template is in many texts by chance


def audit_instructions(
    frame: pd.DataFrame,
    *,
    validation: pd.DataFrame | None = None,
    test: pd.DataFrame | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    max_length: int | None = None,
    hidden_size: int = lengths.HIDDEN_SIZE,
    template: prompts.Format = prompts.ALPACA,
) -> AuditReport:
    """Audit rows for instruction tuning, and report the defects that would harm it.

    Tokens are counted as `prompts.encode` reads a row: prompt and completion are tokenized separately, and one
    end-of-sequence token follows. Special tokens in a row count as text. If the rows also have the columns that the
    prompt is made of, instruction and perhaps input, `template` is put around these, and the report says which rows
    `prompts.encode` would cut or refuse. A prompt without these columns is counted as it is. In both cases the report
    says what truncation from the right, which other trainers use, would cut.

    Rows with the columns `messages` and `problem`, as `sources.read_conversations` returns them, are conversations:
    each answer in them is looked at, and their tokens are counted in the tokenizer's chat template.

    Args:
        frame: the training rows, with columns id, prompt, completion and perhaps group (see `audit`).
        validation: rows of the validation split, with the same columns. They are checked for leakage.
        test: rows of the test split, likewise.
        tokenizer: the one to train with.
        max_length: in tokens, of prompt, completion and end together.
        hidden_size: of the model; the relative training time of each max_length depends on it.
        template: the one to train with.

    Returns:
        The report. Its `lengths` have the tokens of each part of a row. Its `classes` have one line for each part: its
        tokens, whether they are supervised, and with `max_length` how many of them a cut from the right keeps.

    Raises:
        BadInput: a table lacks a column or has fewer than two rows; no row has a prompt; a prompt differs from the
            columns that it is made of; rows are conversations and the tokenizer has no chat template; or `max_length`
            is below 1.
    """
    frames = {"training": frame, "validation": validation, "test": test}
    name, frame, others = prepare(frames, ("prompt", "completion"))
    if sources.blank(frame["prompt"]).all():
        raise BadInput(f"{name}: none of the {len(frame):,} rows has a prompt; is it the right column?")
    groups.require(name, frame, others)
    lengths.require(max_length)
    size = len(frame) + sum(map(len, others.values()))
    with bar("auditing", total=size * 2 + len(frame) * bool(tokenizer), unit="rows") as progress:
        table = Table(frame, others, progress, ("prompt", "completion"))
        _require_parts(name, table)
        trained = supervision.format_of(table, tokenizer, template)
        own = frozenset() if isinstance(template, Chat) else frozenset(template.lines())
        found = [*_broken(table), *_completions(table), *repeated_prompts.check(table), *generated.check(table, own)]
        matched = mismatched_answers.check(table)
        found += [*matched.findings, *part_leakage.check(table)]
        found += [
            *text_noise.check(table),
            *personal_data.check(table),
            *repeats.check(table),
            *placeholders.check(table),
            *groups.check(table),
        ]
        found += [*tokens.special(table, tokenizer), *_headings(table, template)]
        measured = supervision.measure(table, tokenizer, trained, max_length, progress.update)
    if tokenizer is not None:
        found += [*supervision.end_tokens(table, tokenizer, trained), *supervision.cut_from_right(measured, max_length)]
        found += tokens.unknown(supervision.unknown(table, tokenizer))
        if isinstance(trained, Chat) or (trained and tokenizer.eos_token_id is not None):
            found += supervision.refused_and_cut(measured, max_length)
    found.sort(key=lambda each: SEVERITIES.index(each.severity))
    skipped = [] if tokenizer else ["truncation and supervision: name the tokenizer that you will train with"]
    if matched.skipped:
        skipped.append(matched.skipped)
    if not others:
        skipped.append("leakage between splits: give the validation or the test rows too")
    return AuditReport(
        findings=tuple(found),
        classes=supervision.parts(measured, max_length),
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
        notes=(supervision.how_counted(table, trained),) if tokenizer else (),
    )


def _require_parts(name: str, table: Table) -> None:
    """Raise BadInput if a prompt differs from its parts, joined in their order."""
    if not table.templated:
        return
    whole, *parts = (
        table.frame[column].fillna("").astype(str).str.split().str.join("")
        for column in ("prompt", *table.prompt_columns)
    )
    other = whole != (parts[0] if len(parts) == 1 else parts[0] + parts[1])
    if other.any():
        raise BadInput(
            f"{name}: the prompt of row {table.frame['id'][other.to_numpy().argmax()]} is not its "
            f"{' and '.join(table.prompt_columns)}, one after the other; change both, or leave out "
            f"{' and '.join(table.prompt_columns)} to take the prompt as it is"
        )


def _broken(table: Table) -> list[Finding]:
    """Find the conversations that cannot be read, in any split."""
    if not table.conversations:
        return []
    rows = pd.concat([table.frame, *table.others.values()])
    rows = rows[rows["messages"].isna()]
    if rows.empty:
        return []
    evidence = rows[["id"]].assign(why=rows["problem"])
    first = evidence.iloc[0]
    what = f"no conversation that can be read in {{count}}; the first is {first['id']}: {first['why']}"
    return [finding("broken_conversation", what, evidence=evidence)]


def _completions(table: Table) -> list[Finding]:
    frame = table.readable
    nothing = sources.blank(frame["prompt"])
    found = [finding("missing_prompt", "no prompt in {count}", frame.loc[nothing, "id"])] if nothing.any() else []
    empty = sources.blank(frame["completion"])
    if empty.any():
        found.append(finding("empty_completion", "an empty completion in {count}", frame.loc[empty, "id"]))
    said = generated.answers(table)
    pairs = zip(said["answer"].map(normalise), said["prompt"].map(normalise), strict=True)
    fewest = COPIED_WORDS if table.conversations else 1  # "Hi" is answered with "Hi"
    copied = said[np.array([_is_copy(answer, prompt, fewest) for answer, prompt in pairs], dtype=bool)]
    if len(copied):
        what = "a completion that repeats the prompt, or most of it, in {count}"
        evidence = generated.without_texts(copied.drop_duplicates("id"))
        found.append(finding("copied_completion", what, evidence=evidence))
    return found


def _is_copy(completion: str, prompt: str, fewest: int) -> bool:
    """Return whether a completion is the prompt, in `fewest` words or more, or most of it; both are normalised.

    Punctuation at the end is ignored.
    """
    completion, prompt = completion.rstrip(".!? "), prompt.rstrip(".!? ")
    words, of = len(completion.split()), len(prompt.split())
    if not completion or completion == prompt:
        return completion == prompt != "" and words >= fewest
    return words >= COPIED_WORDS and words >= COPIED_SHARE * of and f" {completion} " in f" {prompt} "


def _headings(table: Table, template: prompts.Format) -> list[Finding]:
    """Find rows that contain a whole line of the template."""
    if isinstance(template, Chat):  # its headings are special tokens
        return []
    headings = {line for line in template.lines() if len(line) >= HEADING}
    seen = []
    for row, *texts in table.frame[["id", *table.prompt_columns, "completion"]].itertuples(index=False):
        lines = [line.strip() for text in texts if isinstance(text, str) for line in text.split("\n")]
        if held := next((line for line in lines if line in headings), None):
            seen.append((row, held))
    if not seen:
        return []
    evidence = pd.DataFrame(seen, columns=["id", "found"])
    named = ", ".join(repr(line) for line in evidence["found"].value_counts().index[:3])
    return [finding("template_headings", f"a heading of the template in {{count}}: {named}", evidence=evidence)]
