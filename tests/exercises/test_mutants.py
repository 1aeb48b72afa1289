"""Each way to hand in something else than what was asked is refused by exactly the rule that is about it."""

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file, save_file

from ftlab.evaluation.predictions import predict_rows
from ftlab.exercises import checker, instruction_checks, manifest, rewording
from ftlab.exercises.outcomes import Answer, Result, Status
from ftlab.freezing import plans
from ftlab.models import loading
from tests.exercises import hand_ins
from tests.exercises.hand_ins import Way, copied, edit
from tests.nightly import few_by_day

pytestmark = [pytest.mark.assets, pytest.mark.usefixtures("one_thread", "each_pair_once")]


@pytest.fixture(scope="module")
def each_pair_once():
    """Embed the same rows once: most mutants have the rows of the honest hand-in."""
    nearest = rewording.nearest
    kept = functools.cache(lambda texts, others: nearest(texts, others))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rewording, "nearest", lambda texts, others: kept(tuple(texts), tuple(others)))
        yield


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return hand_ins.write_messages(tmp_path_factory.mktemp("rows"))


@pytest.fixture(scope="module")
def first(file, tmp_path_factory) -> Path:
    return hand_ins.level1(tmp_path_factory.mktemp("first") / "level1", file)


@pytest.fixture(scope="module")
def second(file, tmp_path_factory) -> Path:
    return hand_ins.level2(tmp_path_factory.mktemp("second") / "level2", file)


@pytest.fixture(scope="module")
def third(tmp_path_factory) -> Path:
    return hand_ins.level3(tmp_path_factory.mktemp("third") / "level3")


def check(level: str, folder: Path) -> Result:
    return checker.check(manifest.level(level), folder)


def refused(result: Result) -> set[str]:
    """The rules that ask for a correction."""
    return {outcome.rule.id for outcome in result.of(Status.FIX)}


def found(result: Result, rule: str) -> str:
    return next(str(outcome.to_dict()) for outcome in result.outcomes if outcome.rule.id == rule)


@pytest.mark.parametrize("level", ["level1", "level2", "level3"])
def test_an_honest_hand_in_passes_every_rule(level, request):
    result = check(level, request.getfixturevalue({"level1": "first", "level2": "second", "level3": "third"}[level]))
    assert result.done, str(result)
    assert {outcome.status for outcome in result.outcomes} <= {Status.PASS, Status.WARN}


def test_the_honest_hand_in_could_show_a_wrong_comparison(first):
    """Accuracy, macro and weighted F1 differ, and the model's answers to the rows do, too."""
    report = json.loads((first / "report.json").read_text(encoding="utf-8"))
    scores = [report["accuracy"], report["macro avg"]["f1-score"], report["weighted avg"]["f1-score"]]
    assert min(abs(one - other) for place, one in enumerate(scores) for other in scores[:place]) > 0.01
    table = pd.read_csv(first / "predictions.csv")
    assert table["prediction"].nunique() >= 3
    assert table.filter(like="p_").round(3).drop_duplicates().shape[0] > 30


# --- Level 1 ---------------------------------------------------------------------------------------------------------


def write_predictions(folder: Path, table: pd.DataFrame, name: str = "predictions.csv") -> None:
    table.filter(regex="^(id|label|prediction|p_.*)$").to_csv(folder / name, index=False)


def copied_predictions(folder: Path, file: Path) -> None:
    """The true labels, handed in as predictions."""
    table = pd.read_csv(folder / "predictions.csv")
    columns = table.filter(like="p_").columns
    for column in columns:
        table[column] = (table["label"] == column.removeprefix("p_")).astype(float)
    write_predictions(folder, table.assign(prediction=table["label"]))
    hand_ins.conclude1(folder)


def predictions_of_another_model(folder: Path, file: Path) -> None:
    """A second training from another head, whose predictions alone were recorded."""
    parts = hand_ins.parts_of(file, Way())
    trainer, _ = hand_ins.train(parts, Way(head_seed=5), hand_ins.base_of(file))
    write_predictions(folder, predict_rows(trainer, parts["test"], hand_ins.tokenized_like(trainer, parts["test"])))
    hand_ins.conclude1(folder)


def shuffled_rows(folder: Path, file: Path) -> None:
    """Labels that were shuffled before anything was recorded, the training included."""
    lines = [json.loads(line) for line in (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    train = [line for line in lines if line["split"] == "train"]
    for line, label in zip(train, np.random.default_rng(0).permutation([one["label"] for one in train]), strict=True):
        line["label"] = str(label)
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    labels = [line["label"] for line in train]
    order = {line["id"]: label for line, label in zip(train, labels, strict=True)}
    edit(folder / "log.json", lambda log: log.update(train_labels=[order[one] for one in log["train_rows"]]))
    from ftlab.evaluation import baselines
    from ftlab.exercises.handed_in import HandedIn
    from ftlab.exercises.prediction_checks import _datasets

    write_predictions(folder, baselines.tfidf(*_datasets(HandedIn(manifest.level("level1"), folder))), "baseline.csv")
    hand_ins.conclude1(folder)


def swapped_predictions(folder: Path, file: Path) -> None:
    """Predictions in another order than the ids beside them, as a Trainer that groups by length returns them."""
    table = pd.read_csv(folder / "predictions.csv")
    moved = table.drop(columns="id").iloc[np.roll(np.arange(len(table)), 1)].reset_index(drop=True)
    write_predictions(folder, pd.concat([table["id"], moved], axis=1))


def another_label_alone(folder: Path, file: Path) -> None:
    """One label of the predictions is another row's."""
    table = pd.read_csv(folder / "predictions.csv")
    table.loc[3, "label"] = next(label for label in hand_ins.SIZES if label != table.loc[3, "label"])
    write_predictions(folder, table)


def loss_of_the_test_rows(folder: Path, file: Path) -> None:
    """The ids say validation, and the losses are those of the test rows."""
    from ftlab.exercises import saved_models
    from ftlab.exercises.handed_in import HandedIn

    losses, _ = saved_models.row_losses(HandedIn(manifest.level("level1"), folder), "test", most_tokens=10**6)

    def change(log):
        last = [line for line in log["log_history"] if "eval_loss" in line][-1]
        assert abs(last["eval_loss"] - losses.mean()) > 0.01  # else the mutant is none
        last["eval_loss"] = float(losses.mean())

    edit(folder / "log.json", change)


def missing_step(folder: Path, file: Path) -> None:
    edit(
        folder / "log.json",
        lambda log: log["log_history"].remove(next(e for e in log["log_history"] if e["step"] == 15)),
    )


def infinite_loss(folder: Path, file: Path) -> None:
    edit(folder / "log.json", lambda log: log["log_history"][1].update(loss=None))


def other_batch(folder: Path, file: Path) -> None:
    edit(folder / "arguments.json", lambda arguments: arguments.update(train_batch_size=9))


def flattered_metrics(folder: Path, file: Path) -> None:
    edit(folder / "report.json", lambda report: report.update(accuracy=report["accuracy"] + 0.03))


def flattered_f1(folder: Path, file: Path) -> None:
    """Macro F1 under the name of the weighted one."""
    edit(folder / "report.json", lambda r: r["weighted avg"].update({"f1-score": r["macro avg"]["f1-score"]}))


def other_conclusion(folder: Path, file: Path) -> None:
    edit(folder / "conclusion.json", lambda said: said.update(answer="better"))


def not_a_number(folder: Path, file: Path) -> None:
    """A NaN in one tensor of the saved model, whose predictions were recorded before."""
    weights = load_file(folder / "model" / "model.safetensors")
    name = next(name for name in weights if "layer.5.ffn.lin1.weight" in name)
    weights[name][0, 0] = float("nan")
    save_file(weights, folder / "model" / "model.safetensors", metadata={"format": "pt"})


def unnamed_labels(folder: Path, file: Path) -> None:
    """A model that calls its labels LABEL_0 and so on, as one does that was made without their names."""
    names = {str(number): f"LABEL_{number}" for number in range(4)}
    edit(
        folder / "model" / "config.json",
        lambda c: c.update(id2label=names, label2id={v: int(k) for k, v in names.items()}),
    )


def texts_of_others(folder: Path, file: Path) -> None:
    """Texts that have lost their ids: the rows before, and what the Trainer read after."""
    lines = [json.loads(line) for line in (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    texts = [line["text"] for line in lines]
    for line, text in zip(lines, reversed(texts), strict=True):
        line["text"] = text
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")


def tokens_of_others(folder: Path, file: Path) -> None:
    """The Trainer read the texts in another order than their ids and labels."""
    edit(folder / "log.json", lambda log: log["train_tokens"].reverse())


EDITS: dict[str, tuple[str, Callable[[Path, Path], None]]] = {
    "copied predictions": ("again", copied_predictions),
    "predictions of another model": ("again", predictions_of_another_model),
    "labels shuffled in the rows": ("source", shuffled_rows),
    "tokens of other texts": ("labels", tokens_of_others),
    "predictions in another order": ("labels", swapped_predictions),
    "one label of another row": ("labels", another_label_alone),
    "the loss of the test rows under the ids of validation": ("chosen", loss_of_the_test_rows),
    "a log with a missing step": ("log", missing_step),
    "a loss that is not finite": ("losses", infinite_loss),
    "steps of another batch size": ("steps", other_batch),
    "accuracy edited by hand": ("report", flattered_metrics),
    "macro F1 as weighted F1": ("report", flattered_f1),
    "a conclusion against its interval": ("conclusion", other_conclusion),
    "NaN in the weights": ("weights", not_a_number),
    "labels without names": ("weights", unnamed_labels),
}


ONE_OF_EACH_KIND = [
    "copied predictions", "labels shuffled in the rows", "one label of another row", "a log with a missing step",
    "accuracy edited by hand", "a conclusion against its interval", "NaN in the weights",
]  # fmt: skip


@pytest.mark.parametrize("mutant", few_by_day(EDITS, *ONE_OF_EACH_KIND))
def test_a_falsified_level_1_is_refused_by_its_own_rule(mutant, first, file, tmp_path):
    rule, change = EDITS[mutant]
    folder = copied(first, tmp_path / "level1")
    change(folder, file)
    result = check("level1", folder)
    assert refused(result) == {rule}, str(result)
    assert result.exit_code == 1


TRAININGS = {
    "2 epochs": ("epochs", Way(epochs=2)),
    "labels shuffled on the way to the Trainer": ("labels", Way(shuffle_labels=True)),
    "10 leaked rows": ("leak", Way(leaked=10)),
    "a paraphrased leak": ("leak", Way(pairs_across=True)),
    "test rows chose the epoch": ("chosen", Way(choose_on="test")),
    "base weights": ("weights", Way(rate=0.0)),
    "a weak baseline": ("baseline", Way(baseline_rows=20)),
}


@pytest.mark.parametrize("mutant", few_by_day(TRAININGS, "10 leaked rows", "base weights", "test rows chose the epoch"))
def test_level_1_trained_another_way_is_refused_by_its_own_rule(mutant, file, tmp_path):
    rule, way = TRAININGS[mutant]
    result = check("level1", hand_ins.level1(tmp_path / "level1", file, way))
    assert refused(result) == {rule}, str(result)


def test_the_interval_of_the_check_is_that_of_the_notebook_whatever_the_order_of_the_rows(first, tmp_path):
    """A bootstrap draws positions: with one seed, another order of the same rows is another interval."""
    from ftlab.evaluation import comparison
    from ftlab.exercises import prediction_checks
    from ftlab.exercises.handed_in import HandedIn

    folder = copied(first, tmp_path / "level1")
    table = pd.read_csv(folder / "predictions.csv").sample(frac=1, random_state=3)
    write_predictions(folder, table)
    work = HandedIn(manifest.level("level1"), folder)
    tuned, counted = prediction_checks._of_the_same_rows(work)
    assert tuned["id"].tolist() == table["id"].tolist()
    own = comparison.compare(work.predictions("predictions.csv"), work.predictions("baseline.csv"), seed=5)
    assert comparison.compare(tuned, counted, seed=5).difference == own.difference
    assert refused(check("level1", folder)) == set()


def test_texts_under_the_ids_of_others_are_refused(first, file, tmp_path):
    """Nearly everything that is computed from texts is then wrong, too."""
    folder = copied(first, tmp_path / "level1")
    texts_of_others(folder, file)
    assert "source" in refused(check("level1", folder))


def test_one_more_evaluation_after_the_training_is_not_taken_for_the_choice(first, tmp_path):
    """`trainer.evaluate(test)` adds a line to the log, at the last step."""
    folder = copied(first, tmp_path / "level1")
    edit(folder / "log.json", lambda log: log["log_history"].append({**log["log_history"][-2], "eval_loss": 9.0}))
    edit(folder / "log.json", lambda log: log["log_history"][-1].update(step=log["global_step"]))
    assert refused(check("level1", folder)) == set()


def test_the_try_records_where_its_rows_came_from(first, file):
    assert json.loads((first / "attempt.json").read_text(encoding="utf-8"))["origin"] == str(file)


# --- Level 2 ---------------------------------------------------------------------------------------------------------


def layer_2_trains(model) -> None:
    hand_ins.freeze_first_layers(model)
    for name, parameter in model.named_parameters():
        if ".layer.1." in name:
            parameter.requires_grad = True


def embeddings_train(model) -> None:
    hand_ins.freeze_first_layers(model)
    for name, parameter in model.named_parameters():
        if "embeddings" in name:
            parameter.requires_grad = True


def only_the_head_trains(model) -> None:
    plans.freeze(model, "head")


def drawn_again() -> list[int]:
    return np.random.default_rng(3).integers(0, 90, 90).tolist()


def freeze(**options) -> Way:
    return Way(**{"freeze": hand_ins.freeze_first_layers, **options})


RUNS = {
    "layer 2 trained": ("frozen-layers", "frozen", freeze(freeze=layer_2_trains)),
    "embeddings moved": ("frozen-embeddings", "frozen", freeze(freeze=embeddings_train)),
    "later layers did not move": ("trained-layers", "frozen", freeze(freeze=only_the_head_trains)),
    "a full run with frozen layers": ("trained-layers", "full", freeze()),
    "the two runs on different rows": ("same-rows", "frozen", freeze(draw=drawn_again())),
    "texts cut shorter in one run": ("same-rows", "frozen", freeze(max_length=6)),
    "another seed": ("same-settings", "frozen", freeze(seed=7)),
    "one run scored while it is timed": ("same-settings", "frozen", freeze(options={"eval_strategy": "no"})),
    "one run with less padding": (
        "same-settings", "frozen", freeze(options={"train_sampling_strategy": "group_by_length"})
    ),
    "the test rows scored in one run": ("chosen", "frozen", freeze(choose_on="test")),
}  # fmt: skip


@pytest.mark.parametrize(
    "mutant", few_by_day(RUNS, "layer 2 trained", "texts cut shorter in one run", "the test rows scored in one run")
)
def test_level_2_trained_another_way_is_refused_by_its_own_rule(mutant, second, file, tmp_path):
    rule, run, way = RUNS[mutant]
    result = check("level2", hand_ins.rerun(copied(second, tmp_path / "level2"), file, run, way))
    assert refused(result) == {rule}, str(result)


def test_the_layer_that_moved_is_named(second, file, tmp_path):
    way = freeze(freeze=layer_2_trains)
    result = check("level2", hand_ins.rerun(copied(second, tmp_path / "level2"), file, "frozen", way))
    assert "the frozen run moved layer 2" in found(result, "frozen-layers")
    assert "lesson 03" in found(result, "frozen-layers")


def turned_round(said: dict) -> None:
    said["difference"][0] *= -1


SAID2 = {
    "F1 edited by hand": ("f1", lambda said: said["f1"].update(full=said["f1"]["full"] + 0.02)),
    "the difference the other way round": ("f1", turned_round),
    "an interval that is too narrow": ("f1", lambda said: said["difference"].__setitem__(1, said["difference"][0])),
    "seconds edited by hand": ("time", lambda said: said["seconds_per_step"].update(full=4.0)),
    "a clear answer where there is none": ("conclusion", lambda said: said.update(better_f1="full")),
    "a choice against both answers": (
        "conclusion", lambda said: said.update(choice="full" if said["choice"] == "frozen" else "frozen"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "mutant",
    few_by_day(SAID2, "F1 edited by hand", "an interval that is too narrow", "a clear answer where there is none"),
)
def test_answers_of_level_2_that_do_not_follow_are_refused_by_their_own_rule(mutant, second, tmp_path):
    rule, change = SAID2[mutant]
    folder = copied(second, tmp_path / "level2")
    slow = {"full": 2.0, "frozen": 1.0}  # whatever the machine's clock said
    for run, seconds in slow.items():
        edit(
            folder / run / "log.json",
            lambda log, s=seconds: log["log_history"][-1].update(train_runtime=s * log["global_step"]),
        )
    hand_ins.conclude2(folder)
    assert refused(check("level2", folder)) == set()
    edit(folder / "conclusion.json", lambda said: change(said) and None)
    assert refused(check("level2", folder)) == {rule}


# --- Level 3 ---------------------------------------------------------------------------------------------------------


def again3(folder: Path, **options) -> Path:
    return hand_ins.level3(folder, **options)


def near_copies() -> list[dict[str, str]]:
    rows = hand_ins.rows3(40)
    copies = [{**row, "id": f"{row['id']}-again", "input": f"{row['input']}, please"} for row in rows[:20]]
    return [*rows, *copies]


def with_course_rows() -> list[dict[str, str]]:
    from ftlab.data import tasks

    theirs = tasks.read("tutor").head(2)
    return [*hand_ins.rows3()[2:], *theirs[["id", "instruction", "input", "output"]].to_dict("records")]


def with_a_seen_prompt() -> list[dict[str, str]]:
    seen = {key: hand_ins.rows3()[7][key] for key in ("instruction", "input")}
    return [*hand_ins.prompts3()[:9], {"id": "new-9", **seen}]


TASKS = {
    "49 rows": ("enough", {"rows": hand_ins.rows3(49)}),
    "60 rows of near-copies": ("enough", {"rows": near_copies()}),
    "rows of the course's own": ("own", {"rows": with_course_rows()}),
    "a prompt from training": ("prompts", {"prompts": with_a_seen_prompt()}),
    "nine prompts": ("prompts", {"prompts": hand_ins.prompts3()[:9]}),
}


@pytest.mark.parametrize("mutant", few_by_day(TASKS, "60 rows of near-copies", "a prompt from training"))
def test_level_3_with_other_rows_is_refused_by_its_own_rule(mutant, tmp_path):
    rule, options = TASKS[mutant]
    result = check("level3", again3(tmp_path / "level3", **options))
    assert refused(result) == {rule}, str(result)


def other_answer(folder: Path) -> None:
    """The first answer is not the tuned model's; the ratings are of what was handed in."""
    edit(folder / "answers_tuned.json", lambda said: said["answers"].__setitem__(0, "the ladder carrier of stable"))
    hand_ins.rerate(folder, hand_ins.opinion)


def sampled(folder: Path) -> None:
    edit(folder / "answers_tuned.json", lambda said: said.update(do_sample=True))


def other_length(folder: Path) -> None:
    edit(folder / "answers_base.json", lambda said: said.update(max_new_tokens=said["max_new_tokens"] + 1))


def form(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "ratings.csv", encoding="utf-8-sig", keep_default_na=False, dtype=str)


def rating_6(folder: Path) -> None:
    table = form(folder)
    table.loc[4, "rating"] = "6"
    table.to_csv(folder / "ratings.csv", index=False)


def nine_ratings(folder: Path) -> None:
    table = form(folder)
    table.loc[9:, "rating"] = ""
    table.to_csv(folder / "ratings.csv", index=False)


def half_a_point(folder: Path) -> None:
    table = form(folder)
    table.loc[4, "rating"] = "2.5"
    table.to_csv(folder / "ratings.csv", index=False)


def not_blind(folder: Path) -> None:
    """A form that says which model wrote each answer."""
    form(folder).assign(model="tuned").to_csv(folder / "ratings.csv", index=False)


def one_model_first(folder: Path) -> None:
    """A form in another order than the random one."""
    table = form(folder)
    table.sort_values(["answer", "id"]).to_csv(folder / "ratings.csv", index=False)


def mean_off(folder: Path) -> None:
    edit(
        folder / "conclusion.json", lambda said: said["means"]["tuned"].__setitem__(0, said["means"]["tuned"][0] - 0.3)
    )


def means_swapped(folder: Path) -> None:
    edit(
        folder / "conclusion.json",
        lambda said: said.update(means=dict(zip(("base", "tuned"), reversed(said["means"].values()), strict=True))),
    )


def against_its_interval(folder: Path) -> None:
    edit(folder / "conclusion.json", lambda said: said.update(answer="no clear difference"))


def no_eos(folder: Path) -> None:
    """The last label of one row is not EOS."""
    lines = [json.loads(line) for line in (folder / "tokens.jsonl").read_text(encoding="utf-8").splitlines()]
    lines[5]["input_ids"].pop(), lines[5]["labels"].pop()
    (folder / "tokens.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")


def cut_answer(folder: Path) -> None:
    """An answer that max_length has cut, with EOS behind it."""
    lines = [json.loads(line) for line in (folder / "tokens.jsonl").read_text(encoding="utf-8").splitlines()]
    for name in ("input_ids", "labels"):
        del lines[5][name][-3:-1]
    (folder / "tokens.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")


def learned_prompt(folder: Path) -> None:
    """Labels that are a copy of the ids."""
    lines = [json.loads(line) for line in (folder / "tokens.jsonl").read_text(encoding="utf-8").splitlines()]
    lines[5]["labels"] = lines[5]["input_ids"]
    (folder / "tokens.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")


def first_loss_is_gone(folder: Path) -> None:
    edit(folder / "log.json", lambda log: log["log_history"].pop(0) and None)


EDITS3 = {
    "answers that the model does not give": ("again", other_answer),
    "sampled answers": ("answers", sampled),
    "answers of another length": ("answers", other_length),
    "rating 6": ("ratings", rating_6),
    "nine ratings": ("ratings", nine_ratings),
    "half a point": ("ratings", half_a_point),
    "ratings that were not blind": ("blind", not_blind),
    "ratings in another order": ("blind", one_model_first),
    "a mean off by 0.3": ("means", mean_off),
    "the means of the other models": ("means", means_swapped),
    "a conclusion against its interval": ("conclusion", against_its_interval),
    "EOS is not taught": ("eos", no_eos),
    "an answer that was cut": ("fits", cut_answer),
    "the prompt is learned": ("fits", learned_prompt),
    "a log with a missing step": ("log", first_loss_is_gone),
}  # fmt: skip


ONE_OF_EACH_KIND_OF_LEVEL_3 = [
    "answers that the model does not give", "rating 6", "ratings that were not blind", "a mean off by 0.3",
    "a conclusion against its interval", "EOS is not taught", "the prompt is learned",
]  # fmt: skip


@pytest.mark.parametrize("mutant", few_by_day(EDITS3, *ONE_OF_EACH_KIND_OF_LEVEL_3))
def test_a_falsified_level_3_is_refused_by_its_own_rule(mutant, third, tmp_path):
    rule, change = EDITS3[mutant]
    folder = copied(third, tmp_path / "level3")
    change(folder)
    result = check("level3", folder)
    assert refused(result) == {rule}, str(result)
    assert result.exit_code == 1


def test_an_adapter_of_another_base_is_refused_by_its_own_rule(tmp_path):
    import torch

    folder = again3(tmp_path / "level3", adapter=True)
    assert refused(check("level3", folder)) == set()
    other = loading.causal_lm(hand_ins.LANGUAGE_MODEL)
    with torch.no_grad():
        next(other.parameters()).add_(1e-3)
    other.save_pretrained(tmp_path / "other")
    loading.tokenizer(hand_ins.LANGUAGE_MODEL).save_pretrained(tmp_path / "other")
    edit(folder / "attempt.json", lambda attempt: attempt.update(model=str(tmp_path / "other")))
    assert refused(check("level3", folder)) == {"adapter"}


def test_base_weights_are_refused_in_level_3(third, tmp_path):
    """And then the answers of the tuned model are not the saved one's, which is the base."""
    folder = copied(third, tmp_path / "level3")
    loading.causal_lm(hand_ins.LANGUAGE_MODEL).save_pretrained(folder / "model")
    assert "weights" in refused(check("level3", folder))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("stored", ["itself", "float32"])
def test_a_base_that_was_only_rounded_is_refused_in_level_3(third, tmp_path, dtype, stored):
    import torch

    folder = copied(third, tmp_path / "level3")
    model = loading.causal_lm(hand_ins.LANGUAGE_MODEL).to(getattr(torch, dtype))
    model = model.float() if stored == "float32" else model
    model.save_pretrained(folder / "model")
    result = check_rule(folder, "weights")
    assert result.status == Status.FIX
    assert result.found.endswith("tensors of the base, unchanged")


def test_a_second_head_is_no_training(third, tmp_path):
    """The base ties it to its embeddings, so it has no such tensor."""
    import torch

    folder = copied(third, tmp_path / "level3")
    model = loading.causal_lm(hand_ins.LANGUAGE_MODEL)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach() + 1)
    model.save_pretrained(folder / "model")
    assert "lm_head.weight" in load_file(folder / "model" / "model.safetensors")
    assert check_rule(folder, "weights").status == Status.FIX


def test_training_in_half_precision_passes_in_level_3(third, tmp_path):
    import torch

    folder = copied(third, tmp_path / "level3")
    model = loading.causal_lm(str(folder / "model")).to(torch.bfloat16)
    model.save_pretrained(folder / "model")
    assert check_rule(folder, "weights").status == Status.PASS


def check_rule(folder: Path, rule: str) -> Answer:
    (outcome,) = checker.check(manifest.level("level3"), folder, only=lambda one: one == rule).outcomes
    return outcome.answer


def test_an_adapter_of_the_embeddings_that_was_not_trained_is_refused(third, tmp_path):
    """PEFT draws its B, and it is A that begins at zero."""
    from peft import LoraConfig, get_peft_model

    folder = copied(third, tmp_path / "level3")
    wrapped = get_peft_model(
        loading.causal_lm(hand_ins.LANGUAGE_MODEL), LoraConfig(r=4, target_modules=["embed_tokens", "q_proj"])
    )
    shutil.rmtree(folder / "model")
    wrapped.save_pretrained(folder / "model", save_embedding_layers=False)
    found = check_rule(folder, "weights")
    assert found.status == Status.FIX
    assert "B matrices are zero" in found.found


def test_ratings_that_are_all_equal_get_a_warning(third, tmp_path):
    folder = copied(third, tmp_path / "level3")
    hand_ins.rerate(folder, lambda item: 3)
    result = check("level3", folder)
    assert result.done
    assert [outcome.rule.id for outcome in result.of(Status.WARN)] == ["spread"]


# --- what must pass --------------------------------------------------------------------------------------------------


def test_a_loss_to_the_baseline_passes_if_it_is_said(first, tmp_path):
    """The baseline is right on all rows, and fitted again it would be, too."""
    folder = copied(first, tmp_path / "level1")
    lost = checker.CHECKS["level1"]["conclusion"]
    table = pd.read_csv(folder / "baseline.csv")
    for column in table.filter(like="p_"):
        table[column] = (table["label"] == column.removeprefix("p_")).astype(float)
    write_predictions(folder, table.assign(prediction=table["label"]), "baseline.csv")
    hand_ins.conclude1(folder)
    assert json.loads((folder / "conclusion.json").read_text(encoding="utf-8"))["answer"] == "worse"
    from ftlab.exercises.handed_in import HandedIn

    assert lost(HandedIn(manifest.level("level1"), folder)).status == Status.PASS


def test_a_tie_passes(third, tmp_path):
    folder = copied(third, tmp_path / "level3")
    hand_ins.rerate(folder, lambda item: 2 + int(item.id.removeprefix("new-")) % 3)
    result = check("level3", folder)
    assert json.loads((folder / "conclusion.json").read_text(encoding="utf-8"))["answer"] == "no clear difference"
    assert result.done, str(result)


def test_a_tuned_model_that_is_worse_passes_if_it_is_said(third, tmp_path):
    folder = copied(third, tmp_path / "level3")
    hand_ins.rerate(folder, lambda item: 5 if item.model == "base" else 1 + int(item.id.removeprefix("new-")) % 2)
    result = check("level3", folder)
    assert json.loads((folder / "conclusion.json").read_text(encoding="utf-8"))["answer"] == "worse"
    assert result.done, str(result)


def test_a_run_with_a_tiny_random_model_never_completes_a_level(first, tmp_path):
    folder = copied(first, tmp_path / "level1")
    edit(folder / "attempt.json", lambda attempt: attempt.update(profile="smoke"))
    result = check("level1", folder)
    assert result.passed
    assert not result.done
    assert result.exit_code == 1
    assert "REHEARSAL" in str(result)


def test_two_answers_that_part_at_a_tie_are_the_same(third):
    """Another machine may take the other of two tokens that are equally likely."""
    from ftlab.exercises.handed_in import HandedIn

    work = HandedIn(manifest.level("level3"), third)
    said = instruction_checks.given_answers(work, "tuned")
    model, tokenizer = instruction_checks.tuned_model(work), instruction_checks._tokenizer(work)
    other = "kettle"
    ask = functools.partial(instruction_checks._otherwise, model, tokenizer, said["prompts"][0], other, 6)
    assert ask(0.0) is not None
    assert ask(1e9) is None
