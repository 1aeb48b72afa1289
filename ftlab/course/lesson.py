"""A lesson while it runs: its budget, its claims and its record.

A notebook begins with `lesson = begin(...)` and ends with `lesson.finish(...)`. In between it states what should be
true (`lesson.claim`), records what it measured (`lesson.measure`) and opens the test split (`lesson.open_test`). It
leaves two files: metrics.json, which is equal for equal runs, and record.json, which says when, where and how long.
"""

from __future__ import annotations

import atexit
import gc
import json
import math
import os
import random
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from filelock import BaseFileLock

from ftlab import files
from ftlab.course import auto_budget, ledger, profiles, records
from ftlab.data import sources
from ftlab.errors import BadInput, ClaimFailed
from ftlab.intervals import Interval
from ftlab.models import devices, loading, processes
from ftlab.progress import CLAIMS, quiet
from ftlab.training import checkpoints

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

    from ftlab.data.splits import Splits
    from ftlab.data.streamed import Streamed

# The settings of a budget that a training depends on, beside its rows: a checkpoint of others does not go on.
TRAINING = (
    "epochs", "batch_size", "accumulation", "learning_rate", "weight_decay", "max_length", "patience", "template",
    "variant", "rank", "alpha", "target_modules", "quantize",
)  # fmt: skip
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
        self._tested: Dataset | None = None

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

    def measure(self, **values: float | Interval | None) -> None:
        """Record `values` in metrics.json, by name; the ends of an interval are <name>_low and <name>_high.

        None, and NaN, become null: not measured.
        """
        for name, value in values.items():
            if isinstance(value, Interval):
                ends = {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
                self._metrics.update({end: _plain(number) for end, number in ends.items()})
            else:
                self._metrics[name] = _plain(value)

    def claim(
        self,
        text: str,
        value: float,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
        always: bool = False,
        computed_in: torch.dtype | str | None = None,
        stored: bool = False,
    ) -> None:
        """State that `value` keeps a bound.

        The printed line has the bound and not the value, so that it is equal on every machine.

        A claim is enforced in a run of the profile's own budget and seed. With parameters or a seed of your own, or in
        the smoke profile, its outcome is printed and the lesson goes on. So it is in the gpu profile until a run of it
        is stored: what nobody has measured there is expected, and stops nobody's run (see `ledger`).

        Args:
            text: what is claimed, without the bound. Claimed again, as when a cell runs again, it replaces the first.
            value: what was measured; it goes to metrics.json. NaN and infinity keep no bound.
            at_least: lower bound, inclusive.
            at_most: upper bound, inclusive; one of the two is needed.
            always: enforce the claim in every run: equal runs are equal, whatever the budget.
            computed_in: the dtype of the computation, for what is promised only in fp32; in half precision the claim is
                not enforced, and the line says so.
            stored: whether the value was read from a stored benchmark; the line then says so and has no tick.

        Raises:
            BadInput: there is no bound, or one that no value or every value keeps; or `ftlab run` met `text` twice.
            ClaimFailed: an enforced claim does not hold; the message has both numbers.
        """
        value = float(value)
        statement = f"{text}: {_bound(text, at_least, at_most)}"
        low_enough = at_most is None or value <= at_most
        high_enough = at_least is None or value >= at_least
        true = math.isfinite(value) and low_enough and high_enough
        half = "" if computed_in is None else str(computed_in).removeprefix("torch.")
        half = "" if half in ("fp32", "float32") else half
        standing = ledger.FP32 if half else self._standing(text, always, stored)
        held = standing in ledger.ENFORCING
        self._note(
            {
                "claim": statement, "value": value, "true": true, "held": held, "standing": standing, "stored": stored,
            }
        )  # fmt: skip
        expected = f"expected for {self.budget.profile}, not yet measured" if standing == ledger.EXPECTED else ""
        if true and stored:
            print(f"from the stored benchmark: {statement}")
        elif true:
            more = f"in {half}, where it is not promised" if half else expected
            print(f"✓ {statement}{f' ({more})' if more else ''}")
        elif half:
            print(f"✗ {statement} (not so in {half}, and promised in fp32 alone)")
        elif not held:
            print(f"✗ {statement} (not so here, and {expected or 'not promised for this run'})")
        else:
            if self._is_watched:
                files.write_json(self.folder / ledger.STOPPED, self._metrics_so_far() | self._record_so_far())
            raise ClaimFailed(f"this run contradicts the lesson: {statement}, and measured was {value:g}")

    def _standing(self, text: str, always: bool, stored: bool) -> str:
        if always:
            return ledger.ALWAYS
        if not self.held_to_its_claims:
            return ledger.REPORTED
        return ledger.EXPECTED if not stored and self.budget.expects(text) else ledger.ENFORCED

    def _note(self, claim: dict[str, Any]) -> None:
        """Keep `claim` for the record, each text once. A run from start to end runs no cell twice."""
        texts = [ledger.split_statement(each["claim"])[0] for each in self._claims]
        text, _ = ledger.split_statement(claim["claim"])
        if text not in texts:
            self._claims.append(claim)
        elif self._is_watched:
            raise BadInput(f"the lesson claims {text!r} twice; give each claim a text of its own")
        else:
            self._claims[texts.index(text)] = claim
        if self._is_watched:
            files.write_json(self.folder / CLAIMS, self._claims)

    @property
    def _is_watched(self) -> bool:
        """Whether `ftlab run` watches this lesson: the folder then has a temporary name."""
        return self.folder.name.startswith(files.PARTIAL)

    def claims(self) -> pd.DataFrame:
        """Return the claims so far as a table, to see how far each value is from its bound.

        Returns:
            A line for each claim, indexed by it: bound, measured, holds, and from ("this run" or "stored benchmark").
        """
        lines = [
            {
                **dict(zip(("claim", "bound"), ledger.split_statement(claim["claim"]), strict=True)),
                "measured": f"{claim['value']:.3g}",
                "holds": claim["true"],
                "from": ledger.STORED if claim["stored"] else ledger.HERE,
            }
            for claim in self._claims
        ]
        return pd.DataFrame(lines, columns=["claim", "bound", "measured", "holds", "from"]).set_index("claim")

    def checkpoint(self, name: str = "", *, resume: bool | None = None, **depends_on: Any) -> str | None:
        """Return the checkpoint for `trainer.train(resume_from_checkpoint=...)`, or None to start at the first step.

        A checkpoint is used only for the training that wrote it: the same model, rows (those recorded by `used`), seed,
        precision and settings of the budget (see `checkpoints.checkpoint`).

        Args:
            name: a subfolder of `checkpoints`, for a lesson that trains more than once.
            resume: whether to go on from one; None for what the budget says.
            depends_on: what else the training depends on, as JSON can hold it.

        Raises:
            BadInput: the checkpoints there belong to another training.
        """
        budget = self.budget
        identity = {
            "model": f"{budget.model} {loading.weights_sha256(loading.folder(budget.model))}",
            **{f"{split} rows": noted["sha256"] for split, noted in self._data.items()},
            "seed": budget.seed,
            "precision": devices.mixed_precision(),
            **{name: budget.settings[name] for name in TRAINING if name in budget.settings},
            **depends_on,
        }
        resume = budget.resume if resume is None else resume
        found = checkpoints.checkpoint(self.checkpoints / name, identity, resume=resume)
        if resume:
            where = f"goes on from {Path(found).name}" if found else "begins anew: there is no checkpoint of it"
            print(f"the training {where}")
        return found

    def left_by(self, lesson: str, *settings: str) -> Path | None:
        """Return the folder that a finished run of another lesson has left beside this one, if it was a run like this.

        Args:
            lesson: its name, "05_lora_phi2".
            settings: of its budget, which have to be those of this run; profile and seed have to be, too. With another
                seed the rows that judge here may have been training rows there.

        Returns:
            None if there is no such folder, or if its run was another one.
        """
        folder = self.folder.parent / lesson
        try:
            metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
            theirs = [metrics["profile"], metrics["seed"], *(metrics["budget"][name] for name in settings)]
        except (OSError, ValueError, LookupError, TypeError):
            return None
        ours = [self.budget.profile, self.budget.seed, *(self.budget.settings[name] for name in settings)]
        return folder if theirs == ours else None

    def open_test(self, splits: Splits | Streamed, why: str) -> Dataset:
        """Return the sealed test split of `splits`; the record says that it was opened, and `why`."""
        self._tested = splits.open_test(why)
        self._openings.append(why)
        return self._tested

    @property
    def tested(self) -> Dataset:
        """The test split, once it was opened. Raises BadInput before."""
        if self._tested is None:
            raise BadInput("the test split was not opened yet; open it with lesson.open_test, once, to judge")
        return self._tested

    def used(self, **datasets: Dataset) -> None:
        """Record the exact rows of each of `datasets` (a hash for each split) and where they came from."""
        for name, dataset in datasets.items():
            origin = sources.provenance(dataset)._asdict()
            if (
                processes.is_main()
                and (note := origin["note"])
                and note not in [noted["origin"]["note"] for noted in self._data.values()]
            ):
                print(note)
            self._data[name] = {"rows": len(dataset), "sha256": sources.fingerprint(dataset), "origin": origin}

    def used_stream(self, file: Path, *, rows: int | None = None) -> None:
        """Record that the training rows are streamed from `file`, and, once they are counted, their number `rows`.

        The hash is that of the file.
        """
        if rows is None:
            digest = files.sha256(file)
            origin = sources.Provenance(file.name, str(file), "your own", digest)._asdict()
            self._data["train"] = {"sha256": digest, "origin": origin}
        self._data["train"]["rows"] = rows

    def finish(self, headline: str) -> None:
        """Write metrics.json and record.json, remove the checkpoints of training, and release the lesson's lock.

        While `ftlab run` still has the lesson's folder under a temporary name, the checkpoints stay.

        Args:
            headline: the result in a few words, for the table of the run.
        """
        model = loading.folder(self.budget.model)
        metrics = self._metrics_so_far() | {"headline": headline}
        record = self._record_so_far() | {
            "model": {"name": self.budget.model, "weights_sha256": loading.weights_sha256(model)},
            "data": self._data,
            "test_split_opened": self._openings,
        }
        files.write_json(self.folder / "metrics.json", metrics)
        files.write_json(self.folder / "record.json", record)
        if not self._is_watched:
            checkpoints.remove(self.checkpoints)
        _give_back(lock_of(self.folder.parent, self.name))

    def _metrics_so_far(self) -> dict[str, Any]:
        """What is equal for equal runs."""
        return {
            **self._identity,
            "budget": self.budget.settings,
            "headline": "",
            "metrics": self._metrics,
            "claims": self._claims,
        }

    def _record_so_far(self) -> dict[str, Any]:
        """When, where and how long."""
        return {
            **self._identity,
            "set_by_hand": self.budget.overrides,
            "started": self._started.isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - self._began, 1),
            "peak_memory_mb": records.peak_memory_mb(),
            "hardware": records.hardware(),
            "versions": records.versions(),
            **({"processes": processes.count()} if processes.launched() else {}),
        }

    @property
    def _identity(self) -> dict[str, Any]:
        return {"lesson": self.name, "profile": self.budget.profile, "seed": self.budget.seed}


def begin(name: str, parameters: Mapping[str, Any] | None = None, **overrides: Any) -> Lesson:
    """Start a lesson: check its parameters, seed Python and NumPy, silence the libraries, go offline if it can.

    Call it before importing transformers or datasets: they read some settings when they are imported. (torch is seeded
    in view, by `set_seed`.)

    Args:
        name: the name of the notebook, "02_text_classification".
        parameters: the notebook's `globals()`: of these, the annotated parameters of the lesson are taken.
        overrides: parameters by name: profile, seed, and what else the lesson has; None stands for the profile's.

    Returns:
        The lesson, with its budget.

    Raises:
        BadInput: a parameter cannot be used.
    """
    slug = slug_of(name)
    given = {**_parameters(slug, parameters or {}), **overrides}
    budget = prepare(slug, given.pop("profile", "cpu"), given)
    folder = Path(os.environ.get(RUN_FOLDER) or _beside_the_notebooks() / "runs" / "notebook" / name).absolute()
    return start(name, auto_budget.fitted(budget), folder)


def slug_of(name: str) -> str:
    """Return the `name` of a lesson without its number: text_classification of 02_text_classification."""
    return name.partition("_")[2]


def prepare(slug: str, profile: str, given: Mapping[str, Any]) -> profiles.Budget:
    """Return the budget of a lesson, silence the libraries, and go offline unless the budget needs the hub.

    Raises BadInput if a parameter of `given` cannot be used. `slug` and `profile` are as for `profiles.resolve`.
    """
    budget = profiles.resolve(slug, profile, {"seed": 0, **given})
    quiet()
    devices.use_one_gpu()
    go_offline_unless(budget.needs_hub)
    return budget


def start(name: str, budget: profiles.Budget, folder: Path) -> Lesson:
    """Start a lesson with a `budget` of `prepare` that fits (`auto_budget.fitted`), into `folder`, and return it.

    Of several processes of one training, the main one takes the folder, and the others write nothing into it. Raises
    BadInput if another process has begun the lesson `name` there.
    """
    if processes.is_main():
        _take(folder, name)
    if "learning_rate" in budget.settings:
        import_once()
    if budget.profile == "smoke":
        compute_on_one_thread()
    random.seed(budget.seed)
    np.random.seed(budget.seed)
    return Lesson(name, budget, folder)


def go_offline_unless(needs_hub: bool) -> None:
    """Cut the libraries off the hub for good, as long as this process lives, unless the run `needs_hub`.

    Call it before importing transformers or datasets. Raises BadInput if the hub is needed and was cut off before.
    """
    if not needs_hub:
        os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", **{WENT_OFFLINE: "1"})
    elif os.environ.get(WENT_OFFLINE):
        raise BadInput("this kernel went offline for another profile, for good; restart the kernel and run it again")


def _parameters(slug: str, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a notebook's variables that are parameters of its lesson.

    The cell with the parameters annotates them, so a later variable with the name of a setting is not taken for one.
    """
    known = {"profile", "seed", *profiles.names(slug)} & set(variables.get("__annotations__", variables))
    found = {name: value for name, value in variables.items() if name in known}
    for name, value in found.items():
        if not isinstance(value, (str, int, float, bool, type(None))):
            raise BadInput(
                f"{name} is an object of class {type(value).__name__} here, and not a parameter any more; run the cell "
                "with the parameters again, and then this one"
            )
    return found


def checkpoints_folder(beside: Path, name: str) -> Path:
    """Return the folder of the checkpoints of lesson `name`: in the folder `beside`, next to the lesson's own."""
    return beside / f"{name}.checkpoints"


def lock_of(beside: Path, name: str) -> Path:
    """Return the lock file of lesson `name` and its checkpoints, in the folder `beside`."""
    return beside / f".{name}.lock"


_taken: dict[Path, BaseFileLock] = {}  # of this process, which may begin its lesson again


def _take(folder: Path, name: str) -> None:
    """Create the lesson's folder, and lock it together with the checkpoints until the lesson or the process ends.

    A kernel that was shut down a moment ago may still be ending, so this waits a little for the lock.
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


def give_back(folder: Path, name: str) -> None:
    """Release the lock of lesson `name`, which was begun in `folder` and does not finish."""
    _give_back(lock_of(folder.parent, name))


@atexit.register
def _give_back(*locks: Path) -> None:
    for lock in locks or tuple(_taken):
        if taken := _taken.pop(lock, None):
            files.release_lock(taken)


def import_once() -> None:
    """Import what a training needs, and exclude it from garbage collection.

    Those are half a million objects. Scanning them takes a third of a second on a slow core, and would happen several
    times during the imports, before each training (Trainer collects garbage), and when the process ends. A lesson that
    is begun again does not repeat this: its old models would never be freed.
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
    """Make PyTorch and NumPy use one thread for the rest of this process: tiny models gain nothing from a second one.

    Threads that share so little work wait for each other; on a busy machine seconds become minutes.
    """
    from threadpoolctl import threadpool_limits

    os.environ["OMP_NUM_THREADS"] = "1"  # for what is imported later
    threadpool_limits(1)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _beside_the_notebooks() -> Path:
    here = Path.cwd()
    return here.parent if here.name == "notebooks" else here


def _bound(text: str, at_least: float | None, at_most: float | None) -> str:
    """The bound of the claim `text` in words. Raises BadInput unless some values keep it and others break it."""
    ends = {"at least": at_least, "at most": at_most}
    given = {name: end for name, end in ends.items() if end is not None}
    if not given:
        raise BadInput(f"the claim {text!r} has no bound; give at_least, at_most or both")
    for name, end in given.items():
        if not math.isfinite(end):
            raise BadInput(f"the claim {text!r} has the bound {name} {end:g}; expected a finite number")
    if at_least is not None and at_most is not None and at_least > at_most:
        raise BadInput(f"the claim {text!r} has at_least {at_least:g} above at_most {at_most:g}; no value keeps both")
    return " and ".join(f"{name} {end:g}" for name, end in given.items())


def _plain(value: Any) -> Any:
    """A NumPy number as Python's own, for JSON."""
    return value.item() if hasattr(value, "item") else value
