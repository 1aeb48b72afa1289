"""What breaks at the next release of transformers' GGUF loader, or of gguf."""

import inspect

import gguf
import numpy as np
import pytest
from transformers import (
    AutoModelForCausalLM,
    AutoModelForQuestionAnswering,
    GemmaConfig,
    LlamaConfig,
    LlamaForCausalLM,
    modeling_gguf_pytorch_utils,
)

from ftlab.internals import gguf as gguf_internals

SIZES = {"vocab_size": 8, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1}
VALUES = {
    "block_count": 1, "context_length": 16, "embedding_length": 32, "feed_forward_length": 32, "head_count": 1,
    "head_count_kv": 1, "vocab_size": 8, "layer_norm_rms_eps": 1e-6, "rope_freq_base": 1e4,
}  # fmt: skip
TENSORS = {
    "token_embd": (8, 32), "output": (8, 32), "output_norm": (32,), "blk.0.attn_norm": (32,), "blk.0.ffn_norm": (32,),
    "blk.0.attn_q": (32, 32), "blk.0.attn_k": (32, 32), "blk.0.attn_v": (32, 32), "blk.0.attn_output": (32, 32),
    "blk.0.ffn_up": (32, 32), "blk.0.ffn_gate": (32, 32), "blk.0.ffn_down": (32, 32),
}  # fmt: skip


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("a model")
    writer.add_token_list([f"t{number}" for number in range(8)])
    writer.add_token_merges(["t 0"])
    for name, value in VALUES.items():
        getattr(writer, f"add_{name}")(value)
    random = np.random.default_rng(0)
    for name, shape in TENSORS.items():
        writer.add_tensor(f"{name}.weight", random.normal(size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_the_loader_takes_the_open_reader_and_gives_the_same_model(file):
    quick = gguf_internals.load(AutoModelForCausalLM, file, gguf.GGUFReader(file))
    plain = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name)
    assert quick.config.hidden_size == 32
    assert all((one == other).all() for one, other in zip(quick.parameters(), plain.parameters(), strict=True))


def test_the_library_s_names_are_restored(file):
    was = gguf.GGUFReader, gguf.get_tensor_name_map
    gguf_internals.load(AutoModelForCausalLM, file, gguf.GGUFReader(file))
    assert (gguf.GGUFReader, gguf.get_tensor_name_map) == was
    with pytest.raises(ValueError, match="Unrecognized configuration class"):
        gguf_internals.load(AutoModelForQuestionAnswering, file, gguf.GGUFReader(file), config=GemmaConfig())
    assert (gguf.GGUFReader, gguf.get_tensor_name_map) == was


def test_no_bar_is_drawn_while_tensors_are_read(file, monkeypatch):
    """In a notebook it would be a widget, which no redirection of stderr holds back."""
    drawn = []
    monkeypatch.setattr(modeling_gguf_pytorch_utils, "tqdm", lambda rows, **_: drawn.append(rows) or rows)
    gguf_internals.load(AutoModelForCausalLM, file, gguf.GGUFReader(file))
    assert drawn == []
    AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name)
    assert len(drawn) == 1


def test_each_tensor_of_a_model_has_its_name_in_the_file(file):
    model = LlamaForCausalLM(LlamaConfig(**SIZES))
    names = gguf_internals.tensor_names(model, gguf.GGUFReader(file))
    assert names["model.layers.0.self_attn.q_proj.weight"] == "blk.0.attn_q.weight"
    assert set(names.values()) == {f"{name}.weight" for name in TENSORS}


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("_get", ["self", "offset", "dtype", "count", "override_order"]),
        ("_get_field_parts", ["self", "orig_offs", "raw_type"]),
        ("_build_fields", ["self", "offs", "count"]),
        ("_build_tensor_info", ["self", "offs", "count"]),
    ],
)
def test_the_methods_that_are_made_strict_are_there(name, parameters):
    assert list(inspect.signature(getattr(gguf.GGUFReader, name)).parameters) == parameters


def test_the_strict_reader_reads_the_same(file):
    ours, library = gguf_internals.open_reader(file), gguf.GGUFReader(file)
    assert {name: field.contents() for name, field in ours.fields.items()} == {
        name: field.contents() for name, field in library.fields.items()
    }
    assert all((one.data == other.data).all() for one, other in zip(ours.tensors, library.tensors, strict=True))
