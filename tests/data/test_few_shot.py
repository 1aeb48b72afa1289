"""Worked examples before a question: drawn fairly, read as training reads them, and refused where they do not fit."""

import pytest
from datasets import Dataset

from ftlab.data import few_shot, prompts, tasks
from ftlab.data.chat import Chat
from ftlab.errors import BadInput

from .made_tokenizers import tokenizer

TINY = ("tiny-gpt2", "tiny-llama", "tiny-phi")
BEGINNING = ("begins", "sentencepiece")  # these put <s> before a text
ROWS = [
    {
        "id": f"r{number}",
        "instruction": f"the lamp {did}",
        "input": "today" * (number % 2),
        "output": said,
        "kind": said,
    }
    for number, (did, said) in enumerate(
        [
            ("broke", "repair"),
            ("arrived", "delivery"),
            ("stopped twice", "repair"),
            ("is slowly on its way", "delivery"),
        ]
    )
]
# Turns between special tokens, BOS at the beginning.
TURNS = (
    "{{ bos_token }}{% for m in messages %}{{ bos_token }}{{ m.role }}\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}{{ bos_token }}assistant\n{% endif %}"
)


def kinds_of(rows):
    return [row["kind"] for row in rows]


def chatting(name, template=TURNS) -> Chat:
    return Chat(tokenizer(name), templates=template)


def read_in_training(row, of, template=prompts.ALPACA):
    return prompts.encode_row(row, of, max_length=999, template=template)["input_ids"]


@pytest.fixture
def many() -> Dataset:
    kinds = ["often"] * 40 + ["seldom"] * 4 + ["once"]
    return Dataset.from_dict({"id": [f"r{number}" for number in range(len(kinds))], "kind": kinds})


@pytest.mark.parametrize("seed", range(5))
def test_each_kind_has_one_example_before_any_has_two(many, seed):
    found = few_shot.draw(many, 7, seed)
    assert set(kinds_of(found[:3])) == {"often", "seldom", "once"}
    assert set(kinds_of(found[3:5])) == {"often", "seldom"}
    assert len({row["id"] for row in found}) == 7
    assert found[:3] == few_shot.draw(many, 3, seed) == few_shot.draw(many, 3, seed)  # part of the larger draw
    assert {row["id"] for row in few_shot.draw(many, len(many), seed)} == set(many["id"])


def test_another_seed_draws_other_examples_in_another_order(many):
    drawn = [few_shot.draw(many, 3, seed) for seed in range(8)]
    assert len({row["id"] for rows in drawn for row in rows if row["kind"] == "often"}) > 3
    assert len({tuple(kinds_of(rows)) for rows in drawn}) > 1


@pytest.mark.parametrize("k", [-1, 46])
def test_more_examples_than_rows_are_refused(many, k):
    with pytest.raises(
        BadInput, match=f"^{k} examples were asked for, and there are 45 training rows.*; expected 0 to 45$"
    ):
        few_shot.draw(many, k)
    assert few_shot.draw(many, 0) == []


@pytest.mark.parametrize("name", [*TINY, *BEGINNING])
def test_without_examples_the_prompt_is_the_question(name):
    of = tokenizer(name)
    for row in ROWS:
        assert few_shot.question_ids(row, [], of) == prompts.question_ids(row, of)
        chat = chatting(name)
        assert few_shot.question_ids(row, [], of, chat) == chat.question_ids(row)


@pytest.mark.parametrize("name", [*TINY, *BEGINNING])
def test_an_example_is_what_training_reads_of_its_row_and_a_text_begins_once(name):
    of = tokenizer(name)
    begin = of("")["input_ids"]
    assert begin == ([of.bos_token_id] if name in BEGINNING else [])
    # In a byte-level tokenizer "\n\n" is one token alone, and two before a word.
    between = of("\n\n" if name == "sentencepiece" else "\n\n#", add_special_tokens=False)["input_ids"]
    between = between if name == "sentencepiece" else between[:-1]
    *shown, asked = ROWS
    wanted = [*begin]
    for row in shown:
        wanted += [*read_in_training(row, of)[len(begin) :], *between]
    wanted += prompts.question_ids(asked, of)[len(begin) :]
    assert few_shot.question_ids(asked, shown, of) == wanted
    assert wanted.count(of.eos_token_id) == len(shown)
    if name in BEGINNING:
        assert wanted.count(of.bos_token_id) == 1


@pytest.mark.parametrize("name", TINY)
def test_examples_and_question_are_read_as_one_text(name):
    of = tokenizer(name)
    *shown, asked = ROWS
    text = "".join(f"{prompts.ALPACA.prompt(row)}{row['output']}{of.eos_token}\n\n" for row in shown)
    assert few_shot.question_ids(asked, shown, of) == of(text + prompts.ALPACA.prompt(asked))["input_ids"]


@pytest.mark.parametrize("name", [*TINY, "begins"])
def test_a_special_token_in_an_example_is_text(name):
    of = tokenizer(name)
    row = {"id": "r", "instruction": f"say {of.eos_token}", "input": of.eos_token, "output": f"so {of.eos_token}"}
    assert few_shot.question_ids(row, [row, row], of).count(of.eos_token_id) == 2
    chat = chatting(name)
    plain = {**row, "instruction": "say", "input": "it", "output": "so"}
    counts = [few_shot.question_ids(one, [one, one], of, chat).count(of.eos_token_id) for one in (row, plain)]
    assert counts[0] == counts[1]


@pytest.mark.parametrize("name", [*TINY, *BEGINNING])
def test_in_a_chat_examples_are_earlier_turns(name):
    of, chat = tokenizer(name), chatting(name)
    *shown, asked = ROWS
    said = [
        turn for row in shown
        for turn in ({"role": "user", "content": "\n\n".join(filter(None, (row["instruction"], row["input"])))},
                     {"role": "assistant", "content": row["output"]})
    ] + [{"role": "user", "content": f"{asked['instruction']}\n\n{asked['input']}"}]  # fmt: skip
    wanted = of.apply_chat_template(
        said, chat_template=TURNS, add_generation_prompt=True, tokenize=True, return_dict=False
    )
    assert few_shot.question_ids(asked, shown, of, chat) == wanted
    first = read_in_training(shown[0], of, chat)
    assert wanted[: len(first)] == first


def test_a_conversation_keeps_all_its_turns_and_the_system_turn_of_the_question_alone():
    of, chat = tokenizer("tiny-llama"), chatting("tiny-llama")

    def row(number, system, *said):
        turns = [{"role": role, "content": text} for text, role in zip(said, ["user", "assistant"] * 2, strict=False)]
        told = [{"role": "system", "content": system}] if system else []
        return {"id": f"r{number}", "messages": told + turns}

    shown = [row(1, "be kind", "a", "b", "c", "d"), row(2, "be short", "e", "f")]
    text = of.decode(few_shot.question_ids(row(3, "be true", "g", "h"), shown, of, chat))
    begin, end = of.bos_token, of.eos_token
    turns = [("system", "be true"), *zip(["user", "assistant"] * 3 + ["user"], "abcdefg", strict=True)]
    wanted = "".join(f"{begin}{role}\n{said}{end}\n" for role, said in turns)
    assert text == f"{begin}{wanted}{begin}assistant\n"
    assert "system" not in of.decode(few_shot.question_ids(row(3, "", "g", "h"), shown, of, chat))


@pytest.mark.parametrize("made", [lambda name: prompts.ALPACA, chatting], ids=["alpaca", "chat"])
def test_examples_that_do_not_fit_are_refused_with_the_number_that_does(made):
    of, template = tokenizer("tiny-llama"), made("tiny-llama")
    longest = {**ROWS[1], "id": "long", "instruction": "the kettle broke " * 5}
    asked = [ROWS[0], longest, ROWS[2]]
    examples = [ROWS[number % 4] for number in range(12)]
    lengths = [len(few_shot.question_ids(longest, examples[:k], of, template)) + 7 for k in range(13)]

    def ids(k, positions):
        return few_shot.all_question_ids(
            asked, examples[:k], of, positions=positions, max_new_tokens=7, template=template
        )

    assert ids(12, lengths[12]) == ids(12, None)
    assert ids(12, None) == [few_shot.question_ids(row, examples, of, template) for row in asked]
    for fit in (11, 5, 1):
        wanted = (
            rf"^12 examples and the longest question \(row long\) take {lengths[12]} tokens with 7 new ones, and the "
            rf"model has positions for {lengths[fit]}; at most {fit} fit: set examples to {fit}$"
        )
        with pytest.raises(BadInput, match=wanted):
            ids(12, lengths[fit])
        assert ids(fit, lengths[fit])
        with pytest.raises(BadInput, match=f"at most {fit} fit"):
            ids(fit + 1, lengths[fit + 1] - 1)
    with pytest.raises(BadInput, match=r"^1 example and .*; none fits: shorten the rows$"):
        ids(1, lengths[1] - 1)
    assert ids(3, lengths[0] - 1)  # the question is too long by itself; generation says so


def test_an_example_without_an_answer_is_refused():
    for template in (prompts.ALPACA, chatting("tiny-llama")):
        with pytest.raises(BadInput, match="row r0 has no output"):
            few_shot.question_ids(ROWS[1], [{**ROWS[0], "output": " "}], tokenizer("tiny-llama"), template)


def test_examples_of_the_course_hold_each_kind_of_its_notes():
    train = tasks.load("clinical_notes", rows=60, validation_rows=6, test_rows=9).train
    assert sorted(kinds_of(few_shot.draw(train, 3, seed=4))) == ["diagnosis", "symptom", "treatment"]
