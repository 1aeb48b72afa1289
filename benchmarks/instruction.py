"""A step of instruction tuning: the LM head on supervised positions only, against Trainer and TRL's SFTTrainer.

All do full fine-tuning of SmolLM2 on the same batches in the same order, with the same learning rate, in fp32 and in
the precision that the course uses on this machine. Each timing runs in a process of its own, after a warm-up step.
"""

from __future__ import annotations

import json
import sys
import tempfile
from typing import Any

from ftlab.course.bench import alone, steps

MODEL, TASK = "smollm2", "clinical_notes"
ROWS, BATCH_SIZE, MAX_LENGTH, LEARNING_RATE = 64, 8, 160, 2e-5
WAYS = ("plain", "ours", "trl")
# All ways run in turn; the fastest round counts, because other load only ever makes it slower.
ROUNDS = {"fp32": 2, "as the course trains here": 1}


def measure() -> dict[str, Any]:
    """Return step seconds and peak memory of each way, the largest difference in loss, and which bars they meet."""
    found: dict[str, Any] = {}
    for precision in ROUNDS:
        rounds = [{way: alone(__file__, way, precision) for way in WAYS} for _ in range(ROUNDS[precision])]
        best = {way: min((one[way] for one in rounds), key=lambda one: one["seconds_a_step"]) for way in WAYS}
        ratios = {
            f"{way} over ours": round(best[way]["seconds_a_step"] / best["ours"]["seconds_a_step"], 3)
            for way in ("plain", "trl")
        }
        gaps = {
            f"{way} and ours": max(
                abs(one - other) for one, other in zip(best[way]["losses"], best["ours"]["losses"], strict=True)
            )
            for way in ("plain", "trl")
        }
        found[precision] = {"ways": best, "ratios": ratios, "largest difference in loss": gaps}
    fp32 = found["fp32"]
    return {
        "settings": {
            "model": MODEL, "task": TASK, "rows": ROWS, "batch_size": BATCH_SIZE, "learning_rate": LEARNING_RATE,
        },
        **found,
        "bars": {
            "at least 1.25 times plain Trainer's speed": fp32["ratios"]["plain over ours"] >= 1.25,
            "at least 1.25 times SFTTrainer's speed": fp32["ratios"]["trl over ours"] >= 1.25,
            "losses equal to 1e-5": max(fp32["largest difference in loss"].values()) <= 1e-5,
        },
    }  # fmt: skip


def _timed(way: str, precision: str) -> dict[str, Any]:
    from datasets import disable_progress_bars
    from transformers import DataCollatorForSeq2Seq, PrinterCallback, Trainer, TrainingArguments, set_seed
    from trl import SFTConfig, SFTTrainer

    from ftlab.data import prompts, tasks
    from ftlab.models import devices, loading
    from ftlab.training.cpu_speed import quick_attention
    from ftlab.training.instruction import SupervisedTrainer

    disable_progress_bars()
    set_seed(0)
    tokenizer = loading.tokenizer(MODEL)
    drawn = tasks.load(TASK, rows=ROWS, validation_rows=3, test_rows=3, seed=0)
    rows, _ = prompts.encode(drawn.train, tokenizer, max_length=MAX_LENGTH)
    share = prompts.supervised_share(rows["labels"])
    rows = rows.select_columns(["input_ids", "attention_mask", "labels"])
    kind, arguments = {
        "plain": (Trainer, TrainingArguments),
        "ours": (SupervisedTrainer, TrainingArguments),
        "trl": (SFTTrainer, SFTConfig),
    }[way]
    options: dict[str, Any] = (
        {"fp16": False, "bf16": False, "use_cpu": True} if precision == "fp32" else devices.mixed_precision()
    )
    if way == "trl":
        options |= {"max_length": MAX_LENGTH, "activation_checkpointing": False}
        rows = rows.remove_columns("attention_mask")  # SFTTrainer's collator makes its own
    model = loading.causal_lm(MODEL)
    trainer = kind(
        model=model,
        args=arguments(
            output_dir=tempfile.mkdtemp(), per_device_train_batch_size=BATCH_SIZE, learning_rate=LEARNING_RATE,
            num_train_epochs=1, train_sampling_strategy="sequential", logging_steps=1, save_strategy="no",
            report_to="none", disable_tqdm=True, lr_scheduler_type="constant", **options,
        ),
        train_dataset=rows,
        processing_class=tokenizer,
        **({} if way == "trl" else {"data_collator": DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=-100)}),
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    # For every way: the slow bf16 backward of fused attention on a CPU is not compared here.
    with quick_attention(model, max_length=128, precision=options):
        measured = steps(trainer)
    return {
        **measured,
        "supervised_share": round(share, 4),
        "precision": "bf16" if trainer.args.bf16 else "fp16" if trainer.args.fp16 else "fp32",
    }


if __name__ == "__main__":
    from ftlab.progress import quiet

    quiet()
    print(json.dumps(_timed(*sys.argv[1:])))
