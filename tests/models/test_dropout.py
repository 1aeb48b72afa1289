import pytest
import torch
from torch import nn

from ftlab.models import loading
from ftlab.models.dropout import QuickDropout, quick_dropout


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.99])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_value_is_dropped_with_the_chance_asked_for_and_the_mean_stays(p, dtype):
    torch.manual_seed(0)
    ones = torch.ones(1001, 999, dtype=dtype)  # a count that four does not divide
    found = QuickDropout(p)(ones)
    assert (found.shape, found.dtype) == (ones.shape, dtype)
    share = (found == 0).float().mean().item()
    assert share == pytest.approx(p, abs=4 * (p * (1 - p) / ones.numel()) ** 0.5 + 1e-5)
    torch.testing.assert_close(found[found != 0].float().mean().item(), 1 / (1 - p), rtol=4e-3, atol=0)


def test_no_place_of_the_four_that_share_a_number_is_favoured_and_they_fall_apart_from_one_another():
    torch.manual_seed(0)
    dropped = (QuickDropout(0.1)(torch.ones(250_000, 4)) == 0).float()
    assert dropped.mean(dim=0).sub(0.1).abs().max() < 0.003
    together = torch.corrcoef(dropped.T) - torch.eye(4)
    assert together.abs().max() < 0.01


@pytest.mark.parametrize("p", [0.0, 1.0, 1e-7])
def test_nothing_or_everything_is_dropped_as_pytorch_does(p):
    values = torch.randn(50, 3)
    torch.testing.assert_close(QuickDropout(p)(values), nn.Dropout(p)(values))


def test_an_evaluated_model_drops_nothing():
    values = torch.randn(50, 3)
    assert QuickDropout(0.5).eval()(values) is values


def test_the_same_seed_drops_the_same_and_the_gradient_passes_through_what_is_kept():
    values = torch.randn(64, 5, requires_grad=True)
    torch.manual_seed(3)
    once = QuickDropout(0.4)(values)
    torch.manual_seed(3)
    again = QuickDropout(0.4)(values)
    assert torch.equal(once, again)
    once.sum().backward()
    assert torch.equal(values.grad != 0, once != 0)
    torch.testing.assert_close(
        values.grad[once != 0], torch.full_like(values.grad[once != 0], 1 / 0.6), rtol=1e-4, atol=0
    )


@pytest.mark.parametrize("values", [torch.empty(0, 3), torch.tensor(2.0), torch.randn(6, 4).T])
def test_empty_single_and_turned_values_keep_their_shape(values):
    assert QuickDropout(0.5)(values).shape == values.shape


def test_what_drops_in_place_is_left_as_it_is():
    model = nn.Sequential(nn.Dropout(0.5, inplace=True), nn.Dropout(0.5))
    with quick_dropout(model):
        assert [type(module) for module in model] == [nn.Dropout, QuickDropout]


@pytest.mark.parametrize("name", ["tiny-distilbert", "tiny-gpt2"])
def test_a_model_has_its_own_dropout_back_behind_the_block_even_after_an_error(name):
    model = loading.encoder(name, ["a", "b"])
    before = {place: type(module) for place, module in model.named_modules()}
    with quick_dropout(model):
        assert {type(module) for module in model.modules() if isinstance(module, nn.Dropout)} == {QuickDropout}
    assert {place: type(module) for place, module in model.named_modules()} == before
    with pytest.raises(KeyError), quick_dropout(model):
        raise KeyError
    assert {place: type(module) for place, module in model.named_modules()} == before
