import pytest


@pytest.fixture(autouse=True)
def as_one(one_thread):
    """Every training here."""
