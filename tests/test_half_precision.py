"""Lessons where the machine computes in half precision, as on a GPU: what holds in fp32 alone is not promised there."""

import pytest
import torch

from ftlab.models import devices
from tests import cells
from tests.nightly import few_by_day

pytestmark = pytest.mark.slow

EXACT = "difference to the base's logits at step 0: at most 0"
BATCHES = "answers that a batch changes, in fp32: at most 0"


@pytest.fixture
def in_bf16(monkeypatch, one_thread):
    """This machine, as if it held frozen weights and trained in bf16."""
    precision = {"fp16": False, "bf16": True, "use_cpu": True}
    monkeypatch.setattr(devices, "frozen_dtype", lambda device=None: torch.bfloat16)
    monkeypatch.setattr(devices, "mixed_precision", lambda: dict(precision))


def claims(run) -> dict[str, bool]:
    return {claim["claim"]: claim["held"] for claim in run["claims"]}


@pytest.mark.parametrize("lesson", few_by_day(["02", "03", "04"], "04"))
def test_a_lesson_that_trains_in_half_precision_keeps_what_it_promises_always(lesson, in_bf16, tmp_path):
    run = cells.run(lesson, tmp_path, {})
    assert any(claim["held"] for claim in run["claims"])


@pytest.mark.parametrize("variant", few_by_day(["lora", "dora", "pissa"], "dora"))
def test_lesson_05_says_what_dora_does_not_keep_and_holds_the_others_to_it(variant, in_bf16, tmp_path):
    run = cells.run("05", tmp_path, {"variant": variant, "target_modules": "all-linear"})
    held = claims(run)
    assert held.get(EXACT) == {"lora": True, "dora": False, "pissa": None}[variant]
    assert ("promised in fp32 alone" in run["said"]) == (variant == "dora")


@pytest.mark.night
def test_lesson_06_does_not_promise_that_a_batch_changes_nothing(in_bf16, tmp_path):
    run = cells.run("06", tmp_path, {})
    assert claims(run)[BATCHES] is False
    assert "in bfloat16" in run["said"]


def test_in_full_precision_both_are_promised(one_thread, tmp_path):
    """As far as smoke promises anything: what must hold always is held."""
    run = cells.run("05", tmp_path, {"variant": "dora"})
    assert claims(run)[EXACT] is True
    assert "fp32 alone" not in run["said"]
