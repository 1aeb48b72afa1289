"""Texts and rows that are nasty and yet happen: what people paste, what programs export, what an attacker types."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from ftlab.data.special_tokens import WELL_KNOWN

HEADINGS = ("### Instruction:\n", "\n\n### Input:\n", "\n\n### Response:\n", "###", "### Response:")
# Each is a trap for some reader, tokenizer or renderer.
TRAPS = (
    *WELL_KNOWN, *HEADINGS, "{instruction}", "{0}", "{{ messages }}", "{% raw %}", "%s", "\\n", "\\", '"', '""', "'",
    "`", "<b>", "</td>", "<script>alert(1)</script>", "&lt;", "&amp;", "<!--", "](javascript:alert(1))", "$x^2$",
    "\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1e9\U0001f1ea", "e\u0301", "\u0301", "\u00df",
    "\u0130", "\ufb01", "\u202e", "\u05e9\u05dc\u05d5\u05dd", "\u0645\u0631\u062d\u0628\u0627", "\u200b", "\ufeff",
    "\u00a0", "\u2028", "\u0085", "\x1c", "\x7f", "\ufffd", "\r\n", "\n", "\r", "\t", "  ", ",", ";", "|", "=1+1", "-5",
    "007", "1e5", "nan", "NaN", "None", "null", "true", "No", "N/A", "\U000e0041", "\u4f60\u597d", "\u0e2a", "\u1342",
)  # fmt: skip
WORDS = (
    "the",
    "a",
    "film",
    "was",
    "is",
    "not",
    "very",
    "good",
    "bad",
    "parcel",
    "lamp",
    "refund",
    "late",
    "arrived",
    "broken",
    "7",
    "2024",
    "don't",
    "state-of",
)

_characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
_pieces = st.one_of(st.sampled_from(WORDS), st.sampled_from(TRAPS), st.text(_characters, min_size=1, max_size=4))
# A person's words with traps among them, and now and then a very long text.
texts = st.one_of(
    st.lists(_pieces, max_size=8).map(" ".join), st.lists(_pieces, max_size=8).map("".join),
    st.builds(lambda piece, times: piece * times, _pieces, st.sampled_from([50, 400])),
)  # fmt: skip
said = texts.filter(lambda text: bool(text.strip()))  # a text that is not blank
plain = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join)
halves = st.sampled_from(["\ud83d", "\udc00", "lone \ud800 half"])  # of a surrogate pair: no UTF-8 text has one
missing = st.sampled_from([None, float("nan")])
numbers = st.one_of(st.integers(), st.floats(allow_nan=True), st.booleans())
anything = st.one_of(texts, halves, missing, numbers, st.just("\0"), st.lists(texts, max_size=2), st.binary(max_size=3))

# A table says first whether it may have odd cells: one odd cell refuses all of it.
odd = st.sampled_from([False, False, False, False, False, True])


@st.composite
def mostly(draw: st.DrawFn, good: st.SearchStrategy[Any], other: st.SearchStrategy[Any]) -> Any:
    """Draw a `good` one, and now and then the `other`; `st.one_of` would give each alternative in `other` a turn."""
    return draw(other if draw(odd) else good)


rows = st.fixed_dictionaries({"instruction": said, "input": texts, "output": said})


@st.composite
def conversations(draw: st.DrawFn, *, system: bool = True, of: st.SearchStrategy[str] = said) -> list[dict[str, str]]:
    """Return turns that end with the assistant's, with a system turn or without."""
    turns = [{"role": "system", "content": draw(of)}] if system and draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        turns += [{"role": "user", "content": draw(of)}, {"role": "assistant", "content": draw(of)}]
    return turns


@st.composite
def tables(draw: st.DrawFn, cells: st.SearchStrategy[Any], *, most: int = 6) -> tuple[list[str], list[list[Any]]]:
    """Return the names of one to four columns, which differ, and rows of as many cells."""
    names = draw(
        st.lists(st.sampled_from(["text", "label", "a b", "\u00fc", "id", "it's"]), min_size=1, max_size=4, unique=True)
    )
    return names, draw(st.lists(st.lists(cells, min_size=len(names), max_size=len(names)), min_size=1, max_size=most))
