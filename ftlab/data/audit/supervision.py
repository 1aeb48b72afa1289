"""Tokens of instruction data: which of them are learned, what training refuses or cuts, and what teaches to stop."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ftlab.data import chat, conversations, prompts, special_tokens
from ftlab.data.audit import lengths
from ftlab.data.audit.findings import Finding, finding
from ftlab.data.audit.table import Table
from ftlab.data.chat import Chat
from ftlab.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedTokenizerBase


def format_of(
    table: Table, tokenizer: PreTrainedTokenizerBase | None, template: prompts.Format
) -> prompts.Format | None:
    """Return the format in which `table` is trained on, or None for prompts that are taken as they are.

    Conversations are counted in `template` if it is a `Chat`, and else in the tokenizer's own. Raises BadInput if that
    has no chat template, or one that cannot be trained on.
    """
    if not table.conversations:
        return template if table.templated else None
    if tokenizer is None or isinstance(template, Chat):
        return template
    if not tokenizer.chat_template:
        raise BadInput(
            f"the tokenizer of {name_of(tokenizer)} has no chat template, so the tokens of a conversation cannot be "
            "counted; name the tokenizer of a model that was trained to chat, or leave the tokenizer out"
        )
    return chat.for_rows(tokenizer)


def name_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the name of the model that `tokenizer` belongs to."""
    return str(tokenizer.name_or_path).rstrip("/").rsplit("/", 1)[-1] or "this model"


def how_counted(table: Table, template: prompts.Format | None) -> str:
    """Return a note on how the tokens of the rows of `table` were counted, in the `template`."""
    if isinstance(template, Chat):
        return (
            "tokens: in the chat template of the tokenizer; the prompt is all that is not learned, and the answer of "
            "each assistant turn is learned with the token that ends it"
        )
    if template is None:
        return "tokens of a prompt: as it is, without a template around it"
    named = table.frame.attrs.get("prompt_columns")
    which = f", the column {named[0]} as the instruction" if named else ""
    if named and len(named) > 1:
        which += f" and {', '.join(named[1:])} as the input"
    return f"tokens of a prompt: with the headings of the course's template around it{which}"


def measure(
    table: Table,
    tokenizer: PreTrainedTokenizerBase | None,
    template: prompts.Format | None,
    max_length: int | None,
    done: Callable[[int], object],
) -> pd.DataFrame:
    """Count the tokens of each row of `table` that can be read.

    Args:
        table: the rows.
        tokenizer: None counts characters alone.
        template: as `format_of` returns it.
        max_length: in tokens.
        done: is called with 1 after each row.

    Returns:
        One line for each row: its id, its characters, the tokens of its parts (prompt, completion, end) and of all, and
        `refused`: why training would refuse the row, or "". What cannot be tokenized has 0 tokens. In a chat template
        there are also `before`, the tokens before the first that is learned, and `left out`, those that training would
        leave out at `max_length`.
    """
    frame = table.readable
    texts = [frame[column].fillna("").astype(str) for column in ("prompt", "completion")]
    measured = pd.DataFrame({"id": frame["id"], "characters": texts[0].str.len() + texts[1].str.len()})
    if tokenizer is None:
        return measured
    counts = []
    for row, prompt, completion in zip(frame.to_dict("records"), *texts, strict=True):
        row["output"] = completion
        if isinstance(template, Chat):
            counts.append(_in_chat(row, template, max_length))
        else:
            counts.append(_in_parts(row, prompt, tokenizer, template))
        done(1)
    counted = pd.DataFrame(counts, index=measured.index)
    parts = ["prompt tokens", "completion tokens", "end tokens"]
    measured = measured.join(counted[parts])
    measured["tokens"] = measured[parts].sum(axis=1)
    return measured.join(counted.drop(columns=parts))


def _in_parts(
    row: dict[str, Any], prompt: str, tokenizer: PreTrainedTokenizerBase, template: prompts.Template | None
) -> dict[str, Any]:
    """Count a prompt and its completion, which are tokenized separately; one token ends them."""
    if template is None:
        before = _counted(lambda: prompts.prompt_ids(prompt, tokenizer))
        answer = _counted(lambda: prompts.completion_ids(row["output"], tokenizer))
    else:
        before = _counted(lambda: prompts.question_ids(row, tokenizer, template=template))
        answer = _counted(lambda: prompts.answer_ids(row, tokenizer))
    return {
        "prompt tokens": before[0],
        "completion tokens": answer[0],
        "end tokens": 0 if tokenizer.eos_token_id is None else 1,
        "refused": answer[1] or before[1],
    }


def _in_chat(row: dict[str, Any], template: Chat, max_length: int | None) -> dict[str, Any]:
    """Count a row in a chat template; the token that ends an assistant turn is learned as well."""
    found = dict.fromkeys(("prompt tokens", "completion tokens", "end tokens", "before", "left out"), 0)
    try:
        encoded = template.encode_row(row, sys.maxsize)
        labels = np.array(encoded["labels"])
        learned = np.flatnonzero(labels != prompts.IGNORED)
        ends = sum(turn["role"] == "assistant" for turn in conversations.turns(row))
        found |= {"prompt tokens": len(labels) - len(learned), "completion tokens": len(learned) - ends}
        found |= {"end tokens": ends, "before": int(learned[0])}
        if max_length is not None and len(labels) > max_length:
            found["left out"] = template.encode_row(row, max_length)["cut"]
    except BadInput as problem:
        return {**found, "refused": str(problem)}
    return {**found, "refused": ""}


def _counted(read: Callable[[], list[int]]) -> tuple[int, str]:
    """Return the number of tokens that `read` returns, and why it fails, if it does."""
    try:
        return len(read()), ""
    except BadInput as problem:
        return 0, str(problem)


def unknown(table: Table, tokenizer: PreTrainedTokenizerBase) -> pd.DataFrame:
    """Return the tokens of each row's prompt or completion, whichever has the larger share of unknown tokens.

    `table` and `tokenizer` are as for `measure`.
    """
    if special_tokens.unknown_id(tokenizer) is None:
        return pd.DataFrame()
    shares, counts = [], []
    for column in ("prompt", "completion"):
        texts = table.readable[column].fillna("").astype(str).tolist()
        found = np.stack(lengths.count_tokens(tokenizer, texts, special=False))
        counts.append(found)
        shares.append(found[1] / np.maximum(found[0], 1))
    worse = np.where(shares[0] >= shares[1], counts[0], counts[1])
    return pd.DataFrame({"id": table.readable["id"], "tokens": worse[0], "unknown": worse[1]})


def refused_and_cut(measured: pd.DataFrame, max_length: int | None) -> list[Finding]:
    """Find the rows of `measured` that `prompts.encode` refuses at `max_length`, and those whose prompts it cuts."""
    in_chat = "left out" in measured
    answers = measured["completion tokens"] + measured["end tokens"]
    reasons = measured["refused"].copy()
    if max_length is not None and not in_chat:
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
        evidence = evidence.assign(lost=measured["left out"] if in_chat else evidence["tokens"] - max_length)
        of = "oldest turns" if in_chat else "prompts, from the left"
        what = f"at {max_length} tokens {{count}} lose {evidence['lost'].sum():,} tokens of their {of}"
        found.append(finding("prompt_cut", what, evidence=evidence))
    return found


def end_tokens(table: Table, tokenizer: PreTrainedTokenizerBase, template: prompts.Format | None) -> list[Finding]:
    """Find out whether the token that ends an answer is lacking, or is the padding token too.

    `tokenizer` and `template` are as for `measure`.
    """
    count = len(table.readable)
    ends = prompts.ends(template, tokenizer) if template else [tokenizer.eos_token_id]
    if ends in ([], [None]):
        what = "the tokenizer has no end-of-sequence token, so none of {count} can teach the model to stop"
        return [finding("no_eos", what, count=count)]
    if tokenizer.pad_token_id in (None, *ends):
        end = tokenizer.convert_ids_to_tokens(ends[0])
        what = f"the only padding token of the tokenizer is {end!r}, which ends a sequence: {{count}}"
        return [finding("pad_is_eos", what, count=count)]
    return []


def cut_from_right(measured: pd.DataFrame, max_length: int | None) -> list[Finding]:
    """Find what a cut from the right at `max_length` takes from the rows of `measured`; None cuts nothing."""
    if max_length is None:
        return []
    whole, ends = measured["tokens"], measured["end tokens"].clip(upper=1)
    masked = (measured["before"] if "before" in measured else measured["prompt tokens"]) >= max_length
    cases = (
        (
            "all_masked",
            masked,
            f"a prompt of {max_length} tokens or more in {{count}}: cut from the right, nothing is left to learn",
        ),
        (
            "completion_cut",
            ~masked & (whole - ends > max_length),
            f"a completion that {max_length} tokens cut in {{count}}, from the right",
        ),
        (
            "eos_lost",
            ~masked & (whole > max_length) & (ends > 0),
            f"the end-of-sequence token lost at {max_length} tokens in {{count}}, cut from the right",
        ),
    )
    return [
        finding(finding_id, what, evidence=measured.loc[rows, ["id", "prompt tokens", "tokens"]])
        for finding_id, rows, what in cases
        if rows.any()
    ]


def parts(measured: pd.DataFrame, max_length: int | None) -> pd.DataFrame:
    """Sum the tokens of prompts, completions and ends in `measured`, with their shares.

    With `max_length` also after a cut from the right, except in a chat template, where the parts are not in this order.
    """
    if "tokens" not in measured:
        return pd.DataFrame()
    names = ("prompt", "completion", "end")
    prompt, completion, end = (measured[f"{name} tokens"].to_numpy() for name in names)
    table = pd.DataFrame({"tokens": [prompt.sum(), completion.sum(), end.sum()]}, index=[*names])
    table["share"] = (table["tokens"] / max(table["tokens"].sum(), 1)).round(3)
    table["supervised"] = [False, True, True]
    if max_length is not None and "before" not in measured:
        left = np.minimum(prompt, max_length)
        kept = np.minimum(completion, max_length - left)
        ends = end * (measured["tokens"] <= max_length).to_numpy()
        table["kept"] = [left.sum(), kept.sum(), ends.sum()]
        table["share of kept"] = (table["kept"] / table["kept"].sum()).round(3)
    return table
