"""The rows of a step, divided among processes and pieces: each row once in an epoch, no part empty."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftlab.internals import transformers as internals


@given(st.integers(1, 200), st.integers(1, 40), st.integers(1, 9))
def test_steps_hold_each_row_once_and_fill_each_part(rows, size, shares):
    size = max(size, shares)
    steps = internals.steps_of(range(rows), size, shares)
    assert [row for step in steps for row in step] == list(range(rows))
    assert all(len(step) >= min(shares, rows) for step in steps)
    assert all(len(step) == size for step in steps[:-1])
    assert len(steps[-1]) < size + shares


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("rows", [48, 51, 49])
def test_the_processes_take_each_row_once_in_the_order_of_the_first(rows, accumulation, monkeypatch):
    class Plain:
        def _get_train_sampler(self, train_dataset=None):
            raise AssertionError("of one process alone")

    drawn = []

    def broadcast(values):
        if values[0] is not None:
            drawn.append(values[0])
        values[0] = drawn[-1]
        return values

    monkeypatch.setattr("accelerate.utils.broadcast_object_list", broadcast)
    taken = []
    for rank in range(2):
        trainer = internals.in_one_order(Plain)()
        trainer.args = SimpleNamespace(
            world_size=2, process_index=rank, gradient_accumulation_steps=accumulation, train_batch_size=4
        )
        sampler = trainer._get_train_sampler({"input_ids": [[0] * (number % 7 + 1) for number in range(rows)]})
        batches = list(sampler)
        assert len(batches) == len(sampler)
        assert all(batches)
        taken.append(batches)
    assert len(drawn) == 1
    assert len(taken[0]) == len(taken[1])
    assert sorted(row for batches in taken for batch in batches for row in batch) == list(range(rows))
    first_step = [row for batches in taken for batch in batches[:accumulation] for row in batch]
    assert sorted(first_step) == sorted(drawn[0][: 8 * accumulation])
