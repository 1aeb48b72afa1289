"""The rating form of level 3: it waits for the answers, and no rating that a person gave is lost."""

import json

import pandas as pd
import pytest

from ftlab.errors import BadInput
from ftlab.exercises import manifest
from ftlab.exercises.exercise import Exercise
from ftlab.progress import HEADLESS

PROMPTS = [{"id": f"p{number}", "instruction": "Say it shorter.", "input": f"case {number}"} for number in range(10)]
TEXTS = [prompt["input"] for prompt in PROMPTS]


@pytest.fixture(autouse=True)
def nobody_watches(monkeypatch):
    monkeypatch.setenv(HEADLESS, "1")


def begin(folder, tuned="short"):
    """A try in which both models have answered."""
    level = Exercise(manifest.level("level3"), folder, {"profile": "smoke", "seed": 0, "model": "tiny-llama"})
    level.record.instructions([{"instruction": "Say it shorter.", "input": "a", "output": "b"}], PROMPTS)
    for name in ("base", "tuned"):
        answers = [f"{name} {number}" for number in range(9)] + ["long" if name == "base" else tuned]
        level.record.answers(name, TEXTS, answers, do_sample=False, max_new_tokens=8)
    return level


def press(rater, *values):
    *buttons, _ = rater.widget().children[-1].children
    for value in values:
        buttons[value - 1].click()


def test_before_the_answers_the_form_is_not_started_and_so_is_its_record(tmp_path, capsys):
    level = Exercise(manifest.level("level3"), tmp_path, {"profile": "smoke", "seed": 0, "model": "tiny-llama"})
    assert level.rate() is ...
    assert capsys.readouterr().out == "NOT STARTED: the rating waits for prompts.jsonl\n"
    level.record.ratings(...)
    assert capsys.readouterr().out.startswith("NOT STARTED: ")


def test_answers_that_are_no_texts_are_refused_in_one_sentence(tmp_path):
    level = begin(tmp_path)
    said = json.loads((tmp_path / "answers_base.json").read_text(encoding="utf-8"))
    said["answers"][3] = [1, 2]
    (tmp_path / "answers_base.json").write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(BadInput, match="expected a list of texts"):
        level.rate()


def test_each_press_is_in_the_work_folder_and_is_there_again(tmp_path):
    level = begin(tmp_path)
    press(level.rate(), 4, 2, 5)
    assert pd.read_csv(tmp_path / "ratings.csv")["rating"].tolist()[:3] == [4, 2, 5]
    assert level.rate().ratings[:4] == [4, 2, 5, None]


def test_a_new_try_takes_over_the_ratings_of_an_earlier_one_for_the_same_answers(tmp_path):
    first = begin(tmp_path).rate()
    press(first, *[1 + place % 5 for place in range(len(first.ratings))])
    again = begin(tmp_path).rate()
    assert (tmp_path / "earlier" / "1" / "ratings.csv").is_file()
    assert again.ratings == first.ratings
    other = begin(tmp_path, tuned="something else").rate()
    for item, old, new in zip(other.sheet.items, first.ratings, other.ratings, strict=True):
        assert new == (None if item.answer == "something else" else old)
    assert other.missing


def test_a_form_that_is_named_is_read_instead(tmp_path):
    level = begin(tmp_path / "work")
    rater = level.rate()
    rater.sheet.write_form(tmp_path / "mine.csv", [1 + place % 5 for place in range(len(rater.ratings))])
    assert level.rate(str(tmp_path / "mine.csv")).ratings[:6] == [1, 2, 3, 4, 5, 1]
