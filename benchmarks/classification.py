"""Training and inference of lesson 02 against the way of the tutorials: speed, accuracy, and the machine's own limit.

The tutorials' configuration: every row padded to max_length, dropout as shipped, Trainer's defaults. Ours: batches of
like length padded to their longest row, attention dropout off on a CPU, and bf16 where the CPU has instructions for it.
The same rows, model, max_length, batch size and learning rate. Each timing is a process of its own, after a warm-up.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from typing import Any

from ftlab.course.bench import alone

LONG = 512  # tokens, the tutorials' max_length
ROWS = 480  # IMDB reviews that are trained on for the timing
PADDED_STEPS = 6  # of the tutorials' configuration: its steps all have one shape, so a few of them tell
BATCH = 16
LEARNING_RATE = 5e-5  # Trainer's default
# Small enough to train six times here.
ACCURACY = {"rows": 320, "max_length": 128, "epochs": 3, "test_rows": 1000}
SEEDS = (0, 1, 2)


def measure() -> dict[str, Any]:
    """Examples a second, floating-point rates, inference, accuracy over seeds, and which bars they meet."""
    padded = alone(__file__, "speed", "padded")
    grouped, ours = alone(__file__, "speed", "fp32"), alone(__file__, "speed", "ours")
    rates = alone(__file__, "rates")
    inference = alone(__file__, "inference")
    accuracy = {
        way: [alone(__file__, "accuracy", way, seed)["accuracy"] for seed in SEEDS] for way in ("padded", "ours")
    }
    faster = round(ours["examples_per_second"] / padded["examples_per_second"], 2)
    gap = sum(accuracy["ours"]) / len(SEEDS) - sum(accuracy["padded"]) / len(SEEDS)
    return {
        "training_at_512_tokens": {
            "tutorials": padded,
            "ours_in_fp32": grouped,
            "ours": ours,
            "ours_over_tutorials": faster,
            "in_fp32_over_tutorials": round(grouped["examples_per_second"] / padded["examples_per_second"], 2),
        },
        "training_step_over_matmul": rates,
        "inference": inference,
        "accuracy": {"settings": ACCURACY, "seeds": SEEDS, **accuracy, "mean_difference": round(gap, 4)},
        "bars": {
            "training at least 6 times as fast": faster >= 6,
            "at least 0.8 of the matmul rate from 128 tokens on": min(
                line["share_of_matmul"] for line in rates["fp32"]
            ) >= 0.8,
            "batched inference at least 5 times as fast as one text at a time": inference["ratio"] >= 5,
            "accuracy within 1 point": abs(gap) <= 0.01,
        },
    }  # fmt: skip


def _trainer(way: str, train: Any, max_length: int, seed: int, **options: Any) -> Any:
    """A Trainer in the tutorials' configuration ("padded") or ours ("ours"; "fp32" without bf16)."""
    from transformers import DataCollatorWithPadding, PrinterCallback, Trainer, TrainingArguments, set_seed

    from ftlab.models import loading
    from ftlab.training.surroundings import mixed_precision

    set_seed(seed)
    tokenizer = loading.tokenizer("minilm")
    padding = "max_length" if way == "padded" else False
    tokenized = train.map(
        lambda rows: tokenizer(rows["text"], truncation=True, max_length=max_length, padding=padding), batched=True
    )
    dropout = {} if way == "padded" else loading.without_attention_dropout("minilm")
    if way != "padded":
        options |= {"train_sampling_strategy": "group_by_length"}
    if way == "ours":
        options |= mixed_precision()
    trainer = Trainer(
        model=loading.encoder("minilm", train.features["label"].names, **dropout),
        args=TrainingArguments(
            output_dir=tempfile.mkdtemp(), per_device_train_batch_size=BATCH, learning_rate=LEARNING_RATE,
            save_strategy="no", logging_strategy="no", report_to="none", disable_tqdm=True, seed=seed, **options,
        ),
        train_dataset=tokenized,
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    return trainer


def _imdb(rows: int, test_rows: int, seed: int) -> Any:
    from ftlab.data import sources, splits

    return splits.split(sources.load("imdb", seed=seed), rows=rows, validation_rows=2, test_rows=test_rows, seed=seed)


def _speed(way: str) -> dict[str, Any]:
    """Examples a second over one epoch; for the padded way over a few of its steps, which are all alike."""
    train = _imdb(ROWS, 2, 0).train
    _trainer(way, train.select(range(BATCH)), LONG, 0, max_steps=1).train()  # warm-up
    steps = PADDED_STEPS if way == "padded" else -(-len(train) // BATCH)
    trainer = _trainer(way, train, LONG, 0, max_steps=steps)
    began = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - began
    examples = min(steps * BATCH, len(train))
    return {
        "examples": examples, "seconds": round(seconds, 1), "examples_per_second": round(examples / seconds, 3),
        "precision": "bf16" if trainer.args.bf16 else "fp32",
    }  # fmt: skip


def _rates() -> dict[str, Any]:
    """Floating-point operations a second of our training step, over those of a square matmul in the same process.

    A step of an encoder does 6 operations for each parameter of its linear layers and each token (two forward, four
    backward), and 12 x width for each token and each other token of its row in the attention of a layer.
    """
    import torch

    from ftlab.models import loading

    found: dict[str, Any] = {"fp32": [], "bf16": []}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        matmul = _matmul_rate(dtype)
        for tokens in (128, 256, 512):
            model = loading.encoder("minilm", ["a", "b"], **loading.without_attention_dropout("minilm")).train()
            config = model.config
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
            ids = torch.randint(1000, 20_000, (BATCH, tokens))
            batch = {
                "input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.randint(0, 2, (BATCH,))
            }  # fmt: skip

            def step(model: Any = model, optimizer: Any = optimizer, batch: Any = batch, name: str = name) -> None:
                with torch.autocast("cpu", torch.bfloat16, enabled=name == "bf16"):
                    loss = model(**batch).loss
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()

            linear = config.num_hidden_layers * (4 * config.hidden_size + 2 * config.intermediate_size)
            operations = BATCH * tokens * config.hidden_size * 6 * (linear + 2 * config.num_hidden_layers * tokens)
            rate = operations / _seconds(step)
            matmul = max(matmul, _matmul_rate(dtype))  # again, since a shared machine's speed drifts
            found[name].append(
                {
                    "tokens": tokens, "gflops": round(rate / 1e9, 1), "matmul_gflops": round(matmul / 1e9, 1),
                    "share_of_matmul": round(rate / matmul, 3),
                }
            )  # fmt: skip
    return found


def _matmul_rate(dtype: Any) -> float:
    import torch

    size = 2048
    first, second = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    return 2 * size**3 / _seconds(lambda: first @ second)


def _seconds(work: Any, least: float = 3.0) -> float:
    """The median time of `work` over at least so many seconds, after a warm-up."""
    work()
    times: list[float] = []
    while sum(times) < least or len(times) < 3:
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return sorted(times)[len(times) // 2]


def _inference() -> dict[str, Any]:
    """Texts a second by `Classifier`, and one at a time through `pipeline`, on the same reviews."""
    from transformers import pipeline

    from ftlab.data import sources
    from ftlab.inference import Classifier
    from ftlab.models import loading

    texts = sources.read("rotten_tomatoes")["text"].sample(2000, random_state=0).tolist()
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = loading.tokenizer("minilm")
        loading.encoder("minilm", ["negative", "positive"]).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        singly, batched = pipeline("text-classification", model=folder, device="cpu"), Classifier(folder, device="cpu")
    few = texts[:400]
    singly(few[0], truncation=True), batched(few[:64])
    began = time.monotonic()
    one_by_one = [singly(text, truncation=True)[0]["score"] for text in few]
    halfway = time.monotonic()
    table = batched(texts)
    done = time.monotonic()
    rates = len(few) / (halfway - began), len(texts) / (done - halfway)
    return {
        "one_at_a_time_per_second": round(rates[0], 1), "batched_per_second": round(rates[1], 1),
        "ratio": round(rates[1] / rates[0], 2),
        "largest_difference_in_probability": float(abs(table["probability"].head(len(few)) - one_by_one).max()),
    }  # fmt: skip


def _accuracy(way: str, seed: str) -> dict[str, Any]:
    from ftlab.evaluation import comparison
    from ftlab.evaluation.predictions import predict_rows

    drawn = _imdb(ACCURACY["rows"], ACCURACY["test_rows"], int(seed))
    trainer = _trainer(way, drawn.train, ACCURACY["max_length"], int(seed), num_train_epochs=ACCURACY["epochs"])
    trainer.train()
    test = drawn.open_test("compare two ways to train, and choose nothing")
    tokenized = test.map(
        lambda rows: trainer.processing_class(rows["text"], truncation=True, max_length=ACCURACY["max_length"]),
        batched=True,
    )
    return {"accuracy": round(comparison.accuracy(predict_rows(trainer, test, tokenized)).value, 4)}


if __name__ == "__main__":
    from ftlab.progress import quiet

    quiet()
    what, *rest = sys.argv[1:]
    measured = {"speed": _speed, "rates": _rates, "inference": _inference, "accuracy": _accuracy}[what](*rest)
    print(json.dumps(measured))
