import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def environment_as_it_was() -> Iterator[None]:
    """A notebook goes offline for good, and its kernel ends with it; this process goes on with other tests."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
