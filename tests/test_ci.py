"""The workflows of .github do what the project relies on: their commands exist, and cover all that is supported."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.markers import Marker
from packaging.specifiers import SpecifierSet

from ftlab import cli
from ftlab.commands.run import read_parameters
from ftlab.course import doctor, notebooks, profiles
from tests import cells, ci_runs, isolation, nightly

LESSONS = {lesson.number: lesson for lesson in notebooks.lessons()}
RUNS = ci_runs.runs()


def workflows(repository: Path) -> dict[str, dict]:
    """Each workflow by the name of its file, with `on`, which is a truth value in YAML 1.1."""
    found = {}
    for path in sorted((repository / ".github" / "workflows").glob("*.yml")):
        read = yaml.safe_load(path.read_text(encoding="utf-8"))
        found[path.stem] = {("on" if key is True else key): value for key, value in read.items()}
    return found


def steps(repository: Path) -> list[dict]:
    """The steps of all workflows, and those of the action that they share."""
    found = [step for each in workflows(repository).values() for job in each["jobs"].values() for step in job["steps"]]
    action = yaml.safe_load((repository / ".github/actions/set-up/action.yml").read_text(encoding="utf-8"))
    return found + action["runs"]["steps"]


def commands(repository: Path) -> list[list[str]]:
    """Each line that a step runs in a shell, in words; what GitHub fills in stands there as x, parameters as -p x x."""
    scripts = [step["run"] for step in steps(repository) if "run" in step and step.get("shell") != "python"]
    lines = "\n".join(scripts).replace("\\\n", " ").replace("${{ matrix.parameters }}", "-p x x").splitlines()
    return [shlex.split(re.sub(r"\$\{\{.*?\}\}", "x", line)) for line in lines if line.strip()]


# --- the workflows --------------------------------------------------------------------------------------------------
def test_the_workflows_are_those_that_the_project_knows(repository):
    assert list(workflows(repository)) == ["ci", "papermill", "weekly"]


def test_actionlint_has_nothing_to_say(repository):
    actionlint = shutil.which("actionlint")
    if actionlint is None:
        pytest.skip("there is no actionlint on the path; the job `lint` of ci.yml runs it")
    done = subprocess.run([actionlint, "-no-color"], cwd=repository, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_every_job_has_least_rights_and_an_end(repository):
    for name, workflow in workflows(repository).items():
        assert workflow["permissions"] == {"contents": "read"}, name
        assert workflow["concurrency"], name
        for job in workflow["jobs"].values():
            assert 1 <= job["timeout-minutes"] <= 330, name
            assert "permissions" not in job, name


def test_every_action_has_a_version(repository):
    used = [step["uses"] for step in steps(repository) if "uses" in step]
    assert len(used) > 8
    for action in used:
        assert action == "./.github/actions/set-up" or re.fullmatch(r"actions/[a-z-]+@v\d+", action), action


def test_all_systems_and_pythons_are_tested(repository, project):
    matrix = workflows(repository)["ci"]["jobs"]["test"]["strategy"]["matrix"]
    allowed = SpecifierSet(project["requires-python"])
    supported = [f"3.{minor}" for minor in range(8, 20) if f"3.{minor}" in allowed]
    assert matrix == {"system": ["ubuntu-latest", "macos-latest", "windows-latest"], "python": supported}
    assert tuple(map(int, supported[-1].split("."))) == doctor.SUPPORTED[1]


def test_on_every_other_machine_another_set_of_steps_runs(repository):
    """`make test` on one machine, and what it does elsewhere without make: no machine is without both."""
    conditions = [step.get("if") for step in workflows(repository)["ci"]["jobs"]["test"]["steps"]]
    assert conditions.count("matrix.system == 'ubuntu-latest' && matrix.python == '3.11'") == 1
    assert conditions.count("matrix.system != 'ubuntu-latest' || matrix.python != '3.11'") == 3
    elsewhere = [
        step["run"] for step in workflows(repository)["ci"]["jobs"]["test"]["steps"] if "!=" in str(step.get("if"))
    ]
    assert not any("make" in script for script in elsewhere)  # Windows has none


def test_every_command_of_a_workflow_exists(repository):
    targets = set(re.findall(r"^([a-z-]+):", (repository / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    lines = commands(repository)
    asked = {words[1] for words in lines if words[0] == "make"}
    assert asked == {"lint", "site", "test", "test-nightly", "test-serve"}
    assert asked <= targets
    called = [words[1:] for words in lines if words[0] == "ftlab"]
    assert len(called) >= 5
    for arguments in called:
        cli._parser().parse_args(arguments)


def test_the_tests_that_need_a_disk_or_a_network_of_their_own_run_somewhere_and_are_not_skipped_there(repository):
    job = workflows(repository)["ci"]["jobs"]["isolation"]
    (step,) = [step for step in job["steps"] if isolation.VARIABLE in step.get("env", {})]
    assert step["env"][isolation.VARIABLE] == "1"
    named = [word.partition("::") for word in shlex.split(step["run"]) if word.startswith("tests/")]
    for file, _, test in named:
        assert f"def {test or 'test_'}" in (repository / file).read_text(encoding="utf-8"), f"{file} has no {test}"
    asking = {
        file.relative_to(repository).as_posix()
        for file in (repository / "tests").rglob("test_*.py")
        if re.search(r"isolation\.lacking\(|needs_mounts", file.read_text(encoding="utf-8"))
    }
    assert "tests/test_no_talk.py" in asking
    assert asking - {Path(__file__).relative_to(repository).as_posix()} <= {file for file, _, _ in named}


def test_the_assets_are_kept_as_long_as_what_pins_them(repository):
    (key,) = [step["with"]["key"] for step in steps(repository) if str(step.get("uses")).startswith("actions/cache@")]
    (names,) = re.findall(r"hashFiles\((.+)\)", key)
    kept = re.findall(r"'([^']+)'", names)
    assert "ftlab/data/assets.py" in kept
    assert all((repository / name).is_file() for name in kept)


# --- the runs with parameters ---------------------------------------------------------------------------------------
def test_each_run_names_a_lesson_and_parameters_that_it_takes():
    assert {run["lesson"] for run in RUNS} == set(LESSONS)
    assert len(RUNS) > 2 * len(LESSONS)
    for run in RUNS:
        lesson = LESSONS[run["lesson"]]
        assert run["notebook"] == lesson.name
        given = parameters(run)
        assert set(given) <= set(lesson.parameters()), run
        profiles.resolve(lesson.slug, "smoke", given)


def test_the_matrix_is_what_the_script_prints(repository):
    """With nothing but Python: the job that makes the matrix installs no package."""
    command = [sys.executable, "-I", "-S", str(repository / "tests" / "ci_runs.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == RUNS
    assert len(done.stdout.splitlines()) == 1  # an output of a job is one line
    job = workflows(repository)["papermill"]["jobs"]
    assert job["run"]["strategy"]["matrix"] == {"include": "${{ fromJSON(needs.table.outputs.runs) }}"}
    assert "python tests/ci_runs.py" in str(job["table"]["steps"])


def parameters(run: dict[str, str]) -> dict[str, Any]:
    """The parameters of a run, as the command line reads them."""
    options = cli._parser().parse_args(["run", run["lesson"], *shlex.split(run["parameters"])])
    return read_parameters(options)


def of_the_night() -> list[dict[str, str]]:
    """One run with parameters by day, the quickest; all of them at night."""
    first = next(run for run in RUNS if run["lesson"] == "01" and run["parameters"])
    return RUNS if nightly.NIGHTLY else [first]


@pytest.mark.slow
@pytest.mark.parametrize("run", of_the_night(), ids=lambda run: f"{run['lesson']} {run['parameters']}".strip())
def test_plain_papermill_measures_what_ftlab_does(run, repository, tmp_path, monkeypatch, one_thread):
    """papermill by its own command, as papermill.yml calls it, and the same cells in this process."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("FTLAB_RUN_FOLDER", str(tmp_path / "papermill"))
    command = [
        sys.executable, "-m", "papermill", repository / "notebooks" / f"{run['notebook']}.ipynb",
        tmp_path / "papermill.ipynb", "--cwd", repository / "notebooks", "--no-progress-bar", "-p", "profile", "smoke",
        *shlex.split(run["parameters"]),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    cells.run(run["lesson"], tmp_path / "ftlab", parameters(run))
    one, other = (folder / "metrics.json" for folder in (tmp_path / "ftlab" / run["notebook"], tmp_path / "papermill"))
    assert json.loads(one.read_text(encoding="utf-8")) == json.loads(other.read_text(encoding="utf-8"))


# --- the versions ---------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def project(repository) -> dict:
    return tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_each_pin_can_be_had_for_every_supported_python(repository):
    """The first releases too: Debian 12 has 3.11.2. A pin for some of them says so in constraints.txt."""
    (low, first), (_, last) = doctor.SUPPORTED
    pythons = [f"{low}.{minor}.{patch}" for minor in range(first, last + 1) for patch in range(10)]
    wrong = {}
    for line in (repository / "constraints.txt").read_text(encoding="utf-8").splitlines():
        pin, _, condition = (part.strip() for part in line.partition(";"))
        if "==" not in pin:
            continue
        name = pin.partition("==")[0]
        try:
            allowed = SpecifierSet(metadata.metadata(name).get("Requires-Python") or "")
        except metadata.PackageNotFoundError:
            continue
        marker = Marker(condition) if condition else None
        environments = [{"python_full_version": one, "python_version": one.rpartition(".")[0]} for one in pythons]
        asked = [each["python_full_version"] for each in environments if marker is None or marker.evaluate(each)]
        if asked != [one for one in pythons if one in allowed]:
            wrong[pin] = f"asked for with {asked[0]} to {asked[-1]}, and needs Python {allowed}"
    assert wrong == {}
