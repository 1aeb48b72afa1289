"""What to freeze: every policy, at several numbers of rows and over several seeds; and what cached features save.

Each policy's learning rate is chosen on validation rows of a draw that the comparison does not use. The comparison
then draws its own rows for each seed, and the test rows judge. Each policy, and each timing, is a process of its own,
so that its peak memory is its own too.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MODEL, DATASET, MAX_LENGTH, BATCH_SIZE = "minilm", "rotten_tomatoes", 64, 16
SIZES, SEEDS, TEST_ROWS = (1500, 500, 100), (0, 1, 2), 2000
CHOOSING = {"seed": 100, "rows": 500, "validation_rows": 1000}
# policy, frozen layers, epochs, the learning rates to choose from
POLICIES: dict[str, tuple[str, int | None, int, tuple[float, ...]]] = {
    "full": ("full", None, 3, (5e-5, 1e-4, 2e-4)),
    "first4": ("first_layers", 4, 3, (1e-4, 2e-4, 4e-4)),
    "first5": ("first_layers", 5, 3, (1e-4, 2e-4, 4e-4)),
    "first6": ("first_layers", 6, 20, (3e-4, 1e-3)),
    "head": ("head", None, 20, (1e-3, 1e-2)),
    "gradual": ("gradual", None, 3, (1e-4, 2e-4)),
    "layerwise": ("layerwise", None, 3, (1e-4, 2e-4, 4e-4)),
}
# What is timed: data set -> rows and max_length. The bars are for IMDB: on rows this short as the reviews are, what a
# step costs whatever it trains (the optimizer, Trainer's own work) is a good part of it.
TIMED_ON = {"imdb": (480, 128), "rotten_tomatoes": (960, 64)}
TIMED: dict[str, tuple[str, int | None, int, bool]] = {  # policy, frozen layers, epochs, cached
    "full, 3 epochs": ("full", None, 3, False),
    "first 4 frozen, 3 epochs": ("first_layers", 4, 3, False),
    "first 4 frozen, 3 epochs, cached": ("first_layers", 4, 3, True),
    "head only, 5 epochs": ("head", None, 5, False),
    "head only, 5 epochs, cached": ("head", None, 5, True),
}
RATIOS = {  # slower, faster, bar
    "head only: cached over uncached": ("head only, 5 epochs", "head only, 5 epochs, cached", 4.0),
    "first 4 frozen, cached, over full": ("full, 3 epochs", "first 4 frozen, 3 epochs, cached", 2.2),
    "first 4 frozen: cached over uncached": ("first 4 frozen, 3 epochs", "first 4 frozen, 3 epochs, cached", 1.3),
}


def measure() -> dict[str, Any]:
    """Seconds and peak memory of each way to train; scores by policy, rows and seed; which bars are met."""
    timed = {dataset: {name: _alone("timed", dataset, name) for name in TIMED} for dataset in TIMED_ON}
    ratios = {
        dataset: {
            name: round(timed[dataset][slower]["seconds"] / timed[dataset][faster]["seconds"], 2)
            for name, (slower, faster, _) in RATIOS.items()
        }
        for dataset in TIMED_ON
    }
    found = [_alone("policy", name) for name in POLICIES]
    return {
        "settings": {
            "model": MODEL, "dataset": DATASET, "max_length": MAX_LENGTH, "batch_size": BATCH_SIZE,
            "test_rows": TEST_ROWS, "timed_on": TIMED_ON,
        },
        "timed": timed,
        "ratios": ratios,
        "bars": {f"{name}: at least {bar}": ratios["imdb"][name] >= bar for name, (_, _, bar) in RATIOS.items()},
        "chosen": {name: entry["chosen"] for name, entry in zip(POLICIES, found, strict=True)},
        "runs": [run for entry in (*found, _alone("baselines")) for run in entry["runs"]],
    }  # fmt: skip


def _alone(what: str, *arguments: str) -> dict[str, Any]:
    """Run one measurement in a fresh process and return what it printed last."""
    print(f"ftlab: measuring {' '.join((what, *arguments))} ...", file=sys.stderr, flush=True)
    done = subprocess.run([sys.executable, __file__, what, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _timed(dataset: str, name: str) -> dict[str, Any]:
    """Seconds of a training, a pass through frozen layers included, and the memory that it took at its peak."""
    from ftlab.data import sources, splits
    from ftlab.models import features, freezing, loading
    from ftlab.training import classification
    from ftlab.training.surroundings import mixed_precision

    policy, frozen_layers, epochs, cached = TIMED[name]
    rows, max_length = TIMED_ON[dataset]
    drawn = splits.split(sources.load(dataset, seed=0), rows=rows, validation_rows=2, test_rows=2, seed=0)
    tokenizer = loading.tokenizer(MODEL)
    settings: dict[str, Any] = {
        "model": MODEL, "max_length": max_length, "batch_size": BATCH_SIZE, "learning_rate": 1e-4, "policy": policy,
        "frozen_layers": frozen_layers,
    }  # fmt: skip
    few = drawn.train.select(range(32))
    classification.fine_tune(few, Path(tempfile.mkdtemp()), epochs=1, least_steps=1, **settings)  # warm-up
    before = _memory_mb()
    began = time.perf_counter()
    of_rows = None
    if cached:
        encoder = loading.encoder(MODEL, drawn.train.features["label"].names)
        plan = freezing.freeze(encoder, policy, frozen_layers)
        tokenized = classification.tokenized(drawn.train, tokenizer, max_length)
        of_rows = features.compute(encoder, plan, tokenized, tokenizer, precision=mixed_precision())
        del encoder
    classification.fine_tune(
        drawn.train, Path(tempfile.mkdtemp()), epochs=epochs, least_steps=1, features=of_rows, **settings
    )
    return {"seconds": round(time.perf_counter() - began, 2), "peak_mb": round(_peak_mb()), "before_mb": round(before)}


def _policy(name: str) -> dict[str, Any]:
    """The learning rate of a policy, chosen on validation rows; then its runs, the largest number of rows first."""
    from ftlab.data import sources, splits
    from ftlab.evaluation import comparison
    from ftlab.evaluation.policies import Contest, Recipe

    policy, frozen_layers, epochs, rates = POLICIES[name]
    options: dict[str, Any] = {"model": MODEL, "max_length": MAX_LENGTH, "batch_size": BATCH_SIZE}
    data = sources.load(DATASET, seed=CHOOSING["seed"])
    drawn = splits.split(
        data, rows=CHOOSING["rows"], validation_rows=CHOOSING["validation_rows"], test_rows=2, seed=CHOOSING["seed"]
    )
    contest = Contest(drawn.validation, **options)
    tried = {}
    for rate in rates:
        outcome = contest.run(Recipe(policy, frozen_layers, epochs, rate), drawn.train, seed=CHOOSING["seed"])
        tried[rate] = round(comparison.scores(outcome.predictions)["f1_macro"].value, 4)
    chosen = max(tried, key=lambda rate: tried[rate])
    recipe = Recipe(policy, frozen_layers, epochs, chosen)
    runs, peak = [], None
    for seed in SEEDS:
        drawn = splits.split(
            sources.load(DATASET, seed=seed), rows=max(SIZES), validation_rows=2, test_rows=TEST_ROWS, seed=seed
        )
        contest = Contest(drawn.open_test("judge each policy, and choose nothing"), **options)
        for rows in SIZES:
            outcome = contest.run(recipe, splits.part(drawn.train, rows), seed=seed)
            runs.append({"model": recipe.name, "rows": rows, "seed": seed, **outcome.line()})
            peak = peak or round(_peak_mb())
    return {
        "chosen": {"epochs": epochs, "learning_rate": chosen, "validation_f1": tried, "peak_mb": peak}, "runs": runs
    }  # fmt: skip


def _baselines() -> dict[str, Any]:
    """TF-IDF, and logistic regression on what the whole frozen encoder makes of a text, on the same rows."""
    from ftlab.data import sources, splits
    from ftlab.evaluation import baselines, comparison

    runs = []
    for seed in SEEDS:
        drawn = splits.split(
            sources.load(DATASET, seed=seed), rows=max(SIZES), validation_rows=2, test_rows=TEST_ROWS, seed=seed
        )
        test = drawn.open_test("judge the baselines, and choose nothing")
        vectors = baselines.embed(test["text"], MODEL, max_length=MAX_LENGTH)
        of_all = baselines.embed(drawn.train["text"], MODEL, max_length=MAX_LENGTH)
        places = {row: place for place, row in enumerate(drawn.train["id"])}
        for rows in SIZES:
            train = splits.part(drawn.train, rows)
            of_train = of_all[[places[row] for row in train["id"]]]
            answers = {
                "TF-IDF": baselines.tfidf(train, test, seed=seed),
                "sentence vectors": baselines.on_vectors(train, of_train, test, vectors, seed=seed),
            }
            for name, table in answers.items():
                found = comparison.scores(table)
                runs.append(
                    {
                        "model": name, "rows": rows, "seed": seed, "f1_macro": round(found["f1_macro"].value, 4),
                        "accuracy": round(found["accuracy"].value, 4),
                    }
                )  # fmt: skip
    return {"runs": runs}


def _peak_mb() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (1e6 if sys.platform == "darwin" else 1e3)


def _memory_mb() -> float:
    import psutil

    return psutil.Process().memory_info().rss / 1e6


if __name__ == "__main__":
    from ftlab.progress import quiet

    quiet()
    what, *rest = sys.argv[1:]
    print(json.dumps({"timed": _timed, "policy": _policy, "baselines": _baselines}[what](*rest)))
