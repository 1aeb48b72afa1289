"""How much data is enough? Learning curves of fine-tuning, the frozen encoder and TF-IDF, over several seeds.

Each seed draws its own splits, so the range over seeds includes the luck of the draw and that of training. All seeds
draw from the same reviews: a test row of one seed can be a training row of another, so the seeds differ a little less
than separate draws would. No model has seen its own test rows, and the test rows choose nothing. The settings are those
of lesson 02.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

SIZES = {"rotten_tomatoes": (50, 100, 200, 500, 1500)}
SEEDS = (0, 1, 2)


def measure() -> dict[str, Any]:
    """Return, for each data set, the settings and the runs: model, rows, seed, accuracy and macro F1."""
    from ftlab.course import profiles
    from ftlab.progress import bar

    curves: dict[str, Any] = {}
    total = sum(len(sizes) * len(SEEDS) for sizes in SIZES.values())
    with bar("learning curves", total=total, unit="sizes") as progress:
        for dataset, sizes in SIZES.items():
            budget = profiles.resolve("text_classification", "cpu", {"dataset": dataset})
            runs = []
            for seed in SEEDS:
                for lines in _one_seed(budget, sizes, seed):
                    runs += lines
                    progress.update(1)
            names = ("model", "max_length", "epochs", "batch_size", "learning_rate", "weight_decay", "test_rows")
            curves[dataset] = {"settings": {name: budget.settings[name] for name in names}, "runs": runs}
    return curves


def _one_seed(budget: Any, sizes: tuple[int, ...], seed: int) -> Any:
    """The runs of each size, on one draw of training and test rows; a smaller size is a part of a larger one."""
    from ftlab.data import sources, splits
    from ftlab.evaluation import baselines, comparison
    from ftlab.evaluation.predictions import predict_rows
    from ftlab.training import classification

    drawn = splits.split(
        sources.load(budget.dataset, seed=seed),
        rows=max(sizes), validation_rows=budget.validation_rows, test_rows=budget.test_rows, seed=seed,
    )  # fmt: skip
    test = drawn.open_test("judge each size of training rows, and choose nothing")
    vectors = baselines.embed(test["text"], budget.model, max_length=budget.max_length)
    train_vectors = baselines.embed(drawn.train["text"], budget.model, max_length=budget.max_length)
    places = {row: place for place, row in enumerate(drawn.train["id"])}
    for size in sizes:
        train = splits.part(drawn.train, size)
        with tempfile.TemporaryDirectory() as folder:
            trainer = classification.fine_tune(
                train, Path(folder), model=budget.model, max_length=budget.max_length, epochs=budget.epochs,
                batch_size=budget.batch_size, learning_rate=budget.learning_rate, weight_decay=budget.weight_decay,
                seed=seed,
            )  # fmt: skip
        tokenized = test.map(
            lambda rows, trainer=trainer: trainer.processing_class(
                rows["text"], truncation=True, max_length=budget.max_length
            ),
            batched=True,
        )
        of_train = train_vectors[[places[row] for row in train["id"]]]
        answers = {
            "fine-tuned": predict_rows(trainer, test, tokenized),
            "frozen encoder": baselines.on_vectors(train, of_train, test, vectors, seed=seed),
            "TF-IDF": baselines.tfidf(train, test, seed=seed),
        }
        yield [
            {
                "model": name, "rows": size, "seed": seed,
                "accuracy": round(comparison.accuracy(table).value, 4),
                "f1_macro": round(comparison.scores(table)["f1_macro"].value, 4),
            }
            for name, table in answers.items()
        ]  # fmt: skip
