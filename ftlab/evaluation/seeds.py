"""What to freeze, put to the test: the same rows, several seeds, and score beside time."""

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
from ftlab.intervals import Interval, another_run, holm, over_seeds, t_test
from ftlab.models import devices, loading
from ftlab.training import classification

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Recipe:
    """A policy (see `freezing.freeze`) and what it is trained with."""

    policy: str
    frozen_layers: int | None
    epochs: float
    learning_rate: float

    @property
    def name(self) -> str:
        """What tables and figures call it."""
        return f"first {self.frozen_layers} frozen" if self.policy == "first_layers" else NAMES[self.policy]


LEVEL = 0.95
NAMES = {
    "full": "all of it", "head": "head only", "gradual": "gradual unfreezing", "layerwise": "layer-wise rates",
}  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What a recipe gave on the test rows."""

    plan: plans.Plan
    predictions: pd.DataFrame
    seconds: float  # of training, with the one pass through the frozen layers

    def line(self) -> dict[str, Any]:
        """The scores, the time and the size, as a line of a table."""
        found = comparison.scores(self.predictions)
        return {
            "f1_macro": round(found["f1_macro"].value, 4),
            "accuracy": round(found["accuracy"].value, 4),
            "seconds": round(self.seconds, 2),
            "trainable": self.plan.trainable,
        }


class Contest:
    """Recipes against each other on one set of test rows. Features of frozen layers are computed once for these."""

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
        """Train by `recipe` on `train`, through features of the frozen layers where it freezes any, and answer."""
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
    """A line for each model and number of rows: the mean score over seeds with its intervals, and the mean seconds.

    `low` and `high` are the 95 % confidence interval of the mean (`over_seeds`); `run_low` and `run_high` the 95 %
    prediction interval of another run, with rows and a start of its own (`another_run`). Both hold the luck of what
    differs between the seeds and of nothing else: where all are judged on the same test rows, these may be lucky too.
    `runs` has a line for each run: model, rows, seed, the score, and, where they are known, seconds and trainable.
    """
    lines = []
    for (model, rows), group in runs.groupby(["model", "rows"], sort=False):
        mean, run = over_seeds(group[score].to_numpy()), another_run(group[score].to_numpy())
        line: dict[str, Any] = {"model": model, "rows": rows, "score": mean.value, "low": mean.low, "high": mean.high}
        line |= {"run_low": run.low, "run_high": run.high}
        lines.append(line | {name: group[name].mean() for name in ("seconds", "trainable") if name in group})
    return pd.DataFrame(lines)


def gaps(runs: pd.DataFrame, against: str, score: str = "f1_macro") -> pd.DataFrame:
    """How far each model is above `against`, seed by seed on the same rows: the mean difference and its interval.

    `low` and `high` are the 95 % confidence interval of the mean difference (Student's, over seeds) of that line by
    itself, `p` is the p-value of Student's paired test, and `p_holm` that among all lines of this table (`holm`).
    "clear" says that `p_holm` is below 0.05: of tables in which nothing differs, one in twenty has a line that is
    called clear. With few seeds little is clear, and what is not clear may still be there.
    """
    if against not in set(runs["model"]):
        raise BadInput(f"there is no model {against!r} to compare with; there are {', '.join(runs['model'].unique())}")
    table = runs.pivot(index=["rows", "seed"], columns="model", values=score)
    lines = []
    for model in runs["model"].unique():
        if model == against:
            continue
        for rows, group in (table[model] - table[against]).dropna().groupby("rows"):
            gap: Interval = over_seeds(group.to_numpy())
            lines.append(
                {"model": model, "rows": rows, "gap": gap.value, "low": gap.low, "high": gap.high,
                 "p": t_test(group.to_numpy())}
            )  # fmt: skip
    if not lines:
        raise BadInput(f"there is no model but {against!r}, so there is nothing to compare; give runs of two models")
    p_holm = holm([line["p"] for line in lines])
    return pd.DataFrame(lines).assign(p_holm=p_holm, clear=p_holm < 1 - LEVEL)
