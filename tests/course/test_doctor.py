import json
import shutil
from types import SimpleNamespace

import psutil
import pytest

from ftlab.course import bench, doctor
from ftlab.data import assets, hub
from ftlab.errors import BadInput


def by_name():
    return {check.name: check for check in doctor.examine()}


def test_every_line_says_what_it_found_and_what_to_do(monkeypatch):
    monkeypatch.setattr(hub, "unreachable", lambda: "no network")
    checks = by_name()
    assert set(checks) >= {"python", "packages", "cores", "memory", "disk", "gpu", "hub", "profile", "asset minilm"}
    assert all(check.found for check in checks.values())
    assert all(check.todo for check in checks.values() if not check.ok)
    assert checks["hub"].ok
    assert "no network" in checks["hub"].found


def test_an_empty_cache_and_a_full_disk_are_told_with_a_remedy(empty_home, monkeypatch):
    monkeypatch.setattr(hub, "unreachable", lambda: None)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    checks = by_name()
    assert (checks["asset minilm"].ok, checks["asset minilm"].todo) == (False, "ftlab fetch")
    assert not checks["disk"].ok
    assert "FTLAB_HOME" in checks["disk"].todo


@pytest.fixture
def free(monkeypatch):
    """Sets how many bytes of memory are free."""

    def set_free(available: float):
        memory = SimpleNamespace(available=available, total=32e9)
        monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)

    return set_free


def test_the_memory_that_lessons_take_is_that_of_the_stored_run(repository, free):
    stored = json.loads((repository / "benchmarks" / "results" / "first_run.json").read_text(encoding="utf-8"))[
        "result"
    ]["lessons"]
    largest = max(stored, key=lambda name: stored[name]["peak_memory_mb"])
    peak = stored[largest]["peak_memory_mb"] * 1e6
    free(peak + 1)
    assert doctor._memory().ok
    assert doctor._memory().found.endswith(f"lesson {largest} takes {peak / 1e9:.1f} GB")
    free(peak - 1)
    assert not doctor._memory().ok
    assert f"close something: lesson {largest} takes {peak / 1e9:.1f} GB; there is enough for " in doctor._memory().todo


def test_the_lessons_that_fit_into_memory_are_named(monkeypatch, free):
    lessons = {name: {"peak_memory_mb": peak} for name, peak in {"01_a": 1000, "02_b": 9000, "03_c": 2000}.items()}
    monkeypatch.setattr(bench, "stored", lambda name: {"result": {"lessons": lessons}})
    free(3e9)
    assert doctor._memory().todo == "close something: lesson 02_b takes 9.0 GB; there is enough for 01, 03"
    free(0.5e9)
    assert doctor._memory().todo == "close something: lesson 02_b takes 9.0 GB"


def test_without_a_stored_run_no_memory_is_demanded(monkeypatch, free):
    def none(name):
        raise BadInput("there is no stored result")

    monkeypatch.setattr(bench, "stored", none)
    free(1e9)
    assert doctor._memory() == doctor.Check("memory", True, "1.0 GB free of 32.0 GB")


def test_a_package_off_its_pin_is_named(monkeypatch):
    monkeypatch.setattr(doctor, "pinned", lambda: {"pandas": "0.1", "nothing-such": "1.0"})
    monkeypatch.setattr(doctor, "required", lambda: {"nothing-such"})
    check = doctor._packages()
    assert not check.ok
    assert "pandas" in check.found
    assert "nothing-such missing (pinned 1.0)" in check.found


def test_damage_in_the_cache_is_named(monkeypatch):
    monkeypatch.setattr(assets.Asset, "present", True)
    monkeypatch.setattr(assets, "damaged", lambda name: ["model.safetensors"] if name == "minilm" else [])
    checks = {check.name: check for check in doctor._assets()}
    assert not checks["asset minilm"].ok
    assert "damaged: model.safetensors" in checks["asset minilm"].found
    assert checks["asset smollm2"].ok


@pytest.mark.parametrize(("busy", "said"), [(90.0, "other programs use 90% of them now"), (10.0, "")])
def test_other_programs_that_use_the_cores_are_pointed_out(monkeypatch, busy, said):
    monkeypatch.setattr(doctor.psutil, "cpu_percent", lambda interval: busy)
    check = doctor._cores()
    assert said in check.found
    assert ("," in check.found) == bool(said)
