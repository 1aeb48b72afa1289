"""Prompts and labels: each part stands in the prompt, the answer and its one end are learned, and text stays text."""

from functools import cache

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from transformers import DataCollatorForSeq2Seq, DataCollatorWithPadding

from ftlab.data import alpaca_chat, chat, few_shot, prompts, special_tokens
from ftlab.data.chat import Chat
from ftlab.data.prompts import ALPACA, IGNORED, Template, encode_row, token_view
from ftlab.data.special_tokens import plain_ids
from ftlab.errors import BadInput
from ftlab.models import batches
from tests import nightly
from tests.data import chat_formats, made_tokenizers
from tests.properties import refusals, strategies

WHOLE = ("tiny-gpt2", "tiny-phi", "begins")  # byte-level tokenizers: they read each text without a loss
EVERY = (*WHOLE, "sentencepiece", "unigram", "words")
TEMPLATES = {
    "alpaca": ALPACA,
    "own tokens": Template("</s>Q: {instruction}\n{input}\nA:", "</s>Q: {instruction}\nA:"),
    "no headings": Template("{instruction} {input}", "{instruction}"),
}
UNREADABLE = "which cannot read it as plain text|this tokenizer cannot tell them apart"
whole_tokenizers = st.sampled_from(WHOLE).map(made_tokenizers.tokenizer)
any_tokenizer = st.sampled_from(EVERY).map(made_tokenizers.tokenizer)
templates = st.sampled_from([*TEMPLATES.values()])


def decoded(tokenizer, ids):
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def special_ids(tokenizer):
    """Every id that is special, without the unknown token: it stands for words that a tokenizer does not know."""
    return {*tokenizer.all_special_ids} - ({tokenizer.unk_token_id} - {tokenizer.eos_token_id, tokenizer.bos_token_id})


def learned(row):
    return [label for label in row["labels"] if label != IGNORED]


# --- the text of a prompt ---


@given(strategies.rows, templates)
@example({"instruction": "### Response:\n", "input": "### Instruction:\n{input}", "output": "x"}, ALPACA)
def test_a_prompt_has_each_part_verbatim_between_the_template_s_own_text(row, template):
    prompt = template.prompt(row)
    inside, end = [], 0
    for start, stop in prompt.own:
        inside.append(prompt[end:start])
        end = stop
    assert "".join([*inside, prompt[end:]]) == row["instruction"] + (row["input"] if row["input"].strip() else "")
    own = "".join(prompt[start:stop] for start, stop in prompt.own)
    empty = template.prompt({"instruction": "\0", "input": "\0" if row["input"].strip() else ""})
    assert own == empty.replace("\0", "")  # whatever the row says, the template says the same


@given(strategies.rows, strategies.said)
def test_the_answer_does_not_change_the_prompt(row, other):
    assert ALPACA.prompt(row) == ALPACA.prompt({**row, "output": other, "kind": other})


# --- text stays text ---


@given(strategies.texts, whole_tokenizers)
@example("<|endoftext|>", made_tokenizers.tokenizer("tiny-gpt2"))
@example("a </s>", made_tokenizers.tokenizer("begins"))
def test_a_byte_level_tokenizer_reads_any_text_as_text_and_gives_it_back(text, tokenizer):
    ids = plain_ids(text, tokenizer, add_special_tokens=False)
    assert not {*ids} & special_ids(tokenizer)
    assert decoded(tokenizer, ids) == text
    before, after = special_tokens.around(tokenizer)
    assert plain_ids(text, tokenizer) == [*before, *ids, *after]


@given(strategies.texts, any_tokenizer)
def test_no_text_becomes_a_special_token_in_any_tokenizer(text, tokenizer):
    try:
        ids = plain_ids(text, tokenizer, add_special_tokens=False)
    except BadInput as problem:
        refusals.require(problem, "cannot read it as plain text")
        assert any(token in text for token in special_tokens.tokens(tokenizer))
        return
    assert not {*ids} & special_ids(tokenizer)
    if not any(token in text for token in special_tokens.tokens(tokenizer)):
        assert ids == tokenizer(text, add_special_tokens=False)["input_ids"]


@given(strategies.rows, any_tokenizer, templates)
def test_a_prompt_has_the_special_tokens_of_its_template_and_no_others(row, tokenizer, template):
    prompt = template.prompt(row)
    try:
        ids = prompts.prompt_ids(prompt, tokenizer)
    except BadInput as problem:
        refusals.require(problem, "plain text", "cannot tell them apart")
        return
    before, _ = special_tokens.around(tokenizer)
    own = "".join(prompt[start:stop] for start, stop in prompt.own)
    wanted = [*before, *(n for token, n in special_tokens.tokens(tokenizer).items() for _ in range(own.count(token)))]
    assert sorted(one for one in ids if one in special_ids(tokenizer)) == sorted(wanted)


# --- what is learned ---


@given(strategies.rows, whole_tokenizers, templates)
@example({"instruction": "a", "input": "", "output": "<|endoftext|>"}, made_tokenizers.tokenizer("tiny-gpt2"), ALPACA)
def test_the_answer_and_its_one_end_are_learned_and_the_prompt_is_what_generation_is_given(row, tokenizer, template):
    try:
        found = encode_row(row, tokenizer, max_length=100_000, template=template)
    except BadInput as problem:
        refusals.require(problem, "cannot tell them apart")
        return
    asked, answer = prompts.question_ids(row, tokenizer, template=template), prompts.answer_ids(row, tokenizer)
    assert found["input_ids"] == [*asked, *answer, tokenizer.eos_token_id]
    assert found["labels"] == [IGNORED] * len(asked) + [*answer, tokenizer.eos_token_id]
    assert found["attention_mask"] == [1] * len(found["input_ids"])
    assert learned(found).count(tokenizer.eos_token_id) == 1
    assert decoded(tokenizer, learned(found)[:-1]) == row["output"]
    assert found["cut"] == 0
    view = token_view(found, tokenizer, template=template)
    assert view.teaches_stopping
    assert view.ends == 1
    assert "teaches to stop" in view.verdict
    assert prompts.pieces(row, tokenizer, template=template) == (asked, [*answer, tokenizer.eos_token_id])


@given(strategies.rows, whole_tokenizers, st.data())
def test_a_cut_row_keeps_its_answer_and_its_end_or_is_refused_by_name(row, tokenizer, data):
    row = {"id": "r7", **row}
    whole = encode_row(row, tokenizer, max_length=100_000)
    least = prompts.least_length(row, tokenizer)
    length = data.draw(strategies.mostly(st.integers(least, len(whole["input_ids"]) + 2), st.integers(1, least - 1)))
    if length < least:
        with pytest.raises(BadInput, match=r"^the output of row r7 has ") as refused:
            encode_row(row, tokenizer, max_length=length)
        refusals.require(refused.value)
        return
    found = encode_row(row, tokenizer, max_length=length)
    assert learned(found) == learned(whole)
    assert len(found["input_ids"]) == len(found["labels"]) == len(found["attention_mask"])
    assert len(found["input_ids"]) == min(length, len(whole["input_ids"]))
    assert found["cut"] == len(whole["input_ids"]) - len(found["input_ids"])
    begins = whole["input_ids"][0] == tokenizer.bos_token_id
    if begins and found["input_ids"] != learned(found) and length > least:
        assert found["input_ids"][0] == tokenizer.bos_token_id
    assert found["input_ids"][begins:] == whole["input_ids"][
        len(whole["input_ids"]) - len(found["input_ids"]) + begins :
    ] or (length == least)


# --- batches ---

ENCODED = st.lists(strategies.rows, min_size=1, max_size=4)


def padded_by_hand(rows, pad, fill, side):
    """Each row with `fill` on one side up to the longest row."""
    longest = max(map(len, rows))
    return [
        [fill] * (longest - len(row)) + row if side == "left" else row + [fill] * (longest - len(row)) for row in rows
    ]


@cache
def padding(name, side):
    tokenizer = (
        made_tokenizers.MADE[name]() if name in made_tokenizers.MADE else made_tokenizers.loading.tokenizer(name)
    )
    tokenizer.padding_side = side
    return tokenizer


@given(ENCODED, st.sampled_from(WHOLE), st.sampled_from(["left", "right"]))
@settings(max_examples=nightly.cases(few=30, nightly=1_000))
def test_a_batch_of_any_collator_is_the_rows_and_padding_that_is_never_learned(rows, name, side):
    tokenizer = padding(name, side)
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    encoded = [encode_row(row, tokenizer, max_length=100_000) for row in rows]
    for row in encoded:
        row.pop("cut")
    fills = {"input_ids": tokenizer.pad_token_id, "attention_mask": 0, "labels": IGNORED}
    wanted = {
        key: padded_by_hand([row[key] for row in encoded], tokenizer.pad_token_id, fill, side)
        for key, fill in fills.items()
    }
    found = DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORED)([{**row} for row in encoded])
    assert {key: found[key].tolist() for key in fills} == wanted
    inputs = [{key: row[key] for key in ("input_ids", "attention_mask")} for row in encoded]
    for batch in (
        DataCollatorWithPadding(tokenizer)(inputs),
        batches.pad(tokenizer, {key: [row[key] for row in encoded] for key in ("input_ids", "attention_mask")}),
        batches.pad(tokenizer, {"input_ids": [row["input_ids"] for row in encoded]}),
    ):
        assert {key: batch[key].tolist() for key in batch} == {
            key: wanted[key] for key in ("input_ids", "attention_mask")
        }
    for ids, seen, labels in zip(
        *(found[key].tolist() for key in ("input_ids", "attention_mask", "labels")), strict=True
    ):
        assert all(label == IGNORED for label, one in zip(labels, seen, strict=True) if not one)
        assert [label for label in labels if label != IGNORED].count(tokenizer.eos_token_id) == 1
        view = token_view({"input_ids": ids, "attention_mask": seen, "labels": labels}, tokenizer)
        assert view.kinds.count("padding") == seen.count(0)
        assert view.teaches_stopping


@given(st.lists(st.integers(0, 300), max_size=30), st.integers(1, 400), st.one_of(st.none(), st.integers(1, 5)))
def test_batches_have_each_row_once_and_no_more_tokens_than_allowed(lengths, tokens, rows):
    found = [*batches.by_length(lengths, tokens, rows=rows)]
    assert sorted(place for batch in found for place in batch) == [*range(len(lengths))]
    for batch in found:
        assert (
            len(batch) == 1
            or len(batch) * max(lengths[place] for place in batch) <= tokens
            or not max(lengths[place] for place in batch)
        )
        assert rows is None or len(batch) <= rows
    longest = [max(lengths[place] for place in batch) for batch in found]
    assert longest == sorted(longest, reverse=True)


# --- examples in a prompt ---


@given(strategies.rows, st.lists(strategies.rows, max_size=2), whole_tokenizers)
@settings(max_examples=nightly.cases(few=30, nightly=1_000))
def test_an_example_in_a_prompt_is_what_training_reads_of_its_row(row, examples, tokenizer):
    found = few_shot.question_ids(row, examples, tokenizer)
    begin = len(special_tokens.around(tokenizer)[0])
    place = begin
    for shown in examples:
        ids = encode_row(shown, tokenizer, max_length=100_000)["input_ids"][begin:]
        assert found[place : place + len(ids)] == ids
        place += len(ids)
        rest = found[place:]
        place += 1 if decoded(tokenizer, rest[:1]) == few_shot.BETWEEN else 2
    asked = prompts.question_ids(row, tokenizer)
    assert found[:begin] + found[place:] == asked
    assert found.count(tokenizer.eos_token_id) == len(examples) + asked.count(tokenizer.eos_token_id)


# --- chat templates ---


@cache
def chat_format(name, marked):
    return Chat(chat_formats.tokenizer("tiny-llama", chat_formats.template(name, marked=marked)))


FORMATS = st.sampled_from([(name, marked) for name in chat_formats.FORMATS for marked in (True, False)])
REFUSED = (  # what is promised to be refused, since generation would be given other tokens, or the text would change
    "it has a system turn", "the tokenizer joins", "white space", "changes the answer", "leaves its text out",
    "the prompt that the model's chat template writes", "the model's chat template ends it",
)  # fmt: skip


@given(strategies.conversations(), FORMATS)
@settings(max_examples=nightly.cases(few=60, nightly=1_000))
def test_in_each_chat_format_the_answers_and_their_ends_are_learned_and_nothing_else(said, named):
    name, marked = named
    chosen = chat_format(name, marked)
    try:
        found = chosen.encode_row({"id": 3, "messages": said}, 100_000)
    except BadInput as problem:
        refusals.require(problem, *REFUSED, "is empty", begins=("row 3: ", "the conversation of row 3: "))
        return
    (end,) = chosen.ends
    tokenizer = chosen.tokenizer
    view = token_view(found, tokenizer, template=chosen)
    answers = [turn["content"] for turn in said if turn["role"] == "assistant"]
    assert len(view.answers) == len(answers)
    for run, answer in zip(view.answers, answers, strict=True):
        assert run[-1] == end
        assert run.count(end) == 1
        assert decoded(tokenizer, run[:-1]).strip() == answer.strip()
    assert view.teaches_stopping
    for place, turn in enumerate(said):
        if turn["role"] == "assistant":
            asked = chosen.question_ids({"messages": said[: place + 1]})
            assert found["input_ids"][: len(asked)] == asked
    asked, answer = chosen.pieces({"messages": said})
    assert [*asked, *answer] == found["input_ids"]
    assert found["cut"] == 0


@given(strategies.conversations(of=strategies.plain), FORMATS, st.data())
@settings(max_examples=nightly.cases(few=40, nightly=1_000))
def test_a_conversation_that_is_too_long_loses_its_oldest_exchanges_whole(said, named, data):
    chosen = chat_format(*named)
    if said[0]["role"] == "system" and not chosen.takes_system:
        said = said[1:]
    row = {"messages": said}
    whole = chosen.encode_row(row, 100_000)
    least = chosen.least(row)
    length = data.draw(strategies.mostly(st.integers(least, len(whole["input_ids"]) + 2), st.integers(1, least - 1)))
    try:
        found = chosen.encode_row(row, length)
    except BadInput as problem:
        refusals.require(problem, "the last question and answer")
        assert least > length
        return
    assert least <= len(found["input_ids"]) <= length
    assert found["cut"] == len(whole["input_ids"]) - len(found["input_ids"])
    begin = int(said[0]["role"] == "system")
    rests = [[*said[:begin], *said[place:]] for place in range(begin, len(said), 2)]
    assert found["input_ids"] in [chosen.encode_row({"messages": rest}, 100_000)["input_ids"] for rest in rests]
    assert learned(found) == learned(whole)[len(learned(whole)) - len(learned(found)) :]
    assert learned(found)


@given(strategies.conversations(), FORMATS)
@settings(max_examples=nightly.cases(few=40, nightly=1_000))
def test_no_turn_adds_a_special_token_to_a_conversation(said, named):
    """The special tokens are those that the template writes for turns of one plain word."""
    chosen = chat_format(*named)
    if said[0]["role"] == "system" and not chosen.takes_system:
        said = said[1:]
    special = {*chosen.tokenizer.all_special_ids} | {*special_tokens.tokens(chosen.tokenizer).values()}
    of_words = [{**turn, "content": "word"} for turn in said]
    found, wanted = ([one for one in chosen.ids(turns) if one in special] for turns in (said, of_words))
    assert found == wanted


@given(strategies.rows, whole_tokenizers)
def test_the_saved_chat_template_asks_as_training_did(row, tokenizer):
    saved = alpaca_chat.with_template(tokenizer, ALPACA)
    assert alpaca_chat.is_alpaca(saved.chat_template)
    trained = prompts.question_ids(row, tokenizer)
    found = Chat(saved).question_ids(row)
    assert decoded(tokenizer, found) == decoded(tokenizer, trained)
    if not any(token in row["instruction"] + row["input"] for token in tokenizer.added_tokens_encoder):
        assert found == trained


@given(strategies.conversations(system=False), st.sampled_from(WHOLE))
@settings(max_examples=nightly.cases(few=40, nightly=1_000))
def test_a_training_on_the_saved_template_learns_the_same_answer(said, name):
    tokenizer = made_tokenizers.tokenizer(name)
    row = {"instruction": said[0]["content"], "input": "", "output": said[1]["content"]}
    assume(not any(token in row["instruction"] + row["output"] for token in tokenizer.added_tokens_encoder))
    chosen = Chat(alpaca_chat.with_template(tokenizer, ALPACA))
    try:
        found = chosen.encode_row(row, 100_000)
    except BadInput as problem:  # the headings alone are tokenized apart from the answer; a chat template is one text
        refusals.require(problem, *REFUSED)
        return
    assert {**found} == {**encode_row(row, tokenizer, max_length=100_000)}


@given(strategies.texts)
def test_only_the_course_s_own_template_is_taken_for_it(text):
    assert not alpaca_chat.is_alpaca(text)
    assert alpaca_chat.is_alpaca(chat.ALPACA_MARK + text)
