"""The meter of forgetting: the model's own loss, the same in any batch, and paired by passage."""

import numpy as np
import pandas as pd
import pytest
import torch

from ftlab.errors import BadInput
from ftlab.evaluation import forgetting
from ftlab.models import loading

pytestmark = pytest.mark.usefixtures("one_thread")
PASSAGES = ["The cart went up the hill.", "Rain.", "A long evening, and nobody spoke of the letter that had come."]


@pytest.fixture(scope="module", params=["tiny-gpt2", "tiny-phi"])
def named(request):
    return loading.causal_lm(request.param), loading.tokenizer(request.param)


def test_a_passage_s_loss_is_the_model_s_own(named):
    model, tokenizer = named
    found = forgetting.passage_losses(model, tokenizer, PASSAGES)
    for text, (tokens, loss) in zip(PASSAGES, found.itertuples(index=False), strict=True):
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            expected = model(input_ids=ids, labels=ids).loss.item()
        assert tokens == ids.shape[1] - 1
        assert loss == pytest.approx(expected, abs=1e-4)


def test_batches_do_not_matter_and_no_hook_stays(named):
    one, other = (forgetting.passage_losses(*named, PASSAGES, tokens=size) for size in (1, 4096))
    assert one["loss"].to_numpy() == pytest.approx(other["loss"].to_numpy(), abs=1e-5)
    assert not named[0]._forward_pre_hooks


def test_what_is_over_max_length_is_not_read(named):
    assert forgetting.passage_losses(*named, PASSAGES, max_length=5)["tokens"].max() == 4


def test_a_passage_of_one_token_is_refused(named):
    with pytest.raises(BadInput, match="passage 1 has no two tokens"):
        forgetting.passage_losses(*named, ["The cart went.", "a"])


def losses(*values):
    return pd.DataFrame({"tokens": [10 + place for place in range(len(values))], "loss": values})


def test_perplexity_weighs_each_token_alike():
    table = pd.DataFrame({"tokens": [1, 3], "loss": [0.0, np.log(16)]})
    assert forgetting.perplexity(table).value == pytest.approx(8.0)  # exp(3/4 log 16)


def test_the_same_model_has_changed_by_nothing():
    table = losses(*np.linspace(2, 4, 30))
    found = forgetting.change(table, table.copy())
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)


def test_the_change_is_paired_by_passage():
    """Passages differ much from each other, and each by the same from before: the ratio is sharp all the same."""
    before = losses(*np.random.default_rng(0).normal(3, 1, 40))
    after = before.assign(loss=before["loss"] + np.log(1.5))
    found = forgetting.change(before, after)
    assert (found.low, found.value, found.high) == pytest.approx((1.5, 1.5, 1.5))
    own = forgetting.perplexity(before)
    assert own.high / own.low > 1.2


def test_other_passages_are_refused():
    with pytest.raises(BadInput, match="other passages"):
        forgetting.change(losses(1.0, 2.0), losses(1.0, 2.0, 3.0))


def test_the_general_text_is_shipped_in_passages():
    assert len(forgetting.general_passages()) >= 40
