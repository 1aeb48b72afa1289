import csv
import json

import nbformat
import pytest

from ftlab import files
from ftlab.course import ledger, notebooks, profiles, refresh
from ftlab.course.lesson import Lesson
from ftlab.errors import BadInput, ClaimFailed

CPU = {"system": "Linux", "processor": "a CPU", "cores": 2, "memory_gb": 9.0, "gpu": None}
GPU = CPU | {"gpu": "a GPU, 80 GB", "cores": 16}
NAMES = ("01_data_audit", "02_text_classification")


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course of two lessons, where nothing is stored."""
    folder = tmp_path / "course" / "notebooks"
    folder.mkdir(parents=True)
    for name in NAMES:
        (folder / f"{name}.ipynb").touch()
    monkeypatch.setattr(notebooks, "notebooks_folder", lambda: folder)
    return folder.parent


def claim(text="gain: at least 0.05", value=0.1, true=True, **more):
    return {"claim": text, "value": value, "true": true, "held": True, "standing": "enforced", "stored": False} | more


def entry(name=NAMES[1], *claims, **more):
    return {
        "lesson": name, "profile": "cpu", "seed": 0, "budget": {"rows": 9}, "set_by_hand": {}, "hardware": CPU,
        "started": "2026-01-02T03:04:05+00:00", "versions": {"python": "3.11"}, "claims": list(claims or [claim()]),
    } | more  # fmt: skip


@pytest.fixture
def run(course, tmp_path):
    """The folder of a run; returns a function that puts a lesson's run into it, and the folder."""
    folder = tmp_path / "run"
    folder.mkdir()

    def put(*arguments, **more):
        made = entry(*arguments, **more)
        in_metrics = ("lesson", "profile", "seed", "budget", "claims")
        (folder / made["lesson"]).mkdir(exist_ok=True)
        files.write_json(folder / made["lesson"] / "metrics.json", {name: made[name] for name in in_metrics})
        rest = {name: value for name, value in made.items() if name not in in_metrics}
        files.write_json(folder / made["lesson"] / "record.json", rest)
        return folder

    return put


def table(folder):
    with (folder / ledger.FILE).open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_has_each_claim_with_bound_value_profile_hardware_and_date(run):
    folder = run(set_by_hand={"rows": 30, "epochs": 1.0}, seed=4)
    ledger.write(folder)
    assert table(folder) == [
        {
            "lesson": "02_text_classification", "claim": "gain", "bound": "at least 0.05", "measured": "0.1",
            "holds": "True", "standing": "enforced", "source": "this run", "profile": "cpu", "seed": "4",
            "set_by_hand": "rows=30, epochs=1.0", "hardware": "a CPU, 2 cores", "date": "2026-01-02",
        }
    ]  # fmt: skip


def test_lessons_add_up_in_a_folder_and_one_that_ran_again_replaces_its_rows(run):
    ledger.write(run(NAMES[1]))
    ledger.write(run(NAMES[0], claim(value=0.3)))
    folder = run(NAMES[1], claim(value=0.2))
    ledger.write(folder)
    assert [(row["lesson"], row["measured"]) for row in table(folder)] == [(NAMES[0], "0.3"), (NAMES[1], "0.2")]


def test_a_lesson_that_a_claim_stopped_is_in_the_table_with_what_it_measured(run):
    folder = run(NAMES[1])
    files.write_json(folder / f"{NAMES[1]}.failed.json", entry(NAMES[1], claim(), claim("loss: at most 1", 3.0, False)))
    ledger.write(folder)
    assert [(row["claim"], row["measured"], row["holds"]) for row in table(folder)] == [
        ("gain", "0.1", "True"), ("loss", "3.0", "False"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("stopped_at", "counts"),
    [
        ("2026-01-01T03:04:05+00:00", 0.1),  # the run that came to its end could not remove it
        ("2026-01-02T03:04:05+00:00", 0.01),
        ("2026-01-03T03:04:05+00:00", 0.01),
        ("2026-01-02T05:04:04+02:00", 0.1),  # a second earlier, and later in the alphabet
        ("2027-01-01T03:04:05", 0.01),
    ],
)
def test_of_a_stopped_run_and_a_finished_one_the_later_counts(run, stopped_at, counts):
    folder = run(NAMES[1])
    stopped = entry(NAMES[1], claim(value=0.01, true=False), started=stopped_at)
    files.write_json(folder / f"{NAMES[1]}.failed.json", stopped)
    (row,) = ledger.rows(ledger.read(folder))
    assert (row.measured, row.holds) == (counts, counts == 0.1)


def test_a_time_that_is_none_is_a_damaged_file(run):
    folder = run(NAMES[1], started="yesterday")
    with pytest.raises(BadInput, match=r"metrics\.json is not what a lesson writes \(ValueError: Invalid isoformat"):
        ledger.read(folder)


def test_a_run_without_claims_leaves_no_table_and_empties_the_one_that_is_there(run):
    folder = run(NAMES[1])
    ledger.write(folder)
    files.write_json(
        folder / NAMES[1] / "metrics.json",
        json.loads((folder / NAMES[1] / "metrics.json").read_text(encoding="utf-8")) | {"claims": []},
    )
    ledger.write(folder)
    assert table(folder) == []
    (folder / ledger.FILE).unlink()
    assert ledger.write(folder) is None
    assert not (folder / ledger.FILE).exists()


def test_no_cell_is_a_formula_for_a_spreadsheet_and_no_number_is_changed(run):
    folder = run(NAMES[1], claim('=HYPERLINK("x"): at most -1', -2.5), claim("a\nb: at least 0", None, False))
    ledger.write(folder)
    first, second = table(folder)
    assert first["claim"] == '\'=HYPERLINK("x")'
    assert (first["bound"], first["measured"]) == ("at most -1", "-2.5")
    assert (second["claim"], second["measured"]) == ("a b", "")


def test_the_record_of_an_older_run_is_read_without_its_source(run):
    old = {"claim": "gain: at least 0.05", "value": 0.1, "true": True, "held": False}
    (row,) = ledger.rows(ledger.read(run(NAMES[1], old)))
    assert (row.standing, row.source) == ("reported", "")


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"lesson": 1, "claims": [1]}', "\udcff"])
def test_a_damaged_file_is_named_before_anything_runs(run, damage):
    folder = run(NAMES[1])
    (folder / NAMES[1] / "metrics.json").write_bytes(damage.encode("utf-8", "surrogateescape"))
    with pytest.raises(BadInput, match=r"metrics\.json is not what a lesson writes .*; delete .* run the lesson again"):
        ledger.require_place(folder)


def test_stored_claims_of_one_lesson_leave_those_of_the_others(run, course):
    ledger.store(run(NAMES[0]))
    folder = run(NAMES[1], claim(value=0.2))
    (path,) = ledger.store(folder)
    assert path == course / "benchmarks" / "claims" / "cpu.json"
    files.remove(folder / NAMES[0])
    ledger.store(run(NAMES[1], claim(value=0.3)))
    assert [(row.lesson, row.measured) for row in ledger.rows(ledger.stored("cpu"))] == [
        (NAMES[0], 0.1), (NAMES[1], 0.3),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"profile": "smoke"}, "smoke's weights are random"),
        ({"set_by_hand": {"rows": 30}}, "rows was set by hand"),
        ({"seed": 1}, "seed was set by hand"),
        ({"profile": "gpu"}, "the profile gpu ran without a GPU"),
        (
            {"profile": "gpu", "hardware": GPU, "claims": [claim(value=0.01, true=False, standing="expected")]},
            r"1 of them broke the bound, the first 'gain' \(at least 0.05, measured 0.01\)",
        ),
        ({"claims": [claim(value=None, true=False)]}, r".*measured no finite number"),
    ],
)
def test_what_the_course_does_not_stand_for_is_not_stored(run, course, more, said, capsys):
    folder = run(NAMES[1], **more)
    with pytest.raises(BadInput, match=f"the claims of {NAMES[1]} in .* are not stored: {said}"):
        ledger.store(folder)
    assert not (course / "benchmarks").exists()
    assert refresh.main(["--claims", str(folder)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_claims_of_the_cpu_profile_are_not_stored_without_their_outputs(run, course, capsys):
    folder = run(NAMES[0], profile="gpu", hardware=GPU)
    assert refresh.main(["--claims", str(folder)]) == 0
    assert capsys.readouterr().out == f"{course / 'benchmarks' / 'claims' / 'gpu.json'}\n"
    run(NAMES[1])
    before = {path: path.read_bytes() for path in course.rglob("*.json")}
    assert refresh.main(["--claims", str(folder)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(
        f"ftlab: the claims of {NAMES[1]} in {folder} are not stored: those of the profile cpu belong"
    )
    assert "python -m ftlab.course.refresh 02 runs the lesson and stores both" in said
    assert {path: path.read_bytes() for path in course.rglob("*.json")} == before


def test_what_is_promised_in_fp32_alone_may_be_stored_from_half_precision(run):
    ledger.store(run(NAMES[1], claim(value=0.01, true=False, standing="fp32 only")))
    assert [row.holds for row in ledger.rows(ledger.stored("cpu"))] == [False]


def test_a_folder_without_lessons_is_refused_and_so_is_no_folder(course, tmp_path, capsys):
    assert refresh.main(["--claims", str(tmp_path)]) == 2
    assert refresh.main(["--claims"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith(f"ftlab: {tmp_path} has no lesson that ran")
    assert said[1] == "ftlab: expected one folder of a run: python -m ftlab.course.refresh --claims RUN_FOLDER"


def test_nothing_is_stored_where_there_is_no_course(monkeypatch):
    def nowhere():
        raise BadInput("there is no notebooks folder here")

    monkeypatch.setattr(notebooks, "notebooks_folder", nowhere)
    assert ledger.stored("gpu") == []


@pytest.fixture
def on_gpu(course, tmp_path):
    """Lesson 02 in the gpu profile, in a folder of its own; with parameters set by hand if they are given."""

    def begin(**overrides):
        (folder := tmp_path / "lesson").mkdir(exist_ok=True)
        return Lesson(NAMES[1], profiles.resolve("text_classification", "gpu", overrides), folder)

    return begin


def test_a_claim_that_no_gpu_has_measured_is_expected_and_stops_nothing(on_gpu, capsys):
    lesson = on_gpu()
    lesson.claim("gain", 0.1, at_least=0.05)
    lesson.claim("loss", 3, at_most=1)
    assert capsys.readouterr().out.splitlines() == [
        "✓ gain: at least 0.05 (expected for gpu, not yet measured)",
        "✗ loss: at most 1 (not so here, and expected for gpu, not yet measured)",
    ]
    assert [(each["value"], each["standing"], each["held"]) for each in lesson._claims] == [
        (0.1, "expected", False), (3.0, "expected", False),
    ]  # fmt: skip
    with pytest.raises(ClaimFailed):
        lesson.claim("answers that differ", 1, at_most=0, always=True)
    with pytest.raises(ClaimFailed):  # measured by the benchmark, wherever this runs
        lesson.claim("seconds", 2, at_most=1, stored=True)


def test_with_a_stored_gpu_run_of_this_budget_its_claims_are_enforced(on_gpu, run):
    budget = on_gpu().budget
    assert "claims " in repr(budget)
    assert ledger.NOT_MEASURED in repr(budget)
    assert ledger.NOT_MEASURED in budget._repr_html_()
    bounds = {name: 0 for name in budget.settings if name.startswith("at_least_")}
    assert bounds
    ledger.store(run(NAMES[1], profile="gpu", hardware=GPU, budget=budget.settings | bounds))
    lesson = on_gpu()
    assert ledger.NOT_MEASURED not in repr(budget)
    with pytest.raises(ClaimFailed):
        lesson.claim("gain", 0.01, at_least=0.05)
    lesson.claim("new since then", 0.01, at_least=0.05)
    with pytest.raises(ClaimFailed):
        on_gpu(seed=0).claim("gain", 0.01, at_least=0.05)
    assert on_gpu(rows=50).budget.claims_are_expected is False  # no claim is made of it at all
    ledger.store(run(NAMES[1], profile="gpu", hardware=GPU, budget=budget.settings | {"epochs": 9.0}))
    lesson.claim("gain", 0.01, at_least=0.05)  # another budget was measured
    assert ledger.NOT_MEASURED in repr(budget)


@pytest.mark.parametrize(
    ("profile", "overrides"), [("cpu", {}), ("smoke", {}), ("gpu", {"rows": 50}), ("gpu", {"seed": 1})]
)
def test_no_other_budget_says_that_its_claims_are_expected(course, profile, overrides):
    budget = profiles.resolve("text_classification", profile, overrides)
    assert ledger.NOT_MEASURED not in repr(budget)


def test_a_claim_that_stops_a_watched_lesson_is_left_for_the_runner(course, tmp_path):
    (folder := tmp_path / f"{files.PARTIAL}1").mkdir()
    lesson = Lesson(NAMES[1], profiles.resolve("text_classification", "cpu"), folder)
    lesson.claim("loss", 0.5, at_most=1)
    with pytest.raises(ClaimFailed):
        lesson.claim("gain", 0.01, at_least=0.05)
    (folder / ledger.STOPPED).rename(tmp_path / f"{NAMES[1]}.failed.json")
    found = ledger.rows(ledger.read(tmp_path))
    assert [(row.claim, row.measured, row.holds, row.standing) for row in found] == [
        ("loss", 0.5, True, "enforced"), ("gain", 0.01, False, "enforced"),
    ]  # fmt: skip


def test_the_stored_claims_are_those_of_the_stored_notebooks():
    """Each claim that the outputs in notebooks/ print is stored, and no other; each holds and is enforced."""
    entries = {each["lesson"]: each for each in ledger.stored("cpu")}
    assert list(entries) == [lesson.name for lesson in notebooks.lessons()]
    for lesson in notebooks.lessons():
        cells = nbformat.read(lesson.path, as_version=4).cells
        lines = [
            line
            for cell in cells
            for output in cell.get("outputs", ())
            for line in output.get("text", "").splitlines()
            if line.startswith(("✓ ", "✗ ", "from the stored benchmark: "))
        ]
        printed = [line.removeprefix("✓ ").removeprefix("from the stored benchmark: ") for line in lines]
        assert [claim["claim"] for claim in entries[lesson.name]["claims"]] == printed
        assert {claim["claim"] for claim in entries[lesson.name]["claims"] if claim["stored"]} == {
            line.removeprefix("from the stored benchmark: ") for line in lines if line.startswith("from ")
        }
        assert all(row.holds and row.standing in ledger.ENFORCING for row in ledger.rows([entries[lesson.name]]))
