import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import yaml
from huggingface_hub import ModelCard

from ftlab.course import begin, card
from ftlab.data import sources
from ftlab.data.audit import audit
from ftlab.data.splits import split
from ftlab.evaluation import baselines, calibration, comparison
from ftlab.evaluation.predictions import prediction_table
from ftlab.models import loading

TEMPERATURE, CUT = 1.374, 0.125


@pytest.fixture
def surroundings(tmp_path, monkeypatch):
    monkeypatch.setenv("FTLAB_RUN_FOLDER", str(tmp_path / "run"))
    for switch in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "FTLAB_WENT_OFFLINE"):
        monkeypatch.setenv(switch, "")  # begin sets them; this puts back what was there


@pytest.fixture
def lesson(surroundings):
    """A lesson that has drawn its rows and is about to judge: `lesson.splits` and `lesson.test` are what it drew."""
    lesson = begin("02_text_classification", profile="smoke", seed=3)
    lesson.splits = split(sources.load("mini_reviews", seed=3), rows=120, validation_rows=40, test_rows=40, seed=3)
    lesson.test = lesson.open_test(lesson.splits, "judge")
    lesson.used(train=lesson.splits.train, validation=lesson.splits.validation, test=lesson.test)
    return lesson


def answering(rows, share: float) -> pd.DataFrame:
    """The predictions of a model that is right on this share of rows, more or less sure of each."""
    rng = np.random.default_rng(0)
    labels, classes = np.asarray(rows["label"]), len(rows.features["label"].names)
    wrong = rng.permutation(len(rows)) >= share * len(rows)
    chosen = np.where(wrong, (labels + 1) % classes, labels)
    logits = rng.normal(size=(len(rows), classes))
    logits[np.arange(len(rows)), chosen] = logits.max(axis=1) + rng.uniform(0.1, 2, len(rows))
    powers = np.exp(logits)
    return prediction_table(rows, powers / powers.sum(axis=1, keepdims=True))


def findings_of(lesson):
    """The audit of a training split with a copy of a test row in it, and an e-mail address."""
    train = sources.as_frame(lesson.splits.train)
    train.loc[0, "text"] = lesson.test["text"][0]
    train.loc[1, "text"] += " (write to jo@lighthouse-mail.de)"
    return audit(train, test=sources.as_frame(lesson.test))


def write(folder, lesson, *, model=0.95, rival=0.6, cut=CUT, report=None):
    """The card, its metrics and the tables that they were made of."""
    answers = {
        "majority class": baselines.majority(lesson.splits.train, lesson.test),
        "word counts": answering(lesson.test, rival),
        "guessing": answering(lesson.test, 0.3),
        "fine-tuned": answering(lesson.test, model),
    }
    folder.mkdir(exist_ok=True)
    report = report if report is not None else findings_of(lesson)
    options = {"temperature": TEMPERATURE, "cut": cut, "precision": "float32 by halves"}
    card.write_card(folder, lesson, audit=report, answers=answers, **options)
    text = (folder / "README.md").read_text(encoding="utf-8")
    return text, json.loads((folder / "metrics.json").read_text(encoding="utf-8"), parse_constant=pytest.fail), answers


def section(text: str, title: str) -> str:
    return re.search(rf"^## {title}.*?\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE).group(1)


def table_of(text: str, header: str) -> dict[str, list[str]]:
    """The lines of the table under a header line: {first cell: the others}."""
    lines = text[text.index(header) :].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert len({len(row) for row in cells}) == 1
    return {row[0]: row[1:] for row in cells}


def test_every_field_is_filled(lesson, tmp_path):
    text, _, _ = write(tmp_path / "model", lesson)
    assert not re.search(r"\{\{|\}\}|\{%|%\}|\bNone\b|\bnan\b|\binf\b|Undefined|<[\w.]+ object", text, re.IGNORECASE)
    lines = [line for line in text.splitlines() if line.startswith("|") and not line.startswith(("| |", "| expected"))]
    assert len(lines) > 30
    assert all(cell.strip() for line in lines for cell in line.strip("|").split("|"))
    titles = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert titles == ["Use", "Data", "Training", "Results on 40 test rows", "Limits"]
    assert all(section(text, title).strip() for title in titles)


def test_the_front_matter_is_what_the_hub_reads(lesson, tmp_path):
    text, metrics, _ = write(tmp_path / "model", lesson)
    assert text.startswith("---\n")
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["base_model"] == "tiny-distilbert"
    assert (front["library_name"], front["pipeline_tag"]) == ("transformers", "text-classification")
    read = ModelCard.load(tmp_path / "model" / "README.md")
    assert read.text.lstrip().startswith("# tiny-distilbert, fine-tuned to label mini_reviews")
    found = {result.metric_type: result for result in read.data.eval_results}
    assert set(found) == {"accuracy", "f1_macro", "mcc"}
    for name, result in found.items():
        assert result.metric_value == pytest.approx(metrics["scores"][name]["value"], abs=1e-4)
        assert (result.dataset_name, result.dataset_split) == ("mini_reviews", "test")


def test_the_card_and_the_metrics_have_the_scores_with_their_intervals(lesson, tmp_path):
    text, metrics, answers = write(tmp_path / "model", lesson)
    expected = comparison.scores(answers["fine-tuned"], seed=3)
    shown = table_of(section(text, "Results"), "| | value | 95 % interval |")
    error = calibration.expected_calibration_error(answers["fine-tuned"])
    assert shown.pop("expected calibration error")[0] == f"{error:.3f}"
    assert metrics["expected_calibration_error"] == error
    assert set(expected) == set(shown) == set(metrics["scores"])
    for name, score in expected.items():
        assert shown[name] == [f"{score.value:.3f}", f"{score.low:.3f} to {score.high:.3f}"]
        assert metrics["scores"][name] == {
            "value": score.value, "low": score.low, "high": score.high, "level": 0.95
        }  # fmt: skip
    assert (metrics["model"], metrics["test_rows"], metrics["temperature"]) == ("fine-tuned", 40, TEMPERATURE)
    assert "divided by 1.37, which is folded into the weights" in text


def test_the_card_and_the_metrics_have_each_baseline_and_the_gain_over_the_best(lesson, tmp_path):
    text, metrics, answers = write(tmp_path / "model", lesson)
    ladder = table_of(section(text, "Results"), "| | accuracy | 95 % interval | macro F1 |")
    assert list(ladder) == list(answers)
    assert list(metrics["baselines"]) == ["majority class", "word counts", "guessing"]
    for name, table in answers.items():
        accuracy = comparison.accuracy(table)
        assert ladder[name][:2] == [f"{accuracy.value:.3f}", f"{accuracy.low:.3f} to {accuracy.high:.3f}"]
        if name != "fine-tuned":
            assert metrics["baselines"][name]["value"] == accuracy.value
    best = max(metrics["baselines"], key=lambda name: metrics["baselines"][name]["value"])
    gain = comparison.compare(answers["fine-tuned"], answers[best], seed=3)
    assert metrics["less_the_best_baseline"]["baseline"] == best
    assert metrics["less_the_best_baseline"]["value"] == gain.difference.value
    assert metrics["less_the_best_baseline"]["p"] == gain.p_value
    assert f"Less {best}, on the same rows: {gain}." in text


def test_the_best_baseline_is_the_rival_wherever_it_stands(lesson, tmp_path):
    for rival in (0.8, 0.5):  # the second as good as the majority class, which is the simpler one
        _, metrics, _ = write(tmp_path / "model", lesson, rival=rival)
        assert metrics["less_the_best_baseline"]["baseline"] == "word counts"
    _, metrics, _ = write(tmp_path / "model", lesson, rival=0.1)
    assert metrics["less_the_best_baseline"]["baseline"] == "majority class"


@pytest.mark.parametrize(
    ("model", "rival", "says"),
    [
        (0.95, 0.4, None),
        (0.80, 0.75, "It is not clearly better than the baseline: the simpler model may do."),
        (0.75, 0.75, "It is not clearly better than the baseline: the simpler model may do."),
        (0.55, 0.95, "It is clearly worse than the baseline: use the simpler model."),
    ],
    ids=["better", "not clearly better", "equal", "worse"],
)
def test_the_card_says_where_the_model_does_not_beat_the_baseline(lesson, tmp_path, model, rival, says):
    text, metrics, _ = write(tmp_path / "model", lesson, model=model, rival=rival)
    limits = section(text, "Limits")
    assert ("baseline: " in limits) == (says is not None)
    assert says is None or f"- {says}\n" in limits
    less = metrics["less_the_best_baseline"]
    assert (less["low"] > 0) == (says is None)


def test_the_data_are_those_that_were_used(lesson, tmp_path):
    text, metrics, _ = write(tmp_path / "model", lesson)
    shown = table_of(text, "| split | rows |")
    assert list(shown) == ["train", "validation", "test"]
    for name, used in lesson.data.items():
        rows, origin, licence, sha256 = shown[name]
        assert rows == str(used["rows"])
        assert origin == "mini_reviews (shipped with ftlab)"
        assert licence == "Apache-2.0"
        assert used["sha256"].startswith(sha256)
        assert len(sha256) == 16
    assert metrics["data"] == json.loads(json.dumps(lesson.data))
    assert metrics["data"]["test"]["sha256"] == sources.fingerprint(lesson.test)


def test_the_findings_of_the_audit_stand_on_the_card(lesson, tmp_path):
    report = findings_of(lesson)
    assert {"leakage", "email_addresses"} <= {found.id for found in report.findings}
    text, _, _ = write(tmp_path / "model", lesson, report=report)
    data = section(text, "Data")
    assert f"found {len(report.findings)} things:\n" in data
    listed = re.findall(r"^- (.*)$", data, re.MULTILINE)
    assert listed == [f"{found.severity}: {found.what}" for found in report.findings]


def test_an_audit_without_findings_is_said_to_have_found_nothing(lesson, tmp_path):
    report = findings_of(lesson)
    text, _, _ = write(tmp_path / "model", lesson, report=replace(report, findings=()))
    assert re.search(r"with validation and test beside\s+them, found nothing\.", text)


def test_the_budget_the_seed_and_the_weights_stand_on_the_card(lesson, tmp_path):
    text, metrics, _ = write(tmp_path / "model", lesson)
    shown = {name: cells[0] for name, cells in table_of(section(text, "Training"), "| | |").items()}
    budget = lesson.budget
    for name in ("dataset", "model", "max_length", "epochs", "batch_size", "learning_rate", "weight_decay", "patience"):
        assert shown[name] == str(budget.settings[name])
        assert metrics["budget"][name] == budget.settings[name]
    assert shown["seed"] == str(metrics["seed"]) == "3"
    assert shown["precision"] == "float32 by halves"
    weights = loading.weights_sha256(loading.folder("tiny-distilbert"))
    assert shown["base weights"] == f"tiny-distilbert, SHA-256 {weights[:16]}"
    assert re.search(r"python 3\.\d+\.\d+, ftlab .*transformers \d", shown["versions"])
    assert f"Texts are cut after {budget.max_length} tokens" in text
    assert "one of 2 labels: negative, positive." in text


def test_the_limits_name_the_worst_label_the_power_and_what_is_cut(lesson, tmp_path):
    text, _, answers = write(tmp_path / "model", lesson)
    limits = section(text, "Limits")
    scores = comparison.scores(answers["fine-tuned"], seed=3)
    worst = min(("negative", "positive"), key=lambda label: scores[f"f1[{label}]"].value)
    assert f"does worst on is {worst} (F1 {scores[f'f1[{worst}]']})" in limits
    gain = comparison.compare(answers["fine-tuned"], answers["word counts"])
    smallest = comparison.smallest_difference(40, (gain.only_first + gain.only_second) / 40)
    assert f"On 40 test rows a difference in accuracy of less than {smallest:.3f} from a model" in limits
    assert f"12.5% of the test texts are longer than {lesson.budget.max_length} tokens" in limits
    assert "hold for texts like the test rows" in limits
    assert "calibrated on rows like the validation rows" in limits
    text, _, _ = write(tmp_path / "model", lesson, cut=0.0)
    assert "are longer than" not in section(text, "Limits")


def test_equal_runs_leave_equal_files_and_nothing_else(lesson, tmp_path):
    folder = tmp_path / "model"
    written = []
    for _ in range(2):
        write(folder, lesson)
        written.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert written[0] == written[1]
    assert set(written[0]) == {"README.md", "metrics.json"}


def test_four_labels_from_a_file_of_your_own_are_all_on_the_card(surroundings, tmp_path):
    file = tmp_path / "my: tickets & co.csv"
    sources.read("tickets").rename(columns={"label": "team"}).to_csv(file, index=False)
    mine = {"dataset": str(file), "label_column": "team"}
    lesson = begin("02_text_classification", profile="smoke", **mine)
    lesson.splits = split(sources.load(str(file), label_column="team"), rows=120, validation_rows=40, test_rows=40)
    lesson.test = lesson.open_test(lesson.splits, "judge")
    lesson.used(train=lesson.splits.train, validation=lesson.splits.validation, test=lesson.test)
    report = audit(sources.as_frame(lesson.splits.train))
    text, metrics, _ = write(tmp_path / "model", lesson, report=report)
    assert "one of 4 labels: authentication, billing, bug_report, how_to." in text
    shown = table_of(section(text, "Results"), "| | value | 95 % interval |")
    assert {"f1[authentication]", "f1[billing]", "f1[bug_report]", "f1[how_to]"} <= set(shown) & set(metrics["scores"])
    read = ModelCard.load(tmp_path / "model" / "README.md")
    assert read.data.eval_results[0].dataset_name == "my: tickets & co.csv"
    assert "fine-tuned to label my: tickets & co.csv" in read.text
