"""A lesson while it runs: its budget, its claims and its record.

A notebook begins with `lesson = begin(...)` and ends with `lesson.finish(...)`. In between it states what should be
true (`lesson.claim`), notes what it measured (`lesson.measure`) and opens the test split (`lesson.open_test`). The
two files that it leaves are metrics.json, which is equal for equal runs, and record.json, which says when, where, on
what and how long.
"""

from __future__ import annotations

import atexit
import gc
import os
import random
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import BaseFileLock

from ftlab import files
from ftlab.course import auto_budget, profiles, records
from ftlab.data import sources
from ftlab.errors import BadInput, ClaimFailed
from ftlab.models import loading
from ftlab.progress import quiet

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

    from ftlab.data.splits import Splits

RUN_FOLDER = "FTLAB_RUN_FOLDER"  # set by the runner: where this lesson leaves its files
PATIENCE = 5.0  # seconds
WENT_OFFLINE = "FTLAB_WENT_OFFLINE"  # set here: huggingface_hub reads its offline switch once, when it is imported


class Lesson:
    """One run of one lesson. Made by `begin`."""

    def __init__(self, name: str, budget: profiles.Budget, folder: Path) -> None:
        self.name = name
        self.budget = budget
        self.folder = folder
        self._began = time.monotonic()
        self._started = datetime.now(UTC)
        self._metrics: dict[str, Any] = {}
        self._claims: list[dict[str, Any]] = []
        self._openings: list[str] = []
        self._data: dict[str, Any] = {}

    @property
    def held_to_its_claims(self) -> bool:
        """Whether this is the run that the claims were made for: a profile's own budget and seed, and real weights.

        Another seed draws other rows, and a score on a few thousand rows moves by a point or two with them.
        """
        return self.budget.profile != "smoke" and not self.budget.overrides and self.budget.seed == 0

    @property
    def checkpoints(self) -> Path:
        """The folder of this lesson's checkpoints. A run that is cut off leaves it, for another to go on from."""
        return checkpoints_folder(self.folder.parent, self.name)

    @property
    def data(self) -> dict[str, Any]:
        """The splits that were noted by `used`: rows, hash and origin of each."""
        return self._data

    def measure(self, **values: float | None) -> None:
        """Note measured values for metrics.json; None (null) for one that could not be measured, as is NaN."""
        self._metrics.update({name: _plain(value) for name, value in values.items()})

    def claim(
        self,
        text: str,
        value: float,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
        always: bool = False,
        computed_in: torch.dtype | str | None = None,
    ) -> None:
        """State that `value` keeps to a bound; raise ClaimFailed when it does not.

        What is printed carries the bound and not the value, so that it is the same line on every machine; the
        value goes to metrics.json. A claim is held against the profile's own run. With parameters or a seed of your
        own, or in the smoke profile, the outcome is printed and the lesson goes on; `always=True` marks what must hold
        whatever the budget, such as "equal runs are equal". `computed_in` marks what is promised in fp32 alone: the
        dtype, or bf16, fp16 or fp32, that the value was computed in. In half precision the line says that it was.
        """
        value = float(value)
        low_enough = at_most is None or value <= at_most
        high_enough = at_least is None or value >= at_least
        true = low_enough and high_enough
        bounds = [
            f"at least {at_least:g}" if at_least is not None else "",
            f"at most {at_most:g}" if at_most is not None else "",
        ]
        statement = f"{text}: {' and '.join(filter(None, bounds))}"
        half = "" if computed_in is None else str(computed_in).removeprefix("torch.")
        half = "" if half in ("fp32", "float32") else half
        held = (always or self.held_to_its_claims) and not half
        self._claims.append({"claim": statement, "value": _plain(value), "true": true, "held": held})
        if true:
            print(f"✓ {statement}{f' (in {half}, where it is not promised)' if half else ''}")
        elif half:
            print(f"✗ {statement} (not so in {half}, and promised in fp32 alone)")
        elif not held:
            print(f"✗ {statement} (not so here, and not promised for this run)")
        else:
            raise ClaimFailed(f"this run contradicts the lesson: {statement}, and measured was {value:g}")

    def open_test(self, splits: Splits, why: str) -> Dataset:
        """Open the sealed test split, and note in the record that it was opened and why."""
        test = splits.open_test(why)
        self._openings.append(why)
        return test

    def used(self, **datasets: Dataset) -> None:
        """Note the exact rows that were used, by a hash of each split, and where they came from."""
        for name, dataset in datasets.items():
            origin = sources.provenance(dataset)._asdict()
            if (note := origin["note"]) and note not in [noted["origin"]["note"] for noted in self._data.values()]:
                print(note)
            self._data[name] = {"rows": len(dataset), "sha256": sources.fingerprint(dataset), "origin": origin}

    def finish(self, headline: str) -> None:
        """Write metrics.json and record.json, then remove the checkpoints of training, and let others run the lesson.

        `headline` is the result in a few words, for the table of the run. While `ftlab run` still has the lesson's
        folder under a temporary name, the checkpoints stay until it has its own.
        """
        budget = self.budget
        model = loading.folder(budget.model)
        metrics = {
            "lesson": self.name,
            "profile": budget.profile,
            "seed": budget.seed,
            "budget": budget.settings,
            "headline": headline,
            "metrics": self._metrics,
            "claims": self._claims,
        }
        record = {
            "lesson": self.name,
            "profile": budget.profile,
            "seed": budget.seed,
            "set_by_hand": budget.overrides,
            "started": self._started.isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - self._began, 1),
            "peak_memory_mb": records.peak_memory_mb(),
            "hardware": records.hardware(),
            "versions": records.versions(),
            "model": {"name": budget.model, "weights_sha256": loading.weights_sha256(model)},
            "data": self._data,
            "test_split_opened": self._openings,
        }
        files.write_json(self.folder / "metrics.json", metrics)
        files.write_json(self.folder / "record.json", record)
        if not self.folder.name.startswith(files.PARTIAL):
            files.remove(self.checkpoints)
        _give_back(lock_of(self.folder.parent, self.name))


def begin(name: str, *, profile: str = "cpu", seed: int = 0, **overrides: Any) -> Lesson:
    """Start a lesson: check its parameters, seed Python and NumPy, silence the libraries, go offline if it can.

    `name` is the name of the notebook, "02_text_classification". Call it before importing transformers or datasets:
    they read some settings when they are imported. (torch is seeded in view, by `set_seed`.) Raises BadInput when a
    parameter cannot be used.
    """
    _, _, slug = name.partition("_")
    budget = profiles.resolve(slug, profile, {"seed": seed, **overrides})
    quiet()
    if not budget.needs_hub:
        os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", **{WENT_OFFLINE: "1"})
    elif os.environ.get(WENT_OFFLINE):
        raise BadInput("this kernel went offline for another profile, for good; restart the kernel and run it again")
    budget = auto_budget.fitted(budget)
    folder = Path(os.environ.get(RUN_FOLDER) or _beside_the_notebooks() / "runs" / "notebook" / name).absolute()
    _take(folder, name)
    if "learning_rate" in budget.settings:
        import_once()
    if profile == "smoke":
        compute_on_one_thread()
    random.seed(budget.seed)
    np.random.seed(budget.seed)
    return Lesson(name, budget, folder)


def checkpoints_folder(beside: Path, name: str) -> Path:
    """Where the lesson `name` keeps its checkpoints while it trains: beside its own folder."""
    return beside / f"{name}.checkpoints"


def lock_of(beside: Path, name: str) -> Path:
    """The lock of the lesson `name` and its checkpoints."""
    return beside / f".{name}.lock"


_taken: dict[Path, BaseFileLock] = {}  # of this process, which may begin its lesson again


def _take(folder: Path, name: str) -> None:
    """Make the lesson's folder, and lock it together with the checkpoints until the lesson or the process ends.

    A kernel that was shut down or killed a moment ago may still be ending, so a lock is waited for a little.
    """
    lock = lock_of(folder.parent, name)
    with files.explained(folder, BadInput):
        folder.parent.mkdir(parents=True, exist_ok=True)
        if lock not in _taken:
            taken = files.acquire_lock(lock, wait=PATIENCE)
            if taken is None:
                raise BadInput(
                    f"another kernel ({files.holder(lock)}) has begun lesson {name} and writes into {folder.parent}; "
                    f"shut that kernel down, or name a folder for this one in {RUN_FOLDER}, beside which no other runs"
                )
            _taken[lock] = taken
        folder.mkdir(exist_ok=True)


@atexit.register
def _give_back(*locks: Path) -> None:
    for lock in locks or tuple(_taken):
        if taken := _taken.pop(lock, None):
            files.release_lock(taken)


def import_once() -> None:
    """Import what a training takes, and tell the garbage collector to leave that alone.

    Those are half a million objects. To look at them takes a third of a second on a slow core, and it would happen
    several times during the imports, before each training (Trainer collects garbage), and when the process ends.
    Not when a lesson is begun again: its old models would be left alone, too, and never go.
    """
    if "transformers.trainer" in sys.modules:
        return
    gc.disable()
    try:
        from transformers import Trainer  # noqa: F401
    finally:
        gc.freeze()
        gc.enable()


def compute_on_one_thread() -> None:
    """One thread for PyTorch and NumPy, for the rest of this process: tiny models gain nothing from a second one.

    Threads that share so little work wait for each other, and where others compute too, seconds become minutes.
    """
    from threadpoolctl import threadpool_limits

    os.environ["OMP_NUM_THREADS"] = "1"  # for what is imported later
    threadpool_limits(1)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _beside_the_notebooks() -> Path:
    here = Path.cwd()
    return here.parent if here.name == "notebooks" else here


def _plain(value: Any) -> Any:
    """A NumPy number as Python's own, for JSON."""
    return value.item() if hasattr(value, "item") else value
