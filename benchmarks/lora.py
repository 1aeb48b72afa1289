"""LoRA against full fine-tuning: seconds of a step, peak memory and 4-bit weights, and TRL's LoRA against ours.

SmolLM2 on the tutor's rows in the same batches, with LoRA on its query and value projections. Each timing runs in a
process of its own, after a warm-up step.
"""

from __future__ import annotations

import json
import sys
import tempfile
from typing import Any

from ftlab.course.bench import alone, steps

MODEL, TASK, RANK = "smollm2", "tutor", 16
ROWS, BATCH_SIZE, MAX_LENGTH, LEARNING_RATE = 80, 8, 160, 1e-4
WAYS = ("full", "lora", "lora by TRL", "qlora")
# All ways run in turn; the fastest round counts, because other load only ever makes it slower.
ROUNDS = {"fp32": 2, "as the course trains here": 1}


def measure() -> dict[str, Any]:
    """Return step seconds and peak memory of each way, the size of 4-bit weights, exact counts, and the bars."""
    found: dict[str, Any] = {}
    for precision in ROUNDS:
        rounds = [{way: alone(__file__, way, precision) for way in WAYS} for _ in range(ROUNDS[precision])]
        best = {way: min((one[way] for one in rounds), key=lambda one: one["seconds_a_step"]) for way in WAYS}
        seconds = {way: best[way]["seconds_a_step"] for way in WAYS}
        gap = max(abs(a - b) for a, b in zip(best["lora"]["losses"], best["lora by TRL"]["losses"], strict=True))
        found[precision] = {
            "ways": best,
            "full over lora": round(seconds["full"] / seconds["lora"], 3),
            "TRL over ours": round(seconds["lora by TRL"] / seconds["lora"], 3),
            "qlora over lora": round(seconds["qlora"] / seconds["lora"], 3),
            "largest difference in loss to TRL": gap,
            "peak memory of lora over full": round(
                (best["lora"]["peak_mb"] - best["lora"]["before_mb"])
                / (best["full"]["peak_mb"] - best["full"]["before_mb"]),
                3,
            ),
        }
    fp32 = found["fp32"]
    weights = fp32["ways"]["qlora"]["weights_mb"] / fp32["ways"]["lora"]["weights_mb"]
    return {
        "settings": {"model": MODEL, "task": TASK, "rows": ROWS, "batch_size": BATCH_SIZE, "rank": RANK},
        **found,
        "4-bit weights over fp32": round(weights, 3),
        "counts": counts(),
        "bars": {
            "a LoRA step at least 1.2 times as fast as a full one": fp32["full over lora"] >= 1.2,
            "peak memory at most 0.65 of full": fp32["peak memory of lora over full"] <= 0.65,
            "4-bit weights at most 0.35 of fp32": weights <= 0.35,
            "at least 1.15 times TRL's speed": fp32["TRL over ours"] >= 1.15,
            "losses equal to TRL's to 1e-4": fp32["largest difference in loss to TRL"] <= 1e-4,
        },
    }


def counts() -> dict[str, Any]:
    """Return exact parameter counts of hub models, and of LoRA (rank 16, preset targets) on each, without weights."""
    from ftlab.adapters import lora as adapters
    from ftlab.memory import meta_models

    found = {}
    for name in ("distilbert-base-uncased", "gpt2", "microsoft/phi-2"):
        model = meta_models.build(meta_models.config_of(name), "float32")
        targets = adapters.resolve(model, adapters.config(model, rank=RANK, alpha=2 * RANK))
        found[name] = {
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "lora": targets.adapter,
            "trainable": targets.trainable,
            "share": round(targets.share, 6),
        }
    return found


def _timed(way: str, precision: str) -> dict[str, Any]:
    import psutil
    import torch
    from datasets import disable_progress_bars
    from transformers import DataCollatorForSeq2Seq, PrinterCallback, TrainingArguments, set_seed
    from trl import SFTConfig, SFTTrainer

    from ftlab.adapters import lora as adapters
    from ftlab.data import prompts, tasks
    from ftlab.models import devices, loading
    from ftlab.training.cpu_speed import quick_attention
    from ftlab.training.instruction import SupervisedTrainer
    from ftlab.training.sft import SupervisedSFTTrainer

    disable_progress_bars()
    set_seed(0)
    tokenizer = loading.tokenizer(MODEL)
    drawn = tasks.load(TASK, rows=ROWS, validation_rows=3, test_rows=3, seed=0)
    rows, _ = prompts.encode(drawn.train, tokenizer, max_length=MAX_LENGTH)
    share = prompts.supervised_share(rows["labels"])
    before = psutil.Process().memory_info().rss
    options: dict[str, Any] = {"use_cpu": True, "bf16": False} if precision == "fp32" else devices.mixed_precision()
    quantized = {"quantization_config": adapters.four_bit_config()} if way == "qlora" else {}
    model = loading.causal_lm(MODEL, **quantized)
    if way == "qlora":
        adapters.keep_trainable(model)
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.parameters())
    common = {
        "output_dir": tempfile.mkdtemp(), "per_device_train_batch_size": BATCH_SIZE, "learning_rate": LEARNING_RATE,
        "num_train_epochs": 1, "train_sampling_strategy": "sequential", "logging_steps": 1, "save_strategy": "no",
        "report_to": "none", "disable_tqdm": True, "lr_scheduler_type": "constant", **options,
    }  # fmt: skip
    columns = ["input_ids", "labels"]
    if way == "full":
        trainer: Any = SupervisedTrainer(
            model=model, args=TrainingArguments(**common),
            train_dataset=rows.select_columns([*columns, "attention_mask"]),
            data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=prompts.IGNORED),
        )  # fmt: skip
    else:
        torch.manual_seed(0)  # the same A in each way
        lora = adapters.config(model, rank=RANK, alpha=2 * RANK)
        kind = SFTTrainer if way == "lora by TRL" else SupervisedSFTTrainer
        arguments = SFTConfig(max_length=MAX_LENGTH, activation_checkpointing=False, **common)
        trainer = kind(
            model=model, args=arguments, train_dataset=rows.select_columns(columns), processing_class=tokenizer,
            peft_config=lora,
        )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    # For every way: the slow bf16 backward of fused attention on a CPU is not compared here.
    with quick_attention(model, max_length=128, precision=options):
        measured = steps(trainer)
    return {
        **measured,
        "before_mb": round(before / 1e6),
        "weights_mb": round(weights / 1e6, 1),
        "supervised_share": round(share, 4),
    }


if __name__ == "__main__":
    from ftlab.progress import quiet

    quiet()
    print(json.dumps(_timed(*sys.argv[1:])))
