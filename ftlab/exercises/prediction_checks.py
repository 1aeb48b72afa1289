"""Checks of a classifier's predictions: labels by row id, asked again, the report, the baseline, the comparison."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ftlab.data import sources
from ftlab.errors import BadInput
from ftlab.evaluation import baselines, comparison
from ftlab.exercises import saved_models
from ftlab.exercises.checks import CannotCheck, fix, passed, unchecked, warn
from ftlab.exercises.handed_in import HandedIn, NotHandedIn
from ftlab.exercises.outcomes import Answer
from ftlab.exercises.training_checks import Run, history
from ftlab.intervals import Interval
from ftlab.wording import quoted, some

NO_DIFFERENCE = "no clear difference"
TABLES = {"level1": ("predictions.csv", "baseline.csv"), "level2": ("full/predictions.csv", "frozen/predictions.csv")}
LOGS = {"level1": ("log.json",), "level2": ("full/log.json", "frozen/log.json")}
READ_AGAIN = 16_000  # tokens of test rows that are predicted again; at least 16 rows
PROBABILITY = {False: 2e-3, True: 5e-2}  # by which a probability may differ: in fp32 on the same device, and otherwise
SAME_TOKENS = 0.6  # share of a text's tokens that the Trainer must have read
MOST_EDITED = 0.1  # share of the rows that may be otherwise
ROUNDING = 0.006  # of a score: reports are rounded to two places
BOUND = 0.015  # of the ends of an interval, and with few rows more: another seed draws other resamples
BOUND_ROWS = 0.6  # divided by the rows
KAPPA = 0.5  # agreement of two TF-IDF baselines above chance (Cohen's kappa): "moderate" and better
AGREEMENT = 0.9  # share of equal answers from where on kappa does not count: it is low where one class is nearly all
ARGUMENTS = "full/arguments.json, frozen/arguments.json"
BOTH_LOGS, BOTH_TABLES = "full/log.json, frozen/log.json", "full/predictions.csv, frozen/predictions.csv"
# Settings of both runs: of what is learned, and of what is timed.
ALIKE = (
    "weight_decay", "fp16", "bf16", "device", "max_steps", "train_sampling_strategy", "eval_strategy", "save_strategy",
)  # fmt: skip
ENOUGH_FOR_KAPPA = 50  # test rows
SEEDS = range(3)  # of the bootstraps that must agree before a conclusion is called wrong
CLOCK = 1e-6  # seconds, which no training falls short of
FASTER = 1.1  # times as fast, from where on a difference in time is clear


def labels(work: HandedIn) -> Answer:
    """Check that Trainer and predictions have the label of each row, joined by its id. `work` is what was handed in."""
    train = work.part("train").set_index("id")["label"]
    for name in LOGS[work.level.name]:
        ids, seen = work.texts(name, "train_rows"), work.texts(name, "train_labels")
        if ids is None or seen is None or len(ids) != len(seen):
            return fix(
                "the id and the label of each training row", "none", name, advice="Keep the columns id and label."
            )
        if len({*ids}) < min(len(ids), len(train)) and work.level.name == "level1":
            return fix("each training row once", f"{len(ids) - len({*ids})} are there again", name)
        if strange := [one for one in ids if one not in train.index]:
            return fix("training on the training rows", f"the Trainer had {len(strange)} others, {some(strange)}", name)
        wrong = [(one, label) for one, label in zip(ids, seen, strict=True) if train[one] != label]
        if wrong:
            one, label = wrong[0]
            return fix(
                "the label of each row", f"{len(wrong)} of {len(ids)} training labels are another row's: the Trainer "
                f"learned {quoted(label)} for {one}, which is {quoted(train[one])}", name,
            )  # fmt: skip
        if other_texts := _other_texts(work, name):
            return fix(
                "the text of each row, tokenized", f"the Trainer read other texts under {some(other_texts)}", name,
                advice="Texts and ids have lost each other on the way.",
            )  # fmt: skip
    test = work.part("test").set_index("id")["label"]
    for name in TABLES[work.level.name]:
        table = work.predictions(name)
        if other := sorted({*table["id"]} ^ {*test.index}):
            return fix(
                f"predictions of the {len(test)} test rows", f"{len(other)} rows too many or few: {some(other)}", name
            )
        wrong_rows = table[table["label"].to_numpy() != test.loc[table["id"]].to_numpy()]
        if len(wrong_rows):
            one = wrong_rows.iloc[0]
            return fix(
                "the label of each test row", f"{len(wrong_rows)} of {len(table)} labels are another row's: "
                f"{one['id']} has {quoted(one['label'])}, and is {quoted(test[one['id']])}", name,
            )  # fmt: skip
        odd = table[table["prediction"].to_numpy() != _likeliest(table)]
        if len(odd):
            one = odd.iloc[0]
            return fix(
                "the prediction with the largest probability",
                f"{len(odd)} rows have another, the first is {one['id']} ({quoted(one['prediction'])})", name,
            )  # fmt: skip
    return passed(f"the labels of {len(train)} training rows and {len(test)} test rows", TABLES[work.level.name][0])


def _other_texts(work: HandedIn, name: str) -> list[str]:
    """Return the ids of training rows whose recorded tokens are mostly those of another text, if many are."""
    recorded = work.json(name).get("train_tokens")
    recorded = recorded if isinstance(recorded, list) else []
    ids = (work.texts(name, "train_rows") or [])[: len(recorded)]
    try:
        model = saved_models.classifier(work if "/" not in name else Run(work, name.partition("/")[0]))
    except (BadInput, CannotCheck, NotHandedIn):
        return []  # for `weights` to say
    texts = work.part("train").set_index("id")["text"]
    found = []
    for one, tokens in zip(ids, recorded, strict=False):
        wanted = {*model.tokenizer(texts[one], truncation=True, max_length=model.max_length)["input_ids"]}
        there = {token for token in tokens if isinstance(token, int)} if isinstance(tokens, list) else set()
        if len(wanted & there) < len(wanted) * SAME_TOKENS:
            found.append(one)
    return found if len(found) > len(ids) * MOST_EDITED else []


def again(work: HandedIn) -> Answer:
    """Predict test rows again with the saved model, and compare the probabilities. `work` is what was handed in."""
    try:
        model = saved_models.classifier(work)
    except BadInput as problem:
        return unchecked(f"the saved model cannot be read: {problem}")
    rows, table = work.part("test"), work.predictions("predictions.csv")
    _require_own_labels(work, table[table["id"].isin(rows["id"])])
    table = table.set_index("id")
    rows = saved_models.some_rows(work, rows[rows["id"].isin(table.index)], READ_AGAIN)
    if rows.empty:
        raise CannotCheck("no prediction is one of a test row")
    found = model.probabilities(list(rows["text"]))
    said = table.loc[rows["id"], [f"p_{label}" for label in model.labels]].to_numpy()
    gaps = np.abs(found - said).max(axis=1)
    wrong = gaps > PROBABILITY[saved_models.roughly(work.json("arguments.json"))]
    if wrong.any():
        place = int(gaps.argmax())
        one = rows["id"].iloc[place]
        return fix(
            f"the probabilities that the saved model gives to {len(rows)} test rows",
            f"{int(wrong.sum())} differ; for {one} it says {model.labels[int(found[place].argmax())]} "
            f"({found[place].max():.3f}), and handed in is {table.loc[one, 'prediction']} "
            f"({said[place].max():.3f})", "predictions.csv",
        )  # fmt: skip
    return passed(f"{len(rows)} test rows predicted again, at most {gaps.max():.1e} apart", "predictions.csv")


def baseline(work: HandedIn) -> Answer:
    """Fit TF-IDF again on the training rows, and compare it with the stored baseline. `work` is what was handed in."""
    if work.part("train")["label"].nunique() < 2 or work.part("test").empty:
        raise CannotCheck("TF-IDF takes training rows of two classes, and test rows")
    train, test = _datasets(work)
    ours, stored = baselines.tfidf(train, test), work.predictions("baseline.csv")
    if {*stored["id"]} != {*ours["id"]}:
        return fix(f"predictions of the {len(ours)} test rows", f"{len(stored)} others", "baseline.csv")
    stored = _with_true_labels(work, stored)
    both = comparison.compare(ours, stored)
    kappa = _kappa(ours, stored)
    gap = f"accuracy {_accuracy(stored):.3f} handed in, {_accuracy(ours):.3f} fitted again"
    if both.clear and both.difference.value > 0:
        return fix(
            "a baseline as good as TF-IDF with a tuned C", f"{gap}: a clear difference", "baseline.csv",
        )  # fmt: skip
    wanted, found = "the answers of TF-IDF with logistic regression", f"{gap}, agreement (kappa) {kappa:.2f}"
    differs = kappa < KAPPA and _agreement(ours, stored) < AGREEMENT
    if both.clear or (differs and len(ours) >= ENOUGH_FOR_KAPPA):
        return fix(wanted, found, "baseline.csv")
    if differs:  # on so few rows another choice of C may change half of the answers
        return warn(wanted, found, "baseline.csv")
    return passed(found, "baseline.csv")


def report(work: HandedIn) -> Answer:
    """Compute the classification report again from the predictions. `work` is what was handed in."""
    from sklearn.metrics import classification_report

    table = _with_true_labels(work, work.predictions("predictions.csv"))
    computed: dict[str, Any] = classification_report(
        table["label"], table["prediction"], output_dict=True, zero_division=0.0
    )
    handed_in = work.json("report.json")
    for name, value in computed.items():
        said = handed_in.get(name)
        if said is None and name == "accuracy":
            continue  # scikit-learn writes "micro avg" instead where labels are chosen
        wanted = value if isinstance(value, dict) else {"": value}
        given = said if isinstance(said, dict) else {"": said}
        for key, right in wanted.items():
            where = f"{name} {key}".strip()
            one = given.get(key)
            if isinstance(one, bool) or not isinstance(one, int | float):
                return fix(f"a report of each class, with {where}", quoted(said), "report.json")
            if abs(float(one) - float(right)) > ROUNDING:
                return fix(f"{where} {float(right):.3f}", f"{float(one):.3f}", "report.json")
    return passed(f"accuracy {_accuracy(table):.3f}, as the predictions say", "report.json")


def conclusion(work: HandedIn) -> Answer:
    """Check the conclusion of level 1 against the paired comparison with the baseline. `work` is what was handed in."""
    said = work.word("conclusion.json", "answer", ("better", "worse", NO_DIFFERENCE))
    tuned, counted = _of_the_same_rows(work)
    found = [comparison.compare(tuned, counted, seed=seed) for seed in _seeds(work)]
    right = {_verdict(one.difference, one.clear, "better", "worse") for one in found}
    if said not in right:
        return fix(
            f"the answer {' or '.join(sorted(right))}", f"{said}; the comparison says {found[0]}", "conclusion.json"
        )
    if not work.reason("conclusion.json"):
        return fix("a sentence that says what shows it (because)", "none", "conclusion.json")
    return passed(f"{said}: {found[0].difference} of accuracy over TF-IDF", "conclusion.json")


def same_rows(work: HandedIn) -> Answer:
    """Check that both runs of level 2 had the same training and test rows. `work` is what was handed in."""
    first, second = (work.texts(f"{run}/log.json", "train_rows") or [] for run in ("full", "frozen"))
    if other := sorted({*first} ^ {*second}):
        return fix(
            "the same training rows in both runs",
            f"{len(other)} rows are in one only: {some(other)}",
            BOTH_LOGS,
        )
    if cut := _cut_otherwise(work):
        return fix(
            "the same tokens of a row in both runs", f"{len(cut)} rows have others, {some(cut)}", BOTH_LOGS,
            advice="Tokenize once, with one max_length: a shorter text is quicker, too.",
        )  # fmt: skip
    if lacking := sorted({*work.part("train")["id"]} - {*first}):
        return fix(
            "a training on all training rows",
            f"{len(lacking)} were left out: {some(lacking)}",
            BOTH_LOGS,
        )
    judged = [{*work.predictions(f"{run}/predictions.csv")["id"]} for run in ("full", "frozen")]
    if other := sorted(judged[0] ^ judged[1]):
        return fix(
            "the same test rows in both runs",
            f"{len(other)} rows are in one only: {some(other)}",
            BOTH_TABLES,
        )
    return passed(f"{len(first)} training rows and {len(judged[0])} test rows", BOTH_LOGS)


def _cut_otherwise(work: HandedIn) -> list[str]:
    """Return the ids of training rows whose recorded tokens differ between the two runs."""
    recorded = []
    for run in ("full", "frozen"):
        tokens = work.json(f"{run}/log.json").get("train_tokens")
        ids = work.texts(f"{run}/log.json", "train_rows") or []
        recorded.append(dict(zip(ids, tokens, strict=False)) if isinstance(tokens, list) else {})
    return sorted(one for one in recorded[0].keys() & recorded[1].keys() if recorded[0][one] != recorded[1][one])


def same_settings(work: HandedIn) -> Answer:
    """Check that both runs of level 2 have one seed, epochs and batch size. `work` is what was handed in."""
    runs = [Run(work, run) for run in ("full", "frozen")]
    values = {}
    for name in ("seed", "num_train_epochs", "train_batch_size", "gradient_accumulation_steps"):
        full, frozen = (run.number("arguments.json", name) for run in runs)
        if full != frozen:
            return fix(f"the same {name} in both runs", f"{full:g} and {frozen:g}", ARGUMENTS)
        values[name] = full
    for name in ALIKE:  # the learning rate may differ: each way may have its own
        one, other = (run.json("arguments.json").get(name) for run in runs)
        if one != other:
            return fix(f"the same {name} in both runs", f"{quoted(one)} and {quoted(other)}", ARGUMENTS)
    ended = [run.number("log.json", "epoch") for run in runs]
    if ended[0] != ended[1]:
        return fix("as many epochs in both runs", f"{ended[0]:g} and {ended[1]:g}", BOTH_LOGS)
    return passed(f"seed {values['seed']:g}, {values['num_train_epochs']:g} epochs", ARGUMENTS)


def f1(work: HandedIn) -> Answer:
    """Compute macro F1 of both runs and the interval of their difference again. `work` is what was handed in."""
    full, frozen = _of_the_same_rows(work)
    for run, table in (("full", full), ("frozen", frozen)):
        said = work.numbers("conclusion.json", "f1", run)[0]
        computed = comparison.scores(table)["f1_macro"].value
        if abs(said - computed) > ROUNDING:
            return fix(f"macro F1 {computed:.3f} of the {run} run", f"{said:.3f}", "conclusion.json")
    gap = comparison.difference(frozen, full, seed=_seeds(work)[0])
    bound = max(BOUND, BOUND_ROWS / len(full))
    wanted, given = (gap.value, gap.low, gap.high), work.numbers("conclusion.json", "difference")
    if len(given) != 3:
        return fix("the difference, frozen less full, with its two ends", f"{len(given)} numbers", "conclusion.json")
    for name, one, other, tolerance in zip(
        ("value", "low end", "high end"), wanted, given, (ROUNDING, bound, bound), strict=True
    ):
        if abs(one - other) > tolerance:
            return fix(f"a difference, frozen less full, of {gap}", f"the {name} {other:.3f}", "conclusion.json")
    return passed(f"frozen less full {gap}", "conclusion.json")


def time(work: HandedIn) -> Answer:
    """Check the seconds of a step of both runs against their logs. `work` is what was handed in."""
    found = _seconds(work)
    for run, seconds in found.items():
        said = work.numbers("conclusion.json", "seconds_per_step", run)[0]
        if not 0.95 <= said / seconds <= 1.05:
            return fix(f"{seconds:.4f} seconds a step in the {run} run", f"{said:.4f}", "conclusion.json")
    return passed(f"a frozen step takes {found['frozen'] / found['full']:.2f} of a full one", "log.json")


def choice(work: HandedIn) -> Answer:
    """Check the three answers of level 2 against F1 and time. `work` is what was handed in."""
    known = ("full", "frozen", NO_DIFFERENCE)
    full, frozen = _of_the_same_rows(work)
    gaps = [comparison.difference(frozen, full, seed=seed) for seed in _seeds(work)]
    by_f1 = {_verdict(gap, gap.low > 0 or gap.high < 0, "frozen", "full") for gap in gaps}
    said = work.word("conclusion.json", "better_f1", known)
    if said not in by_f1:
        return fix(
            f"better_f1: {' or '.join(sorted(by_f1))}", f"{said}, and frozen less full is {gaps[0]}", "conclusion.json"
        )
    seconds = _seconds(work)
    ratio = seconds["full"] / seconds["frozen"]
    by_time = {NO_DIFFERENCE} if 1 / FASTER < ratio < FASTER else {"frozen" if ratio > 1 else "full"}
    if abs(ratio - FASTER) < 0.05 or abs(1 / ratio - FASTER) < 0.05:  # at the border both are right
        by_time = {*by_time, NO_DIFFERENCE, "frozen" if ratio > 1 else "full"}
    if (quick := work.word("conclusion.json", "faster", known)) not in by_time:
        return fix(
            f"faster: {' or '.join(sorted(by_time))}", f"{quick}, and full / frozen is {ratio:.2f}", "conclusion.json"
        )
    chosen = work.word("conclusion.json", "choice", ("full", "frozen"))
    wanted = said if said != NO_DIFFERENCE else quick
    if wanted not in (NO_DIFFERENCE, chosen):
        reason = "a clear difference in F1" if said != NO_DIFFERENCE else "no clear difference in F1, and a faster one"
        return fix(f"the choice {wanted}: {reason}", chosen, "conclusion.json")
    if not work.reason("conclusion.json"):
        return fix("a sentence that says why (because)", "none", "conclusion.json")
    return passed(f"{chosen}; F1: {said}; faster: {quick}", "conclusion.json")


def _seeds(work: HandedIn) -> list[int]:
    """Return the seeds of the bootstraps: the learner's own first."""
    own = work.attempt.get("seed")
    return list(dict.fromkeys([own if isinstance(own, int) and own >= 0 else 0, *SEEDS]))


def _seconds(work: HandedIn) -> dict[str, float]:
    """Return the seconds of a step of each run: the time of the training divided by its steps."""
    found = {}
    for name in ("full", "frozen"):
        run = Run(work, name)
        runtime = next((line["train_runtime"] for line in history(run) if "train_runtime" in line), None)
        if not isinstance(runtime, int | float) or runtime < CLOCK:
            raise BadInput(f"{run.path('log.json')} has no train_runtime; record the training after it has ended")
        found[name] = float(runtime) / run.number("log.json", "global_step", least=1)
    return found


def _verdict(gap: Interval, clear: bool, above: str, below: str) -> str:
    return NO_DIFFERENCE if not clear else above if gap.value > 0 else below


def _likeliest(table: pd.DataFrame) -> np.ndarray:
    columns = [column for column in table if str(column).startswith("p_")]
    # The prediction itself where it shares the first place: probabilities may be rounded.
    best = table[columns].to_numpy().max(axis=1)
    own = [
        table[f"p_{one}"].iloc[place] if f"p_{one}" in table else -1 for place, one in enumerate(table["prediction"])
    ]
    likeliest = np.array([str(columns[place])[2:] for place in table[columns].to_numpy().argmax(axis=1)], dtype=object)
    return np.where(np.asarray(own) == best, table["prediction"], likeliest)


def _with_true_labels(work: HandedIn, table: pd.DataFrame) -> pd.DataFrame:
    """Return the predictions of test rows as the probabilities say, in the order that was handed in.

    A bootstrap draws rows by their position: in another order, one seed gives another interval than the notebook has.

    Raises CannotCheck if a label is another row's: then the predictions may be, too, and `labels` says so.
    """
    known = table[table["id"].isin(work.part("test")["id"])]
    if known.empty:
        raise CannotCheck("no prediction is one of a test row")
    _require_own_labels(work, known)
    return known.assign(prediction=_likeliest(known)).reset_index(drop=True)


def _require_own_labels(work: HandedIn, table: pd.DataFrame) -> None:
    truth = work.part("test").set_index("id")["label"]
    if (table["label"].to_numpy() != truth.loc[table["id"]].to_numpy()).any():
        raise CannotCheck("the table of predictions has labels of other rows, so predictions cannot be joined to rows")


def _of_the_same_rows(work: HandedIn) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return both tables of a level, with true labels. Raises CannotCheck if one has rows that the other has not."""
    names = TABLES[work.level.name]
    first, second = (_with_true_labels(work, work.predictions(name)) for name in names)
    if alone := sorted({*first["id"]} ^ {*second["id"]}):
        raise CannotCheck(f"only one of {names[0]} and {names[1]} has {some(alone)}")
    return first, second


def _datasets(work: HandedIn) -> tuple[Any, Any]:
    frame = work.rows.assign(key=range(len(work.rows)))
    everything = sources.as_dataset_dict(frame[["id", "text", "label"]])["train"]
    train, test = (frame[frame["split"] == split]["key"].tolist() for split in ("train", "test"))
    return everything.select(train), everything.select(test)


def _accuracy(table: pd.DataFrame) -> float:
    return float((table["label"] == table["prediction"]).mean())


def _agreement(first: pd.DataFrame, second: pd.DataFrame) -> float:
    """Return the share of equal predictions of two tables with the same rows."""
    other = second.set_index("id").loc[first["id"], "prediction"]
    return float((first["prediction"].to_numpy() == other.to_numpy()).mean())


def _kappa(first: pd.DataFrame, second: pd.DataFrame) -> float:
    """Return Cohen's kappa of the predictions of two tables with the same rows; 1 if all are equal."""
    from sklearn.metrics import cohen_kappa_score

    one = first.set_index("id")["prediction"]
    other = second.set_index("id").loc[one.index, "prediction"]
    if (one.to_numpy() == other.to_numpy()).all():
        return 1.0
    return float(cohen_kappa_score(one, other))
