"""Pairs that go on with the dialogue of another pair are found, however the history is written."""

import time

import pytest

from ftlab.data.histories import goes_on_with

ASKED, SAID = "Is rain good for wheat in May?", "Yes, a little rain helps it."
NEXT = "And in June?"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (ASKED, f"{ASKED}\n{SAID}\n{NEXT}"),
        (f"Q: {ASKED}", f"Q: {ASKED}\nA: {SAID}\nQ: {NEXT}"),
        (ASKED, f"User: {ASKED}\nAssistant: {SAID}\nUser: {NEXT}"),
        (f"User: {ASKED}\nAssistant:", f"User: {ASKED}\nAssistant: {SAID}\nUser: {NEXT}\nAssistant:"),
        (f"[INST] {ASKED} [/INST]", f"<s>[INST] {ASKED} [/INST] {SAID}</s>[INST] {NEXT} [/INST]"),
        (f"### User\n{ASKED}", f"### User\n{ASKED}\n\n### Assistant\n{SAID}\n\n### User\n{NEXT}"),
        (f"<|user|>{ASKED}", f"<|user|>{ASKED}<|assistant|>{SAID}<|user|>{NEXT}"),
    ],
)
def test_a_prompt_that_begins_with_the_earlier_turns_goes_on_with_them(first, second):
    assert goes_on_with([second, "Another question altogether?", first], ["Too much.", "No.", SAID]).tolist() == [
        2,
        -1,
        -1,
    ]


def test_the_longest_of_the_earlier_turns_is_named():
    first = f"{ASKED} {SAID} {NEXT}"
    assert goes_on_with([ASKED, first, f"{first} No. Why?"], [SAID, "No.", "It rots."]).tolist() == [-1, 0, 1]


def test_a_prompt_that_begins_with_another_prompt_alone_goes_on_with_none():
    assert goes_on_with([ASKED, f"{ASKED} {NEXT}"], [SAID, SAID]).tolist() == [-1, -1]
    assert goes_on_with(["2", "24 is what?"], ["4", "A number."]).tolist() == [-1, -1]
    assert goes_on_with([ASKED, ASKED], ["", SAID]).tolist() == [-1, -1]


@pytest.mark.parametrize("said", ["a", "a: ", "a:\n", "# ", "*", "<|", "[", "\n"])
@pytest.mark.clock
def test_a_hostile_prompt_takes_no_longer_than_it_is_long(said):
    prompts = [said * (number * 30_000 // len(said)) for number in range(1, 11)]
    start = time.process_time()
    goes_on_with(prompts, ["a"] * 10)
    assert time.process_time() - start < 4
