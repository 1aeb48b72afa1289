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


def near(prompt: str, other: str, answers: tuple[str, str] = ("yes", "no")) -> tuple[str, ...]:
    frame = changed(pairs(), "prompt", {2: f"{other} How?", 3: f"{other} Why not?", 5: prompt, 9: other})
    report = audit_instructions(changed(frame, "completion", dict(zip((5, 9), answers, strict=True))))
    return report["contradicting_near_prompts"].rows if "contradicting_near_prompts" in report else ()


@pytest.mark.parametrize(
    ("prompt", "other"),
    [
        ("Is the Moon made of cheese?", "Please tell me: is the moon made of cheese"),
        ("Is the Moon made of cheese?", "Could you tell me, is Moon made of cheese?"),
        ("Is the M\u043e\u043en made of ch\u0435ese?", "Is the Moon made of cheese?"),
        ("Is the Moon ma\u200bde of cheese?", "Is the Moon made of cheese?"),
        ("Isn't the Moon made of cheese?", "Is not the Moon made of cheese?"),
        ("Is the Moon made of chese?", "Is the Moon made of cheese?"),
        ("Is the Moon made of cheees?", "Is the Moon made of cheese?"),
    ],
)
def test_prompts_that_ask_the_same_in_other_words_contradict_each_other(prompt, other):
    assert near(prompt, other) == ("r9",)
    assert near(prompt, other, ("yes", "Yes.")) == ()


@pytest.mark.parametrize(
    ("prompt", "other"),
    [
        ("Is the number 7 a prime number?", "Is the number 8 a prime number?"),
        ("Is the capital of France large?", "Is the capital of Spain large?"),
        ("Is it 5 - 3 or less in the end?", "Is it 5 + 3 or less in the end?"),
        ("Is the Moon made of cheese?", "Is the Moon not made of cheese?"),
        ("Is patient A well enough to go?", "Is patient B well enough to go?"),
        ("Is f of x a name of the file?", "Is f() of x a name of the file?"),
        ("Is C++ a language of computers?", "Is C# a language of computers?"),
        ("Did Batman drive the black car home?", "Did Bateman drive the black car home? "),
        ("Ist das schon ein gro\u00dfes Haus?", "Ist das sch\u00f6n ein gro\u00dfes Haus?"),
        (
            "\u6708\u4eae\u662f\u7528\u5976\u916a\u505a\u7684\u5417\uff1f",
            "\u592a\u9633\u662f\u7528\u5976\u916a\u505a\u7684\u5417\uff1f",
        ),
    ],
)
def test_prompts_that_ask_for_something_else_do_not(prompt, other):
    assert near(prompt, other) == ()


def test_the_evidence_of_a_near_prompt_says_in_what_it_differs():
    frame = changed(
        pairs(),
        "prompt",
        {
            2: "Why cheese?",
            3: "How old is the cheese?",
            5: "Is the Moon made of chese?",
            9: "Is the Moon made of cheese?",
        },
    )
    report = audit_instructions(changed(frame, "completion", {5: "yes", 9: "no"}))
    assert report["contradicting_near_prompts"].evidence.to_dict("records") == [
        {
            "id": "r9",
            "same_prompt_as": "r5",
            "answer": "no",
            "earlier_answer": "yes",
            "differs_in": "'chese' for 'cheese'",
        }
    ]
    assert found(changed(frame, "completion", {5: "yes", 9: "no"})) == {}
