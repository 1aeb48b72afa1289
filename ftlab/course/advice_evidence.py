"""What the advice rests on: a measurement that settles the rules that clash, and the arithmetic of long prompts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ftlab.course.advice_input import check_count, check_parameters
from ftlab.evaluation import costs

if TYPE_CHECKING:
    import pandas as pd

# FLOPs for each parameter and token (Kaplan et al., Scaling Laws for Neural Language Models, 2020, section 2.1).
FLOPS_TO_ANSWER, FLOPS_TO_TRAIN = 2, 6
# Columns of `settled_by_measurement`, and the names in the benchmark. The first two leave the whole backbone frozen.
# "first 4 frozen" freezes a part of it, and trains the last layers.
MEASURED = {
    "head only": "head only",
    "sentence vectors": "sentence vectors",
    "first 4 frozen": "first 4 frozen",
    "full": "all of it",
}
FROZEN = ("head only", "sentence vectors")


def break_even(
    *,
    rows: int,
    questions_a_day: int = 100,
    model_parameters: float = 135e6,
    prompted_parameters: float = 8e9,
    examples: int = 10,
    tokens_a_row: int = 100,
    epochs: int = 3,
) -> pd.DataFrame:
    """Count after how many questions a training has cost less computation than the prompts that it replaces.

    It counts FLOPs, not prices: 2 for each parameter and token of an answer, 6 of a training (Kaplan et al. 2020,
    arXiv:2001.08361). Not counted: a person's hours for labels and prompts, and the loading of a model.

    Args:
        rows: that the small model trains on.
        questions_a_day: how often it is asked.
        model_parameters: of the model that trains.
        prompted_parameters: of a larger model that needs no training.
        examples: in each few-shot prompt.
        tokens_a_row: of a question with its answer, and of each example.
        epochs: of the training.

    Returns:
        A line for what the training replaces (index): "few-shot prompt, same model" and "larger model, short prompt".
        Columns: "TFLOPs a question", what the alternative costs; "of the trained model"; "questions" and "days" after
        which the training has cost less. They are infinite where it never does.

    Raises:
        BadInput: a value is impossible.

    1,000 rows, 3 epochs and 10 examples: 3 times as many FLOPs for each trained token, so 3 * 3 * 1000 / 10 questions.

    >>> break_even(rows=1000, questions_a_day=30)[["questions", "days"]].round().astype(int).iloc[0].tolist()
    [900, 30]
    """
    import pandas as pd

    for name, value, least in (
        ("rows", rows, 1), ("questions_a_day", questions_a_day, 0), ("examples", examples, 0),
        ("tokens_a_row", tokens_a_row, 1), ("epochs", epochs, 1),
    ):  # fmt: skip
        check_count(name, value, least=least)
    check_parameters("model_parameters", model_parameters)
    check_parameters("prompted_parameters", prompted_parameters)
    training = FLOPS_TO_TRAIN * model_parameters * rows * tokens_a_row * epochs
    answer = FLOPS_TO_ANSWER * model_parameters * tokens_a_row
    alternatives = {
        "few-shot prompt, same model": answer * (1 + examples),
        "larger model, short prompt": FLOPS_TO_ANSWER * prompted_parameters * tokens_a_row,
    }
    lines = []
    for name, cost in alternatives.items():
        questions = costs.break_even(training, longer=cost, shorter=answer)
        days = questions / questions_a_day if questions_a_day else math.inf
        lines.append(
            {"instead of": name, "TFLOPs a question": cost / 1e12, "of the trained model": answer / 1e12,
             "questions": questions, "days": days}
        )  # fmt: skip
    return pd.DataFrame(lines).set_index("instead of")


def settled_by_measurement(benchmark: dict[str, Any] | None = None) -> pd.DataFrame:
    """Return what lesson 03 measured about the rules that clash, computed from its stored benchmark.

    Args:
        benchmark: the result to read; by default the stored one, `benchmarks/results/freezing_scores.json`.

    Returns:
        A line for each number of training rows (index). The mean macro F1 over the seeds of "head only" (a head on a
        frozen backbone), "sentence vectors" (logistic regression on its mean over the tokens), "first 4 frozen" and
        "full"; "best frozen backbone", the better of the first two; "full - best frozen backbone" with "low" and
        "high", the 95 % confidence interval of the mean difference over "seeds"; and "clear", as in lesson 03: whether
        Student's paired test shows a difference, with Holm's correction for all comparisons of the benchmark.

    Raises:
        BadInput: no benchmark is stored.
    """
    import pandas as pd

    from ftlab.course import bench
    from ftlab.evaluation import seed_comparison

    result = bench.stored("freezing_scores")["result"] if benchmark is None else benchmark
    runs = pd.DataFrame(result["runs"])
    gaps = seed_comparison.gaps(runs, against=MEASURED["full"]).set_index(["rows", "model"])
    means = runs.pivot_table(index="rows", columns="model", values="f1_macro", aggfunc="mean")
    means = means[list(MEASURED.values())].set_axis(list(MEASURED), axis=1)
    lines = []
    for rows, line in means.iterrows():
        best = str(line[list(FROZEN)].idxmax())
        gap = gaps.xs((rows, MEASURED[best]))
        lines.append(
            {"rows": rows, **line, "best frozen backbone": best, "full - best frozen backbone": -gap["gap"],
             "low": -gap["high"], "high": -gap["low"], "seeds": runs["seed"].nunique(), "clear": bool(gap["clear"])}
        )  # fmt: skip
    return pd.DataFrame(lines).set_index("rows")
