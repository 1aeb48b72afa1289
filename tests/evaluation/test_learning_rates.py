import math

import numpy as np
import pandas as pd
import pytest

from ftlab.errors import TrainingFailed
from ftlab.evaluation import calibration, learning_rates
from tests.evaluation.tables import from_logits

ROWS = 300
LABELS = np.random.default_rng(0).integers(0, 2, ROWS)


def answers(skill: float, *, seed: int = 1) -> pd.DataFrame:
    """The answers of a model whose logits lean to the right label by `skill`, with noise."""
    logits = np.random.default_rng(seed).normal(0, 1, (ROWS, 2))
    logits[np.arange(ROWS), LABELS] += skill
    return from_logits(logits, LABELS)


def test_rates_are_compared_by_the_loss_paired_by_row_with_intervals():
    tried = {1e-3: answers(1.0), 1e-5: answers(0.0), 1e-4: answers(1.2)}
    table = learning_rates.compare(tried)
    assert list(table.index) == [1e-5, 1e-4, 1e-3]
    for rate, rows in tried.items():
        line = table.loc[rate]
        assert line["loss"] == pytest.approx(calibration.log_loss(rows))
        assert line["gap"] == pytest.approx(calibration.log_loss(rows) - calibration.log_loss(tried[1e-4]))
        for name in ("loss", "macro F1"):
            assert line[f"{name} low"] < line[name] < line[f"{name} high"]
    assert (table.loc[1e-4, ["gap", "gap low", "gap high"]] == 0).all()
    assert learning_rates.choice(table) == 1e-4
    # Paired: the same noise in each row makes the gap clear where the intervals of the two losses overlap.
    assert table.loc[1e-3, "gap low"] > 0
    assert table.loc[1e-3, "loss low"] < table.loc[1e-4, "loss high"]


def test_a_rate_at_which_training_diverged_is_not_chosen():
    broken = answers(3.0)
    broken.loc[0, ["p_0", "p_1"]] = np.nan
    table = learning_rates.compare({1e-5: answers(2.0), 1e-4: None, 1e-3: broken})
    assert table["loss"].isna().tolist() == [False, True, True]
    assert learning_rates.choice(table) == 1e-5
    assert learning_rates.verdict(table, 1e-4, math.log(2)) == (
        "Training diverged at the planned rate, 0.0001, and 1e-05 has the lowest loss: run the lesson again with "
        "learning_rate 1e-05."
    )


def test_if_every_rate_diverged_one_sentence_names_them():
    with pytest.raises(
        TrainingFailed, match=r"diverged at each learning rate that was tried \(0\.1, 1\); try much lower"
    ):
        learning_rates.compare({1.0: None, 0.1: None})


def table(gaps: dict[float, tuple[float, float]]) -> pd.DataFrame:
    """Lines of a table of `compare`: the gap and its lower end."""
    return pd.DataFrame(
        {
            "loss": [gap + 0.5 for gap, _ in gaps.values()],
            "loss high": [gap + 0.6 for gap, _ in gaps.values()],
            "gap low": [low for _, low in gaps.values()],
        },
        index=list(gaps),
    )


@pytest.mark.parametrize(
    ("gaps", "said"),
    [
        (
            {1e-5: (0.2, 0.1), 1e-4: (0, 0), 1e-3: (0.2, 0.1)},
            "The planned rate, 0.0001, has the lowest loss, clearly lower than 1e-05 and 0.001: keep it.",
        ),
        (
            {1e-5: (0.2, 0.1), 1e-4: (0, 0), 1e-3: (np.nan, np.nan)},
            "The planned rate, 0.0001, has the lowest loss, clearly lower than 1e-05, and training diverged at 0.001: "
            "keep it.",
        ),
        (
            {1e-5: (0.2, 0.1), 1e-4: (0.01, -0.01), 1e-3: (0, 0)},
            "0.001 has the lowest loss, but not clearly lower than the planned rate, 0.0001: keep the planned rate, or "
            "compare them on more rows.",
        ),
        (
            {1e-5: (0.2, 0.1), 1e-4: (0.1, 0.05), 1e-3: (0, 0)},
            "0.001 has a clearly lower loss than the planned rate, 0.0001: run the lesson again with learning_rate "
            "0.001; it is the highest that was tried, and that run tries one beyond it.",
        ),
        (
            {1e-5: (0, 0), 1e-4: (0.1, 0.05), 1e-3: (0.2, 0.1)},
            "1e-05 has a clearly lower loss than the planned rate, 0.0001: run the lesson again with learning_rate "
            "1e-05; it is the lowest that was tried, and that run tries one beyond it.",
        ),
        (
            {1e-5: (0.2, 0.1), 1e-4: (0.1, 0.05), 1e-3: (0, 0), 1e-2: (0.2, 0.1)},
            "0.001 has a clearly lower loss than the planned rate, 0.0001: run the lesson again with learning_rate "
            "0.001.",
        ),
    ],
)
def test_the_planned_rate_is_kept_unless_another_is_clearly_better_and_an_edge_is_named(gaps, said):
    assert learning_rates.verdict(table(gaps), 1e-4, guess=0.69) == said


def test_without_a_loss_below_that_of_guessing_no_rate_is_chosen():
    said = learning_rates.verdict(table({1e-5: (0.2, 0.1), 1e-4: (0, 0), 1e-3: (0.2, 0.1)}), 1e-4, guess=0.5)
    assert said == (
        "At none of these rates is the loss clearly lower than that of guessing, 0.500, so it cannot choose "
        "between them: try them on more rows (rate_rows), or other rates."
    )


def test_of_rows_that_share_groups_the_groups_are_drawn():
    """Two rates that are equally good: an error that all rows of a group share does not tell them apart."""
    groups, clear = np.repeat(np.arange(12), ROWS // 12), 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        tried = {}
        for rate in (1e-4, 1e-3):
            logits = np.zeros((ROWS, 2))
            logits[np.arange(ROWS), LABELS] += 1 + rng.normal(0, 1, 12)[groups]
            tried[rate] = from_logits(logits, LABELS).assign(group=groups.astype(str))
        table = learning_rates.compare(tried)
        clear += (table["gap low"] > 0).sum()
        alone = learning_rates.compare({rate: rows.drop(columns="group") for rate, rows in tried.items()})
        assert (table["loss high"] - table["loss low"] > alone["loss high"] - alone["loss low"]).all()
    assert clear <= 4
