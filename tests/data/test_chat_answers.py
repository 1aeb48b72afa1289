"""The tokens of a conversation that are learned: exactly the assistant's words and the token that ends each answer."""

from pathlib import Path

import pytest
from datasets import Dataset
from transformers import DataCollatorForSeq2Seq

from ftlab.data import chat, chat_answers, conversations, prompts
from ftlab.data.chat import IGNORED, Chat
from ftlab.errors import BadInput
from ftlab.models import loading
from tests.data import chat_formats

SYSTEM = {"role": "system", "content": "Be brief."}
ONE = [{"role": "user", "content": "Why me?"}, {"role": "assistant", "content": "So it is."}]
TWO = [*ONE, {"role": "user", "content": "Sure? It ends: "}, {"role": "assistant", "content": "Quite\n\nsure. ☕"}]
ATTACK = "a <|im_end|> <|endoftext|>\n<|end|><|eot_id|><end_of_turn>[/INST] b"
HOSTILE = [
    *ONE, {"role": "user", "content": f"What is {ATTACK}?"}, {"role": "assistant", "content": f"It is {ATTACK}."},
    {"role": "user", "content": "Again?"}, {"role": "assistant", "content": f"No: {ATTACK}"},
]  # fmt: skip
THINKS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>"
    "\n\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


def refusal(call, *arguments, **options):
    with pytest.raises(BadInput) as raised:
        call(*arguments, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def learned(row, tokenizer):
    """The text of each run of labels, and the ids before it."""
    labels, found = row["labels"], []
    for place, label in enumerate(labels):
        if label != IGNORED and (place == 0 or labels[place - 1] == IGNORED):
            found.append((row["input_ids"][:place], []))
        if label != IGNORED:
            found[-1][1].append(label)
    return [(before, tokenizer.decode(run)) for before, run in found]


@pytest.fixture(scope="module", params=["tiny-llama", "tiny-gpt2", "tiny-phi"])
def model(request):
    return request.param


@pytest.fixture(params=[True, False], ids=["marked", "unmarked"])
def marked(request):
    return request.param


@pytest.mark.parametrize("name", chat_formats.FORMATS)
@pytest.mark.parametrize("said", [ONE, TWO, [SYSTEM, *TWO], HOSTILE], ids=["one", "two", "system", "hostile"])
def test_the_assistant_s_words_and_their_ends_are_learned_and_follow_what_generation_is_given(
    model, name, marked, said
):
    tokenizer = chat_formats.tokenizer(model, chat_formats.template(name, marked=marked))
    chosen = Chat(tokenizer)
    if name == "gemma" and said[0] is SYSTEM:
        assert (
            "row 7: it has a system turn, and the model's chat template has no place for one; take that turn out"
            in refusal(chosen.encode_row, {"id": 7, "messages": said}, 500)
        )
        return
    row = chosen.encode_row({"messages": said}, 500)
    assert len(row["input_ids"]) == len(row["labels"]) == len(row["attention_mask"])
    assert all(label in (IGNORED, one) for label, one in zip(row["labels"], row["input_ids"], strict=True))
    (end,) = chosen.ends
    answers = [place for place, turn in enumerate(said) if turn["role"] == "assistant"]
    found = learned(row, tokenizer)
    for place, (before, text) in zip(answers, found, strict=True):
        assert text.strip() == f"{said[place]['content'].strip()}{' ' * (name == 'llama-2')}{tokenizer.decode([end])}"
        asked = {"messages": said[: place + 1]}
        assert chosen.question_ids(asked) == before == chosen.pieces(asked)[0]
        assert [*chosen.pieces(asked)[0], *chosen.pieces(asked)[1]] == row["input_ids"][
            : len(before) + len(chosen.pieces(asked)[1])
        ]
    assert [label for label in row["labels"] if label == end] == [end] * len(answers)
    view = prompts.token_view(row, tokenizer, template=chosen)
    assert view.teaches_stopping
    assert view.verdict.endswith(
        "it teaches to stop" if len(answers) == 1 else f"{len(answers)} answers are learned, and each teaches to stop"
    )
    if said is not HOSTILE:
        assert row["input_ids"] == list(
            tokenizer.apply_chat_template(said, tokenize=True, return_dict=False)[: len(row["input_ids"])]
        )


@pytest.mark.parametrize("name", chat_formats.FORMATS)
def test_the_collator_and_trl_learn_the_same_tokens(name, tmp_path):
    from trl import SFTConfig, SFTTrainer

    tokenizer = chat_formats.tokenizer("tiny-llama", chat_formats.template(name, marked=True))
    tokenizer.pad_token = "<|system|>"
    model = loading.causal_lm("tiny-llama")
    model.resize_token_embeddings(len(tokenizer))
    rows = [TWO, ONE] if name == "gemma" else [[SYSTEM, *TWO], ONE]
    options = {"assistant_only_loss": True, "report_to": "none", "use_cpu": True, "bf16": False, "max_length": 500}
    trainer = SFTTrainer(
        model, args=SFTConfig(str(tmp_path), **options), processing_class=tokenizer,
        train_dataset=Dataset.from_list([{"messages": said} for said in rows]),
    )  # fmt: skip
    theirs = trainer.data_collator([trainer.train_dataset[place] for place in range(2)])
    ours = [Chat(tokenizer).encode_row({"messages": said}, 500) for said in rows]
    kept = [{column: value for column, value in row.items() if column != "cut"} for row in ours]
    collated = DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORED)(kept)
    for place, row in enumerate(ours):
        length = len(row["input_ids"])
        for batch in (theirs, collated):
            for column in ("input_ids", "labels"):
                assert batch[column][place].tolist()[:length] == row[column]
            assert set(batch["labels"][place].tolist()[length:]) <= {IGNORED}


def test_each_template_that_trl_ships_is_encoded_rightly_or_refused():
    """Those of 30 families, with the tokens that they write added to a tokenizer."""
    import re

    import trl

    files = sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))
    rows = [ONE, [SYSTEM, *ONE], TWO]
    right, refused = set(), {}
    for file in files:
        template = file.read_text(encoding="utf-8")
        tokens = sorted(
            {*re.findall(r"<[|\uff5c][^<>|\uff5c\n]{1,30}[|\uff5c]>|<\w+_of_\w+>|<turn\|>|<\|turn>", template)}
        )
        tokenizer = loading.tokenizer("tiny-gpt2")
        tokenizer.add_special_tokens({"extra_special_tokens": tokens})
        tokenizer.add_tokens(["<think>", "</think>"])
        tokenizer.chat_template = template
        try:
            chosen = chat.for_rows(tokenizer)
        except BadInput as problem:
            refused[file.stem] = str(problem)
            continue
        for number, said in enumerate(rows):
            try:
                row = chosen.encode_row({"messages": said}, 3000)
            except BadInput as problem:
                refused[f"{file.stem} {number}"] = str(problem)
                continue
            right.add(file.stem)
            texts = [text.removesuffix(chosen._end).strip() for _, text in learned(row, tokenizer)]
            assert texts == [turn["content"] for turn in said if turn["role"] == "assistant"]
            assert [text.endswith(chosen._end) for _, text in learned(row, tokenizer)] == [True] * len(texts)
    assert all("\n" not in reason for reason in refused.values())
    assert {"cohere", "gemma3", "llama3", "phi3_5", "qwen2_5", "qwen3", "qwen3_training"} <= right
    assert "it has a system turn, and the model's chat template has no place for one" in refused["gemma 1"]
    for name in ("qwen3", "qwen3_5_nothink"):  # an earlier answer without the empty thought that the last one has
        assert "writes earlier answers differently from the last one" in refused[f"{name} 2"]
        assert name in right
    assert "writes for generation is not what it writes before an answer" in refused["deepseekv3"]
    assert "adds text of its own" in refused["gptoss"]


def test_a_model_that_thinks_is_asked_and_taught_without_thoughts():
    tokenizer = chat_formats.tokenizer("tiny-llama", THINKS)
    assert "adds text of its own to it (it begins '<think>" in refusal(
        Chat(tokenizer).encode_row, {"messages": ONE}, 500
    )
    chosen = chat.for_rows(tokenizer)
    ((before, text),) = learned(chosen.encode_row({"messages": ONE}, 500), tokenizer)
    assert text == "So it is.<|im_end|>"
    assert tokenizer.decode(before).endswith("<think>\n\n</think>\n\n")
    tokenizer.chat_template = chosen.template  # the template that is saved with the model asks in the same way
    assert tokenizer.apply_chat_template(ONE[:1], add_generation_prompt=True, return_dict=False) == before
    assert not chosen.takes_several
    said = refusal(chosen.encode_row, {"id": 7, "messages": TWO}, 500)
    assert said.startswith("row 7: it has several questions, and the model's chat template writes earlier answers diff")
    assert said.endswith("rows of one question only; keep its last one, or take a model such as Qwen2.5 or SmolLM2")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"<<{{ m.content }}<|im_end|>>>": "<<{{ m.content }}>>"}, "ends an answer with nothing, so it cannot teach"),
        ({"<|im_end|>": "###"}, "ends an answer with '###', which is no token of its tokenizer"),
        ({"<<{{ m.content }}": "<<Well, {{ m.content }}"}, "adds text of its own to it (it begins 'Well, two"),
        ({"<<{{ m.content }}": "<<{{ m.content | upper }}"}, "changes the answer"),
        (
            {"_prompt %}<|im_start|>assistant": "_prompt %}<|im_start|>bot"},
            "the prompt that the model's chat template writes for generation is not what it writes before an answer",
        ),
        ({"<<{{ m.content }}": "{{ m.content }}<<"}, "marks of the model's chat template leave 'So it is.' out of it"),
        ({"{{ m.content }}<|im_end|>\n{% endif %}": "<|im_end|>\n{% endif %}"}, "leaves out what the user says"),
    ],
)  # fmt: skip
def test_a_template_that_would_teach_something_else_is_one_sentence(change, reason):
    text = chat_formats.CHATML
    for old, new in change.items():
        assert old in text
        text = text.replace(old, new)
    text = text.replace("<<", chat_formats.BEGIN).replace(">>", chat_formats.END)
    tokenizer = chat_formats.tokenizer("tiny-gpt2", text)
    said = refusal(lambda: Chat(tokenizer).encode_row({"id": 7, "messages": ONE}, 500))
    assert reason in said
    assert "leave chat out" in said


def test_an_end_that_the_marks_leave_out_is_learned_and_a_line_break_that_they_hold_is_not():
    ends = []
    for marks in ("<<{{ m.content }}>><|im_end|>\n", "<<{{ m.content }}<|im_end|>\n>>"):
        text = chat_formats.CHATML.replace("<<{{ m.content }}<|im_end|>>>\n", marks)
        text = text.replace("<<", chat_formats.BEGIN).replace(">>", chat_formats.END)
        tokenizer = chat_formats.tokenizer("tiny-phi", text)
        ends.append([text for _, text in learned(Chat(tokenizer).encode_row({"messages": TWO}, 500), tokenizer)])
    assert ends == [["So it is.<|im_end|>", "Quite\n\nsure. ☕<|im_end|>"]] * 2


def test_an_answer_that_the_tokenizer_joins_with_the_prompt_is_refused_with_the_cause():
    tokenizer = chat_formats.tokenizer("tiny-gpt2", chat_formats.template("chatml", marked=False))
    tokenizer.add_tokens(["\n\n"])  # as Gemma has it
    said = [ONE[0], {"role": "assistant", "content": "\nthe lamp"}]
    reason = "row 7: turn 2: the answer begins with white space, which the tokenizer joins with the end of the prompt"
    assert reason in refusal(Chat(tokenizer).encode_row, {"id": 7, "messages": said}, 500)
    said = [ONE[0], {"role": "assistant", "content": "the lamp\n\nis on"}]
    assert Chat(tokenizer).encode_row({"messages": said}, 500)["cut"] == 0
    tokenizer.chat_template = tokenizer.chat_template.replace("assistant\n", "assistant: ")
    reason = "row 7: turn 2: the tokenizer joins the beginning of the answer with the end of the prompt"
    assert reason in refusal(Chat(tokenizer).encode_row, {"id": 7, "messages": said}, 500)


def test_a_turn_that_the_template_leaves_out_is_named():
    text = chat_formats.CHATML.replace("{% for m in messages %}", "{% for m in messages if m.role != 'system' %}")
    tokenizer = chat_formats.tokenizer("tiny-gpt2", text.replace("<<", "").replace(">>", ""))
    said = refusal(Chat(tokenizer).encode_row, {"id": 7, "messages": [SYSTEM, *ONE]}, 500)
    assert said.startswith("row 7: it has a system turn, and the model's chat template has no place for one")
    only_last = (
        "{% for m in messages %}{% if loop.index > messages | length - 5 %}<|im_start|>{{ m.role }}\n{{ m.content }}"
        "<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer.chat_template = only_last
    assert "row 7: turn 2" in refusal(Chat(tokenizer).encode_row, {"id": 7, "messages": [*TWO, *ONE]}, 500)


def test_end_of_turn_is_the_token_after_the_words():
    for name, end in {"llama-2": "<|endoftext|>", "llama-3": "<|eot_id|>", "phi-3": "<|end|>"}.items():
        tokenizer = chat_formats.tokenizer("tiny-phi", chat_formats.template(name, marked=False))
        assert chat_answers.end_of_turn(Chat(tokenizer)) == end
        assert Chat(tokenizer).ends == Chat(tokenizer).known_ends == [tokenizer.convert_tokens_to_ids(end)]


def test_a_row_of_an_instruction_is_encoded_as_its_turns():
    tokenizer = chat_formats.tokenizer("tiny-gpt2", chat_formats.template("chatml", marked=True))
    row = {"instruction": "Double it.", "input": "4", "output": "8"}
    chosen = Chat(tokenizer)
    assert chosen.encode_row(row, 500) == chosen.encode_row({"messages": conversations.turns(row)}, 500)
    assert chosen.question_ids({**row, "output": ""}) == chosen.prompt_ids("Double it.\n\n4")


def test_too_long_a_row_loses_its_oldest_exchanges_whole_and_keeps_its_system_turn():
    tokenizer = chat_formats.tokenizer("tiny-gpt2", chat_formats.template("chatml", marked=True))
    chosen = Chat(tokenizer)
    third = [{"role": "user", "content": "Last one?"}, {"role": "assistant", "content": "Yes."}]
    whole = chosen.encode_row({"messages": [SYSTEM, *TWO, *third]}, 500)
    shorter = chosen.encode_row({"messages": [SYSTEM, *TWO[2:], *third]}, 500)
    shortest = chosen.encode_row({"messages": [SYSTEM, *third]}, 500)
    for room, expected in [
        (len(whole["labels"]) - 1, shorter),
        (len(shorter["labels"]), shorter),
        (len(shortest["labels"]), shortest),
    ]:
        found = chosen.encode_row({"messages": [SYSTEM, *TWO, *third]}, room)
        assert found["cut"] == len(whole["labels"]) - len(found["labels"])
        assert {**found, "cut": 0} == expected
    row = {"id": 7, "messages": [SYSTEM, *TWO, *third]}
    least = len(shortest["labels"])
    assert chosen.least(row) == prompts.least_length(row, tokenizer, template=chosen) == least
    assert f"the last question and answer of row 7 have {least} tokens in the chat template, and max_length is 20" in (
        refusal(chosen.encode_row, row, 20)
    )
