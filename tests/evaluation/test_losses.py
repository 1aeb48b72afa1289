"""Losses: each row's is the model's own in any batch; the mean is weighted by tokens; differences are paired."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset

from ftlab.data import prompts
from ftlab.data.prompts import IGNORED
from ftlab.errors import BadInput
from ftlab.evaluation import losses
from ftlab.models import loading

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", params=["tiny-gpt2", "tiny-phi"])
def named(request):
    return loading.causal_lm(request.param), loading.tokenizer(request.param)


@pytest.fixture(scope="module")
def rows(named):
    """Rows of different lengths, each with a prompt that is not supervised."""
    pairs = [
        {"instruction": "Name it.", "input": "a film " * (number % 5), "output": "good " * (1 + number % 4)}
        for number in range(11)
    ]
    return prompts.encode(Dataset.from_list(pairs), named[1], max_length=80)[0]


def own_losses(model, rows) -> list[float]:
    """The loss that the model itself returns, one row at a time and without padding."""
    found = []
    for row in rows:
        with torch.no_grad():
            found.append(model(**{name: torch.tensor([row[name]]) for name in ("input_ids", "labels")}).loss.item())
    return found


def test_the_loss_of_a_row_is_the_model_s_own_masked_loss(named, rows):
    found = losses.row_losses(*named, rows)
    assert found["loss"].to_numpy() == pytest.approx(own_losses(named[0], rows), abs=1e-4)
    assert found["tokens"].tolist() == [sum(label != IGNORED for label in labels) for labels in rows["labels"]]
    assert found["loss"].nunique() == len(set(map(tuple, rows["input_ids"])))  # the rows do differ


def test_batches_and_the_order_of_rows_do_not_matter(named, rows):
    alone = losses.row_losses(*named, rows, tokens=1)
    order = np.random.default_rng(0).permutation(len(rows))
    for size in (100, 10_000):
        other = losses.row_losses(*named, rows.select(order), tokens=size)
        assert other["tokens"].tolist() == alone["tokens"][order].tolist()
        assert other["loss"].to_numpy() == pytest.approx(alone["loss"][order].to_numpy(), abs=1e-5)


def test_gaps_between_labels_and_a_label_on_the_first_token_are_right_too(named, rows):
    """A turn of the user between two answers; and nothing predicts a first token."""
    row = {"input_ids": rows[3]["input_ids"], "labels": list(rows[3]["input_ids"])}
    row["labels"][4:9] = [IGNORED] * 5
    found = losses.row_losses(*named, Dataset.from_list([row, rows.select_columns(list(row))[0]]))
    assert found["tokens"][0] == len(row["input_ids"]) - 1 - 5
    assert found["loss"][0] == pytest.approx(own_losses(named[0], [row])[0], abs=1e-4)


def test_the_head_runs_where_a_label_counts_and_nowhere_else(named, rows):
    model, tokenizer = named
    shapes = []
    head = model.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda _, given: shapes.append(given[0].numel() // head.in_features))
    found = losses.row_losses(model, tokenizer, rows)
    hook.remove()
    assert sum(shapes) == found["tokens"].sum()


@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_off_and_the_model_is_left_as_it_was(named, rows, training):
    model = copy.deepcopy(named[0]).train(training)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    found = losses.row_losses(model, named[1], rows)
    assert found["loss"].to_numpy() == pytest.approx(own_losses(named[0], rows), abs=1e-4)
    assert model.training is training
    model.forward = None  # a forward that fails
    with pytest.raises(TypeError):
        losses.row_losses(model, named[1], rows)
    assert model.training is training
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_the_loss_of_a_model_in_half_precision_is_taken_in_single(named, rows, dtype):
    """In half precision the cross-entropy itself would be rounded to two or three digits."""
    model = copy.deepcopy(named[0]).to(dtype)
    found = losses.row_losses(model, named[1], rows)["loss"].to_numpy()
    assert np.isfinite(found).all()
    assert found == pytest.approx(own_losses(named[0], rows), rel=0.02)
    assert not (found == torch.tensor(found).to(dtype).double().numpy()).all()


def test_a_row_without_a_label_is_refused(named, rows):
    columns = ["input_ids", "labels"]
    empty = {"input_ids": [5, 6, 7], "labels": [5, IGNORED, IGNORED]}  # but on the first token
    with pytest.raises(BadInput, match="row 2 has no label to predict") as raised:
        losses.row_losses(*named, Dataset.from_list([*rows.select_columns(columns).select(range(2)), empty]))
    assert "\n" not in str(raised.value)


def test_no_rows_are_refused(named, rows):
    with pytest.raises(BadInput, match="there are no rows"):
        losses.row_losses(*named, rows.select([]))


# --- over rows -----------------------------------------------------------------------------------------------------
def table(seed=0, rows=60) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame({"tokens": rng.integers(1, 40, rows), "loss": rng.gamma(4.0, 0.7, rows)})


def test_the_mean_weighs_each_token_alike():
    found = losses.mean_loss(pd.DataFrame({"tokens": [1, 3], "loss": [4.0, 2.0]}))
    assert found.value == pytest.approx(2.5)
    assert (found.low, found.high) == (2.0, 4.0)


def test_rows_cut_in_two_have_the_same_mean():
    whole = table().assign(tokens=lambda frame: 2 * frame["tokens"])
    halves = pd.concat([whole.assign(tokens=whole["tokens"] // 2)] * 2, ignore_index=True)
    assert losses.mean_loss(halves).value == pytest.approx(losses.mean_loss(whole).value)


def test_the_interval_holds_the_value_narrows_with_rows_and_widens_with_the_level():
    few, many = losses.mean_loss(table(rows=40)), losses.mean_loss(table(rows=1000))
    assert few.low < few.value < few.high
    assert many.high - many.low < (few.high - few.low) / 3
    sure = losses.mean_loss(table(rows=40), level=0.99)
    assert sure.low < few.low < few.high < sure.high
    assert (few.level, sure.level) == (0.95, 0.99)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    """Rows with more tokens have another loss here, so that drawing tokens instead of rows would be wrong."""
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(100):
        tokens = rng.integers(1, 20, 50)
        drawn = pd.DataFrame({"tokens": tokens, "loss": rng.normal(2 + 0.1 * tokens, 1)})
        truth = 2 + 0.1 * (np.arange(1, 20) ** 2).sum() / np.arange(1, 20).sum()
        found = losses.mean_loss(drawn, seed=seed)
        covered += found.low <= truth <= found.high
    assert 89 <= covered <= 99


def test_equal_seeds_give_equal_intervals_and_others_do_not():
    one, again, other = (losses.mean_loss(table(), seed=seed) for seed in (0, 0, 1))
    assert one == again
    assert one.value == other.value
    assert (one.low, one.high) != (other.low, other.high)


def test_the_difference_is_after_less_before_and_paired():
    """Rows differ much from each other, and all change by the same: the difference still has a narrow interval."""
    before = table()
    found = losses.difference(before, before.assign(loss=before["loss"] - 0.3))
    assert (found.low, found.value, found.high) == pytest.approx((-0.3, -0.3, -0.3))
    own = losses.mean_loss(before)
    assert own.high - own.low > 0.1


def test_a_difference_turned_round_has_the_other_sign():
    before, after = table(), table().assign(loss=table(seed=1)["loss"])
    there, back = losses.difference(before, after), losses.difference(after, before)
    assert (back.low, back.value, back.high) == pytest.approx((-there.high, -there.value, -there.low))
    assert there.value == pytest.approx(losses.mean_loss(after).value - losses.mean_loss(before).value)


@pytest.mark.parametrize("other", [table(rows=59), table().iloc[::-1], table().assign(tokens=3)])
def test_other_rows_or_tokens_are_refused(other):
    with pytest.raises(BadInput, match="other rows or tokens; measure both on the same rows"):
        losses.difference(table(), other)


def test_a_loss_that_is_not_a_number_is_not_hidden():
    broken = table()
    broken.loc[3, "loss"] = np.nan
    for found in (losses.mean_loss(broken), losses.difference(table(), broken)):
        assert np.isnan([found.value, found.low, found.high]).all()


def test_of_rows_that_share_a_group_the_groups_are_drawn():
    """Each row twice, with its copy as a group, has the interval of the rows once; blank groups change nothing."""
    rng = np.random.default_rng(0)
    before = pd.DataFrame({"tokens": rng.integers(1, 9, 20), "loss": rng.random(20) + 1})
    after = before.assign(loss=before["loss"] - rng.random(20) / 4)
    twice = [
        pd.concat([each, each], ignore_index=True).assign(group=[f"g{number % 20}" for number in range(40)])
        for each in (before, after)
    ]
    assert losses.difference(*twice) == losses.difference(before, after)
    assert losses.mean_loss(twice[0]) == losses.mean_loss(before)
    assert losses.mean_loss(before.assign(group="")) == losses.mean_loss(before)
    apart = losses.mean_loss(twice[0].drop(columns="group"))
    assert apart.high - apart.low < 0.9 * (losses.mean_loss(before).high - losses.mean_loss(before).low)


def test_the_groups_of_the_rows_come_along(named, rows):
    grouped = rows.add_column("group", [f"g{number % 3}" for number in range(len(rows))])
    assert losses.row_losses(*named, grouped)["group"].tolist() == grouped["group"]
    assert "group" not in losses.row_losses(*named, rows)
