import pytest


@pytest.fixture(autouse=True)
def environment(environment_as_it_was) -> None:
    """Each test here restores the environment: a level is begun in this process."""
