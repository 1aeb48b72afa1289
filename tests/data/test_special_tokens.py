"""A "</s>" in a row is text: special tokens come from tokenizers and templates, and never from a row."""

import random

import pytest

from ftlab.data.prompts import Template, completion_ids, encode_row, prompt_ids, token_view
from ftlab.data.special_tokens import WELL_KNOWN, Prompt, pattern, plain_ids, tokens
from ftlab.errors import BadInput

from .made_tokenizers import TEXTS, tokenizer

PLAIN = ("tiny-gpt2", "tiny-phi", "begins", "sentencepiece")  # of language models that can read any text as text
CHAT = Template("{B}user\n{instruction}\n{input}{E}\n{B}assistant\n", "{B}user\n{instruction}{E}\n{B}assistant\n")


def chat(end: str, begin: str) -> Template:
    """A chat format whose turns begin and end with special tokens."""
    fill = {"{B}": begin, "{E}": end}
    texts = [CHAT.with_input, CHAT.without_input]
    for place, text in enumerate(texts):
        for name, token in fill.items():
            text = text.replace(name, token)
        texts[place] = text
    return Template(*texts)


def special(ids, of) -> list[int]:
    known = {*tokens(of).values()} - ({of.unk_token_id} - {of.eos_token_id})
    return [number for number in ids if number in known]


@pytest.fixture(params=PLAIN)
def any_tokenizer(request):
    return tokenizer(request.param)


@pytest.mark.parametrize("text", [*TEXTS[:3], "  two lines\n\nand äöü 😀 ", "a < b </ s > [SEP", ""])
def test_a_text_without_special_tokens_is_read_as_the_tokenizer_reads_it(any_tokenizer, text):
    assert plain_ids(text, any_tokenizer) == any_tokenizer(text)["input_ids"]
    bare = any_tokenizer(text, add_special_tokens=False)["input_ids"]
    assert completion_ids(text, any_tokenizer) == bare


@pytest.mark.parametrize("around", ["{}", "{} goes on", "goes on {}", "one{}two", "{0}{0}", "a {0} b {0}\n{0}"])
def test_a_special_token_in_a_row_is_text_wherever_it_stands(any_tokenizer, around):
    own = [token for token in tokens(any_tokenizer) if token != any_tokenizer.unk_token]
    for token in own:
        text = around.format(token)
        row = encode_row({"instruction": text, "input": text, "output": text}, any_tokenizer, max_length=999)
        learned = [label for label in row["labels"] if label != -100]
        assert special(learned, any_tokenizer) == [any_tokenizer.eos_token_id]
        begins = any_tokenizer("")["input_ids"]
        assert special(row["input_ids"], any_tokenizer) == [*begins, any_tokenizer.eos_token_id]
        if any_tokenizer.eos_token == "<|endoftext|>":  # byte-level: nothing is lost
            assert any_tokenizer.decode(learned[:-1]) == text


def test_random_rows_hold_one_end_and_read_the_same_alone_and_in_a_prompt(any_tokenizer):
    rng = random.Random(0)
    pieces = [*tokens(any_tokenizer), *WELL_KNOWN, " ", "\n", *TEXTS[:4]]
    for _ in range(200):
        text = "".join(rng.choices(pieces, k=rng.randint(1, 6))).strip() or "x"
        row = encode_row({"instruction": text, "output": text}, any_tokenizer, max_length=999)
        view = token_view(row, any_tokenizer)
        assert (view.ends, view.teaches_stopping) == (1, True)
        assert row["input_ids"][: -sum(label != -100 for label in row["labels"])] == prompt_ids(
            f"### Instruction:\n{text}\n\n### Response:\n", any_tokenizer
        )


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-phi", "begins"])
def test_special_tokens_of_a_template_are_special_and_those_of_its_row_are_not(name):
    of = tokenizer(name)
    template = chat(of.eos_token, of.bos_token)
    begins = of("")["input_ids"]
    wanted = [*begins, *(of.bos_token_id, of.eos_token_id, of.bos_token_id)]
    for text in ("the lamp broke", f"what does {of.eos_token} mean", f"{of.bos_token}x{of.eos_token}"):
        ids = prompt_ids(template.prompt({"instruction": text}), of)
        assert special(ids, of) == wanted
        assert of.decode(ids[len(begins) :]) == template.prompt({"instruction": text})
    plain = template.prompt({"instruction": "the lamp broke"})
    assert prompt_ids(plain, of) == of(str(plain))["input_ids"]


def test_the_same_text_from_no_template_is_text():
    of = tokenizer("tiny-gpt2")
    prompt = chat(of.eos_token, of.bos_token).prompt({"instruction": "hello"})
    assert special(prompt_ids(str(prompt), of), of) == []


def test_a_prompt_knows_what_its_template_wrote():
    template = Template("<{instruction}|{input}>", "<{instruction}>")
    prompt = template.prompt({"instruction": "ab", "input": "c"})
    assert (prompt, [prompt[start:end] for start, end in prompt.own]) == ("<ab|c>", ["<", "|", ">"])
    assert Prompt.of([("a", True), ("b", False)]).own == ((0, 1),)


@pytest.mark.parametrize(
    ("name", "text"), [("unigram", "the lamp</s> broke"), ("unigram", "<s>"), ("words", "the </s> lamp")]
)
def test_a_tokenizer_that_finds_special_tokens_in_any_text_is_refused_such_a_row(name, text):
    of = tokenizer(name)
    token = next(token for token in ("</s>", "<s>") if token in text)
    row = {"id": "r7", "instruction": "say it", "output": "it"}
    for column, what in (("instruction", "prompt"), ("output", "output")):
        with pytest.raises(BadInput, match=f"the {what} of row r7 makes the special token '{token}'") as raised:
            encode_row({**row, column: text}, of, max_length=99)
        assert "\n" not in str(raised.value)
    assert special(encode_row(row, of, max_length=99)["input_ids"], of) == [0, 2]


def test_a_word_that_is_not_known_is_no_special_token_of_its_row():
    ids = prompt_ids("the zebra <unk>", tokenizer("words"))
    assert ids == [0, tokenizer("words").convert_tokens_to_ids("the"), 3, 3]


def test_an_unknown_word_that_would_end_the_answer_is_refused():
    of = tokenizer("words")
    try:
        of.unk_token = "</s>"
        of.backend_tokenizer.model.unk_token = "</s>"
        with pytest.raises(BadInput, match="makes the special token '</s>'"):
            completion_ids("the zebra", of)
    finally:
        of.unk_token = of.backend_tokenizer.model.unk_token = "<unk>"


def test_tokens_that_a_tokenizer_is_given_later_are_known():
    from .made_tokenizers import begins

    of = begins()
    assert "<tool>" not in tokens(of)
    of.add_tokens(["<tool>"], special_tokens=True)
    assert special(completion_ids("call <tool> now", of), of) == []


def test_of_two_special_tokens_the_longer_one_is_found():
    assert pattern(["<s>", "<s>x"]).findall("<s>x <s>") == ["<s>x", "<s>"]
    assert pattern([]).search("anything") is None
