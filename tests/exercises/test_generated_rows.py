"""Rows of level 3 that a model wrote: a refusal or a cut output is a doubt, and no reason to refuse the hand-in."""

from types import SimpleNamespace

import pandas as pd
import pytest

from ftlab.exercises import instruction_checks
from ftlab.exercises.outcomes import Status


def handed_in(**outputs: str) -> SimpleNamespace:
    said = {f"mine-{number}": f"The {number} loaves take an hour in the oven." for number in range(50)} | outputs
    rows = pd.DataFrame({"id": [*said], "instruction": "How long do they take?", "output": [*said.values()]})
    return SimpleNamespace(instructions=lambda name: rows)


def test_rows_with_whole_answers_pass():
    assert instruction_checks.filled(handed_in()).status == Status.PASS


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("I'm sorry, but I can't help with that.", "1 refuse or speak of themselves as a model: odd"),
        ("They take an hour, and after that the", "1 seem to end in the middle: odd"),
    ],
)
def test_a_refusal_or_a_cut_output_is_a_doubt_that_names_the_row(output, said):
    answer = instruction_checks.filled(handed_in(odd=output))
    assert answer.status == Status.WARN
    assert said in answer.found


def test_an_output_that_lacks_is_still_a_fix():
    assert instruction_checks.filled(handed_in(odd=" ")).status == Status.FIX
