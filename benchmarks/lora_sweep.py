"""Full fine-tuning, LoRA on two matrices and LoRA on all: each at its own learning rate, on two tasks and three seeds.

Settings and rows are those of lesson 05's cpu profile, so a run of the lesson is one of these points. For each task and
method, the learning rate is that with the lowest loss on validation rows: RATES, and more by factors of two while the
best one lies on an edge. The rows that choose are drawn without the test rows of any run. Then each method runs with
three seeds, each with training and test rows of its own, and on the first task LoRA runs with other ranks too, on two
of the seeds and at the rate of CHOOSING_RANK. All seeds draw from one set of rows, so a test row of one seed can be a
training row of another: each run is judged on rows that it has not seen, but the seeds differ a little less than
separate draws would.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from ftlab.course.bench import alone

TASKS = ("tutor", "clinical_notes")  # long answers, and single words
FULL, QUERY_VALUE, ALL_LINEAR = "full", "q, v", "all linear"
RATES = {
    FULL: (5e-5, 1e-4, 2e-4, 4e-4),
    QUERY_VALUE: (7.5e-4, 1.5e-3, 3e-3, 6e-3),
    ALL_LINEAR: (5e-4, 1e-3, 2e-3, 4e-3),
}
MOST_RATES = 8  # tried for a task and method
SEEDS = (0, 1, 2)
RANKS, RANK_SEEDS = (1, 16, 64), (0, 1)
CHOOSING_SEED, CHOOSING_RANK, CHOOSING_ROWS = 100, 16, 48


def measure() -> dict[str, Any]:
    """Return the runs that chose the learning rates, the choices, and the runs that compare the methods."""
    from ftlab.course import profiles

    choosing: list[dict[str, Any]] = []
    chosen: list[dict[str, Any]] = []
    for task in TASKS:
        for targets in RATES:
            tried = try_rates(task, targets)
            choosing += tried
            chosen.append(choice(tried))
    ways = [(targets, CHOOSING_RANK) for targets in RATES]
    others = [(targets, rank) for targets in (QUERY_VALUE, ALL_LINEAR) for rank in RANKS if rank != CHOOSING_RANK]
    rates = {(one["task"], one["targets"]): one["learning_rate"] for one in chosen}
    return {
        "settings": profiles.resolve("lora_phi2", "cpu").settings,
        "choosing": choosing,
        "chosen": [{**one, "times_full": one["learning_rate"] / rates[one["task"], FULL]} for one in chosen],
        "runs": [
            alone(__file__, task, targets, _rank(targets, rank), seed, rates[task, targets])
            for task in TASKS
            for seed in SEEDS
            for targets, rank in [*ways, *(others if task == TASKS[0] and seed in RANK_SEEDS else [])]
        ],
    }


def try_rates(task: str, targets: str) -> list[dict[str, Any]]:
    """Return the runs of a task and method on the rows that choose: at RATES, and beyond an edge that is the best."""
    found: dict[float, dict[str, Any]] = {}
    wanted = list(RATES[targets])
    while wanted:
        for rate in wanted:
            found[rate] = alone(__file__, task, targets, _rank(targets, CHOOSING_RANK), CHOOSING_SEED, rate)
        best, low, high = min(found, key=lambda rate: found[rate]["loss_change"]), min(found), max(found)
        beyond = [high * 2] if best == high else [low / 2] if best == low else []
        wanted = beyond if len(found) < MOST_RATES else []
    return [found[rate] for rate in sorted(found)]


def choice(tried: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the rate of the run with the lowest loss among those `tried`, and whether it lies on the edge of them."""
    best = min(tried, key=lambda run: run["loss_change"])
    rates = [run["learning_rate"] for run in tried]
    return {
        "task": best["task"], "targets": best["targets"], "learning_rate": best["learning_rate"], "tried": rates,
        "on_edge": best["learning_rate"] in (min(rates), max(rates)),
    }  # fmt: skip


def draw(task: str, seed: int) -> Any:
    """Draw the splits of a seed as lesson 05 does; those of CHOOSING_SEED have no test row of another seed."""
    from ftlab.course import profiles
    from ftlab.data import tasks

    budget = profiles.resolve("lora_phi2", "cpu")
    sizes = {"rows": budget.rows, "validation_rows": budget.validation_rows, "test_rows": budget.test_rows}
    if seed != CHOOSING_SEED:
        return tasks.load(task, **sizes, seed=seed, at_most=True)
    judges = {row for each in SEEDS for row in draw(task, each).open_test("to keep its rows from choosing")["id"]}
    sizes |= {"validation_rows": CHOOSING_ROWS, "test_rows": 2}
    return tasks.load(task, **sizes, seed=seed, at_most=True, without=judges)


def _rank(targets: str, rank: int) -> int:
    return 0 if targets == FULL else rank


def _run(task: str, targets: str, rank: int, seed: int, rate: float) -> dict[str, Any]:
    """One training, judged on test rows, or on validation rows if its seed is the one that chooses."""
    from peft import get_peft_model
    from transformers import set_seed

    from ftlab.adapters import lora
    from ftlab.course import profiles
    from ftlab.data import prompts
    from ftlab.evaluation import answers, forgetting, losses
    from ftlab.models import devices, loading
    from ftlab.training import sft

    budget = profiles.resolve("lora_phi2", "cpu")
    splits = draw(task, seed)
    judging = splits.validation if seed == CHOOSING_SEED else splits.open_test("to judge a method")
    tokenizer = loading.tokenizer(budget.model)
    train, unseen = (
        prompts.encode(rows, tokenizer, max_length=budget.max_length)[0] for rows in (splits.train, judging)
    )
    model = loading.causal_lm(budget.model)
    passages = forgetting.general_passages()[: budget.passages]

    def losses_of(model: Any) -> tuple[Any, Any]:
        with devices.in_dtype(model, devices.answer_dtype()):
            unseen_losses = losses.row_losses(model, tokenizer, unseen)
            return unseen_losses, forgetting.passage_losses(model, tokenizer, passages)

    before = losses_of(model)
    set_seed(seed)
    if targets != FULL:
        names = {"target_modules": lora.ALL_LINEAR} if targets == ALL_LINEAR else {}
        model = get_peft_model(model, lora.config(model, rank=rank, alpha=budget.alpha, **names))
    with tempfile.TemporaryDirectory() as folder:
        sft.fine_tune(
            model, tokenizer, train, Path(folder), max_length=budget.max_length, epochs=budget.epochs,
            batch_size=budget.batch_size, accumulation=budget.accumulation, learning_rate=rate, seed=seed,
        )  # fmt: skip
    after = losses_of(model)
    change, forgotten = losses.difference(before[0], after[0]), forgetting.change(before[1], after[1])
    found = {
        "task": task, "targets": targets, "rank": rank or None, "seed": seed, "learning_rate": rate,
        "rows": len(train), "judged_on": len(unseen),
        "trainable": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        "loss_change": change.value, "loss_change_low": change.low, "loss_change_high": change.high,
        "forgetting": forgotten.value, "forgetting_low": forgotten.low, "forgetting_high": forgotten.high,
    }  # fmt: skip
    if seed == CHOOSING_SEED or rank not in (0, CHOOSING_RANK):  # the loss is enough
        return found
    names_of = answers.OF_TASK[task]
    with devices.in_dtype(model, devices.answer_dtype()):
        said = answers.answer(model, tokenizer, judging, max_new_tokens=budget.max_new_tokens)
    metric = answers.main_metric(names_of, judging)
    score = answers.scores(answers.measured(said, names_of))[metric]
    return {
        **found, "metric": metric, "score": score.value, "score_low": score.low, "score_high": score.high,
        "stopped": float(said["stopped"].mean()),
    }  # fmt: skip


if __name__ == "__main__":
    from ftlab.progress import quiet

    quiet()
    print(json.dumps(_run(*sys.argv[1:3], *map(int, sys.argv[3:5]), float(sys.argv[5]))))
