import pytest
import torch
from torch import nn

from ftlab.internals.transformers import attention
from ftlab.models import devices, loading
from ftlab.training import cpu_speed
from ftlab.training.cpu_speed import QuickDropout, quick_dropout


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
    monkeypatch.setattr(devices, "best_device", lambda: "cpu")
    assert cpu_speed.pieces(batch_size, length=length, precision=precision) == expected


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_gpu_takes_the_batch_whole_unless_the_cpu_is_asked_for(device, monkeypatch):
    monkeypatch.setattr(devices, "best_device", lambda: device)
    assert cpu_speed.pieces(16, length=512, precision=FP32) == 1
    assert cpu_speed.pieces(16, length=512, precision={**FP32, "use_cpu": True}) == 4


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
    assert attention(model) == "sdpa"
    with cpu_speed.quick_attention(model, max_length=max_length, precision=precision):
        assert attention(model) == inside
    assert attention(model) == "sdpa"


def test_plain_attention_answers_the_same():
    model, tokenizer = loading.encoder("tiny-distilbert", ["a", "b"]).eval(), loading.tokenizer("tiny-distilbert")
    batch = tokenizer(["a long and lovely film", "bad"], padding=True, return_tensors="pt")
    with torch.no_grad():
        before = model(**batch).logits
        with cpu_speed.quick_attention(model, max_length=64, precision={"bf16": True, "use_cpu": True}):
            inside = model(**batch).logits
    torch.testing.assert_close(before, inside, atol=1e-6, rtol=1e-5)
