"""What to freeze: scores and seconds of every policy, for several numbers of rows and over several seeds.

The rows are split once, as lesson 03 splits them: test rows that nothing else uses, validation rows that choose each
policy's learning rate (with training rows of their own), and training rows for the comparison. Each seed has its own
part of the training rows and of the test rows. So seeds share no rows, and they differ by the drawn rows (training and
test) and by the random start. No row, and no near-copy of one, has two uses; `require_apart` checks this before
anything is measured. Each policy runs in a process of its own, so that no policy warms up another, and in one more that
measures its memory on the largest number of rows.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ftlab.course import records
from ftlab.course.bench import alone

if TYPE_CHECKING:
    from datasets import Dataset

MODEL, DATASET, MAX_LENGTH, BATCH_SIZE = "minilm", "rotten_tomatoes", 64, 16
SIZES, SEEDS = (1000, 500, 100), (0, 1, 2, 3, 4)
TEST_ROWS, VALIDATION_ROWS, CHOOSING_ROWS = 2000, 900, 500  # the first are cut into a part for each seed
SPLIT_SEED, CHOOSING_SEED = 0, 100  # the split of the lessons' stored runs: their test rows choose nothing here
OPTIONS: dict[str, Any] = {"model": MODEL, "max_length": MAX_LENGTH, "batch_size": BATCH_SIZE}
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
# The baselines on the frozen encoder: name -> the function of ftlab.models.batches that reads a text's vector.
READINGS = {"sentence vectors": "mean_pooled", "first-token vectors": "first_token"}


@dataclass(frozen=True)
class Rows:
    """The rows of the benchmark by use: to choose learning rates, and to compare (training and test for each seed)."""

    choosing: Dataset
    validation: Dataset
    training: list[Dataset]  # of each seed
    test: list[Dataset]  # of each seed

    @property
    def uses(self) -> dict[str, Dataset]:
        """Every set of rows, by its use."""
        by_seed = {"training": self.training, "test": self.test}
        parts = {f"{use}, seed {seed}": part for use, each in by_seed.items() for seed, part in enumerate(each)}
        return {"to choose by, training": self.choosing, "to choose by, validation": self.validation, **parts}


def draw() -> Rows:
    """Return the rows of every use, split once."""
    from ftlab.data import sources, splits

    drawn = splits.split(
        sources.load(DATASET, seed=SPLIT_SEED),
        rows=None, validation_rows=VALIDATION_ROWS, test_rows=TEST_ROWS, seed=SPLIT_SEED,
    )  # fmt: skip
    choosing, *training = splits.disjoint(drawn.train, [CHOOSING_ROWS, *[max(SIZES)] * len(SEEDS)], seed=SPLIT_SEED)
    test = drawn.open_test("judge each policy, and choose nothing")
    parts = splits.disjoint(test, [TEST_ROWS // len(SEEDS)] * len(SEEDS), seed=SPLIT_SEED)
    return Rows(choosing, drawn.validation, training, parts)


def require_apart(uses: Mapping[str, Dataset]) -> None:
    """Raise AssertionError if a row, or a near-copy of it, has two of the `uses`."""
    import numpy as np

    from ftlab.data import duplicates

    use = np.repeat(list(uses), [len(rows) for rows in uses.values()])
    ids = np.array([row for rows in uses.values() for row in rows["id"]])
    clusters = duplicates.together([text for rows in uses.values() for text in rows["text"]])
    for what, keys in (("row", ids), ("cluster of near-copies", clusters)):
        pairs = np.unique(np.stack([keys.astype(str), use]), axis=1)
        again = pairs[:, np.isin(pairs[0], pairs[0][1:][pairs[0][1:] == pairs[0][:-1]])]
        if again.size:
            raise AssertionError(
                f"the {what} {again[0, 0]} has {' and '.join(map(repr, again[1, :2].tolist()))} for its uses"
            )


def require_sealed(test: set[str]) -> None:
    """Raise AssertionError unless `test` has all test rows of the lessons on these reviews; they choose nothing."""
    from ftlab.course import profiles
    from ftlab.data import sources, splits

    for lesson in ("text_classification", "freezing_comparison"):
        budget = profiles.resolve(lesson, "cpu")
        drawn = splits.split(
            sources.load(budget.dataset, seed=SPLIT_SEED),
            rows=None, validation_rows=budget.validation_rows, test_rows=budget.test_rows, seed=SPLIT_SEED,
        )  # fmt: skip
        if others := set(drawn.open_test("to see that its rows chose nothing")["id"]) - test:
            raise AssertionError(f"{lesson} judges on {min(others)}, which is no test row here")


def measure() -> dict[str, Any]:
    """Return scores, seconds and sizes by policy, rows and seed, and the chosen learning rates."""
    from ftlab.models import devices

    rows = draw()
    require_apart(rows.uses)
    require_sealed({row for part in rows.test for row in part["id"]})
    found = {name: alone(__file__, "policy", name) for name in POLICIES}
    memory = {name: alone(__file__, "memory", name) for name in POLICIES}
    return {
        "settings": {
            "model": MODEL, "dataset": DATASET, "max_length": MAX_LENGTH, "batch_size": BATCH_SIZE,
            "rows": {use: len(part) for use, part in rows.uses.items()}, "split_seed": SPLIT_SEED,
            "precision": "bf16" if devices.mixed_precision()["bf16"] else "fp32",
        },
        "chosen": {name: entry["chosen"] | memory[name] for name, entry in found.items()},
        "runs": [run for entry in (*found.values(), alone(__file__, "baselines")) for run in entry["runs"]],
    }  # fmt: skip


def _policy(name: str) -> dict[str, Any]:
    """Choose a policy's learning rate on validation rows, then run it, with the largest number of rows first."""
    from ftlab.data import splits
    from ftlab.evaluation import comparison
    from ftlab.evaluation.seed_comparison import Contest, Recipe

    policy, frozen_layers, epochs, rates = POLICIES[name]
    drawn = draw()
    contest = Contest(drawn.validation, **OPTIONS)
    tried = {}
    for rate in rates:
        outcome = contest.run(Recipe(policy, frozen_layers, epochs, rate), drawn.choosing, seed=CHOOSING_SEED)
        tried[rate] = round(comparison.scores(outcome.predictions)["f1_macro"].value, 4)
    chosen = max(tried, key=lambda rate: tried[rate])
    recipe = Recipe(policy, frozen_layers, epochs, chosen)
    runs = []
    for seed, training, test in zip(SEEDS, drawn.training, drawn.test, strict=True):
        contest = Contest(test, **OPTIONS)
        for rows in SIZES:
            outcome = contest.run(recipe, splits.part(training, rows), seed=seed)
            runs.append({"model": recipe.name, "rows": rows, "seed": seed, **outcome.line()})
    return {
        "chosen": {"epochs": epochs, "learning_rate": chosen, "validation_f1": tried}, "runs": runs
    }  # fmt: skip


def _memory(name: str) -> dict[str, int]:
    """The peak memory of an epoch on the largest number of rows, and the memory before it, in MB."""
    from ftlab.data import splits
    from ftlab.evaluation.seed_comparison import Contest, Recipe

    policy, frozen_layers, _, rates = POLICIES[name]
    training = draw().training[0]
    contest = Contest(training.select(range(2)), **OPTIONS)  # two rows, so that the memory is that of training
    recipe = Recipe(policy, frozen_layers, 1, rates[0])
    contest.run(recipe, splits.part(training, 32), seed=0, least_steps=1)  # warm-up
    gc.collect()
    before = records.memory_mb()
    contest.run(recipe, training, seed=0, least_steps=1)
    return {"peak_mb": records.peak_memory_mb(), "before_mb": before}


def _baselines() -> dict[str, Any]:
    """TF-IDF, and logistic regression on the frozen encoder's vectors, on the same rows.

    Their seconds include encoding the training rows, and the fit with its choice of C.
    """
    from ftlab.data import splits
    from ftlab.evaluation import comparison

    runs = []
    drawn = draw()
    for seed, training, test in zip(SEEDS, drawn.training, drawn.test, strict=True):
        vectors = {name: _embed(name, test) for name in READINGS}
        for rows in SIZES:
            train = splits.part(training, rows)
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
    """The predictions for `test` of a baseline fitted on `train`; `vectors` has those of `test` by baseline."""
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
