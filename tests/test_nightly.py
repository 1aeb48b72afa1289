"""What is tried by day and what at night."""

import itertools

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


@pytest.mark.parametrize(("at_night", "number"), [(False, 2), (True, 9)])
def test_the_number_of_cases_is_that_of_the_time(monkeypatch, at_night, number):
    monkeypatch.setattr(nightly, "NIGHTLY", at_night)
    assert nightly.cases(few=2, nightly=9) == number
