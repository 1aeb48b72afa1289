"""Compare training recipes over several seeds: score and training time on the same test rows, with paired tests."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ftlab.errors import BadInput
from ftlab.evaluation import comparison
from ftlab.evaluation.predictions import predict_rows
from ftlab.freezing import features, plans
from ftlab.intervals import LEVEL, another_run, holm, over_seeds, t_test
from ftlab.models import devices, loading
from ftlab.training import classification

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Recipe:
    """A freezing policy (see `plans.freeze`) with its epochs and learning rate."""

    policy: str
    frozen_layers: int | None
    epochs: float
    learning_rate: float

    @property
    def name(self) -> str:
        """The name in tables and figures."""
        return f"first {self.frozen_layers} frozen" if self.policy == "first_layers" else NAMES[self.policy]


NAMES = {
    "full": "all of it", "head": "head only", "gradual": "gradual unfreezing", "layerwise": "layer-wise rates",
}  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """The result of a recipe on the test rows."""

    plan: plans.Plan
    predictions: pd.DataFrame
    seconds: float  # of training, and of the one pass through the frozen layers

    def line(self) -> dict[str, Any]:
        """Return macro F1, accuracy, seconds and trainable parameters, as a line of a table."""
        found = comparison.scores(self.predictions)
        return {
            "f1_macro": round(found["f1_macro"].value, 4),
            "accuracy": round(found["accuracy"].value, 4),
            "seconds": round(self.seconds, 2),
            "trainable": self.plan.trainable,
        }


class Contest:
    """Trains by one recipe after another and predicts the same test rows; their frozen features are computed once."""

    def __init__(
        self, test: Dataset, *, model: str, max_length: int, batch_size: int, weight_decay: float = 0.01
    ) -> None:
        self.test = test
        self.settings: dict[str, Any] = {
            "max_length": max_length,
            "batch_size": batch_size,
            "weight_decay": weight_decay,
        }
        self.model = model
        self.tokenizer = loading.tokenizer(model, split_special_tokens=True)
        self.tokenized = classification.tokenized(test, self.tokenizer, max_length)
        self._of_test: dict[int, features.Features] = {}

    def run(
        self, recipe: Recipe, train: Dataset, *, seed: int, least_steps: int = classification.LEAST_STEPS
    ) -> Outcome:
        """Train by `recipe` on `train`, on cached features if it freezes layers, and predict the test rows.

        Args:
            recipe: the policy, its epochs and its learning rate.
            train: rows with id, text and label.
            seed: of the head, the order of the rows and dropout.
            least_steps: train for more epochs if those of the recipe have fewer steps.

        Returns:
            The plan, the predictions and the seconds.
        """
        encoder = loading.encoder(self.model, train.features["label"].names)
        plan = plans.freeze(encoder, recipe.policy, recipe.frozen_layers)
        of_train, rows = None, self.tokenized
        began = time.perf_counter()
        if plan.frozen_layers > 0:
            tokenized = classification.tokenized(train, self.tokenizer, self.settings["max_length"])
            of_train = features.compute(encoder, plan, tokenized, self.tokenizer, precision=devices.mixed_precision())
        passed = time.perf_counter() - began
        with tempfile.TemporaryDirectory() as folder:
            trainer = classification.fine_tune(
                train, Path(folder), model=self.model, epochs=recipe.epochs, learning_rate=recipe.learning_rate,
                seed=seed, policy=recipe.policy, frozen_layers=recipe.frozen_layers, features=of_train,
                least_steps=least_steps, **self.settings,
            )  # fmt: skip
        trained = next(entry["train_runtime"] for entry in trainer.state.log_history if "train_runtime" in entry)
        if plan.frozen_layers > 0:
            if plan.frozen_layers not in self._of_test:
                self._of_test[plan.frozen_layers] = features.compute(encoder, plan, self.tokenized, self.tokenizer)
            rows = self._of_test[plan.frozen_layers]
        return Outcome(plan, predict_rows(trainer, self.test, rows), passed + trained)


def summary(runs: pd.DataFrame, score: str = "f1_macro") -> pd.DataFrame:
    """Summarise runs over seeds, for each model and number of training rows.

    The intervals cover only what differs between seeds. If all runs are scored on the same test rows, the sampling of
    these rows is not covered.

    Args:
        runs: one line for each run: model, rows, seed, the score, and optionally seconds and trainable.
        score: the column to summarise.

    Returns:
        One line for each model and number of rows: `score`, its mean; `low` and `high`, the 95 % confidence interval of
        the mean (`over_seeds`); `run_low` and `run_high`, the 95 % prediction interval of one more run with other rows
        and another seed (`another_run`); and the means of seconds and trainable.
    """
    lines = []
    for (model, rows), group in runs.groupby(["model", "rows"], sort=False):
        mean, run = over_seeds(group[score].to_numpy()), another_run(group[score].to_numpy())
        line: dict[str, Any] = {"model": model, "rows": rows, "score": mean.value, "low": mean.low, "high": mean.high}
        line |= {"run_low": run.low, "run_high": run.high}
        lines.append(line | {name: group[name].mean() for name in ("seconds", "trainable") if name in group})
    return pd.DataFrame(lines)


def gaps(runs: pd.DataFrame, against: str, score: str = "f1_macro") -> pd.DataFrame:
    """Compare each model with `against`, paired by seed on the same rows.

    With few seeds only large differences are clear; a difference that is not clear may still exist.

    Args:
        runs: as for `summary`.
        against: the model to compare with.
        score: the column to compare.

    Returns:
        One line for each other model and number of rows: `gap`, the mean difference; `low` and `high`, its 95 %
        confidence interval (Student's, over seeds), not corrected for the number of lines; `p`, the p-value of
        Student's paired test; `p_holm`, corrected for all lines of the table (`holm`); `clear`, whether `p_holm` is
        below 0.05. If no model differs, at most one table in twenty has a clear line.

    Raises:
        BadInput: `against` is not in `runs`, or nothing else is.
    """
    if against not in set(runs["model"]):
        raise BadInput(f"there is no model {against!r} to compare with; there are {', '.join(runs['model'].unique())}")
    table = runs.pivot(index=["rows", "seed"], columns="model", values=score)
    lines = []
    for model in runs["model"].unique():
        if model == against:
            continue
        for rows, group in (table[model] - table[against]).dropna().groupby("rows"):
            gap = over_seeds(group.to_numpy())
            lines.append(
                {"model": model, "rows": rows, "gap": gap.value, "low": gap.low, "high": gap.high,
                 "p": t_test(group.to_numpy())}
            )  # fmt: skip
    if not lines:
        raise BadInput(f"there is no model but {against!r}, so there is nothing to compare; give runs of two models")
    p_holm = holm([line["p"] for line in lines])
    return pd.DataFrame(lines).assign(p_holm=p_holm, clear=p_holm < 1 - LEVEL)
