"""The files around the package say the same things as each other."""

import re
import subprocess
import sys
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from ftlab.course import doctor


@pytest.fixture(scope="module")
def project(request):
    root = request.config.rootpath
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def requirements(project) -> dict[str, SpecifierSet]:
    lines = [*project["dependencies"], *(line for lines in project["optional-dependencies"].values() for line in lines)]
    return {Requirement(line).name: Requirement(line).specifier for line in lines}


def test_conda_s_environment_holds_the_same_packages_and_ranges(project, repository):
    environment = yaml.safe_load((repository / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    from_conda = {Requirement(line).name: Requirement(line).specifier for line in environment if isinstance(line, str)}
    (from_pip,) = [line["pip"] for line in environment if isinstance(line, dict)]
    listed = {Requirement(line).name: Requirement(line).specifier for line in from_pip if not line.startswith("--")}
    assert from_conda.pop("python") == SpecifierSet(project["requires-python"])
    assert {**from_conda, **listed} == requirements(project)
    assert {"--constraint constraints.txt", "--editable ."} <= set(from_pip)


def test_every_requirement_is_pinned_inside_its_range(project):
    pins = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in doctor.pinned().items()}
    for name, allowed in requirements(project).items():
        assert name in pins, f"{name} is not in constraints.txt"
        assert pins[name] in allowed, f"{name} is pinned to {pins[name]}, outside {allowed}"
    assert pins["torch"] == "2.13.0"


def test_the_packages_that_the_course_is_about_are_all_there(project):
    wanted = (
        "jupyterlab nbval papermill transformers datasets accelerate evaluate peft trl bitsandbytes torch pandas "
        "scikit-learn seaborn"
    )
    assert set(wanted.split()) <= set(requirements(project))


def test_the_supported_pythons_are_the_same_everywhere(project, repository):
    low, high = doctor.SUPPORTED
    assert project["requires-python"] == f">={low[0]}.{low[1]},<{high[0]}.{high[1] + 1}"
    assert f"SUPPORTED = {doctor.SUPPORTED}" in (repository / "bootstrap.py").read_text(encoding="utf-8")


def test_no_room_imports_a_later_one(repository):
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_repository_names_no_registry_and_no_folder_of_a_machine(repository):
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=repository, capture_output=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    forbidden = re.compile(r"pypi\.org|files\.pythonhosted|huggingface\.co/(?!docs)|/home/\w+/|/Users/\w+/|/root/")
    for name in filter(None, listed.stdout.decode().split("\0")):
        path = repository / name
        if path == repository / "tests" / "test_packaging.py" or not path.is_file():
            continue
        found = forbidden.search(path.read_text(encoding="utf-8", errors="ignore"))
        assert found is None, f"{name}: {found and found[0]}"
