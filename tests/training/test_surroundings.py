import pytest
import torch
from transformers import DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments, set_seed

from ftlab.data import sources
from ftlab.errors import BadInput, TrainingFailed
from ftlab.models import footprint, loading
from ftlab.training import surroundings
from ftlab.training.surroundings import LiveProgress, StopWhenNotFinite, enough_memory, mixed_precision


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
            seen.append(self.file.read_text())

    train(tmp_path, callbacks=[Reader(tmp_path)])
    assert seen[-1] == '{"what": "training", "step": 4, "of": 4}'
    assert not (tmp_path / "progress.json").exists()


@pytest.mark.parametrize(
    ("cuda", "gpu_bf16", "mps", "cpu", "expected"),
    [
        (True, True, False, {}, {"fp16": False, "bf16": True}),
        (True, False, False, {"amx_bf16": True}, {"fp16": True, "bf16": False}),  # the GPU is asked, not the CPU
        (False, True, True, {"avx512_bf16": True}, {"fp16": False, "bf16": False}),
        (False, True, False, {"avx512_bf16": True, "amx_bf16": False}, {"fp16": False, "bf16": True, "use_cpu": True}),
        (False, True, False, {"amx_bf16": True}, {"fp16": False, "bf16": True, "use_cpu": True}),
        (False, True, False, {"avx512_bf16": False, "avx2": True}, {"fp16": False, "bf16": False}),
        (False, True, False, {}, {"fp16": False, "bf16": False}),
    ],
)
def test_half_precision_is_asked_for_only_where_the_device_has_it(monkeypatch, cuda, gpu_bf16, mps, cpu, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: gpu_bf16 or including_emulation)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: cpu, raising=False)
    assert mixed_precision() == expected


def test_a_torch_that_cannot_tell_the_cpu_s_instructions_trains_in_fp32(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert mixed_precision() == {"fp16": False, "bf16": False}


class Plant(TrainerCallback):
    """A NaN in the head's weights after a step."""

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


@pytest.fixture
def model():
    return loading.encoder("tiny-distilbert", ["negative", "positive"])


def refused(model, raising=None, **options):
    def training():
        with enough_memory(model, **{"batch_size": 32, "length": 128, **options}):
            raise raising or AssertionError("training was started")

    with pytest.raises(BadInput) as raised:
        training()
    assert "\n" not in str(raised.value)
    return raised.value


def test_a_training_that_the_free_memory_cannot_hold_is_refused_beforehand(model, monkeypatch):
    monkeypatch.setattr(footprint, "training_memory", lambda model, batch_size, length: 9_800_000_000)
    monkeypatch.setattr(footprint, "free_memory", lambda device: 3_000_000_000)
    message = str(refused(model))
    assert "32 rows of 128 tokens" in message
    assert "about 9.8 GB, and 3.0 GB are free" in message
    assert "batch_size 16, or a smaller max_length" in message


def test_what_is_needed_and_what_is_free_are_compared_at_the_byte(model, monkeypatch):
    needed = footprint.training_memory(model, batch_size=32, length=128)
    monkeypatch.setattr(footprint, "free_memory", lambda device: needed - 1)
    refused(model)
    monkeypatch.setattr(footprint, "free_memory", lambda device: needed)
    with enough_memory(model, batch_size=32, length=128):
        pass


def test_a_batch_of_one_row_cannot_be_asked_to_shrink(model, monkeypatch):
    monkeypatch.setattr(footprint, "free_memory", lambda device: 1000)
    message = str(refused(model, batch_size=1))
    assert "batch_size" not in message
    assert "a smaller max_length (the longest row has 128 tokens)" in message


@pytest.mark.parametrize(
    "problem",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nGPU 0 has ..."),
        MemoryError(),
        MemoryError("Unable to allocate 9. GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127]\nDefaultCPUAllocator: can't allocate memory: you tried to "
                     "allocate 99 bytes. Error code 12 (Cannot allocate memory)"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 99 bytes."),
        RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB)"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("std::bad_alloc"),
    ],
    ids=lambda problem: type(problem).__name__ + str(problem)[:20],
)  # fmt: skip
def test_memory_that_runs_out_in_training_is_one_sentence_with_numbers(model, problem, monkeypatch):
    monkeypatch.setattr(footprint, "training_memory", lambda model, batch_size, length: 1_500_000_000)
    monkeypatch.setattr(footprint, "free_memory", lambda device: 2_000_000_000)
    raised = refused(model, problem)
    assert "ran out of memory with 32 rows of up to 128 tokens" in str(raised)
    assert "1.5 GB were expected, 2.0 GB were free" in str(raised)
    assert "batch_size 16" in str(raised)
    assert raised.__cause__ is problem


def test_what_torch_s_allocator_says_on_this_machine_is_understood(model, monkeypatch):
    monkeypatch.setattr(footprint, "free_memory", lambda device: 10**12)
    with pytest.raises(BadInput, match="ran out of memory"), enough_memory(model, batch_size=2, length=8):
        torch.empty(2**50)


def test_of_a_batch_in_pieces_only_the_length_is_advised(model, monkeypatch):
    monkeypatch.setattr(footprint, "training_memory", lambda model, batch_size, length: batch_size * 10**9)
    monkeypatch.setattr(footprint, "free_memory", lambda device: 2 * 10**9)
    with pytest.raises(BadInput) as raised, enough_memory(model, batch_size=16, length=512, accumulation=4):
        pass
    assert "training 4 rows of 512 tokens at a time needs about 4.0 GB" in str(raised.value)
    assert "batch_size" not in str(raised.value)
    assert "a smaller max_length" in str(raised.value)


@pytest.mark.parametrize(
    "problem", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("no"), TrainingFailed("diverged")]
)
def test_other_errors_pass(model, problem, monkeypatch):
    monkeypatch.setattr(footprint, "free_memory", lambda device: 10**12)
    with pytest.raises(type(problem)) as raised, enough_memory(model, batch_size=2, length=8):
        raise problem
    assert raised.value is problem


FP32, BF16 = {"fp16": False, "bf16": False}, {"fp16": False, "bf16": True, "use_cpu": True}


@pytest.mark.parametrize(
    ("batch_size", "length", "precision", "expected"),
    [
        (16, 64, FP32, 1),
        (16, 128, FP32, 1),
        (16, 256, FP32, 2),
        (16, 512, FP32, 4),
        (16, 256, BF16, 1),
        (16, 512, BF16, 2),
        (50, 64, FP32, 2),  # equal pieces, though 32 rows would fit
        (17, 256, FP32, 1),  # which does not divide
        (17, 512, FP32, 1),
        (22, 256, FP32, 1),  # but into pieces of two, a quarter of what fits
        (4, 8192, FP32, 4),  # a row that is a piece by itself
        (1, 8192, FP32, 1),
    ],
)
def test_a_batch_of_long_rows_goes_through_a_cpu_in_equal_pieces(batch_size, length, precision, expected, monkeypatch):
    monkeypatch.setattr(loading, "best_device", lambda: "cpu")
    assert surroundings.pieces(batch_size, length=length, precision=precision) == expected


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_gpu_takes_the_batch_whole_unless_the_cpu_is_asked_for(device, monkeypatch):
    monkeypatch.setattr(loading, "best_device", lambda: device)
    assert surroundings.pieces(16, length=512, precision=FP32) == 1
    assert surroundings.pieces(16, length=512, precision={**FP32, "use_cpu": True}) == 4


@pytest.mark.parametrize(
    ("precision", "max_length", "inside"),
    [
        ({"bf16": True, "use_cpu": True}, 64, "eager"),
        ({"bf16": True, "use_cpu": True}, 129, "sdpa"),
        ({"bf16": True}, 64, "sdpa"),  # a GPU
        ({"bf16": False}, 64, "sdpa"),
    ],
)
def test_attention_is_plain_only_where_that_is_quicker_and_as_before_behind_the_block(precision, max_length, inside):
    model = loading.encoder("tiny-distilbert", ["a", "b"])
    assert model.config._attn_implementation == "sdpa"
    with surroundings.quick_attention(model, max_length=max_length, precision=precision):
        assert model.config._attn_implementation == inside
    assert model.config._attn_implementation == "sdpa"


def test_plain_attention_answers_the_same():
    model, tokenizer = loading.encoder("tiny-distilbert", ["a", "b"]).eval(), loading.tokenizer("tiny-distilbert")
    batch = tokenizer(["a long and lovely film", "bad"], padding=True, return_tensors="pt")
    with torch.no_grad():
        before = model(**batch).logits
        with surroundings.quick_attention(model, max_length=64, precision={"bf16": True, "use_cpu": True}):
            inside = model(**batch).logits
    torch.testing.assert_close(before, inside, atol=1e-6, rtol=1e-5)
