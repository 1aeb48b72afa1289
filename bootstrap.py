"""Set up the course: `python bootstrap.py` makes .venv, chooses the right PyTorch, and installs the pinned packages.

`make` calls this script, and on Windows you call it yourself: the steps of the set-up are here and nowhere else. It
needs only the standard library. Any Python from 3.6 on can read it, so that one that is too old is refused in a
sentence. docs/set_up.md explains each setting.
"""

import argparse
import hashlib
import importlib.util
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import NamedTuple

SUPPORTED = ((3, 11), (3, 13))  # the same as requires-python in pyproject.toml
ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
READY = VENV / "ready"  # written last, so that a set-up that was cut off is recognised
LOG = VENV / "setup.log"
PINS = (ROOT / "constraints.txt", ROOT / "pyproject.toml")
EXTRAS = "lab,test"

TORCH_INDEX = "https://download.pytorch.org/whl"  # PyTorch's own package index; FTLAB_TORCH_INDEX names a mirror of it
CUDA = "cu130"  # the CUDA version of the pinned PyTorch on PyPI, and so what TORCH=cuda means where PyPI has CPU builds
CUDA_13_DRIVER = 580  # the oldest NVIDIA driver, by its first number, that runs CUDA 13

FIRST_MB = 97  # weights and reviews, which lesson 00 fetches
UNPACKED = 4.5  # what .venv takes on disk for each byte of its wheels: measured, 2.3 GB for 515 MB
UNPACKED_CUDA = 2.0  # the same for CUDA's libraries, and for a PyTorch that contains them: an estimate
TYPICAL_MB = {"cpu": 550, "cuda": 3500}  # the download, where sizes cannot be asked: measured, and an estimate
SMALLEST_MB = 2400  # free space without which no set-up is begun: what .venv takes with PyTorch's CPU build
OLDEST_MACOS = 14
LONGEST_PATH = 210  # letters of the longest path in .venv, counted from the course's folder
HERE_KEPT = ("torch", "ipykernel", "ipywidgets", "pip")  # of a notebook service, which runs on its own versions


class Stop(Exception):
    """The set-up cannot go on: one sentence, and the exit code (2: yours to change, 1: pip failed).

    In the sentence, {again} stands for the command that was typed, and {other} for the same with another Python.
    """

    def __init__(self, sentence: str, code: int = 2) -> None:
        super().__init__(sentence)
        self.code = code


class Torch(NamedTuple):
    """A PyTorch that pip would install: its version and its kind (cpu, cuda or other)."""

    version: str
    kind: str


def main(arguments: "list[str] | None" = None) -> int:
    """Set up what `arguments` ask for, and return the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a folder's name may have letters that the console lacks
            stream.reconfigure(errors="backslashreplace", line_buffering=True)
    parser = argparse.ArgumentParser(prog="bootstrap.py", description="Set up the course in .venv.")
    parser.add_argument("--here", action="store_true", help="install into this Python, for Colab and Kaggle; no .venv")
    parser.add_argument("--again", default=_this_command(), metavar="COMMAND", help="what to run again after a failure")
    parser.add_argument("--quiet", action="store_true", help="say nothing if all is set up")
    options = parser.parse_args(arguments)
    if options.here:
        options.again += " --here"
    try:
        if options.here:
            set_up_here()
        else:
            set_up(options.again, options.quiet)
    except Stop as stop:
        sentence = str(stop).replace("{again}", options.again).replace("{other}", _with_other_python(options.again))
        return _fail(sentence, stop.code)
    except KeyboardInterrupt:
        return _fail("stopped; to begin again: " + options.again, 130)
    except OSError as error:
        return _fail(_os_error(error) + "; then: " + options.again, 2)
    return 0


def say(words: str) -> None:
    """Print `words` as the course's own, so that they stand out among those of make and pip."""
    print("ftlab: " + words, flush=True)


def _fail(sentence: str, code: int) -> int:
    print(sentence if "ftlab: " in sentence else "ftlab: " + sentence, file=sys.stderr)
    return code


def set_up(again: str, quiet: bool = False) -> None:
    """Make .venv, or bring it up to the pins, or find that it is ready.

    Raises:
        Stop: in one sentence, what is wrong and what to do.
    """
    wish = wished_torch()
    found = is_ready(wish)
    if found:
        if not quiet and not (again.startswith("make") and found.startswith(f"Python {_own_version()},")):
            say(f".venv is ready ({found}); nothing to do. For another Python, delete .venv and run this again")
        return
    check_python()
    check_system()
    check_folder()
    with Lock():
        if is_ready(wish):
            say(".venv is ready: another set-up has just made it")
            return
        began = time.monotonic()
        prepare(wish)
        if not python_of(VENV).exists():
            check_space(SMALLEST_MB, VENV if VENV.is_dir() else ROOT)  # .venv may be a link to another disk
            say(f"setting up .venv with Python {_own_version()}, once; pip's words go to {LOG.relative_to(ROOT)}")
            make_venv()
        else:
            say("the pins have changed: bringing .venv up to them; pip's words go to " + str(LOG.relative_to(ROOT)))
        pip = Pip(python_of(VENV), LOG, VENV / "tmp")
        try:
            install(pip, wish)
        finally:
            shutil.rmtree(str(VENV / "tmp"), ignore_errors=True)
        write_stamp(pip)
        say(f"ready in {time.monotonic() - began:.0f} s")
    if not again.startswith("make"):
        commands, lesson = python_of(VENV).parent, ROOT / "notebooks" / "00_start_here.ipynb"
        say(f"next: {_typed(commands / 'ftlab')} run 00   (it fetches {FIRST_MB} MB of weights and reviews, once)")
        lab = f"{_typed(commands / 'jupyter')} lab --ServerApp.root_dir={_typed(ROOT)} {_typed(lesson)}"
        say(f"to read the lessons: {lab}")


def install(pip: "Pip", wish: str) -> None:
    """Install the pinned packages with the right PyTorch, after saying how many MB come."""
    # Two retries: where there is no way to the packages, this first step should say so soon.
    pip.run("--retries", "2", "--upgrade", *_constrained("pip", "setuptools"))
    say("asking pip which packages are missing")
    course = [*_constrained(), "--no-build-isolation", "--editable", f".[{EXTRAS}]"]
    wanted = pip.report(*course)
    offered = torch_in(wanted)
    gpu = gpu_driver() if offered else None
    index = torch_index(wish, offered, gpu is not None, platform.system())
    torch = []
    if index:
        build = f"torch=={pinned('torch')}+{index}"
        torch = ["--index-url", _index_url(index), "--no-deps", build]
        try:
            chosen = pip.report(*torch)
        except Stop as stop:
            raise Stop(f"{stop}. {_torch_advice(wish, index)}", stop.code) from None
        if index == "cpu":
            wanted = [each for each in wanted if not _belongs_to_torch(_name(each))] + chosen
        else:  # it needs other CUDA libraries than pip's sources named
            wanted = pip.report("--extra-index-url", _index_url(index), build, *course)
    announce(wanted, pip, VENV)
    READY.unlink(missing_ok=True)  # until all is in
    if index:
        why = f"as TORCH={wish} says" if wish != "auto" else "as there is no NVIDIA GPU"
        say(f"{build_of(index)} comes from {_shown(_index_url(index))}, {why}")
        pip.run(*torch)
    elif offered and offered.kind == "cuda" and gpu and gpu < CUDA_13_DRIVER:
        say(
            f"your NVIDIA driver, {gpu}, is older than CUDA 13 needs ({CUDA_13_DRIVER}): if the GPU is not found, "
            "update the driver, or set TORCH=cu126 and run this again"
        )
    pip.run(*course)


# ---- Is it ready, and what is there?


def wished_torch() -> str:
    """Return TORCH of the environment: auto, cpu, cuda, or the name of one of PyTorch's CUDA indexes, such as cu130."""
    wish = os.environ.get("TORCH", "").strip().lower() or "auto"
    if not re.match(r"(auto|cpu|cuda|cu\d{3})$", wish):
        raise Stop(
            f"TORCH is {os.environ['TORCH']!r}; expected cpu, cuda, or a CUDA index of PyTorch such as {CUDA}; without "
            "TORCH, the set-up looks for an NVIDIA GPU and decides"
        )
    if platform.system() == "Darwin" and wish.startswith("cu"):
        raise Stop(f"TORCH is {wish!r}, and macOS has no CUDA; leave TORCH out: PyTorch uses Apple's GPU by itself")
    return wish


def is_ready(wish: str) -> str:
    """Return what .venv has if it is complete, in its place, up to the pins and as `wish` says; else ''."""
    stamp = read_stamp()
    if stamp is None or not _runs(python_of(VENV)):
        return ""
    if not stamp:  # empty, of an older set-up: its time tells, and nothing tells its PyTorch
        if wish != "auto":
            return ""
        return "set up earlier" if all(READY.stat().st_mtime >= pin.stat().st_mtime for pin in PINS) else ""
    if stamp["folder"] != str(ROOT) or stamp["pins"] != hash_of_pins() or not _fits(wish, stamp["torch"]):
        return ""
    return "Python {}, torch {}".format(stamp["python"], stamp["torch"])


def read_stamp() -> "dict[str, str] | None":
    """Return what the last complete set-up has written; {} if that was an older one, None if there was none."""
    try:
        text = READY.read_text(encoding="utf-8")
        stamp = json.loads(text) if text.strip() else {}
    except (OSError, ValueError):
        return None
    return stamp if not stamp or {"folder", "python", "pins", "torch"} <= set(stamp) else None


def write_stamp(pip: "Pip") -> None:
    """Record what .venv has. This is the last step."""
    code = "import platform; from importlib.metadata import version; print(platform.python_version(), version('torch'))"
    python, torch = pip.ask("-c", code).split()
    stamp = {"folder": str(ROOT), "python": python, "torch": torch, "pins": hash_of_pins()}
    half = READY.with_name("ready.tmp")
    half.write_text(json.dumps(stamp) + "\n", encoding="utf-8")
    half.replace(READY)


def hash_of_pins() -> str:
    """Return a hash of the files that say what .venv should have."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in PINS)).hexdigest()[:16]


def _fits(wish: str, version: str) -> bool:
    """Does PyTorch `version`, which is installed, fit TORCH=`wish`?"""
    local = version.partition("+")[2]
    if wish == "auto" or local == wish or platform.system() == "Darwin":
        return True
    pypi_cuda = not local and platform.system() == "Linux" and _has_cuda_libraries()
    cuda = local.startswith("cu") or pypi_cuda
    return (wish == "cuda" and cuda) or (wish == "cpu" and not cuda) or (wish == CUDA and pypi_cuda)


def _has_cuda_libraries() -> bool:
    return any(VENV.glob("lib/python3*/site-packages/nvidia_*.dist-info"))


def prepare(wish: str) -> None:
    """Look at what lies at .venv; delete it if it is a set-up that cannot be continued.

    Raises:
        Stop: it is no set-up of the course, so it is not touched.
    """
    if not os.path.lexists(str(VENV)):
        return
    if not VENV.is_dir():
        raise Stop(f"{VENV} is not a folder, and the set-up goes there; rename or delete it, then: {{again}}")
    if not any(VENV.iterdir()):
        return
    if not (VENV / "pyvenv.cfg").is_file() and not LOG.is_file():
        raise Stop(f"{VENV} is no virtual environment, so it stays as it is; rename or delete it, then: {{again}}")
    stamp = read_stamp()
    if stamp is None and not LOG.is_file():
        others = _packages_in(VENV)
        if others:
            raise Stop(
                "{} has packages that this set-up did not install ({}); rename or delete it, then: {{again}}".format(
                    VENV, ", ".join(others[:3])
                )
            )
    why = _why_anew(stamp, wish)
    if why:
        if Path(sys.prefix).resolve() == VENV.resolve():
            raise Stop(f".venv {why}, and its own Python cannot do that; use another: {{other}}")
        say(f".venv {why}: making it anew")
        empty(VENV)


def _why_anew(stamp: "dict[str, str] | None", wish: str) -> str:
    """Return why .venv cannot be continued; '' if it can."""
    if stamp is None:
        return "is half-made"
    if stamp and stamp["folder"] != str(ROOT):
        return "was set up in another folder ({})".format(stamp["folder"])
    if not _runs(python_of(VENV)):
        return "has no Python that runs"
    if not stamp and wish != "auto":
        return f"does not say which PyTorch it has, and TORCH={wish}"
    if stamp and not _fits(wish, stamp["torch"]):
        return "has torch {}, and TORCH={}".format(stamp["torch"], wish)
    low, high = SUPPORTED
    if not low <= _version_of(VENV) <= high:
        return "has a Python that the course no longer supports"
    return ""


def _own_version() -> str:
    return ".".join(map(str, sys.version_info[:3]))


def _version_of(venv: Path) -> "tuple[int, ...]":
    words = "import sys; print(*sys.version_info[:2])"
    asked = subprocess.run([str(python_of(venv)), "-c", words], stdout=subprocess.PIPE, check=True, env=environment())
    return tuple(map(int, asked.stdout.split()))


def _packages_in(venv: Path) -> "list[str]":
    found = [*venv.glob("lib/python3*/site-packages/*.dist-info"), *venv.glob("Lib/site-packages/*.dist-info")]
    names = {path.name.split("-")[0].lower() for path in found}
    return sorted(names - {"pip", "setuptools", "wheel"})


def python_of(venv: Path) -> Path:
    """Return where a virtual environment has its Python."""
    return venv / "Scripts" / "python.exe" if os.name == "nt" else venv / "bin" / "python"


def _runs(python: Path) -> bool:
    try:
        done = subprocess.run(
            [str(python), "-c", ""],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment(),
            check=False,
        )
    except OSError:
        return False
    return done.returncode == 0


def empty(folder: Path) -> None:
    """Delete what is in `folder`, and not the folder: it may be a link to another disk."""
    try:
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(str(path))
            else:
                path.unlink()
    except PermissionError as error:
        raise Stop(
            f"{error.filename} cannot be deleted; close what uses .venv (JupyterLab, a terminal), then: {{again}}"
        ) from None


# ---- Checks of the machine


def check_python(with_venv: bool = True) -> None:
    """Refuse a Python that cannot run the course, or, if `with_venv`, cannot make .venv.

    Raises:
        Stop: it is too old or too new, 32-bit, not CPython, or cannot make virtual environments.
    """
    low, high = SUPPORTED
    version = _own_version()
    expected = "expected Python {}.{} to {}.{}, 64-bit".format(*(low + high))
    if not low <= tuple(sys.version_info[:2]) <= high:
        raise Stop(f"{sys.executable} is Python {version}; {expected}: {{other}}")
    if sys.maxsize <= 2**32:
        raise Stop(f"{sys.executable} is a 32-bit Python {version}; {expected}: {{other}}")
    if platform.python_implementation() != "CPython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
        kind = "free-threaded" if platform.python_implementation() == "CPython" else platform.python_implementation()
        raise Stop(f"{sys.executable} is {kind}; expected CPython as python.org ships it: {{other}}")
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if missing and with_venv:
        raise Stop(
            "{} has no module {}, and cannot make a virtual environment; install it (Debian and Ubuntu: "
            "sudo apt install python{}.{}-venv), then: {{again}}".format(
                sys.executable, " and no module ".join(missing), *sys.version_info[:2]
            )
        )


def check_system() -> None:
    """Refuse a system for which there are no wheels of the pinned PyTorch.

    Raises:
        Stop: an Intel Mac, an Intel Python on Apple silicon, an older macOS, a Windows Python for ARM, or a Linux
            without glibc 2.28.
    """
    system, machine = platform.system(), platform.machine()
    if system == "Darwin" and machine == "x86_64":
        if _answer(["sysctl", "-n", "sysctl.proc_translated"]).strip() == "1":
            raise Stop(
                "this Python is built for Intel and runs under Rosetta; install Python for Apple silicon (arm64)"
            )
        raise Stop("PyTorch has no builds for Macs with an Intel processor; use Colab or Kaggle, as README.md shows")
    if system == "Darwin" and int(platform.mac_ver()[0].partition(".")[0] or OLDEST_MACOS) < OLDEST_MACOS:
        raise Stop(
            f"this is macOS {platform.mac_ver()[0]}; expected macOS {OLDEST_MACOS} or newer, for which PyTorch and "
            "bitsandbytes have builds; use Colab or Kaggle, as README.md shows"
        )
    if sysconfig.get_platform() == "win-arm64":  # of this Python; an Intel one may say that the machine is ARM64
        raise Stop(
            "PyTorch has no builds for a Python for Windows on ARM; install the 64-bit one for Intel (x86-64), which "
            "runs there, too, then: {again}"
        )
    if system == "Linux":
        libc = _libc()
        number = re.match(r"glibc (\d+)\.(\d+)", libc)
        if not number or (int(number.group(1)), int(number.group(2))) < (2, 28):
            raise Stop(
                f"this Linux has {libc}; expected glibc 2.28 or newer, which PyTorch needs (Debian 10, Ubuntu 20.04, "
                "RHEL 8 and later; not Alpine)"
            )


def _libc() -> str:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or "no glibc"
    except (ValueError, OSError):
        return "no glibc"


def check_folder() -> None:
    """Refuse a folder in which .venv cannot be made.

    Raises:
        Stop: it lacks the course's files, cannot be written, or its path does not do.
    """
    missing = [path.name for path in PINS if not path.is_file()]
    if missing:
        raise Stop("{} has no {}; get the whole course, not bootstrap.py alone".format(ROOT, " and no ".join(missing)))
    if os.pathsep in str(ROOT) or "\n" in str(ROOT):
        raise Stop(
            "the path {} contains {!r}, which no virtual environment may; rename that folder, then: {{again}}".format(
                ROOT, os.pathsep if os.pathsep in str(ROOT) else "\n"
            )
        )
    if os.name == "nt" and len(str(ROOT)) + LONGEST_PATH > 259 and not _long_paths():
        raise Stop(
            f"the path {ROOT} has {len(str(ROOT))} letters; expected at most {259 - LONGEST_PATH} on a Windows without "
            r"long paths; move the course to a shorter path such as C:\ftlab, then: {again}"
        )
    try:
        with tempfile.TemporaryFile(dir=str(ROOT)):
            pass
    except OSError as error:
        raise Stop(
            f"{ROOT} cannot be written ({error.strerror}); copy the course to a folder of yours, and begin there"
        ) from None


def _long_paths() -> bool:
    try:
        import winreg

        key = winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"SYSTEM\CurrentControlSet\Control\FileSystem")  # type: ignore
        return bool(winreg.QueryValueEx(key, "LongPathsEnabled")[0])  # type: ignore
    except (ImportError, OSError):
        return False


def check_space(needed_mb: float, folder: Path, of_which: str = "") -> None:
    """Refuse to begin what the disk of `folder` has no room for.

    Raises:
        Stop: with how much is needed and how much is there.
    """
    free = shutil.disk_usage(str(folder)).free / 1e6
    if free < needed_mb:
        raise Stop(
            f"{megabytes(free)} are free in {folder}, and the set-up needs {megabytes(needed_mb)}{of_which}; make "
            "room on that disk, then: {again}"
        )


def gpu_driver() -> "int | None":
    """Return the first number of the NVIDIA driver's version, 0 if it is unknown; None without an NVIDIA GPU."""
    for command in ("nvidia-smi", "/usr/lib/wsl/lib/nvidia-smi"):
        if shutil.which(command):
            if "GPU " not in _answer([command, "-L"]):
                return None
            version = _answer([command, "--query-gpu=driver_version", "--format=csv,noheader"])
            number = re.match(r"\s*(\d+)\.", version)
            return int(number.group(1)) if number else 0
    return 0 if Path("/proc/driver/nvidia/version").exists() and Path("/dev/nvidiactl").exists() else None


def _answer(command: "list[str]") -> str:
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""


# ---- Which PyTorch


def torch_in(wanted: "list[dict]") -> "Torch | None":
    """Return the PyTorch among the packages that pip would install; None if it is there already."""
    for each in wanted:
        if _name(each) == "torch":
            version = each["metadata"]["version"]
            local = version.partition("+")[2]
            libraries = any(re.match(r"(nvidia|cuda)-", _name(other)) for other in wanted)
            if local:
                kind = "cpu" if local == "cpu" else "cuda" if re.match(r"cu\d", local) else "other"
            else:  # PyPI's build for Linux brings its CUDA libraries as packages
                kind = "cuda" if libraries else "cpu"
            return Torch(version, kind)
    return None


def torch_index(wish: str, offered: "Torch | None", gpu: bool, system: str) -> "str | None":
    """Return which of PyTorch's indexes PyTorch should come from; None for pip's own sources.

    Args:
        wish: what TORCH says: auto, cpu, cuda or the name of a CUDA index.
        offered: what pip's own sources offer; None if PyTorch is installed already.
        gpu: is there an NVIDIA GPU?
        system: as `platform.system()` says it.
    """
    if offered is None or system == "Darwin":
        return None
    if wish == "auto":
        return "cpu" if system == "Linux" and offered.kind == "cuda" and not gpu else None
    if wish in ("cpu", "cuda"):
        return None if offered.kind == wish else {"cpu": "cpu", "cuda": CUDA}[wish]
    return None if offered.version.endswith("+" + wish) else wish


def pinned(package: str) -> str:
    """Return the version of `package` in constraints.txt.

    Raises:
        Stop: it is not there.
    """
    for line in PINS[0].read_text(encoding="utf-8").splitlines():
        name, _, version = line.partition(";")[0].strip().partition("==")  # behind a semicolon: for which Pythons
        if _normal(name) == package:
            return version
    raise Stop(f"constraints.txt pins no {package}; get the file anew from the course")


def _constrained(*packages: str) -> "list[str]":
    return ["--constraint", "constraints.txt", *packages]


def _index_url(name: str) -> str:
    return (os.environ.get("FTLAB_TORCH_INDEX") or TORCH_INDEX).rstrip("/") + "/" + name


def _torch_advice(wish: str, index: str) -> str:
    mirror = (
        f"{build_of(index)} comes from PyTorch's own index; if you have a mirror of it, name it in FTLAB_TORCH_INDEX"
    )
    if wish == "auto":
        return mirror + "; with TORCH=cuda you get the build that pip's sources have, with several GB of CUDA libraries"
    return mirror + ("" if wish == "cpu" else "; PyTorch 2.13 is there as cu126, cu130 and cu132")


def build_of(index: str) -> str:
    """Return what PyTorch's index `index` has."""
    return "PyTorch's CPU build" if index == "cpu" else f"PyTorch's CUDA build ({index})"


def _belongs_to_torch(name: str) -> bool:
    return name in ("torch", "triton") or name.startswith(("nvidia-", "cuda-"))


def _name(installed: "dict") -> str:
    return _normal(installed["metadata"]["name"])


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# ---- How many MB


def announce(wanted: "list[dict]", pip: "Pip", folder: Path) -> None:
    """Say how many MB come into `folder`, and refuse if its disk has no room for them.

    Raises:
        Stop: there is not enough space for the download and what it unpacks to.
    """
    packages = [each for each in wanted if "dir_info" not in each.get("download_info", {})]
    if not packages:
        return
    urls = [each["download_info"].get("url", "") for each in packages]
    sizes = pip.sizes(urls)
    local = sum(size or 0 for size, url in zip(sizes, urls, strict=True) if url.startswith("file:")) / 1e6
    total = sum(size or 0 for size in sizes) / 1e6
    unpacked = sum((size or 0) * _unpacked(each) for size, each in zip(sizes, packages, strict=True)) / 1e6
    unknown = sum(size is None for size in sizes)
    cuda = any(_name(each).startswith("nvidia-") or "+cu" in each["metadata"]["version"] for each in packages)
    if unknown > len(sizes) / 2 and len(sizes) > 100:
        total = max(total, TYPICAL_MB["cuda" if cuda else "cpu"])
        unpacked = total * (UNPACKED_CUDA if cuda else UNPACKED)
        size = f"about {megabytes(total)} to download, an estimate, as their sizes could not be asked"
    else:
        notes = [f"{megabytes(local)} of it from this disk"] if local else []
        notes += [f"sizes unknown: {unknown}"] if unknown else []
        size = f"{'at least ' if unknown else ''}{megabytes(total)}{'' if local else ' to download'}"
        size += f" ({', '.join(notes)})" if notes else ""
    say(f"{len(packages)} packages: {size}; unpacked they take about {megabytes(unpacked)}")
    cached = total - local if pip.caches_on(folder) else 0
    of_which = f" ({megabytes(unpacked)} unpacked, {megabytes(total - local + cached)} for the download)"
    check_space(unpacked + total - local + cached, folder, of_which)


def _unpacked(package: "dict") -> float:
    """Return how many bytes `package` takes on disk for each byte of its wheel."""
    name, version = _name(package), package["metadata"]["version"]
    return UNPACKED_CUDA if name.startswith(("nvidia-", "cuda-")) or "+cu" in version else UNPACKED


def megabytes(number: float) -> str:
    """Return `number`, in MB, as a person reads it: 1,234 MB below ten thousand, else 12.3 GB."""
    return f"{number:,.0f} MB" if number < 9999.5 else f"{number / 1e3:.1f} GB"


def _size(url: str, opener: "urllib.request.OpenerDirector") -> "int | None":
    """Return the size of the file at `url` in bytes; None if it cannot be asked."""
    parts = urllib.parse.urlsplit(url)
    try:
        if parts.scheme == "file":
            return Path(urllib.request.url2pathname(parts.path)).stat().st_size
        if parts.scheme not in ("http", "https"):
            return None
        request = urllib.request.Request(url, method="HEAD")
        with opener.open(request, timeout=5) as answer:
            return int(answer.headers["Content-Length"])
    except (OSError, ValueError, TypeError):
        return None


# ---- pip


class Pip:
    """pip of one Python: it runs in the course's folder, its words go to a log, and a failure is explained.

    Args:
        python: the Python that pip installs into.
        log: the file for its words.
        temporary: a folder for its downloads; they may be too large for the system's. None for the system's.
    """

    def __init__(self, python: Path, log: Path, temporary: "Path | None") -> None:
        self.python, self.log = python, log
        self.environment = environment()
        if temporary:
            temporary.mkdir(parents=True, exist_ok=True)
            self.environment.update(dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(temporary)))

    def run(self, *arguments: str) -> None:
        """Run `pip install` with `arguments`.

        Raises:
            Stop: it failed; the sentence says why, and what to do.
        """
        command = [str(self.python), "-m", "pip", "install", *arguments]
        words = []  # type: list[str]
        with self.log.open("a", encoding="utf-8") as log, Status() as status:
            log.write("\n$ pip install {}\n".format(_shown(" ".join(arguments))))
            process = subprocess.Popen(
                command, cwd=str(ROOT), env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
            try:
                for line in process.stdout or ():
                    text = line.decode("utf-8", "replace").rstrip()
                    if text.strip():
                        log.write(_shown(text) + "\n")
                        log.flush()
                        words.append(text)
                        status.show(text.strip())
                process.wait()
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
        if process.returncode:
            raise Stop(explanation("\n".join(words), self.settings(), self.log), 1)

    def report(self, *arguments: str) -> "list[dict]":
        """Return what `pip install` with `arguments` would install: metadata and address of each package."""
        handle, name = tempfile.mkstemp(suffix=".json")
        os.close(handle)
        try:
            self.run("--dry-run", "--report", name, *arguments)
            return json.loads(Path(name).read_text(encoding="utf-8"))["install"]
        finally:
            Path(name).unlink()

    def ask(self, *arguments: str) -> str:
        """Return what Python prints if run with `arguments`; '' if it fails."""
        done = subprocess.run(
            [str(self.python), *arguments], cwd=str(ROOT), env=self.environment, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        return done.stdout.decode("utf-8", "replace").strip() if done.returncode == 0 else ""

    def settings(self) -> "dict[str, str]":
        """Return pip's settings by name; one from the environment hides the same of a file."""
        found = {}  # type: dict[str, str]
        lines = re.findall(r"^(\S+?)\.([\w-]+)='(.*)'$", self.ask("-m", "pip", "config", "list"), re.MULTILINE)
        for source, name, value in sorted(lines, key=lambda line: line[0] == ":env:"):
            if source in ("global", "install", ":env:"):
                found[name] = value
        return found

    def sizes(self, urls: "list[str]") -> "list[int | None]":
        """Return the size of the file at each address, in bytes; None where it could not be asked in ten seconds."""
        import ssl
        from concurrent import futures

        settings = self.settings()
        proxy = settings.get("proxy")
        context = ssl.create_default_context()
        # Python on macOS has no certificates of its own; pip has.
        bundle = settings.get("cert") or self.ask("-c", "from pip._vendor import certifi; print(certifi.where())")
        if bundle and Path(bundle).is_file():
            context.load_verify_locations(bundle)
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({"http": proxy, "https": proxy} if proxy else None),
            urllib.request.HTTPSHandler(context=context),
        )
        pool = futures.ThreadPoolExecutor(16)
        asked = [pool.submit(_size, url, opener) for url in urls]
        futures.wait(asked, timeout=10)
        pool.shutdown(wait=False, cancel_futures=True)
        return [each.result() if each.done() and not each.cancelled() else None for each in asked]

    def caches_on(self, folder: Path) -> bool:
        """Does pip keep downloads on the disk of `folder`?"""
        cache = Path(self.ask("-m", "pip", "cache", "dir") or ".")
        if not cache.is_absolute():  # no cache at all
            return False
        while not cache.exists():
            cache = cache.parent
        return cache.stat().st_dev == folder.stat().st_dev


def environment() -> "dict[str, str]":
    """Return the environment for pip: without what would make it look at, or install into, another place than .venv."""
    unwanted = (
        "PYTHONPATH",
        "PYTHONHOME",
        "PIP_TARGET",
        "PIP_PREFIX",
        "PIP_ROOT",
        "PIP_QUIET",
        "PIP_LOG",
        "PIP_REPORT",
    )
    kept = {name: value for name, value in os.environ.items() if name.upper() not in unwanted}
    words = {
        "PYTHONIOENCODING": "utf-8",
        "PIP_NO_COLOR": "1",
        "PIP_NO_INPUT": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    return {**kept, **words, "PIP_USER": "0", "PIP_ROOT_USER_ACTION": "ignore", "PIP_PROGRESS_BAR": "off"}


def make_venv() -> None:
    """Make .venv, with the log first: it tells a set-up that was cut off from another's environment."""
    VENV.mkdir(exist_ok=True)
    LOG.write_text(f"$ {sys.executable} -m venv {VENV}\n", encoding="utf-8")
    with LOG.open("ab") as log:
        done = subprocess.run(
            [sys.executable, "-m", "venv", str(VENV)],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment(),
            check=False,
        )
    if done.returncode or not python_of(VENV).exists():
        last = [line for line in LOG.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()][-1]
        raise Stop(
            f"{sys.executable} could not make a virtual environment ({last.strip()}); the whole answer is in {LOG}; "
            "mend that, then: {again}"
        )


class Status:
    """The last line of a terminal, rewritten while pip works. Where the output goes to a file, there is none."""

    def __init__(self) -> None:
        self.shown = sys.stdout.isatty()
        self.began = time.monotonic()

    def __enter__(self) -> "Status":
        return self

    def __exit__(self, *_: object) -> None:
        if self.shown:
            print("\r\x1b[K" if os.name != "nt" else "\r" + " " * 78 + "\r", end="", flush=True)

    def show(self, words: str) -> None:
        """Show what pip does now, if it is of interest."""
        if self.shown and re.match(
            r"(Collecting|Downloading|Using cached|Processing|Installing|Building|WARNING: Retrying) ", words
        ):
            short = re.sub(r"(https?|file)://\S*/|/\S*/", "", words)
            if words.startswith("Installing collected"):
                short = f"Installing {words.count(',') + 1} packages: the longest part"
            line = f"  {time.monotonic() - self.began:3.0f} s  {short}"
            width = min(shutil.get_terminal_size().columns, 79) - 1
            print("\r" + line[:width].ljust(width), end="", flush=True)


class Lock:
    """One set-up at a time in this folder. The system frees the lock when the process ends, however it ends."""

    def __enter__(self) -> "Lock":
        self.file = Path(__file__).resolve().open("rb")
        try:
            if os.name == "nt":
                import msvcrt

                self.file.seek(1 << 30)  # far behind the end: Windows would keep others from reading what is locked
                msvcrt.locking(self.file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore
            else:
                import fcntl

                fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            self.file.close()
            raise Stop(f"another set-up is running in {ROOT}; wait until it is done, then: {{again}}") from None
        except OSError:  # a file system without locks
            pass
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


# ---- Why it failed


PROXY = r"ProxyError|to proxy|Tunnel connection failed|407 Proxy"
CERTIFICATE = r"CERTIFICATE_VERIFY_FAILED|SSLError|SSL: "
NETWORK = r"Connection(Error|Refused|Reset)|Max retries|Retrying|timed? ?out|Name or service not known"


def _other_versions(words: str) -> bool:
    """Does pip say that an index has other versions of what it looked for?"""
    return bool(re.search(r"\(from versions: (?!none)", words))


def explanation(words: str, settings: "dict[str, str]", log: Path) -> str:
    """Return one sentence on why pip failed, and what to do, after its own last words if they help.

    Args:
        words: what pip has printed.
        settings: pip's settings.
        log: where its words are.
    """
    errors = [_shown(line.strip()) for line in words.splitlines() if line.startswith("ERROR: ")]
    if re.search("|".join((PROXY, CERTIFICATE, NETWORK)), words) and not _other_versions(words):
        errors = []  # pip speaks of conflicts then, and there are none
    first = "\n".join(line if len(line) < 300 else line[:297] + "..." for line in errors[-3:])
    return f"{first}\n".lstrip() + f"ftlab: {_advice(words, settings)}; pip's words are in {log}"


def _advice(words: str, settings: "dict[str, str]") -> str:
    """Return what went wrong, and what to do."""
    proxy, where = proxy_in_use(settings)
    host = re.findall(r"host='([^']+)'", words)
    index = _shown(settings.get("index-url", "")) or "pip's default package index"
    if re.search(r"No space left on device|Errno 28|WinError 112|Disk quota exceeded|Errno 122", words):
        free = megabytes(shutil.disk_usage(str(ROOT)).free / 1e6)
        return f"the disk is full ({free} are free in {ROOT}); make room, then: {{again}}"
    other_proxy = _setting("HTTPS_PROXY", "http://NAME:PORT")
    other_index = _setting("PIP_INDEX_URL", "https://...")
    looked_in = _looked_in(words, index)
    proxy_host = urllib.parse.urlsplit(proxy).hostname if proxy else None
    missing = re.findall(r"No matching distribution found for (\S+)", words)
    if _other_versions(words):
        host, words = [], ""  # the index was reached, at the latest after a second try
    if proxy_host in host or re.search(PROXY, words):
        return (
            f"pip did not get through the proxy {_shown(proxy) or 'of this system'} ({where}); set the right one, "
            f"{other_proxy}, or remove it, then: {{again}}"
        )
    if re.search(CERTIFICATE, words):
        return (
            f"the certificate of {host[-1] if host else index} was not accepted, as happens behind a company's proxy; "
            f"name the company's certificates, {_setting('PIP_CERT', 'FILE.pem')}, then: {{again}}"
        )
    if re.search(NETWORK, words):
        through = f", through the proxy {_shown(proxy)} ({where})" if proxy else ", with no proxy set"
        return (
            f"pip did not reach {host[-1] if host else index}{through}; look at the network, or set a proxy, "
            f"{other_proxy}, or another index, {other_index}, then: {{again}}"
        )
    if missing:
        machine = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
        return (
            f"there is no {missing[-1]} for {machine} where pip looked ({looked_in}); look at pip's "
            f"settings with `pip config list`, or set another index, {other_index}, then: {{again}}"
        )
    if re.search(r"Permission denied|WinError (5|32)\b|Access is denied", words):
        return "a file in .venv could not be written; close what uses it (JupyterLab, a terminal), then: {again}"
    if re.search(r"40[13] (Client Error|Unauthorized|Forbidden)|HTTP error 40[13]", words):
        return f"{index} refused to answer; look at the name and password in pip's settings, then: {{again}}"
    if "externally-managed-environment" in words:
        return f"this Python belongs to the system; set up without --here: {_this_command()}"
    return "pip could not install the packages; mend what it names, then: {again}"


def _looked_in(words: str, index: str) -> str:
    found = re.findall(r"^Looking in indexes: (.+)$", words, re.MULTILINE)
    return _shown(found[-1]) if found else index


def proxy_in_use(settings: "dict[str, str]") -> "tuple[str, str]":
    """Return the proxy that pip goes through, and which setting names it; ('', ...) without one."""
    if settings.get("proxy"):
        return settings["proxy"], "PIP_PROXY" if os.environ.get("PIP_PROXY") else "pip's setting `proxy`"
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "http_proxy", "HTTP_PROXY"):
        if os.environ.get(name):
            return os.environ[name], name
    system = urllib.request.getproxies().get("https", "")
    return system, "the system's settings"


def _setting(name: str, value: str) -> str:
    return f"$env:{name} = '{value}'" if os.name == "nt" else f"export {name}={value}"


def _shown(text: str) -> str:
    """Return `text` without the names and passwords of its addresses."""
    return re.sub(r"(\w+://)[^/@\s]+@", r"\1***@", text)


def _os_error(error: OSError) -> str:
    if getattr(error, "errno", None) in (28, 122):
        return f"the disk is full ({error.filename or ROOT}); make room"
    return f"{error.filename or ROOT}: {error.strerror or error}; expected a folder that can be written"


def _typed(path: Path) -> str:
    """Return `path`, which is in the course's folder, as a person types it where they are."""
    here = Path("bootstrap.py")
    words = str(path.relative_to(ROOT) if here.is_file() and here.samefile(__file__) else path)
    return subprocess.list2cmdline([words]) if os.name == "nt" else shlex.quote(words)


def _this_command() -> str:
    """Return the command that runs this script with this Python."""
    name = Path(sys.executable).name
    python = name if shutil.which(name) == sys.executable else shlex.quote(sys.executable)
    if os.name == "nt":
        python = "py -{}.{}".format(*sys.version_info[:2])
    return python + " " + _typed(ROOT / "bootstrap.py")


def _with_other_python(again: str) -> str:
    """Return the command `again` with a Python that the course supports."""
    if again.endswith(" --here"):
        return "choose a runtime with such a Python, then: " + again
    if again.startswith("make"):
        return re.sub(r" PYTHON=\S+", "", again) + " PYTHON=python3.12"
    return ("py -3.12 " if os.name == "nt" else "python3.12 ") + _typed(ROOT / "bootstrap.py")


# ---- Colab and Kaggle


def set_up_here() -> None:
    """Install the course into this Python, and keep what the notebook service has of its own: PyTorch above all.

    Only what the course itself names is brought to its pin; what a service runs on keeps its version.

    Raises:
        Stop: this Python does not do, or pip failed.
    """
    if os.environ.get("TORCH"):
        raise Stop(
            "TORCH has no effect with --here, which keeps the PyTorch that is there; leave it out, then: {again}"
        )
    check_python(with_venv=False)
    check_folder()
    if not _may_be_changed():
        raise Stop(
            f"{sys.executable} is neither Colab's nor Kaggle's, nor of a virtual or conda environment, and --here "
            f"would change it; set up without --here: {_this_command()}"
        )
    import tomllib
    from importlib import metadata

    project = tomllib.loads(PINS[1].read_text(encoding="utf-8"))["project"]
    kept = {}
    for name in HERE_KEPT:
        try:
            kept[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if "torch" not in kept:
        raise Stop(
            f"{sys.executable} has no PyTorch, and --here installs none; set up without --here: {_this_command()}"
        )
    named = {_normal(re.split(r"[^A-Za-z0-9._-]", line)[0]): line for line in project["dependencies"]}
    constraints = [f"{name}=={kept.get(name) or pinned(name)}" for name in named]
    with tempfile.TemporaryDirectory(prefix="ftlab-setup-") as folder:
        file = Path(folder) / "constraints.txt"
        file.write_text("\n".join(constraints) + "\n", encoding="utf-8")
        pip = Pip(Path(sys.executable), Path(tempfile.gettempdir()) / "ftlab_setup.log", None)
        say("kept as they are: " + ", ".join("{} {}".format(*each) for each in kept.items()))
        wanted = ["--constraint", str(file), *(line for name, line in named.items() if name not in kept)]
        announce(pip.report(*wanted), pip, Path(sysconfig.get_path("purelib")))
        pip.run(*wanted)
        pip.run("--no-deps", "--editable", ".")
    if kept["torch"].partition("+")[0] != pinned("torch"):
        say("the course was measured with torch {}: figures may differ a little here".format(pinned("torch")))
    say("ready: ftlab run 00. In a notebook that is open already, restart the session once")


def _may_be_changed() -> bool:
    """Is this Python a notebook service's, or of an environment that is there to be changed?"""
    service = "COLAB_RELEASE_TAG" in os.environ or "KAGGLE_KERNEL_RUN_TYPE" in os.environ
    return service or sys.prefix != sys.base_prefix or Path(sys.prefix, "conda-meta").is_dir()


if __name__ == "__main__":
    sys.exit(main())
