"""Answers that fit another row: a column that slipped, and single rows where prompts and answers fit each other."""

import numpy as np
import pandas as pd
import pytest

from ftlab.data import tasks
from ftlab.data.audit import audit_instructions
from ftlab.data.audit.mismatched_answers import mismatched

from .planted import conversations


def summaries() -> tuple[list[str], list[str]]:
    rows = tasks.read("summaries")
    return rows["input"].tolist(), rows["output"].tolist()


def test_rows_that_fit_are_left_alone():
    judged = mismatched(*summaries())
    assert len(judged.rows) == 0
    assert judged.not_judged == ""


@pytest.mark.parametrize("by", [1, 2, -1])
def test_a_column_that_slipped_is_found_whole_with_the_rows_that_it_fits(by):
    asked, said = summaries()
    judged = mismatched(asked, np.roll(said, by).tolist())
    assert judged.slip is not None
    assert judged.slip[2] == by
    assert len(judged.rows) >= 0.95 * len(asked)
    assert judged.fits[10] == (judged.rows[10] - by) % len(asked)


def test_a_slip_within_the_file_is_found_from_its_first_row_to_its_last():
    rows = tasks.read("tutor")
    said = rows["output"].tolist()
    judged = mismatched(rows["instruction"].tolist(), [*said[:800], *np.roll(said[800:1900], 1), *said[1900:]])
    assert judged.slip is not None
    first, last, by = judged.slip
    assert (abs(first - 800) <= 5, abs(last - 1899) <= 5, by) == (True, True, 1)


def test_answers_that_changed_places_are_found_and_no_others():
    asked, said = summaries()
    swapped = [5, 20, 40, 60, 80]
    for place, text in zip(swapped, np.roll([said[place] for place in swapped], 1), strict=True):
        said[place] = text
    judged = mismatched(asked, said)
    assert set(judged.rows) <= set(swapped)
    assert len(judged.rows) >= 4
    assert all(judged.fits[place] in swapped for place in range(len(judged.rows)))


def test_where_prompts_and_answers_share_no_words_single_rows_are_not_judged():
    asked = [f"note {row} of the ward" for row in range(60)]
    judged = mismatched(asked, ["diagnosis", "treatment", "symptom"] * 20)
    assert len(judged.rows) == 0
    assert "share too few words" in judged.not_judged


def test_prompts_that_repeat_the_dialogue_so_far_have_not_slipped():
    _, said = summaries()
    asked = ["\n".join(said[max(0, row - 3) : row]) + f"\nQuestion {row}?" for row in range(len(said))]
    assert len(mismatched(asked, said).rows) == 0


def test_the_finding_names_the_rows_and_the_slip():
    asked, said = summaries()
    frame = pd.DataFrame({"id": [f"r{row}" for row in range(96)], "prompt": asked, "completion": np.roll(said, 1)})
    found = audit_instructions(frame)["mismatched_answers"]
    assert found.severity == "error"
    assert "the answers belong to prompts one row earlier" in found.what
    assert found.evidence.iloc[5].to_dict() == {"id": found.rows[5], "fits": f"r{int(found.rows[5][1:]) - 1}"}
    assert any("share too few words" in said for said in audit_instructions(frame.assign(completion="yes")).skipped)


def test_turns_of_conversations_are_not_compared():
    assert "mismatched_answers" not in audit_instructions(conversations(20))
