"""What breaks at bitsandbytes' next release."""

import bitsandbytes
import pytest
import torch
from bitsandbytes import functional

from ftlab.internals import bitsandbytes as bitsandbytes_internals

STORED = torch.linspace(-1, 1, 64 * 128).view(64, 128)


def four_bits(*, double=True):
    layer = bitsandbytes.nn.Linear4bit(
        128, 64, bias=False, compute_dtype=torch.float32, compress_statistics=double, quant_type="nf4"
    )
    layer.load_state_dict({"weight": STORED.clone()})
    return layer.to("cpu")


@pytest.fixture(scope="module")
def layer():
    return four_bits()


def test_the_switch_that_packs_weights_is_there(layer):
    assert list(bitsandbytes_internals.layers_that_pack(torch.nn.Sequential(layer))) == [layer], (
        f"bitsandbytes' 4-bit layer no longer has {bitsandbytes_internals.UNPACKED}: "
        "ftlab.internals.bitsandbytes needs another way to keep it from packing its weight"
    )


def test_a_layer_packs_its_weight_in_evaluation_unless_the_switch_is_off():
    one, other = four_bits(), four_bits()
    if not getattr(one, bitsandbytes_internals.UNPACKED):
        pytest.skip("bitsandbytes packs weights on a CPU with AVX-512 BF16 alone")
    setattr(other, bitsandbytes_internals.UNPACKED, False)
    with torch.inference_mode():
        for each in (one, other):
            each.eval()(torch.ones(1, 128))
    packed = [bitsandbytes_internals.is_packed(each.weight) for each in (one, other)]
    assert packed == [True, False], "bitsandbytes packs weights otherwise: see ftlab.internals.bitsandbytes.is_packed"
    assert bitsandbytes_internals.is_4bit_of(one.weight, STORED), "see ftlab.internals.bitsandbytes.is_4bit_of"


def test_the_function_that_packs_a_weight_is_there():
    assert hasattr(functional, "_convert_weight_packed_for_cpu"), (
        "bitsandbytes no longer has functional._convert_weight_packed_for_cpu: "
        "ftlab.internals.bitsandbytes.is_4bit_of needs another way to pack"
    )


def test_a_weight_in_4_bits_is_known_by_its_state(layer):
    assert bitsandbytes_internals.is_quantized_to_4bit(layer.weight), (
        "bitsandbytes' 4-bit weight no longer has a quant_state: see ftlab.internals.bitsandbytes"
    )
    assert bitsandbytes_internals.is_4bit(layer.weight)
    assert not bitsandbytes_internals.is_4bit(torch.nn.Parameter(STORED))
    assert not bitsandbytes_internals.is_packed(layer.weight)


@pytest.mark.parametrize("double", [True, False])
def test_a_weight_in_4_bits_is_what_it_was_made_from_and_nothing_else(double):
    weight = four_bits(double=double).weight
    assert bitsandbytes_internals.is_4bit_of(weight, STORED), (
        "bitsandbytes quantizes otherwise while it loads: see ftlab.internals.bitsandbytes.is_4bit_of"
    )
    assert not bitsandbytes_internals.is_4bit_of(weight, STORED.flip(0))


@pytest.mark.parametrize("double", [True, False])
def test_a_value_that_is_no_number_shows_in_the_scales(double):
    broken = four_bits(double=double)
    assert bitsandbytes_internals.scales(broken.weight).isfinite().all()
    data = STORED.clone()
    data[0, 0] = float("nan")
    layer = bitsandbytes.nn.Linear4bit(128, 64, bias=False, compress_statistics=double, quant_type="nf4")
    layer.load_state_dict({"weight": data})
    assert not bitsandbytes_internals.scales(layer.to("cpu").weight).isfinite().all(), (
        "bitsandbytes keeps its scales otherwise: see ftlab.internals.bitsandbytes.scales"
    )


def test_a_weight_in_8_bits_is_what_it_was_made_from_and_nothing_else():
    layer = bitsandbytes.nn.Linear8bitLt(128, 64, bias=False, has_fp16_weights=False)
    layer.load_state_dict({"weight": STORED.clone()})
    layer = layer.to("cpu")
    assert layer.weight.dtype == torch.int8
    assert bitsandbytes_internals.is_8bit_of(layer.weight, layer, STORED), (
        "bitsandbytes quantizes to 8 bits otherwise: see ftlab.internals.bitsandbytes.is_8bit_of"
    )
    assert not bitsandbytes_internals.is_8bit_of(layer.weight, layer, STORED.flip(0))
