import shutil

from ftlab.course import doctor
from ftlab.data import assets, hub


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


def test_a_package_off_its_pin_is_named(monkeypatch):
    monkeypatch.setattr(doctor, "pinned", lambda: {"pandas": "0.1", "nothing-such": "1.0"})
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
