"""Tests with a network or a disk of their own need root or a user namespace. Without it they are skipped.

With FTLAB_REQUIRE_ISOLATION=1, as in the job `isolation` of ci.yml, they fail instead.
"""

import os
from typing import NoReturn

import pytest

VARIABLE = "FTLAB_REQUIRE_ISOLATION"


def lacking(reason: str) -> NoReturn:
    """Skip the test that runs, or fail it where isolation is required."""
    if os.environ.get(VARIABLE) == "1":
        pytest.fail(f"{VARIABLE} is 1, and {reason}", pytrace=False)
    pytest.skip(reason)
