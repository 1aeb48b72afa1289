"""One model in several formats: each line is what the model does in that format alone."""

import copy

import pytest
from datasets import Dataset
from tokenizers import processors

from ftlab.data import chat, prompts
from ftlab.errors import BadInput
from ftlab.evaluation import losses, prompt_formats
from ftlab.models import generation, loading
from tests.data import chat_formats

ROWS = Dataset.from_list([
    {"instruction": "Which word?", "input": "A note.", "output": "symptom"},
    {"instruction": "What does sorted do?", "input": "", "output": "It returns a new list."},
    {"instruction": "Name it.", "input": "", "output": "A lamp."},
])  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return loading.causal_lm("tiny-llama").eval()


@pytest.fixture(scope="module")
def tokenizer():
    return loading.tokenizer("tiny-llama")


def compared(model, tokenizer, formats, rows=ROWS, new=6):
    return prompt_formats.compare(model, tokenizer, rows, formats, max_new_tokens=new, max_length=256)


def test_each_line_is_that_of_the_format_alone(model, tokenizer):
    formats = {"trained": prompts.ALPACA, **prompt_formats.wrong_formats(prompts.ALPACA, tokenizer)}
    together = compared(model, tokenizer, formats)
    assert together.index.name == "asked as"
    assert [*together.index] == [*formats]
    for name, template in formats.items():
        encoded, _ = prompts.encode(ROWS, tokenizer, max_length=256, template=template)
        loss = losses.mean_loss(losses.row_losses(model, tokenizer, encoded)).value
        assert together.loc[name, "held-out loss"] == pytest.approx(loss, rel=1e-5)
        alone = compared(model, tokenizer, {name: template})
        assert alone.loc[name, "stopped"] == together.loc[name, "stopped"]
        assert alone.loc[name, "right"] == together.loc[name, "right"]


def test_an_answer_that_differs_from_the_trained_format_is_counted(model, tokenizer, monkeypatch):
    texts = iter(["A lamp.", "b", "c", "A lamp.", "B", "c"])

    def answers(model, tokenizer, prompts, **options):
        return [generation.Answer(next(texts), 1, place % 2 == 0) for place, _ in enumerate(prompts)]

    monkeypatch.setattr(generation, "generate", answers)
    rows = ROWS.select([2, 1, 0])
    found = compared(model, tokenizer, {"one": prompts.ALPACA, "other": prompt_formats.NO_FORMAT}, rows)
    assert found["same answer"].tolist() == [1, 2 / 3]
    assert found["right"].tolist() == [1 / 3, 1 / 3]
    assert found["stopped"].tolist() == [2 / 3, 1 / 3]


def test_an_end_of_one_format_does_not_end_the_answers_of_another(model, monkeypatch):
    tokenizer = chat_formats.tokenizer("tiny-llama", chat_formats.template("gemma", marked=True))
    seen = []

    def answers(model, tokenizer, prompts, *, ends, **options):
        seen.append((len(prompts), set(ends)))
        return [generation.Answer("a", 1, True)] * len(prompts)

    monkeypatch.setattr(generation, "generate", answers)
    monkeypatch.setattr(prompt_formats, "_losses", lambda *_: dict.fromkeys(formats, 0.0))
    formats = {"alpaca": prompts.ALPACA, "gemma": chat.Chat(tokenizer), "none": prompt_formats.NO_FORMAT}
    compared(model, tokenizer, formats)
    end = tokenizer.convert_tokens_to_ids("<end_of_turn>")
    assert [(number, end in ends) for number, ends in seen] == [(6, False), (3, True)]


def test_wrong_formats_change_the_text_before_the_answer(tokenizer):
    row = {"instruction": "Name it.", "input": "a"}
    right = prompts.ALPACA.prompt(row)
    found = prompt_formats.wrong_formats(prompts.ALPACA, tokenizer)
    assert isinstance(found.pop("chat template of the base"), chat.Chat)
    assert {name: one.prompt(row) for name, one in found.items()} == {
        "no format": "Name it.\n\na",
        "without the last line end": right.removesuffix("\n"),
        "with a space at the end": f"{right} ",
    }
    no_line_end = prompts.Template("{instruction} {input}:", "{instruction}:")
    assert "without the last line end" not in prompt_formats.wrong_formats(no_line_end, tokenizer)


@pytest.mark.parametrize("template", [None, "{{ messages[-1].content }}", "{{ raise_exception('no') }}"])
def test_a_chat_template_that_cannot_be_asked_in_is_left_out(template):
    tokenizer = chat_formats.tokenizer("tiny-llama", template)
    assert "chat template of the base" not in prompt_formats.wrong_formats(prompts.ALPACA, tokenizer)


def test_a_chat_model_is_asked_wrongly_in_the_headings(tokenizer):
    found = prompt_formats.wrong_formats(chat.for_rows(tokenizer), tokenizer)
    assert found == {"Alpaca headings": prompts.ALPACA, "no format": prompt_formats.NO_FORMAT}


def test_two_bos_are_a_mistake_where_the_tokenizer_adds_one(tokenizer):
    begins = copy.deepcopy(tokenizer)
    bos = begins.bos_token
    begins.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, begins.bos_token_id)]
    )
    row = {"instruction": "Name it."}
    twice = prompt_formats.wrong_formats(prompts.ALPACA, begins)["with two BOS"]
    ids, right = (prompts.question_ids(row, begins, template=one) for one in (twice, prompts.ALPACA))
    assert ids == [begins.bos_token_id, *right]
    assert "with two BOS" not in prompt_formats.wrong_formats(prompts.ALPACA, tokenizer)


@pytest.mark.parametrize(("formats", "rows"), [({}, ROWS), ({"a": prompts.ALPACA}, ROWS.select([]))])
def test_nothing_to_compare_is_refused(model, tokenizer, formats, rows):
    with pytest.raises(BadInput, match=f"there are {len(formats)} formats and {len(rows)} rows"):
        compared(model, tokenizer, formats, rows)
