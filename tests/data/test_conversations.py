"""Conversations of each form are read as turns; what cannot be learned from is refused, and nothing is left out."""

import json

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset

from ftlab.data import conversations
from ftlab.errors import BadInput

USER, ASSISTANT = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}
SYSTEM = {"role": "system", "content": "Be brief."}
PAIR = [USER, ASSISTANT]
WHOLE = [SYSTEM, *PAIR, {"role": "user", "content": "Sure?"}, {"role": "assistant", "content": "Quite."}]


def refusal(call, *arguments):
    with pytest.raises(BadInput) as raised:
        call(*arguments)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    "value",
    [
        WHOLE,
        tuple(WHOLE),
        np.array(WHOLE, dtype=object),
        json.dumps(WHOLE),
        f" {WHOLE}",  # as pandas writes a cell of a CSV file
        [{"from": turn["role"], "value": turn["content"]} for turn in WHOLE],
        [{"role": turn["role"].upper(), "content": [{"type": "text", "text": turn["content"]}]} for turn in WHOLE],
        [{**turn, "tool_calls": None, "weight": 1, "name": "Ann", "images": []} for turn in WHOLE],
        [{**turn, "weight": "1", "train": "true", "loss_mask": 1.0, "mask": None} for turn in WHOLE],
        [{**turn, "masked": False, "train_on_turn": True, "learn": 1} for turn in WHOLE],
        [{**turn, "from": None, "value": None} for turn in WHOLE],  # as Parquet joins two forms
    ],
)
def test_each_form_of_a_conversation_is_read_as_the_same_turns(value):
    assert conversations.problem_of(value) == ""
    assert conversations.read([value], "own.jsonl") == [WHOLE]
    assert conversations.turns({"messages": value}) == WHOLE
    assert conversations.question({"messages": value}) == WHOLE[:-1]


@pytest.mark.parametrize(
    ("asks", "answers"), [("human", "gpt"), ("user", "chatgpt"), ("human", "bard"), ("user", "model"), ("Human", "GPT")]
)
def test_the_names_of_sharegpt_are_user_and_assistant(asks, answers):
    assert conversations.read([[{"from": asks, "value": "Why?"}, {"from": answers, "value": "So."}]], "x") == [PAIR]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([], "it has no turns"),
        (None, "it is nothing; expected a list of turns"),
        (float("nan"), "it is nothing"),
        ("hello", "it is the text 'hello'; expected a list of turns"),
        ("[1, 2", "it is the text '[1, 2'; expected a list of turns"),
        ('[{"role": "user", "role": "assistant", "content": "a"}]', "expected a list of turns"),
        ('[{{"role"}}]', "it is the text '[{{\"role\"}}]'; expected a list of turns"),
        (r'[{"role": "user", "content": "\ud83d"}]', "turn 1 has half a character (a lone surrogate) in it; write the"),
        ([USER, {"role": "assistant", "content": "It is 3 \ud83d"}], "turn 2 has half a character"),
        ({"role": "user", "content": "a"}, "it is an object, "),
        ([USER], "it has no assistant turn, so there is nothing to learn"),
        ([SYSTEM], "it has no assistant turn"),
        ([*PAIR, USER], "its last turn is the user's, and has no answer"),
        ([ASSISTANT, USER, ASSISTANT], "turn 1 is the assistant's, and a conversation begins with the user's"),
        ([SYSTEM, ASSISTANT], "turn 2 is the assistant's, and a conversation begins with the user's"),
        ([USER, USER, ASSISTANT], "turn 2 is the user's, as turn 1 is"),
        ([*PAIR, ASSISTANT], "turn 3 is the assistant's, as turn 2 is"),
        ([USER, SYSTEM, ASSISTANT], "turn 2 is a system turn; only the first turn may be one"),
        ([SYSTEM, SYSTEM, *PAIR], "turn 2 is a system turn"),
        ([USER, {"role": "assistant", "content": ""}], "turn 2 (assistant) is empty"),
        ([{"from": "human", "value": " \n"}, ASSISTANT], "turn 1 (user) is empty"),
        ([USER, {"role": "assistant", "content": None}], "turn 2 (assistant) is empty"),
        ([*PAIR, {"role": "tool", "content": "7"}], "turn 3 is of the role 'tool'; turns of tools are not read"),
        ([{"from": "observation", "value": "7"}, ASSISTANT], "turn 1 is of the role 'observation'"),
        ([{"role": "narrator", "content": "7"}, ASSISTANT], "turn 1 is of the unknown role 'narrator'"),
        ([{"role": None, "content": "7"}, ASSISTANT], "turn 1 is of the unknown role None"),
        ([USER, "So."], "turn 2 is the text 'So.'; expected an object"),
        ([USER, None], "turn 2 is nothing; expected an object"),
        ([{"text": "Why?"}, ASSISTANT], 'turn 1 has text; expected "role" and "content", or "from" and "value"'),
        ([{}, ASSISTANT], "turn 1 has no keys"),
        ([USER, {"role": "assistant", "content": 7}], "turn 2 has the number 7 as its content; expected a text"),
        ([USER, {"role": "assistant", "content": [{"type": "text", "text": "a"}] * 2}], "write its parts as one text"),
        ([{"role": "user", "content": [{"type": "image"}]}, ASSISTANT], "turn 1 has a list"),
        ([USER, {**ASSISTANT, "tool_calls": [{"id": 1}]}], "turn 2 has a call of a tool (tool_calls)"),
        ([USER, {"role": "assistant", "content": None, "tool_calls": [{"id": 1}]}], "has a call of a tool"),
        ([USER, {**ASSISTANT, "reasoning_content": "Hm."}], "turn 2 has reasoning (reasoning_content)"),
        ([USER, {**ASSISTANT, "weight": 0}], "turn 2 has weight 0, and every assistant turn is learned alike"),
        ([USER, {**ASSISTANT, "train": False}], "turn 2 has train False"),
        ([USER, {**ASSISTANT, "loss_mask": 0}], "turn 2 has loss_mask 0"),
        ([USER, {**ASSISTANT, "loss_weight": 0.5}], "turn 2 has loss_weight 0.5"),
        ([USER, {**ASSISTANT, "train": "false"}], "turn 2 has train 'false'"),
        ([USER, {**ASSISTANT, "masked": True}], "turn 2 has masked True, and every assistant turn is learned alike"),
        ([USER, {**ASSISTANT, "train_on_turn": False}], "turn 2 has train_on_turn False"),
        ([USER, {**ASSISTANT, "learn": 0}], "turn 2 has learn 0"),
        ([USER, {**ASSISTANT, "train_detail": [{"begin": 0}]}], "turn 2 has train_detail"),
        ([USER, {**ASSISTANT, "mask": True}], "turn 2 has mask True, and every assistant turn is learned alike"),
        ([USER, {**ASSISTANT, "mask": 0}], "turn 2 has mask 0"),  # 0 is "learn it" in some data sets
        ([USER, {**ASSISTANT, "refusal": "I cannot."}], "turn 2 has a refusal (refusal)"),
    ],
)  # fmt: skip
def test_what_is_no_conversation_is_one_sentence_with_the_row_and_the_turn(value, reason):
    assert reason in conversations.problem_of(value)
    said = refusal(conversations.read, [PAIR, value], "own.jsonl, column 'messages'")
    assert said.startswith("own.jsonl, column 'messages', row 1: ")
    assert reason in said
    if value and value == value:
        assert refusal(conversations.turns, {"id": "own-7", "messages": value}).startswith(
            "the conversation of row own-7"
        )


def test_a_row_of_an_instruction_is_a_question_and_an_answer():
    row = {"instruction": "Double it.", "input": "4", "output": "8"}
    asked = {"role": "user", "content": "Double it.\n\n4"}
    assert conversations.turns(row) == [asked, {"role": "assistant", "content": "8"}]
    assert conversations.question({**row, "output": ""}) == [asked]
    assert conversations.turns({**row, "input": None, "messages": None})[0]["content"] == "Double it."
    assert refusal(conversations.turns, {**row, "id": 7, "output": " "}).startswith("row 7 has no output")
    assert refusal(conversations.question, {**row, "instruction": ""}).startswith("the row has no instruction")


def test_the_column_of_conversations_is_found_by_name_and_by_what_it_holds():
    for name in conversations.COLUMNS:
        assert conversations.of_frame(pd.DataFrame({"id": [1], name: [PAIR]})) == name
    assert conversations.of_frame(pd.DataFrame({"messages": ["hello"]})) == "messages"  # to be refused by `read`
    assert conversations.of_frame(pd.DataFrame({"instruction": ["a"], "output": ["b"]})) is None
    pairs = {"instruction": ["a"], "output": ["b"]}
    assert conversations.of_frame(pd.DataFrame({**pairs, "messages": [3]})) is None  # a number of messages
    assert conversations.of_frame(pd.DataFrame({**pairs, "messages": [PAIR]})) == "messages"
    assert conversations.of_frame(pd.DataFrame({"messages": [None], "conversations": [PAIR]})) == "conversations"


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("system", "Be brief.", "a system text in the column 'system', which is not read; write it as the first turn"),
        ("tools", "[{}]", "tools in the column 'tools', which is not read"),
        ("images", ["a.png"], "pictures in the column 'images', which is not read"),
        ("label", False, "false in the column 'label', which marks a bad answer"),
        ("label", "False", "false in the column 'label'"),
    ],
)
def test_a_column_that_the_model_would_have_read_is_not_left_out_in_silence(name, value, reason):
    frame = pd.DataFrame({"messages": [PAIR, PAIR], name: [None, value]})
    assert f"own.jsonl, row 1: it has {reason}" in refusal(conversations.require_alone, frame, "own.jsonl")
    conversations.require_alone(frame.assign(**{name: ""}), "own.jsonl")
    conversations.require_alone(frame.assign(label=[True, None]).drop(columns=name, errors="ignore"), "own.jsonl")


def test_turns_survive_datasets_and_pandas():
    rows = Dataset.from_list([{"messages": WHOLE}, {"messages": PAIR}])
    assert [conversations.turns(row) for row in rows] == [WHOLE, PAIR]
    assert [conversations.turns(row) for row in rows.to_pandas().to_dict("records")] == [WHOLE, PAIR]


def test_a_weight_of_a_turn_that_is_never_learned_does_not_matter():
    for key, value in (("weight", 0), ("train", False)):
        assert conversations.problem_of([{**SYSTEM, key: value}, {**USER, key: value}, ASSISTANT]) == ""
        assert f"turn 2 has {key}" in conversations.problem_of([USER, {**ASSISTANT, key: value}])


@pytest.mark.parametrize("text", ["\u200b", " \ufeff\n", "\u2060\u00ad", "\u3164"])
def test_a_turn_without_a_visible_character_is_empty(text):
    assert "turn 2 (assistant) is empty" in conversations.problem_of([USER, {**ASSISTANT, "content": text}])


def test_different_conversations_are_written_differently():
    texts = {conversations.written(turns) for turns in (WHOLE, WHOLE[1:], PAIR, [SYSTEM, *PAIR])}
    assert len(texts) == 4
