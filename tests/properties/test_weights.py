"""A merge is W + scale * B @ A, a freezing plan has each parameter once, and an adapted budget fits its model."""

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ftlab.course import auto_budget, profiles
from ftlab.errors import BadInput
from ftlab.freezing import plans
from ftlab.merging import merge
from ftlab.models import loading
from tests import nightly
from tests.properties import refusals

SMALL = st.integers(1, 9)


@given(
    st.sampled_from(["Linear", "Conv1D", "Embedding"]),
    st.one_of(SMALL, st.sampled_from([64, 65, 130])),
    SMALL,
    st.integers(1, 8),
    st.floats(0.01, 64),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    st.booleans(),
    st.integers(0, 99),
)
def test_merged_weights_are_the_sum_by_hand_in_each_layout_dtype_and_rank(
    kind, outs, ins, rank, scaling, dtype, dora, seed
):
    random = torch.Generator().manual_seed(seed)
    a, b, w = (torch.randn(shape, generator=random) for shape in ((rank, ins), (outs, rank), (outs, ins)))
    stored = (
        (w if kind == "Linear" else w.T).to(dtype).contiguous()
    )  # Conv1D and Embedding have (in, out): fan_in_fan_out
    exact = stored.double() if kind == "Linear" else stored.double().T
    delta = scaling * (b.double() @ a.double())
    wanted = exact + delta
    factors = {"A": a, "B": b}
    if dora:
        factors["M"] = torch.rand(outs, generator=random) + 0.5
        wanted = wanted * (factors["M"].double() / wanted.norm(dim=1)).view(-1, 1)
    before = {name: factor.clone() for name, factor in factors.items()}
    blocks = list(merge.add(stored, factors, scaling, kind))
    found = stored.double() if kind == "Linear" else stored.double().T
    assert found.shape == wanted.shape
    assert sum(len(block) for block in blocks) == outs  # each output in one block
    assert all(torch.equal(factors[name], before[name]) for name in factors)
    step = torch.finfo(dtype).eps * (
        2 if kind == "Embedding" else 1
    )  # an embedding's delta is rounded, and then the sum
    reach = float(wanted.abs().max() + delta.abs().max()) * (step + rank * 4 * torch.finfo(torch.float32).eps)
    if not dora:
        assert float((found - wanted).abs().max()) <= reach
    elif float((exact + delta).norm(dim=1).min()) > 0.1:  # the norm of almost nothing is all rounding
        assert float((found - wanted).abs().max()) <= 20 * reach + 1e-5
        assert found.norm(dim=1).tolist() == pytest.approx(factors["M"].tolist(), rel=20 * step)


@given(SMALL, SMALL, st.integers(0, 99))
def test_an_adapter_of_zeros_changes_no_bit(outs, ins, seed):
    random = torch.Generator().manual_seed(seed)
    weight = torch.randn((outs, ins), generator=random)
    before = weight.clone()
    list(merge.add(weight, {"A": torch.randn((2, ins), generator=random), "B": torch.zeros(outs, 2)}, 8.0, "Linear"))
    assert torch.equal(weight, before)


# --- freezing ---

MODELS = ("tiny-distilbert", "tiny-gpt2", "tiny-llama")


@cache
def classifier(name):
    model = loading.encoder(name, ["bad", "good"])
    return model, loading.depth(name)


@given(
    st.sampled_from(MODELS),
    st.lists(st.tuples(st.sampled_from(plans.POLICIES), st.integers(-1, 7)), min_size=1, max_size=3),
)
@settings(max_examples=nightly.cases(few=15, nightly=1_000))
def test_what_is_frozen_and_what_trains_is_each_parameter_once_whatever_was_frozen_before(name, chosen):
    model, depth = classifier(name)
    everything = dict(model.named_parameters())
    for policy, layers in chosen:
        given_layers = layers if policy == "first_layers" else None
        try:
            plan = plans.freeze(model, policy, given_layers)
        except BadInput as problem:
            assert policy == "first_layers"
            assert not 0 <= layers <= depth
            refusals.require(problem)
            continue
        assert plan.frozen | plan.trained == everything.keys()
        assert not plan.frozen & plan.trained
        assert {name for name, one in everything.items() if one.requires_grad} == plan.trained
        assert plan.total == sum(one.numel() for one in everything.values())
        assert plan.trainable == sum(everything[name].numel() for name in plan.trained)
        assert plan.trained
        assert plan.in_front <= plan.frozen
        assert plan.depth == depth
        assert plan.memory_saved == plans.OPTIMIZER_BYTES * (plan.total - plan.trainable)
        assert plan.table()["parameters"].sum() == plan.total
        if policy == "first_layers":
            parts = {part for part, trains in plan.trains.items() if not trains}
            assert parts == {plans.EMBEDDINGS, *(plans.layer_name(number) for number in range(1, layers + 1))}


# --- budgets ---


@given(st.sampled_from([name for name in profiles.table() if "model" in profiles.names(name)]), st.data())
@settings(max_examples=nightly.cases(few=15, nightly=1_000))
def test_a_budget_that_is_adapted_stays_within_what_its_model_can_take(lesson, data):
    own = profiles.resolve(lesson, "smoke").model
    most, depth = loading.max_positions(own), loading.depth(own)
    asked = {}
    if "max_length" in profiles.names(lesson):
        asked["max_length"] = data.draw(st.one_of(st.none(), st.integers(8, 2 * most)))
    if "frozen_layers" in profiles.names(lesson):
        asked["frozen_layers"] = data.draw(st.one_of(st.none(), st.integers(1, 2 * depth)))
    budget = profiles.resolve(lesson, data.draw(st.sampled_from(profiles.PROFILES)), {"model": own, **asked})
    by_hand = {name: value for name, value in asked.items() if value is not None}
    try:
        found = auto_budget.fitted(budget, rows=False)
    except BadInput as problem:
        refusals.require(problem)
        assert by_hand.get("max_length", 0) > most or by_hand.get("frozen_layers", 0) > depth
        return
    assert found.settings.get("max_length", 0) <= most
    assert found.settings.get("frozen_layers", 0) <= depth
    assert all(found.settings[name] == value for name, value in by_hand.items())  # what you set, stays
    changed = {name for name, value in found.settings.items() if value != budget.settings[name]}
    assert changed == {*found.fitted}
