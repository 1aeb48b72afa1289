"""What freezing saves, and what cached features save in addition: seconds and peak memory of each way to train.

Each timing runs in a process of its own, after a warm-up, so its peak memory is its own too. All ways run in turn,
three times, and the fastest time counts, because other load only ever makes it slower. The time of a training on cached
features includes the pass that computes them.

The bars are for fp32: every machine has it, and the arithmetic of lesson 03 (forward 1, backward 2) is about right in
it. If the CPU has bf16, the course trains in bf16, so that is timed too. In bf16 the matrix products, most of the work
of a frozen layer, are several times faster; the other work of a trained layer is not.
"""

from __future__ import annotations

import gc
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
# Data set -> rows and max_length. The bars are for IMDB: on the short rows of rotten_tomatoes, the fixed cost of a step
# (the optimizer, Trainer's own work) is a large part of its time.
TIMED_ON = {"imdb": (480, 128), "rotten_tomatoes": (960, 64)}
PRECISIONS: dict[str, dict[str, bool]] = {
    "fp32": {"fp16": False, "bf16": False, "use_cpu": True},
    "bf16": {"fp16": False, "bf16": True, "use_cpu": True},
}
JUDGED = "imdb, fp32"
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
    """Return seconds and peak memory of each way to train, their ratios, and which bars they meet."""
    from ftlab.models import devices

    has_bf16 = devices.mixed_precision().get("use_cpu")  # set if the CPU has bf16 and there is no GPU
    there = list(PRECISIONS) if has_bf16 else ["fp32"]
    cases = {
        f"{dataset}, {precision}": (dataset, precision)
        for dataset in TIMED_ON
        for precision in there
        if dataset == "imdb"
        or precision == there[-1]  # rotten_tomatoes only in the precision that the course uses here
    }
    rounds = [
        {case: {name: alone(__file__, *of_case, name) for name in TIMED} for case, of_case in cases.items()}
        for _ in range(ROUNDS)
    ]
    timed = {
        case: {name: min((one[case][name] for one in rounds), key=lambda found: found["seconds"]) for name in TIMED}
        for case in cases
    }
    ratios = {
        case: {
            name: round(timed[case][slower]["seconds"] / timed[case][faster]["seconds"], 2)
            for name, (slower, faster, _) in RATIOS.items()
        }
        for case in cases
    }
    return {
        "settings": {"model": MODEL, "batch_size": BATCH_SIZE, "timed_on": TIMED_ON},
        "timed": timed,
        "seconds_of_each_round": [
            {case: {name: found["seconds"] for name, found in of.items()} for case, of in one.items()} for one in rounds
        ],
        "ratios": ratios,
        "judged": JUDGED,
        "bars": {
            case: {f"{name}: at least {bar}": ratios[case][name] >= bar for name, (_, _, bar) in RATIOS.items()}
            for case in cases
        },
    }


def _timed(dataset: str, precision: str, name: str) -> dict[str, Any]:
    """Seconds of a training, with the pass through frozen layers, its peak memory, and the memory before it."""
    from ftlab.data import sources, splits
    from ftlab.freezing import features, plans
    from ftlab.models import loading
    from ftlab.training import classification

    policy, frozen_layers, epochs, cached = TIMED[name]
    rows, max_length = TIMED_ON[dataset]
    drawn = splits.split(sources.load(dataset, seed=0), rows=rows, validation_rows=2, test_rows=2, seed=0)
    tokenizer = loading.tokenizer(MODEL)
    settings: dict[str, Any] = {
        "model": MODEL, "max_length": max_length, "batch_size": BATCH_SIZE, "learning_rate": 1e-4, "policy": policy,
        "frozen_layers": frozen_layers, "precision": PRECISIONS[precision],
    }  # fmt: skip
    few = drawn.train.select(range(32))
    classification.fine_tune(few, Path(tempfile.mkdtemp()), epochs=1, least_steps=1, **settings)  # warm-up
    gc.collect()  # otherwise the memory of the warm-up counts as used before
    before = records.memory_mb()
    began = time.perf_counter()
    of_rows = None
    if cached:
        encoder = loading.encoder(MODEL, drawn.train.features["label"].names)
        plan = plans.freeze(encoder, policy, frozen_layers)
        tokenized = classification.tokenized(drawn.train, tokenizer, max_length)
        of_rows = features.compute(encoder, plan, tokenized, tokenizer, precision=PRECISIONS[precision])
        del encoder
    classification.fine_tune(
        drawn.train, Path(tempfile.mkdtemp()), epochs=epochs, least_steps=1, features=of_rows, **settings
    )
    return {
        "seconds": round(time.perf_counter() - began, 2),
        "peak_mb": records.peak_memory_mb(),
        "before_mb": before,
    }


if __name__ == "__main__":
    from ftlab.course.lesson import import_once
    from ftlab.progress import quiet

    quiet()
    import_once()  # as a lesson does
    print(json.dumps(_timed(*sys.argv[1:])))
