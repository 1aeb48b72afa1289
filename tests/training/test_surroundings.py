import torch
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments, set_seed

from ftlab.data import sources
from ftlab.models import loading
from ftlab.training.surroundings import LiveProgress, mixed_precision


def train(folder, **options):
    rows = sources.load("mini_reviews")["train"].select(range(32))
    tokenizer = loading.tokenizer("tiny-distilbert")
    tokenized = rows.map(lambda batch: tokenizer(batch["text"], truncation=True, max_length=64), batched=True)
    set_seed(0)
    trainer = Trainer(
        model=loading.encoder("tiny-distilbert", ["negative", "positive"]),
        args=TrainingArguments(
            output_dir=str(folder), max_steps=4, per_device_train_batch_size=8, learning_rate=1e-3,
            train_sampling_strategy="group_by_length", save_strategy="no", report_to="none", disable_tqdm=True, seed=0,
        ),
        train_dataset=tokenized,
        data_collator=DataCollatorWithPadding(tokenizer),
        **options,
    )  # fmt: skip
    trainer.train()
    return trainer.model.state_dict()


def test_equal_runs_give_equal_weights(tmp_path):
    one, two = train(tmp_path), train(tmp_path)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_training_moves_every_weight_that_it_should(tmp_path):
    before = loading.encoder("tiny-distilbert", ["negative", "positive"]).state_dict()
    after = train(tmp_path)
    still = [name for name in before if "classifier" not in name and torch.equal(before[name], after[name])]
    # Positions and words that no row has get no gradient, but others of the same tensor do.
    assert still == []


def test_live_progress_says_where_training_is_and_then_nothing(tmp_path):
    seen = []

    class Reader(LiveProgress):
        def on_step_end(self, *arguments, **more):
            super().on_step_end(*arguments, **more)
            seen.append(self.file.read_text())

    train(tmp_path, callbacks=[Reader(tmp_path)])
    assert seen[-1] == '{"what": "training", "step": 4, "of": 4}'
    assert not (tmp_path / "progress.json").exists()


def test_half_precision_is_asked_for_only_where_the_device_has_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert mixed_precision() == {"fp16": False, "bf16": False}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    assert mixed_precision() == {"fp16": True, "bf16": False}
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert mixed_precision() == {"fp16": False, "bf16": True}
