import pytest
import torch
from transformers import DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments, set_seed

from ftlab.data import sources
from ftlab.errors import TrainingFailed
from ftlab.models import loading
from ftlab.training.callbacks import LiveProgress, StopWhenNotFinite


def tokenized_reviews():
    tokenizer = loading.tokenizer("tiny-distilbert")
    rows = sources.load("mini_reviews")["train"].select(range(32))
    return rows.map(lambda batch: tokenizer(batch["text"], truncation=True, max_length=64), batched=True)


def train(folder, model=None, arguments=None, **options):
    set_seed(0)
    settings = {
        "max_steps": 4, "per_device_train_batch_size": 8, "learning_rate": 1e-3, "save_strategy": "no", "seed": 0,
        "train_sampling_strategy": "group_by_length", "report_to": "none", "disable_tqdm": True, **(arguments or {}),
    }  # fmt: skip
    trainer = Trainer(
        model=model or loading.encoder("tiny-distilbert", ["negative", "positive"]),
        args=TrainingArguments(output_dir=str(folder), **settings),
        train_dataset=tokenized_reviews(),
        data_collator=DataCollatorWithPadding(loading.tokenizer("tiny-distilbert")),
        **options,
    )
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
            seen.append(self.file.read_text(encoding="utf-8"))

    train(tmp_path, callbacks=[Reader(tmp_path)])
    assert seen[-1] == '{"what": "training", "step": 4, "of": 4}'
    assert not (tmp_path / "progress.json").exists()


class Plant(TrainerCallback):
    """Write a NaN into the head's weights after a step."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, model=None, **more):
        if state.global_step == self.step:
            with torch.no_grad():
                model.classifier.weight[0, 0] = float("nan")


def failure(folder, *callbacks, **options):
    with pytest.raises(TrainingFailed) as raised:
        train(folder, callbacks=[*callbacks], **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("step", [1, 3])
def test_training_stops_at_the_first_step_with_a_nan(tmp_path, step):
    message = failure(tmp_path, Plant(step), StopWhenNotFinite())
    assert f"diverged at step {step + 1} of 4:" in message
    assert "learning_rate" in message
    assert "0.001, and a tenth of it (0.0001)" in message


def test_a_learning_rate_far_too_high_stops_at_the_second_step(tmp_path):
    message = failure(tmp_path, StopWhenNotFinite(), arguments={"learning_rate": 1e30, "max_grad_norm": 0.0})
    assert "diverged at step 2 of 4:" in message
    assert "1e+30" in message


def test_without_it_training_goes_on_with_nothing(tmp_path):
    weights = train(tmp_path, callbacks=[Plant(1)])
    assert not torch.isfinite(weights["classifier.weight"]).all()


def test_what_the_last_step_broke_is_seen_by_the_evaluation_after_it(tmp_path):
    rows = tokenized_reviews().select(range(8))
    message = failure(tmp_path, Plant(4), StopWhenNotFinite(), eval_dataset=rows, arguments={"eval_strategy": "epoch"})
    assert "diverged at step 4 of 4:" in message


def test_a_training_without_nan_is_untouched(tmp_path):
    plain, watched = train(tmp_path), train(tmp_path, callbacks=[StopWhenNotFinite()])
    assert all(torch.equal(plain[name], watched[name]) for name in plain)


def test_it_watches_each_training_and_no_other_use_of_the_model(tmp_path):
    model, callback = loading.encoder("tiny-distilbert", ["negative", "positive"]), StopWhenNotFinite()
    for _ in range(2):
        train(tmp_path, model=model, callbacks=[callback])
        assert not model._forward_hooks
    assert "step 2 of 4" in failure(tmp_path, Plant(1), callback, model=model)
    assert not model._forward_hooks  # a training that failed leaves nothing behind either
    assert model(torch.tensor([[1, 2]])).logits.isnan().any()


def test_after_a_failure_the_next_training_speaks_of_its_own_learning_rate(tmp_path):
    model, callback = loading.encoder("tiny-distilbert", ["negative", "positive"]), StopWhenNotFinite()
    failure(tmp_path, Plant(2), callback, model=model)
    for watcher in (callback, StopWhenNotFinite()):
        message = failure(tmp_path, watcher, model=model, arguments={"learning_rate": 1e-5, "max_steps": 7})
        assert "diverged at step 1 of 7:" in message
        assert "1e-05" in message


def test_a_training_that_was_interrupted_is_watched_anew(tmp_path):
    class Interrupt(TrainerCallback):
        def on_step_end(self, *arguments, **more):
            raise KeyboardInterrupt

    model = loading.encoder("tiny-distilbert", ["negative", "positive"])
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, model=model, callbacks=[StopWhenNotFinite(), Interrupt()])
    message = failure(tmp_path, Plant(3), StopWhenNotFinite(), model=model, arguments={"learning_rate": 1e-5})
    assert "diverged at step 4 of 4:" in message
    assert "1e-05" in message
    assert not model._forward_hooks
