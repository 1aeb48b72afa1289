"""What is tried by day and what at night."""

import itertools
import re

import pytest

from tests import nightly

LISTS = (["a", "b", "c"], [{}, {"x": 1}], [1, 2, 3, 4], [True, False])


def test_by_day_each_two_values_of_two_lists_meet_in_few_rows(monkeypatch):
    monkeypatch.setattr(nightly, "NIGHTLY", False)
    rows = nightly.combinations(*LISTS)
    for one, other in itertools.combinations(range(len(LISTS)), 2):
        for pair in itertools.product(LISTS[one], LISTS[other]):
            assert any((row[one], row[other]) == pair for row in rows), pair
    assert len(rows) < 20


def test_at_night_every_combination_is_tried(monkeypatch):
    monkeypatch.setattr(nightly, "NIGHTLY", True)
    assert nightly.combinations(*LISTS) == list(itertools.product(*LISTS))


def test_by_day_the_values_that_are_named_are_tried_and_the_others_marked():
    tried = nightly.few_by_day(["a", "b", "c"], "c", "a")
    assert [(one.values, [mark.name for mark in one.marks]) for one in tried] == [
        (("a",), []), (("b",), ["night"]), (("c",), [])
    ]  # fmt: skip
    assert [one.values for one in nightly.few_by_day(itertools.product("ab", [1, 2]), ("a", 2))][1] == ("a", 2)
    with pytest.raises(ValueError, match=r"\['d'\] are not among the values"):
        nightly.few_by_day(["a", "b"], "a", "d")


def test_what_is_left_to_the_night_is_left_out_by_every_command_of_the_day(repository):
    """And the night leaves nothing out."""
    runs = {}
    for line in (repository / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        if name := re.match(r"([a-z-]+):", line):
            target = name[1]
        if " -m pytest" in line and "--nbval" not in line:
            runs[target] = line
    assert runs.keys() == {"test", "test-quick", "test-serve", "test-nightly", "browser"}
    assert [name for name, line in runs.items() if "not night" not in line] == ["test-nightly", "browser"]
    assert "-m " not in runs["test-nightly"].replace("-m pytest", "")


@pytest.mark.parametrize(("at_night", "number"), [(False, 2), (True, 9)])
def test_the_number_of_cases_is_that_of_the_time(monkeypatch, at_night, number):
    monkeypatch.setattr(nightly, "NIGHTLY", at_night)
    assert nightly.cases(few=2, nightly=9) == number
