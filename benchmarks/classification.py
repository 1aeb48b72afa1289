"""Training and inference of lesson 02 against the tutorials' configuration: speed, accuracy, and the machine's limit.

The tutorials' configuration: every row padded to max_length, dropout as shipped, Trainer's defaults. Ours: batches of
rows of similar length, padded to their longest row and trained in pieces; on a CPU no attention dropout, the other
dropout with cheaper random numbers, and bf16 if the CPU has instructions for it. Rows, model, max_length, batch size
and learning rate are the same. Each timing runs in a process of its own, after a warm-up.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from typing import Any

from ftlab.course.bench import alone

LONG = 512  # tokens, the tutorials' max_length
ROWS = 480  # IMDB reviews, for the timing
PADDED_STEPS = 6  # of the tutorials' configuration: all its steps have the same shape, so a few are enough
BATCH = 16
LEARNING_RATE = 5e-5  # Trainer's default
# Small: it is trained six times.
ACCURACY = {"rows": 320, "max_length": 128, "epochs": 3, "test_rows": 1000}
SEEDS = (0, 1, 2)


def measure() -> dict[str, Any]:
    """Return examples per second, floating-point rates, inference, accuracy over seeds, and which bars they meet."""
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
            "in half precision at least 5 times as fast": inference["half"]["ratio"] >= 5,
            "accuracy within 1 point": abs(gap) <= 0.01,
        },
    }  # fmt: skip


def _trainer(way: str, train: Any, max_length: int, seed: int, **options: Any) -> Any:
    """A Trainer in the tutorials' configuration ("padded") or ours ("ours"; "fp32" without bf16)."""
    from transformers import DataCollatorWithPadding, PrinterCallback, Trainer, TrainingArguments, set_seed

    from ftlab.models import devices, loading
    from ftlab.training.cpu_speed import pieces

    set_seed(seed)
    tokenizer = loading.tokenizer("minilm")
    padding = "max_length" if way == "padded" else False
    tokenized = train.map(
        lambda rows: tokenizer(rows["text"], truncation=True, max_length=max_length, padding=padding), batched=True
    )
    dropout = {} if way == "padded" else loading.without_attention_dropout("minilm")
    precision = devices.mixed_precision() if way == "ours" else {}
    accumulation = 1 if way == "padded" else pieces(BATCH, length=max_length, precision=precision)
    if way != "padded":
        options |= {"train_sampling_strategy": "group_by_length", **precision}
    model = loading.encoder("minilm", train.features["label"].names, **dropout)
    model.accepts_loss_kwargs = False  # see `invariants.accumulation`
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=tempfile.mkdtemp(), per_device_train_batch_size=BATCH // accumulation,
            gradient_accumulation_steps=accumulation, learning_rate=LEARNING_RATE,
            save_strategy="no", logging_strategy="no", report_to="none", disable_tqdm=True, seed=seed, **options,
        ),
        train_dataset=tokenized,
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    return trainer


def _draw(dataset: str, rows: int, test_rows: int, seed: int) -> Any:
    from ftlab.data import sources, splits

    return splits.split(sources.load(dataset, seed=seed), rows=rows, validation_rows=2, test_rows=test_rows, seed=seed)


def _train(trainer: Any, way: str) -> float:
    """Seconds that training takes."""
    from contextlib import nullcontext

    from ftlab.training.cpu_speed import quick_dropout

    with nullcontext() if way == "padded" else quick_dropout(trainer.model):
        return _timed(trainer.train)[1]


def _speed(way: str) -> dict[str, Any]:
    """Examples per second over one epoch; with padded rows over a few steps, which all have the same shape."""
    train = _draw("imdb", ROWS, 2, 0).train
    _train(_trainer(way, train.select(range(BATCH)), LONG, 0, max_steps=1), way)  # warm-up
    steps = PADDED_STEPS if way == "padded" else -(-len(train) // BATCH)
    trainer = _trainer(way, train, LONG, 0, max_steps=steps)
    seconds = _train(trainer, way)
    examples = min(steps * BATCH, len(train))
    return {
        "examples": examples, "seconds": round(seconds, 1), "examples_per_second": round(examples / seconds, 3),
        "precision": "bf16" if trainer.args.bf16 else "fp32",
    }  # fmt: skip


def _rates() -> dict[str, Any]:
    """FLOP per second of our training step, as a share of a square matmul's in the same process."""
    import torch

    found: dict[str, Any] = {"fp32": [], "bf16": []}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        matmul = _matmul_rate(dtype)
        for tokens in (128, 256, 512):
            step, operations = _step(tokens, {"bf16": name == "bf16", "use_cpu": True})
            rate = operations / _seconds(step)
            matmul = max(matmul, _matmul_rate(dtype))  # again, since a shared machine's speed drifts
            found[name].append(
                {
                    "tokens": tokens, "gflops": round(rate / 1e9, 1), "matmul_gflops": round(matmul / 1e9, 1),
                    "share_of_matmul": round(rate / matmul, 3),
                }
            )  # fmt: skip
    return found


def _step(tokens: int, precision: dict[str, bool]) -> tuple[Any, int]:
    """A training step as `classification.fine_tune` makes it, on full rows, and its floating-point operations.

    It runs in pieces, with quick dropout and quick attention, and with Trainer's default, the fused AdamW. An encoder
    needs 6 operations for each token and each parameter of its linear layers (2 forward, 4 backward), and 12 x width
    for each pair of tokens of a row in the attention of each layer.
    """
    import torch

    from ftlab.models import loading
    from ftlab.training.cpu_speed import pieces, quick_attention, quick_dropout

    model = loading.encoder("minilm", ["a", "b"], **loading.without_attention_dropout("minilm")).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    ids = torch.randint(1000, 20_000, (BATCH, tokens))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.randint(0, 2, (BATCH,))}
    times = pieces(BATCH, length=tokens, precision=precision)

    def step() -> None:
        with quick_dropout(model), quick_attention(model, max_length=tokens, precision=precision):
            for place in range(times):
                piece = {name: rows.chunk(times)[place] for name, rows in batch.items()}
                with torch.autocast("cpu", torch.bfloat16, enabled=precision["bf16"]):
                    loss = model(**piece).loss / times
                loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    config = model.config
    linear = config.num_hidden_layers * (4 * config.hidden_size + 2 * config.intermediate_size)
    return step, BATCH * tokens * config.hidden_size * 6 * (linear + 2 * config.num_hidden_layers * tokens)


def _matmul_rate(dtype: Any) -> float:
    import torch

    size = 2048
    first, second = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    return 2 * size**3 / _seconds(lambda: first @ second)


def _seconds(work: Any, least: float = 3.0) -> float:
    """The fastest time of `work`, called for at least `least` seconds: other load only ever makes it slower."""
    work()
    times: list[float] = []
    while sum(times) < least or len(times) < 5:
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def _inference() -> dict[str, Any]:
    """Texts per second: `Classifier` in full and in half precision, against `pipeline` one text at a time.

    All classify the same reviews, with a model that was briefly trained on others, so that its answers mean something.
    In each of three rounds they run in turn; the ratio is the median over the rounds.
    """
    from transformers import pipeline

    from ftlab.inference import Classifier
    from ftlab.models import devices
    from ftlab.training import classification

    drawn = _draw("reviews", 500, 2000, 0)
    with tempfile.TemporaryDirectory() as folder:
        trainer = classification.fine_tune(
            drawn.train, folder, model="minilm", max_length=64, epochs=2, batch_size=BATCH, learning_rate=2e-4
        )
        trainer.save_model(folder)
        singly = pipeline("text-classification", model=folder, device="cpu")
        ways = {
            "full": Classifier(folder, device="cpu"),
            "half": Classifier(folder, device="cpu", dtype=devices.answer_dtype()),
        }
    texts = list(drawn.open_test("time three ways to predict, and choose nothing")["text"])
    few = texts[:400]
    singly(few[0], truncation=True), [way(few[:64]) for way in ways.values()]  # warm-up
    rounds, answers = [], {}
    for _ in range(3):
        one_by_one, seconds = _timed(lambda: [singly(text, truncation=True)[0]["score"] for text in few])
        rates = {"one at a time": len(few) / seconds}
        for name, classifier in ways.items():
            answers[name], seconds = _timed(lambda classifier=classifier: classifier(texts))
            rates[name] = len(texts) / seconds
        rounds.append(rates)
    ratios = {name: sorted(rates[name] / rates["one at a time"] for rates in rounds)[1] for name in ways}
    full, half = answers["full"], answers["half"]
    return {
        "texts_per_second": [{name: round(rate, 1) for name, rate in rates.items()} for rates in rounds],
        "ratio": round(ratios["full"], 2),
        "largest_difference_in_probability": float(abs(full["probability"].head(len(few)) - one_by_one).max()),
        "half": {
            "dtype": str(ways["half"].model.dtype),
            "ratio": round(ratios["half"], 2),
            "largest_difference_in_probability": float(abs(half["p_positive"] - full["p_positive"]).max()),
            "labels_that_agree": float((half["label"] == full["label"]).mean()),
        },
    }


def _timed(work: Any) -> tuple[Any, float]:
    """The result of `work`, and its seconds."""
    began = time.monotonic()
    return work(), time.monotonic() - began


def _accuracy(way: str, seed: str) -> dict[str, Any]:
    from ftlab.evaluation import comparison
    from ftlab.evaluation.predictions import predict_rows

    drawn = _draw("imdb", ACCURACY["rows"], ACCURACY["test_rows"], int(seed))
    trainer = _trainer(way, drawn.train, ACCURACY["max_length"], int(seed), num_train_epochs=ACCURACY["epochs"])
    _train(trainer, way)
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
