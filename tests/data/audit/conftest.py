from collections.abc import Iterator

import pytest
import sklearn.linear_model  # noqa: F401  brings the libraries whose threads are counted below
from threadpoolctl import threadpool_limits


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """On tables as small as these, a second thread of linear algebra costs three times what it saves."""
    with threadpool_limits(1):
        yield
