"""An adapter that brings a vocabulary of another size: merged or apart, it answers as PEFT lets it answer."""

import json
import shutil

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from ftlab.adapters import lora
from ftlab.adapters.config import WEIGHTS
from ftlab.errors import BadInput
from ftlab.inference import Generator
from ftlab.merging import certificate
from ftlab.merging import merge as merging
from ftlab.models import loading, shards
from tests.merging import merge_cases
from tests.merging.merge_cases import DTYPES, VOCABULARY, save_base, tensors, ulps

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore")]

MORE = VOCABULARY + 20
PROMPTS = ["a dull film , and yet the ending is worth the wait", "two hours of nothing"]
WAYS = {
    "trained": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "frozen": {},
    "trained beside DoRA": {"modules_to_save": ["embed_tokens", "lm_head"], "use_dora": True},
    "adapted": {"target_modules": ["q_proj", "embed_tokens", "lm_head"]},
}


def enlarged(base, rows=MORE, **options):
    """The base with more tokens, and an adapter on it, as PEFT has them in memory."""
    plain = merge_cases.load

    def load(folder, dtype=None):
        model = plain(folder, dtype)
        model.resize_token_embeddings(rows)
        return model

    merge_cases.load = load
    try:
        torch.manual_seed(3)
        return merge_cases.adapted(base, size=0.3, **options)
    finally:
        merge_cases.load = plain


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(3, 23).reshape(2, 10)).logits.float()


@pytest.mark.parametrize("shard_size", ["20KB", "1GB"], ids=["shards", "one file"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("way", WAYS)
def test_it_is_merged_into_the_base_that_has_fewer_tokens(way, dtype, shard_size, tmp_path):
    base = save_base(tmp_path / "base", "llama", dtype, shard_size=shard_size)
    model = enlarged(base, **WAYS[way])
    model.save_pretrained(tmp_path / "adapter")
    merged = merging.merge(base, tmp_path / "adapter", tmp_path / "out")
    wanted = model.merge_and_unload().state_dict()
    held = tensors(tmp_path / "out")
    assert held.keys() == tensors(base).keys()
    assert max(ulps(held[name], wanted[name]) for name in held) <= 1
    assert (
        merged.vocabulary
        == MORE
        == json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    )
    assert merged.bytes == sum(path.stat().st_size for path in (tmp_path / "out").glob("*.safetensors"))
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert all(torch.equal(tensor, held[name]) for name, tensor in again.state_dict().items())
    if shard_size == "20KB":
        about = json.loads((tmp_path / "out" / shards.INDEX).read_text(encoding="utf-8"))["metadata"]
        assert about["total_size"] == sum(one.numel() * one.element_size() for one in held.values())


@pytest.mark.parametrize("way", ["trained", "frozen"])
def test_it_is_merged_into_a_base_that_was_saved_enlarged_as_well(way, tmp_path):
    base = save_base(tmp_path / "base", "llama")
    model = enlarged(base, **WAYS[way])
    model.save_pretrained(tmp_path / "adapter")
    own = merge_cases.load(base)
    own.resize_token_embeddings(MORE)
    for name in ("input", "output"):  # as it was when the adapter was trained on it
        there = getattr(model.get_base_model(), f"get_{name}_embeddings")()
        getattr(own, f"get_{name}_embeddings")().weight.data = getattr(there, "original_module", there).weight.data
    shutil.copytree(base, tmp_path / "own", ignore=shutil.ignore_patterns("*.safetensors*"))
    own.save_pretrained(tmp_path / "own")
    for folder in ("base", "own"):
        merging.merge(tmp_path / folder, tmp_path / "adapter", tmp_path / f"from {folder}")
    one, other = tensors(tmp_path / "from base"), tensors(tmp_path / "from own")
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_tied_vocabulary_stays_tied(tmp_path):
    base = save_base(tmp_path / "base", "gpt2")
    model = enlarged(base)
    model.save_pretrained(tmp_path / "adapter", save_embedding_layers=True)
    assert {"base_model.model.lm_head.weight", "base_model.model.transformer.wte.weight"} <= load_file(
        tmp_path / "adapter" / WEIGHTS
    ).keys()
    found = certificate.merge_with_certificate(base, tmp_path / "adapter", tmp_path / "out", PROMPTS)
    assert found.ok
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert again.lm_head.weight is again.transformer.wte.weight
    torch.testing.assert_close(logits(again), logits(model.merge_and_unload()))


@pytest.mark.parametrize("way", WAYS)
def test_apart_and_merged_it_gives_the_same_answers(way, tmp_path):
    base = save_base(tmp_path / "base", "llama", initializer_range=0.5, vocab_size=640)
    model = enlarged(base, rows=660, **WAYS[way])
    model.save_pretrained(tmp_path / "adapter")
    lora.record_fitting_base(tmp_path / "adapter", str(base))
    expected = logits(model)
    found = certificate.merge_with_certificate(base, tmp_path / "adapter", tmp_path / "out", PROMPTS)
    assert found.ok
    assert "The vocabulary has 660 rows" in found.markdown()
    apart = Generator.load(base, tmp_path / "adapter", device="cpu")
    torch.testing.assert_close(logits(apart.model), expected)
    answers = [Generator.load(tmp_path / "out", device="cpu").answer(PROMPTS, max_new_tokens=8)]
    answers.append(apart.answer(PROMPTS, max_new_tokens=8))
    assert answers[0] == answers[1]
    with pytest.raises(BadInput, match=r"has a vocabulary of its own|brings .* of its own"):
        apart.use(None)


def test_the_tokenizer_that_lies_beside_the_adapter_goes_with_its_vocabulary(tmp_path):
    base = save_base(tmp_path / "base", "llama", initializer_range=0.5, vocab_size=640)
    enlarged(base, rows=660, **WAYS["trained"]).save_pretrained(tmp_path / "adapter")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["<call>"])
    tokenizer.save_pretrained(tmp_path / "adapter")
    lora.record_fitting_base(tmp_path / "adapter", str(base))
    found = certificate.merge_with_certificate(base, tmp_path / "adapter", tmp_path / "out", PROMPTS)
    assert "The tokenizer is the one that lies beside the adapter." in found.notes[-1]
    apart = Generator.load(base, tmp_path / "adapter", device="cpu")
    for one in (loading.tokenizer(str(tmp_path / "out")), apart.tokenizer):
        assert one.convert_tokens_to_ids("<call>") == len(tokenizer) - 1


def test_a_vocabulary_that_is_half_there_or_too_small_is_refused(tmp_path):
    base = save_base(tmp_path / "base", "llama")
    for name, rows, lacking in (("half", MORE, "embed_tokens"), ("small", 300, None)):
        enlarged(base, rows=rows).save_pretrained(tmp_path / name)
        path = tmp_path / name / WEIGHTS
        save_file({key: one for key, one in load_file(path).items() if not lacking or lacking not in key}, path)
        with pytest.raises(BadInput) as raised:
            merging.merge(base, tmp_path / name, tmp_path / "out")
        assert "has other shapes than the model (size mismatch for base_model.model." in str(raised.value)
        assert not (tmp_path / "out").exists()


def test_copies_of_an_embedding_that_differ_are_refused(tmp_path):
    base = save_base(tmp_path / "base", "llama")
    enlarged(base, **WAYS["trained"]).save_pretrained(tmp_path / "adapter")
    path = tmp_path / "adapter" / WEIGHTS
    held = load_file(path)
    key = "base_model.model.lm_head.modules_to_save.weight"
    save_file({**held, key: held[key] + 1}, path)
    with pytest.raises(BadInput, match="which should be equal, and differ"):
        merging.merge(base, tmp_path / "adapter", tmp_path / "out")


@pytest.mark.parametrize(
    "options",
    [{"target_modules": ["q_proj", "lm_head"]}, {"modules_to_save": ["embed_tokens", "lm_head"]}],
    ids=["adapted", "trained"],
)
def test_what_cannot_be_merged_since_it_is_tied_can_be_used_apart(options, tmp_path):
    base = save_base(tmp_path / "base", "llama", tie_word_embeddings=True, vocab_size=640)
    model = merge_cases.adapted(base, **options)
    model.save_pretrained(tmp_path / "adapter")
    with pytest.raises(BadInput, match="use the unmerged adapter"):
        merging.merge(base, tmp_path / "adapter", tmp_path / "out")
    by_peft = PeftModel.from_pretrained(merge_cases.load(base), tmp_path / "adapter")
    lora.record_fitting_base(tmp_path / "adapter", str(base))
    apart = Generator.load(base, tmp_path / "adapter", device="cpu").model
    torch.testing.assert_close(logits(apart), logits(model))
    torch.testing.assert_close(logits(apart), logits(by_peft))
