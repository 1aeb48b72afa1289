import pytest
import torch

from ftlab.errors import BadInput, TrainingFailed
from ftlab.memory import footprint
from ftlab.memory.guard import enough_memory
from ftlab.models import loading


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
