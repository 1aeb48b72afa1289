"""Check this machine against what the course needs: each line is OK, or says what to do."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from packaging.markers import Marker

from ftlab.course import bench, records
from ftlab.data import assets, hub
from ftlab.errors import BadInput

if TYPE_CHECKING:
    import pandas as pd

SUPPORTED = ((3, 11), (3, 13))  # the same as requires-python in pyproject.toml
NEEDED_DISK_GB = 2
MOST_BUSY = 0.4  # the share of the cores that other programs may use without a word


@dataclass(frozen=True)
class Check:
    """One check: what was examined, what was found, and what to do if it is not fine."""

    name: str
    ok: bool
    found: str
    todo: str = ""


def examine(*, hub: bool = True) -> list[Check]:
    """Return all checks. Changes nothing; contacts the network once, for the model hub, unless `hub` is false."""
    gpu = _gpu()
    found = [_python(), _packages(), _cores(), _memory(), _disk(), gpu, *_assets()]
    return [*found, *([_hub()] if hub else []), _advice(gpu)]


def table(checks: Sequence[Check]) -> pd.DataFrame:
    """Return `checks` as a table, indexed by what was examined: ok, found, and what to do where it is not ok."""
    import pandas as pd

    lines = [
        {"check": check.name, "ok": check.ok, "found": check.found, "to do": "" if check.ok else check.todo}
        for check in checks
    ]
    return pd.DataFrame(lines).set_index("check")


def _python() -> Check:
    low, high = SUPPORTED
    version = sys.version_info[:2]
    return Check(
        "python",
        low <= version <= high,
        ".".join(map(str, sys.version_info[:3])),
        f"use Python {low[0]}.{low[1]} to {high[0]}.{high[1]}: "
        + ("py -3.12 bootstrap.py" if os.name == "nt" else "make run PYTHON=python3.12"),
    )


def pinned() -> dict[str, str]:
    """Return {package: version} from constraints.txt of the repository that ftlab is installed from; {} without one.

    A pin for some Pythons only, `name==1.0; python_full_version >= "3.11.5"`, is left out where it does not hold.
    """
    constraints = Path(__file__).resolve().parents[2] / "constraints.txt"
    if not constraints.is_file():
        return {}
    found = {}
    for line in constraints.read_text(encoding="utf-8").splitlines():
        pin, _, condition = (part.strip() for part in line.partition(";"))
        if re.match(r"[A-Za-z0-9._-]+==", pin) and (not condition or Marker(condition).evaluate()):
            name, version = pin.split("==", 1)
            found[name] = version
    return found


def required() -> set[str]:
    """Return the names of the packages that the course itself needs: those of no optional extra."""
    lines = metadata.requires("ftlab") or []
    return {re.split(r"[^A-Za-z0-9._-]", line)[0].lower() for line in lines if "extra ==" not in line}


def _packages() -> Check:
    differ, needed = [], required()
    for package, version in pinned().items():
        try:
            installed = metadata.version(package)
        except metadata.PackageNotFoundError:
            if package.lower() not in needed:  # of an extra, such as the site
                continue
            installed = "missing"
        if installed.partition("+")[0] != version:  # 2.13.0+cpu is 2.13.0
            differ.append(f"{package} {installed} (pinned {version})")
    found = f"{len(pinned())} pinned, {len(differ)} differ" + (f": {', '.join(differ[:4])}" if differ else "")
    return Check("packages", not differ, found, 'pip install -c constraints.txt -e ".[lab,test]", or make run')


def _cores() -> Check:
    cores = records.usable_cores()
    busy = psutil.cpu_percent(interval=0.3) / 100
    found = str(cores)
    if busy > MOST_BUSY:  # the threads of a training wait for each other, and so for the slowest
        found += f", and other programs use {busy:.0%} of them now: a training takes several times as long"
    return Check("cores", cores >= 2, found, "one core is enough, and twice as slow as the README says")


def _memory() -> Check:
    memory = psutil.virtual_memory()
    found = f"{memory.available / 1e9:.1f} GB free of {memory.total / 1e9:.1f} GB"
    lessons = _measured_memory()
    if not lessons:
        return Check("memory", True, found)
    largest = max(lessons, key=lambda name: lessons[name])
    needed = f"lesson {largest} takes {lessons[largest] / 1e9:.1f} GB"
    enough = memory.available >= lessons[largest]
    fit = [name for name, taken in lessons.items() if taken <= memory.available]
    others = f"; there is enough for {', '.join(name[:2] for name in fit)}" if fit else ""
    return Check("memory", enough, f"{found}; {needed}" if enough else found, f"close something: {needed}{others}")


def _measured_memory() -> dict[str, float]:
    """Peak memory of each lesson in the default profile, in bytes, from the stored benchmark; empty without one."""
    try:
        measured = bench.stored("first_run")["result"]["lessons"]
    except BadInput:  # ftlab is installed without the course
        return {}
    return {name: lesson["peak_memory_mb"] * 1e6 for name, lesson in measured.items()}


def _disk() -> Check:
    folder = assets.home()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.exists():
        return Check("disk", False, f"there is no {folder}, the drive of the cache", "name another in FTLAB_HOME")
    free = shutil.disk_usage(folder).free / 1e9
    writable = os.access(folder, os.W_OK)
    home = str(assets.home()).replace(str(Path.home()), "~", 1)
    found = f"{free:.1f} GB free for the cache, {home}" + ("" if writable else ", which cannot be written")
    todo = f"name a folder of yours with {NEEDED_DISK_GB} GB free in FTLAB_HOME"
    return Check("disk", writable and free >= NEEDED_DISK_GB, found, todo)


def _gpu() -> Check:
    import torch

    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        memory = properties.total_memory / 1e9
        found = f"{properties.name}, {memory:.0f} GB"
        return Check("gpu", memory >= 8, found, "profile gpu needs 8 GB; use profile cpu")
    if torch.backends.mps.is_available():
        return Check("gpu", True, "Apple MPS")
    return Check("gpu", True, "none, and none is needed for profile cpu")


def _assets() -> list[Check]:
    checks = []
    for asset in assets.ASSETS.values():
        spoiled = assets.damaged(asset.name) if asset.present else []
        found = f"{asset.what} ({asset.package} {asset.version})"
        if not asset.present:
            found = f"not in the cache ({asset.download_mb} MB to fetch)"
        elif spoiled:
            found = f"damaged: {', '.join(spoiled)}"
        todo = f"delete {asset.folder}, then run ftlab fetch" if spoiled else "ftlab fetch"
        checks.append(Check(f"asset {asset.name}", asset.present and not spoiled, found, todo))
    return checks


def _hub() -> Check:
    reason = hub.unreachable()
    found = f"cannot be reached ({reason}); only profile gpu needs it" if reason else "can be reached"
    return Check("hub", True, found)


def _advice(gpu: Check) -> Check:
    cuda = gpu.ok and gpu.found.endswith("GB")
    if cuda:
        return Check("profile", True, "use gpu where the hub can be reached, cpu anywhere")
    return Check("profile", True, "use cpu (the default)")
