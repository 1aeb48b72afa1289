"""A property that refuses most of its examples says nothing, and fails."""

from collections.abc import Iterator

import pytest

from tests.properties import refusals


@pytest.fixture(autouse=True)
def enough_examples_get_through(request: pytest.FixtureRequest) -> Iterator[None]:
    """Count the examples of a property that are refused; a property that failed has said what it has to say."""
    handle = getattr(request.function, "hypothesis", None)
    if handle is None:
        yield
        return
    test, failures = handle.inner_test, request.session.testsfailed
    try:
        with refusals.counted(test) as handle.inner_test:
            yield
            if request.session.testsfailed > failures:
                refusals.excuse()
    finally:
        handle.inner_test = test
