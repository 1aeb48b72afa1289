import pytest


@pytest.fixture(autouse=True)
def as_one(one_thread):
    """Run every training of this folder on one thread."""
