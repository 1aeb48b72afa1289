"""Dialogues that are written as pairs with a growing history: each prompt begins with the earlier prompts and answers.

Such rows are alike, and one is a part of the next, but none is a copy: each teaches another answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

FEWEST_LETTERS = 20  # of a prompt with its answer: a shorter one begins other prompts by chance
_SPECIAL = re.compile(
    r"<\|[^|<>\n]{1,40}\|>(?:(?:user|assistant|system)\b)?|</?s>|\[/?INST\]|<(?:start|end)_of_turn>(?:user|model)?"
)
_ROLE = re.compile(r"^(?:[ \t#*]*[^\W\d_]\w{0,15}(?: \d+)?\**[ \t]*[:\uff1a]\**){1,3}", re.MULTILINE)  # "User:"
_HEADING = re.compile(r"^#{2,4} ?\w+[ \t]*$", re.MULTILINE)
_LETTERS = re.compile(r"[\W_]+")


def goes_on_with(prompts: Sequence[str], answers: Sequence[str]) -> np.ndarray:
    """Return for each of `prompts` the row with whose prompt and answer (of `answers`) it begins; -1 if there is none.

    Of several the longest, of equal ones the first. Case, punctuation, white space and the names of the speakers do not
    count. Linear in the texts, but for sorting them.

    >>> goes_on_with(["Is rain good for wheat?", "Is rain good for wheat? Yes. Why?"], ["Yes.", "It grows."])
    array([-1,  0])
    """
    said, answered = [_said(prompt) for prompt in prompts], [_said(answer) for answer in answers]
    wholes = [
        (prompt + answer, 0, row)
        for row, (prompt, answer) in enumerate(zip(said, answered, strict=True))
        if prompt and answer and len(prompt + answer) >= FEWEST_LETTERS
    ]
    found = np.full(len(said), -1, dtype=np.int64)
    beginnings: list[tuple[str, int]] = []  # each begins with the one before it
    # In this order, all texts that begin with a text follow it, without others in between.
    for text, is_prompt, row in sorted([*wholes, *((prompt, 1, row) for row, prompt in enumerate(said) if prompt)]):
        while beginnings and not text.startswith(beginnings[-1][0]):
            beginnings.pop()
        if is_prompt:
            found[row] = beginnings[-1][1] if beginnings else -1
        elif not beginnings or beginnings[-1][0] != text:
            beginnings.append((text, row))
    return found


def _said(text: str) -> str:
    """The letters and digits of what is said, without the names of the speakers and special tokens."""
    if ":" in text or "\uff1a" in text:
        text = _ROLE.sub("\n", text)
    if "<" in text or "[" in text:
        text = _SPECIAL.sub("\n", text)
    if "##" in text:
        text = _HEADING.sub("\n", text)
    return _LETTERS.sub("", text).casefold()
