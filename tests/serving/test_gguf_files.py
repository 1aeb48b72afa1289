"""A GGUF file says what it is, or is refused in one sentence."""

import struct

import numpy as np
import pytest

from ftlab.errors import BadInput
from ftlab.internals import gguf as loader_internals
from ftlab.serving import gguf_files


def write(path, *, values=(), kind="model", tensors=1, endian="LITTLE", tokens=("a", "b")):
    """Write a small GGUF file; `values` are further ones of its head."""
    import gguf

    writer = gguf.GGUFWriter(path, "llama", endianess=gguf.GGUFEndian[endian])
    writer.add_type(kind)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("gpt2")
    if tokens:
        writer.add_token_list(list(tokens))
    writer.add_eos_token_id(1)
    for name, value in values:
        writer.add_key_value(name, value, gguf.GGUFValueType.get_type(value))
    for number in range(tensors):
        writer.add_tensor(f"blk.{number}.attn_q.weight", np.ones((32, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_file_says_what_it_is(tmp_path):
    values = [("tokenizer.ggml.eot_token_id", 0), ("tokenizer.ggml.bos_token_id", 0),
              ("tokenizer.ggml.add_bos_token", True), ("tokenizer.chat_template", "{{ messages }}")]  # fmt: skip
    path = write(tmp_path / "a.gguf", values=values)
    found = gguf_files.read(path)
    assert (found.architecture, found.type, found.tokens, found.tensors) == ("llama", "f32", 2, 1)
    assert (found.bos, found.eos, found.pad, found.ends) == (0, 1, None, (1, 0))
    assert found.adds_bos
    assert (found.chat_template, found.bytes) == ("{{ messages }}", path.stat().st_size)
    assert not found.quantised


def test_without_a_bos_token_none_is_added(tmp_path):
    assert not gguf_files.read(write(tmp_path / "a.gguf", values=[("tokenizer.ggml.add_bos_token", True)])).adds_bos


def test_the_type_is_that_of_the_tensors_where_the_name_of_the_type_is_wrong(tmp_path):
    import gguf

    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_token_list(["a"])
    writer.add_tensor("x", gguf.quantize(np.ones((4, 32), np.float32), gguf.GGMLQuantizationType.Q8_0),
                      raw_dtype=gguf.GGMLQuantizationType.Q8_0)  # fmt: skip
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = gguf_files.read(tmp_path / "a.gguf")
    assert found.type == "q8_0"
    assert found.quantised


def test_a_file_that_changed_is_read_again(tmp_path):
    path = write(tmp_path / "a.gguf")
    assert gguf_files.read(path).tensors == 1
    path.unlink()
    assert gguf_files.read(write(path, tensors=2)).tensors == 2


@pytest.mark.parametrize("part", [3, 30, 200, -2000, -1])
def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path, part):
    whole = write(tmp_path / "a.gguf").read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(whole[:part])
    with pytest.raises(BadInput, match=r"cut\.gguf is (truncated or damaged|not a GGUF file)"):
        gguf_files.read(cut)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "is empty"), (b"PK\x03\x04 and more", "not a GGUF file"), (b"GGUF\x09\x00\x00\x00" + bytes(64), "damaged")],
)
def test_what_is_no_gguf_file_is_refused(tmp_path, content, said):
    path = tmp_path / "a.gguf"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=said):
        gguf_files.read(path)


def test_a_folder_and_a_missing_file_are_refused(tmp_path):
    with pytest.raises(BadInput, match="is a folder; expected a GGUF file"):
        gguf_files.read(tmp_path)
    with pytest.raises(BadInput, match="cannot be read"):
        gguf_files.read(tmp_path / "none.gguf")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"values": [("split.count", 3), ("split.no", 1)]}, "part 2 of 3 of a split file"),
        ({"endian": "BIG"}, "big-endian"),
        ({"kind": "adapter"}, "of type adapter"),
        ({"tensors": 0}, "has no tensors"),
        ({"tokens": ()}, "has no tokenizer.ggml.tokens"),
    ],
)
def test_what_is_no_whole_model_is_refused(tmp_path, options, said):
    with pytest.raises(BadInput, match=said):
        gguf_files.read(write(tmp_path / "a.gguf", **options))


@pytest.mark.parametrize(
    ("place", "form", "value", "said"),
    [
        (8, "<Q", 1 << 60, "the list of tensors would have"),
        (16, "<Q", 1 << 60, "the head would have"),
        (24, "<Q", 1 << 60, "do not fit"),
        (52, "<I", 9, "the list at byte 56 would have"),  # 8 is a text, 9 a list: one bit
    ],
)
def test_a_damaged_length_is_refused_before_it_is_believed(tmp_path, place, form, value, said):
    path = write(tmp_path / "a.gguf")
    content = bytearray(path.read_bytes())
    struct.pack_into(form, content, place, value)
    path.write_bytes(content)
    with pytest.raises(BadInput, match=f"truncated or damaged .*{said}"):
        gguf_files.read(path)


def test_a_list_that_fits_into_the_file_and_is_longer_than_any_is_refused(tmp_path, monkeypatch):
    path = write(tmp_path / "a.gguf", tokens=[str(number) for number in range(200)])
    assert gguf_files.open_file(path).facts.tokens == 200
    monkeypatch.setattr(loader_internals, "MOST", 199)
    with pytest.raises(BadInput, match="would have 200 entries"):
        gguf_files.open_file(path)
