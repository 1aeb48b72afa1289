import csv
import os
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "0"  # tests of the hub talk to a server on this machine, and to no other

from ftlab.progress import quiet

quiet()

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


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
