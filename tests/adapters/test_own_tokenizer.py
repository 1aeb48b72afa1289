"""A tokenizer beside an adapter: used where the adapter was trained with it, with a resized vocabulary or without."""

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from ftlab.adapters import lora
from ftlab.data.chat import ALONE
from ftlab.errors import BadInput
from ftlab.inference import Generator
from ftlab.merging import certificate
from ftlab.merging import merge as merging
from ftlab.models import generation, loading
from ftlab.models.tiny import CHAT_TEMPLATE, TURNS
from tests.merging.merge_cases import adapted, save_base

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore")]
PROMPTS = ["a dull film , and yet the ending is worth the wait", "two hours of nothing"]


def save_adapter(folder, base, tokenizer=None, seed=1):
    adapted(base, size=0.3, seed=seed).save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    lora.record_fitting_base(folder, str(base))
    return folder


def with_turns(base, **options):
    """The base's tokenizer with the tokens of ChatML, of which one is EOS."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_special_tokens({"extra_special_tokens": TURNS, "eos_token": TURNS[1], **options})
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A base with 39 embedding rows more than its tokenizer has tokens, as phi-2 and Qwen2.5 have them."""
    return save_base(tmp_path_factory.mktemp("bases") / "base", "phi", initializer_range=0.5, vocab_size=640)


def refusal(call, *arguments, **options):
    with pytest.raises(BadInput) as raised:
        call(*arguments, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_tokens_that_have_spare_rows_are_read_as_in_training_apart_and_merged(base, tmp_path):
    tokenizer = with_turns(base)
    adapter = save_adapter(tmp_path / "adapter", base, tokenizer)
    start, end = (tokenizer.convert_tokens_to_ids(token) for token in TURNS)
    found = certificate.merge_with_certificate(base, adapter, tmp_path / "out", [*PROMPTS, "<|im_start|>user"])
    assert found.notes[-1].startswith("The tokenizer is the one that lies beside the adapter")
    assert found.positions == sum(len(tokenizer(text)["input_ids"]) for text in [*PROMPTS, "<|im_start|>user"])
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out").generation_config
    assert end in merged.eos_token_id  # where `pipeline` stops
    apart, one = Generator.load(base, adapter, device="cpu"), Generator.load(tmp_path / "out", device="cpu")
    said = [{"role": "user", "content": PROMPTS[0]}]
    ids = tokenizer.apply_chat_template(said, add_generation_prompt=True, return_dict=False)
    assert ids[0] == start
    for generator in (apart, one):
        assert generator._ids(PROMPTS[:1], True, None) == ([ids], [end])
        assert generation.end_tokens(generator.model, generator.tokenizer)[0] == end
    assert apart.answer(PROMPTS, chat=True, max_new_tokens=8) == one.answer(PROMPTS, chat=True, max_new_tokens=8)
    assert "'adapter' has a tokenizer of its own, so the base cannot run without it" in refusal(apart.use, None)


def test_a_tokenizer_that_differs_in_its_pad_token_alone_is_not_needed(base, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_special_tokens({"pad_token": "<filler>"})
    adapter = save_adapter(tmp_path / "adapter", base, tokenizer)
    assert merging.merge(base, adapter, tmp_path / "out").tokenizer is None
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    generator = Generator.load(base, adapter, device="cpu")
    assert generator.tokenizer.pad_token == loading.tokenizer(str(base)).pad_token
    generator.use(None)


@pytest.mark.parametrize("padded", [True, False], ids=["a base with a pad token", "a base without one"])
def test_a_token_without_an_embedding_row_is_refused(padded, tmp_path):
    base = save_base(tmp_path / "base", "phi", vocab_size=601 if padded else 600)
    if not padded:  # a row that is added for a pad token is none for the first new token
        loading.bare_tokenizer("tiny-phi").save_pretrained(base)
    adapter = save_adapter(tmp_path / "adapter", base, with_turns(base))
    for call, more in ((merging.merge, (tmp_path / "out",)), (Generator.load, ())):
        said = refusal(call, base, adapter, *more)
        assert (
            f"beside the adapter in {adapter} has {TURNS[0]!r}, {TURNS[1]!r}, and the embedding of {base} has " in said
        )
    assert not (tmp_path / "out").exists()


def test_a_pad_token_needs_no_row(tmp_path):
    base = save_base(tmp_path / "base", "phi", initializer_range=0.5, vocab_size=601)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_special_tokens({"pad_token": "<filler>", "eos_token": "!"})
    adapter = save_adapter(tmp_path / "adapter", base, tokenizer)
    merged = merging.merge(base, adapter, tmp_path / "out")
    assert merged.tokenizer == adapter
    apart, one = Generator.load(base, adapter, device="cpu"), Generator.load(tmp_path / "out", device="cpu")
    assert apart.tokenizer.eos_token == one.tokenizer.eos_token == "!"
    assert apart.answer(PROMPTS, max_new_tokens=8) == one.answer(PROMPTS, max_new_tokens=8)


def test_adapters_share_a_model_only_if_they_share_a_tokenizer(base, tmp_path):
    folders = {
        "tutor": save_adapter(tmp_path / "tutor", base, with_turns(base)),
        "notes": save_adapter(tmp_path / "notes", base, with_turns(base), seed=2),
        "other": save_adapter(tmp_path / "other", base, with_turns(base, eos_token=TURNS[0])),
        "none": save_adapter(tmp_path / "none", base),
    }
    (folders["notes"] / ALONE).unlink()
    generator = Generator.load(base, {name: folders[name] for name in ("tutor", "notes")}, device="cpu")
    generator.mix("both", {"tutor": 0.5, "notes": 0.5})
    assert generator.chat_template == CHAT_TEMPLATE
    generator.use("notes")
    assert generator.chat_template is None  # nothing says that it was trained in the tutor's
    assert generator.tokenizer.eos_token == TURNS[1]
    for names in (("tutor", "other"), ("tutor", "none"), ("none", "tutor")):
        said = refusal(Generator.load, base, {name: folders[name] for name in names}, device="cpu")
        assert said.startswith(f"the adapters {names[0]!r} and {names[1]!r} were trained with tokenizers that")
