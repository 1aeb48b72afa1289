"""What rank and target modules do: lesson 05's training, over ranks, targets and seeds, with full fine-tuning beside.

Settings, rows and learning rates are those of the lesson's cpu profile, so that a run of the lesson is one of these
points. The learning rates were chosen on validation rows (`choose`), of a seed that no run here uses. Each run is a
process of its own.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from ftlab.course.bench import alone

FULL, QUERY_VALUE, ALL_LINEAR = "full", "q, v", "all linear"
RANKS, SEEDS = (1, 4, 16, 64), (0, 1)
CHOOSING_SEED = 100
CHOICES = {FULL: (5e-5, 1e-4, 2e-4), QUERY_VALUE: (5e-4, 1e-3, 2e-3, 4e-3), ALL_LINEAR: (5e-4, 1e-3, 2e-3)}


def measure() -> dict[str, Any]:
    """For each run: what it learned and forgot, its seconds, memory and size; and how the learning rates compare."""
    from ftlab.course import profiles

    ways = [(FULL, 0)] + [(targets, rank) for targets in (QUERY_VALUE, ALL_LINEAR) for rank in RANKS]
    return {
        "settings": profiles.resolve("lora_phi2", "cpu").settings,
        "choosing": [
            alone(__file__, targets, 16 if targets != FULL else 0, CHOOSING_SEED, rate)
            for targets, rates in CHOICES.items()
            for rate in rates
        ],
        "runs": [alone(__file__, targets, rank, seed, 0) for seed in SEEDS for targets, rank in ways],
    }


def _run(targets: str, rank: int, seed: int, rate: float) -> dict[str, Any]:
    """One training. `rate` 0 stands for the lesson's; any other one is judged on validation rows."""
    from peft import get_peft_model
    from transformers import set_seed

    from ftlab.course import profiles
    from ftlab.data import prompts, tasks
    from ftlab.evaluation import answers, forgetting, losses
    from ftlab.models import adapters, footprint, loading
    from ftlab.training import sft

    budget = profiles.resolve("lora_phi2", "cpu")
    splits = tasks.load(
        budget.task, rows=budget.rows, validation_rows=budget.validation_rows, test_rows=budget.test_rows, seed=seed,
        at_most=True,
    )  # fmt: skip
    judging = splits.validation if rate else splits.open_test("to judge a rank")
    tokenizer = loading.tokenizer(budget.model)
    train, unseen = (
        prompts.encode(rows, tokenizer, max_length=budget.max_length)[0] for rows in (splits.train, judging)
    )
    model = loading.causal_lm(budget.model)
    passages = forgetting.general_passages()[: budget.passages]
    before = losses.row_losses(model, tokenizer, unseen), forgetting.passage_losses(model, tokenizer, passages)
    set_seed(seed)
    if targets != FULL:
        names = {"target_modules": adapters.ALL_LINEAR} if targets == ALL_LINEAR else {}
        model = get_peft_model(model, adapters.config(model, rank=rank, alpha=budget.alpha, **names))
    rate = rate or (budget.full_learning_rate if targets == FULL else budget.learning_rate)
    with tempfile.TemporaryDirectory() as folder, footprint.measured(model.device) as took:
        trainer = sft.fine_tune(
            model, tokenizer, train, Path(folder), max_length=budget.max_length, epochs=budget.epochs,
            batch_size=budget.batch_size, accumulation=budget.accumulation, learning_rate=rate, seed=seed,
        )  # fmt: skip
    after = losses.row_losses(model, tokenizer, unseen), forgetting.passage_losses(model, tokenizer, passages)
    change, forgotten = losses.difference(before[0], after[0]), forgetting.change(before[1], after[1])
    found = {
        "targets": targets, "rank": rank or None, "seed": seed, "learning_rate": rate,
        "trainable": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        "loss_change": change.value, "loss_change_low": change.low, "loss_change_high": change.high,
        "forgetting": forgotten.value, "forgetting_low": forgotten.low, "forgetting_high": forgotten.high,
        "seconds_a_step": round(took.seconds / trainer.state.global_step, 3),
        "memory_above_weights_mb": round(took.peak / 1e6),
    }  # fmt: skip
    if seed != CHOOSING_SEED:
        said = answers.answer(model, tokenizer, judging, max_new_tokens=budget.max_new_tokens)
        found["stopped"] = float(said["stopped"].mean())
    return found


if __name__ == "__main__":
    from ftlab.progress import quiet

    quiet()
    print(json.dumps(_run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))))
