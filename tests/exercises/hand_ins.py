"""Honest hand-ins of Level 1, 2 and 3, by real trainings of tiny models on a file of one's own, to copy and to falsify.

Numbers are chosen so that a check of the wrong thing would be noticed: four classes of different sizes, so that
accuracy, macro F1 and weighted F1 differ; a batch size that does not divide the rows; a model whose answers to the
rows differ.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ftlab.data import sources
from ftlab.evaluation import baselines, comparison, rating
from ftlab.evaluation.predictions import predict_rows
from ftlab.exercises import manifest, rating_checks
from ftlab.exercises.handed_in import HandedIn
from ftlab.exercises.recorder import Recorder
from ftlab.freezing import plans
from ftlab.models import loading

BASE = "tiny-distilbert"
# Words that tell the class of most messages at their beginning: a tiny model can learn no more from ninety rows.
CUES = {"billing": "film", "authentication": "story", "bug_report": "music", "how_to": "actors"}
CUED = 0.8
SIZES = {"billing": 60, "authentication": 40, "bug_report": 30, "how_to": 20}
# Messages of the file in other words, and in their old order: beyond word bigrams.
REWORDED = {
    "tickets-00126": (
        "My gas bill must be paid by Friday and I'd like to pay, but your portal says my customer number doesn't fit "
        "my date of birth. They have fitted since 1957."
    ),
    "tickets-00014": (
        "In the receipts tab the download button is hidden behind the total column, so people with small laptops can't "
        "click on it. The amounts are right."
    ),
}
EPOCHS, BATCH, RATE, MAX_LENGTH, SEED = 3.0, 8, 6e-3, 48, 0


@cache
def messages() -> pd.DataFrame:
    """Rows of a support desk, in a fixed order, and at the end the reworded ones."""
    rows = sources.read("tickets")
    originals = rows[rows["id"].isin(REWORDED)]
    rest = rows[~rows["id"].isin(REWORDED)]
    some = pd.concat([rest[rest["label"] == label].head(count) for label, count in SIZES.items()])
    some = some.sample(frac=1, random_state=1)
    cued = np.random.default_rng(0).random(len(some)) < CUED
    cues = some["label"].map(CUES).where(cued, "")
    some["text"] = [
        f"{' '.join([cue] * 4)}. {text}" if cue else text for cue, text in zip(cues, some["text"], strict=True)
    ]
    copies = originals.assign(text=originals["id"].map(REWORDED))
    return pd.concat([some, originals, copies], ignore_index=True)[["text", "label"]]


def write_base(folder: Path) -> str:
    """Save a tiny model that can learn from few rows: its attention takes the mean of the words, and words differ."""
    import torch

    torch.manual_seed(4)
    body = loading.body(BASE)
    with torch.no_grad():
        for name, tensor in body.named_parameters():
            if "q_lin" in name or "k_lin" in name:
                tensor.zero_()
            elif name.endswith(("v_lin.weight", "out_lin.weight")):
                tensor.copy_(torch.eye(len(tensor)))
            elif "word_embeddings" in name:
                tensor.div_(body.config.initializer_range)
            elif "position_embeddings" in name:
                tensor.mul_(0.01)
    body.save_pretrained(folder)
    loading.tokenizer(BASE).save_pretrained(folder)
    return str(folder)


def write_messages(folder: Path) -> Path:
    """Write the rows as a file of one's own, and beside it the base model."""
    folder.mkdir(parents=True, exist_ok=True)
    write_base(folder / "base")
    messages().to_csv(folder / "messages.csv", index=False)
    return folder / "messages.csv"


def split(dataset: Any, pairs_across: bool = False) -> dict[str, Any]:
    """Draw 90 training, 24 validation and 36 test rows, each with all classes; with the reworded rows across."""
    count = sum(SIZES.values())
    labels = np.array(dataset["label"][:count])
    places = {"train": [], "validation": [], "test": []}
    for label in sorted(set(labels)):
        of_class = np.flatnonzero(labels == label)
        ends = round(len(of_class) * 0.6), round(len(of_class) * 0.76)
        for name, part in zip(places, np.split(of_class, ends), strict=True):
            places[name] += part.tolist()
    if pairs_across:
        places["test"] += [count, count + 1]
        places["train"] += [count + 2, count + 3]
    return {name: dataset.select(sorted(part)) for name, part in places.items()}


@dataclass
class Way:
    """How a hand-in is made: an honest one by default; a mutant differs in one of these."""

    epochs: float = EPOCHS
    rate: float = RATE
    seed: int = SEED
    head_seed: int = SEED
    leaked: int = 0
    pairs_across: bool = False
    choose_on: str = "validation"
    max_length: int = MAX_LENGTH
    shuffle_labels: bool = False
    baseline_rows: int | None = None
    freeze: Callable[[Any], None] | None = None
    draw: Sequence[int] | None = None
    options: dict[str, Any] = field(default_factory=dict)


def base_of(file: Path) -> str:
    """The base model beside a file."""
    return str(file.parent / "base")


def fresh_model(base: str, labels: Sequence[str], seed: int = SEED) -> Any:
    """A classifier with a fresh head."""
    from transformers import set_seed

    set_seed(seed)
    return loading.encoder(base, labels)


def train(parts: dict[str, Any], way: Way, base: str) -> tuple[Any, Any]:
    """Fine-tune a tiny classifier; return the Trainer and the tokenizer."""
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    tokenizer = loading.tokenizer(base, split_special_tokens=True)

    def tokenized(rows: Any) -> Any:
        return rows.map(lambda row: tokenizer(row["text"], truncation=True, max_length=way.max_length))

    names = parts["train"].features["label"].names
    model = fresh_model(base, names, way.head_seed)
    if way.freeze:
        way.freeze(model)
    model.accepts_loss_kwargs = False
    rows = tokenized(parts["train"])
    if way.draw is not None:
        rows = rows.select(way.draw)
    if way.shuffle_labels:
        labels = np.random.default_rng(0).permutation(rows["label"])
        rows = rows.remove_columns("label").add_column("label", labels.tolist())
    arguments = TrainingArguments(
        str(Path(base).parent / "checkpoints"), num_train_epochs=way.epochs, per_device_train_batch_size=BATCH,
        learning_rate=way.rate, save_strategy="no", logging_steps=5, seed=way.seed, use_cpu=True,
        report_to="none", disable_tqdm=True, weight_decay=0.0, **{"eval_strategy": "epoch", **way.options},
    )  # fmt: skip
    trainer = Trainer(
        model=model, args=arguments, train_dataset=rows, eval_dataset=tokenized(parts[way.choose_on]),
        processing_class=tokenizer, data_collator=DataCollatorWithPadding(tokenizer),
    )  # fmt: skip
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return trainer, tokenizer


def about(file: Path) -> dict[str, Any]:
    """What a notebook says of its try. The profile is cpu, so that a check can say PASSED."""
    return {"profile": "cpu", "seed": SEED, "model": base_of(file), "dataset": str(file)}


def parts_of(file: Path, way: Way) -> dict[str, Any]:
    """The splits of the file, perhaps with a leak."""
    from datasets import concatenate_datasets

    dataset = sources.load(str(file), seed=0)["train"].sort("id")
    parts = split(dataset, way.pairs_across)
    if way.leaked:
        parts["train"] = concatenate_datasets([parts["train"], parts["test"].select(range(way.leaked))])
    return parts


def level1(folder: Path, file: Path, way: Way | None = None) -> Path:
    """Hand in Level 1."""
    way = way or Way()
    parts = parts_of(file, way)
    trainer, tokenizer = train(parts, way, base_of(file))
    test = parts["test"]
    record = Recorder(manifest.level("level1"), folder, about(file))
    tuned = predict_rows(
        trainer, test, trainer.eval_dataset if way.choose_on == "test" else tokenized_like(trainer, test)
    )
    counted = baselines.tfidf(parts["train"].select(range(way.baseline_rows or len(parts["train"]))), test)
    record.rows(train=parts["train"], validation=parts["validation"], test=test)
    record.training(trainer)
    record.weights(trainer.model, tokenizer, max_length=MAX_LENGTH)
    record.predictions(tuned)
    record.baseline(counted)
    conclude1(folder)
    return folder


def conclude1(folder: Path) -> None:
    """Write the report and the conclusion that follow from the predictions in a folder of Level 1."""
    from sklearn.metrics import classification_report

    work = HandedIn(manifest.level("level1"), folder)
    tuned, counted = work.predictions("predictions.csv"), work.predictions("baseline.csv")
    record = Recorder(manifest.level("level1"), folder, {})
    record.report(classification_report(tuned["label"], tuned["prediction"], output_dict=True, zero_division=0.0))
    record.conclusion(answer=answer(comparison.compare(tuned, counted)), because="the paired interval")


def tokenized_like(trainer: Any, rows: Any, max_length: int = MAX_LENGTH) -> Any:
    """Tokenize rows as the Trainer's own were."""
    return rows.map(lambda row: trainer.processing_class(row["text"], truncation=True, max_length=max_length))


def answer(found: comparison.Comparison) -> str:
    """The right conclusion."""
    return "no clear difference" if not found.clear else "better" if found.difference.value > 0 else "worse"


def freeze_first_layers(model: Any) -> None:
    """Freeze the embeddings and the first four layers."""
    plans.freeze(model, "first_layers", 4)


def level2(folder: Path, file: Path, full: Way | None = None, frozen: Way | None = None) -> Path:
    """Hand in Level 2."""
    parts = parts_of(file, Way())
    record = Recorder(manifest.level("level2"), folder, about(file))
    record.rows(train=parts["train"], validation=parts["validation"], test=parts["test"])
    tables, seconds = {}, {}
    for run, way in (("full", full or Way()), ("frozen", frozen or Way(freeze=freeze_first_layers))):
        trainer, tokenizer = train(parts, way, base_of(file))
        tables[run] = predict_rows(trainer, parts["test"], tokenized_like(trainer, parts["test"]))
        record.training(trainer, run=run)
        record.weights(trainer.model, tokenizer, max_length=MAX_LENGTH, run=run)
        record.predictions(tables[run], run=run)
        seconds[run] = trainer.state.log_history[-1]["train_runtime"] / trainer.state.global_step
    record.conclusion(**conclusion2(tables, seconds))
    return folder


def rerun(folder: Path, file: Path, run: str, way: Way) -> Path:
    """Train one run of Level 2 again, another way, and conclude from what came out."""
    parts = parts_of(file, Way())
    trainer, tokenizer = train(parts, way, base_of(file))
    record = Recorder(manifest.level("level2"), folder, about(file))
    record.training(trainer, run=run)
    record.weights(trainer.model, tokenizer, max_length=way.max_length, run=run)
    asked = tokenized_like(trainer, parts["test"], way.max_length)
    record.predictions(predict_rows(trainer, parts["test"], asked), run=run)
    conclude2(folder)
    return folder


def conclude2(folder: Path) -> None:
    """Write the right conclusion of Level 2 for what a folder holds."""
    work = HandedIn(manifest.level("level2"), folder)
    tables = {run: work.predictions(f"{run}/predictions.csv") for run in ("full", "frozen")}
    logs = {run: work.json(f"{run}/log.json") for run in tables}
    seconds = {run: log["log_history"][-1]["train_runtime"] / log["global_step"] for run, log in logs.items()}
    Recorder(manifest.level("level2"), folder, {}).conclusion(**conclusion2(tables, seconds))


def conclusion2(tables: dict[str, pd.DataFrame], seconds: dict[str, float]) -> dict[str, Any]:
    """The right answers of Level 2."""
    gap = comparison.difference(tables["frozen"], tables["full"])
    better = "frozen" if gap.low > 0 else "full" if gap.high < 0 else "no clear difference"
    ratio = seconds["full"] / seconds["frozen"]
    faster = "frozen" if ratio > 1.1 else "full" if ratio < 1 / 1.1 else "no clear difference"
    choice = next((one for one in (better, faster) if one != "no clear difference"), "full")
    return {
        "f1": {run: comparison.scores(table)["f1_macro"].value for run, table in tables.items()},
        "difference": [gap.value, gap.low, gap.high], "seconds_per_step": seconds, "better_f1": better,
        "faster": faster, "choice": choice, "because": "the interval and the clock",
    }  # fmt: skip


LANGUAGE_MODEL = "tiny-llama"
VERBS = ["mend", "paint", "wash", "lift", "carry", "fold", "stack", "count", "label", "store", "borrow", "return"]
THINGS = ["kettle", "ladder", "bicycle", "curtain", "teapot", "lantern", "hammock", "toolbox", "saddle", "blanket"]
NEW_TOKENS = 6


def rows3(count: int = 54) -> list[dict[str, str]]:
    """Instructions with one instruction for all, so that the inputs alone tell them apart."""
    rows = []
    for number in range(count):
        verb, thing = VERBS[number % len(VERBS)], THINGS[number * 7 % len(THINGS)]
        where = ["attic", "harbour", "orchard", "workshop", "stable"][number % 5]
        rows.append(
            {"id": f"mine-{number:02d}", "instruction": "Which tool does it take?",
             "input": f"{where.title()}: {verb} the {thing} number {'abcdefghij'[number // 6]}{number}",
             "output": f"the {thing} {verb}er of {where} {number}"}
        )  # fmt: skip
    return rows


def prompts3() -> list[dict[str, str]]:
    """Ten new prompts."""
    animals = ["heron", "otter", "badger", "lynx", "marten", "stork", "adder", "newt", "vole", "wren"]
    return [
        {"id": f"new-{number}", "instruction": "Which tool does it take?",
         "input": f"Riverbank, at dusk: feeding one {animal} without waking any neighbour"}
        for number, animal in enumerate(animals)
    ]  # fmt: skip


def train3(
    rows: list[dict[str, str]], folder: Path, *, adapter: bool = False, base: str = LANGUAGE_MODEL
) -> tuple[Any, Any]:
    """Tune a tiny language model on instructions; return the Trainer and the tokenizer."""
    from datasets import Dataset
    from transformers import DataCollatorForSeq2Seq, PrinterCallback, Trainer, TrainingArguments, set_seed

    from ftlab.adapters import lora
    from ftlab.data import prompts

    set_seed(SEED)
    tokenizer, model = loading.tokenizer(base), loading.causal_lm(base)
    if adapter:
        from peft import get_peft_model

        config = lora.config(model, rank=4, alpha=8)
        model = get_peft_model(model, config)
    encoded, _ = prompts.encode(Dataset.from_list(rows), tokenizer, max_length=256)
    columns = ["id", "input_ids", "attention_mask", "labels"]
    arguments = TrainingArguments(
        str(folder / "checkpoints"), num_train_epochs=2, per_device_train_batch_size=BATCH, learning_rate=1e-2,
        save_strategy="no", logging_steps=3, use_cpu=True, report_to="none", disable_tqdm=True,
    )  # fmt: skip
    collate = DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=prompts.IGNORED)
    trainer = Trainer(model=model, args=arguments, train_dataset=encoded.select_columns(columns), data_collator=collate)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return trainer, tokenizer


def ask3(model: Any, tokenizer: Any, texts: list[str]) -> list[str]:
    """Answer greedily."""
    from ftlab.data import prompts
    from ftlab.models import generation

    ids = [prompts.prompt_ids(text, tokenizer) for text in texts]
    return [one.text for one in generation.generate(model, tokenizer, ids, max_new_tokens=NEW_TOKENS)]


class Rated:
    """Ratings that a person has given in the form."""

    def __init__(self, sheet: rating.Sheet, ratings: Sequence[int | None]) -> None:
        self.sheet, self.ratings = sheet, list(ratings)
        self.missing = self.ratings.count(None)

    def save(self, path: Path) -> None:
        self.sheet.write_form(path, self.ratings)


def opinion(item: rating.Item) -> int:
    """A rater who likes the tuned model by a little more than one on the scale."""
    number = int(item.id.removeprefix("new-"))
    return 1 + number % 2 + (2 if item.model == "tuned" else 0) - (number == 3)


def level3(folder: Path, *, rows: list[dict[str, str]] | None = None, prompts: list[dict[str, str]] | None = None,
           adapter: bool = False, rate: Callable[[rating.Item], int] = opinion) -> Path:  # fmt: skip
    """Hand in Level 3."""
    from ftlab.data.prompts import ALPACA

    rows, prompts = rows or rows3(), prompts or prompts3()
    record = Recorder(manifest.level("level3"), folder, {"profile": "cpu", "seed": SEED, "model": LANGUAGE_MODEL})
    record.instructions(rows, prompts)
    trainer, tokenizer = train3(rows, folder.parent, adapter=adapter)
    record.training(trainer)
    record.weights(trainer.model, tokenizer)
    texts = [ALPACA.prompt(one) for one in prompts]
    given = {
        "base": ask3(loading.causal_lm(LANGUAGE_MODEL), tokenizer, texts),
        "tuned": ask3(trainer.model, tokenizer, texts),
    }
    for name, said in given.items():
        record.answers(name, texts, said, do_sample=False, max_new_tokens=NEW_TOKENS)
    rerate(folder, rate)
    return folder


def rerate(folder: Path, rate: Callable[[rating.Item], int | None]) -> None:
    """Rate the answers in a folder, and conclude from it."""
    record = Recorder(manifest.level("level3"), folder, {"seed": SEED})
    asked = pd.DataFrame(
        [json.loads(line) for line in (folder / "prompts.jsonl").read_text(encoding="utf-8").splitlines()]
    )
    given = [
        json.loads((folder / f"answers_{name}.json").read_text(encoding="utf-8"))["answers"]
        for name in ("base", "tuned")
    ]
    sheet = rating_checks.draw(asked, *given, seed=SEED)
    ratings = [rate(item) for item in sheet.items]
    record.ratings(Rated(sheet, ratings))
    if None in ratings:
        return
    found = rating.verdict(sheet, ratings, seed=SEED)
    three = {name: [one.value, one.low, one.high] for name, one in (*found.means.items(), ("gap", found.difference))}
    gap = found.difference
    record.conclusion(
        answer="better" if gap.low > 0 else "worse" if gap.high < 0 else "no clear difference", because="the interval",
        difference=three.pop("gap"), means=three,
    )  # fmt: skip


def copied(folder: Path, target: Path) -> Path:
    """A copy of a hand-in to falsify."""
    shutil.copytree(folder, target)
    return target


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    """Change the JSON in a file, in place or by the value that `change` returns."""
    value = json.loads(path.read_text(encoding="utf-8"))
    changed = change(value)
    path.write_text(json.dumps(value if changed is None else changed), encoding="utf-8")
