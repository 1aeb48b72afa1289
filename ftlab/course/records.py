"""The record of a run: machine, package versions, memory."""

from __future__ import annotations

import platform
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

# What decides the numbers of a run; the whole set is in constraints.txt.
RECORDED_PACKAGES = (
    "accelerate", "bitsandbytes", "datasets", "evaluate", "numpy", "pandas", "peft", "scikit-learn", "scipy",
    "tokenizers", "torch", "transformers", "trl",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Return the versions of Python, ftlab and the packages that determine the numbers."""
    from ftlab import __version__

    found = {"python": platform.python_version(), "ftlab": __version__}
    for package in RECORDED_PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "missing"
    return found


def hardware() -> dict[str, Any]:
    """Return processor, cores, memory (GB) and GPU; nothing that identifies the machine or its owner.

    The GPU is known once torch has been imported.
    """
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": usable_cores(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "gpu": _gpu(),
    }


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    try:
        return len(psutil.Process().cpu_affinity() or [])
    except AttributeError:  # macOS has no affinity
        return psutil.cpu_count() or 1


def memory_mb() -> int:
    """Return the memory that this process holds now (resident set), in MB."""
    return round(psutil.Process().memory_info().rss / 1e6)


def peak_memory_mb() -> int:
    """Return the most memory that this process has held so far (resident set), in MB."""
    if sys.platform == "win32":
        return round(psutil.Process().memory_info().peak_wset / 1e6)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6)  # bytes there, KiB here


@cache
def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _gpu() -> str | None:
    # Asked only where torch is loaded anyway: a record is not worth seconds of import.
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        return f"{properties.name}, {properties.total_memory / 1e9:.0f} GB"
    return "Apple MPS" if torch.backends.mps.is_available() else None
