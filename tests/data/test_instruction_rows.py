"""The course's own pairs and texts for language models: their cards are true, and their code runs."""

import contextlib
import io
import json
import re
from collections import Counter

import pytest

from ftlab.data import sources

KINDS = ("explain", "write", "read")
CARDS = ("tutor", "summaries", "general")
WORD = re.compile(r"[\w']+")


def pairs(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (sources.ROWS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def card(name: str) -> str:
    return " ".join((sources.ROWS / f"{name}.md").read_text(encoding="utf-8").split())


def distinct_trigrams(texts: list[str]) -> float:
    trigrams = Counter()
    for text in texts:
        words = WORD.findall(text.lower())
        trigrams.update(zip(words, words[1:], words[2:], strict=False))
    return len(trigrams) / trigrams.total()


TUTOR, SUMMARIES = pairs("tutor"), pairs("summaries")
PASSAGES = (sources.ROWS / "general.txt").read_text(encoding="utf-8").strip().split("\n\n")


def of_kind(kind: str) -> list:
    return [pytest.param(row, id=row["instruction"][:50]) for row in TUTOR if row["kind"] == kind]


def test_the_tutor_has_enough_pairs_of_each_kind_and_no_empty_one():
    assert len(TUTOR) >= 150
    assert min(Counter(row["kind"] for row in TUTOR).values()) >= 50
    for row in TUTOR:
        assert list(row) == ["kind", "instruction", "input", "output", "test"]
        assert row["kind"] in KINDS
        assert row["instruction"].strip()
        assert row["output"].strip()
        assert bool(row["input"]) == (row["kind"] == "read")
        assert bool(row["test"]) == (row["kind"] == "write")


@pytest.mark.parametrize("row", of_kind("write"))
def test_a_function_that_the_tutor_writes_passes_its_test(row):
    space = {"__name__": "answer"}
    exec(row["output"], space)
    exec(row["test"], space)


@pytest.mark.parametrize("row", of_kind("write"))
def test_the_test_of_a_function_asks_something_of_it(row):
    asked = re.search(r"def (\w+)", row["output"])[1]
    assert asked in row["test"]
    assert asked in row["instruction"]
    with pytest.raises((AssertionError, TypeError, AttributeError, ValueError, KeyError, IndexError, StopIteration)):
        exec(row["test"], {asked: lambda *arguments, **options: None, "__name__": "answer"})


@pytest.mark.parametrize("row", of_kind("read"))
def test_what_the_tutor_says_that_code_prints_is_what_it_prints(row):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(row["input"], {"__name__": "snippet"})
    assert printed.getvalue().strip()
    assert printed.getvalue().strip() in row["output"]


def test_a_summary_is_one_sentence_shorter_than_its_text_and_adds_no_number():
    assert len(SUMMARIES) >= 60
    for row in SUMMARIES:
        assert list(row) == ["text", "summary"]
        assert len(row["summary"].split()) < len(row["text"].split()) / 1.5
        assert row["summary"].endswith(".")
        assert not re.search(r"[.!?] [A-Z]", re.sub(r"\b(Dr|Mr|Mrs|St)\. ", "", row["summary"]))
        assert set(re.findall(r"\d+", row["summary"])) <= set(re.findall(r"\d+", row["text"]))


def test_the_general_text_is_prose_that_no_task_resembles():
    assert len(" ".join(PASSAGES).split()) >= 5000
    for passage in PASSAGES:
        assert len(passage.splitlines()) == 1
        assert 80 <= len(passage.split()) <= 130
        assert not re.search(r"###|```|^[-*#]|Instruction:|Response:", passage)


@pytest.mark.parametrize(
    "texts",
    [
        pytest.param([row["instruction"] for row in TUTOR], id="tutor"),
        pytest.param([row["text"] for row in SUMMARIES], id="summaries"),
        pytest.param(PASSAGES, id="general"),
    ],
)
def test_each_text_was_written_for_itself(texts):
    assert distinct_trigrams(texts) > 0.9
    openings = Counter(" ".join(WORD.findall(text.lower())[:3]) for text in texts)
    assert openings.most_common(1)[0][1] <= 0.03 * len(texts)
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("name", CARDS)
def test_each_card_says_what_for_who_wrote_it_its_limits_and_its_licence(name):
    text = card(name)
    for said in (
        "**What it is for.**",
        "**Who wrote it.**",
        "language model",
        "**Known limits.**",
        "**Licence.** Apache-2.0",
    ):
        assert said in text


def test_the_cards_count_what_the_files_hold():
    assert str(len(TUTOR)) in card("tutor").split(":")[1]
    assert str(len(SUMMARIES)) in card("summaries").split(":")[1]
    assert str(len(PASSAGES)) in card("general")
