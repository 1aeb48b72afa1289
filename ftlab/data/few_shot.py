"""Few-shot prompts: worked examples before a question, from which a model learns the task without training.

With the Alpaca headings, or another `Template`, an example is what training reads of its row: prompt, answer and EOS. A
blank line follows it. EOS shows the model where to stop. What the tokenizer puts before a text (BOS) stands once, at
the beginning. In a chat template the examples are earlier turns of the conversation. Source: Brown et al., Language
Models are Few-Shot Learners, 2020, arXiv:2005.14165.
"""

from __future__ import annotations

import string
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ftlab.data import conversations, fields, prompts, special_tokens
from ftlab.data.chat import Chat
from ftlab.data.prompts import ALPACA, Template
from ftlab.errors import BadInput

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from ftlab.data.prompts import Format

Row = Mapping[str, Any]

BETWEEN = "\n\n"  # after an example


def draw(train: Dataset, k: int, seed: int = 0) -> list[dict[str, Any]]:
    """Draw `k` worked examples at random: one of each kind first, then a second one of each kind, and so on.

    A smaller draw with the same seed is the beginning of a larger one.

    >>> from datasets import Dataset
    >>> rows = Dataset.from_dict({"kind": ["a", "a", "a", "b"]})
    >>> sorted(row["kind"] for row in draw(rows, 2))
    ['a', 'b']

    Args:
        train: the training rows, with a column kind. Test rows would give their answers away.
        k: how many examples; 0 for none.
        seed: of the draw.

    Raises:
        BadInput: `k` is below 0, or there are fewer rows.
    """
    if not 0 <= k <= len(train):
        raise BadInput(
            f"{k} examples were asked for, and there are {len(train):,} training rows to draw them from; expected 0 to "
            f"{len(train):,}"
        )
    order = np.random.default_rng(seed).permutation(len(train)).tolist()
    kinds, seen, rounds = list(train["kind"]), Counter[str](), []
    for place in order:
        rounds.append(seen[kinds[place]])
        seen[kinds[place]] += 1
    by_round = [order[position] for position in np.argsort(rounds, kind="stable")]
    return [train[place] for place in by_round[:k]]


def question_ids(
    row: Row, examples: Sequence[Row], tokenizer: PreTrainedTokenizerBase, template: Format = ALPACA
) -> list[int]:
    """Return the ids of `examples` and of the prompt of `row`, from which generation starts.

    Without examples they are those of `prompts.question_ids`. A conversation has one system turn at most: that of the
    question. System turns of examples are left out.

    Args:
        row: the question; its output is not read.
        examples: rows with their outputs.
        tokenizer: of the model.
        template: of the question and of each example.

    Raises:
        BadInput: a row has no instruction, an example has no output, or `template` refuses a row.
    """
    return _question_ids(row, examples, _shown(examples, tokenizer, template), tokenizer, template)


def all_question_ids(
    rows: Iterable[Row],
    examples: Sequence[Row],
    tokenizer: PreTrainedTokenizerBase,
    *,
    positions: int | None,
    max_new_tokens: int,
    template: Format = ALPACA,
) -> list[list[int]]:
    """Return the `question_ids` of each row, after a check that the longest one and its answer fit the model.

    Args:
        rows: the questions.
        examples: rows with their outputs.
        tokenizer: of the model.
        positions: of the model (`positions.most_tokens`); None for no limit.
        max_new_tokens: the longest answer.
        template: of the questions and of the examples.

    Raises:
        BadInput: as `question_ids`, or the examples do not fit; the message says how many do.
    """
    rows = list(rows)
    shown = _shown(examples, tokenizer, template)
    found = [_question_ids(row, examples, shown, tokenizer, template) for row in rows]
    if examples and found and positions is not None:
        longest = max(range(len(found)), key=lambda place: len(found[place]))
        if len(found[longest]) + max_new_tokens > positions:
            _refuse(rows[longest], examples, tokenizer, template, positions, max_new_tokens)
    return found


def _question_ids(
    row: Row, examples: Sequence[Row], shown: Sequence[int], tokenizer: PreTrainedTokenizerBase, template: Format
) -> list[int]:
    if isinstance(template, Chat) and examples:
        return template.turn_ids(_conversation(row, examples, template), where=f"the prompt of {fields.named(row)}")
    question = prompts.question_ids(row, tokenizer, template=template)
    begin = len(special_tokens.around(tokenizer)[0]) if shown else 0
    return [*question[:begin], *shown, *question[begin:]]


def _shown(examples: Sequence[Row], tokenizer: PreTrainedTokenizerBase, template: Format) -> list[int]:
    """The ids of the examples of a `Template`, which are the same for each question, without BOS."""
    if not isinstance(template, Template) or not examples:
        return []
    begin = len(special_tokens.around(tokenizer)[0])
    between = _between(tokenizer, template)
    shown: list[int] = []
    for example in examples:
        before, answer = prompts.pieces(example, tokenizer, template=template)
        shown += [*before[begin:], *answer, *between]
    return shown


def _between(tokenizer: PreTrainedTokenizerBase, template: Template) -> list[int]:
    """The ids of BETWEEN as they are before a prompt: two line breaks may be one token alone and two before a word."""
    text = next(literal for literal, *_ in string.Formatter().parse(template.without_input))
    alone, before, after = (
        tokenizer(one, add_special_tokens=False)["input_ids"] for one in (BETWEEN, BETWEEN + text, text)
    )
    return list(before[: len(before) - len(after)]) if after and before[-len(after) :] == after else list(alone)


def _conversation(row: Row, examples: Sequence[Row], chat: Chat) -> list[conversations.Turn]:
    shown = [turn for example in examples for turn in chat.turns(example) if turn["role"] != "system"]
    asked = chat.question(row)
    told = [turn for turn in asked if turn["role"] == "system"]
    return [*told, *shown, *asked[len(told) :]]


def _refuse(
    row: Row,
    examples: Sequence[Row],
    tokenizer: PreTrainedTokenizerBase,
    template: Format,
    positions: int,
    max_new_tokens: int,
) -> None:
    """Raise BadInput with the number of examples that fit before the longest question, if any does."""

    def length(k: int) -> int:
        return len(question_ids(row, examples[:k], tokenizer, template)) + max_new_tokens

    fit = bisect_right(range(len(examples) + 1), positions, key=length) - 1
    if fit < 0:
        return  # not for the examples: the question itself is too long, which generation refuses
    shown = f"{len(examples)} example{'s' if len(examples) > 1 else ''}"
    advice = f"at most {fit} fit: set examples to {fit}" if fit else "none fits: shorten the rows"
    raise BadInput(
        f"{shown} and the longest question ({fields.named(row)}) take {length(len(examples)):,} tokens with "
        f"{max_new_tokens:,} new ones, and the model has positions for {positions:,}; {advice}"
    )
