import pytest

from ftlab.course import bench, expected_time
from ftlab.course.notebooks import LessonFile
from ftlab.errors import BadInput

LESSONS = [LessonFile(expected_time.Path(f"{name}.ipynb")) for name in ("00_start_here", "01_audit", "02_text")]


@pytest.fixture
def stored(monkeypatch):
    """A stored first run, which a test may change, on a machine that is as fast as this one."""
    result = {"lessons": {"01_audit": {"seconds": 100}, "02_text": {"seconds": 500}}, expected_time.RATE: 1e11}
    run = {"hardware": {"cores": 2, "gpu": None}, "result": result}
    monkeypatch.setattr(bench, "stored", lambda name: run)
    monkeypatch.setattr(expected_time, "_has_gpu", lambda: False)
    monkeypatch.setattr(expected_time, "_rate_here", lambda: 1e11)
    return run


def test_minutes_are_those_of_the_stored_run_where_this_machine_is_as_fast(stored):
    assert expected_time.expected_words(LESSONS[1:]) == "about 10 minutes here"
    assert expected_time.before_lessons(LESSONS[1:2], "cpu") == ["ftlab: lesson 01 takes about 2 minutes here"]
    assert expected_time.before_lessons(LESSONS[1:], "cpu") == ["ftlab: lessons 01, 02 take about 10 minutes here"]


@pytest.mark.parametrize(("rate", "words"), [(5e11, "between 2 and 10 minutes"), (5e10, "between 10 and 20 minutes")])
def test_on_a_faster_or_slower_machine_they_are_a_range(stored, monkeypatch, rate, words):
    monkeypatch.setattr(expected_time, "_rate_here", lambda: rate)
    there = "(10 minutes on 2 cores without a GPU)"
    assert expected_time.expected_words(LESSONS[1:]) == f"{words} here {there}"


def test_without_the_speed_of_the_other_machine_or_with_a_gpu_here_the_other_machine_is_named(stored, monkeypatch):
    words = "about 10 minutes on 2 cores without a GPU"
    monkeypatch.setattr(expected_time, "_has_gpu", lambda: True)
    assert expected_time.expected_words(LESSONS[1:]) == words
    del stored["result"][expected_time.RATE]
    monkeypatch.setattr(expected_time, "_rate_here", lambda: pytest.fail("timed for nothing"))
    assert expected_time.expected_words(LESSONS[1:]) == words


def test_a_lesson_that_was_not_timed_is_named_and_alone_has_no_time(stored):
    assert expected_time.expected_words(LESSONS) == (
        "about 10 minutes here; 00_start_here comes on top, and was not timed yet"
    )
    assert expected_time.before_lessons(LESSONS[:1], "cpu") == []
    del stored["result"]["lessons"]["01_audit"]
    assert expected_time.expected_words(LESSONS).endswith(
        "; 00_start_here, 01_audit come on top, and were not timed yet"
    )


def test_nothing_is_said_of_the_time_where_none_was_measured(monkeypatch):
    def none(name):
        raise BadInput("there is no stored result")

    monkeypatch.setattr(bench, "stored", none)
    assert expected_time.before_lessons(LESSONS, "cpu") == []
    assert "was not measured" in expected_time.before_the_course(LESSONS, "cpu")[1]


@pytest.mark.parametrize(("profile", "words"), [("cpu", "about 10"), ("smoke", "nothing"), ("gpu", "not measured")])
def test_the_whole_course_is_told_in_four_lines_with_its_lessons_in_order_and_two_ways_to_begin(stored, profile, words):
    lines = expected_time.before_the_course(LESSONS, profile)
    assert len(lines) == 4
    assert "00_start_here, 01_audit, 02_text" in lines[0]
    assert words in lines[1]
    assert "make lab" in lines[2] or "jupyter" in lines[2]
    assert "ftlab run 00" in lines[3]
    assert expected_time.before_lessons(LESSONS, "smoke") == []


def _way_to_read() -> str:
    return expected_time.before_the_course(LESSONS, "smoke")[2]


def test_make_is_advised_where_this_python_is_that_of_its_set_up(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Makefile").write_text("", encoding="utf-8")
    monkeypatch.setattr(expected_time.sys, "prefix", str(tmp_path / ".venv"))
    assert "make lab" in _way_to_read()
    monkeypatch.setattr(expected_time.sys, "prefix", "/opt/conda")  # where make would set up a second one
    assert "make lab" not in _way_to_read()
    assert "jupyter" in _way_to_read()
    monkeypatch.setattr(expected_time.sys, "prefix", str(tmp_path / ".venv"))
    (tmp_path / "Makefile").unlink()
    assert "make lab" not in _way_to_read()


def test_windows_has_no_make(stored, monkeypatch):
    monkeypatch.setattr(expected_time, "_has_make", lambda: False)
    assert "jupyter lab notebooks" in _way_to_read()
