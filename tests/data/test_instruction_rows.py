"""The course's own pairs and texts for language models: their cards are true, and their code runs."""

import contextlib
import io
import itertools
import json
import re
from collections import Counter

import pytest

from ftlab.data import sources

KINDS = ("explain", "write", "read")
CARDS = ("tutor", "summaries", "general", "replay")
WORD = re.compile(r"[\w']+")


def pairs(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (sources.ROWS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def passages(name: str) -> list[str]:
    return (sources.ROWS / f"{name}.txt").read_text(encoding="utf-8").strip().split("\n\n")


def texts_of(name: str) -> list[str]:
    """The texts of one of the course's data sets; of a pair of texts, both."""
    if (sources.ROWS / f"{name}.txt").exists():
        return passages(name)
    if (sources.ROWS / f"{name}.jsonl").exists():
        return [text for row in pairs(name) for text in row.values()]
    return sources.read(name)["text"].tolist()


def runs_of(text: str, length: int) -> set[tuple[str, ...]]:
    words = WORD.findall(text.lower())
    return set(zip(*(words[start:] for start in range(length)), strict=False))


def card(name: str) -> str:
    return " ".join((sources.ROWS / f"{name}.md").read_text(encoding="utf-8").split())


def distinct_trigrams(texts: list[str]) -> float:
    trigrams = Counter()
    for text in texts:
        words = WORD.findall(text.lower())
        trigrams.update(zip(words, words[1:], words[2:], strict=False))
    return len(trigrams) / trigrams.total()


TUTOR, SUMMARIES = pairs("tutor"), pairs("summaries")
PASSAGES = passages("general")
REPLAY = passages("replay")


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


def test_the_replay_text_is_clean_prose_that_no_task_resembles():
    assert len(REPLAY) == 120
    for passage in REPLAY:
        assert passage.isascii()
        assert passage.isprintable()
        assert passage == " ".join(passage.split())
        assert 60 <= len(passage.split()) <= 110
        assert passage.endswith((".", '."'))
        assert passage.count('"') % 2 == 0
        assert not re.search(r"###|```|^[-*#]| -|- |--|Instruction:|Response:", passage)


@pytest.mark.parametrize(
    "name", ["general", "tickets", "domains", "mini_reviews", "summaries", "clinical_notes", "tutor"]
)
def test_no_run_of_six_words_stands_in_the_replay_text_and_in_another_set_of_the_course(name):
    others = set().union(*(runs_of(text, 6) for text in texts_of(name)))
    assert len(others) > 1000
    assert [run for passage in REPLAY for run in runs_of(passage, 6) if run in others] == []


def test_no_two_passages_of_the_replay_text_say_the_same():
    openings = Counter(tuple(WORD.findall(passage.lower())[:3]) for passage in REPLAY)
    assert openings.most_common(1)[0][1] == 1
    runs = Counter(run for passage in REPLAY for run in runs_of(passage, 6))
    assert runs.most_common(1)[0][1] == 1
    bigrams = [runs_of(passage, 2) for passage in REPLAY + PASSAGES]
    assert max(len(a & b) / len(a | b) for a, b in itertools.combinations(bigrams, 2)) < 0.1


def test_the_card_of_the_replay_text_counts_what_the_file_holds():
    text = (sources.ROWS / "replay.txt").read_text(encoding="utf-8")
    lengths = [len(passage.split()) for passage in REPLAY]
    first_person = [passage for passage in REPLAY if re.search(r"\b(I|my|we|our)\b", passage)]
    said = card("replay")
    assert said.startswith(f"# replay: {len(REPLAY)} passages ")
    assert said.count(f"{sum(lengths):,} words") == 2
    assert f"({len(text):,} characters)" in said
    assert f"from {min(lengths)} to {max(lengths)} words, {sum(lengths) / len(lengths):.0f} on average" in said
    assert f"{100 * distinct_trigrams(REPLAY):.0f} in 100 word trigrams" in said
    assert f"{len(first_person)} passages are told in the first person" in said
    by_kind = said.split("By kind, roughly:")[1].split(" passages are told")[0]
    assert sum(map(int, re.findall(r"\d+(?= (?:explain|describe|tell|are|give)\b)", by_kind))) == len(REPLAY)


@pytest.mark.parametrize(
    "texts",
    [
        pytest.param([row["instruction"] for row in TUTOR], id="tutor"),
        pytest.param([row["text"] for row in SUMMARIES], id="summaries"),
        pytest.param(PASSAGES, id="general"),
        pytest.param(REPLAY, id="replay"),
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
