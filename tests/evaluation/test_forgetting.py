"""Forgetting: losses are the model's own in any batch, and changes are paired by passage."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from tokenizers.processors import TemplateProcessing

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


def test_batches_do_not_matter_and_the_model_is_left_as_it_was(named):
    one, other = (forgetting.passage_losses(*named, PASSAGES, tokens=size) for size in (1, 4096))
    assert one["loss"].to_numpy() == pytest.approx(other["loss"].to_numpy(), abs=1e-5)
    assert not named[0]._forward_pre_hooks
    assert not named[0].training


def test_what_is_over_max_length_is_not_read(named):
    assert forgetting.passage_losses(*named, PASSAGES, max_length=5)["tokens"].max() == 4


def test_a_passage_of_one_token_is_refused(named):
    with pytest.raises(BadInput, match="passage 1 has fewer than two tokens"):
        forgetting.passage_losses(*named, ["The cart went.", "a"])


@pytest.fixture
def adding(named):
    """The same tokenizer, as some are: it puts a token before each text (BOS), or after it (EOS), by itself."""

    def changed(single: str):
        tokenizer = copy.deepcopy(named[1])
        tokenizer.bos_token = None  # that of the tiny ones is their EOS
        end = (tokenizer.eos_token, tokenizer.eos_token_id)
        single = single.replace("EOS", tokenizer.eos_token)
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=single, special_tokens=[end])
        return tokenizer

    return changed


def test_a_token_that_begins_every_text_predicts_the_first_and_is_not_predicted(named, adding):
    model, tokenizer = named
    plain, begun = (forgetting.passage_losses(model, one, ["a", *PASSAGES][start:]) for one, start in (
        (tokenizer, 1), (adding("EOS $A"), 0)))  # fmt: skip
    assert begun["tokens"].tolist() == [1, *(plain["tokens"] + 1)]


def test_probes_are_each_model_s_own_greedy_words_side_by_side(named):
    model, tokenizer = named
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(3)
    found = forgetting.probes({"before": model, "after": other, "again": model}, tokenizer, tokens=6)
    assert found.index.tolist() == list(forgetting.PROBES)
    assert found.columns.tolist() == ["before", "after", "again"]
    assert found["before"].equals(found["again"])
    assert not found["before"].equals(found["after"])
    for name, one in (("before", model), ("after", other)):
        for text, said in found[name].items():
            ids = tokenizer(text, return_tensors="pt")
            with torch.no_grad():
                alone = one.generate(**ids, max_new_tokens=6, do_sample=False, pad_token_id=tokenizer.pad_token_id)
            assert said == tokenizer.decode(alone[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
            assert not said.startswith(text)  # what it says, without what it was given


def test_probes_go_on_from_the_beginning_and_not_from_its_end(named, adding):
    model, tokenizer = named
    plain, ended = (forgetting.probes({"it": model}, one, tokens=6) for one in (tokenizer, adding("$A EOS")))
    assert plain.equals(ended)


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
    """Passages differ much from each other, and all change by the same: the ratio still has a narrow interval."""
    before = losses(*np.random.default_rng(0).normal(3, 1, 40))
    after = before.assign(loss=before["loss"] + np.log(1.5))
    found = forgetting.change(before, after)
    assert (found.low, found.value, found.high) == pytest.approx((1.5, 1.5, 1.5))
    own = forgetting.perplexity(before)
    assert own.high / own.low > 1.2


def test_other_passages_are_refused():
    with pytest.raises(BadInput, match="other rows or tokens"):
        forgetting.change(losses(1.0, 2.0), losses(1.0, 2.0, 3.0))


def test_the_general_text_is_shipped_in_passages():
    assert len(forgetting.general_passages()) >= 40
