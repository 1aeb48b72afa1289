"""A model's folder from somebody else: it is loaded, or refused in one sentence; no code of it runs."""

import pickle
import shutil
import sys
from pathlib import Path

import pytest
import torch

from ftlab.errors import BadInput
from ftlab.inference import Classifier
from ftlab.inference.generator import Generator
from ftlab.models import loading, model_files
from tests.hostile.payloads import Bomb, edited, safetensors

WHOLE = {"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "lm"
    loading.causal_lm("tiny-llama").save_pretrained(folder)
    loading.tokenizer("tiny-llama").save_pretrained(folder)
    return folder


@pytest.fixture
def classifier(classifier_folder, tmp_path):
    return Path(shutil.copytree(classifier_folder, tmp_path / "classifier"))


@pytest.fixture
def generator(language_model, tmp_path):
    return Path(shutil.copytree(language_model, tmp_path / "generator"))


@pytest.fixture
def mark(tmp_path):
    """A file that a payload would make; the test fails if it is there at its end."""
    yield tmp_path / "ran"
    assert not (tmp_path / "ran").exists()


def refused(folder, message):
    with pytest.raises(BadInput, match=message) as raised:
        model_files.checked(folder)
    assert "\n" not in str(raised.value)


def lying(**values):
    return {"w": {**WHOLE["w"], **values}}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (safetensors({}, length=10**6), "invalid header length"),
        (safetensors({}, length=2**63), "header too large"),
        (safetensors(lying(data_offsets=[0, 10**9])), "invalid shape, data type, or offset"),
        (safetensors(lying(data_offsets=[-16, 0])), "invalid JSON in header"),
        (safetensors(lying(dtype="OBJECT")), "unknown variant"),
        (safetensors(lying(shape=[2**62, 4])), "overflow"),
        (safetensors({**WHOLE, "v": WHOLE["w"]}), "invalid offset"),
        (safetensors(b'{"\xff": 1}'), "invalid UTF-8"),
        (safetensors(b'{"w":' + b"[" * 100_000), "recursion limit"),
    ],
    ids=["past the end", "huge", "offset", "negative", "dtype", "overflow", "overlap", "no UTF-8", "deep"],
)
def test_a_header_that_lies_is_refused(classifier, content, reason):
    (classifier / "model.safetensors").write_bytes(content)
    refused(classifier, f"not a whole safetensors file .*{reason}")


@pytest.mark.parametrize("name", ["w", "../../w", "/etc/w", "C:\\w"])
def test_the_name_of_a_tensor_is_no_path(classifier, name):
    (classifier / "model.safetensors").write_bytes(safetensors({name: WHOLE["w"]}))
    with pytest.raises(BadInput, match=r"lacks .* tensors"):
        Classifier(str(classifier))


@pytest.mark.parametrize("shard", ["../classifier/model.safetensors", "/etc/passwd", "pytorch_model.bin", "~/x.bin"])
def test_a_shard_outside_its_folder_is_refused(classifier, shard):
    (classifier / "model.safetensors").rename(classifier / "model-1.safetensors")
    (classifier / model_files.INDEX).write_text("{}", encoding="utf-8")
    edited(classifier / model_files.INDEX, weight_map={"w": shard})
    refused(classifier, "no safetensors file of its folder")


def test_a_pickle_under_the_name_of_safetensors_is_not_opened(classifier, mark):
    for write in (pickle.dumps, lambda bomb: torch.save(bomb, classifier / "model.safetensors")):
        (classifier / "model.safetensors").write_bytes(
            write(Bomb(mark)) or (classifier / "model.safetensors").read_bytes()
        )
        refused(classifier, "not a whole safetensors file")


def test_a_pickle_beside_the_weights_is_not_opened(classifier, mark):
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "model.pkl", "tf_model.h5"):
        torch.save(Bomb(mark), classifier / name)
    Classifier(str(classifier))


def test_code_that_a_model_needs_is_refused_though_somebody_would_say_yes(classifier, mark, monkeypatch):
    (classifier / "own.py").write_text(
        f"open({str(mark)!r}, 'w')\nclass Config: pass\nclass Model: pass\n", encoding="utf-8"
    )
    edited(
        classifier / "config.json", model_type="own", auto_map={"AutoConfig": "own.Config", "AutoModel": "own.Model"}
    )
    monkeypatch.setattr("builtins.input", lambda *asked: "y")  # transformers asks whether to run it
    refused(classifier, "brings code of its own")
    for ask in (loading.config, loading.tokenizer, Classifier):
        with pytest.raises(BadInput):
            ask(str(classifier))


def test_the_code_of_a_model_that_transformers_knows_is_left_alone(classifier, mark, monkeypatch):
    (classifier / "own.py").write_text(f"open({str(mark)!r}, 'w')\nclass Config: pass\n", encoding="utf-8")
    edited(classifier / "config.json", auto_map={"AutoConfig": "own.Config"}, _name_or_path="../elsewhere")
    edited(classifier / "tokenizer_config.json", auto_map={"AutoTokenizer": ["own.Config", None]})
    monkeypatch.setattr("builtins.input", lambda *asked: pytest.fail("it asks"))
    assert Classifier(str(classifier)).labels == ["bad", "fine", "good"]


def test_a_tokenizer_alone_that_needs_code_is_refused(classifier, mark, monkeypatch):
    (classifier / "own.py").write_text(f"open({str(mark)!r}, 'w')\nclass Tokenizer: pass\n", encoding="utf-8")
    (classifier / "config.json").unlink()
    (classifier / "tokenizer_config.json").write_text("{}", encoding="utf-8")
    edited(
        classifier / "tokenizer_config.json", tokenizer_class="Own", auto_map={"AutoTokenizer": ["own.Tokenizer", None]}
    )
    monkeypatch.setattr("builtins.input", lambda *asked: "y")
    with pytest.raises(BadInput, match="tokenizer"):
        loading.bare_tokenizer(str(classifier))


def test_a_kernel_of_the_hub_is_not_fetched(classifier):
    edited(classifier / "config.json", _attn_implementation="somebody/kernel")
    refused(classifier, "names a kernel of the model hub")


def test_a_width_of_real_models_is_not_taken_for_a_depth(classifier):
    edited(classifier / "config.json", upsample_groups=512, output_hidden_layers=True, decoder_config={"layers": 12})
    assert model_files.checked(classifier) == classifier


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_layers": 10**9}, "cannot have 1,000,000,000 as its n_layers"),
        ({"num_decoder_layers": 10**9}, "cannot have 1,000,000,000 as its num_decoder_layers"),
        ({"num_hidden_groups": 10**9}, "cannot have 1,000,000,000 as its num_hidden_groups"),
        ({"text_config": {"num_hidden_layers": 10**9}}, "cannot have 1,000,000,000 as its num_hidden_layers"),
        ({"text_config": {"vocab_size": 2**30}}, "cannot have 1,073,741,824 as its vocab_size"),
        ({"dim": 2**40}, "Storage size"),
        ({"dim": -8}, "negative dimension"),
        ({"vocab_size": 2**30}, "cannot have 1,073,741,824 as its vocab_size"),
        ({"max_position_embeddings": 2**40}, "as its max_position_embeddings"),
        ({"dtype": "__import__('os')"}, "cannot be loaded"),
        ({"id2label": ["a"] * 5}, "expected an object"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_a_number_that_cannot_be_is_refused_and_nothing_of_its_size_is_made(classifier, values, message):
    edited(classifier / "config.json", **values)
    with pytest.raises(BadInput, match=message):
        Classifier(str(classifier))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", '{"model_type":' + "[" * 100_000), ("tokenizer.json", "[]"), ("tokenizer.json", "{" * 100_000),
        ("tokenizer.json", '{"model": {"type": "BPE", "vocab": {"a": -1}}}'),
        ("tokenizer_config.json", '{"chat_template":' + "[" * 100_000), ("tokenizer.json", '{"model": 5}'),
    ],
)  # fmt: skip
def test_a_file_that_is_no_such_thing_is_refused(classifier, name, content):
    (classifier / name).write_text(content, encoding="utf-8")
    with pytest.raises(BadInput) as raised:
        Classifier(str(classifier))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception.__globals__['os'] }}{{ messages }}", "fails"),
        ("{{ messages.__class__.__base__.__subclasses__() }}", "fails"),
        ("{{ cycler.__init__.__globals__.os.popen('id') }}", "fails|leaves out"),
        ("{% for i in range(10**12) %}x{% endfor %}", "fails .*Range too big"),
        ("{% for", "fails"),
        ("{% include '/etc/passwd' %}", "fails"),
    ],
)
def test_a_chat_template_reaches_no_python(generator, template, message):
    (generator / "chat_template.jinja").write_text(template, encoding="utf-8")
    with pytest.raises(BadInput, match=message):
        Generator.load(str(generator)).answer(["hello"], chat=True, max_new_tokens=2)


@pytest.mark.parametrize(
    "values",
    [
        {"max_length": 10**12, "num_beams": 10**9}, {"temperature": -1.0, "do_sample": True}, {"eos_token_id": -7},
        {"bad_words_ids": [[10**12]]}, {"custom_generate": "somebody/code"}, {"pad_token_id": 10**9},
    ],
    ids=str,
)  # fmt: skip
def test_a_generation_config_has_no_say(generator, values, mark):
    (generator / "custom_generate").mkdir()
    (generator / "custom_generate" / "generate.py").write_text(
        f"open({str(mark)!r}, 'w')\ndef generate(): pass\n", encoding="utf-8"
    )
    edited(generator / "generation_config.json", **values)
    (answer,) = Generator.load(str(generator)).answer(["hello"], max_new_tokens=3)
    assert answer.tokens <= 3
    assert "generate" not in sys.modules
