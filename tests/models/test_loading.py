import os
import shutil
import subprocess
import sys
import threading

import pytest
import torch
from transformers import PreTrainedModel

from ftlab.errors import BadInput
from ftlab.models import devices, loading, tiny

TINY = {
    "tiny-distilbert": "DistilBertForSequenceClassification",
    "tiny-gpt2": "GPT2LMHeadModel",
    "tiny-phi": "PhiForCausalLM",
}


def test_labels_go_into_the_model_as_names_in_their_order():
    model = loading.encoder("tiny-distilbert", ["billing", "how_to", "bug_report"])
    assert type(model).__name__ == TINY["tiny-distilbert"]
    assert model.config.id2label == {0: "billing", 1: "how_to", 2: "bug_report"}
    assert model.config.label2id["bug_report"] == 2
    assert model.classifier.out_features == 3


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-phi"])
def test_a_causal_lm_gets_a_pad_token_that_is_not_eos(name):
    tokenizer, model = loading.tokenizer(name), loading.causal_lm(name)
    assert type(model).__name__ == TINY[name]
    assert tokenizer.pad_token == loading.PAD_TOKEN
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert model.config.pad_token_id == model.generation_config.pad_token_id == tokenizer.pad_token_id
    batch = tokenizer(["short", "a much longer text"], padding=True, return_tensors="pt")
    assert torch.isfinite(model(**batch).logits[batch["attention_mask"].bool()]).all()


def test_the_embedding_grows_only_where_the_vocabulary_outgrew_it():
    before = {name: loading.max_positions(name) for name in ("tiny-gpt2", "tiny-phi")}
    grown = loading.causal_lm("tiny-gpt2").get_input_embeddings().num_embeddings
    kept = loading.causal_lm("tiny-phi").get_input_embeddings().num_embeddings
    assert grown == len(loading.tokenizer("tiny-gpt2"))
    assert kept == len(loading.tokenizer("tiny-phi")) - 1 + 24  # as built: 24 rows to spare, and one token more
    assert before == {"tiny-gpt2": 256, "tiny-phi": 256}


def test_a_pad_token_that_is_there_stays():
    tokenizer = loading.tokenizer("tiny-distilbert")
    assert tokenizer.pad_token == "[PAD]"


BUILD = """
import hashlib, pathlib
from ftlab.models import tiny
for name in tiny.BUILDERS:
    files = sorted(path for path in pathlib.Path(tiny.folder(name)).iterdir() if path.is_file())
    print(name, *(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files))
"""


@pytest.mark.night
def test_tiny_models_and_their_tokenizers_are_the_same_in_each_process(tmp_path):
    told = set()
    for seed in ("1", "2"):  # of the hashes of strings, on which the order of a set depends
        environment = {**os.environ, "FTLAB_HOME": str(tmp_path / seed), "PYTHONHASHSEED": seed}
        built = subprocess.run(
            [sys.executable, "-c", BUILD], env=environment, capture_output=True, text=True, check=True
        )
        told.add(built.stdout)
    assert len(told) == 1
    assert "tiny-distilbert config.json" in told.pop()


def test_building_a_tiny_model_leaves_the_generator_alone(empty_home):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    tiny.folder("tiny-gpt2")
    assert torch.equal(torch.rand(3), expected)


def test_a_folder_of_yours_loads_by_its_path(tmp_path):
    mine = tmp_path / "mine"
    shutil.copytree(tiny.folder("tiny-distilbert"), mine)
    assert loading.folder(str(mine)) == mine
    assert loading.encoder(str(mine), ["no", "yes"]).num_parameters() > 0


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda path: shutil.rmtree(path), "does not exist"),
        (lambda path: (path / "config.json").unlink(), "is no model: it has no config.json"),
        (lambda path: (path / "model.safetensors").unlink(), "no safetensors"),
        (lambda path: (path / "model.safetensors").rename(path / "adapter_model.safetensors"), "no safetensors"),
        (lambda path: (path / "model.safetensors").write_bytes(b"half"), "not a whole safetensors file"),
        (lambda path: (path / "config.json").write_text("{", encoding="utf-8"), "config.json cannot be used"),
        (lambda path: (path / "config.json").write_text("[]", encoding="utf-8"), "config.json cannot be used"),
        (lambda path: [file.unlink() for file in path.glob("tokenizer*")], "has no tokenizer"),
        (lambda path: (path / "model.safetensors").rename(path / "pytorch_model.bin"), "pickle checkpoint"),
    ],
)
def test_a_folder_that_cannot_be_loaded_is_one_sentence(tmp_path, break_it, message):
    mine = tmp_path / "mine"
    shutil.copytree(tiny.folder("tiny-distilbert"), mine)
    break_it(mine)
    with pytest.raises(BadInput, match=message) as raised:
        loading.check(str(mine))
    assert "\n" not in str(raised.value)


def test_a_path_that_cannot_be_looked_at_is_one_sentence():
    for model in ("~nobody-at-all/model", "x" * 300 + "/model"):
        with pytest.raises(BadInput, match="cannot be looked at"):
            loading.check(model)


def test_an_unknown_model_names_the_known_ones():
    with pytest.raises(BadInput, match="there is no model 'bert'; there are minilm, smollm2"):
        loading.check("bert")


def test_only_hub_models_need_the_hub(tmp_path):
    assert not any(map(loading.comes_from_hub, ("minilm", "smollm2", "tiny-gpt2", str(tmp_path))))
    assert all(map(loading.comes_from_hub, ("gpt2", "microsoft/phi-2", "somebody/model")))


@pytest.mark.parametrize(
    ("name", "option"),
    [("tiny-distilbert", "attention_dropout"), ("tiny-gpt2", "attn_pdrop"), ("tiny-phi", "attention_dropout")],
)
def test_attention_dropout_is_found_under_each_architecture_s_name(name, option, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert loading.without_attention_dropout(name) == {option: 0.0}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert loading.without_attention_dropout(name) == {}


@pytest.mark.assets
def test_the_packaged_encoder_is_pretrained_and_six_layers_deep():
    model = loading.encoder("minilm", ["negative", "positive"])
    assert model.config.num_hidden_layers == 6
    assert model.num_parameters() == 22_713_986
    assert loading.max_positions("minilm") == 512


@pytest.mark.assets
def test_the_packaged_causal_lm_knows_how_a_sentence_goes_on():
    tokenizer, model = loading.tokenizer("smollm2"), loading.causal_lm("smollm2").eval()
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)
    assert not hasattr(model.config, "quantization_config")
    batch = tokenizer("The capital of France is", return_tensors="pt")
    answer = model.generate(**batch, max_new_tokens=3, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0])


def test_the_row_of_an_added_pad_token_is_the_same_at_each_load_and_leaves_the_random_numbers_alone():
    import torch

    torch.manual_seed(1)
    first = loading.causal_lm("tiny-gpt2").get_input_embeddings().weight[-1]
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after)
    torch.manual_seed(2)
    assert torch.equal(loading.causal_lm("tiny-gpt2").get_input_embeddings().weight[-1], first)


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-phi"])
def test_weights_are_held_in_another_dtype_for_a_while_and_are_then_the_same_tensors(name):
    model = loading.causal_lm(name)
    before = {key: (tensor.data_ptr(), tensor.dtype, tensor.clone()) for key, tensor in model.state_dict().items()}
    ids = torch.arange(9)[None]
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        with devices.in_dtype(model, torch.bfloat16):
            assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
            assert {buffer.dtype for name, buffer in model.named_buffers() if "inv_freq" in name} <= {torch.float32}
            rough = model(input_ids=ids).logits
        assert rough.dtype == torch.bfloat16
        torch.testing.assert_close(rough.float(), expected, atol=0.05, rtol=0.05)
        assert torch.equal(model(input_ids=ids).logits, expected)
    for key, tensor in model.state_dict().items():
        assert (tensor.data_ptr(), tensor.dtype) == before[key][:2]
        assert torch.equal(tensor, before[key][2])


def test_weights_come_back_after_an_error_too():
    model = loading.causal_lm("tiny-gpt2")
    with pytest.raises(ZeroDivisionError), devices.in_dtype(model, torch.bfloat16):
        raise ZeroDivisionError
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("model", tiny.BUILDERS)
def test_the_depth_read_from_a_file_is_the_one_that_transformers_gives(model):
    assert loading.depth(model) == loading.config(model).num_hidden_layers


def test_models_loaded_in_several_threads_at_once_leave_tied_weights_tied():
    """transformers takes `tie_weights` off its class while it loads, and two loads at once would leave it off."""
    before, found = PreTrainedModel.tie_weights, []
    ready = threading.Barrier(6)

    def work() -> None:
        ready.wait()
        found.append(loading.causal_lm("tiny-llama"))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert PreTrainedModel.tie_weights is before
    assert len(found) == 6
    assert all(model.lm_head.weight is model.get_input_embeddings().weight for model in found)
