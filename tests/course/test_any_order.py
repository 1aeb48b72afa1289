"""Lessons in any order, alone or one after the other, come to the same metrics: none needs another one's files."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from ftlab.course import notebooks
from tests import cells
from tests.nightly import NIGHTLY
from tests.nightly import cases as cases_of

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

NUMBERS = [lesson.number for lesson in notebooks.lessons()]
CHOSEN = NUMBERS if NIGHTLY else ["00", "01"]  # by day two of the quickest
Came = tuple[str, bool]  # a lesson, and whether it found the adapter of lesson 05


def orders(numbers: Sequence[str], count: int) -> list[list[str]]:
    """So many orders of lessons, each with all of them: the first the other way round, the others drawn."""
    drawn = random.Random(0)
    return [[*reversed(numbers)], *(drawn.sample(numbers, len(numbers)) for _ in range(count - 1))]


def found(order: Sequence[str], place: int) -> Came:
    return order[place], order[place] == "06" and "05" in order[:place]


def metrics_of(out: Path, number: str) -> str:
    (file,) = out.glob(f"{number}_*/metrics.json")
    return file.read_text(encoding="utf-8")


def in_this_process(order: Sequence[str], out: Path) -> dict[Came, str]:
    """The metrics.json of each lesson of an order, all of it in one folder and one process."""
    for number in order:
        cells.run(number, out, {})
    return {found(order, place): metrics_of(out, number) for place, number in enumerate(order)}


def run(number: str, out: Path, **settings: str) -> str:
    """The metrics.json of one lesson from `ftlab run`."""
    command = [sys.executable, "-m", "ftlab.cli", "run", number, "--profile", "smoke", "--out", str(out)]
    done = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return metrics_of(out, number)


def test_two_orders_in_one_process_come_to_the_same_metrics(tmp_path):
    expected = in_this_process(CHOSEN, tmp_path / "as numbered")
    for number, order in enumerate(orders(CHOSEN, cases_of(few=1, nightly=3))):
        came = in_this_process(order, tmp_path / str(number))
        for lesson in expected.keys() & came.keys():
            assert json.loads(came[lesson]) == json.loads(expected[lesson]), (lesson, order)


def test_every_order_that_is_drawn_has_every_lesson():
    drawn = orders(NUMBERS, 4)
    assert all(sorted(order) == NUMBERS and order != NUMBERS for order in drawn)
    assert any(order.index("06") < order.index("05") for order in drawn)


@pytest.mark.skipif(not NIGHTLY, reason="it starts a kernel for each lesson: make test-nightly")
@pytest.mark.parametrize("number", NUMBERS)
def test_each_lesson_runs_alone_with_an_empty_cache(number, tmp_path):
    came = run(number, tmp_path / "out", FTLAB_HOME=str(tmp_path / "home"), HF_HOME=str(tmp_path / "hf"))
    assert json.loads(came)["metrics"]


@pytest.mark.skipif(not NIGHTLY, reason="it starts many kernels: make test-nightly")
def test_orders_of_commands_into_one_folder_come_to_the_same_metrics(tmp_path):
    expected: dict[Came, str] = {}
    for order_number, order in enumerate([NUMBERS, *orders(NUMBERS, 2)]):
        out = tmp_path / str(order_number)
        for place, number in enumerate(order):
            came = run(number, out)
            assert json.loads(came) == json.loads(expected.setdefault(found(order, place), came)), (number, order)
