"""Audit of instruction data: prompts and completions, end-of-sequence tokens, and what truncation cuts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ftlab.data import prompts, sources, special_tokens
from ftlab.data.audit import lengths, placeholders, repeats, text_noise, tokens
from ftlab.data.audit.findings import SEVERITIES, Finding, finding
from ftlab.data.audit.report import AuditReport
from ftlab.data.audit.table import Table, prepare
from ftlab.data.words import normalise
from ftlab.errors import BadInput
from ftlab.progress import bar

if TYPE_CHECKING:
    from collections.abc import Callable

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
    template: prompts.Template = prompts.ALPACA,
) -> AuditReport:
    """Audit rows for instruction tuning, and report the defects that would harm it.

    Tokens are counted as `prompts.encode` reads a row: prompt and completion are tokenized separately, and one
    end-of-sequence token follows. Special tokens in a row count as text. If the rows also have the columns that the
    prompt is made of, instruction and perhaps input, `template` is put around these, and the report says which rows
    `prompts.encode` would cut or refuse. A prompt without these columns is counted as it is. In both cases the report
    says what truncation from the right, which other trainers use, would cut.

    Args:
        frame: the training rows, with columns id, prompt and completion.
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
            columns that it is made of; or `max_length` is below 1.
    """
    frames = {"training": frame, "validation": validation, "test": test}
    name, frame, others = prepare(frames, ("prompt", "completion"))
    if sources.blank(frame["prompt"]).all():
        raise BadInput(f"{name}: none of the {len(frame):,} rows has a prompt; is it the right column?")
    lengths.require(max_length)
    size = len(frame) + sum(map(len, others.values()))
    with bar("auditing", total=size * 2 + len(frame) * bool(tokenizer), unit="rows") as progress:
        table = Table(frame, others, progress, ("prompt", "completion"))
        _require_parts(name, table)
        found = [*_completions(table), *_prompts(table), *text_noise.check(table), *repeats.check(table)]
        found += [*placeholders.check(table), *tokens.special(table, tokenizer), *_headings(table, template)]
        measured = _measure(table, tokenizer, template, progress.update)
    if tokenizer is not None:
        found += [*_end_tokens(table.frame, tokenizer), *_cut_from_right(measured, max_length)]
        found += tokens.unknown(_unknown(table, tokenizer))
        if table.templated and tokenizer.eos_token_id is not None:
            found += _refused_and_cut(measured, max_length)
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
        notes=(_how_counted(table),) if tokenizer else (),
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


def _how_counted(table: Table) -> str:
    """Return a note on how the tokens of a prompt were counted."""
    if not table.templated:
        return "tokens of a prompt: as it is, without a template around it"
    named = table.frame.attrs.get("prompt_columns")
    which = f", the column {named[0]} as the instruction" if named else ""
    if named and len(named) > 1:
        which += f" and {', '.join(named[1:])} as the input"
    return f"tokens of a prompt: with the headings of the course's template around it{which}"


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
    """Return whether a completion is the prompt or most of it, both normalised; punctuation at the end is ignored."""
    completion, prompt = completion.rstrip(".!? "), prompt.rstrip(".!? ")
    if not completion or completion == prompt:
        return completion == prompt != ""
    words, of = len(completion.split()), len(prompt.split())
    return words >= COPIED_WORDS and words >= COPIED_SHARE * of and f" {completion} " in f" {prompt} "


def _prompts(table: Table) -> list[Finding]:
    """Find prompts that repeat with another completion. With the same completion the whole row is a duplicate."""
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


def _headings(table: Table, template: prompts.Template) -> list[Finding]:
    """Find rows that contain a whole line of the template."""
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


def _measure(
    table: Table,
    tokenizer: PreTrainedTokenizerBase | None,
    template: prompts.Template,
    done: Callable[[int], object],
) -> pd.DataFrame:
    """Return the characters of each row, the tokens of its parts, and the reason if training would refuse the row.

    A part that training refuses has 0 tokens.
    """
    frame = table.frame
    texts = [frame[column].fillna("").astype(str) for column in ("prompt", "completion")]
    measured = pd.DataFrame({"id": frame["id"], "characters": texts[0].str.len() + texts[1].str.len()})
    if tokenizer is None:
        return measured
    counts = []
    for row, prompt, completion in zip(frame.to_dict("records"), *texts, strict=True):
        if table.templated:
            row["output"] = completion
            parts = (
                _counted(lambda: prompts.question_ids(row, tokenizer, template=template)),  # noqa: B023
                _counted(lambda: prompts.answer_ids(row, tokenizer)),  # noqa: B023
            )
        else:
            parts = (
                _counted(lambda: prompts.prompt_ids(prompt, tokenizer)),  # noqa: B023
                _counted(lambda: prompts.completion_ids(completion, tokenizer)),  # noqa: B023
            )
        counts.append((parts[0][0], parts[1][0], parts[1][1] or parts[0][1]))
        done(1)
    counted = pd.DataFrame(counts, columns=["prompt tokens", "completion tokens", "refused"], index=measured.index)
    measured = measured.join(counted[["prompt tokens", "completion tokens"]])
    measured["end tokens"] = 0 if tokenizer.eos_token_id is None else 1
    measured["tokens"] = measured[["prompt tokens", "completion tokens", "end tokens"]].sum(axis=1)
    return measured.join(counted["refused"])


def _counted(read: Callable[[], list[int]]) -> tuple[int, str]:
    """Return the number of tokens that `read` returns, and why it fails, if it does."""
    try:
        return len(read()), ""
    except BadInput as problem:
        return 0, str(problem)


def _unknown(table: Table, tokenizer: PreTrainedTokenizerBase) -> pd.DataFrame:
    """Return the tokens of each row's prompt or completion, whichever has the larger share of unknown tokens."""
    if special_tokens.unknown_id(tokenizer) is None:
        return pd.DataFrame()
    shares, counts = [], []
    for column in ("prompt", "completion"):
        texts = table.frame[column].fillna("").astype(str).tolist()
        found = np.stack(lengths.count_tokens(tokenizer, texts, special=False))
        counts.append(found)
        shares.append(found[1] / np.maximum(found[0], 1))
    worse = np.where(shares[0] >= shares[1], counts[0], counts[1])
    return pd.DataFrame({"id": table.frame["id"], "tokens": worse[0], "unknown": worse[1]})


def _refused_and_cut(measured: pd.DataFrame, max_length: int | None) -> list[Finding]:
    """Find the rows that `prompts.encode` refuses, and those whose prompts it cuts from the left."""
    answers = measured["completion tokens"] + measured["end tokens"]
    reasons = measured["refused"].copy()
    if max_length is not None:
        long = (reasons == "") & (answers >= max_length)
        reasons[long] = [
            f"the output has {answer} tokens with EOS, which leaves no room for a prompt" for answer in answers[long]
        ]
    refused = reasons != ""
    found = []
    if refused.any():
        evidence = measured.loc[refused, ["id"]].assign(why=reasons[refused])
        what = f"training would refuse {{count}}; the reason for the first: {evidence['why'].iloc[0]}"
        found.append(finding("refused", what, evidence=evidence))
    if max_length is not None and (cut := ~refused & (measured["tokens"] > max_length)).any():
        evidence = measured.loc[cut, ["id", "prompt tokens", "tokens"]]
        evidence = evidence.assign(lost=evidence["tokens"] - max_length)
        what = (
            f"at {max_length} tokens {{count}} lose {evidence['lost'].sum():,} tokens of their prompts, from the left"
        )
        found.append(finding("prompt_cut", what, evidence=evidence))
    return found


def _end_tokens(frame: pd.DataFrame, tokenizer: PreTrainedTokenizerBase) -> list[Finding]:
    if tokenizer.eos_token_id is None:
        what = "the tokenizer has no end-of-sequence token, so none of {count} can teach the model to stop"
        return [finding("no_eos", what, count=len(frame))]
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        what = f"the only padding token of the tokenizer is {tokenizer.eos_token!r}, which ends a sequence: {{count}}"
        return [finding("pad_is_eos", what, count=len(frame))]
    return []


def _cut_from_right(measured: pd.DataFrame, max_length: int | None) -> list[Finding]:
    if max_length is None:
        return []
    prompt, whole = measured["prompt tokens"], measured["tokens"]
    masked, longer = prompt >= max_length, (whole > max_length) & (measured["end tokens"] > 0)
    cases = (
        (
            "all_masked",
            masked,
            f"a prompt of {max_length} tokens or more in {{count}}: cut from the right, nothing is left to learn",
        ),
        (
            "completion_cut",
            ~masked & (whole - measured["end tokens"] > max_length),
            f"a completion that {max_length} tokens cut in {{count}}, from the right",
        ),
        (
            "eos_lost",
            ~masked & longer,
            f"the end-of-sequence token lost at {max_length} tokens in {{count}}, cut from the right",
        ),
    )
    return [
        finding(finding_id, what, evidence=measured.loc[rows, ["id", "prompt tokens", "tokens"]])
        for finding_id, rows, what in cases
        if rows.any()
    ]


def _parts(measured: pd.DataFrame, max_length: int | None) -> pd.DataFrame:
    """Sum the tokens of prompts, completions and ends, before and after the cut from the right, with their shares."""
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
