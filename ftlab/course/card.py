"""The model card, filled in from the run: data and audit, budget, seed, scores with intervals, limits.

What belongs on it: Mitchell et al., Model Cards for Model Reporting, 2019. The fields at the top are the hub's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ftlab import files
from ftlab.course import records
from ftlab.evaluation import baselines, calibration, comparison
from ftlab.intervals import Comparison, Interval
from ftlab.models import loading
from ftlab.wording import in_markdown

if TYPE_CHECKING:
    from ftlab.course.lesson import Lesson
    from ftlab.data.audit import AuditReport

APART = "No text and no near-copy of one stands in two splits."
STREAM_APART = "Copies of a text stand in one split; the rows were streamed, and nobody looked for near-copies."
STREAM_GROUPS_APART = (
    "Rows of a group stand in one split; the rows were streamed, and nobody looked for copies of a text in two groups."
)


def write_card(
    folder: Path,
    lesson: Lesson,
    *,
    audit: AuditReport,
    answers: Mapping[str, pd.DataFrame],
    temperature: float,
    cut: float,
    precision: str,
    audited: str = "",
    apart: str = APART,
) -> None:
    """Write README.md (the card) and metrics.json into the folder of a saved classifier.

    Args:
        folder: of the saved model.
        lesson: its budget, its seed, and the rows noted by `used` go onto the card.
        audit: of the training rows.
        answers: prediction tables of the test rows by model name, the baselines first and the model last.
        temperature: the one that was folded into the head.
        cut: share of the test rows that are longer than max_length.
        precision: of the training, in words.
        audited: how many of the training rows the audit read, in words; all of them by default.
        apart: what stands in one split alone, in a sentence.
    """
    from huggingface_hub import EvalResult, ModelCardData
    from jinja2 import Environment, PackageLoader, StrictUndefined

    budget = lesson.budget
    name, table = list(answers.items())[-1]
    scores = comparison.scores(table, seed=budget.seed)
    ladder = baselines.ladder(answers, seed=budget.seed)
    rival = ladder.iloc[:-1].sort_values("accuracy", kind="stable")["model"].iloc[-1]  # of equals the last
    difference = comparison.compare(table, answers[rival], seed=budget.seed)
    error = calibration.expected_calibration_error(table)
    data_name = lesson.data["train"]["origin"]["name"]
    # The name of a folder or file of yours, and not its path: that names you.
    base = Path(budget.model).name if Path(budget.model).exists() else budget.model
    title = f"{base}, fine-tuned to label {data_name}"
    metadata = ModelCardData(
        base_model=base,
        library_name="transformers",
        pipeline_tag="text-classification",
        model_name=title,
        eval_results=[
            EvalResult(
                task_type="text-classification", dataset_type=data_name, dataset_name=data_name, dataset_split="test",
                metric_type=metric, metric_value=round(scores[metric].value, 4),
            )
            for metric in ("accuracy", "f1_macro", "mcc")
        ],
    )  # fmt: skip
    settings = {key: value for key, value in budget.settings.items() if key in SETTINGS} | {"model": base}
    if Path(budget.dataset).exists():
        settings["dataset"] = data_name
    data = {split: {**noted, "origin": _without_path(noted["origin"])} for split, noted in lesson.data.items()}
    files.write_json(
        folder / "metrics.json",
        {
            "lesson": lesson.name, "seed": budget.seed, "budget": settings, "data": data, "model": name,
            "test_rows": len(table), "scores": {key: _plain(score) for key, score in scores.items()},
            "expected_calibration_error": error, "temperature": temperature,
            "baselines": {other: _plain(comparison.accuracy(answers[other])) for other in answers if other != name},
            "less_the_best_baseline": {"baseline": rival, **_plain(difference.difference), "p": difference.p_value},
        },
    )  # fmt: skip
    environment = Environment(
        loader=PackageLoader("ftlab", "course"), undefined=StrictUndefined, autoescape=False,
        keep_trailing_newline=True, finalize=lambda value: in_markdown(value) if type(value) is str else value,
    )  # fmt: skip
    card = environment.get_template("card.md.j2").render(
        metadata=metadata.to_yaml().strip(),
        title=title,
        labels=[column.removeprefix("p_") for column in table.columns if column.startswith("p_")],
        base=base,
        lesson=lesson.name,
        max_length=budget.max_length,
        temperature=temperature,
        data=data,
        findings=audit.findings,
        settings=settings,
        seed=budget.seed,
        weights=loading.weights_sha256(loading.folder(budget.model)),
        precision=precision,
        apart=apart,
        audited=f"{audited} of the training rows" if audited else "the training rows",
        versions=records.versions(),
        rows=len(table),
        scores=scores,
        calibration_error=error,
        ladder=ladder.to_dict(orient="records"),
        rival=rival,
        difference=difference,
        limits=_limits(scores, table, difference, cut, budget.max_length),
    )
    with files.atomic(folder / "README.md") as temporary:
        temporary.write_text(card, encoding="utf-8")


SETTINGS = (
    "dataset", "model", "rows", "validation_rows", "test_rows", "max_length", "epochs", "batch_size", "learning_rate",
    "weight_decay", "patience",
)  # fmt: skip


def _limits(
    scores: Mapping[str, Interval], table: pd.DataFrame, difference: Comparison, cut: float, max_length: int
) -> list[str]:
    """Return what the measurements do not show, in sentences."""
    disagree = (difference.only_first + difference.only_second) / len(table)
    smallest = comparison.smallest_difference(len(table), disagree)
    classes = {name[len("f1[") : -1]: score for name, score in scores.items() if name not in COMMON}
    worst = min(classes, key=lambda name: classes[name].value)
    limits = [
        "The scores hold for texts like the test rows. Other sources, years or languages were not measured.",
        f"The label that it does worst on is {worst} (F1 {classes[worst]}).",
        f"On {len(table):,} test rows a difference in accuracy of less than {smallest:.3f} from a model that disagrees "
        "with it as often as that baseline would most likely not show.",
        "A probability is calibrated on rows like the validation rows, and on no others.",
    ]
    if not difference.clear:
        limits.insert(1, "It is not clearly better than the baseline: the simpler model may do.")
    elif difference.difference.value < 0:
        limits.insert(1, "It is clearly worse than the baseline: use the simpler model.")
    if cut:
        limits.append(f"{cut:.1%} of the test texts are longer than {max_length} tokens; it does not read their ends.")
    return limits


COMMON = ("accuracy", "f1_macro", "f1_weighted", "mcc")


def _without_path(origin: Mapping[str, str]) -> dict[str, str]:
    folder, name, rest = origin["origin"].rpartition(origin["name"])  # `rest` may say which of its rows
    own = bool(name) and Path(folder).is_absolute()
    return {**origin, "origin": f"a file{rest}" if own else origin["origin"]}


def _plain(score: Interval) -> dict[str, Any]:
    return {"value": score.value, "low": score.low, "high": score.high, "level": score.level}
