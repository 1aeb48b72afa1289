"""One prompt with two answers: a contradiction if both are short, and a repeated prompt if they are texts."""

import pandas as pd
import pytest

from ftlab.data.audit import audit_instructions

from .planted import changed, conversations, pairs

BOTH = ("contradicting_answers", "duplicate_prompts")


def asked_twice(first: str, second: str) -> pd.DataFrame:
    frame = changed(pairs(), "prompt", {9: pairs()["prompt"][5].upper()})
    return changed(frame, "completion", {5: first, 9: second})


def found(frame: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    report = audit_instructions(frame)
    return {each.id: each.rows for each in report.findings if each.id in BOTH}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("yes", "No."),
        ("positive", "negative"),
        ("5", "-5"),
        ("12.5 %", "13 %"),
        ("In the year 1990", "1991"),
        ("5", "5.5"),
        ("1 2", "12"),
        ("seven", "8"),
        ("是", "否"),
    ],
)
def test_two_short_answers_to_one_prompt_contradict_each_other(first, second):
    assert found(asked_twice(first, second)) == {"contradicting_answers": ("r9",)}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("A film about a goat that finds its way home.", "It is the tale of a goat and of its long way home."),
        ("yes", "Yes, because the lighthouse keeper comes back in the end."),
        ("Yes", "yes."),
        ("Paris", '"Paris"'),
        ("Yes", "Yes, it is"),
        ("1,000", "1000"),
        ("5 mg", "5mg"),
        ("8", "Eight"),
    ],
)
def test_longer_answers_and_one_answer_in_two_spellings_are_repeated_prompts(first, second):
    assert found(asked_twice(first, second)) == {"duplicate_prompts": ("r9",)}


def test_the_evidence_names_the_earlier_row_and_both_answers():
    report = audit_instructions(asked_twice("yes", "no"))
    assert report["contradicting_answers"].evidence.to_dict("records") == [
        {"id": "r9", "same_prompt_as": "r5", "answer": "no", "earlier_answer": "yes"}
    ]
    assert "'no' after 'yes' in r5" in report["contradicting_answers"].what


def test_each_row_is_in_one_of_the_two_and_names_the_row_that_it_contradicts():
    prompt = pairs()["prompt"][5]
    frame = changed(pairs(), "prompt", dict.fromkeys((6, 7, 8), prompt))
    frame = changed(frame, "completion", {6: "yes", 7: "no", 8: "Another text about the same film, and a long one."})
    report = audit_instructions(frame)
    assert found(frame) == {"contradicting_answers": ("r7",), "duplicate_prompts": ("r6", "r8")}
    assert report["contradicting_answers"].evidence["same_prompt_as"].tolist() == ["r6"]


def test_an_empty_answer_contradicts_nothing():
    assert "contradicting_answers" not in found(asked_twice("yes", ""))


def test_an_address_in_an_answer_is_not_passed_on():
    evidence = audit_instructions(asked_twice("jo.doe@example.com", "A.B@x-y.co.uk"))["contradicting_answers"].evidence
    assert not evidence["answer"].str.contains("x-y").any()


def test_another_system_text_may_ask_for_another_answer():
    frame = conversations()
    for row, system, answer in ((5, "Answer in English.", "yes"), (9, "Answer in German.", "ja")):
        said = [{"role": "system", "content": system}, frame["messages"][5][0]]
        frame.at[row, "messages"] = [*said, {"role": "assistant", "content": answer}]
        frame = changed(changed(frame, "prompt", {row: frame["prompt"][5]}), "completion", {row: answer})
    assert found(frame) == {}
