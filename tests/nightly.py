"""How many cases a test tries: few where a person waits for it, many in the nightly run (FTLAB_NIGHTLY=1)."""

import os

NIGHTLY = os.environ.get("FTLAB_NIGHTLY") == "1"


def cases(*, few: int, nightly: int) -> int:
    """The number of cases for this run; `make test-nightly` asks for the larger one."""
    return nightly if NIGHTLY else few
