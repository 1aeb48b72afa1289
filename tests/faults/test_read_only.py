"""A cache that cannot be written: what needs no writing works, and what needs it says so in one sentence."""

import pytest

from tests.faults.operations import found
from tests.faults.small_disks import needs_mounts
from tests.faults.test_full_disk import lines

pytestmark = needs_mounts


@pytest.fixture
def warm(server, tmp_path):
    """A folder whose cache has the asset and the tiny model."""
    for name in ("fetch", "tiny"):
        ended = server.run(name, tmp_path)
        assert ended.code == 0, ended.said
    return tmp_path


@pytest.mark.parametrize("name", ["use", "fetch", "tiny"])
def test_a_warm_cache_that_can_only_be_read_works(server, warm, name):
    ended = server.run(name, warm, closed="home")
    assert ended.code == 0, ended.said
    if name == "use":
        assert ended.value == "two1.0"
    if name == "fetch":
        assert "already here" in ended.said


def test_a_lesson_with_a_warm_cache_that_can_only_be_read_runs_to_its_end(server, warm):
    """`ftlab run` as in the cpu profile: the results go elsewhere, and nothing is to be written into the cache."""
    ended = server.run("run with a cache", warm, closed="home")
    assert ended.code == 0, ended.said
    assert "out/02_text_classification/metrics.json" in found(warm)


@pytest.mark.parametrize("name", ["fetch", "tiny", "merge", "predict", "audit", "save", "store", "hand in"])
def test_a_folder_that_can_only_be_read_is_one_sentence(server, tmp_path, name):
    ended = server.run(name, tmp_path, closed=".")
    assert "cannot be written (Read-only file system)" in ended.said, ended.said
    if name in ("fetch", "merge", "predict", "audit"):
        assert ended.code == 2, ended.said
        assert len(lines(ended.said)) == 1
    assert list(tmp_path.iterdir()) == []
