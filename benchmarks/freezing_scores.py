"""What to freeze: every policy at several numbers of rows and over several seeds, with its seconds.

Each policy's learning rate is chosen on validation rows of a draw that the comparison does not use. The comparison
then draws its own rows for each seed, and the test rows judge. Each policy is a process of its own, so
that none is warmed up by another, and one more shows the memory that it takes on the largest number of rows.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from typing import Any

from ftlab.course import records
from ftlab.course.bench import alone

MODEL, DATASET, MAX_LENGTH, BATCH_SIZE = "minilm", "rotten_tomatoes", 64, 16
SIZES, SEEDS, TEST_ROWS = (1500, 500, 100), (0, 1, 2, 3, 4), 2000
OPTIONS: dict[str, Any] = {"model": MODEL, "max_length": MAX_LENGTH, "batch_size": BATCH_SIZE}
CHOOSING = {"seed": 100, "rows": 500, "validation_rows": 1000}
# policy, frozen layers, epochs, the learning rates to choose from
POLICIES: dict[str, tuple[str, int | None, int, tuple[float, ...]]] = {
    "full": ("full", None, 3, (5e-5, 1e-4, 2e-4)),
    "first4": ("first_layers", 4, 3, (1e-4, 2e-4, 4e-4, 8e-4)),
    "first5": ("first_layers", 5, 3, (1e-4, 2e-4, 4e-4, 8e-4, 1.6e-3)),
    "first6": ("first_layers", 6, 20, (1e-4, 3e-4, 1e-3)),
    "head": ("head", None, 20, (1e-3, 1e-2, 3e-2, 1e-1)),
    "gradual": ("gradual", None, 3, (1e-4, 2e-4, 4e-4)),
    "layerwise": ("layerwise", None, 3, (5e-5, 1e-4, 2e-4)),
}
# What a model that trains nothing of the encoder reads: the name of the baseline -> the reading (ftlab.models.batches).
READINGS = {"sentence vectors": "mean_pooled", "first-token vectors": "first_token"}


def measure() -> dict[str, Any]:
    """Scores, seconds and sizes by policy, rows and seed; and the learning rates that were chosen."""
    from ftlab.training.surroundings import mixed_precision

    found = {name: alone(__file__, "policy", name) for name in POLICIES}
    memory = {name: alone(__file__, "memory", name) for name in POLICIES}
    return {
        "settings": {
            "model": MODEL, "dataset": DATASET, "max_length": MAX_LENGTH, "batch_size": BATCH_SIZE,
            "test_rows": TEST_ROWS, "precision": "bf16" if mixed_precision()["bf16"] else "fp32",
        },
        "chosen": {name: entry["chosen"] | memory[name] for name, entry in found.items()},
        "runs": [run for entry in (*found.values(), alone(__file__, "baselines")) for run in entry["runs"]],
    }  # fmt: skip


def _policy(name: str) -> dict[str, Any]:
    """The learning rate of a policy, chosen on validation rows; then its runs, the largest number of rows first."""
    from ftlab.data import sources, splits
    from ftlab.evaluation import comparison
    from ftlab.evaluation.policies import Contest, Recipe

    policy, frozen_layers, epochs, rates = POLICIES[name]
    data = sources.load(DATASET, seed=CHOOSING["seed"])
    drawn = splits.split(
        data, rows=CHOOSING["rows"], validation_rows=CHOOSING["validation_rows"], test_rows=2, seed=CHOOSING["seed"]
    )
    contest = Contest(drawn.validation, **OPTIONS)
    tried = {}
    for rate in rates:
        outcome = contest.run(Recipe(policy, frozen_layers, epochs, rate), drawn.train, seed=CHOOSING["seed"])
        tried[rate] = round(comparison.scores(outcome.predictions)["f1_macro"].value, 4)
    chosen = max(tried, key=lambda rate: tried[rate])
    recipe = Recipe(policy, frozen_layers, epochs, chosen)
    runs = []
    for seed in SEEDS:
        drawn = splits.split(
            sources.load(DATASET, seed=seed), rows=max(SIZES), validation_rows=2, test_rows=TEST_ROWS, seed=seed
        )
        contest = Contest(drawn.open_test("judge each policy, and choose nothing"), **OPTIONS)
        for rows in SIZES:
            outcome = contest.run(recipe, splits.part(drawn.train, rows), seed=seed)
            runs.append({"model": recipe.name, "rows": rows, "seed": seed, **outcome.line()})
    return {
        "chosen": {"epochs": epochs, "learning_rate": chosen, "validation_f1": tried}, "runs": runs
    }  # fmt: skip


def _memory(name: str) -> dict[str, int]:
    """The peak memory of an epoch on the largest number of rows, and what the process held before."""
    from ftlab.data import sources, splits
    from ftlab.evaluation.policies import Contest, Recipe

    policy, frozen_layers, _, rates = POLICIES[name]
    drawn = splits.split(sources.load(DATASET, seed=0), rows=max(SIZES), validation_rows=2, test_rows=2, seed=0)
    contest = Contest(drawn.validation, **OPTIONS)  # two rows: the memory is that of training
    recipe = Recipe(policy, frozen_layers, 1, rates[0])
    contest.run(recipe, splits.part(drawn.train, 32), seed=0, least_steps=1)  # warm-up
    gc.collect()
    before = records.memory_mb()
    contest.run(recipe, drawn.train, seed=0, least_steps=1)
    return {"peak_mb": records.peak_memory_mb(), "before_mb": before}


def _baselines() -> dict[str, Any]:
    """TF-IDF, and logistic regression on what the whole frozen encoder makes of a text, on the same rows.

    Their seconds hold what training would: the encoding of the training rows, and the fit with its choice of C.
    """
    from ftlab.data import sources, splits
    from ftlab.evaluation import comparison

    runs = []
    for seed in SEEDS:
        drawn = splits.split(
            sources.load(DATASET, seed=seed), rows=max(SIZES), validation_rows=2, test_rows=TEST_ROWS, seed=seed
        )
        test = drawn.open_test("judge the baselines, and choose nothing")
        vectors = {name: _embed(name, test) for name in READINGS}
        for rows in SIZES:
            train = splits.part(drawn.train, rows)
            for name in ("TF-IDF", *READINGS):
                began = time.perf_counter()
                answers = _answers(name, train, test, vectors, seed)
                seconds = time.perf_counter() - began
                found = comparison.scores(answers)
                runs.append(
                    {
                        "model": name, "rows": rows, "seed": seed, "f1_macro": round(found["f1_macro"].value, 4),
                        "accuracy": round(found["accuracy"].value, 4), "seconds": round(seconds, 2),
                    }
                )  # fmt: skip
    return {"runs": runs}


def _answers(name: str, train: Any, test: Any, vectors: dict[str, Any], seed: int) -> Any:
    """What a baseline, fitted on `train`, says of the test rows; `vectors` holds theirs, by the name of the reading."""
    from ftlab.evaluation import baselines

    if name not in READINGS:
        return baselines.tfidf(train, test, seed=seed)
    return baselines.on_vectors(train, _embed(name, train), test, vectors[name], seed=seed)


def _embed(name: str, rows: Any) -> Any:
    from ftlab.evaluation import baselines
    from ftlab.models import batches

    return baselines.embed(rows["text"], MODEL, max_length=MAX_LENGTH, read=getattr(batches, READINGS[name]))


if __name__ == "__main__":
    from ftlab.course.lesson import import_once
    from ftlab.progress import quiet

    quiet()
    import_once()  # as a lesson does
    what, *rest = sys.argv[1:]
    print(json.dumps({"policy": _policy, "memory": _memory, "baselines": _baselines}[what](*rest)))
