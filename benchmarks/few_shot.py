"""Few-shot prompts against fine-tuning: SmolLM2 with worked examples in its prompt, and lesson 04's tuned model.

For each task and prompt format, the validation rows choose among prompts with up to six examples from the training
rows, in several draws. The chosen prompt answers the test rows once, and so does the model tuned with the settings of
lesson 04's cpu profile, in the Alpaca format and without examples. Both answer in batches. The seconds are those of
answering and of training alone; the break-even is the number of questions after which the longer prompt has cost more
seconds than the training.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ftlab.course.bench import alone

TASKS = ("clinical_notes", "tutor")  # single words, and long answers
TEMPLATES = ("alpaca", "chat")
# Long rows take minutes, so there are fewer prompts of them.
EXAMPLES = {"clinical_notes": (0, 1, 3, 6), "tutor": (0, 1, 3)}
DRAWS, SEED = {"clinical_notes": (0, 1, 2), "tutor": (0, 1)}, 0
# The lesson has 24 and 40. Short answers take little time, so more rows can choose; long ones take minutes.
VALIDATION_ROWS = {"clinical_notes": 48, "tutor": 24}
TUNED = "tuned"


def measure() -> dict[str, Any]:
    """Return the scores of all prompts on validation rows, those of the chosen ones on test rows, and comparisons."""
    found = [alone(__file__, task) for task in TASKS]
    return {
        "settings": {one["task"]: one["settings"] for one in found},
        **{name: [line for one in found for line in one[name]] for name in ("choosing", "tests", "comparisons")},
    }


def ways(task: str) -> list[tuple[str, int, int]]:
    """Return all prompts of a task: format, number of examples, and seed of their draw (one without examples)."""
    draws = DRAWS[task]
    return [(name, k, draw) for name in TEMPLATES for k in EXAMPLES[task] for draw in (draws if k else draws[:1])]


def choice(tried: list[dict[str, Any]], template: str) -> dict[str, Any]:
    """Return the prompt of a format with the highest score among those `tried`; of equal ones, the shortest."""
    of_format = [line for line in tried if line["template"] == template]
    return max(of_format, key=lambda line: (line["score"], -line["examples"], -line["draw"]))


def splits_of(task: str) -> Any:
    """Draw the splits of a task as lesson 04 does, but for the number of validation rows."""
    from ftlab.course import profiles
    from ftlab.data import tasks

    budget = profiles.resolve("gpt2_instruction_tuning", "cpu", {"task": task})
    return tasks.load(
        task, rows=budget.rows or None, validation_rows=VALIDATION_ROWS[task], test_rows=budget.test_rows, seed=SEED
    )


def compared(tuned: Any, shown: Any, metric: str) -> dict[str, Any]:
    """Return the `metric` of the table of answers `tuned` minus that of `shown`, with its interval and p-value.

    The p-value is None for a metric that is not a share, which has no exact test.
    """
    from ftlab.evaluation import answers
    from ftlab.intervals import Comparison

    found = answers.compare(tuned, shown, metric)
    gap = found.difference if isinstance(found, Comparison) else found
    p_value = found.p_value if isinstance(found, Comparison) else None
    return {"difference": gap.value, "low": gap.low, "high": gap.high, "p_value": p_value}


def _run(task: str) -> dict[str, Any]:
    """All prompts of a task, then its training: the base model and the tuned one are the same object."""
    from ftlab.course import profiles
    from ftlab.data import few_shot, prompts
    from ftlab.evaluation import answers, costs
    from ftlab.models import devices, loading

    budget = profiles.resolve("gpt2_instruction_tuning", "cpu", {"task": task})
    splits = splits_of(task)
    tokenizer, model = loading.tokenizer(budget.model), loading.causal_lm(budget.model)
    names, metric = answers.OF_TASK[task], answers.main_metric(answers.OF_TASK[task], splits.validation)

    def ask(rows: Any, template: str, k: int, draw: int) -> tuple[dict[str, Any], Any]:
        examples = few_shot.draw(splits.train, k, draw)
        form = prompts.named("alpaca" if template == TUNED else template, tokenizer)
        began = time.perf_counter()
        with devices.in_dtype(model, devices.answer_dtype()):
            said = answers.answer(
                model, tokenizer, rows, max_new_tokens=budget.max_new_tokens, template=form, examples=examples
            )
        seconds = (time.perf_counter() - began) / len(rows)
        table = answers.measured(said, names)
        scores = answers.scores(table)
        score, passed = scores[metric], scores.get("tests passed")
        line = {
            "task": task, "template": template, "examples": k, "draw": draw, "rows": len(rows), "metric": metric,
            "score": score.value, "low": score.low, "high": score.high, "stopped": scores["stopped"].value,
            "tests_passed": passed.value if passed else None, "prompt_tokens": float(said["prompt_tokens"].mean()),
            "answer_tokens": float(said["tokens"].mean()), "seconds": seconds,
        }  # fmt: skip
        print(f"few_shot: {json.dumps(line)}", file=sys.stderr, flush=True)
        return line, table

    choosing = [ask(splits.validation, *way)[0] for way in ways(task)]
    test = splits.open_test("to judge the chosen prompts and the tuned model")
    chosen = [choice(choosing, template) for template in TEMPLATES]
    shown = [ask(test, one["template"], one["examples"], one["draw"]) for one in chosen]
    training_seconds = _tune(model, tokenizer, splits.train, budget)
    choosing.append(ask(splits.validation, TUNED, 0, 0)[0])
    tuned, answered = ask(test, TUNED, 0, 0)
    comparisons = []
    for line, table in shown:
        even = costs.measured(training_seconds, longer_seconds=line["seconds"], shorter_seconds=tuned["seconds"])
        comparisons.append(
            {**{name: line[name] for name in ("task", "template", "examples", "draw", "metric")},
             **compared(answered, table, metric), "training_seconds": training_seconds,
             "questions": even.questions, "questions_a_day": even.a_day, "days": even.days}
        )  # fmt: skip
    return {
        "task": task, "settings": budget.settings | {"validation_rows": len(splits.validation)}, "choosing": choosing,
        "tests": [*(line for line, _ in shown), tuned], "comparisons": comparisons,
    }  # fmt: skip


def _tune(model: Any, tokenizer: Any, rows: Any, budget: Any) -> float:
    """Train `model` as lesson 04 does, and return the seconds that it took."""
    from transformers import DataCollatorForSeq2Seq, set_seed

    from ftlab.data import prompts
    from ftlab.training import instruction, machine

    encoded, _ = prompts.encode(rows, tokenizer, max_length=budget.max_length)
    set_seed(SEED)
    with tempfile.TemporaryDirectory() as folder:
        trainer = instruction.SupervisedTrainer(
            model=model,
            args=instruction.settings(
                Path(folder), epochs=budget.epochs, batch_size=budget.batch_size, learning_rate=budget.learning_rate,
                seed=SEED,
            ),
            data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=prompts.IGNORED),
            train_dataset=encoded.select_columns(instruction.COLUMNS),
        )  # fmt: skip
        began = time.perf_counter()
        with machine.prepared(trainer, max_length=budget.max_length):
            trainer.train()
        return time.perf_counter() - began


if __name__ == "__main__":
    from ftlab import files
    from ftlab.progress import quiet

    quiet()
    print(files.to_json(_run(sys.argv[1])))
