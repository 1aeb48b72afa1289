"""What other systems do otherwise than Linux, simulated here as far as that is honest.

Windows is not here, and macOS is not: .github/workflows/ci.yml runs all tests there. These tests keep known traps shut.
"""

import ast
import importlib.util
import io
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from ftlab import cli
from ftlab.course import execution, records
from ftlab.evaluation import sandbox
from tests import nightly, windows

PRODUCT = ("ftlab", "benchmarks", "docs", "tests", "bootstrap.py", "conftest.py")
POSIX_ALONE = {"fcntl", "grp", "pty", "pwd", "resource", "termios"}


# --- text in files and pipes ----------------------------------------------------------------------------------------
def files_of(repository: Path, names: tuple[str, ...]) -> list[Path]:
    """The Python files that are, or lie in, `names`."""
    return [file for name in names for file in sorted([repository / name, *(repository / name).rglob("*.py")])
            if file.suffix == ".py"]  # fmt: skip


def without_encoding(source: str) -> list[int]:
    """The lines of calls that read or write text in the encoding of the system, which is not UTF-8 on Windows."""
    found = []
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call) or any(word.arg == "encoding" for word in call.keywords):
            continue
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        if name in ("read_text", "write_text") or (name == "open" and _as_text(call)):
            found.append(call.lineno)
    return sorted(found)


def _as_text(call: ast.Call) -> bool:
    """Whether this `open` is the built-in one, or that of a path, and opens text."""
    given = call.args[1:2] if isinstance(call.func, ast.Name) else call.args[:1]  # open(path, mode), path.open(mode)
    given += [word.value for word in call.keywords if word.arg == "mode"]
    if not given:
        return True
    mode = given[0].value if isinstance(given[0], ast.Constant) else None  # else that of an archive, or of os
    return isinstance(mode, str) and re.fullmatch("[rwaxt+]+", mode) is not None


def test_no_text_is_read_or_written_in_the_encoding_of_the_system(repository):
    files = files_of(repository, PRODUCT)
    assert len(files) > 150
    assert {str(file): lines for file in files if (lines := without_encoding(file.read_text(encoding="utf-8")))} == {}


def test_a_call_without_an_encoding_is_noticed():
    wrong = "open('a')\npath.open()\npath.open('w')\npath.read_text()\npath.write_text(text)\nopen('a', 'w')\n"
    right = (
        "open('a', 'rb')\npath.open('wb')\npath.open(mode='rb')\npath.read_text(encoding='utf-8')\nos.open('name', 1)\n"
    )
    assert without_encoding(wrong + right) == [1, 2, 3, 4, 5, 6]


def test_what_a_code_page_lacks_is_printed_as_an_escape(tmp_path):
    """As in a pipe of Windows: Cyrillic letters in cp1252."""
    rows = "".join(f"хороший фильм {number},{number % 2}\n" for number in range(30))
    (tmp_path / "отзывы.csv").write_text(f"text,label\n{rows}{rows}", encoding="utf-8")
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "ftlab.cli", "audit", "отзывы.csv", "--html", "отчёт.html"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode("cp1252")
    assert rb"the report as a page: \u043e\u0442\u0447\u0451\u0442.html" in done.stdout


def test_a_tick_is_no_error_where_the_console_has_none(monkeypatch):
    kept = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(kept, encoding="cp1252"))
    cli._write_any_letter()
    print("✓ accuracy: at least 0.75")
    sys.stdout.flush()
    assert kept.getvalue().splitlines() == [rb"\u2713 accuracy: at least 0.75"]


def test_answers_in_a_pipe_are_utf_8_whatever_the_code_page(tmp_path, monkeypatch):
    """They are kept in a file, in which an escape would be another answer."""
    (tmp_path / "questions.txt").write_text("Что это?\n", encoding="utf-8")
    kept = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(kept, encoding="cp1252"))
    assert cli.main(["generate", "tiny-llama", str(tmp_path / "questions.txt"), "--max-new-tokens", "2"]) == 0
    assert sys.stdout.encoding == "utf-8"


# --- files that somebody has open -----------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def base_and_adapter(tmp_path_factory) -> tuple[Path, Path]:
    from tests.merging import merge_cases

    folder = tmp_path_factory.mktemp("open")
    base = merge_cases.save_base(folder / "base")
    return base, merge_cases.save_adapter(folder / "adapter", base)


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="which files are open is asked of Linux")
def test_a_merged_model_is_closed_before_its_folder_gets_its_name(base_and_adapter, tmp_path, monkeypatch):
    """A model that was loaded from safetensors is a map of the file, as long as it lives."""
    from ftlab.merging import certificate

    refused = windows.refuse_what_is_open(monkeypatch)
    certificate.merge_with_certificate(*base_and_adapter, tmp_path / "out", ["The rain fell.", "A quiet film."])
    assert (tmp_path / "out" / "config.json").is_file()
    assert refused == []


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="which files are open is asked of Linux")
def test_an_adapter_that_was_loaded_can_be_saved_over(tmp_path, monkeypatch):
    from peft import get_peft_model

    from ftlab.adapters import lora
    from ftlab.models import loading

    refused = windows.refuse_what_is_open(monkeypatch)
    wrapped = loading.causal_lm("tiny-llama")
    wrapped = get_peft_model(wrapped, lora.config(wrapped, rank=4, alpha=8))
    lora.save(wrapped, tmp_path / "adapter", "tiny-llama")
    again = lora.load(loading.causal_lm("tiny-llama"), tmp_path / "adapter", "tiny-llama", trainable=True)
    lora.save(again, tmp_path / "adapter", "tiny-llama")
    assert refused == []


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="which files are open is asked of Linux")
def test_what_is_open_is_refused_as_windows_does(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    file = tmp_path / "folder" / "file"
    file.write_text("x", encoding="utf-8")
    refused = windows.refuse_what_is_open(monkeypatch)
    with file.open(encoding="utf-8"):
        for change in (lambda: file.unlink(), lambda: (tmp_path / "folder").rename(tmp_path / "other")):
            with pytest.raises(PermissionError):
                change()
    file.unlink()
    assert len(refused) == 2


def test_a_progress_file_that_somebody_reads_stops_no_training(tmp_path, monkeypatch):
    from ftlab.training.callbacks import LiveProgress

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "The process cannot access the file", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    nothing = SimpleNamespace()
    LiveProgress(tmp_path).on_train_end(nothing, nothing, nothing)


# --- what a system lacks --------------------------------------------------------------------------------------------
POSIX_NAMES = re.compile(
    r"os\.(fork|forkpty|killpg|geteuid|getuid|getegid|getgid|getpgid|setsid|setpgid|mkfifo|unshare|statvfs|sysconf|nice"
    r"|getloadavg|sched_getaffinity|copy_file_range|pidfd_open|uname|chown|wait|waitstatus_to_exitcode)"
    r"|signal\.(SIGKILL|SIGALRM|SIGHUP|SIGUSR1|SIGXFSZ|alarm|setitimer|pthread_kill)|resource\.\w+"
)
ASKS = re.compile(r"win32|os\.name|(hasattr|getattr)\((os|signal|resource)\b")


def of_posix(source: str) -> list[int]:
    """The lines that import a module of POSIX where nothing sees to its absence, or use a name of POSIX unasked.

    An import may stand in a `try` that catches ImportError. It and a use may stand in a function, or under an `if`,
    that asks which system this is, or whether it has the name.
    """
    found = set()

    def look(node: ast.AST, asked: bool, caught: bool) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            asked = asked or ASKS.search(ast.unparse(node)) is not None
        elif isinstance(node, ast.If | ast.IfExp):
            asked = asked or ASKS.search(ast.unparse(node.test)) is not None
        elif isinstance(node, ast.Try):
            excepted = " ".join(ast.unparse(one.type) for one in node.handlers if one.type)
            sure = caught or re.search("ImportError|ModuleNotFoundError", excepted) is not None
            for part in node.body:
                look(part, asked, sure)
            for part in [*node.handlers, *node.orelse, *node.finalbody]:
                look(part, asked, caught)
            return
        elif isinstance(node, ast.Import | ast.ImportFrom):
            modules = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            names = [f"{node.module}.{alias.name}" for alias in node.names] if isinstance(node, ast.ImportFrom) else []
            missing = bool({*modules} & POSIX_ALONE) and not caught
            if not asked and (missing or any(POSIX_NAMES.fullmatch(name) for name in names)):
                found.add(node.lineno)
        elif isinstance(node, ast.Attribute) and POSIX_NAMES.fullmatch(ast.unparse(node)) and not asked:
            found.add(node.lineno)
        for child in ast.iter_child_nodes(node):
            look(child, asked, caught)

    look(ast.parse(source), False, False)
    return sorted(found)


def test_what_only_posix_has_is_used_only_where_the_system_is_asked(repository):
    files = files_of(repository, ("ftlab", "bootstrap.py"))
    assert {str(file): lines for file in files if (lines := of_posix(file.read_text(encoding="utf-8")))} == {}


def test_modules_of_posix_are_imported_by_tests_only_where_they_may_be_missing(repository):
    """What a test calls, `windows.needs_posix` sees. Of tests/faults Windows reads nothing."""
    found = {}
    for file in files_of(repository, ("tests",)):
        lines = file.read_text(encoding="utf-8").splitlines()
        at = [] if "faults" in file.parts else of_posix("\n".join(lines))
        found[file.name] = [lines[number - 1] for number in at if re.match(r"\s*(import|from)\b", lines[number - 1])]
    assert {name: lines for name, lines in found.items() if lines} == {}


UNASKED = [
    "import resource",
    "from resource import getrlimit",
    "from os import fork",
    "try:\n    import fcntl\nexcept OSError:\n    pass",
    "try:\n    pass\nexcept ImportError:\n    import fcntl",
    "def f():\n    import pwd\n    return pwd",
    "os.killpg(1, 9)",
    "def f(process):\n    process.send_signal(signal.SIGKILL)",
    "class A:\n    def f(self):\n        return getattr(self, 'a', os.getuid())",
    "if sys.argv:\n    os.mkfifo('a')",
    "signal.signal(signal.SIGALRM, print)",
    "def f():\n    return resource.getrusage(0)",
    "async def f():\n    return os.statvfs('.')",
    "cores = os.sysconf('a')",
]
ASKED = [
    "try:\n    import resource\nexcept ImportError:\n    resource = None",
    "try:\n    from fcntl import flock\nexcept (OSError, ModuleNotFoundError):\n    flock = None",
    "if os.name == 'nt':\n    import msvcrt\nelse:\n    import fcntl",
    "def f():\n    if sys.platform == 'win32': return 0\n    import resource\n    return resource.getrusage(0)",
    "if hasattr(os, 'killpg'):\n    os.killpg(1, 9)",
    "root = os.geteuid() == 0 if hasattr(os, 'geteuid') else False",
    "def f():\n    if unshare := getattr(os, 'unshare', None):\n        unshare(1)",
    "os.kill(1, signal.SIGTERM)\nos.getpid()\nself.resource.name",
]


@pytest.mark.parametrize(("source", "found"), [*((one, True) for one in UNASKED), *((one, False) for one in ASKED)])
def test_a_use_of_what_only_posix_has_is_noticed(source, found):
    assert bool(of_posix(source)) == found


def _that_kills() -> str:
    return "SIGKILL"


def _that_does_not() -> None:
    pass


def test_a_test_whose_fixture_needs_posix_is_skipped_on_windows():
    def item(fixture):
        asked = SimpleNamespace(name2fixturedefs={"a": [SimpleNamespace(func=fixture)]})
        return SimpleNamespace(location=("tests/test_a.py", 1, "test_a"), function=_that_does_not, _fixtureinfo=asked)

    assert windows.needs_posix(item(_that_kills))
    assert not windows.needs_posix(item(_that_does_not))
    assert not windows.needs_posix(item(subprocess.Popen.send_signal))  # not one of ours


def test_code_of_a_model_runs_where_there_is_no_process_group_and_no_limit(monkeypatch):
    monkeypatch.delattr(os, "killpg", raising=False)
    assert sandbox.printed("print(6 * 7)") == "42\n"
    assert sandbox.printed("while True: pass", seconds=0.5) is None
    monkeypatch.setitem(sys.modules, "resource", None)
    sandbox._limit(1)


def test_peak_memory_is_that_of_windows_where_there_is_no_resource(monkeypatch):
    monkeypatch.setattr(records, "sys", SimpleNamespace(platform="win32", modules=sys.modules))
    monkeypatch.setitem(sys.modules, "resource", None)
    process = SimpleNamespace(memory_info=lambda: SimpleNamespace(peak_wset=3_000_000))
    monkeypatch.setattr(records.psutil, "Process", lambda: process)
    assert records.peak_memory_mb() == 3


def test_patterns_of_an_adapter_are_tried_where_memory_has_no_limit():
    from ftlab.adapters import config

    code = "import sys; sys.modules['resource'] = None\n" + config._MATCHING
    given = '{"patterns": [["(a|b)*c", "fullmatch"]], "names": ["abc"]}'
    done = subprocess.run([sys.executable, "-c", code], input=given, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("0\ndone\n", "")


def test_a_link_that_is_not_allowed_becomes_a_copy(tmp_path, monkeypatch):
    from ftlab.serving import converter

    def refuse(*paths: Path) -> None:
        raise OSError(1314, "A required privilege is not held by the client")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("x", encoding="utf-8")
    converter._link(tmp_path / "folder" / "file", tmp_path / "copy")
    converter._link(tmp_path / "folder", tmp_path / "copies")
    assert (tmp_path / "copy").read_text(encoding="utf-8") == "x"
    assert (tmp_path / "copies" / "file").is_file()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such sockets")
@pytest.mark.parametrize(("length", "sockets"), [(20, True), (90, False)])
def test_a_folder_whose_name_is_too_long_for_a_socket_is_not_asked_for_one(length, sockets, monkeypatch):
    """An address has at most 103 bytes on macOS, whose own folder for temporary files takes half of them."""
    folder = Path("/tmp") / ("x" * (length - 5))
    made = f"{folder}/ftlab-12345678"
    monkeypatch.setattr(
        execution.tempfile, "TemporaryDirectory",
        lambda **options: _Named(made),
    )  # fmt: skip
    with execution._kernel_options() as options:
        assert ("kernel_manager_class" in options) == sockets
        assert len(os.fsencode(f"{made}/kernel-65535")) <= 103 or not sockets


class _Named:
    """A folder for temporary files that is not made."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> str:
        return self.name

    def __exit__(self, *_: object) -> None:
        pass


def test_what_make_does_can_be_typed_where_there_is_no_make(repository):
    """Each target has a line in the page's table, and what stands there is a module or a command of ours."""
    makefile = (repository / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE)) - {"help"}
    page = (repository / "docs" / "set_up.md").read_text(encoding="utf-8")
    windows_section = page.partition("## Windows")[2].partition("\n## ")[0]
    assert {target for target in targets if f"`make {target}`" not in windows_section} == set()
    modules = re.findall(r"python -m (ftlab[\w.]+)", windows_section)
    assert len(modules) == 2
    for module in modules:
        assert importlib.util.find_spec(module), module
    scripts = {entry.name for entry in metadata.entry_points(group="console_scripts")}
    named = set(re.findall(r"\.venv\\Scripts\\(\w+)", windows_section)) - {"python"}
    assert named >= {"ftlab", "jupyter", "ruff", "mypy"}
    assert named <= scripts | {"ruff"}  # which is a program, and no entry point


# --- names of files -------------------------------------------------------------------------------------------------
def test_every_system_takes_the_names_of_the_repository(repository):
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=repository, capture_output=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    names = [name for name in listed.stdout.decode("utf-8").split("\0") if name]
    assert names
    assert [name for name in names if not windows.takes(name)] == []
    assert len({name.casefold() for name in names}) == len(names)  # macOS and Windows see no capitals
    assert max(map(len, names)) < 120  # Windows allows 260, with the course's own folder


@pytest.mark.parametrize(
    ("name", "taken"),
    [("a/b.txt", True), ("12:30.log", False), ("what?", False), ("aux.py", False), ("a/con", False), ("a.", False)],
)
def test_a_name_that_windows_refuses_is_noticed(name, taken):
    assert windows.takes(name) == taken


# --- the whole course in a folder with a blank and letters outside ASCII --------------------------------------------
@pytest.fixture(scope="module")
def elsewhere(repository, tmp_path_factory) -> SimpleNamespace:
    """A copy of the course, with its cache, its temporary files and its home in such folders, too."""
    root = tmp_path_factory.mktemp("far") / "Größe und Maß" / "Übung é"
    course = root / "the course"
    for name in ("ftlab", "notebooks", "benchmarks"):
        shutil.copytree(repository / name, course / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(repository / name, course)
    for name in ("home", "tmp", "cache"):
        (root / name).mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("FTLAB_", "HF_"))} | {
        "HOME": str(root / "home"), "USERPROFILE": str(root / "home"), "FTLAB_HOME": str(root / "cache"),
        "TMPDIR": str(root / "tmp"), "TEMP": str(root / "tmp"), "TMP": str(root / "tmp"),
        "PYTHONPATH": str(course), "OMP_NUM_THREADS": "1",
    }  # fmt: skip

    def ftlab(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ftlab.cli", *map(str, arguments)]
        return subprocess.run(
            command, cwd=course, env=environment, capture_output=True, text=True, encoding="utf-8", check=False
        )

    return SimpleNamespace(course=course, root=root, ftlab=ftlab)


LESSONS = ("01", "00", "02", "03", "04", "05", "06")  # the quickest first


@pytest.mark.slow
@pytest.mark.parametrize("lesson", LESSONS[: nightly.cases(few=1, nightly=len(LESSONS))])
def test_a_lesson_runs_in_a_folder_with_a_blank_and_letters_outside_ascii(elsewhere, lesson):
    done = elsewhere.ftlab("run", lesson, "--profile", "smoke", "--out", "Ergebnisse für mich")
    assert done.returncode == 0, done.stderr[-3000:]
    (folder,) = elsewhere.course.glob(f"Ergebnisse für mich/{lesson}_*")
    assert (folder / "metrics.json").is_file()
    written = [path.relative_to(elsewhere.course).as_posix() for path in folder.rglob("*")]
    assert [name for name in written if not windows.takes(name)] == []
    assert list((elsewhere.root / "tmp").glob("ftlab-*")) == []


@pytest.mark.slow
def test_files_and_models_in_such_folders_are_read_and_written(elsewhere, classifier_folder):
    model = shutil.copytree(classifier_folder, elsewhere.root / "Modell für é")
    rows = elsewhere.root / "Meine Sätze.csv"
    lines = (f"ein schöner Film {number},{number % 2}" for number in range(40))
    rows.write_text("text,label\n" + "\n".join(lines) + "\n", encoding="utf-8")
    out = elsewhere.root / "Antworten é.jsonl"
    done = elsewhere.ftlab("predict", model, rows, "--out", out)
    assert done.returncode == 0, done.stderr
    assert len(out.read_text(encoding="utf-8").splitlines()) == 40
    done = elsewhere.ftlab("audit", rows, "--html", elsewhere.root / "Prüfung é.html")
    assert done.returncode == 0, done.stderr
    assert "Meine Sätze.csv" in (elsewhere.root / "Prüfung é.html").read_text(encoding="utf-8")
