"""What is handed in broken is refused in one sentence: no traceback, no silent pass, and no pickle is opened."""

import contextlib
import json
import os
import pickle
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ftlab.errors import AssetError, BadInput, CourseError
from ftlab.exercises import checker, handed_in, manifest, rewording
from ftlab.exercises.outcomes import Result, Status
from ftlab.memory import footprint
from ftlab.models import loading
from tests import nightly
from tests.command_line import ftlab
from tests.exercises import hand_ins
from tests.exercises.hand_ins import copied, edit

pytestmark = [pytest.mark.assets, pytest.mark.usefixtures("one_thread", "no_pairs")]


@pytest.fixture
def no_pairs(monkeypatch):
    """Rewordings are another test's matter, and slow."""
    monkeypatch.setattr(rewording, "nearest", lambda texts, others: [])
    monkeypatch.setattr(checker, "bar", lambda *_, **__: contextlib.nullcontext(_Silent()))


class _Silent:
    def update(self) -> None:
        pass


@pytest.fixture(scope="module")
def honest(tmp_path_factory) -> dict[str, Path]:
    """A hand-in of each level. Both runs of Level 2 are the one of Level 1."""
    folder = tmp_path_factory.mktemp("honest")
    file = hand_ins.write_messages(folder / "rows")
    made = {"level1": hand_ins.level1(folder / "level1", file), "level3": hand_ins.level3(folder / "level3")}
    second = folder / "level2"
    for run in ("full", "frozen"):
        (second / run).mkdir(parents=True)
        for name in ("arguments.json", "log.json", "predictions.csv"):
            shutil.copy(made["level1"] / name, second / run)
        shutil.copytree(made["level1"] / "model", second / run / "model")
    for name in ("attempt.json", "rows.jsonl"):
        shutil.copy(made["level1"] / name, second)
    edit(second / "attempt.json", lambda attempt: attempt.update(level="level2"))
    hand_ins.conclude2(second)
    return {**made, "level2": second}


@pytest.fixture
def first(honest, tmp_path) -> Path:
    return copied(honest["level1"], tmp_path / "first")


@pytest.fixture
def third(honest, tmp_path) -> Path:
    return copied(honest["level3"], tmp_path / "third")


def check(level: str, folder: Path, *rules: str) -> Result:
    """Check some rules of a work folder; all by default."""
    return checker.check(manifest.level(level), folder, only=lambda rule: not rules or rule in rules)


def sentence(level: str, folder: Path, *rules: str) -> str:
    """The one sentence in which a work folder is refused, as the command line prints it."""
    with pytest.raises(BadInput) as refused:
        check(level, folder, *rules)
    said = str(refused.value)
    assert "\n" not in said
    assert len(said) < 600
    return said


def answer(level: str, folder: Path, rule: str) -> tuple[Status, str]:
    """The status of a rule, and what it found."""
    (outcome,) = check(level, folder, rule).outcomes
    return outcome.status, outcome.answer.found


# --- Anything, anywhere ---------------------------------------------------------------------------

VALUES: list[Any] = [None, "x", [], {}, [None], -1, 0, 1e308, 10**400, True]
INSIDE: list[Any] = [None, "x", [], -1, 10**400]  # in place of a value inside of another
# Which rules read a file, and the keys without which one of them must say something else than PASS.
FILES: dict[tuple[str, str], tuple[str, str]] = {
    ("level1", "attempt.json"): ("source weights", "level format profile model dataset"),
    ("level1", "arguments.json"): (
        "epochs steps log",
        "num_train_epochs train_batch_size gradient_accumulation_steps logging_strategy",
    ),
    ("level1", "log.json"): (
        "labels epochs steps log losses chosen",
        "global_step epoch rows train_rows train_labels eval_rows log_history logging_steps",
    ),
    ("level1", "report.json"): ("report", "billing"),
    ("level1", "conclusion.json"): ("conclusion", "answer because"),
    ("level2", "full/log.json"): ("same-rows same-settings steps log losses time", "train_rows epoch"),
    ("level2", "frozen/arguments.json"): ("same-settings steps log", "seed num_train_epochs"),
    ("level2", "conclusion.json"): (
        "f1 time conclusion",
        "f1 difference seconds_per_step better_f1 faster choice because",
    ),
    ("level3", "answers_base.json"): ("answers ratings", "prompts answers do_sample max_new_tokens"),
    ("level3", "answers_tuned.json"): ("answers blind again", "prompts answers do_sample max_new_tokens"),
    ("level3", "sheet.json"): ("ratings blind spread means", "seed prompts"),
    ("level3", "conclusion.json"): ("means conclusion", "answer because difference means"),
    ("level3", "rows.jsonl"): ("filled fits", "0"),
    ("level3", "prompts.jsonl"): ("prompts", "0"),
    ("level3", "tokens.jsonl"): ("fits eos", "0"),
    ("level1", "rows.jsonl"): ("enough labels", "0"),
}


def places(value: Any) -> Iterator[tuple[Any, ...]]:
    """The path of each value in a JSON value; of lists, the first and the last."""
    inside = value.items() if isinstance(value, dict) else [] if not isinstance(value, list) else enumerate(value)
    for key, one in inside:
        if not isinstance(value, list) or key in (0, len(value) - 1):
            yield (key,)
            yield from ((key, *path) for path in places(one))


def changed(text: str, path: tuple[Any, ...], change: Callable[[Any, Any], None]) -> Any:
    """A JSON value that is changed at one place."""
    value = at = json.loads(text)
    for key in path[:-1]:
        at = at[key]
    change(at, path[-1])
    return value


def every_change(text: str) -> Iterator[tuple[str, Any]]:
    """A JSON value with each of its values deleted, and replaced; and with another value in place of all."""
    for path in places(json.loads(text)):
        yield f"without {path}", changed(text, path, lambda at, key: at.pop(key))
        for new in VALUES if len(path) == 1 else INSIDE:
            yield f"{path}: {new!r:.20}", changed(text, path, lambda at, key, new=new: at.__setitem__(key, new))
    yield from ((f"{new!r:.20}", new) for new in VALUES)


@pytest.fixture
def loaded_once(monkeypatch):
    """Load each model once; the models stay whole here."""
    kept: dict[str, Any] = {}
    begin = handed_in.HandedIn.__init__

    def beginning(self, level, folder) -> None:
        begin(self, level, folder)
        self.loaded = kept

    monkeypatch.setattr(handed_in.HandedIn, "__init__", beginning)


@pytest.mark.usefixtures("loaded_once")
@pytest.mark.parametrize(("level", "name"), FILES, ids=lambda one: one)
def test_whatever_stands_in_a_json_file_gets_an_answer_and_never_a_traceback(honest, tmp_path, level, name):
    folder = copied(honest[level], tmp_path / "work")
    file = folder / name
    rules, needed = (words.split() for words in FILES[level, name])
    rules = check(level, folder, *rules).of(Status.PASS, Status.WARN)
    rules = [outcome.rule.id for outcome in rules]
    lines = name.endswith("l")
    text = file.read_text(encoding="utf-8")
    text = f"[{','.join(text.splitlines())}]" if lines else text
    if name.endswith("log.json") and "train_tokens" in text:  # two short lists stand for all
        text = json.dumps(
            {**json.loads(text), "train_tokens": [ids[:3] for ids in json.loads(text)["train_tokens"][:2]]}
        )
    failures, refused = [], set()
    for number, (what, value) in enumerate(every_change(text)):
        if not (nightly.NIGHTLY or what.startswith("without") or number % 5 == 0):  # by day some of the replacements
            continue
        if lines and not isinstance(value, list):
            continue
        file.write_text(
            "".join(json.dumps(line) + "\n" for line in value) if lines else json.dumps(value), encoding="utf-8"
        )
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            try:
                result = check(level, folder, *rules)
                json.dumps(result.to_dict())
                if not result.passed:
                    refused.add(what)
            except CourseError as problem:
                refused.add(what)
                if "\n" in str(problem) or len(str(problem)) > 600:
                    failures.append(f"{what}: {problem!r:.200}")
            except Exception as problem:
                failures.append(f"{what}: {type(problem).__name__}: {problem!s:.80}")
    assert not failures, f"{len(failures)} of them: " + "\n".join(failures[:40])
    for key in needed:
        assert f"without ({int(key) if lines else key!r},)" in refused or lines, key


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ('{"loss": NaN}', "JSON has no NaN"),
        ('{"loss": -Infinity}', "JSON has no -Infinity"),
        ('{"loss": 1e999}', "too large for a number"),
        ('{"step": 1' + "0" * 400 + "}", "too large for a number"),
        ('{"step": 1' + "0" * 5000 + "}", "too large for a number"),
        ('{"epoch": 3, "epoch": 1}', "'epoch' stands twice"),
        ("[1, 2]", "holds no JSON object"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        (r'{"profile": "\ud800"}', "half a character"),
        (b"\x00\x01\x02", "not JSON"),
        (b"\xff\xfe{\x00}\x00", "not JSON"),
        (b'{"text": "caf\xe9"}', "not JSON"),
    ],
    ids=range(15),
)
@pytest.mark.parametrize("name", ["attempt.json", "log.json"])
def test_a_file_that_is_not_strict_json_is_named_with_the_reason(first, name, text, reason):
    (first / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    said = sentence("level1", first, "epochs")
    assert str(first / name) in said
    assert reason in said
    assert "run the recorder cell" in said


@pytest.mark.parametrize("depth", [100, 400, 800, 900, 950, 980])
def test_json_nested_as_deep_as_python_reads_it_is_answered_too(first, depth):
    nested = "[" * depth + "]" * depth
    (first / "conclusion.json").write_text(f'{{"answer": {nested}, "because": "so"}}', encoding="utf-8")
    try:
        said = answer("level1", first, "conclusion")[1]
    except BadInput as problem:
        said = str(problem)
    assert said.startswith("[[[") or "nested too deeply" in said
    assert len(said) < 400


@pytest.mark.parametrize("seed", [-1, "zero", [1], None, 1.5, 2**70])
def test_whatever_the_seed_of_a_try_is_its_intervals_are_answered(honest, tmp_path, seed):
    folder = copied(honest["level2"], tmp_path / "work")
    edit(folder / "attempt.json", lambda attempt: attempt.update(seed=seed))
    assert answer("level2", folder, "f1")[0] in (Status.PASS, Status.FIX)


def test_a_base_that_cannot_be_fetched_leaves_its_rules_unchecked_and_no_other(first, monkeypatch):
    def unreachable(name: str) -> Any:
        raise AssetError(f"the model {name} is not in the cache, and there is no network")

    monkeypatch.setattr(loading, "config", unreachable)
    result = check("level1", first, "losses", "again", "report")
    assert [outcome.status for outcome in result.outcomes] == [Status.PASS, Status.NOT_CHECKED, Status.PASS]
    (unchecked,) = result.of(Status.NOT_CHECKED)
    assert "is not in the cache" in unchecked.answer.found
    assert unchecked.answer.advice == "Make it readable, and check again."


# --- The folder -----------------------------------------------------------------------------------


def test_nothing_handed_in_is_not_started(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / ".DS_Store").write_bytes(b"\0")
    (tmp_path / "kept" / "earlier" / "1").mkdir(parents=True)
    for name in ("missing", "empty", "hidden", "kept"):
        result = check("level1", tmp_path / name)
        assert result.exit_code == 3
        assert result.state.startswith("NOT STARTED: nothing is recorded in")


def test_what_is_there_is_checked_and_the_rest_is_not_started(first):
    for name in ("predictions.csv", "baseline.csv", "report.json", "conclusion.json"):
        (first / name).unlink()
    result = check("level1", first)
    waiting = {outcome.rule.id: outcome.answer.found for outcome in result.of(Status.NOT_STARTED)}
    assert waiting == {
        "labels": "predictions.csv is not handed in", "again": "predictions.csv is not handed in",
        "baseline": "baseline.csv is not handed in", "report": "predictions.csv is not handed in",
        "conclusion": "conclusion.json is not handed in",
    }  # fmt: skip
    assert not result.of(Status.FIX, Status.NOT_CHECKED)
    assert result.exit_code == 1
    assert "TO FINISH: 5 rules of 14" in result.state


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"level": "level2"}, "holds a try of level2, and you asked about level1"),
        ({"level": None}, "holds a try of None"),
        ({"format": 2}, "another version of ftlab (format 2, and this one reads 1)"),
        ({"format": "1"}, "another version"),
        ({"profile": "quick"}, "has quick as its profile; expected one of smoke, cpu, gpu"),
        ({"model": "a\0b"}, r"has 'a\x00b' as its model"),
        ({"model": " "}, "has ' ' as its model"),
        ({"dataset": None}, "has None as its dataset"),
        ({"dataset": "x" * 300}, "cannot be looked at"),
        ({"text_column": ["text"]}, "has ['text'] as its text_column"),
    ],
)
def test_a_try_of_something_else_is_refused(first, change, reason):
    edit(first / "attempt.json", lambda attempt: attempt.update(change))
    assert reason in sentence("level1", first)


def test_files_without_attempt_json_are_another_folder(first):
    (first / "attempt.json").unlink()
    assert "has no attempt.json, which the recorder writes first" in sentence("level1", first)


def test_the_command_line_says_the_sentence_and_exits_with_2(capsys, first):
    (first / "log.json").write_text("{", encoding="utf-8")
    code, out, err = ftlab(capsys, "check", "level1", "--work", first)
    assert (code, out, len(err)) == (2, "", 1)
    assert "log.json is not JSON" in err[0]


def test_a_folder_in_place_of_a_file_is_refused(first):
    for name in ("log.json", "rows.jsonl", "predictions.csv"):
        (first / name).unlink()
        (first / name).mkdir()
        rule = {"log.json": "losses", "rows.jsonl": "enough", "predictions.csv": "report"}[name]
        assert f"{name} is a folder, and a file is expected there" in sentence("level1", first, rule)
        (first / name).rmdir()
        (first / name).write_text("{}", encoding="utf-8")


def test_what_may_not_be_read_is_named(first, monkeypatch):
    monkeypatch.setattr(handed_in.os, "access", lambda path, mode: Path(path).name != "log.json")
    assert "log.json is closed to you" in sentence("level1", first, "losses")
    monkeypatch.setattr(handed_in.os, "access", lambda path, mode: False)
    assert "is a folder that you may not read" in sentence("level1", first, "losses")


def test_a_file_that_is_too_large_is_not_read(first):
    os.truncate(first / "log.json", 3_000_000_000)
    assert "log.json has 3,000 MB; expected at most 64 MB" in sentence("level1", first, "losses")
    os.truncate(first / "rows.jsonl", 3_000_000_000)
    assert "rows.jsonl has 3,000 MB; expected at most 1024 MB" in sentence("level1", first, "enough")


def test_stray_files_are_not_read(first):
    for number in range(10_000):
        (first / f"stray-{number}").touch()
    (first / "huge.json").touch()
    os.truncate(first / "huge.json", 3_000_000_000)
    (first / "huge.safetensors").touch()
    os.truncate(first / "huge.safetensors", 3_000_000_000)
    (first / "model" / "training_args.bin").write_bytes(b"no pickle at all")
    result = check("level1", first, "enough", "losses", "report", "weights")
    assert len(result.of(Status.PASS, Status.WARN)) == 4
    assert result.seconds < 10


# --- Links ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rule"),
    [("log.json", "losses"), ("rows.jsonl", "enough"), ("report.json", "report"), ("model", "weights"),
     ("model/model.safetensors", "weights"), ("model/config.json", "again"), ("model", "again"),
     ("attempt.json", "report")],
)  # fmt: skip
def test_a_link_that_leads_outside_is_not_followed(first, tmp_path, name, rule):
    (first / name).rename(tmp_path / "outside")
    (first / name).symlink_to(tmp_path / "outside")
    try:
        status, said = answer("level1", first, rule)
    except BadInput as problem:
        status, said = Status.FIX, str(problem)
    assert status in (Status.FIX, Status.NOT_CHECKED)
    assert f"{first / name} is a link that leads outside the work folder" in said


def test_a_link_to_nothing_and_a_loop_are_refused(first):
    (first / "log.json").unlink()
    (first / "log.json").symlink_to("nowhere.json")
    assert "log.json is a link to nothing" in sentence("level1", first, "losses")
    (first / "log.json").unlink()
    (first / "log.json").symlink_to("other.json")
    (first / "other.json").symlink_to("log.json")
    assert "log.json is a link" in sentence("level1", first, "losses")


def test_a_work_folder_behind_a_link_or_with_spaces_in_its_name_works(first, tmp_path):
    (tmp_path / "mine").symlink_to(first)
    strange = copied(first, tmp_path / "Übung 1 Müller 😀" / "work")
    for folder in (tmp_path / "mine", strange):
        assert check("level1", folder, "losses", "weights", "again", "report").passed


def test_a_pipe_in_place_of_a_file_is_not_read(first):
    (first / "log.json").unlink()
    os.mkfifo(first / "log.json")
    assert "log.json is no file" in sentence("level1", first, "losses")


# --- Rows -----------------------------------------------------------------------------------------


def row(**change: Any) -> str:
    return json.dumps({"id": "new-1", "split": "train", "text": "a text", "label": "billing", **change})


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (row(label=None), "the row has no label; expected a text"),
        (row(text=""), "the row has no text"),
        (row(text=" "), "the row has ' ' as its text"),
        (row(label=3), "the row has 3 as its label"),
        (row(id=7), "the row has 7 as its id"),
        (row(label=["a", "b"]), "the row has ['a', 'b'] as its label"),
        (row(split="dev"), "the split 'dev'; expected one of train, validation, test"),
        (row() + "\n" + row(), "has new-1 more than once"),
        ('{"id": "new-1"', "not JSON"),
        ("[1]", "expected an object"),
        (row(text="a") + row(), "not JSON"),
        ('{"id": "new-1", "text": "a\0b"}', "line 151, has the byte 0, which no text has; remove it"),
        (r'{"id": "new-1", "text": "\ud800"}', "half a character"),
        (b'{"id": "caf\xe9"}', "is not UTF-8 (line 151 has the byte 0xe9)"),
        ("[" * 100_000, "nested too deeply"),
    ],
    ids=range(15),
)
def test_a_row_that_is_none_is_named_by_its_line(first, line, reason):
    with (first / "rows.jsonl").open("ab") as file:
        file.write(line if isinstance(line, bytes) else line.encode())
    said = sentence("level1", first, "enough")
    assert "rows.jsonl" in said
    assert reason in said


def test_rows_that_are_missing_altogether_are_refused(first, third):
    for level, folder, rule in (("level1", first, "enough"), ("level3", third, "filled")):
        (folder / "rows.jsonl").write_text("\n", encoding="utf-8")
        assert "rows.jsonl has no rows" in sentence(level, folder, rule)


SUBSETS: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "no training rows": lambda rows: rows[rows["split"] != "train"],
    "no test rows": lambda rows: rows[rows["split"] != "test"],
    "training rows alone": lambda rows: rows[rows["split"] == "train"],
    "one row": lambda rows: rows.head(1),
    "one label": lambda rows: rows[rows["label"] == "billing"],
    "one label in training": lambda rows: rows[(rows["split"] == "test") | (rows["label"] == "billing")],
    "a row of each label": lambda rows: rows.drop_duplicates(["split", "label"]),
    "texts without words": lambda rows: rows.assign(text="..."),
    "another label": lambda rows: rows.assign(label=[*rows["label"][1:], "spam"]),
    "the split test alone": lambda rows: rows.assign(split="test"),
}


@pytest.mark.parametrize("subset", SUBSETS)
def test_whatever_rows_there_are_each_rule_answers(first, subset):
    rows = pd.read_json(first / "rows.jsonl", lines=True, dtype=False)
    SUBSETS[subset](rows).to_json(first / "rows.jsonl", orient="records", lines=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        for rule in manifest.level("level1").rules:
            with contextlib.suppress(BadInput):
                assert check("level1", first, rule.id).outcomes
    assert not check("level1", first, "enough", "source", "leak").passed


# --- Predictions ----------------------------------------------------------------------------------


def dropped(column: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda table: table.drop(columns=column)


def cell(column: str, value: Any) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def changed(table: pd.DataFrame) -> pd.DataFrame:
        table = table.astype(object)
        table.loc[2, column] = value
        return table

    return changed


@pytest.mark.parametrize("name", ["predictions.csv", "baseline.csv"])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (dropped("id"), "has no column 'id'"),
        (dropped("prediction"), "has no column 'prediction'"),
        (dropped("p_billing"), "has no column 'p_billing'"),
        (lambda table: pd.concat([table, table.tail(1)]), "more than once"),
        (lambda table: table.head(0), "has a header but no rows"),
        (cell("p_billing", "likely"), "line 4: the probabilities"),
        (cell("p_billing", "nan"), "line 4: the probabilities"),
        (cell("p_billing", "inf"), "line 4: the probabilities"),
        (cell("p_billing", ""), "line 4: the probabilities"),
        (cell("p_billing", -0.1), "line 4: the probabilities"),
        (cell("p_billing", 7), "whose sum is 1"),
        (cell("id", ""), "line 4: the row has no id"),
    ],
    ids=range(12),
)  # fmt: skip
def test_a_table_without_probabilities_is_refused(first, name, change, reason):
    change(pd.read_csv(first / name)).to_csv(first / name, index=False)
    said = sentence("level1", first, "labels")
    assert str(first / name) in said
    assert reason in said


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda table: table.head(30), "6 rows too many or few"),
        (lambda table: pd.concat([table, table.tail(1).assign(id="another")]), "1 rows too many or few: another"),
        (cell("label", ""), "1 of 36 labels are another row's"),
        (cell("label", "no label"), "1 of 36 labels are another row's"),
        (cell("prediction", "no label"), "1 rows have another"),
        (cell("prediction", ""), "1 rows have another"),
    ],
    ids=range(6),
)  # fmt: skip
def test_a_table_of_other_rows_is_to_be_corrected(first, change, reason):
    change(pd.read_csv(first / "predictions.csv")).to_csv(first / "predictions.csv", index=False)
    status, found = answer("level1", first, "labels")
    assert status == Status.FIX
    assert reason in found
    for rule in ("again", "report", "conclusion"):
        assert check("level1", first, rule).outcomes


def test_predictions_of_no_test_row_are_answered_by_each_rule(first):
    table = pd.read_csv(first / "predictions.csv")
    table.assign(id=[f"other-{number}" for number in range(len(table))]).to_csv(first / "predictions.csv", index=False)
    for rule in ("labels", "again", "report", "conclusion"):
        with contextlib.suppress(BadInput):
            assert not check("level1", first, rule).passed


def test_semicolons_between_the_columns_are_named(first):
    pd.read_csv(first / "predictions.csv").to_csv(first / "predictions.csv", index=False, sep=";")
    assert "separated by semicolons" in sentence("level1", first, "report")


# --- Ratings and tokens ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (dropped("rating"), "has no column 'rating'"),
        (dropped("answer"), "has no column 'answer'"),
        (dropped("id"), "has no column 'id'"),
        (lambda form: form.head(0), "has a header but no rows"),
    ],
    ids=range(4),
)
def test_a_form_without_a_column_is_refused(third, change, reason):
    change(pd.read_csv(third / "ratings.csv")).to_csv(third / "ratings.csv", index=False)
    for rule in ("ratings", "blind", "spread"):
        assert reason in sentence("level3", third, rule)


@pytest.mark.parametrize(
    ("change", "rule", "reason"),
    [
        (lambda form: form.head(5), "ratings", "5 lines"),
        (lambda form: pd.concat([form, form.tail(1)]), "ratings", "23 lines"),
        (cell("rating", "good"), "ratings", "has the rating 'good'"),
        (cell("rating", 9), "ratings", "has the rating '9'"),
        (cell("rating", "nan"), "ratings", "has the rating 'nan'"),
        (cell("rating", "inf"), "ratings", "has the rating 'inf'"),
        (cell("rating", 2.5), "ratings", "has the rating '2.5'"),
        (cell("answer", "another"), "blind", "another answer"),
        (lambda form: form.iloc[::-1], "blind", "the form is of other prompts or answers"),
        (lambda form: form.assign(model="base"), "blind", "the column 'model' beside them"),
    ],
    ids=range(10),
)  # fmt: skip
def test_other_ratings_are_to_be_corrected_and_nothing_is_computed_from_them(third, change, rule, reason):
    change(pd.read_csv(third / "ratings.csv").astype({"rating": object})).to_csv(third / "ratings.csv", index=False)
    status, found = answer("level3", third, rule)
    assert status == Status.FIX
    assert reason in found


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not JSON"),
        ("{}", "line 1: expected input_ids and labels of one length"),
        ('{"input_ids": [1, 2], "labels": [1]}', "line 1: expected input_ids and labels of one length"),
        ('{"input_ids": ["a"], "labels": [1]}', "line 1: the token id 'a'"),
        ('{"input_ids": [1], "labels": [-5]}', "line 1: the token id -5"),
        ('{"input_ids": [1], "labels": [99999999999]}', "line 1: the token id 99999999999"),
        ('{"input_ids": [1.0], "labels": [1]}', "line 1: the token id 1.0"),
    ],
)
def test_tokens_that_are_none_are_refused(third, line, reason):
    (third / "tokens.jsonl").write_text(line + "\n", encoding="utf-8")
    for rule in ("fits", "eos"):
        assert reason in sentence("level3", third, rule)


def test_an_empty_file_of_tokens_is_no_training(third):
    (third / "tokens.jsonl").write_text("", encoding="utf-8")
    for rule in ("fits", "eos"):
        assert "tokens.jsonl has no rows" in sentence("level3", third, rule)


def test_no_prompts_and_no_answers_cannot_be_generated_again(third):
    for name in ("base", "tuned"):
        edit(third / f"answers_{name}.json", lambda said: said.update(prompts=[], answers=[]))
    assert answer("level3", third, "again") == (Status.NOT_CHECKED, "there are no answers")


@pytest.mark.parametrize("part", ["prompts", "answers"])
def test_a_token_that_only_the_tuned_model_has_leaves_the_answers_unchecked(third, part):
    """The base has no embedding for it, and the two texts part after it."""
    tokenizer, model = (one(str(third / "model")) for one in (loading.tokenizer, loading.causal_lm))
    tokenizer.add_tokens([*(f"extra{number}" for number in range(100)), "riverbank"])  # beyond its spare rows
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(third / "model")
    tokenizer.save_pretrained(third / "model")
    for name in ("base", "tuned"):
        edit(third / f"answers_{name}.json", lambda said: said[part].__setitem__(0, f"riverbank {said[part][0]}"))
    status, found = answer("level3", third, "again")
    if part == "prompts":
        assert status == Status.NOT_CHECKED
        assert "in a prompt or an answer; leave tokens that you added out of them" in found
        assert "'riverbank'" in found
    else:  # the base cannot have written it
        assert status == Status.FIX


# --- Weights --------------------------------------------------------------------------------------


class _Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.fixture
def bomb(tmp_path) -> Iterator[bytes]:
    """A pickle that would leave a mark; the test fails if there is one at its end."""
    mark = tmp_path / "opened"
    yield pickle.dumps(_Bomb(mark))
    assert not mark.exists()


def test_the_bomb_would_go_off(tmp_path):
    pickle.loads(pickle.dumps(_Bomb(tmp_path / "opened")))
    assert (tmp_path / "opened").exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "adapter_model.bin"])
@pytest.mark.parametrize("level", ["level1", "level3"])
def test_a_pickle_is_refused_and_not_opened(honest, tmp_path, bomb, level, name):
    folder = copied(honest[level], tmp_path / "work")
    (folder / "model" / "model.safetensors").unlink()
    (folder / "model" / name).write_bytes(bomb)
    status, found = answer(level, folder, "weights")
    assert status == Status.FIX
    assert f"a pickle checkpoint ({name})" in found
    assert answer(level, folder, "again")[0] == Status.NOT_CHECKED


def test_a_pickle_beside_safetensors_is_ignored(first, third, bomb):
    for level, folder in (("level1", first), ("level3", third)):
        for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt"):
            (folder / "model" / name).write_bytes(bomb)
        assert check(level, folder, "weights", "again").passed


def test_a_pickle_in_place_of_an_adapter_is_refused(third, bomb):
    (third / "model" / "model.safetensors").unlink()
    (third / "model" / "config.json").unlink()
    (third / "model" / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8}), encoding="utf-8"
    )
    (third / "model" / "adapter_model.bin").write_bytes(bomb)
    expected = [Status.FIX, Status.FIX, Status.NOT_CHECKED]
    assert [answer("level3", third, rule)[0] for rule in ("weights", "adapter", "again")] == expected


def test_code_that_a_config_names_is_not_run(first, tmp_path):
    (first / "model" / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass C: pass\n", encoding="utf-8")
    edit(
        first / "model" / "config.json",
        lambda config: config.update(auto_map={"AutoConfig": "code.C"}, model_type="own"),
    )
    result = check("level1", first, "weights", "again")
    assert [outcome.status for outcome in result.outcomes] == [Status.FIX, Status.NOT_CHECKED]
    assert not (tmp_path / "ran").exists()
    assert result.seconds < 10


def truncated(model: Path) -> None:
    size = (model / "model.safetensors").stat().st_size
    os.truncate(model / "model.safetensors", size // 2)


def another_architecture(model: Path) -> None:
    shutil.rmtree(model)
    loading.encoder("tiny-gpt2", sorted(hand_ins.SIZES)).save_pretrained(model)
    loading.tokenizer("tiny-gpt2").save_pretrained(model)


def another_depth(model: Path) -> None:
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = AutoConfig.from_pretrained(model)
    config.n_layers -= 1
    AutoModelForSequenceClassification.from_config(config).save_pretrained(model)


def a_language_model(model: Path) -> None:
    shutil.rmtree(model)
    loading.causal_lm("tiny-llama").save_pretrained(model)
    loading.tokenizer("tiny-llama").save_pretrained(model)


def without_tensors(model: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(model / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if "layer.3" not in name}
    save_file(kept, model / "model.safetensors", metadata={"format": "pt"})


def without_architecture(model: Path) -> None:
    edit(model / "config.json", lambda config: config.update(architectures=[1]))


def no_heads(model: Path) -> None:
    edit(model / "config.json", lambda config: config.update(n_heads=-1))


def without_labels(model: Path) -> None:
    edit(model / "config.json", lambda config: {name: config[name] for name in config if "label" not in name})


def outside_shards(model: Path) -> None:
    (model / "model.safetensors").rename(model.parent.parent / "outside.safetensors")
    index = {"metadata": {}, "weight_map": {"a": "../../outside.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


WEIGHTS: dict[Callable[[Path], None], str] = {
    truncated: "is not a whole safetensors file",
    lambda model: (model / "model.safetensors").write_bytes(b""): "is not a whole safetensors file",
    lambda model: (model / "config.json").unlink(): "it has no config.json",
    lambda model: (model / "config.json").write_text("{", encoding="utf-8"): "its config.json cannot be used",
    lambda model: (model / "config.json").write_text("[" * 100_000, encoding="utf-8"): "config.json",
    lambda model: (model / "tokenizer.json").write_text("{", encoding="utf-8"): "tokenizer.json cannot be read as JSON",
    lambda model: [file.unlink() for file in model.glob("tokenizer*")]: "has no tokenizer",
    without_labels: "label",
    lambda model: edit(model / "config.json", lambda config: config.update(id2label={"0": "a"})): "",
    lambda model: edit(model / "config.json", lambda config: config.update(n_layers="six")): "config.json",
    without_architecture: "names no architecture",
    no_heads: "its num_attention_heads is -1",
    lambda model: edit(model / "config.json", lambda config: config.update(pad_token_id=-1)): "and the pad token -1",
    another_architecture: "is of another architecture than",
    another_depth: "its num_hidden_layers is 5, and that of",
    a_language_model: "is of another architecture than",
    without_tensors: "layer.3",
    outside_shards: "which is no safetensors file of its folder",
    lambda model: (shutil.rmtree(model), model.write_text("x", encoding="utf-8")): "is a file, not a folder",
    lambda model: (shutil.rmtree(model), model.mkdir()): "it has no config.json",
}  # fmt: skip


@pytest.mark.parametrize("breaking", WEIGHTS, ids=range(len(WEIGHTS)))
def test_weights_that_are_not_whole_are_to_be_corrected_and_nothing_is_computed_with_them(first, breaking):
    breaking(first / "model")
    status, found = answer("level1", first, "weights")
    assert status == Status.FIX
    assert WEIGHTS[breaking] in found
    for rule in ("again", "chosen"):
        assert answer("level1", first, rule)[0] in (Status.NOT_CHECKED, Status.FIX)


@pytest.mark.parametrize("level", ["level1", "level3"])
def test_weights_that_do_not_fit_into_memory_are_not_loaded(honest, level, monkeypatch):
    monkeypatch.setattr(footprint, "free_memory", lambda device: 1000)
    status, found = answer(level, honest[level], "weights")
    assert status == Status.NOT_CHECKED
    assert "close something, or check on a larger machine" in found
    assert answer(level, honest[level], "again")[0] == Status.NOT_CHECKED


def test_weights_with_nan_are_to_be_corrected(first, third):
    from safetensors.torch import load_file, save_file

    for level, folder in (("level1", first), ("level3", third)):
        file = folder / "model" / "model.safetensors"
        tensors = load_file(file)
        name = next(name for name in tensors if "weight" in name and "embed" not in name)
        tensors[name][0] = np.nan
        save_file(tensors, file, metadata={"format": "pt"})
        status, found = answer(level, folder, "weights")
        assert status == Status.FIX
        assert "NaN" in found
        with contextlib.suppress(BadInput):
            assert answer(level, folder, "again")[0] != Status.PASS
