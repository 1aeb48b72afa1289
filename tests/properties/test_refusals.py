"""A property whose examples are mostly refused fails, and so does a refusal that is more than a sentence."""

import pytest

from ftlab.errors import BadInput
from tests.properties import refusals


def refuses(kept):
    """A property that refuses each example but those whose numbers are in `kept`."""

    def test(number):
        if number not in kept:
            refusals.require(BadInput("no"))

    return test


def run(test, examples):
    with refusals.counted(test) as counting:
        for number in range(examples):
            counting(number)


def test_half_of_the_examples_or_the_stated_share_have_to_get_through():
    run(refuses({1, 3}), 4)
    with pytest.raises(AssertionError, match="1 of 4 examples got through, fewer than 50%"):
        run(refuses({1}), 4)
    run(refusals.gets_through(0.25)(refuses({1})), 4)
    with pytest.raises(AssertionError, match="0 of 4 examples got through, fewer than 25%"):
        run(refusals.gets_through(0.25)(refuses({})), 4)


def test_an_example_that_is_refused_twice_is_one_and_one_that_fails_is_none():
    def test(number):
        if number == 2:
            raise KeyError(number)
        if number == 1:
            refusals.count()
            refusals.count()

    with refusals.counted(test) as counting:
        counting(0)
        counting(1)
        with pytest.raises(KeyError):
            counting(2)


def test_a_property_without_an_example_fails_unless_it_has_failed_already():
    with pytest.raises(AssertionError, match="no example was counted"):
        run(refuses({}), 0)
    with refusals.counted(refuses({})):
        refusals.excuse()


@pytest.mark.parametrize("said", ["", "two\nlines", "one\u2028two"])
def test_a_refusal_is_one_sentence(said):
    with pytest.raises(AssertionError):
        refusals.one_sentence(BadInput(said))


def test_a_refusal_gives_a_promised_reason():
    refusals.one_sentence(BadInput("rows is 0; expected more"), "other", "expected", begins="rows")
    with pytest.raises(AssertionError):
        refusals.one_sentence(BadInput("rows is 0"), "expected")
