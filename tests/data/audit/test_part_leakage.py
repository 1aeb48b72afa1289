"""Leakage by the prompt alone and by the answer alone, and none by what a template repeats."""

import pandas as pd

from ftlab.data.audit import audit_instructions

from .planted import edited, pairs

PROMPT = (
    "The lighthouse keeper on the northern island writes a letter to his sister every Sunday, and he tells her of "
    "storms, of ships that pass at night, of two goats and of the book about clocks that he is reading since May. "
    "What does he do on Sundays?"
)


def split(prompt: str, completion: str) -> pd.DataFrame:
    row = {"id": "t0", "prompt": prompt, "completion": completion}
    return pd.DataFrame([row, {"id": "t1", "prompt": "Something else?", "completion": "Something else altogether."}])


def rows(first: str, answer: str) -> pd.DataFrame:
    frame = pairs()
    frame.loc[3, ["prompt", "completion"]] = [first, answer]
    return frame


def found(train: pd.DataFrame, test: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    report = audit_instructions(train, test=test)
    return {each.id: each.rows for each in report.findings if "leakage" in each.id}


OTHERS = pairs(40)["completion"][25:35].tolist()  # texts of no row of `pairs()`


def test_nearly_a_prompt_of_training_with_an_answer_of_its_own_is_leakage():
    train = rows(PROMPT, " ".join(OTHERS[:5]))
    assert found(train, split(edited(PROMPT), " ".join(OTHERS[5:]))) == {"prompt_leakage": ("t0",)}


def test_an_answer_of_training_to_another_prompt_is_leakage():
    answer = PROMPT.partition(" What does")[0]
    train = rows(" ".join(OTHERS[:5]), answer)
    for said in (answer, answer.upper(), edited(answer)):
        assert found(train, split(" ".join(OTHERS[5:]), said)) == {"answer_leakage": ("t0",)}


def test_the_same_prompt_is_leakage_and_not_listed_again():
    assert found(rows(PROMPT, "He writes."), split(PROMPT, "A letter is what he is busy with.")) == {"leakage": ("t0",)}


def test_another_question_in_the_same_words_is_none():
    train = rows("What is the largest city of the country of Spain by people?", "Madrid.")
    test = split("What is the largest city of the country of Italy by people?", "Rome.")
    assert "prompt_leakage" not in found(train, test)


def test_a_label_and_an_answer_that_many_rows_have_are_none():
    phrase = "I am sorry to hear that, and I have passed it on to the people of the workshop."
    train = pairs()
    train.loc[range(8), "completion"] = phrase
    assert found(train, split("A question of another kind?", phrase)) == {}
    assert found(rows("Is it a diagnosis?", "diagnosis"), split("And is that one?", "diagnosis")) == {}
