"""Greedy generation in tokens per second: 16 prompts in one batch or one at a time, an adapter unmerged or merged.

SmolLM2 in fp32, on questions of the tutor, with a LoRA on its query and value projections. Its factors are random: the
cost of an adapter does not depend on what it learned. No end token stops an answer, so all have the same number of
tokens. All ways run in one process, in turn, several times; the fastest round of each counts, because other load only
ever makes it slower.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

MODEL, TASK = "smollm2", "tutor"
PROMPTS, NEW_TOKENS, ROUNDS = 16, 64, 3
RANK, ALPHA, SIZE = 16, 32, 0.02  # of the adapter; its second factor is drawn with this standard deviation
AT_LEAST = 6


def measure(
    model: str = MODEL, prompts: int = PROMPTS, new_tokens: int = NEW_TOKENS, rounds: int = ROUNDS
) -> dict[str, Any]:
    """Return tokens per second of each way, their ratios, how many answers are equal, and which bars they meet.

    `model`, `prompts` (their number), `new_tokens` (of each answer) and `rounds` are those of the stored result.
    """
    with tempfile.TemporaryDirectory(prefix="ftlab-generate-") as folder:
        generators = _generators(model, Path(folder))
    texts = _prompts(prompts)
    sizes = {"batched": prompts, "one at a time": 1}
    ways = [(name, way) for name in generators for way in sizes]
    seconds: dict[tuple[str, str], list[float]] = {one: [] for one in ways}
    answers: dict[tuple[str, str], list[str]] = {}
    for number in range(rounds + 1):  # round 0 is a short warm-up
        for name, way in ways:
            generator, adapter = generators[name]
            generator.use(adapter)
            began = time.perf_counter()
            found = generator.answer(
                texts, max_new_tokens=new_tokens if number else 2, batch_size=sizes[way], tokens=10**9
            )
            if number:
                seconds[name, way].append(time.perf_counter() - began)
                answers[name, way] = [one.text for one in found]
                if {one.tokens for one in found} != {new_tokens}:
                    raise RuntimeError(f"{name}, {way}: an answer stopped before {new_tokens} tokens")
    speed = {one: prompts * new_tokens / min(times) for one, times in seconds.items()}
    batching = {name: speed[name, "batched"] / speed[name, "one at a time"] for name in generators}
    same = {
        **{f"{name}, batched and singly": _equal(answers, (name, "batched"), (name, "one at a time"))
           for name in generators},
        **{f"apart and merged, {way}": _equal(answers, ("apart", way), ("merged", way)) for way in sizes},
        "base and apart, batched": _equal(answers, ("base", "batched"), ("apart", "batched")),
    }  # fmt: skip
    shown = {f"{name}, {way}": [round(one, 2) for one in seconds[name, way]] for name, way in ways}
    return {
        "settings": {
            "model": model, "task": TASK, "prompts": prompts, "new_tokens": new_tokens, "rounds": rounds, "rank": RANK,
            "dtype": str(generators["base"][0].model.dtype).removeprefix("torch."),
        },
        "tokens_per_second": {name: {way: round(speed[name, way], 1) for way in sizes} for name in generators},
        "seconds_of_each_round": shown,
        "batched over one at a time": {name: round(ratio, 2) for name, ratio in batching.items()},
        "merged over apart": {way: round(speed["merged", way] / speed["apart", way], 3) for way in sizes},
        "equal answers, of all prompts": same,
        "bars": {
            f"batched at least {AT_LEAST} times as fast as one at a time": batching["base"] >= AT_LEAST,
            "the same answers batched": all(same[f"{name}, batched and singly"] == prompts for name in generators),
            "the same answers merged": all(same[f"apart and merged, {way}"] == prompts for way in sizes),
        },
    }  # fmt: skip


def _generators(model: str, folder: Path) -> dict[str, tuple[Any, str | None]]:
    """A generator and the name of its adapter: for the base, for its unmerged adapter ("apart"), and for the merge."""
    import torch
    from peft import get_peft_model

    from ftlab.adapters import lora
    from ftlab.inference import Generator
    from ftlab.merging import merge as merging
    from ftlab.models import generation, loading

    torch.manual_seed(0)
    base = loading.causal_lm(model)
    wrapped = get_peft_model(base, lora.config(base, rank=RANK, alpha=ALPHA))
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:  # it is zero in a new adapter
                parameter.normal_(std=SIZE)
    adapter = lora.save(wrapped, folder / "adapter", model)
    merging.merge(loading.folder(model), adapter, folder / "merged")
    both, merged = Generator.load(model, {"apart": adapter}), Generator.load(folder / "merged")
    generation.end_tokens = lambda *_: []  # so that nothing stops an answer
    return {"base": (both, None), "apart": (both, "apart"), "merged": (merged, None)}


def _prompts(count: int) -> list[str]:
    """Questions of the task in the course's format, evenly from the shortest to the longest."""
    from ftlab.data import prompts, tasks

    rows = [prompts.ALPACA.prompt(row) for row in tasks.read(TASK).to_dict("records")]
    return sorted(rows, key=len)[:: len(rows) // count][:count]


def _equal(answers: dict[tuple[str, str], list[str]], one: tuple[str, str], other: tuple[str, str]) -> int:
    """How many answers of two ways are equal."""
    return sum(a == b for a, b in zip(answers[one], answers[other], strict=True))
