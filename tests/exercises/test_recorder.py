"""What the recorder writes, when it writes nothing, and that an honest log passes however a Trainer was set."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ftlab.errors import BadInput
from ftlab.exercises import checker, manifest
from ftlab.exercises.handed_in import HandedIn
from ftlab.exercises.outcomes import Status
from ftlab.exercises.recorder import Recorder
from ftlab.models import loading
from tests.exercises import hand_ins
from tests.nightly import few_by_day

pytestmark = [pytest.mark.usefixtures("one_thread")]
ABOUT = {"profile": "smoke", "seed": 0, "model": "tiny-distilbert", "dataset": "tickets"}


def dataset(texts: list[str], labels: list[str]) -> Any:
    """Rows with id, text and label."""
    from datasets import ClassLabel, Dataset

    ids = [f"row-{number}" for number in range(len(texts))]
    rows = Dataset.from_dict({"id": ids, "text": texts, "label": labels})
    return rows.cast_column("label", ClassLabel(names=sorted(set(labels))))


def some_rows() -> Any:
    return dataset(["one text", "another text", "a third"], ["good", "bad", "good"])


def recorder(folder: Path, level: str = "level1") -> Recorder:
    return Recorder(manifest.level(level), folder, ABOUT)


def begun(folder: Path, level: str = "level1", rows: Any = None) -> Recorder:
    """A recorder of a try with its rows and one result."""
    record = recorder(folder, level)
    rows = rows if rows is not None else some_rows()
    record.rows(train=rows, validation=rows, test=rows)
    record.report({"accuracy": 0.5})
    return record


def table(labels: list[str], truth: list[str]) -> pd.DataFrame:
    """Predictions that give each row its true label, with the probability 0.75."""
    rest = 0.25 / (len(labels) - 1)
    columns = {f"p_{label}": [0.75 if label == true else rest for true in truth] for label in labels}
    ids = [f"row-{number}" for number in range(len(truth))]
    return pd.DataFrame({"id": ids, "label": truth, "prediction": truth, **columns})


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("name", "arguments", "waits"),
    [
        ("rows", {"train": ..., "validation": 1, "test": ...}, "rows waits for train and test, still `...`"),
        ("instructions", {"rows": ..., "prompts": []}, "instructions waits for rows"),
        ("training", {"trainer": ...}, "training waits for trainer"),
        ("weights", {"model": 1, "tokenizer": ..., "max_length": ...}, "weights waits for tokenizer and max_length"),
        ("predictions", {"table": ...}, "predictions waits for table"),
        ("baseline", {"table": ...}, "baseline waits for table"),
        ("report", {"report": ...}, "report waits for report"),
        (
            "answers",
            {"model": "base", "prompts": [], "answers": ..., "do_sample": False, "max_new_tokens": ...},
            "answers waits for answers and max_new_tokens",
        ),
        ("ratings", {"rater": ...}, "ratings waits for rater"),
        ("conclusion", {"answer": ..., "because": "so"}, "conclusion waits for answer"),
    ],
)
def test_three_dots_write_nothing(tmp_path, capsys, name, arguments, waits):
    getattr(recorder(tmp_path / "work"), name)(**arguments)
    assert capsys.readouterr().out.startswith(f"NOT STARTED: {waits}")
    assert not (tmp_path / "work").exists()


def test_each_try_keeps_the_earlier_ones_whole(tmp_path):
    begun(tmp_path, rows=dataset(["first"], ["good"])).conclusion(answer="worse", because="first")
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    first = files_in(tmp_path)
    begun(tmp_path, rows=dataset(["second"], ["good"]))
    assert files_in(tmp_path / "earlier" / "1") == first
    begun(tmp_path, rows=dataset(["third"], ["good"]))
    assert json.loads((tmp_path / "earlier/1/conclusion.json").read_text(encoding="utf-8"))["because"] == "first"
    assert [json.loads((tmp_path / place / "rows.jsonl").read_text(encoding="utf-8").splitlines()[0])["text"]
            for place in ("earlier/1", "earlier/2", ".")] == ["first", "second", "third"]  # fmt: skip
    assert HandedIn(manifest.level("level1"), tmp_path).earlier == 2


def test_a_try_whose_number_is_taken_gets_the_next(tmp_path):
    for number in (2, 5):
        (tmp_path / "earlier" / str(number)).mkdir(parents=True)
    (tmp_path / "earlier" / "notes").mkdir()
    begun(tmp_path)
    begun(tmp_path)
    assert (tmp_path / "earlier" / "6" / "rows.jsonl").is_file()


def test_a_try_that_is_half_moved_is_not_counted_as_an_earlier_one(tmp_path):
    for name in ("1", ".moving", "notes"):
        (tmp_path / "earlier" / name).mkdir(parents=True)
    assert HandedIn(manifest.level("level1"), tmp_path).earlier == 1


def test_a_file_called_earlier_is_named(tmp_path):
    begun(tmp_path)
    (tmp_path / "earlier").write_text("mine", encoding="utf-8")
    with pytest.raises(BadInput, match="earlier cannot be written"):
        begun(tmp_path)
    assert (tmp_path / "rows.jsonl").is_file()


def test_hidden_files_are_no_try(tmp_path):
    (tmp_path / ".ipynb_checkpoints").mkdir()
    begun(tmp_path)
    assert not (tmp_path / "earlier").exists()


def test_a_cell_that_runs_again_goes_on_with_its_try(tmp_path):
    record = begun(tmp_path, rows=dataset(["first"], ["good"]))
    rows = dataset(["second"], ["good"])
    record.rows(train=rows, validation=rows, test=rows)
    record.report({"accuracy": 1.0})
    assert not (tmp_path / "earlier").exists()
    assert json.loads((tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()[0])["text"] == "second"


@pytest.mark.parametrize("result", ["report", "conclusion", "predictions", "weights"])
def test_a_result_before_the_rows_is_refused(tmp_path, result):
    record = recorder(tmp_path / "work")
    given = {"report": [{"accuracy": 1.0}], "predictions": [table(["a", "b"], ["a"])], "weights": [object(), object()]}
    with pytest.raises(BadInput, match=r"no try was begun in .*; run the cell with `record.rows` first"):
        getattr(record, result)(*given.get(result, []))
    assert not (tmp_path / "work").exists()


def test_a_result_of_another_level_is_refused(tmp_path):
    begun(tmp_path, "level2")
    before = files_in(tmp_path)
    with pytest.raises(BadInput, match="holds a try of level2, and you asked about level1"):
        recorder(tmp_path).report({"accuracy": 1.0})
    assert files_in(tmp_path) == before


def test_a_table_needs_its_columns(tmp_path):
    record = begun(tmp_path)
    for column in ("id", "label", "prediction"):
        with pytest.raises(BadInput, match=f"the table of predictions has no column '{column}'"):
            record.predictions(table(["a", "b"], ["a"]).drop(columns=column))
    with pytest.raises(BadInput, match="the baseline are an object of class list; expected a table"):
        record.baseline([1, 2])
    assert not (tmp_path / "predictions.csv").exists()


def test_there_is_an_answer_to_each_prompt_and_a_known_model(tmp_path):
    record = recorder(tmp_path, "level3")
    record.instructions([{"instruction": "Say a.", "output": "a"}], [{"instruction": "Say b."}])
    decoding = {"do_sample": False, "max_new_tokens": 4}
    with pytest.raises(BadInput, match="there are 1 answers to 2 prompts"):
        record.answers("base", ["a", "b"], ["a"], **decoding)
    with pytest.raises(BadInput, match="the model is 'tunned'; expected base or tuned"):
        record.answers("tunned", ["a"], ["a"], **decoding)
    assert not list(tmp_path.glob("answers_*"))


@pytest.mark.parametrize(
    ("prompts", "answers", "reason"),
    [
        (["a", "b"], ["a", [1, 2]], r"answer 1 of the base model is \[1, 2\]; expected a text: decode token ids"),
        (["a", "b"], np.array([[1, 2], [3, 4]]), "answer 0 of the base model is array"),
        (["a", None], ["a", "b"], "prompt 1 of the base model is None; expected a text"),
    ],
)
def test_answers_that_are_not_decoded_are_refused(tmp_path, prompts, answers, reason):
    record = recorder(tmp_path, "level3")
    record.instructions([{"instruction": "Say a.", "output": "a"}], [{"instruction": "b"}, {"instruction": "c"}])
    with pytest.raises(BadInput, match=reason):
        record.answers("base", prompts, answers, do_sample=False, max_new_tokens=4)
    assert not list(tmp_path.glob("answers_*"))


@pytest.mark.parametrize(
    ("report", "what"),
    [("precision recall", "a text"), (pd.DataFrame({"f1": [0.5]}), "an object of class DataFrame")],
)
def test_a_report_that_is_no_dict_is_refused(tmp_path, report, what):
    record = begun(tmp_path)
    before = (tmp_path / "report.json").read_text(encoding="utf-8")
    with pytest.raises(BadInput, match=f"the report is {what}; call classification_report with output_dict=True"):
        record.report(report)
    assert (tmp_path / "report.json").read_text(encoding="utf-8") == before


ODD = [
    "two\nlines", 'quotes "and" \'others\'', "a,b;c\td", "emoji 😀 and é", "carriage\rreturn", "both\r\nends",
    "line\u2028separator", "next\x85line", " spaces around ", "007", "null", "NaN", "=1+1", "'", '"',
]  # fmt: skip


def test_texts_come_back_from_the_rows_as_they_were(tmp_path):
    rows = dataset(ODD, ["good", "bad", *["good"] * (len(ODD) - 2)])
    begun(tmp_path, rows=rows)
    found = HandedIn(manifest.level("level1"), tmp_path).part("test")
    assert list(found["text"]) == list(rows["text"])
    assert list(found["id"]) == list(rows["id"])


def test_instructions_come_back_as_they_were(tmp_path):
    record = recorder(tmp_path, "level3")
    record.instructions([{"instruction": one, "input": one, "output": one} for one in ODD], [{"instruction": "b"}])
    record.answers("base", ODD, ODD, do_sample=False, max_new_tokens=4)
    work = HandedIn(manifest.level("level3"), tmp_path)
    for column in ("instruction", "input", "output"):
        assert list(work.instructions("rows.jsonl")[column]) == ODD
    assert work.json("answers_base.json")["answers"] == ODD


@pytest.mark.parametrize(
    "labels",
    [
        ["1", "007", "7", "1.0"],
        ["a, b", 'say "so"', "two words", "it's"],
        ["null", "NaN", "None", "True"],
        ["für", "😀", "p_x", "x"],
        ["a;b", "a|b", "=a", "-1"],
    ],
)  # fmt: skip
def test_labels_of_any_name_come_back_from_the_predictions(tmp_path, labels):
    rows = dataset(["one", "two", "three", "four"], labels)
    record = begun(tmp_path, rows=rows)
    record.predictions(table(labels, labels))
    work = HandedIn(manifest.level("level1"), tmp_path)
    assert work.labels == sorted(labels)
    found = work.predictions("predictions.csv")
    assert list(found["label"]) == list(found["prediction"]) == labels
    assert [found[f"p_{label}"].iloc[place] for place, label in enumerate(labels)] == [0.75] * 4
    assert checker.check(work.level, tmp_path, only=lambda rule: rule == "report").outcomes


def test_numbers_of_numpy_and_nan_are_written_as_json_has_them(tmp_path):
    record = begun(tmp_path)
    record.conclusion(f1=np.float32(0.5), difference=(np.float64(0.1), math.nan, 1), because="so")
    found = json.loads((tmp_path / "conclusion.json").read_text(encoding="utf-8"))
    assert found == {"f1": 0.5, "difference": [0.1, None, 1], "because": "so"}


def test_arrays_are_written_as_lists(tmp_path):
    record = begun(tmp_path)
    record.conclusion(difference=np.array([0.1, np.nan]), f1={"full": np.array(0.5)}, means=np.eye(2, dtype=int))
    found = json.loads((tmp_path / "conclusion.json").read_text(encoding="utf-8"))
    assert found == {"difference": [0.1, None], "f1": {"full": 0.5}, "means": [[1, 0], [0, 1]]}


class Failing:
    """A model whose saving stops on the way."""

    def save_pretrained(self, folder: Path) -> None:
        (Path(folder) / "config.json").write_text("{}", encoding="utf-8")
        raise KeyboardInterrupt


@pytest.mark.parametrize("before", [True, False])
def test_weights_are_whole_or_absent(tmp_path, before):
    record = begun(tmp_path)
    if before:
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "mine").write_text("whole", encoding="utf-8")
    with pytest.raises(KeyboardInterrupt):
        record.weights(Failing(), None)
    assert files_in(tmp_path / "model") == ({"mine"} if before else set())
    assert not list(tmp_path.glob(".partial*"))


def test_the_tokenizer_is_saved_with_the_length_of_the_training(tmp_path):
    record = begun(tmp_path)
    tokenizer = loading.tokenizer("tiny-distilbert")
    before = tokenizer.model_max_length
    record.weights(loading.encoder("tiny-distilbert", ["bad", "good"]), tokenizer, max_length=17)
    assert loading.tokenizer(str(tmp_path / "model")).model_max_length == 17
    assert tokenizer.model_max_length == before


def test_a_model_that_peft_wraps_is_merged_first(tmp_path):
    from peft import LoraConfig, get_peft_model

    record = begun(tmp_path)
    model = loading.encoder("tiny-distilbert", ["bad", "good"])
    wrapped = get_peft_model(model, LoraConfig(target_modules=["q_lin"], task_type="SEQ_CLS"))
    with pytest.raises(BadInput, match=r"merge the adapter first: model\.merge_and_unload"):
        record.weights(wrapped, loading.tokenizer("tiny-distilbert"))
    assert not (tmp_path / "model").exists()


# --- The log of a Trainer -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return hand_ins.write_messages(tmp_path_factory.mktemp("rows"))


def untrained(file: Path, folder: Path, **changes: Any) -> Any:
    """A Trainer of the rows, which has not trained."""
    from transformers import Trainer, TrainingArguments

    parts = hand_ins.parts_of(file, hand_ins.Way())
    tokenizer = loading.tokenizer(hand_ins.base_of(file))
    rows = hand_ins.tokenized_like(_With(tokenizer), parts["train"])
    for column in changes.get("without", ()):
        rows = rows.remove_columns(column)
    model = hand_ins.fresh_model(hand_ins.base_of(file), parts["train"].features["label"].names)
    return Trainer(
        model, TrainingArguments(str(folder / "out"), report_to="none", use_cpu=True, max_steps=1, disable_tqdm=True),
        train_dataset=rows, processing_class=tokenizer,
    )  # fmt: skip


class _With:
    def __init__(self, tokenizer: Any) -> None:
        self.processing_class = tokenizer


def test_a_trainer_that_has_not_trained_is_refused(file, tmp_path):
    record = begun(tmp_path / "work")
    with pytest.raises(BadInput, match=r"it has not trained; call trainer.train\(\) first"):
        record.training(untrained(file, tmp_path))
    assert not (tmp_path / "work" / "log.json").exists()


def test_training_rows_without_ids_are_refused(file, tmp_path):
    record = begun(tmp_path / "work")
    trainer = untrained(file, tmp_path, without=["id"])
    trainer.train()
    with pytest.raises(BadInput, match="have no column id, so their labels cannot be checked; keep the column"):
        record.training(trainer)
    assert not (tmp_path / "work" / "log.json").exists()


RUNS: dict[str, dict[str, Any]] = {
    "by default": {},
    "a log after each epoch": {"logging_strategy": "epoch"},
    "a share of the steps": {"logging_steps": 0.1},
    "the first step": {"logging_first_step": True},
    "the first step and each": {"logging_first_step": True, "logging_steps": 1},
    "accumulation with a rest": {"gradient_accumulation_steps": 5},
    "accumulation, a log after each epoch": {"gradient_accumulation_steps": 5, "logging_strategy": "epoch"},
    "an end by steps": {"max_steps": 7},
    "an end by steps in a later epoch": {"max_steps": 31, "logging_strategy": "epoch"},
    "half an epoch": {"num_train_epochs": 0.5, "logging_strategy": "epoch", "eval_strategy": "steps", "eval_steps": 2},
    "an epoch and a half": {"num_train_epochs": 1.5, "logging_strategy": "epoch"},
    "the last batch dropped": {"dataloader_drop_last": True, "per_device_eval_batch_size": 7},
    "the best model": {"load_best_model_at_end": True, "save_strategy": "epoch", "learning_rate": 3e-2},
    "the best model by steps": {
        "load_best_model_at_end": True, "save_strategy": "steps", "save_steps": 4, "eval_strategy": "steps",
        "eval_steps": 4, "learning_rate": 3e-2,
    },
    "label smoothing": {"label_smoothing_factor": 0.1},
    "no evaluation": {"eval_strategy": "no"},
    "an evaluation in batches with a rest": {"per_device_eval_batch_size": 7},
    "rows by their length": {"train_sampling_strategy": "group_by_length"},
}  # fmt: skip


def trained(file: Path, folder: Path, **options: Any) -> Path:
    """An honest training of Level 1 with these options, recorded."""
    epochs, rate = options.pop("num_train_epochs", 3.0), options.pop("learning_rate", hand_ins.RATE)
    way = hand_ins.Way(epochs=epochs, rate=rate, options={})
    parts = hand_ins.parts_of(file, way)
    trainer, tokenizer = train(parts, file, folder, epochs, rate, options)
    record = Recorder(manifest.level("level1"), folder / "work", hand_ins.about(file))
    record.rows(**parts)
    record.training(trainer)
    record.weights(trainer.model, tokenizer, max_length=hand_ins.MAX_LENGTH)
    return folder / "work"


def train(
    parts: dict[str, Any], file: Path, folder: Path, epochs: float, rate: float, options: dict[str, Any]
) -> tuple[Any, Any]:
    """Train with these options over those of a hand-in."""
    from transformers import DataCollatorWithPadding, PrinterCallback, Trainer, TrainingArguments

    base = hand_ins.base_of(file)
    tokenizer = loading.tokenizer(base, split_special_tokens=True)
    model = hand_ins.fresh_model(base, parts["train"].features["label"].names)
    given = {"eval_strategy": "epoch", "save_strategy": "no", "logging_steps": 5, **options}
    arguments = TrainingArguments(
        str(folder / "checkpoints"), num_train_epochs=epochs, per_device_train_batch_size=8, learning_rate=rate,
        use_cpu=True, report_to="none", disable_tqdm=True, weight_decay=0.0, **given,
    )  # fmt: skip
    trainer = Trainer(
        model, arguments, data_collator=DataCollatorWithPadding(tokenizer), processing_class=tokenizer,
        train_dataset=hand_ins.tokenized_like(_With(tokenizer), parts["train"]),
        eval_dataset=hand_ins.tokenized_like(_With(tokenizer), parts["validation"]),
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return trainer, tokenizer


@pytest.mark.parametrize(
    "run",
    few_by_day(
        RUNS, "by default", "accumulation with a rest", "half an epoch", "the best model by steps", "no evaluation"
    ),
)
def test_an_honest_run_passes_however_it_was_set(file, tmp_path, run):
    folder = trained(file, tmp_path, **RUNS[run])
    rules = ("steps", "log", "losses", "chosen")
    result = checker.check(manifest.level("level1"), folder, only=lambda rule: rule in rules)
    assert len(result.of(Status.PASS)) == 4, str(result)


def test_a_run_without_a_log_is_told_so_and_its_steps_still_count(file, tmp_path):
    folder = trained(file, tmp_path, logging_strategy="no")
    found = checker.check(manifest.level("level1"), folder, only=lambda rule: rule in ("steps", "log", "chosen"))
    answers = {outcome.rule.id: (outcome.status, outcome.answer.found) for outcome in found.outcomes}
    assert answers["log"] == (Status.FIX, "logging_strategy='no'")
    assert (answers["steps"][0], answers["chosen"][0]) == (Status.PASS, Status.PASS)
