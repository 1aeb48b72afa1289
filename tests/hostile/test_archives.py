"""An archive of somebody else: nothing is written outside its folder, and no more than it may take."""

import io
import zipfile

import pytest

from ftlab.data import assets
from ftlab.errors import AssetError


def wheel(path, members):
    """A wheel with `members`, (name or ZipInfo, content) each."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def of_kind(name, kind):
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (kind | 0o777) << 16
    return info


@pytest.fixture
def folder(tmp_path):
    """An empty folder; the test fails if a file appears beside it."""
    (tmp_path / "cache").mkdir()
    yield tmp_path / "cache"
    assert {path.name for path in tmp_path.iterdir()} <= {"cache", "a.whl"}


@pytest.mark.parametrize(
    "name", ["../out", "/cannot/out", "C:\\out", "..\\out", "a/../../out", "\\\\server\\out", "a:stream"]
)
def test_a_member_is_never_written_where_its_own_name_leads(tmp_path, folder, name):
    """The names of the files are those of the course: of an archive only named members are read."""
    path = wheel(tmp_path / "a.whl", [(name, "out"), ("good", "in")])
    assets.extract(path, {"good": "good"}, folder)
    assert [each.name for each in folder.iterdir()] == ["good"]
    with pytest.raises(AssetError, match="outside the cache"):
        assets.extract(path, {"good": name}, folder)


@pytest.mark.parametrize("kind", [0o120000, 0o020000, 0o060000, 0o010000, 0o140000, 0o040000], ids=oct)
def test_what_is_no_file_is_refused(tmp_path, folder, kind):
    path = wheel(tmp_path / "a.whl", [(of_kind("data", kind), "/etc/passwd")])
    with pytest.raises(AssetError, match=r"is no file|is a link"):
        assets.extract(path, {"data": "data"}, folder)
    assert not list(folder.iterdir())


def test_a_link_in_the_place_of_the_file_is_not_followed(tmp_path, folder):
    (folder / "data").symlink_to(tmp_path / "out")
    with pytest.raises(AssetError):
        assets.extract(wheel(tmp_path / "a.whl", [("data", "out")]), {"data": "data"}, folder)


def test_a_bomb_is_refused_by_what_it_says_and_by_what_it_holds(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(assets, "MOST_BYTES", 1_000_000)
    path = wheel(tmp_path / "a.whl", [("data", bytes(5_000_000))])
    assert path.stat().st_size < 10_000
    with pytest.raises(AssetError, match="5,000,000 bytes"):
        assets.extract(path, {"data": "data"}, folder)
    lies = path.read_bytes().replace((5_000_000).to_bytes(4, "little"), (9).to_bytes(4, "little"))
    path.write_bytes(lies)  # the sizes in both of its heads
    with pytest.raises(AssetError):
        assets.extract(path, {"data": "data"}, folder)
    assert sum(each.stat().st_size for each in folder.iterdir()) <= 1_000_000


def test_two_members_of_one_name_are_refused(tmp_path, folder):
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = wheel(tmp_path / "a.whl", [("data", "one"), ("data", "other")])
    with pytest.raises(AssetError, match="twice"):
        assets.extract(path, {"data": "data"}, folder)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not a zip" * 99, b"PK\x05\x06" + bytes(18)])
def test_what_is_no_archive_is_refused(tmp_path, folder, content):
    (tmp_path / "a.whl").write_bytes(content)
    with pytest.raises(AssetError):
        assets.extract(tmp_path / "a.whl", {"data": "data"}, folder)


def test_a_damaged_or_an_encrypted_member_is_refused(tmp_path, folder):
    path = wheel(tmp_path / "a.whl", [("data", "content " * 99)])
    whole = path.read_bytes()
    damaged = io.BytesIO(whole)
    damaged.seek(45)
    damaged.write(b"\xff\xff\xff")
    encrypted = bytearray(whole)
    for head, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        encrypted[whole.index(head) + place] |= 1
    for content in (damaged.getvalue(), bytes(encrypted)):
        path.write_bytes(content)
        with pytest.raises(AssetError, match="is not a readable wheel"):
            assets.extract(path, {"data": "data"}, folder)
