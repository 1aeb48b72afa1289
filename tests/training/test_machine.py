import json
import math

import pytest
import torch
from peft import get_peft_model
from torch import nn
from transformers import DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback

from ftlab.adapters import lora
from ftlab.data import sources
from ftlab.errors import BadInput, TrainingFailed
from ftlab.internals.transformers import attention
from ftlab.memory import footprint
from ftlab.models import devices, loading
from ftlab.training import machine
from ftlab.training.callbacks import LiveProgress, StopWhenNotFinite
from ftlab.training.cpu_speed import QuickDropout

FP32 = {"fp16": False, "bf16": False}
BF16_ON_CPU = {"fp16": False, "bf16": True, "use_cpu": True}
STEPS = 3


class Spy(TrainerCallback):
    """Call `look` with the model after each step."""

    def __init__(self, look):
        self.look = look

    def on_step_end(self, args, state, control, model=None, **more):
        self.look(model)


def tiny(**options):
    return loading.encoder("tiny-distilbert", ["negative", "positive"], **options)


def without_dropout():
    torch.manual_seed(0)  # for the new head
    return tiny(dropout=0.0, attention_dropout=0.0, seq_classif_dropout=0.0)


def trainer_of(model, folder, *, look=None, precision=FP32, **settings):
    set_seed(0)
    tokenizer = loading.tokenizer("tiny-distilbert")
    rows = sources.load("mini_reviews")["train"].select(range(16))
    rows = rows.map(lambda batch: tokenizer(batch["text"], truncation=True, max_length=48), batched=True)
    defaults = {
        "max_steps": STEPS, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "learning_rate": 1e-3,
        "save_strategy": "no", "seed": 0, "report_to": "none", "disable_tqdm": True, "use_cpu": True,
    }  # fmt: skip
    return Trainer(
        model=model,
        args=TrainingArguments(output_dir=str(folder), **{**defaults, **precision, **settings}),
        train_dataset=rows,
        data_collator=DataCollatorWithPadding(tokenizer),
        callbacks=[Spy(look)] if look else None,
    )


def watchers(trainer):
    return [one for one in trainer.callback_handler.callbacks if isinstance(one, (StopWhenNotFinite, LiveProgress))]


def adapted():
    base = loading.causal_lm("tiny-gpt2")
    return get_peft_model(base, lora.config(base, rank=2, alpha=4, dropout=0.1))


@pytest.mark.parametrize("precision", [FP32, BF16_ON_CPU, {"fp16": True, "bf16": False}])
def test_the_arguments_have_the_precision_of_the_machine_and_trainer_takes_them(precision, monkeypatch, tmp_path):
    monkeypatch.setattr(devices, "mixed_precision", lambda: dict(precision))
    found = machine.arguments(batch_size=8, longest=64)
    assert found == {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, **precision}
    if not precision["fp16"]:  # a CPU has none
        TrainingArguments(output_dir=str(tmp_path), **found)


def test_a_batch_of_features_is_taken_whole_however_many_rows_it_has(monkeypatch):
    monkeypatch.setattr(devices, "best_device", lambda: "cpu")
    monkeypatch.setattr(devices, "mixed_precision", lambda: dict(FP32))
    found = machine.arguments(batch_size=4096, longest=None)
    assert (found["per_device_train_batch_size"], found["gradient_accumulation_steps"]) == (4096, 1)


@pytest.mark.parametrize(
    ("device", "precision", "rows", "pieces"),
    [("cpu", FP32, 4, 4), ("cpu", BF16_ON_CPU, 8, 2), ("cuda", {"fp16": False, "bf16": True}, 16, 1)],
)
def test_a_batch_of_long_rows_is_cut_on_a_cpu_and_the_step_keeps_its_rows(device, precision, rows, pieces, monkeypatch):
    monkeypatch.setattr(devices, "best_device", lambda: device)
    monkeypatch.setattr(devices, "mixed_precision", lambda: dict(precision))
    found = machine.arguments(batch_size=16, longest=512)
    assert (found["per_device_train_batch_size"], found["gradient_accumulation_steps"]) == (rows, pieces)


def test_a_precision_that_is_given_takes_the_place_of_the_machine_s(monkeypatch):
    monkeypatch.setattr(devices, "best_device", lambda: "cpu")
    monkeypatch.setattr(devices, "mixed_precision", lambda: pytest.fail("the machine was asked"))
    found = machine.arguments(batch_size=16, longest=512, precision=BF16_ON_CPU)
    assert found == {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2, **BF16_ON_CPU}


def test_without_dropout_the_weights_are_the_same_bit_for_bit(tmp_path):
    plain = trainer_of(without_dropout(), tmp_path)
    plain.train()
    quick = trainer_of(without_dropout(), tmp_path)
    before = {name: tensor.clone() for name, tensor in quick.model.state_dict().items()}
    with machine.prepared(quick, max_length=48, progress_in=tmp_path, guard_memory=True):
        quick.train()
    after = quick.model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in plain.model.state_dict().items())
    assert not torch.equal(before["classifier.weight"], after["classifier.weight"])


def test_the_callbacks_are_there_inside_the_block_only(tmp_path):
    trainer = trainer_of(tiny(), tmp_path)
    others = [type(one) for one in trainer.callback_handler.callbacks if not isinstance(one, PrinterCallback)]
    with machine.prepared(trainer, max_length=48, progress_in=tmp_path):
        assert [type(one) for one in watchers(trainer)] == [StopWhenNotFinite, LiveProgress]
        trainer.train()
    assert [type(one) for one in trainer.callback_handler.callbacks] == others
    assert not trainer.model._forward_hooks


def test_a_block_that_fails_leaves_no_callback_dropout_or_attention_behind(tmp_path):
    trainer = trainer_of(tiny(), tmp_path)
    kinds = {name: type(module) for name, module in trainer.model.named_modules()}
    with pytest.raises(KeyError), machine.prepared(trainer, max_length=48, progress_in=tmp_path):
        raise KeyError
    assert watchers(trainer) == []
    assert {name: type(module) for name, module in trainer.model.named_modules()} == kinds
    assert attention(trainer.model) == "sdpa"


def test_a_training_that_diverges_is_told_in_one_sentence(tmp_path):
    def plant(model):
        with torch.no_grad():
            model.classifier.weight[0, 0] = math.nan

    trainer = trainer_of(tiny(), tmp_path, look=plant)
    said = r"diverged at step 2 of 3: the logits are NaN or infinite"
    with pytest.raises(TrainingFailed, match=said) as raised, machine.prepared(trainer, max_length=48):
        trainer.train()
    assert "\n" not in str(raised.value)
    assert watchers(trainer) == []


def test_a_step_that_the_free_memory_cannot_hold_is_refused_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(footprint, "free_memory", lambda device: 1000)
    trainer = trainer_of(tiny(), tmp_path, gradient_accumulation_steps=2)
    longest = max(map(len, trainer.train_dataset["input_ids"]))
    prepared = machine.prepared(trainer, max_length=48, guard_memory=True)
    said = rf"training 4 rows of {longest} tokens at a time needs about .* GB"
    with pytest.raises(BadInput, match=said) as raised, prepared:
        pytest.fail("the block ran")
    assert "\n" not in str(raised.value)
    assert watchers(trainer) == []


def test_the_memory_is_not_looked_at_unless_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(footprint, "free_memory", lambda device: 1000)
    with machine.prepared(trainer_of(tiny(), tmp_path), max_length=48):
        pass


def test_the_progress_file_has_each_step_and_is_gone_afterwards(tmp_path):
    seen, file = [], tmp_path / "progress.json"

    class Reader(TrainerCallback):
        def on_step_begin(self, args, state, control, **more):
            seen.append(json.loads(file.read_text(encoding="utf-8")) if file.exists() else None)

    trainer = trainer_of(tiny(), tmp_path)
    trainer.add_callback(Reader())
    with machine.prepared(trainer, max_length=48, progress_in=tmp_path, what="adapter"):
        trainer.train()
    assert seen == [None, *({"what": "adapter", "step": step, "of": STEPS} for step in (1, 2))]
    assert not file.exists()


def test_without_a_folder_there_is_no_progress_file(tmp_path):
    seen = []
    trainer = trainer_of(tiny(), tmp_path, look=lambda model: seen.append((tmp_path / "progress.json").exists()))
    with machine.prepared(trainer, max_length=48):
        trainer.train()
    assert seen == [False] * STEPS


def test_the_model_is_not_wrapped_in_mixed_precision_afterwards(tmp_path):
    inside = []
    trainer = trainer_of(
        tiny(), tmp_path, precision=BF16_ON_CPU, look=lambda model: inside.append("forward" in vars(model))
    )
    batch = {"input_ids": torch.tensor([[5, 6, 7]])}
    with machine.prepared(trainer, max_length=48):
        trainer.train()
    assert inside == [True] * STEPS  # Trainer's own wrapper
    model = trainer.model.eval()
    with torch.no_grad():
        logits = model(**batch).logits
        fresh = tiny().eval()
        fresh.load_state_dict(model.state_dict())
        assert torch.equal(logits, fresh(**batch).logits)


@pytest.mark.parametrize(("max_length", "inside"), [(48, "eager"), (None, "sdpa")])
def test_attention_is_plain_inside_unless_no_attention_trains(max_length, inside, tmp_path):
    seen = []
    trainer = trainer_of(tiny(), tmp_path, precision=BF16_ON_CPU, look=lambda model: seen.append(attention(model)))
    with machine.prepared(trainer, max_length=max_length):
        trainer.train()
    assert seen == [inside] * STEPS
    assert attention(trainer.model) == "sdpa"


@pytest.mark.parametrize(("quick", "kind"), [({}, QuickDropout), ({"quick_dropout": False}, nn.Dropout)])
def test_dropout_is_quick_inside_unless_it_is_refused(quick, kind, tmp_path):
    trainer = trainer_of(tiny(), tmp_path)
    with machine.prepared(trainer, max_length=48, **quick):
        assert {type(one) for one in trainer.model.modules() if isinstance(one, nn.Dropout)} == {kind}
    assert {type(one) for one in trainer.model.modules() if isinstance(one, nn.Dropout)} == {nn.Dropout}


def test_the_dropout_of_adapters_stays_pytorch_s(tmp_path):
    trainer = trainer_of(adapted(), tmp_path)
    with machine.prepared(trainer, max_length=48):
        kinds = {name: type(module) for name, module in trainer.model.named_modules() if isinstance(module, nn.Dropout)}
    of_adapters = {name: kind for name, kind in kinds.items() if "lora_dropout" in name}
    assert set(of_adapters.values()) == {nn.Dropout}
    assert {kind for name, kind in kinds.items() if name not in of_adapters} == {QuickDropout}
