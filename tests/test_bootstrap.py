"""The set-up: which PyTorch it chooses, what it refuses, and what it does with what it finds.

Real pip runs decide, on a stand-in package index on this machine, with wheels of a few hundred bytes.
"""

import ast
import base64
import hashlib
import http.server
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import venv
import zipfile
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from ftlab.course import doctor, profiles
from ftlab.data import assets

PIP, SETUPTOOLS = metadata.version("pip"), metadata.version("setuptools")
PINS = {"pip": PIP, "setuptools": SETUPTOOLS, "torch": "2.13.0", "numpy": "2.4.6"}

# The course in miniature: built without any package, and with a command of its own.
PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""
BACKEND = """
import os, zipfile
METADATA = '''Metadata-Version: 2.1
Name: ftlab
Version: 1
Provides-Extra: lab
Provides-Extra: test
Requires-Dist: numpy
Requires-Dist: torch
'''
def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "ftlab-1-py3-none-any.whl"
    info = "ftlab-1.dist-info/"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as wheel:
        wheel.writestr("ftlab.py", "def main(): print('the course runs')")
        wheel.writestr(info + "METADATA", METADATA)
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(info + "entry_points.txt", "[console_scripts]\\nftlab = ftlab:main\\n")
        wheel.writestr(info + "RECORD", "")
    return name
"""


def make_wheel(folder: Path, name: str, version: str, requires: tuple[str, ...] = ()) -> None:
    folder = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    lines = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"]
    lines += [f"Requires-Dist: {each}\n" for each in requires]
    with zipfile.ZipFile(folder / f"{info.removesuffix('.dist-info')}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{info}/METADATA", "".join(lines))
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "".join(f"{info}/{file},,\n" for file in ("METADATA", "WHEEL", "RECORD")))


def repack(folder: Path, name: str) -> Path:
    """An installed package of this Python as the wheel that it came from."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    path = folder / name / f"{name}-{metadata.version(name)}-py3-none-any.whl"
    record = []
    with zipfile.ZipFile(path, "w") as wheel:
        for file in metadata.distribution(name).files or ():
            if (
                file.parts[0] in ("..", "/")
                or file.suffix == ".pyc"
                or file.name in ("RECORD", "INSTALLER", "REQUESTED")
            ):
                continue
            content = file.read_binary()
            wheel.writestr(file.as_posix(), content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            record.append(f"{file.as_posix()},sha256={digest},{len(content)}\n")
        wheel.writestr(f"{name}-{metadata.version(name)}.dist-info/RECORD", "".join(record))
    return path


class Index(http.server.ThreadingHTTPServer):
    """Package indexes of our own: each folder below `root` is one; what was asked of it is in `asked`."""

    def __init__(self, root: Path):
        self.root, self.asked = root, []
        index = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *args):
                super().__init__(*args, directory=str(root))

            def log_message(self, *args):
                index.asked.append(self.path)

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    root = tmp_path_factory.mktemp("index")
    for name in (
        "cuda",
        "cpu",
    ):  # what pip's sources offer: a PyTorch that needs CUDA's libraries, or one that does not
        make_wheel(root / name, "numpy", "2.4.6")
        make_wheel(root / name, "setuptools", SETUPTOOLS)
        make_wheel(root / name, "nvidia-xyz", "13.0")
        make_wheel(root / name, "torch", "2.13.0", ("nvidia-xyz",) if name == "cuda" else ())
    shutil.copytree(repack(root / "cuda", "pip").parent, root / "cpu" / "pip")
    make_wheel(root / "whl" / "cpu", "torch", "2.13.0+cpu")
    make_wheel(root / "whl" / "cu130", "torch", "2.13.0+cu130", ("nvidia-xyz",))
    with Index(root) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def pip_folder(index, tmp_path_factory):
    """This Python's pip, already compiled: environments that see this folder need no copy of their own."""
    folder = tmp_path_factory.mktemp("pip")
    installed = Path(metadata.distribution("pip").locate_file(""))
    for name in ("pip", f"pip-{PIP}.dist-info"):
        (folder / name).symlink_to(installed / name, target_is_directory=True)
    return folder


def new_project(folder: Path, repository: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("bootstrap.py", "Makefile"):
        shutil.copy(repository / name, folder)
    (folder / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    (folder / "backend.py").write_text(BACKEND, encoding="utf-8")
    (folder / "constraints.txt").write_text(
        "".join(f"{name}=={version}\n" for name, version in PINS.items()), encoding="utf-8"
    )
    return folder


@pytest.fixture
def project(tmp_path, repository):
    return new_project(tmp_path / "my köurse", repository)  # a blank and a letter that ASCII lacks


@pytest.fixture
def bootstrap(project, monkeypatch):
    monkeypatch.chdir(project)
    return load(project)


def load(project: Path):
    spec = importlib.util.spec_from_file_location("bootstrap", project / "bootstrap.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def settings(index: Index, offers: str, folder: Path, gpu: bool, **more: str) -> dict[str, str]:
    """An environment in which pip knows only our index, and nvidia-smi answers as with a GPU or without."""
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    answer = "case $1 in -L) echo 'GPU 0: NVIDIA H200';; *) echo 590.44.01;; esac" if gpu else "exit 9"
    (tools / "nvidia-smi").write_text(f"#!/bin/sh\n{answer}\n", encoding="utf-8")
    (tools / "nvidia-smi").chmod(0o755)
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(("PIP_", "PYTHON", "MAKE")) and not name.upper().endswith("_PROXY")
    }
    kept.pop("TORCH", None)
    ours = {
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": f"{index.url}/{offers}",
        "PIP_CACHE_DIR": str(folder / "cache"),
        "FTLAB_TORCH_INDEX": f"{index.url}/whl",
        "NO_PROXY": "127.0.0.1",
    }
    return {**kept, **ours, **more}


def fast_venv(bootstrap, pip_folder: Path) -> None:
    """Make .venv as `make_venv` does, with a pip that was unpacked before."""
    bootstrap.VENV.mkdir(exist_ok=True)
    bootstrap.LOG.write_text("", encoding="utf-8")
    venv.create(bootstrap.VENV, symlinks=True)
    (packages,) = bootstrap.VENV.glob("lib/python3*/site-packages")
    (packages / "pip.pth").write_text(str(pip_folder), encoding="utf-8")


@pytest.fixture
def set_up(bootstrap, pip_folder, index, tmp_path, monkeypatch, capsys):
    """Run the set-up with a quick .venv; return the exit code, what it said, what it installed, and what was asked."""

    def run(offers: str, gpu: bool = False, **more: str) -> SimpleNamespace:
        environment = settings(index, offers, tmp_path, gpu, **more)
        for name in {*os.environ} - {*environment}:
            monkeypatch.delenv(name)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(bootstrap, "make_venv", lambda: fast_venv(bootstrap, pip_folder))
        monkeypatch.setattr(bootstrap, "SMALLEST_MB", 1)
        index.asked.clear()
        code = bootstrap.main([])
        said = capsys.readouterr()
        found = bootstrap.VENV.glob("lib/python3*/site-packages/*.dist-info") if bootstrap.VENV.is_dir() else ()
        packages = dict(path.name.removesuffix(".dist-info").split("-") for path in found)
        from_torch = [path for path in index.asked if path.startswith("/whl")]
        return SimpleNamespace(code=code, out=said.out, err=said.err, packages=packages, from_torch=from_torch)

    return run


def refusal(done: SimpleNamespace) -> str:
    """The one sentence with which a set-up was refused."""
    (line,) = done.err.splitlines()
    assert line.startswith("ftlab: ")
    assert "Traceback" not in done.err
    return line.removeprefix("ftlab: ")


# ---- PyTorch


@pytest.mark.parametrize(
    ("wish", "version", "kind", "gpu", "system", "expected"),
    [
        ("auto", "2.13.0", "cuda", False, "Linux", "cpu"),
        ("auto", "2.13.0", "cuda", True, "Linux", None),
        ("auto", "2.13.0", "cpu", False, "Linux", None),
        ("auto", "2.13.0+cpu", "cpu", True, "Linux", None),
        ("auto", "2.13.0+cu130", "cuda", False, "Linux", "cpu"),
        ("auto", "2.13.0+rocm7.1", "other", False, "Linux", None),
        ("auto", "2.13.0+cu130", "cuda", False, "Windows", None),
        ("auto", "2.13.0", "cpu", True, "Windows", None),
        ("cpu", "2.13.0", "cuda", True, "Linux", "cpu"),
        ("cpu", "2.13.0", "cpu", True, "Windows", None),
        ("cpu", "2.13.0", "cpu", False, "Darwin", None),
        ("cuda", "2.13.0", "cuda", False, "Linux", None),
        ("cuda", "2.13.0", "cpu", True, "Windows", "cu130"),
        ("cuda", "2.13.0+cpu", "cpu", True, "Linux", "cu130"),
        ("cu126", "2.13.0", "cuda", True, "Linux", "cu126"),
        ("cu126", "2.13.0+cu126", "cuda", True, "Linux", None),
    ],
)
def test_where_pytorch_comes_from(bootstrap, wish, version, kind, gpu, system, expected):
    assert bootstrap.torch_index(wish, bootstrap.Torch(version, kind), gpu, system) == expected
    assert bootstrap.torch_index(wish, None, gpu, system) is None  # it is installed already


@pytest.mark.parametrize(
    ("version", "others", "kind"),
    [
        ("2.13.0", ["numpy"], "cpu"),  # PyPI for Windows and macOS
        ("2.13.0", ["nvidia-cudnn-cu13", "triton"], "cuda"),  # PyPI for Linux
        ("2.13.0", ["cuda_bindings"], "cuda"),
        ("2.13.0+cpu", ["numpy"], "cpu"),
        ("2.13.0+cu130", [], "cuda"),
        ("2.13.0+xpu", [], "other"),
    ],
)
def test_the_kind_of_pytorch_that_pip_offers(bootstrap, version, others, kind):
    names = [("torch", version), *((name, "1") for name in others)]
    wanted = [{"metadata": {"name": name, "version": number}} for name, number in names]
    assert bootstrap.torch_in(wanted) == (version, kind)
    assert bootstrap.torch_in(wanted[1:]) is None


def as_the_page_shows(lines: list[str], index: Index) -> set[str]:
    """Lines of a set-up without this machine's addresses and numbers."""
    shown = "\n".join(lines).replace(f"{index.url}/whl", "https://download.pytorch.org/whl")
    shown = re.sub(r"with Python [\d.]+", "with Python 3.11.7", shown)
    return {*re.sub(r"\d+(?= packages| MB to| MB$| s$)", "N", shown, flags=re.MULTILINE).splitlines()}


def test_without_a_gpu_pytorch_alone_comes_from_its_cpu_index(index, project, tmp_path, repository):
    environment = settings(index, "cuda", tmp_path, gpu=False)
    index.asked.clear()
    command = ["make", "doctor", f"PYTHON={sys.executable}"]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path for path in index.asked if path.startswith("/whl")} == {
        "/whl/cpu/torch/", "/whl/cpu/torch/torch-2.13.0%2Bcpu-py3-none-any.whl"
    }  # fmt: skip
    names = {path.name for path in (project / ".venv").glob("lib/python3*/site-packages/*.dist-info")}
    assert "torch-2.13.0+cpu.dist-info" in names
    assert not any(name.startswith("nvidia") for name in names)
    said = done.stdout.splitlines()
    assert re.match(r"ftlab: 2 packages: 0 MB to download; unpacked they take about 0 MB$", said[2])
    assert said[3] == f"ftlab: PyTorch's CPU build comes from {index.url}/whl/cpu, as there is no NVIDIA GPU"
    assert said[-1] == "the course runs"
    page = (repository / "docs" / "set_up.md").read_text(encoding="utf-8")
    assert as_the_page_shows(said[:-1], index) <= {*page.splitlines()}

    # A second run finds that all is done, says nothing, and asks nobody.
    index.asked.clear()
    again = subprocess.run(
        ["make", "doctor"], cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    assert again.stdout == "the course runs\n"
    assert index.asked == []
    # A Python that was asked for by name is not replaced by another.
    command = ["make", "doctor", "PYTHON=python-that-is-not-there", "TORCH=cpu"]
    again = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert again.returncode != 0
    assert again.stdout == ""
    assert "python-that-is-not-there is missing" in again.stderr
    assert "make doctor TORCH=cpu PYTHON=python3.12" in again.stderr


def test_with_a_gpu_nothing_is_added(set_up, bootstrap):
    bootstrap.VENV.mkdir()
    bootstrap.LOG.write_text("a set-up that was cut off\n", encoding="utf-8")
    (bootstrap.VENV / "half").write_text("", encoding="utf-8")
    done = set_up("cuda", gpu=True)
    assert (done.code, done.from_torch) == (0, [])
    assert done.packages == {
        "ftlab": "1",
        "numpy": "2.4.6",
        "torch": "2.13.0",
        "nvidia_xyz": "13.0",
        "setuptools": SETUPTOOLS,
    }
    assert ".venv is half-made: making it anew" in done.out
    assert not (bootstrap.VENV / "half").exists()
    assert json.loads(bootstrap.READY.read_text(encoding="utf-8"))["torch"] == "2.13.0"
    assert not (bootstrap.VENV / "tmp").exists()
    # TORCH says the same as what is there, or something else.
    assert bootstrap.is_ready("auto")
    assert bootstrap.is_ready("cuda")
    assert bootstrap.is_ready("cu130")  # that is the CUDA version of pip's own build
    assert not bootstrap.is_ready("cpu")
    assert not bootstrap.is_ready("cu126")
    # New pins: .venv is brought up to them. Where pip fails, what is there stays, however often it fails.
    bootstrap.PINS[0].write_text(
        bootstrap.PINS[0].read_text(encoding="utf-8").replace(SETUPTOOLS, "0.0.1"), encoding="utf-8"
    )
    assert not bootstrap.is_ready("auto")
    for _ in range(2):
        failed = set_up("cuda", gpu=True, PIP_NO_INDEX="1")
        assert failed.code == 1
        assert "the pins have changed: bringing .venv up to them" in failed.out
        assert failed.packages == done.packages


def test_the_stamp_goes_before_pip_changes_what_it_vouches_for(bootstrap, monkeypatch):
    class PipThatIsCutOff:
        def run(self, *arguments):
            if "--editable" in arguments:
                raise bootstrap.Stop("cut off", 1)

        def report(self, *arguments):
            return []

    bootstrap.VENV.mkdir()
    bootstrap.READY.write_text("{}", encoding="utf-8")
    with pytest.raises(bootstrap.Stop, match="cut off"):
        bootstrap.install(PipThatIsCutOff(), "auto")
    assert not bootstrap.READY.exists()


def test_what_another_set_up_has_just_made_is_not_made_again(bootstrap, monkeypatch, capsys):
    answers = iter(["", "Python 3.12.1, torch 2.13.0"])  # before the lock, and within
    monkeypatch.setattr(bootstrap, "is_ready", lambda wish: next(answers))
    monkeypatch.setattr(bootstrap, "prepare", lambda wish: pytest.fail("made again"))
    monkeypatch.delenv("TORCH", raising=False)
    assert bootstrap.main([]) == 0
    assert capsys.readouterr().out == "ftlab: .venv is ready: another set-up has just made it\n"


def test_where_pip_offers_a_cpu_build_nothing_is_added(set_up, bootstrap, repository, index):
    bootstrap.VENV.mkdir()
    stamp = {"folder": "/elsewhere", "python": "3.11.1", "torch": "2.13.0", "pins": bootstrap.hash_of_pins()}
    bootstrap.READY.write_text(json.dumps(stamp), encoding="utf-8")
    (bootstrap.VENV / "pyvenv.cfg").write_text("", encoding="utf-8")
    done = set_up("cpu")
    assert (done.code, done.from_torch) == (0, [])
    assert done.packages["torch"] == "2.13.0"
    assert ".venv was set up in another folder (/elsewhere): making it anew" in done.out
    _, *shown = done.out.splitlines()
    page = (repository / "docs" / "set_up.md").read_text(encoding="utf-8")
    assert as_the_page_shows(shown, index) <= {*page.splitlines()}
    assert shown[-2].startswith("ftlab: next: .venv/bin/ftlab run 00")


def test_torch_cuda_adds_the_cuda_index_where_pip_offers_a_cpu_build(set_up, bootstrap):
    done = set_up("cpu", TORCH="cuda")
    assert done.code == 0
    assert {path.split("/")[2] for path in done.from_torch} == {"cu130"}
    assert done.packages["torch"] == "2.13.0+cu130"
    assert done.packages["nvidia_xyz"] == "13.0"
    assert bootstrap.is_ready("cuda")
    assert bootstrap.is_ready("cu130")


def test_a_torch_that_does_not_exist_is_refused(set_up, bootstrap):
    done = set_up("cpu", TORCH="rocm6")
    assert done.code == 2
    assert refusal(done).startswith("TORCH is 'rocm6'; expected cpu, cuda, or a CUDA index of PyTorch such as cu130")
    assert not bootstrap.VENV.exists()


def test_where_pytorch_s_index_fails_the_sentence_says_the_two_ways(set_up):
    done = set_up("cuda", FTLAB_TORCH_INDEX="http://127.0.0.1:9/whl", PIP_RETRIES="1")
    assert done.code == 1
    last = done.err.splitlines()[-1]
    assert "pip did not reach 127.0.0.1" in last
    assert "name it in FTLAB_TORCH_INDEX; with TORCH=cuda you get the build that pip's sources have" in last


# ---- What is refused


def test_any_python_3_can_read_it(repository):
    ast.parse((repository / "bootstrap.py").read_text(encoding="utf-8"), feature_version=(3, 7))


def python(version=(3, 12, 1), maxsize=2**63 - 1, executable="/opt/python"):
    return SimpleNamespace(
        version_info=version, maxsize=maxsize, executable=executable, prefix="/opt", stdout=sys.stdout
    )


@pytest.mark.parametrize("version", [(3, 6, 15), (3, 10, 13), (3, 14, 0)])
def test_a_python_too_old_or_too_new_is_refused(bootstrap, monkeypatch, version):
    monkeypatch.setattr(bootstrap, "sys", python(version))
    name = ".".join(map(str, version))
    with pytest.raises(bootstrap.Stop) as refused:
        bootstrap.check_python()
    assert str(refused.value) == f"/opt/python is Python {name}; expected Python 3.11 to 3.13, 64-bit: {{other}}"
    assert refused.value.code == 2


LIAR = """#!/bin/sh
# A Python that believes to be another.
[ "$1" = bootstrap.py ] || exec {python} "$@"
shift
exec {python} -c "
import runpy, sys
sys.version_info, sys.executable = {version}, '$0'
runpy.run_path('bootstrap.py', run_name='__main__')" "$@"
"""


def test_make_refuses_another_python_in_one_sentence(project, tmp_path):
    old = tmp_path / "python3.9"
    old.write_text(LIAR.format(python=sys.executable, version=(3, 9, 1)), encoding="utf-8")
    old.chmod(0o755)
    done = subprocess.run(["make", "run", f"PYTHON={old}"], cwd=project, capture_output=True, text=True, check=False)
    first, *_ = done.stderr.splitlines()
    assert done.returncode != 0
    assert first == (f"ftlab: {old} is Python 3.9.1; expected Python 3.11 to 3.13, 64-bit: make run PYTHON=python3.12")
    assert not (project / ".venv").exists()


def test_make_says_which_python_is_missing(project):
    command = ["make", "run", "PYTHON=python-that-is-not-there"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    first, *_ = done.stderr.splitlines()
    assert done.returncode != 0
    assert first.startswith(
        "ftlab: python-that-is-not-there is missing, or older than 3.6; expected Python 3.11 to 3.13"
    )


def test_a_32_bit_python_is_refused(bootstrap, monkeypatch):
    monkeypatch.setattr(bootstrap, "sys", python(maxsize=2**31 - 1))
    with pytest.raises(bootstrap.Stop, match=r"is a 32-bit Python 3.12.1; expected Python 3.11 to 3.13, 64-bit"):
        bootstrap.check_python()


@pytest.mark.parametrize("missing", ["venv", "ensurepip"])
def test_a_python_without_venv_is_refused(bootstrap, monkeypatch, missing):
    find = importlib.util.find_spec
    monkeypatch.setattr(bootstrap.importlib.util, "find_spec", lambda name: None if name == missing else find(name))
    with pytest.raises(bootstrap.Stop, match=f"has no module {missing}.*sudo apt install python3.*-venv"):
        bootstrap.check_python()


@pytest.mark.parametrize(
    ("again", "advised"),
    [
        ("python3 bootstrap.py", "python3.12 bootstrap.py"),
        ("make run", "make run PYTHON=python3.12"),
        ("make run TORCH=cpu PYTHON=/opt/python3.9", "make run TORCH=cpu PYTHON=python3.12"),
        ("python3 bootstrap.py --here", "choose a runtime with such a Python, then: python3 bootstrap.py --here"),
    ],
)
def test_another_python_is_advised_in_the_command_that_was_typed(bootstrap, again, advised):
    assert bootstrap._with_other_python(again) == advised


def test_the_command_to_type_again_is_the_one_that_was_typed(bootstrap, monkeypatch, tmp_path):
    executable = tmp_path / "python3.11"
    executable.write_text("", encoding="utf-8")
    executable.chmod(0o755)
    monkeypatch.setattr(bootstrap, "sys", python((3, 11, 7), executable=str(executable)))
    assert bootstrap._this_command() == f"{executable} bootstrap.py"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert bootstrap._this_command() == "python3.11 bootstrap.py"
    monkeypatch.chdir(tmp_path)
    assert bootstrap._this_command() == f"python3.11 '{bootstrap.ROOT}/bootstrap.py'"
    monkeypatch.setattr(bootstrap, "_typed", lambda path: path.name)
    monkeypatch.setattr(bootstrap, "os", SimpleNamespace(name="nt"))
    assert bootstrap._this_command() == "py -3.11 bootstrap.py"


def test_make_repeats_what_was_typed(project, tmp_path):
    saying = tmp_path / "python3.11"
    saying.write_text('#!/bin/sh\n[ "$1" = -c ] || { echo "$3"; exit 1; }\n', encoding="utf-8")
    saying.chmod(0o755)
    outer = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "TORCH"}  # of a `make test`
    environment = {name: value for name, value in os.environ.items() if name not in outer}
    command = ["make", "doctor", "TORCH=cpu", f"PYTHON={saying}"]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == f"make doctor TORCH=cpu PYTHON={saying}\n"
    environment["PYTHON"] = str(saying)  # a variable of the environment stays for the next time
    done = subprocess.run(["make", "run"], cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "make run\n"


@pytest.mark.parametrize(
    ("system", "machine", "libc", "sentence"),
    [
        ("Darwin", "x86_64", "", "no builds for Macs with an Intel processor"),
        ("Linux", "x86_64", "glibc 2.27", "this Linux has glibc 2.27; expected glibc 2.28 or newer"),
        ("Linux", "aarch64", "no glibc", "this Linux has no glibc"),
        ("Darwin", "arm64", "", "this is macOS 13.6.1; expected macOS 14 or newer"),
        ("Windows", "ARM64", "", "no builds for a Python for Windows on ARM"),
    ],
)
def test_a_system_without_wheels_is_refused(bootstrap, monkeypatch, system, machine, libc, sentence):
    answers = {"system": system, "machine": machine, "mac_ver": ("13.6.1", ("", "", ""), machine)}
    told = {name: lambda answer=answer: answer for name, answer in answers.items()}
    monkeypatch.setattr(bootstrap, "platform", SimpleNamespace(**told))
    if system == "Windows":
        monkeypatch.setattr(bootstrap.sysconfig, "get_platform", lambda: "win-arm64")
    monkeypatch.setattr(bootstrap, "_libc", lambda: libc)
    monkeypatch.setattr(bootstrap, "_answer", lambda command: "0")
    with pytest.raises(bootstrap.Stop, match=sentence):
        bootstrap.check_system()


@pytest.mark.parametrize("version", ["14.0", "15.6.1", "26.1"])
def test_a_macos_with_wheels_is_taken(bootstrap, monkeypatch, version):
    told = {"system": lambda: "Darwin", "machine": lambda: "arm64", "mac_ver": lambda: (version, ("", "", ""), "arm64")}
    monkeypatch.setattr(bootstrap, "platform", SimpleNamespace(**told))
    bootstrap.check_system()


def test_too_little_space_is_refused_before_anything_is_made(bootstrap, monkeypatch, capsys):
    monkeypatch.setattr(bootstrap.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1.2e9))
    monkeypatch.delenv("TORCH", raising=False)
    assert bootstrap.main([]) == 2
    said = capsys.readouterr().err
    assert f"1,200 MB are free in {bootstrap.ROOT}, and the set-up needs 2,400 MB; make room on that disk, then" in said
    assert not bootstrap.VENV.exists()


def package(name: str, url: str = "https://x.invalid/a.whl") -> dict:
    return {"metadata": {"name": name, "version": "1"}, "download_info": {"url": url}}


class Sized:
    """A pip whose packages have these sizes."""

    def __init__(self, *sizes):
        self.found = sizes

    def sizes(self, urls):
        return list(self.found)

    def caches_on(self, folder):
        return True


def test_too_little_space_for_what_comes_is_refused_with_both_numbers(bootstrap, monkeypatch):
    monkeypatch.setattr(bootstrap.shutil, "disk_usage", lambda folder: SimpleNamespace(free=3e9))
    with pytest.raises(bootstrap.Stop) as refused:
        bootstrap.announce([package("torch"), package("nvidia-cudnn")], Sized(200e6, 1500e6), bootstrap.ROOT)
    assert "3,000 MB are free in" in str(refused.value)
    assert "needs 7,300 MB (3,900 MB unpacked, 3,400 MB for the download)" in str(refused.value)


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ([200e6, 15e6], "2 packages: 215 MB to download; unpacked they take about 968 MB"),
        ([200e6, None], "2 packages: at least 200 MB to download (sizes unknown: 1); unpacked"),
        ([200e6, None] * 51, "102 packages: at least 10.2 GB to download (sizes unknown: 51)"),
        ([None, None] * 51, "102 packages: about 550 MB to download, an estimate, as their sizes could not be asked"),
    ],
)
def test_it_says_first_how_many_mb_come(bootstrap, monkeypatch, capsys, sizes, said):
    monkeypatch.setattr(bootstrap.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1e12))
    bootstrap.announce([package(f"p{number}") for number in range(len(sizes))], Sized(*sizes), bootstrap.ROOT)
    assert capsys.readouterr().out.startswith(f"ftlab: {said}")


def test_files_of_this_disk_are_not_counted_as_download(bootstrap, monkeypatch, capsys):
    packages = [package("a"), package("b", "file:///wheels/b.whl")]
    bootstrap.announce(packages, Sized(3e6, 5e6), bootstrap.ROOT)
    assert "2 packages: 8 MB (5 MB of it from this disk);" in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_is_refused(bootstrap, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(bootstrap.tempfile, "TemporaryFile", refuse)
    with pytest.raises(
        bootstrap.Stop, match=r"cannot be written \(Permission denied\); copy the course to a folder of yours"
    ):
        bootstrap.check_folder()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root, to be somebody else")
def test_another_s_folder_is_refused(repository, tmp_path_factory):
    system = "/usr/bin/python3"
    if not shutil.which("setpriv") or not Path(system).exists():
        pytest.skip("no setpriv, or no Python that everybody may run")
    folder = new_project(Path("/tmp") / f"ftlab-unwritable-{os.getpid()}", repository)
    try:
        folder.chmod(0o755)
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", system, "bootstrap.py"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if "expected Python" in done.stderr or "no module" in done.stderr:
            pytest.skip("the system's Python cannot run the course")
        assert done.returncode == 2
        assert done.stderr.startswith(f"ftlab: {folder} cannot be written (Permission denied)")
    finally:
        shutil.rmtree(folder)


def test_a_folder_without_the_course_is_refused(bootstrap):
    bootstrap.PINS[0].unlink()
    with pytest.raises(bootstrap.Stop, match=r"has no constraints.txt; get the whole course"):
        bootstrap.check_folder()


def test_a_path_that_no_virtual_environment_may_have_is_refused(tmp_path, repository):
    bootstrap = load(new_project(tmp_path / "a:b", repository))
    with pytest.raises(bootstrap.Stop, match="contains ':'"):
        bootstrap.check_folder()


def _file(path: Path) -> None:
    path.write_text("a file", encoding="utf-8")


def _folder(path: Path) -> None:
    path.mkdir()
    (path / "thesis.txt").write_text("years of work", encoding="utf-8")


def _environment(path: Path) -> None:
    (path / "lib" / "python3.11" / "site-packages" / "flask-3.0.dist-info").mkdir(parents=True)
    (path / "pyvenv.cfg").write_text("", encoding="utf-8")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (_file, "is not a folder, and the set-up goes there; rename or delete it, then: "),
        (_folder, "is no virtual environment, so it stays as it is; rename or delete it"),
        (_environment, "has packages that this set-up did not install (flask); rename or delete it"),
    ],
)
def test_a_venv_that_is_something_else_is_refused_and_kept(bootstrap, set_up, make, sentence):
    make(bootstrap.VENV)
    before = sorted(bootstrap.ROOT.rglob("*"))
    done = set_up("cpu")
    assert done.code == 2
    assert sentence in refusal(done)
    assert done.err.endswith(f"then: {bootstrap._this_command()}\n")
    assert [path for path in before if path not in set(bootstrap.ROOT.rglob("*"))] == []


def test_a_venv_whose_python_is_gone_is_not_ready(bootstrap):
    bootstrap.VENV.mkdir()
    stamp = {"folder": str(bootstrap.ROOT), "python": "3.11.1", "torch": "2.13.0", "pins": bootstrap.hash_of_pins()}
    bootstrap.READY.write_text(json.dumps(stamp), encoding="utf-8")
    assert not bootstrap.is_ready("auto")
    assert bootstrap._why_anew(stamp, "auto") == "has no Python that runs"


def test_one_set_up_at_a_time(bootstrap):
    with bootstrap.Lock(), pytest.raises(bootstrap.Stop, match="another set-up is running"), bootstrap.Lock():
        pass
    with bootstrap.Lock():
        pass


# ---- pip fails


def test_a_proxy_that_fails_is_named(set_up, bootstrap):
    proxy = "http://me:secret@127.0.0.1:9"
    done = set_up("cpu", http_proxy=proxy, NO_PROXY="")
    assert done.code == 1
    *_, last = done.err.splitlines()
    assert "ftlab: pip did not get through the proxy http://***@127.0.0.1:9 (http_proxy); set the right one" in last
    assert "HTTPS_PROXY" in last
    assert f"then: {bootstrap._this_command()}; pip's words are in" in last
    assert "secret" not in done.err


def test_an_index_that_fails_is_named(set_up, bootstrap):
    done = set_up("cpu", PIP_INDEX_URL="http://127.0.0.1:9/simple")
    assert done.code == 1
    (last,) = done.err.splitlines()
    assert "ftlab: pip did not reach 127.0.0.1, with no proxy set; look at the network" in last
    assert not bootstrap.READY.exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "the disk is full"),
        ("OSError: [WinError 112] There is not enough space on the disk", "the disk is full"),
        ("host='a.example', port=443 ... CERTIFICATE_VERIFY_FAILED", "the certificate of a.example was not accepted"),
        ("ERROR: No matching distribution found for torch==2.13.0", "there is no torch==2.13.0 for Python 3"),
        ("ERROR: [WinError 32] The process cannot access the file", "close what uses it"),
        (
            "ProxyError('Tunnel connection failed: 407 Proxy Authentication Required')",
            "pip did not get through the proxy",
        ),
        (
            "WARNING: Retrying (ReadTimeoutError)\nERROR: Could not find a version that satisfies the requirement "
            "torch==2.13.0 (from versions: 2.14.0)\nERROR: No matching distribution found for torch==2.13.0",
            "there is no torch==2.13.0 for Python 3",
        ),
        ("error: externally-managed-environment", "this Python belongs to the system; set up without --here: "),
        ("ERROR: something new", "pip could not install the packages; mend what it names"),
    ],
)
def test_pip_s_failure_is_explained(bootstrap, words, sentence):
    *_, last = bootstrap.explanation(words, {}, bootstrap.LOG).splitlines()
    assert sentence in last
    assert str(bootstrap.LOG) in last


# ---- The files around it


def _download_mb(lesson: str) -> list[int]:
    return [assets.ASSETS[name].download_mb for name in profiles.resolve(lesson, "cpu", {}).assets]


def test_it_agrees_with_the_course(repository):
    bootstrap = load(repository)
    assert doctor.SUPPORTED == bootstrap.SUPPORTED
    assert sum(_download_mb("start_here")) == bootstrap.FIRST_MB
    assert "torch" in bootstrap.HERE_KEPT
    assert bootstrap.pinned("torch") == doctor.pinned()["torch"]


def test_the_page_about_the_set_up_names_what_is_true(repository):
    bootstrap = load(repository)
    page = (repository / "docs" / "set_up.md").read_text(encoding="utf-8")
    assert f"torch=={bootstrap.pinned('torch')}+cpu" in page
    assert bootstrap.TORCH_INDEX in page
    assert f"PyTorch's index `{bootstrap.CUDA}`" in page
    assert f"driver from {bootstrap.CUDA_13_DRIVER} on" in page
    total = sum(asset.download_mb for asset in assets.ASSETS.values())
    assert f"lesson 00 another {bootstrap.FIRST_MB} MB, all lessons together {total} MB" in page
    readme = (repository / "README.md").read_text(encoding="utf-8")
    assert f"fetches {total} MB of weights and reviews once" in readme
    assert f"once the set-up is done and its {bootstrap.FIRST_MB} MB are there" in readme


def test_every_target_of_make_sets_up_first(repository):
    makefile = (repository / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^\.PHONY: (run .*)$", makefile, re.MULTILINE)[0].split()
    for target in {*targets} - {"clean", "help"}:
        assert re.search(rf"^{target}: \$\(READY\)", makefile, re.MULTILINE), target


# ---- Colab and Kaggle


def here(bootstrap, monkeypatch, capsys, **environment: str) -> str:
    """Run with --here, where every call of pip is an error; return the sentence of refusal."""
    for name in ("TORCH", "COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for name in ("run", "report"):
        monkeypatch.setattr(bootstrap.Pip, name, lambda *_: pytest.fail("pip was called"))
    assert bootstrap.main(["--here"]) == 2
    return refusal(SimpleNamespace(err=capsys.readouterr().err))


def test_here_refuses_torch_which_it_would_not_heed(bootstrap, monkeypatch, capsys):
    sentence = here(bootstrap, monkeypatch, capsys, TORCH="cpu")
    assert sentence.startswith("TORCH has no effect with --here, which keeps the PyTorch that is there; leave it out")
    assert sentence.endswith(f"then: {bootstrap._this_command()} --here")


def test_here_changes_no_system_s_python(bootstrap, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    sentence = here(bootstrap, monkeypatch, capsys)
    assert "is neither Colab's nor Kaggle's, nor of a virtual or conda environment" in sentence
    assert sentence.endswith(f"set up without --here: {bootstrap._this_command()}")
    (tmp_path / "conda-meta").mkdir()
    assert bootstrap._may_be_changed()


@pytest.mark.parametrize("service", ["COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"])
def test_here_installs_no_pytorch(bootstrap, monkeypatch, capsys, service, repository):
    shutil.copy(repository / "pyproject.toml", bootstrap.ROOT)
    version = metadata.version

    def without_torch(name):
        if name == "torch":
            raise metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(metadata, "version", without_torch)
    sentence = here(bootstrap, monkeypatch, capsys, **{service: "1"})
    assert sentence.endswith(
        f"has no PyTorch, and --here installs none; set up without --here: {bootstrap._this_command()}"
    )


def cells(readme: str) -> list[str]:
    (section,) = re.findall(r"^## Colab and Kaggle\n(.*?)(?=^## )", readme, re.MULTILINE | re.DOTALL)
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


def test_the_cells_for_colab_and_kaggle_keep_its_pytorch(repository, index, pip_folder, tmp_path):
    clone, install, run = cells((repository / "README.md").read_text(encoding="utf-8"))
    service = SimpleNamespace(VENV=tmp_path / "colab", LOG=tmp_path / "log")
    fast_venv(service, pip_folder)
    (packages,) = service.VENV.glob("lib/python3*/site-packages")
    preinstalled = {"torch": "2.11.0+cu128", "ipykernel": "6.17.1", "numpy": "2.0.2", "tornado": "6.5.1"}
    project = (repository / "pyproject.toml").read_text(encoding="utf-8")
    pins = {name.lower().replace("_", "-"): version for name, version in doctor.pinned().items()}
    course = {name: version for name, version in pins.items() if f'"{name}>=' in project}
    root = index.root / "colab"
    for name, version in course.items():
        make_wheel(root, name, version)
    shutil.rmtree(root / "setuptools", ignore_errors=True)
    repack(root, "setuptools")  # it builds the course
    for name, version in preinstalled.items():
        make_wheel(tmp_path / "before", name, version)
        with zipfile.ZipFile(next((tmp_path / "before" / name).iterdir())) as wheel:
            wheel.extractall(packages)
    environment = settings(index, "colab", tmp_path, gpu=True)
    environment["PATH"] = f"{service.VENV / 'bin'}{os.pathsep}{environment['PATH']}"

    folder = tmp_path
    for line in [*clone.splitlines(), *install.splitlines()]:
        if line.startswith("%cd "):
            folder = folder / line.removeprefix("%cd ").strip()
            for name in ("bootstrap.py", "pyproject.toml", "constraints.txt"):  # as they are here, committed or not
                shutil.copy(repository / name, folder)
        elif line.startswith("!"):
            command = re.sub(r"https://\S+/ftlab", f"file://{repository} ftlab", line.removeprefix("!"))
            done = subprocess.run(
                command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr
    kept, size, *_ = done.stdout.splitlines()
    assert kept.startswith("ftlab: kept as they are: torch 2.11.0+cu128, ipykernel 6.17.1")
    assert re.match(r"ftlab: \d+ packages: 0 MB to download; unpacked they take about 0 MB$", size)
    found = [path.name.removesuffix(".dist-info").split("-") for path in packages.glob("*.dist-info")]
    installed = {name.lower().replace("_", "-"): version for name, version in found}
    assert {name: installed[name] for name in ("torch", "ipykernel", "tornado")} == {
        name: preinstalled[name] for name in ("torch", "ipykernel", "tornado")
    }
    assert installed["numpy"] == course["numpy"]
    assert installed["transformers"] == course["transformers"]
    assert run.splitlines() == ["!ftlab run 00"]
    assert (service.VENV / "bin" / "ftlab").exists()
    assert not (folder / ".venv").exists()
