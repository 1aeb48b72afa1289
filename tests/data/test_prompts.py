"""Input ids and labels of instruction rows: only the answer and its EOS are learned."""

import re

import pytest
from datasets import Dataset
from transformers import DataCollatorForSeq2Seq

from ftlab.data import chat, prompts
from ftlab.data.prompts import ALPACA, IGNORED, Template, encode, encode_row, prompt_ids, token_view
from ftlab.errors import BadInput
from ftlab.models import loading
from tests.data import chat_formats

ROW = {"instruction": "Say which film this is about.", "input": "a long and lovely film", "output": "the good one"}


@pytest.fixture(scope="module", params=["tiny-gpt2", "tiny-phi"])
def tokenizer(request):
    return loading.tokenizer(request.param)


def test_the_prompt_has_an_input_only_where_the_row_has_one():
    assert "### Input:\na long and lovely film\n\n### Response:\n" in ALPACA.prompt(ROW)
    for empty in ("", " ", None):
        assert "### Input" not in ALPACA.prompt({**ROW, "input": empty})
    assert "### Input" not in ALPACA.prompt({"instruction": "Say it."})


def test_braces_in_a_row_are_text():
    assert "{name}" in ALPACA.prompt({**ROW, "input": "f'{name}' and {0}"})


def test_only_the_completion_and_its_end_are_labels(tokenizer):
    row = encode_row(ROW, tokenizer, max_length=200)
    learned = [label for label in row["labels"] if label != IGNORED]
    assert learned[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(learned[:-1]) == "the good one"
    assert row["input_ids"][-len(learned) :] == learned
    assert tokenizer.decode(row["input_ids"][: -len(learned)]) == ALPACA.prompt(ROW)
    assert len(row["input_ids"]) == len(row["labels"]) == len(row["attention_mask"])
    assert row["cut"] == 0


def test_the_ids_begin_with_what_generation_sees_even_where_tokens_would_reach_across(tokenizer):
    """A prompt that ends in a space, and an answer that begins with a letter: together they would be one token."""
    template = Template("Q: {instruction} {input} A: ", "Q: {instruction} A: ")
    row = {"instruction": "film", "output": "the film was good"}
    joined = tokenizer(template.prompt(row) + row["output"])["input_ids"]
    seen = prompt_ids(template.prompt(row), tokenizer)
    assert joined[: len(seen)] != seen  # so the two must be tokenized separately
    assert encode_row(row, tokenizer, max_length=99, template=template)["input_ids"][: len(seen)] == seen


@pytest.mark.parametrize("less", [1, 5, 20])
def test_what_does_not_fit_is_taken_from_the_left_of_the_prompt(tokenizer, less):
    whole = encode_row(ROW, tokenizer, max_length=500)
    length = len(whole["input_ids"]) - less
    cut = encode_row(ROW, tokenizer, max_length=length)
    assert cut["cut"] == less
    assert cut["input_ids"] == whole["input_ids"][less:]
    assert [n for n in cut["labels"] if n != IGNORED] == [n for n in whole["labels"] if n != IGNORED]


def test_a_token_that_begins_every_text_is_kept_when_the_prompt_is_cut():
    class Beginning:
        """A tokenizer that puts token 1 before a text, as Llama's does: a token a character."""

        bos_token_id, eos_token_id = 1, 2

        def __call__(self, text, add_special_tokens=True):
            return {"input_ids": ([1] if add_special_tokens else []) + [ord(c) for c in text]}

    row = encode_row({"instruction": "x" * 50, "output": "abc"}, Beginning(), max_length=20)
    assert row["input_ids"][0] == 1
    assert row["input_ids"][-4:] == [ord("a"), ord("b"), ord("c"), 2]
    assert len(row["input_ids"]) == 20
    assert row["labels"][:-4] == [IGNORED] * 16


def test_an_end_that_the_tokenizer_puts_behind_a_prompt_is_taken_off():
    class Ending:
        bos_token_id, eos_token_id = None, 2

        def __call__(self, text, add_special_tokens=True):
            return {"input_ids": [ord(c) for c in text] + ([2] if add_special_tokens else [])}

    assert prompt_ids("ab", Ending()) == [ord("a"), ord("b")]


def test_encode_counts_what_was_cut_and_keeps_the_rows_columns(tokenizer):
    rows = Dataset.from_list([ROW, {**ROW, "input": "word " * 80}])
    encoded, cut = encode(rows, tokenizer, max_length=90)
    assert encoded.column_names == ["instruction", "input", "output", "input_ids", "attention_mask", "labels"]
    assert (cut.rows, cut.cut_rows) == (2, 1)
    assert cut.cut_tokens == encode_row(rows[1], tokenizer, max_length=90)["cut"]
    assert len(encoded[1]["input_ids"]) == 90
    assert "1 of 2 rows lost" in str(cut)
    assert 0 < prompts.supervised_share(encoded["labels"]) < 0.5


def test_padding_is_never_learned(tokenizer):
    rows = [encode_row({**ROW, "input": text}, tokenizer, max_length=200) for text in ("short", "a rather longer text")]
    rows = [{name: value for name, value in row.items() if name != "cut"} for row in rows]
    batch = DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORED)(rows)
    assert (batch["labels"][batch["attention_mask"] == 0] == IGNORED).all()
    for row, labels in zip(rows, batch["labels"], strict=True):
        assert [n for n in labels.tolist() if n != IGNORED] == [n for n in row["labels"] if n != IGNORED]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"instruction": ""}, "row 7 has no instruction"),
        ({"instruction": None}, "row 7 has no instruction"),
        ({"output": "  "}, "row 7 has no output"),
        ({"output": None}, "row 7 has no output"),
        ({"output": "good film " * 60}, "the output of row 7 has .* tokens with EOS, and max_length is 64"),
    ],
)
def test_a_row_that_cannot_be_learned_from_is_one_sentence(tokenizer, change, message):
    with pytest.raises(BadInput, match=message) as raised:
        encode_row({**ROW, "id": 7, **change}, tokenizer, max_length=64)
    assert "\n" not in str(raised.value)


def test_a_row_without_an_id_is_named_by_its_number(tokenizer):
    with pytest.raises(BadInput, match="row 1 has no output"):
        encode(Dataset.from_list([ROW, {**ROW, "output": ""}]), tokenizer, max_length=64)


def test_a_placeholder_that_the_row_lacks_is_named_with_the_columns_that_there_are():
    with pytest.raises(
        BadInput, match=r"the template asks for \{question\}, and the row has instruction, input, output"
    ):
        Template("{question}", "{question}").prompt(ROW)


def test_a_tokenizer_without_an_end_is_refused():
    class Endless:
        eos_token_id = None

    with pytest.raises(BadInput, match="no EOS token"):
        encode_row(ROW, Endless(), max_length=64)


def test_the_view_tells_prompt_supervised_end_and_padding_apart_in_text_and_html(tokenizer):
    row = encode_row(ROW, tokenizer, max_length=200)
    ids = [*row["input_ids"], tokenizer.pad_token_id]
    view = token_view(
        {"input_ids": ids, "labels": [*row["labels"], IGNORED], "attention_mask": [*row["attention_mask"], 0]},
        tokenizer,
    )
    assert view.kinds[0] == "prompt"
    assert view.kinds[-3:] == ["supervised", "end", "padding"]
    assert view.teaches_stopping
    assert "it teaches to stop" in view.verdict
    assert f"{sum(n != IGNORED for n in row['labels'])} of {len(ids)} tokens are supervised" in str(view)
    page = view._repr_html_()
    assert f"title='end: id {tokenizer.eos_token_id}, label {tokenizer.eos_token_id}'" in page
    assert page.count("<span style") == len(ids) + 4
    assert not re.search(r"(color|background):\s*(#|black|white)", page)  # colours of the theme alone


def test_the_view_escapes_what_a_row_holds(tokenizer):
    row = encode_row({"instruction": "<script>alert(1)</script>", "output": "<b>"}, tokenizer, max_length=200)
    assert "<script" not in token_view(row, tokenizer)._repr_html_()


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([IGNORED] * 4, "it teaches nothing; it does not teach to stop"),
        ([IGNORED, 5, 6, IGNORED], "it does not teach to stop"),  # EOS lost to a mask of pad ids
        ([IGNORED, 5, 6, 7], "it does not teach to stop"),  # cut before EOS
    ],
)
def test_the_verdict_sees_the_traps(tokenizer, labels, says):
    ids = [4, 5, 6, tokenizer.eos_token_id]
    assert token_view({"input_ids": ids, "labels": labels}, tokenizer).verdict.endswith(says)


def test_the_verdict_counts_the_ends_that_are_learned(tokenizer):
    end = tokenizer.eos_token_id
    twice = token_view({"input_ids": [4, 5, end, 6, end], "labels": [IGNORED, 5, end, 6, end]}, tokenizer)
    assert (twice.ends, twice.teaches_stopping) == (2, False)
    assert twice.verdict.endswith("2 labels are EOS, so it teaches to stop before its end")
    # EOS in a prompt is not learned, and the pad token may be EOS.
    for labels, attended in (([IGNORED, IGNORED, IGNORED, 6, end], [1] * 5), ([4, 5, end, end, end], [1, 1, 1, 0, 0])):
        once = token_view({"input_ids": [4, 5, end, 6, end], "labels": labels, "attention_mask": attended}, tokenizer)
        assert (once.ends, once.teaches_stopping) == (1, True)


def test_a_row_that_holds_the_end_as_text_teaches_to_stop_once(tokenizer):
    row = {**ROW, "output": f"It ends {tokenizer.eos_token} but goes on{tokenizer.eos_token}"}
    view = token_view(encode_row(row, tokenizer, max_length=200), tokenizer)
    assert (view.ends, view.teaches_stopping) == (1, True)
    assert "it teaches to stop" in view.verdict


def test_a_missing_value_is_nothing_and_not_its_name():
    """NaN is pandas' missing value."""
    for nothing in (None, float("nan"), " "):
        assert ALPACA.prompt({**ROW, "input": nothing}) == ALPACA.prompt({"instruction": ROW["instruction"]})


@pytest.mark.parametrize(
    ("column", "value", "kind"), [("instruction", [{"role": "user"}], "a list"), ("input", {"a": 1}, "an object"),
                                  ("output", ["one"], "a list"), ("output", (1, 2), "a tuple")],
)  # fmt: skip
def test_a_value_that_is_no_text_is_one_sentence(tokenizer, column, value, kind):
    with pytest.raises(BadInput, match=f"the {column} of row 3 is {kind}, .*; expected a text"):
        encode_row({**ROW, "id": 3, column: value}, tokenizer, max_length=200)


def test_a_number_is_read_as_it_is_written(tokenizer):
    row = {"instruction": "Add", "input": 2, "output": 4}
    assert ALPACA.prompt(row) == ALPACA.prompt({**row, "input": "2"})
    assert encode_row(row, tokenizer, max_length=99) == encode_row({**row, "output": "4"}, tokenizer, max_length=99)


def test_the_verdict_counts_padding_in_the_loss(tokenizer):
    row = {"input_ids": [4, 5, 6, 6], "labels": [4, 5, 6, 6], "attention_mask": [1, 1, 0, 0]}
    assert "2 of them are padding" in token_view(row, tokenizer).verdict


# --- the chat format -----------------------------------------------------------------------------------------------
SAID = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."},
    {"role": "user", "content": "Sure?"}, {"role": "assistant", "content": "Quite."},
]  # fmt: skip


@pytest.fixture
def chatty():
    return chat_formats.tokenizer("tiny-phi", chat_formats.template("chatml", marked=True))


def test_a_format_is_named_and_every_function_takes_it(chatty):
    assert prompts.named("alpaca", chatty) is ALPACA
    chosen = prompts.named("chat", chatty)
    assert isinstance(chosen, chat.Chat)
    row = {"id": 7, "messages": SAID}
    before, answer = prompts.pieces(row, chatty, template=chosen)
    assert prompts.question_ids(row, chatty, template=chosen) == before
    assert encode_row(row, chatty, max_length=99, template=chosen)["input_ids"] == before + answer
    encoded, cut = encode(Dataset.from_list([row]), chatty, max_length=99, template=chosen)
    assert encoded[0]["labels"] == encode_row(row, chatty, max_length=99, template=chosen)["labels"]
    assert (cut.rows, cut.cut_rows) == (1, 0)
    assert prompts.ends(chosen, chatty) == [answer[-1]] == [chatty.convert_tokens_to_ids("<|im_end|>")]
    assert prompts.ends(ALPACA, chatty) == [chatty.eos_token_id]


@pytest.mark.parametrize(
    ("name", "template", "message"),
    [
        ("llama", None, "there is no template 'llama'; there are alpaca, chat"),
        ("chat", None, "template=chat asks for the model's own chat format, and the tokenizer .*has no chat template"),
        ("chat", "Hello!", "template=chat: the model's chat template leaves out what the user says"),
        ("chat", "{{ messages[0].content }}", "template=chat: the model's chat template changes the answer"),
    ],
)  # fmt: skip
def test_a_format_that_there_is_not_is_one_sentence(tokenizer, name, template, message):
    tokenizer.chat_template = template
    try:
        with pytest.raises(BadInput, match=message) as raised:
            prompts.named(name, tokenizer)
    finally:
        tokenizer.chat_template = None
    assert "\n" not in str(raised.value)
    assert "alpaca" in str(raised.value)


@pytest.mark.parametrize(("said", "has"), [(SAID[:3], "a system turn"), (SAID[1:], "several questions")])
def test_headings_for_one_instruction_refuse_what_they_would_leave_out(tokenizer, said, has):
    row = {"id": 7, "instruction": "Sure?", "input": "", "output": "Quite.", "messages": said}
    for call in (prompts.question_ids, prompts.pieces):
        with pytest.raises(BadInput, match=f"row 7 has {has}, and the template has room for one instruction; set temp"):
            call(row, tokenizer)
    one = {**row, "instruction": "Why?", "output": "So.", "messages": SAID[1:3]}
    assert prompts.pieces(one, tokenizer) == prompts.pieces({**one, "messages": None}, tokenizer)


def test_the_least_length_is_the_smallest_that_is_taken(tokenizer, chatty):
    cases = [
        (ROW, tokenizer, ALPACA),
        (ROW, chatty, chat.Chat(chatty)),
        ({"messages": SAID}, chatty, chat.Chat(chatty)),
    ]
    for row, of, template in cases:
        least = prompts.least_length(row, of, template=template)
        assert len(encode_row(row, of, max_length=least, template=template)["input_ids"]) == least
        with pytest.raises(BadInput):
            encode_row(row, of, max_length=least - 1, template=template)


def test_the_view_shows_each_answer_and_whether_it_teaches_to_stop(chatty):
    chosen = chat.Chat(chatty)
    row = encode_row({"messages": SAID}, chatty, max_length=99, template=chosen)
    view = token_view(row, chatty, template=chosen)
    assert (view.ends, view.teaches_stopping) == (2, True)
    assert "[.][[<|im_end|>]]\n<|im_start|>user" in str(view)
    assert view.verdict.endswith("; 2 answers are learned, and each teaches to stop")
    (end,) = chosen.ends
    first = row["labels"].index(end)
    lost = {**row, "labels": [*row["labels"][:first], IGNORED, *row["labels"][first + 1 :]]}
    assert token_view(lost, chatty, template=chosen).verdict.endswith(
        "; 2 answers are learned; answer 1 does not teach to stop"
    )
    early = {**row, "labels": [*row["labels"][: first - 1], end, end, *row["labels"][first + 1 :]]}
    view = token_view(early, chatty, template=chosen)
    assert (view.ends, view.teaches_stopping) == (3, False)
    assert view.verdict.endswith("; 2 labels of answer 1 are ends, so it teaches to stop before its end")
    # EOS is not what ends a turn in this format.
    assert token_view(row, chatty).verdict.endswith(
        "; answer 1 does not teach to stop; answer 2 does not teach to stop"
    )
