"""The effect of rank and target modules: lesson 05's training over ranks, targets and seeds, and full fine-tuning.

Settings and rows are those of the lesson's cpu profile, so a run of the lesson is one of these points. For each kind of
target, the learning rate is that of CHOICES with the lowest loss on the validation rows of a seed that no run uses;
`require_unseen` checks that none of these rows is a test row of a run. They can share a module of the standard library
with a test row, and a test row of one seed can be a training row of another. So each run is judged on rows that it has
not seen, but the seeds differ a little less than separate draws would. On the second task no learning rate is chosen:
full fine-tuning uses lesson 04's, the adapters those of the first task. Each run has a process of its own.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from ftlab.course.bench import alone

FULL, QUERY_VALUE, ALL_LINEAR = "full", "q, v", "all linear"
RANKS, SEEDS = (1, 16, 64), (0, 1)
CHOOSING_SEED, CHOOSING_RANK = 100, 16
CHOICES = {FULL: (5e-5, 1e-4), QUERY_VALUE: (3e-3, 6e-3), ALL_LINEAR: (1e-3, 2e-3)}
# A second task, whose answers are single words: full fine-tuning forgets on it.
WORDS, WORD_RATES, WORD_RANK = "clinical_notes", {FULL: 8e-5, QUERY_VALUE: 3e-3, ALL_LINEAR: 1e-3}, 16


def measure() -> dict[str, Any]:
    """Return loss change, forgetting, seconds, memory and size of each run, and the runs that chose learning rates."""
    from ftlab.course import profiles

    task = profiles.resolve("lora_phi2", "cpu").task
    require_unseen({seed: _draw(task, seed) for seed in (*SEEDS, CHOOSING_SEED)})
    choosing = [
        alone(__file__, task, targets, 0 if targets == FULL else CHOOSING_RANK, CHOOSING_SEED, rate)
        for targets, rates in CHOICES.items()
        for rate in rates
    ]
    best = {
        targets: min((run for run in choosing if run["targets"] == targets), key=lambda run: run["loss_change"])
        for targets in CHOICES
    }
    ways = [(FULL, 0)] + [(targets, rank) for targets in (QUERY_VALUE, ALL_LINEAR) for rank in RANKS]
    return {
        "settings": profiles.resolve("lora_phi2", "cpu").settings,
        "choosing": choosing,
        "runs": [
            alone(__file__, task, targets, rank, seed, best[targets]["learning_rate"])
            for seed in SEEDS
            for targets, rank in ways
        ],
        "words": [
            alone(__file__, WORDS, targets, 0 if targets == FULL else WORD_RANK, seed, rate)
            for seed in SEEDS
            for targets, rate in WORD_RATES.items()
        ],
    }


def require_unseen(drawn: dict[int, Any]) -> None:
    """Raise AssertionError if a validation row that chooses a learning rate is a test row of a run.

    `drawn` has the splits of each seed.
    """
    chose = set(drawn[CHOOSING_SEED].validation["id"])
    for seed in SEEDS:
        if both := chose & set(drawn[seed].open_test("to see that none of its rows chose anything")["id"]):
            raise AssertionError(f"the row {min(both)} chooses a learning rate, and is a test row of seed {seed}")


def _draw(task: str, seed: int) -> Any:
    """The splits of a seed, drawn as in lesson 05."""
    from ftlab.course import profiles
    from ftlab.data import tasks

    budget = profiles.resolve("lora_phi2", "cpu")
    return tasks.load(
        task, rows=budget.rows, validation_rows=budget.validation_rows, test_rows=budget.test_rows, seed=seed,
        at_most=True,
    )  # fmt: skip


def _run(task: str, targets: str, rank: int, seed: int, rate: float) -> dict[str, Any]:
    """One training, judged on test rows, or on validation rows if its seed is the one that chooses."""
    from peft import get_peft_model
    from transformers import set_seed

    from ftlab.adapters import lora
    from ftlab.course import profiles
    from ftlab.data import prompts
    from ftlab.evaluation import forgetting, losses
    from ftlab.memory import footprint
    from ftlab.models import loading
    from ftlab.training import sft

    budget = profiles.resolve("lora_phi2", "cpu")
    splits = _draw(task, seed)
    judging = splits.validation if seed == CHOOSING_SEED else splits.open_test("to judge a rank")
    tokenizer = loading.tokenizer(budget.model)
    train, unseen = (
        prompts.encode(rows, tokenizer, max_length=budget.max_length)[0] for rows in (splits.train, judging)
    )
    model = loading.causal_lm(budget.model)
    passages = forgetting.general_passages()[: budget.passages]
    before = losses.row_losses(model, tokenizer, unseen), forgetting.passage_losses(model, tokenizer, passages)
    set_seed(seed)
    if targets != FULL:
        names = {"target_modules": lora.ALL_LINEAR} if targets == ALL_LINEAR else {}
        model = get_peft_model(model, lora.config(model, rank=rank, alpha=budget.alpha, **names))
    with tempfile.TemporaryDirectory() as folder, footprint.measured(model.device) as took:
        trainer = sft.fine_tune(
            model, tokenizer, train, Path(folder), max_length=budget.max_length, epochs=budget.epochs,
            batch_size=budget.batch_size, accumulation=budget.accumulation, learning_rate=rate, seed=seed,
        )  # fmt: skip
    after = losses.row_losses(model, tokenizer, unseen), forgetting.passage_losses(model, tokenizer, passages)
    change, forgotten = losses.difference(before[0], after[0]), forgetting.change(before[1], after[1])
    return {
        "task": task, "targets": targets, "rank": rank or None, "seed": seed, "learning_rate": rate,
        "trainable": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        "loss_change": change.value, "loss_change_low": change.low, "loss_change_high": change.high,
        "forgetting": forgotten.value, "forgetting_low": forgotten.low, "forgetting_high": forgotten.high,
        "seconds_a_step": round(took.seconds / trainer.state.global_step, 3),
        "memory_above_weights_mb": round(took.peak / 1e6),
    }  # fmt: skip


if __name__ == "__main__":
    from ftlab.progress import quiet

    quiet()
    print(json.dumps(_run(*sys.argv[1:3], *map(int, sys.argv[3:5]), float(sys.argv[5]))))
