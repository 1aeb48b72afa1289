"""The memory that `footprint.estimate` predicts, against the measured peak: full, LoRA and QLoRA training of SmolLM2.

Each training runs in a process of its own: steps of `SupervisedTrainer` with AdamW in float32 on rows that are half
supervised. The measure is the peak resident memory during training, minus the resident memory after all imports and
before the model is loaded (Linux only, where that peak can be reset). Before training, the weights are copied out of
their memory-mapped file, whose pages belong to the kernel, and memory that loading no longer needs is returned.

Each method is measured once more with an allocator that returns every larger block to the system at once. This shows
the prediction without the gaps that the usual allocator keeps.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from ftlab.course.bench import alone
from ftlab.memory import footprint

MODEL, RANK, TARGETS = "smollm2", 16, ["q_proj", "v_proj"]
SHAPES = ((8, 64), (8, 160), (4, 256))  # rows, tokens
SUPERVISED_SHARE = 0.5
STEPS = 2  # the first step allocates the optimizer's states; the second has them from its beginning
BAR = 0.2
BAR_WITHOUT_GAPS = 0.05
USUAL, GIVES_BACK = "usual allocator", "gives back"
M_MMAP_THRESHOLD, SMALL = -3, 128 * 1024  # of glibc's malloc.h; blocks from this size on are mapped by themselves


def measure() -> dict[str, Any]:
    """Return predicted and measured MB of each method at each shape, their ratios, and which bars they meet."""
    cases: dict[str, Any] = {}
    for method in footprint.METHODS:
        for rows, tokens in SHAPES:
            predicted = _predicted(method, rows, tokens)
            cases[f"{method}, {rows}x{tokens}"] = _compared(
                predicted.total, alone(__file__, method, rows, tokens, USUAL)
            ) | {"parts_mb": predicted.table()["MB"].to_dict()}
    without_gaps = {}
    for method in footprint.METHODS:
        rows, tokens = SHAPES[0]
        predicted = _predicted(method, rows, tokens)
        held = predicted.total - predicted.runtime + footprint.LIBRARIES["cpu"]
        without_gaps[f"{method}, {rows}x{tokens}"] = _compared(held, alone(__file__, method, rows, tokens, GIVES_BACK))
    return {
        "settings": {
            "model": MODEL, "rank": RANK, "target_modules": TARGETS, "supervised_share": SUPERVISED_SHARE,
            "dtype": "float32", "steps": STEPS,
        },
        "cases": cases,
        "without_gaps": without_gaps,
        "bars": {
            f"predicted within {BAR:.0%} of measured": all(abs(case["ratio"] - 1) <= BAR for case in cases.values()),
            f"without the allocator's gaps within {BAR_WITHOUT_GAPS:.0%}": all(
                abs(case["ratio"] - 1) <= BAR_WITHOUT_GAPS for case in without_gaps.values()
            ),
        },
    }  # fmt: skip


def _predicted(method: str, rows: int, tokens: int) -> footprint.Footprint:
    return footprint.estimate(
        MODEL, method=method, batch_size=rows, length=tokens, supervised_share=SUPERVISED_SHARE, rank=RANK,
        target_modules=TARGETS,
    )  # fmt: skip


def _compared(predicted: int, measured: dict[str, Any]) -> dict[str, Any]:
    shown = round(predicted / 1e6)
    return {"predicted_mb": shown, **measured, "ratio": round(shown / measured["measured_mb"], 3)}


def _trained(method: str, rows: int, tokens: int, allocator: str) -> dict[str, Any]:
    """The peak memory of a training, and the memory of the loaded model, in MB."""
    libc = ctypes.CDLL("libc.so.6")
    if allocator == GIVES_BACK:
        libc.mallopt(M_MMAP_THRESHOLD, SMALL)
    # Everything that training imports, before the first measurement.
    import bitsandbytes  # noqa: F401
    import torch
    import transformers.models.llama.modeling_llama  # noqa: F401
    from datasets import disable_progress_bars
    from peft import LoraConfig, get_peft_model
    from transformers import (
        BitsAndBytesConfig,
        DataCollatorForSeq2Seq,
        PrinterCallback,
        TrainingArguments,
        set_seed,
    )

    from ftlab.models import loading
    from ftlab.training.instruction import SupervisedTrainer

    disable_progress_bars()
    set_seed(0)
    tokenizer = loading.tokenizer(MODEL)
    rows_of_ids = _rows(rows, tokens)
    gc.collect()
    libc.malloc_trim(0)
    before = _resident()

    four_bits = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )  # fmt: skip
    model = loading.causal_lm(MODEL, **({"quantization_config": four_bits} if method == "qlora" else {}))
    for parameter in model.parameters():
        if parameter.dtype == torch.float32:
            parameter.data = parameter.data.clone()
    if method != "full":
        model = get_peft_model(model, LoraConfig(r=RANK, target_modules=TARGETS, task_type="CAUSAL_LM"))
    trainer = SupervisedTrainer(
        model=model,
        args=TrainingArguments(
            output_dir=tempfile.mkdtemp(), per_device_train_batch_size=rows, max_steps=STEPS, learning_rate=1e-5,
            train_sampling_strategy="sequential", save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True,
        ),
        train_dataset=rows_of_ids,
        data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=-100),
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    gc.collect()
    libc.malloc_trim(0)
    loaded = _resident()
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # resets the peak (VmHWM)
    trainer.train()
    return {
        "measured_mb": round((_resident("VmHWM") - before) / 1e6),
        "loaded_mb": round((loaded - before) / 1e6),
    }


def _rows(rows: int, tokens: int) -> Any:
    """Rows of random ids with the second half supervised; one row of each batch is shorter, so that it is padded."""
    import numpy as np
    from datasets import Dataset

    draw = np.random.default_rng(0)
    made = []
    for number in range(rows * STEPS):
        ids = draw.integers(5, 40_000, tokens if number % rows else tokens - 8).tolist()
        masked = round(len(ids) * (1 - SUPERVISED_SHARE))
        labels = [-100] * masked + ids[masked:]
        made.append({"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels})
    return Dataset.from_list(made)


def _resident(what: str = "VmRSS") -> int:
    """Resident memory of this process in bytes: now (VmRSS), or its peak since the last reset (VmHWM)."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(what):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"{what} is not in /proc/self/status")


if __name__ == "__main__":
    from ftlab.progress import quiet

    quiet()
    method, rows, tokens, allocator = sys.argv[1:]
    print(json.dumps(_trained(method, int(rows), int(tokens), allocator)))
