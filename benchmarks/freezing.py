"""What freezing saves, and what cached features save on top: seconds and peak memory of each way to train.

Each timing is a process of its own, after a warm-up, so that its peak memory is its own too. All of them are made in
turn, three times over, and the fastest counts: what else a machine does only ever adds to a time. A training on cached
features includes the pass that computes them.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ftlab.course import records
from ftlab.course.bench import alone

MODEL, BATCH_SIZE = "minilm", 16
ROUNDS = 3
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
    """Seconds and peak memory of each way to train, their ratios, and which bars they meet."""
    rounds = [
        {dataset: {name: alone(__file__, dataset, name) for name in TIMED} for dataset in TIMED_ON}
        for _ in range(ROUNDS)
    ]
    timed = {
        dataset: {
            name: min((one[dataset][name] for one in rounds), key=lambda found: found["seconds"]) for name in TIMED
        }
        for dataset in TIMED_ON
    }
    ratios = {
        dataset: {
            name: round(timed[dataset][slower]["seconds"] / timed[dataset][faster]["seconds"], 2)
            for name, (slower, faster, _) in RATIOS.items()
        }
        for dataset in TIMED_ON
    }
    return {
        "settings": {"model": MODEL, "batch_size": BATCH_SIZE, "timed_on": TIMED_ON},
        "timed": timed,
        "seconds_of_each_round": [
            {dataset: {name: found["seconds"] for name, found in of.items()} for dataset, of in one.items()}
            for one in rounds
        ],
        "ratios": ratios,
        "bars": {f"{name}: at least {bar}": ratios["imdb"][name] >= bar for name, (_, _, bar) in RATIOS.items()},
    }


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
    return {
        "seconds": round(time.perf_counter() - began, 2),
        "peak_mb": records.peak_memory_mb(),
        "before_mb": round(before),
    }


def _memory_mb() -> float:
    import psutil

    return psutil.Process().memory_info().rss / 1e6


if __name__ == "__main__":
    from ftlab.progress import quiet

    quiet()
    print(json.dumps(_timed(*sys.argv[1:])))
