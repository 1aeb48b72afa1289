"""How much of ftlab do the unit tests run, and how many small mistakes in it do they notice?

A copy of the repository is tested once with coverage (lines and branches), which also says which tests run which line.
Then one small mistake at a time is put into a function of ftlab: a comparison is flipped, or a statement is dropped
(`pass`). The tests that run this line have to fail, and the one that did so has to pass again without the mistake. The
places are drawn with a seed, as many of one kind as of the other. A mistake that changes nothing that a person could
see survives, too; survivors are listed with their line.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from ftlab.serving import extra

REPOSITORY = Path(__file__).resolve().parents[1]
MUTANTS, AIM, SEED = 30, 27, 0
LINES_AIM = 0.95
FLIPPED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
DROPPED = (ast.Assign, ast.AugAssign, ast.Raise, ast.Expr, ast.Return, ast.Continue, ast.Break)
AT_ONCE = 2
PATIENCE, SLOWER = 900, 3  # seconds for the tests of one mistake, or so many times what they take without it
RETURNED = {0: "survived", 1: "noticed", 2: "noticed"}  # pytest's exit codes; 2: a module of tests cannot be imported
COUNTED = ("noticed", "does not end")
SETTINGS = """
[run]
branch = true
source_pkgs = ftlab
patch = subprocess, fork, _exit
parallel = true
data_file = {folder}/.coverage
[report]
include = {copy}/ftlab/*
exclude_also =
    if TYPE_CHECKING:
"""


@dataclass(frozen=True)
class Mutant:
    """One small mistake: in `file`, the text from `start` to `end` (line, column in bytes) becomes `after`."""

    file: str
    start: tuple[int, int]
    end: tuple[int, int]
    kind: str
    before: str
    after: str

    def applied(self, source: bytes) -> bytes:
        """Return `source` with the mistake in it."""
        lines = source.splitlines(keepends=True)
        first, last = (sum(map(len, lines[: row - 1])) + column for row, column in (self.start, self.end))
        return source[:first] + self.after.encode() + source[last:]


def measure() -> dict[str, Any]:
    """Return the coverage by lines and branches, and what became of each mistake.

    Raises:
        BadInput: the extra `serve` is missing, so its tests would be left out.
    """
    extra.require(extra.CONVERTER, extra.LLAMA_CPP, extra.ONNX_RUNTIME, extra.SERVER)
    with tempfile.TemporaryDirectory() as base:
        copies = [_copy(Path(base) / str(number)) for number in range(AT_ONCE)]
        began = time.monotonic()
        covered, tests_of, seconds = cover(copies[0], Path(base) / "coverage")
        took = time.monotonic() - began
        drawn = draw(copies[0] / "ftlab", MUTANTS, SEED)
        free: SimpleQueue[Path] = SimpleQueue()
        for copy in copies:
            free.put(copy)

        def tried(mutant: Mutant) -> dict[str, Any]:
            copy = free.get()
            try:
                return {**asdict(mutant), **outcome(mutant, copy, tests_of, seconds)}
            finally:
                free.put(copy)

        with ThreadPoolExecutor(AT_ONCE) as side_by_side:
            mutants = list(side_by_side.map(tried, drawn))
    noticed = sum(one["outcome"] in COUNTED for one in mutants)
    return {
        "tests": len(seconds),
        "suite_seconds_with_coverage": round(took),
        "coverage": covered,
        "mutants": mutants,
        "noticed": noticed,
        "bars": {
            f"at least {LINES_AIM:.0%} of the lines are run": covered["lines"] >= LINES_AIM,
            f"at least {AIM} of {MUTANTS} mistakes are noticed": noticed >= AIM,
        },
    }


# --- which tests run which line -------------------------------------------------------------------------------------
def cover(copy: Path, folder: Path) -> tuple[dict[str, Any], dict[tuple[str, int], set[str]], dict[str, float]]:
    """Run the unit tests in `copy` with coverage, until one fails.

    Tests that hold a bound on computing time are left out: coverage itself makes Python slow.

    Args:
        copy: a copy of the repository.
        folder: for the files of coverage.

    Returns:
        The shares that were run; the test functions that run each (file, line); and the seconds of each function.

    Raises:
        RuntimeError: a test fails without any mistake.
    """
    import coverage

    folder.mkdir()
    settings, times = folder / "coveragerc", folder / "times.xml"
    settings.write_text(SETTINGS.format(folder=folder, copy=copy), encoding="utf-8")
    options = ["--cov=ftlab", "--cov-branch", "--cov-context=test", f"--cov-config={settings}", "--cov-report="]
    run = ["-x", "-m", "not clock", "-n", "2", "--dist", "worksteal", f"--junitxml={times}"]
    done = _pytest(copy, [*run, *options], patience=None)
    if done.returncode:
        raise RuntimeError(f"the tests fail as they are:\n{done.stdout[-3000:]}")
    measured = coverage.Coverage(data_file=str(folder / ".coverage"), config_file=str(settings))
    with contextlib.suppress(coverage.exceptions.NoDataError):  # pytest-cov has combined all
        measured.combine()
    measured.load()
    return shares(measured, folder / "report.json"), by_line(measured, copy), durations(times)


def shares(measured: Any, report: Path) -> dict[str, Any]:
    """Return the shares of lines and branches that were run, and the ten modules that were run least.

    Args:
        measured: what coverage has loaded.
        report: where coverage writes its own report, as JSON.
    """
    measured.json_report(outfile=str(report))
    found = json.loads(report.read_text(encoding="utf-8"))
    totals = found["totals"]
    of_module = {
        file: one["summary"]["covered_lines"] / one["summary"]["num_statements"]
        for file, one in found["files"].items()
        if one["summary"]["num_statements"]
    }
    return {
        "lines": round(totals["covered_lines"] / totals["num_statements"], 4),
        "branches": round(totals["covered_branches"] / totals["num_branches"], 4),
        "statements": totals["num_statements"],
        "least": {file[file.index("ftlab/") :]: round(of_module[file], 3) for file in least_first(of_module)[:10]},
    }


def least_first(values: dict[str, float]) -> list[str]:
    """Return the names in `values`, the one with the smallest value first."""
    return sorted(values, key=lambda name: (values[name], name))


def by_line(measured: Any, copy: Path) -> dict[tuple[str, int], set[str]]:
    """Return the test functions that ran each (file, line), files relative to `copy`.

    Args:
        measured: what coverage has loaded.
        copy: the folder of the code that was measured.
    """
    data, found = measured.get_data(), {}
    for file in data.measured_files():
        if not Path(file).is_relative_to(copy):
            continue  # some tests copy the repository, and run that
        name = Path(file).relative_to(copy).as_posix()
        for line, contexts in data.contexts_by_lineno(file).items():
            found[name, line] = {_function(context) for context in contexts if context}
    return found


def _function(context: str) -> str:
    """The test function of a context: "tests/a.py::test_b[1]|run" without what varies."""
    return context.partition("|")[0].partition("[")[0]


def durations(path: Path) -> dict[str, float]:
    """Return the seconds of each test function, all its cases together, from pytest's report at `path`."""
    found: dict[str, float] = {}
    for case in ElementTree.parse(path).iter("testcase"):
        module = case.get("classname", "").replace(".", "/") + ".py"
        name = f"{module}::{case.get('name', '').partition('[')[0]}"
        found[name] = found.get(name, 0.0) + float(case.get("time", 0))
    return found


# --- mistakes -------------------------------------------------------------------------------------------------------
def draw(package: Path, count: int, seed: int) -> list[Mutant]:
    """Draw `count` mistakes in the functions of the Python `package` (a folder), half of each kind, with `seed`."""
    kinds: dict[str, list[Mutant]] = {"flipped": [], "dropped": []}
    for path in sorted(package.rglob("*.py")):
        for mutant in possible(path.read_text(encoding="utf-8"), path.relative_to(package.parent).as_posix()):
            kinds[mutant.kind].append(mutant)
    lots = random.Random(seed)
    chosen = lots.sample(kinds["flipped"], count // 2) + lots.sample(kinds["dropped"], count - count // 2)
    return sorted(chosen, key=lambda one: (one.file, one.start))


def possible(source: str, file: str) -> Iterator[Mutant]:
    """Yield every mistake that can be made in the functions of `source`, the text of `file`."""
    for node in _in_functions(ast.parse(source)):
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            flipped = ast.Compare(node.left, [FLIPPED[type(node.ops[0])]()], node.comparators)
            yield _mutant(node, source, file, "flipped", f"({ast.unparse(flipped)})")
        elif isinstance(node, DROPPED) and not _is_text(node):
            yield _mutant(node, source, file, "dropped", "pass")


def _in_functions(node: ast.AST, inside: bool = False) -> Iterator[ast.AST]:
    """The nodes of all functions, once each; without what is in an f-string, whose places Python 3.11 does not know."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.JoinedStr):
            if inside:
                yield child
            yield from _in_functions(child, inside or isinstance(child, ast.FunctionDef))


def _is_text(node: ast.AST) -> bool:
    """Whether a statement is a docstring, or an ellipsis."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _mutant(node: ast.expr | ast.stmt, source: str, file: str, kind: str, after: str) -> Mutant:
    end = (node.end_lineno or node.lineno, node.end_col_offset or 0)
    before = ast.get_source_segment(source, node) or ""
    return Mutant(file, (node.lineno, node.col_offset), end, kind, before, after)


def outcome(
    mutant: Mutant, copy: Path, tests_of: dict[tuple[str, int], set[str]], seconds: dict[str, float]
) -> dict[str, Any]:
    """Put `mutant` into `copy`, run the tests that run its line until one fails, take it out, and run that one again.

    Args:
        mutant: the mistake.
        copy: a copy of the repository, which nobody else uses.
        tests_of: the test functions of each (file, line).
        seconds: of each test function; the quick ones come first.

    Returns:
        What became of it ("noticed", "survived", "does not end", or "unsure": the test fails without it, too), the
        number of tests that run it, and who noticed.
    """
    lines = range(mutant.start[0], mutant.end[0] + 1)
    tests = set().union(*(tests_of.get((mutant.file, line), set()) for line in lines))
    if not tests:  # what runs in other processes alone: the tests of its room
        tests = {test for test in seconds if test.startswith(("tests/test_cli", _room_s_tests(mutant.file)))}
    room = _room_s_tests(mutant.file)
    ordered = sorted(tests, key=lambda test: (not test.startswith(room), seconds.get(test, 0)))
    target = copy / mutant.file
    source = target.read_bytes()
    target.write_bytes(mutant.applied(source))
    try:
        patience = max(PATIENCE, SLOWER * sum(seconds.get(test, 0) for test in tests))
        done = _pytest(copy, ["-x", *ordered], patience=patience)
        # The mistake is in what tests import: these very tests were found before it.
        broken = any(words in done.stdout for words in ("while loading conftest", "found no collectors"))
        if done.returncode not in RETURNED and not broken:
            raise RuntimeError(f"pytest ends with {done.returncode}:\n{done.stdout[-3000:]}")
        said = RETURNED.get(done.returncode, "noticed")
        line = next((line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))), "")
        by = line.partition(" - ")[0].partition(" ")[2]
    except subprocess.TimeoutExpired:
        said, by = "does not end", ""
    finally:
        target.write_bytes(source)
    if said == "noticed" and not _passes(copy, by, ordered, patience):
        said = "unsure"
    print(f"ftlab: {said}: {mutant.file}:{mutant.start[0]} {mutant.before[:60]!r}", file=sys.stderr, flush=True)
    return {"outcome": said, "tests": len(tests), "noticed_by": by}


def _passes(copy: Path, test: str, tests: list[str], patience: float) -> bool:
    """Whether the function of `test` passes in `copy`; if nothing could be imported, whether `tests` can be."""
    function = test.partition("[")[0]
    try:
        done = _pytest(copy, [function] if "::" in function else ["--collect-only", *tests], patience=patience)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def _room_s_tests(file: str) -> str:
    parts = Path(file).parts
    return f"tests/{parts[1]}/" if len(parts) > 2 else f"tests/test_{Path(file).stem}"


# --- running --------------------------------------------------------------------------------------------------------
def _copy(target: Path) -> Path:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (REPOSITORY / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, target / name)
    someone = ["-c", "user.name=ftlab", "-c", "user.email=ftlab"]
    commit = [*someone, "commit", "--quiet", "--message", "as it is"]
    for command in (["init", "--quiet"], ["add", "--all"], commit):  # tests ask git for the files, and clone them
        subprocess.run(["git", *command], cwd=target, check=True)
    return target


def _pytest(copy: Path, arguments: list[str], *, patience: float | None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=no", *arguments]
    return subprocess.run(
        command, cwd=copy, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=patience, check=False,
    )  # fmt: skip
