"""What the pages quote is what is stored."""

import json
import re
import shutil
import sys

import pytest

from ftlab import files
from ftlab.course import bench, ledger, notebooks, profiles

LESSON = {"seconds": 90.0, "peak_memory_mb": 1500, "headline": "done", "metrics": {}, "claims": []}


@pytest.fixture
def docs(repository, monkeypatch):
    """The modules of docs/, by name."""
    monkeypatch.syspath_prepend(str(repository / "docs"))
    for name in ("generated", "lesson_tables", "benchmark_page", "claim_tables", "picture"):
        monkeypatch.delitem(sys.modules, name, raising=False)

    def load(name):
        return __import__(name)

    return load


@pytest.fixture
def generated(docs):
    return docs("generated")


@pytest.fixture
def results(tmp_path, monkeypatch):
    """An own copy of the stored results; returns a function that changes the result of one."""
    folder = tmp_path / "results"
    shutil.copytree(bench.results_folder(), folder)
    for module in bench.results_folder().parent.glob("*.py"):
        shutil.copy(module, tmp_path)
    monkeypatch.setattr(bench, "results_folder", lambda: folder)

    def change(name, **values):
        path = folder / f"{name}.json"
        stored = json.loads(path.read_text(encoding="utf-8"))
        stored["result"].update(values)
        path.write_text(json.dumps(stored), encoding="utf-8")

    change.folder = folder
    return change


@pytest.mark.parametrize("name", ["README.md", "LOG.md", "expected_results.md", "benchmarks.md", "any other"])
def test_every_figure_in_the_pages_is_the_stored_one(generated, name):
    named = ("README.md", "LOG.md", "expected_results.md", "benchmarks.md")
    for page in generated.pages():
        if page.is_file() and (page.name == name or (name == "any other" and page.name not in named)):
            text = page.read_text(encoding="utf-8")
            assert generated.with_figures(text) == text, f"{page.name} is stale: run docs/generated.py"


def test_a_figure_that_is_stored_nowhere_is_refused(generated):
    with pytest.raises(ValueError, match=r"learning_curve has no one value at moon\.cheese"):
        generated.with_figures("<!-- figure .2f learning_curve: moon.cheese -->0.9<!-- end -->")


@pytest.mark.parametrize(
    "comment",
    [
        "<!-- figure .2f learning_curve max(x) -->0.9<!-- end -->",  # no colon
        "<!-- figure  .2f learning_curve: max(x) -->0.9<!-- end -->",  # two spaces
        "<!--figure .2f learning_curve: max(x) -->0.9<!-- end -->",
        "<!-- figure .2f learning_curve:\nmax(x) -->0.9<!-- end -->",
        "<!-- figure .2f learning_curve: max(x) -->0.9\n<!-- end -->",
        "<!-- figure .0f merge: settings.rank -->9<!-- and --> <!-- figure .0f merge: settings.rank -->9<!-- end -->",
        "<!-- lessons from benchmarks/results/first_run.json -->\n| a |\n<!-- end -->",
    ],
)
def test_a_mistyped_comment_is_refused_and_not_skipped(generated, comment):
    with pytest.raises(ValueError, match=r"<!-- ?(figure|lessons).* is no comment that docs/generated\.py explains"):
        generated.with_figures(f"about {comment} of them")


def test_no_line_begins_with_a_figure_because_that_would_end_its_paragraph(generated):
    for page in generated.pages():
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"^\s*(- |\d+\. )?<!-- figure", text, re.MULTILINE), page.name


def test_a_wrong_figure_is_replaced(generated):
    expression = "avg(rotten_tomatoes.runs[?model=='fine-tuned' && rows==`1500`].accuracy)"
    page = f"about <!-- figure .2f learning_curve: {expression} -->0.99<!-- end --> of them"
    assert "-->0.79<!--" in generated.with_figures(page)


def test_a_table_is_written_between_its_markers_and_nothing_else_changes(generated, monkeypatch):
    monkeypatch.setitem(generated.TABLES, "lessons", lambda: "| a |")
    marker = "<!-- lessons: from benchmarks/results/first_run.json -->"
    page = f"before\n{marker}\nold\n\nlines\n<!-- end -->\nafter <!-- end -->\n"
    written = page.replace("old\n\nlines", "| a |")
    assert generated.with_figures(page) == written
    assert generated.with_figures(written) == written


def test_one_page_that_cannot_be_written_keeps_no_other_from_it(generated, tmp_path, monkeypatch, capsys):
    bad, good = tmp_path / "bad.md", tmp_path / "good.md"
    bad.write_text("<!-- figure .2f learning_curve: moon -->0.9<!-- end -->", encoding="utf-8")
    good.write_text("<!-- figure .0f merge: settings.rank -->9<!-- end -->", encoding="utf-8")
    monkeypatch.setattr(generated, "REPOSITORY", tmp_path)
    monkeypatch.setattr(generated, "pages", lambda: [bad, good])
    monkeypatch.setattr(generated.picture, "write", lambda: False)
    assert generated.main() == 1
    assert "-->16<!--" in good.read_text(encoding="utf-8")
    assert capsys.readouterr().err.startswith("bad.md: learning_curve has no one value at moon")


def test_minutes_and_memory_are_those_of_the_stored_first_run(docs, results):
    results("first_run", lessons={"01_data_audit": LESSON})
    assert docs("lesson_tables").minutes_and_memory().splitlines()[2:] == [
        "| [Lesson 01: Audit the data before you train](notebooks/01_data_audit.ipynb) | 1.5 | 1.5 GB |"
    ]


@pytest.fixture
def expected(docs, results, tmp_path, monkeypatch):
    """The table of expected results from made-up measurements, by the lines of its TOML."""
    module = docs("lesson_tables")

    def table(wanted, **lesson):
        results(
            "first_run",
            lessons={"01_data_audit": LESSON | lesson},
            matmul_flops_per_second=2e11,
            first_success_seconds=120,
        )
        toml = tmp_path / "wanted.toml"
        toml.write_text(f'[took]\n[[01_data_audit]]\nwhat = "score"\n{wanted}', encoding="utf-8")
        monkeypatch.setattr(module, "WANTED", toml)
        return module.expected_results()

    return table


@pytest.mark.parametrize(
    ("metrics", "shown"),
    [
        ({"score": 0.5}, "50.0 %"),
        ({"score": 0.5, "score_low": 0.4, "score_high": 0.6}, "50.0 % [40.0 %, 60.0 %]"),
        ({"score_value": 0.5, "score_low": 0.4, "score_high": 0.6}, "50.0 % [40.0 %, 60.0 %]"),
        ({"score": 0.5, "score_low": None, "score_high": None}, "50.0 %"),
    ],
)
def test_a_lesson_s_figure_has_its_interval_if_one_was_measured(expected, metrics, shown):
    table = expected('metric = "score"\nform = ".1%"\nelsewhere = "0.9"', metrics=metrics)
    assert f"| score | {shown} | 0.9 |" in table
    assert "| **1.5 minutes, 1.5 GB** |" in table
    assert "200 GFLOP/s" in table


def test_a_claim_s_value_can_be_shown(expected):
    claims = [{"claim": "answers: at least 0.9", "value": 0.95, "true": True, "held": True}]
    assert "| score | 0.95 |" in expected('claim = "answers"\nform = ".2f"', claims=claims)


@pytest.mark.parametrize(
    "source", ['metric = "nothing"', 'claim = "nothing"', 'benchmark = "lora"\nexpression = "nothing"']
)
def test_a_figure_that_was_not_measured_is_refused_by_its_name(expected, source):
    with pytest.raises(ValueError, match=r"no number is stored for .*nothing"):
        expected(f'{source}\nform = ".2f"')


def test_a_first_run_without_metrics_is_refused(docs, results):
    results("first_run", lessons={name: {"seconds": 9.0, "peak_memory_mb": 9} for name in _lessons(docs)})
    with pytest.raises(ValueError, match="has no 'metrics'"):
        docs("lesson_tables").expected_results()


def _lessons(docs):
    import tomllib

    wanted = tomllib.loads(docs("lesson_tables").WANTED.read_text(encoding="utf-8"))
    return [name for name in wanted if name != "took"]


def test_figures_of_papers_have_their_link(docs):
    """Except what the two tutorials say, and what is an input of the course."""
    import re
    import tomllib

    wanted = tomllib.loads(docs("lesson_tables").WANTED.read_text(encoding="utf-8"))
    for name in _lessons(docs):
        for figure in wanted[name]:
            said = figure.get("elsewhere", "")
            if re.search(r"\d", said) and "tutorial" not in said and "validation rows" not in said:
                assert "](https://" in said, figure


def _stored_bars(value, before=""):
    """All bars anywhere in a stored result, however deep."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if isinstance(inner, bool) and before:
                yield name, inner
            else:
                yield from _stored_bars(inner, before or ("bars" if name == "bars" else ""))


@pytest.fixture
def claims(docs, tmp_path, monkeypatch):
    """The table of claims, of stored ones that may be changed."""
    module = docs("claim_tables")
    committed = ledger.stored("cpu")
    monkeypatch.setattr(ledger, "store_file", lambda profile: tmp_path / f"{profile}.json")

    def table(**stored):
        for profile, entries in stored.items():
            files.write_json(tmp_path / f"{profile}.json", {"profile": profile, "lessons": entries})
        return module.all_claims().splitlines()

    table(cpu=committed)
    return table


def tables(lines):
    """The lines of each table, without its two of the head."""
    found, before = [], ""
    for line in lines:
        if line.startswith("|---"):
            found.append([])
        elif line.startswith("|") and before.startswith("|"):
            found[-1].append(line)
        before = line
    return found


def test_every_stored_claim_and_every_expected_one_has_a_line(claims):
    lines = claims()
    of_cpu, of_gpu = tables(lines)
    stored = [claim for entry in ledger.stored("cpu") for claim in entry["claims"]]
    assert len(of_cpu) == len(stored)
    ends = {
        how: [line for line in of_gpu if line.endswith(f"| {how} |")]
        for how in ("not yet", "in every run", "in fp32 alone")
    }
    expected, always, in_fp32 = ends.values()
    number = len(of_gpu)
    assert (
        number == len(expected) + len(always) + len(in_fp32) == len([claim for claim in stored if not claim["stored"]])
    )
    (accuracy,) = [line for line in expected if "00_start" in line and "| accuracy on the test rows |" in line]
    assert f"| at least {profiles.table()['start_here']['gpu']['at_least_accuracy']:g} |" in accuracy
    assert any("copy or near-copy in training" in line for line in always)
    assert sum("06_merge" in line and "answers that a batch changes" in line for line in in_fp32) == 1
    assert sum("05_lora" in line and "divided by all tokens" in line for line in in_fp32) == len(in_fp32) - 1
    assert lines[-1].endswith(f"{number} claims expected, not yet measured.")


COMPUTED = """
lesson.claim("half", 1, at_most=2, computed_in=model.dtype)
lesson.claim("half whenever", 1, at_most=2, always=True, computed_in="bf16")
lesson.claim("by hand", 1, at_most=2, always=True, computed_in=DTYPE if budget.variant == "dora" else None)
lesson.claim("none", 1, at_most=2, computed_in=None)
lesson.claim("often", 1, at_most=budget.at_most_loss_change, always=True)
"""


def test_on_a_gpu_a_claim_of_what_is_computed_in_half_precision_is_promised_in_fp32_alone(
    claims, tmp_path, monkeypatch
):
    cells = [{"cell_type": "code", "source": COMPUTED}]
    (tmp_path / "05_lora_phi2.ipynb").write_text(json.dumps({"cells": cells}), encoding="utf-8")
    monkeypatch.setattr(notebooks, "notebooks_folder", lambda: tmp_path)
    made = [
        {
            "claim": f"{text}: at most 2",
            "value": 1.0,
            "true": True,
            "held": True,
            "standing": "enforced",
            "stored": False,
        }
        for text in ("half", "half whenever", "by hand", "none", "often")
    ]
    run = ledger.stored("cpu")[0] | {"lesson": "05_lora_phi2", "claims": made}
    of_gpu = [line.removesuffix(" |").split(" | ") for line in tables(claims(cpu=[run]))[-1]]
    assert [(cells[1], cells[3]) for cells in of_gpu] == [
        ("half", "in fp32 alone"), ("half whenever", "in fp32 alone"), ("by hand", "in every run"), ("none", "not yet"),
        ("often", "in every run"),
    ]  # fmt: skip


def test_a_run_on_a_gpu_takes_the_place_of_what_was_expected(claims):
    budget = profiles.resolve("start_here", "gpu").settings
    made = {"claim": "accuracy on the test rows: at least 0.85", "value": 0.9, "true": True, "held": False}
    run = ledger.stored("cpu")[0] | {
        "profile": "gpu", "budget": budget, "hardware": {"gpu": "a GPU", "processor": "a CPU", "cores": 16},
        "claims": [made | {"standing": "expected", "stored": False}],
    }  # fmt: skip
    lines = claims(gpu=[run])
    assert "**Profile `gpu`, measured.** Lesson 00: a GPU, 16 cores, " in "\n".join(lines)
    of_gpu = [line for table in tables(lines)[1:] for line in table if "00_start_here" in line]
    assert [line.split(" | ")[1:5] for line in of_gpu] == [["accuracy on the test rows", "at least 0.85", "0.9", "yes"]]
    lines = claims(gpu=[run | {"budget": budget | {"rows": 9}}])
    assert len(tables(lines)) == 2
    assert not any("| 0.9 |" in line for line in lines)


def test_a_claim_that_the_notebook_no_longer_makes_is_not_shown(claims):
    (entry, *others) = ledger.stored("cpu")
    gone = {"claim": "gone: at least 1", "value": 1.0, "true": True, "held": True, "standing": "enforced"}
    with pytest.raises(ValueError, match="00_start_here does not claim 'gone', which is stored of it"):
        claims(cpu=[entry | {"claims": [gone | {"stored": False}]}, *others])


def test_every_benchmark_and_every_bar_is_on_the_page(repository):
    page = (repository / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    stored = sorted((repository / "benchmarks" / "results").glob("*.json"))
    assert len(stored) >= 13
    for path in stored:
        bars = list(_stored_bars(json.loads(path.read_text(encoding="utf-8"))["result"]))
        assert f"| [{path.stem}](#{path.stem}) |" in page
        section = page.partition(f"### {path.stem}\n")[2].partition("\n### ")[0]
        lines = [line for line in section.splitlines() if line.endswith(("| met |", "| **not met** |"))]
        assert len(lines) == len(bars), path.stem
        for bar, met in bars:
            assert any(bar in line and line.endswith("| met |" if met else "| **not met** |") for line in lines), bar


def test_a_bar_that_no_figure_names_is_shown_all_the_same(docs, results):
    page = docs("benchmark_page")
    results("merge", bars={"at most 1.5 GB above the interpreter": False, "new": {"case": True}})
    with pytest.raises(ValueError, match=r"at most 1\.3 times the seconds of a copy"):
        page.section("merge")
    results("learning_curve", bars={"quick": True})
    assert "| | | quick | met |" in page.section("learning_curve")


def test_a_benchmark_that_nobody_chose_figures_for_shows_its_numbers(docs, results):
    page = docs("benchmark_page")
    stored = json.loads((results.folder / "merge.json").read_text(encoding="utf-8"))
    stored["result"] = {"rows_used": 1500, "name": "x", "bars": {"all good": False}}
    (results.folder / "new.json").write_text(json.dumps(stored), encoding="utf-8")
    (results.folder.parent / "new.py").write_text('"""A new question.\n\nMore of it."""\n', encoding="utf-8")
    assert "| [new](#new) | A new question. | 0 of 1 |" in page.summary()
    section = page.section("new")
    assert "| rows used | 1,500 | no bar | |" in section
    assert "| | | all good | **not met** |" in section


def test_a_note_about_a_stored_result_ends_with_it(docs, results):
    page = docs("benchmark_page")
    path = results.folder / "freezing_scores.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    for date, shown in (("2026-11-28", True), ("2027-01-01", False)):
        path.write_text(json.dumps(stored | {"date": date}), encoding="utf-8")
        assert ("**Older than this description.**" in page.section("freezing_scores")) is shown
