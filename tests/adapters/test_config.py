"""One rule for an adapter, merged or apart: what it may say, what it has to hold, and one sentence for all else."""

import json
import os
import random
import shutil
import time

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from ftlab.adapters import config as adapter_config
from ftlab.adapters import json_values, lora
from ftlab.adapters.config import BASE, CONFIG, WEIGHTS
from ftlab.errors import BadInput
from ftlab.inference import Generator
from ftlab.merging import certificate
from ftlab.merging import merge as merging
from tests.merging.merge_cases import load, save_adapter, save_base

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore")]

PREFIX = "base_model.model."
LAYER = f"{PREFIX}model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("bases") / "base", "llama", vocab_size=640)


@pytest.fixture(scope="module")
def sound(base, tmp_path_factory):
    """An adapter that is right, with the record of its base."""
    folder = save_adapter(tmp_path_factory.mktemp("adapters") / "sound", base, r=4, target_modules=["q_proj", "v_proj"])
    lora.record_base(folder, str(base))
    return folder


@pytest.fixture
def adapter(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "adapter")


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(3, 23).reshape(2, 10)).logits


def told(call, *arguments):
    """The one sentence of a refusal; None if there is none."""
    try:
        call(*arguments)
    except BadInput as problem:
        said = str(problem)
    else:
        return None
    assert "\n" not in said
    assert len(said) < 700
    said.encode()  # it can be printed
    return said


def both(base, adapter, tmp_path):
    """What merging and loading say of an adapter. Where neither refuses, they have to give the same model."""
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    loaded = []
    said = {
        "merged": told(merging.merge, base, adapter, tmp_path / "out"),
        "apart": told(lambda: loaded.append(Generator.load(base, adapter, device="cpu").model)),
    }
    if loaded and said["merged"] is None:
        torch.testing.assert_close(logits(loaded[0]), logits(load(tmp_path / "out")), atol=1e-4, rtol=1e-4)
    return said


def held(folder):
    return json.loads((folder / CONFIG).read_text(encoding="utf-8"))


def settings(**values):
    def change(folder):
        (folder / CONFIG).write_text(json.dumps(held(folder) | values), encoding="utf-8")

    return change


def text(before, after):
    def change(folder):
        held = (folder / CONFIG).read_text(encoding="utf-8")
        assert before in held
        (folder / CONFIG).write_bytes(held.replace(before, after, 1).encode("utf-8", "surrogatepass"))

    return change


def content(data, name=CONFIG):
    return lambda folder: (folder / name).write_bytes(data)


def tensors(change):
    def harm(folder):
        save_file({key: one.contiguous() for key, one in change(load_file(folder / WEIGHTS)).items()}, folder / WEIGHTS)

    return harm


def one(key, change):
    return tensors(lambda held: {**held, key: change(held[key])})


def no_file(name, how):
    def change(folder):
        (folder / name).unlink()
        if how == "pipe":
            os.mkfifo(folder / name)
        elif how == "folder":
            (folder / name).mkdir()
        elif how != "gone":
            (folder / name).symlink_to({"loop": name, "zeros": "/dev/zero"}[how])

    return change


REFUSED = {
    "an unknown setting": (settings(use_zora=True), "sets use_zora, which ftlab does not support"),
    "a strange name": (settings(**{"a\nb": 1}), r"sets 'a\nb'"),
    "half a character": (text('"r"', '"\\ud800": 1, "r"'), r"sets '\ud800'"),
    "aLoRA": (settings(alora_invocation_tokens=[1]), "sets alora_invocation_tokens"),
    "token rows": (settings(trainable_token_indices=[1]), "sets trainable_token_indices"),
    "a rank in quotes": (settings(r="4"), "has r='4'; expected a whole number above 0"),
    "a rank that is true": (settings(r=True), "has r=True; expected a whole number"),
    "a broken rank": (settings(r=4.0), "has r=4.0; expected a whole number"),
    "a rank beyond all layers": (settings(r=10**9), "other shapes than the model"),
    "a rank beyond all numbers": (settings(r=10**40), "expected a whole number above 0"),
    "no rank": (settings(r=None), "has r=None"),
    "a negative alpha": (settings(lora_alpha=-16), "has lora_alpha=-16; expected a number above 0"),
    "an alpha that is true": (settings(lora_alpha=True), "has lora_alpha=True"),
    "NaN": (settings(lora_alpha=float("nan")), "cannot be read as JSON (NaN is no JSON)"),
    "infinity": (settings(lora_alpha=float("inf")), "Infinity is no JSON"),
    "an alpha beyond all numbers": (text('"lora_alpha": 8', '"lora_alpha": 1e999'), "is beyond the range of a number"),
    "ranks in a list": (settings(rank_pattern=["q_proj"]), "has rank_pattern=['q_proj']; expected an object of whole"),
    "a rank of 0 for a module": (settings(rank_pattern={"q_proj": 0}), "has rank_pattern[q_proj]=0"),
    "an alpha of a module in quotes": (settings(alpha_pattern={"q_proj": "4"}), "has alpha_pattern={'q_proj': '4'}"),
    "numbers for names": (settings(target_modules=[1]), "has target_modules=[1]; expected a text or a list of texts"),
    "a text for a list": (settings(modules_to_save="norm"), "has modules_to_save='norm'"),
    "a module that there is not": (settings(modules_to_save=["nowhere"]), "modules_to_save names 'nowhere'"),
    "a bias of another kind": (settings(bias="some"), "has bias='some'; expected none, all or lora_only"),
    "no type": (lambda folder: (folder / CONFIG).write_text(json.dumps(
        {name: value for name, value in held(folder).items() if name != "peft_type"}
    ), encoding="utf-8"), "is no LoRA config: it has no peft_type; expected LORA"),
    "a type that is null": (settings(peft_type=None), "it has no peft_type; expected LORA"),
    "an alpha in quotes": (settings(lora_alpha="16"), "has lora_alpha='16'; expected a number above 0"),
    "another type": (settings(peft_type="IA3"), "of type IA3, and only LORA"),
    "a type in a list": (settings(peft_type=["LORA"]), "is no LoRA config"),
    "another task": (settings(task_type="SEQ_CLS"), "is the adapter of a classifier (task_type SEQ_CLS)"),
    "no task": (settings(task_type="KNITTING"), "is no LoRA config"),
    "a random start": (settings(init_lora_weights="pissa_niter_4"), "in a way that cannot be made again"),
    "layers beside": (settings(layers_to_transform=[99]), "does not fit the model, a LlamaForCausalLM"),
    "a name twice": (text('"r": 4', '"r": 4, "r": 8'), "it names 'r' twice"),
    "a mark before": (text("{", "\ufeff{"), "cannot be read as JSON"),
    "no UTF-8": (content(b'{"r": "\xff"}'), "cannot be read as JSON"),
    "a list": (content(b"[]"), "holds a list, not a JSON object"),
    "too deep": (content(b'{"a":' * 100_000 + b"1" + b"}" * 100_000), "cannot be read as JSON"),
    "too long": (content(b"[" + b" " * 2**25 + b"]"), "expected at most 16,777,216"),
    "no target": (settings(target_modules=[]), "has target_modules=[]; expected names of modules"),
    "an empty target": (settings(target_modules=""), "has target_modules=''; expected names of modules"),
    "a blank target": (settings(target_modules=["q_proj", " "]), "has target_modules=['q_proj', ' ']; expected names"),
    "no expression": (settings(target_modules="q_proj("), "has in target_modules the pattern 'q_proj(', which is no"),
    "no expression in a rank": (settings(rank_pattern={"[": 4}), "has in rank_pattern the pattern '['"),
    "a tensor missing": (tensors(lambda held: {k: v for k, v in held.items() if k != f"{LAYER}.lora_B.weight"}),
                         "should hold 2 tensors for model.layers.0.self_attn.q_proj"),
    "a module missing": (tensors(lambda held: {k: v for k, v in held.items() if LAYER not in k}), "holds nothing for"),
    "a module more": (tensors(lambda held: {**held, f"{PREFIX}model.layers.0.self_attn.o_proj.lora_A.weight":
                              torch.zeros(4, 32)}), "does not name that module"),
    "a tensor of the base's": (tensors(lambda held: {**held, f"{PREFIX}model.norm.weight": torch.zeros(32)}),
                               "trains no model.norm.weight"),
    "one place twice": (tensors(lambda held: {**held, f"{LAYER.replace('model.layers', 'layers', 1)}.lora_A.weight":
                                torch.zeros(4, 32)}), "which have the same place in the model"),
    "PEFT's name inside": (tensors(lambda held: {k.replace(".weight", ".default.weight"): v for k, v in held.items()}),
                           "has none"),
    "integers": (one(f"{LAYER}.lora_A.weight", lambda t: t.to(torch.int32)), "is stored as I32; expected floats"),
    "truths": (one(f"{LAYER}.lora_A.weight", lambda t: t > 0), "is stored as BOOL"),
    "8 bits": (one(f"{LAYER}.lora_A.weight", lambda t: t.to(torch.float8_e4m3fn)), "is stored as F8_E4M3"),
    "another shape": (one(f"{LAYER}.lora_A.weight", lambda t: t[:2]), "it is (2, 32), expected (4, 32) for rank 4"),
    "another order": (one(f"{LAYER}.lora_A.weight", lambda t: t.T), "it is (32, 4), expected (4, 32)"),
    "infinite": (one(f"{LAYER}.lora_A.weight", lambda t: t / 0), "holds NaN or infinity in 1 of 8 tensors"),
    **{f"{name}: a {how}": (no_file(name, how), f"it has no {name} that is a file")
       for name in (CONFIG, WEIGHTS) for how in ("pipe", "folder", "loop", "zeros")},
    **{f"{BASE}: a {how}": (no_file(BASE, how), f"{BASE} cannot be read")
       for how in ("pipe", "folder", "loop", "zeros")},
    "a base without a name": (content(b'{"weights_sha256": "' + b"a" * 64 + b'"}', BASE), "it has no name"),
    "a base whose hash is none": (content(b'{"name": "x", "weights_sha256": "12"}', BASE), "expected 64 hexadecimal"),
    "a base with a number for a name": (content(b'{"name": 3, "weights_sha256": ""}', BASE), "expected a text"),
    "another base": (content(b'{"name": "x\\n", "weights_sha256": "' + b"a" * 64 + b'"}', BASE), r"trained on 'x\n'"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_one_of_both_refuses_the_other_refuses_in_the_same_words(what, base, adapter, tmp_path):
    harm, words = REFUSED[what]
    harm(adapter)
    said = both(base, adapter, tmp_path)
    assert words in (said["merged"] or "")
    assert said["apart"] == said["merged"]
    assert not (tmp_path / "out").exists()


def test_a_type_reads_the_same_whoever_wrote_it_first():
    assert json_values.words(list[str] | None | str) == json_values.words(str | list[str] | None)
    assert json_values.words(None | list[str] | str) == "a text or a list of texts or null"


ACCEPTED = {
    "as it is": lambda folder: None,
    "unknown settings that are off": settings(brand_new=None, another={}, third=False, fourth=[]),
    "of PEFT 0.3": lambda folder: content(json.dumps({
        "base_model_name_or_path": "x/y", "bias": "none", "enable_lora": None, "fan_in_fan_out": False,
        "inference_mode": True, "lora_alpha": 8, "lora_dropout": 0.05, "merge_weights": False, "modules_to_save": None,
        "peft_type": "LORA", "r": 4, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM",
    }).encode())(folder),
    "a start that is over": settings(init_lora_weights="orthogonal"),
    "a fraction for alpha": settings(lora_alpha=8.5, alpha_pattern={"v_proj": 0.5}),
    "an expression": settings(target_modules=r".*\.self_attn\.(q|v)_proj"),
    "in half precision": tensors(lambda held: {key: one.bfloat16() for key, one in held.items()}),
    "in double precision": tensors(lambda held: {key: one.double() for key, one in held.items()}),
    "of the body alone": tensors(lambda held: {key.replace(".model.model.", ".model."): v for key, v in held.items()}),
}  # fmt: skip


@pytest.mark.parametrize("what", ACCEPTED)
def test_what_is_right_is_taken_by_both_and_gives_the_same_model(what, base, adapter, tmp_path):
    ACCEPTED[what](adapter)
    assert both(base, adapter, tmp_path) == {"merged": None, "apart": None}


@pytest.mark.parametrize("seed", range(40))
def test_three_bytes_that_are_others_never_end_in_anything_but_one_sentence_or_one_model(seed, base, adapter, tmp_path):
    drawn = random.Random(seed)
    path = adapter / drawn.choice((CONFIG, WEIGHTS, BASE))
    held = bytearray(path.read_bytes())
    end = 8 + int.from_bytes(held[:8], "little") if path.name == WEIGHTS else len(held)
    for _ in range(3):
        held[drawn.randrange(end)] = drawn.randrange(256)
    path.write_bytes(held)
    said = both(base, adapter, tmp_path)
    assert (said["merged"] is None) == (said["apart"] is None)


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": "(.*)*x"},
        {"target_modules": ["q_proj"], "exclude_modules": "(a|.)*(.+)+$z"},
        {"target_modules": ["q_proj"], "rank_pattern": {"(([a-z_.0-9])+.)+[A-Z]": 4}},
        {"target_modules": ["q_proj"], "alpha_pattern": {"(.|.)" * 30 + "Q": 4}},
        {"target_modules": ["q_proj"], "modules_to_save": ["((.+)+x)+y"]},
        {"target_modules": ["q_proj"], "layers_pattern": ["(.*)*x"], "layers_to_transform": [0]},
    ],
    ids=lambda options: list(options)[-1],
)
def test_an_expression_that_does_not_come_to_an_end_is_stopped(options, tmp_path, monkeypatch):
    monkeypatch.setattr(adapter_config, "PATIENCE", 0.5)
    names = [f"model.layers.{number}.self_attn.q_proj" for number in range(4)]
    began = time.monotonic()
    said = told(adapter_config.require_patterns, LoraConfig(**options), names, tmp_path)
    assert "does not come to an end" in said
    assert f"has in {list(options)[-1].replace('layers_to_transform', 'layers_pattern')} the pattern" in said
    assert time.monotonic() - began < 10


def test_an_expression_that_does_not_come_to_an_end_is_stopped_before_training_too(base, monkeypatch):
    monkeypatch.setattr(adapter_config, "PATIENCE", 0.5)
    said = told(lora.resolve, load(base), LoraConfig(target_modules="(.*)*x", task_type="CAUSAL_LM"))
    assert "the LoRA config has in target_modules the pattern '(.*)*x', which does not come to an end" in said


def test_an_adapter_in_the_folder_of_its_base_is_not_loaded_with_it(base, adapter, tmp_path):
    """transformers would load both as one, and read the adapter's config by rules of its own."""
    both_in_one = shutil.copytree(base, tmp_path / "both")
    for name in (CONFIG, WEIGHTS):
        shutil.copy(adapter / name, both_in_one / name)
    settings(target_modules="(.*)*x")(both_in_one)
    for call in (
        lambda: Generator.load(both_in_one, device="cpu"),
        lambda: merging.merge(both_in_one, adapter, tmp_path / "out"),
    ):
        assert "has both a model (config.json) and an adapter (adapter_config.json)" in told(call)


@pytest.mark.parametrize("alpha", [1e25, 1e30, 1e300])
def test_a_scale_at_which_numbers_overflow_is_refused_by_both(base, adapter, tmp_path, alpha):
    settings(lora_alpha=alpha)(adapter)
    for call in (
        lambda: Generator.load(base, adapter, device="cpu"),
        lambda: certificate.merge_with_certificate(base, adapter, tmp_path / "out", ["a dull film"]),
    ):
        assert "range of" in told(call)
    assert not (tmp_path / "out").exists()


def test_the_types_are_pefts_own():
    """The settings that are named here are settings of the PEFT that is installed."""
    from dataclasses import fields

    known = {field.name for field in fields(LoraConfig)}
    assert known >= adapter_config.USED
    assert known >= adapter_config.FOLLOWED | adapter_config.APART | adapter_config.SILENT


def test_a_record_is_written_for_an_adapter_that_fits_and_never_over_another(base, adapter, tmp_path):
    (adapter / BASE).unlink()
    assert f"{adapter} has no base.json" in told(lora.require_base, adapter, str(base))
    assert "--record-base" in told(lora.require_base, adapter, str(base))
    other = save_base(tmp_path / "other", "phi")
    assert "give the model that it was trained on" in told(lora.record_fitting_base, adapter, str(other))
    assert not (adapter / BASE).exists()
    record = lora.record_fitting_base(adapter, str(base))
    assert lora.require_base(adapter, str(base)) == record == lora.record_fitting_base(adapter, str(base))
    third = save_base(tmp_path / "third", "llama", vocab_size=640, initializer_range=0.5)
    assert "was trained on base" in told(lora.record_fitting_base, adapter, str(third))
    assert lora.require_base(adapter, str(base)) == record
