"""Sizing on paper: invariants, agreement with the memory model, and published trainings."""

import dataclasses
import re
import subprocess
import sys

import pytest
from transformers import DeepseekV3Config, Gemma3Config, LlamaConfig, MixtralConfig, Qwen3MoeConfig

from ftlab.errors import BadInput
from ftlab.memory import footprint, meta_models, sizing
from tests import pages

SMALL = LlamaConfig(
    vocab_size=400, hidden_size=64, intermediate_size=160, num_hidden_layers=4, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=4096, tie_word_embeddings=True,
)  # fmt: skip
BIG = "llama-2-70b"
PARTS = ("weights", "gradients", "optimizer", "gathered", "activations", "logits", "runtime")
SHARDED = ("weights", "gradients", "optimizer")


def planned(*given, **settings):
    return sizing.plan(SMALL, *given, **{"tokens": 1e9, "length": 64, **settings})


def counted(model, **settings):
    given = {"batch_size": 1, "length": 256, "dtype": "bfloat16", "device": "cuda", **settings}
    return footprint.estimate(model, **given)


def test_twice_the_tokens_take_twice_the_hours_and_no_more_memory():
    once, twice = planned(tokens=1e9), planned(tokens=2e9)
    assert twice.hours == pytest.approx(2 * once.hours)
    assert (twice.total, twice.tokens_per_second) == (once.total, once.tokens_per_second)
    assert twice.text_bytes == 2 * once.text_bytes == 8e9
    assert twice.id_bytes == 2 * once.id_bytes == 4e9  # 2 bytes an id: the vocabulary is small


@pytest.mark.parametrize("gpus", [2, 8, 64])
def test_sharding_divides_weights_gradients_and_optimizer_and_nothing_else(gpus):
    alone, sharded, copied = planned(), planned(gpus=gpus), planned(gpus=gpus, sharding="none")
    for part in SHARDED:
        assert getattr(sharded, part) == getattr(alone, part) / gpus
        assert getattr(copied, part) == getattr(alone, part)
    for part in ("activations", "logits", "runtime"):
        assert getattr(sharded, part) == getattr(copied, part) == getattr(alone, part)
    assert sharded.gathered > 0 == alone.gathered
    assert copied.gathered == alone.gradients  # DDP's buckets
    assert sharded.tokens_per_step == gpus * alone.tokens_per_step


@pytest.mark.parametrize("sharding", sizing.SHARDINGS)
def test_one_gpu_sends_nothing_and_sharded_ones_send_half_as_much_again(sharding):
    assert planned(sharding=sharding).communication_seconds == 0
    found = planned(gpus=8, sharding=sharding)
    sent = {"none": 2, "fsdp": 3}[sharding] * 2 * found.parameters * 7 / 8
    assert found.communication_seconds == pytest.approx(sent / (450e9 * sizing.LINK_SHARE), rel=0.001)


def test_beyond_a_node_the_slower_link_counts():
    nodes = planned(gpus=16)
    assert nodes.communication_seconds > planned(gpus=8).communication_seconds
    slow = dataclasses.replace(sizing.GPUS["h100"], network=sizing.GPUS["h100"].network / 10)
    assert planned(gpu=slow, gpus=16).communication_seconds == pytest.approx(10 * nodes.communication_seconds)
    assert planned(gpu=slow, gpus=8) == dataclasses.replace(planned(gpus=8), gpu=slow)


def test_the_bottleneck_is_the_slowest_stream_and_sets_the_hours():
    base = planned()
    for slow, limit in (
        ({"compute_seconds": 9.0}, "compute"), ({"communication_seconds": 9.0}, "interconnect"),
        ({"data_seconds": 9.0}, "data"), ({"compute_seconds": 9.0, "weights": 0.91 * 80e9}, "memory"),
    ):  # fmt: skip
        found = dataclasses.replace(base, **slow)
        assert found.bottleneck == limit
        assert found.hours == pytest.approx(base.tokens / base.tokens_per_step * 9 / 3600)
    assert planned(text_rate=1.0).bottleneck == "data"


def test_lora_needs_less_than_full_fine_tuning_and_qlora_less_than_lora():
    full, lora, qlora = (sizing.plan("microsoft/phi-2", 1e6, method=method) for method in footprint.METHODS)
    assert full.total > 2 * lora.total > 2 * qlora.total
    assert lora.hours == qlora.hours == pytest.approx(full.hours * 4 / 6, rel=0.01)  # and the adapters


def test_70b_in_full_does_not_fit_on_a_node_of_80_gb_and_its_parts_sum():
    for sharding, fewest in (("none", 18 * 68_976_648_192), ("fsdp", 2 * 68_976_648_192)):
        found = sizing.plan(BIG, 1e9, "h100", 8, sharding=sharding)
        assert not found.fits
        assert found.bottleneck == "memory"
        assert found.total == sum(getattr(found, part) for part in PARTS)
        assert fewest < found.total < fewest + 15e9
    assert sum(getattr(found, part) for part in SHARDED) == pytest.approx(16 * 68_976_648_192 / 8, rel=1e-4)


@pytest.mark.parametrize(("method", "layers"), [("full", 30), ("lora", 10), ("qlora", 10)])  # SmolLM2 has 30
def test_each_part_on_one_gpu_is_what_the_memory_model_counts_for_all_layers(method, layers):
    """The plan adds parts that the dry run sees peak at other times, so it may be above the dry run, never below."""
    config = meta_models.config_of("smollm2")
    config.num_hidden_layers = layers
    whole = counted(config, method=method, checkpointing=True)
    found = sizing.plan(config, 1e6, method=method, length=256)
    for part in ("parameters", "trainable", "weights", "gradients", "logits", "runtime"):
        assert getattr(found, part) == getattr(whole, part), part
    one_layer = 256 * 576 * 60  # bytes: about 60 for each token and unit of the width
    assert whole.activations <= found.activations < whole.activations + one_layer
    states = 12 * whole.trainable if method == "full" else whole.optimizer  # estimate has no fp32 copies in bf16
    assert found.optimizer == states
    assert 1 <= found.total / (whole.total - whole.optimizer + states) < 1.05


def test_mixed_precision_takes_the_16_bytes_a_parameter_that_fp32_takes():
    whole = counted(SMALL, length=64, dtype="float32")
    found = planned()
    assert found.weights + found.gradients + found.optimizer == pytest.approx(
        whole.weights + whole.gradients + whole.optimizer, rel=0.001
    )


def test_activations_without_checkpointing_are_those_of_all_layers():
    whole = counted(SMALL, length=64)
    assert planned(checkpointing=False).activations == pytest.approx(whole.activations, rel=0.01)
    assert planned().activations < planned(checkpointing=False).activations


@pytest.mark.parametrize(("model", "most"), [("llama-2-7b", 1.3), ("smollm2", 2.0)])
def test_the_rule_for_flops_is_a_lower_bound_near_the_counted_ones_where_attention_is_little(model, most):
    config = sizing._config(model)
    config.num_hidden_layers = 2
    step = counted(config, length=2048)
    in_products = step.parameters - (0 if config.tie_word_embeddings else config.vocab_size * config.hidden_size)
    assert 1 < step.flops / sizing.training_flops(in_products, 2048) < most


@pytest.mark.parametrize(
    ("model", "parameters", "hours"),
    [
        ("llama-2-7b", 6_738_415_616, 184_320),
        ("llama-2-13b", 13_015_864_320, 368_640),
        (BIG, 68_976_648_192, 1_720_320),
    ],
)
def test_the_hours_of_llama_2_are_those_of_its_paper_within_a_tenth(model, parameters, hours):
    """Touvron et al. 2023, table 2: GPU hours of A100 80 GB, on 2T tokens."""
    found = sizing.plan(model, 2e12, "a100", 1024, length=4096)
    assert found.parameters == parameters
    assert 0.9 < found.gpu_hours / hours < 1.1
    assert found.bottleneck == "compute"


def test_the_flops_of_gpt_3_are_those_of_its_paper():
    """Brown et al. 2020, table D.1: 174.6B parameters, 300B tokens, 3.14e23 FLOPs."""
    assert sizing.training_flops(174.6e9, 300e9) == pytest.approx(3.14e23, rel=0.01)


def test_qlora_of_70b_fits_on_one_gpu_of_48_gb():
    """Dettmers et al. 2023 trained 65B on one."""
    assert 36e9 < sizing.plan(BIG, 1e6, method="qlora", length=512).total < 48e9


def test_the_fewest_gpus_hold_it_and_one_step_fewer_do_not():
    found = sizing.fewest_gpus(BIG, 1e9, "h100")
    assert (found.gpus, found.fits) == (24, True)
    assert not sizing.plan(BIG, 1e9, "h100", 16).fits
    assert sizing.fewest_gpus(BIG, 1e9, "h200").gpus == 16
    in_time = sizing.fewest_gpus(BIG, 1e12, "h100", hours=720)
    assert in_time.gpus % 8 == 0
    assert in_time.hours <= 720 < sizing.plan(BIG, 1e12, "h100", in_time.gpus - 8).hours


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"gpus": 0}, "gpus is 0; expected a whole number, 1 or more"),
        ({"gpus": 2.0}, "gpus is 2.0; expected a whole number"),
        ({"gpus": 12}, "12 GPUs are not whole nodes; expected at most 8, or a multiple of 8: plan with 8 or 16"),
        ({"gpu": "h300"}, "there is no GPU 'h300'; expected one of a100, h100, h200"),
        ({"tokens": -5}, "tokens is -5; expected a number above 0"),
        ({"tokens": "many"}, "tokens is 'many'; expected a number above 0"),
        ({"tokens": float("nan")}, "tokens is nan; expected a number above 0"),
        ({"method": "dora"}, "there is no method 'dora'; expected one of full, lora, qlora"),
        ({"sharding": "zero9"}, "there is no sharding 'zero9'; expected one of none, fsdp"),
        ({"mfu": 40}, "mfu is 40; expected a share of the peak"),
        ({"link_share": 0}, "link_share is 0; expected a share of the peak"),
        ({"text_rate": 0}, "text_rate is 0; expected a number above 0"),
        ({"length": 5000}, "5000"),
    ],
)
def test_what_cannot_be_planned_is_refused_in_one_sentence(wrong, says):
    with pytest.raises(BadInput, match=re.escape(says)) as refused:
        planned(**wrong)
    assert "\n" not in str(refused.value)


def test_an_unknown_model_and_an_hour_that_cannot_be_met_are_refused():
    with pytest.raises(BadInput, match=r"there is no model 'llama-9'; expected one of .*llama-2-70b"):
        sizing.plan("llama-9", 1e9)
    with pytest.raises(BadInput, match="hours is 0; expected a number above 0"):
        sizing.fewest_gpus(SMALL, 1e9, hours=0, length=64)
    with pytest.raises(BadInput, match="no number of H100 80 GB SXM up to 16,384 holds full training of llama-2-70b"):
        sizing.fewest_gpus(BIG, 1e9, sharding="none")


def test_every_gpu_has_its_source_and_every_table_its_model():
    assert all(gpu.source.startswith("https://www.nvidia.com/") for gpu in sizing.GPUS.values())
    assert set(sizing.SHOWN) <= {*meta_models.shipped(), *sizing.LLAMA_2}


def test_importing_the_module_imports_no_torch(repository):
    code = "import sys, ftlab.memory.sizing; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=repository, check=False).returncode == 0


@pytest.fixture(scope="module")
def page(repository) -> str:
    return pages.markdown(repository / "docs" / "sizing.md")


def test_the_code_of_the_page_runs(page):
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = {"sizing": sizing}
    exec(code, names)
    assert names["found"].hours <= 24


def test_the_worked_example_of_the_page_is_what_the_code_says(page):
    found = sizing.plan(BIG, 1e9, "h100", 32)
    layer, outside = 855_654_400, 524_296_192
    assert found.parameters == 80 * layer + outside == 68_976_648_192
    example = page.partition("## A worked example")[2].partition("\n## ")[0]
    lines = {cells[1].strip(" *"): cells[3].strip(" *") for cells in (
        line.split("|") for line in example.splitlines() if line.startswith("| ")
    )}  # fmt: skip
    inputs = 80 * 2048 * 8192 * 2
    assert lines == {
        "what": "result",
        "weights, gradients, optimizer": f"{(found.weights + found.gradients + found.optimizer) / 1e9:.1f} GB",
        "gathered: two layers, what is outside, one layer's gradients": f"{found.gathered / 1e9:.1f} GB",
        "inputs of the layers": f"{inputs / 1e9:.1f} GB",
        "one layer, run again, and what is outside of the layers": f"{(found.activations - inputs) / 1e9:.1f} GB",
        "logits and loss": f"{found.logits / 1e9:.1f} GB",
        "CUDA": f"{found.runtime / 1e9:.1f} GB",
        "each GPU": f"{found.total / 1e9:.1f} GB",
        "computing": f"{found.compute_seconds:.2f} s",
        "sending": f"{found.communication_seconds:.2f} s",
        "reading": f"{found.data_seconds:.3f} s",
        "tokens a second": f"{round(found.tokens_per_second, -2):,.0f}",
        "hours for 1 B tokens": f"{found.hours:.1f}",
    }
    gpu = sizing.GPUS["h100"]
    threshold = gpu.flops * sizing.MFU / (gpu.network * sizing.LINK_SHARE)
    assert f"= {threshold:,.0f} tokens" in page


def test_fewer_tokens_a_step_than_the_page_says_make_the_interconnect_the_bottleneck():
    assert sizing.plan(BIG, 1e9, gpus=32, length=1300).bottleneck == "interconnect"
    assert sizing.plan(BIG, 1e9, gpus=32, length=1500).bottleneck == "compute"


def test_of_a_model_for_texts_and_images_the_text_part_is_planned():
    """Its config has no width of its own."""
    text = {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 128, "vocab_size": 500, "head_dim": 16}
    whole = Gemma3Config(text_config={**text, "num_attention_heads": 4, "num_key_value_heads": 2})
    assert sizing.plan(whole, 1e6).parameters == sizing.plan(whole.get_text_config(), 1e6).parameters > 10_000


def test_ddp_holds_the_gradients_twice():
    """It sends them from its buckets, which are a copy (`gradient_as_bucket_view`, which is off by default)."""
    one, two = (sizing.plan(BIG, 1e6, gpus=gpus, sharding="none") for gpus in (1, 2))
    assert two.total - one.total == one.gradients


@pytest.mark.parametrize(
    "config", [MixtralConfig(), Qwen3MoeConfig(), DeepseekV3Config()], ids=lambda one: one.model_type
)
def test_a_mixture_of_experts_is_refused_since_a_token_passes_a_part_of_its_weights(config):
    with pytest.raises(BadInput, match=r"a mixture of \d+ experts .*not planned here") as refused:
        sizing.plan(config, 1e9)
    assert "\n" not in str(refused.value)
