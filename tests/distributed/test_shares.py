"""The rows of a step, divided among processes and pieces: each row once in an epoch, and no part empty."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ftlab.internals import transformers as internals


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("rows", [48, 51, 49, 3])
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
        lengths = [number % 7 + 1 for number in range(rows)] + [1]  # the last row is nobody's
        sampler = trainer._get_train_sampler({"input_ids": [[0] * length for length in lengths]})
        batches = list(sampler)
        assert len(batches) == len(sampler)
        assert all(batches)
        taken.append(batches)
    assert len(drawn) == 1
    assert len(taken[0]) == len(taken[1])
    each = sorted(row for batches in taken for batch in batches for row in batch)
    assert each[:rows] == list(range(rows))
    assert set(each[rows:]) <= {rows}
    assert len(taken[0]) == accumulation * -(-rows // (8 * accumulation))  # the steps of one process
    first_step = {row for batches in taken for batch in batches[:accumulation] for row in batch}
    assert first_step - {rows} == set(drawn[0][: 8 * accumulation])
