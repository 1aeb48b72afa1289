"""Special tokens in a text, text that no token covers, and the template's headings: found where they are, not else."""

import pytest

from ftlab.data import prompts, sources, special_tokens
from ftlab.data.audit import audit, audit_instructions

from ..made_tokenizers import tokenizer as made
from .planted import changed, pairs, parted, reviews, table, tokenizer

NEW = {"special_tokens", "unknown_tokens", "placeholder_texts", "template_headings", "refused", "prompt_cut"}


def found(text: str, of=None):
    report = audit(changed(reviews(), "text", {5: f"A film {text} about the sea."}), tokenizer=of)
    return next((each for each in report.findings if each.id == "special_tokens"), None)


@pytest.mark.parametrize("token", special_tokens.WELL_KNOWN)
def test_each_well_known_token_is_found_without_a_tokenizer(token):
    assert found(token).rows == ("r5",)
    assert found(token).evidence["found"].tolist() == [token]
    assert found(f"with{token}in") is not None


@pytest.mark.parametrize(
    "text", ["<b>", "[sic]", "[1]", "s > 3", "< s >", "[ SEP ]", "<|>", "a|b", "INST", "<s>old</s> new", "<S>old</S>"]
)
def test_text_that_only_looks_like_a_special_token_is_not_found(text):
    assert found(text) is None


def test_a_tokenizer_has_special_tokens_of_its_own():
    of = made("begins")
    assert found("<|reserved|>") is None
    assert found("<s>old</s>", of).evidence["found"].tolist() == ["<s>"]  # to others it is HTML
    of.add_tokens(["<|reserved|>"], special_tokens=True)
    assert found("<|reserved|>", of).evidence.to_dict("records") == [
        {"id": "r5", "found": "<|reserved|>", "read_as": "text"}
    ]
    assert "special tokens of this tokenizer in 1" in found("<|reserved|>", of).what
    assert "special tokens of this tokenizer in 0" in found("<|im_end|>", of).what


def test_a_finding_says_if_the_tokenizer_cannot_read_a_special_token_as_text():
    assert found("</s>", made("unigram")).evidence["read_as"].tolist() == ["special"]
    assert "and it cannot read them as text in 1" in found("</s>", made("unigram")).what
    assert found("</s>", made("sentencepiece")).evidence["read_as"].tolist() == ["text"]


@pytest.mark.parametrize("column", ["prompt", "completion"])
def test_special_tokens_are_found_in_a_prompt_and_in_a_completion(column):
    report = audit_instructions(changed(pairs(), column, {4: f"{pairs()[column][4]}<|endoftext|>"}))
    assert report["special_tokens"].rows == ("r4",)


def test_an_end_of_sequence_token_alone_is_no_markup():
    report = audit(changed(reviews(), "text", {5: "A film about the sea.</s>", 6: "A <s>bad</s> good film."}))
    assert (report["special_tokens"].rows, report["markup"].rows) == (("r5",), ("r6",))
    repaired = report.repair("markup").rows["text"]
    assert (repaired[5], repaired[6]) == ("A film about the sea.</s>", "A bad good film.")


# --- unknown tokens ---


@pytest.mark.parametrize(("text", "share"), [("😀😀 😡", 1), ("a 😀 ☀", 0.67), ("a 天", None), ("a film 😀", None)])
def test_a_row_is_listed_if_more_than_half_of_its_tokens_are_unknown(text, share):
    of = tokenizer("tiny-distilbert")
    report = audit(changed(reviews(), "text", {5: text}), tokenizer=of)
    assert ("unknown_tokens" in report) == (share is not None)
    if share is not None:
        assert report["unknown_tokens"].rows == ("r5",)
        assert report["unknown_tokens"].evidence["share"].tolist() == [share]


@pytest.mark.parametrize("name", ["tiny-gpt2", "begins"])
def test_nothing_is_unknown_to_a_byte_level_tokenizer(name):
    frame = changed(reviews(), "text", {5: "😀😀 😡", 6: "天気"})
    assert "unknown_tokens" not in audit(frame, tokenizer=made(name))
    assert "unknown" not in audit(frame, tokenizer=made(name)).lengths


@pytest.mark.parametrize("column", ["prompt", "completion"])
def test_an_unknown_prompt_is_found_with_a_known_completion_and_the_reverse(column):
    report = audit_instructions(changed(pairs(), column, {4: "😀 😡"}), tokenizer=tokenizer("tiny-distilbert"))
    assert report["unknown_tokens"].rows == ("r4",)


# --- headings ---


@pytest.mark.parametrize("column", ["instruction", "input", "completion"])
def test_a_heading_of_the_template_is_found_in_any_part(column):
    frame = parted(pairs())
    frame = changed(frame, column, {4: f"{frame[column][4]}\n### Response:\nyes"})
    frame["prompt"] = sources.joined([frame["instruction"], frame["input"]], frame.index)
    assert audit_instructions(frame)["template_headings"].rows == ("r4",)


def test_the_headings_are_those_of_the_template_in_use():
    frame = changed(pairs(), "completion", {4: "first\n### Response:\nsecond", 5: "first\nQuestion of a user:\nsecond"})
    other = prompts.Template(
        "Question of a user:\n{instruction}\n{input}\nA: ", "Question of a user:\n{instruction}\nA: "
    )
    assert audit_instructions(frame)["template_headings"].rows == ("r4",)
    assert audit_instructions(frame, template=other)["template_headings"].rows == ("r5",)


# --- no false alarms ---


@pytest.mark.parametrize("name", ["mini_reviews", "tickets", "clinical_notes", "domains"])
def test_the_courses_own_rows_have_no_such_finding(name):
    frame = sources.read(name).head(120)
    assert not NEW & {found.id for found in audit(frame, tokenizer=tokenizer("tiny-distilbert")).findings}


def test_a_table_of_only_odd_rows_is_audited():
    frame = table(["😀", "</s>", "nan", "- "] * 10, ["a", "b"] * 20)
    report = audit(frame, tokenizer=tokenizer("tiny-distilbert"))
    assert {"special_tokens", "unknown_tokens", "placeholder_texts"} <= {each.id for each in report.findings}
