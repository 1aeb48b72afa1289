"""Two processes at the same time, on one cache and into one folder."""

import pytest

from tests.faults.operations import found, hidden


def test_of_two_that_fetch_one_downloads_and_the_other_waits_for_it(server, tmp_path):
    ended = server.run_together("fetch", tmp_path, 3)
    assert [one.code for one in ended] == [0, 0, 0], [one.said for one in ended]
    assert sorted("tiny: fetched" in one.said for one in ended) == [False, False, True]
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("name", ["tiny", "store", "save", "predict"])
def test_two_that_make_the_same_thing_both_have_it_whole(server, name, tmp_path):
    (tmp_path / "alone").mkdir()
    assert server.run(name, tmp_path / "alone").code == 0
    for number in range(3):
        place = tmp_path / f"{number}"
        place.mkdir()
        ended = server.run_together(name, place)
        assert [one.code for one in ended] == [0, 0], [one.said for one in ended]
        assert found(place) == found(tmp_path / "alone")
        assert [left for left in hidden(place) if not left.endswith("/.lock")] == []


def test_of_two_merges_into_one_folder_the_second_is_refused_in_one_sentence(server, tmp_path):
    """Of two runs, tests/course/test_runner.py says the same; of two exports, tests/serving/test_export.py."""
    first, second = sorted(server.run_together("merge", tmp_path), key=lambda one: one.code)
    assert first.code == 0, first.said
    assert second.code == 2, second.said
    assert "is not empty" in second.said
    assert hidden(tmp_path) == []
