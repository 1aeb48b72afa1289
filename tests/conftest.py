import csv
import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ["HF_HUB_OFFLINE"] = "0"  # tests of the hub talk to a server on this machine, and to no other

from ftlab.progress import quiet
from tests import nightly, windows

quiet()
# The same examples in every run, so that a failure is a failure everywhere; the nightly run draws new ones each time.
settings.register_profile(
    "ftlab", max_examples=nightly.cases(few=60, nightly=1_000), deadline=None, derandomize=not nightly.NIGHTLY,
    database=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)  # fmt: skip
settings.load_profile("ftlab")
gc.disable()  # until all is imported


def pytest_collection_finish() -> None:
    """Trainer collects garbage each time that it trains; spare it what the imports have made."""
    if "torch" in sys.modules:
        from transformers import Trainer  # noqa: F401
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="module", autouse=True)
def spare_the_garbage_collector() -> Iterator[None]:
    """Trainer collects garbage at each training; spare it what the modules of tests before have imported and cached."""
    yield
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what lies in tests/serving, for `make test-serve`, and skip on Windows what that system cannot do."""
    for item in items:
        if item.path.parent.name == "serving":
            item.add_marker(pytest.mark.serve)
        if sys.platform == "win32" and windows.needs_posix(item):
            item.add_marker(pytest.mark.skip(reason="needs what Windows has not"))


REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(autouse=True)
def environment_as_it_was() -> Iterator[None]:
    """A command or a notebook may go offline for good, and its process ends with it; this one goes on."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def empty_home(tmp_path, monkeypatch) -> Path:
    """A cache of one's own, empty."""
    home = tmp_path / "home"
    monkeypatch.setenv("FTLAB_HOME", str(home))
    return home


@pytest.fixture
def reviews_csv(tmp_path) -> Path:
    """A file of one's own: 60 rows, two labels, other column names."""
    path = tmp_path / "reviews.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["body", "verdict"])
        for number in range(60):
            writer.writerow([f"review number {number} says that it is {'good' if number % 2 else 'bad'}", number % 2])
    return path


@pytest.fixture(scope="session")
def classifier_folder(tmp_path_factory) -> Path:
    """A saved classifier over bad, fine and good. It has learned nothing, and yet tells texts apart."""
    import torch

    from ftlab.models import loading

    torch.manual_seed(4)  # with which MESSAGES of test_cli get each of the labels
    model = loading.encoder("tiny-distilbert", ["bad", "fine", "good"])
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(10)  # random weights as small as fresh ones answer the same to everything
    folder = tmp_path_factory.mktemp("saved") / "classifier"
    model.save_pretrained(folder)
    loading.tokenizer("tiny-distilbert").save_pretrained(folder)
    return folder


@pytest.fixture
def one_thread():
    """Models this small gain nothing from more threads, and wait for each other where others compute too."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
