"""Loops, chat markers, answers that say nothing and broken formats are found, and ordinary answers are none of them."""

import time

import pytest

from ftlab.data.audit import audit_instructions, chat_markers
from ftlab.data.audit.broken_formats import broken
from ftlab.data.audit.cut_off import sure_sign
from ftlab.data.audit.empty_answers import empty_like
from ftlab.data.audit.repetition import loop

from .planted import changed, pairs

LOOPS = [
    "The film is good. " + "The actors are good and so is the music. " * 4,
    "It is " + "very " * 20 + "long.",
    "He goes home.\n" + "\n".join(f"{number}. He thinks of the sea again." for number in range(1, 8)),
    "The answer is 42, as the book says. I hope that this helps you with it. " * 3,
    "\u96e8\u304c\u964d\u308b\u3002" * 8,
    "Das Wetter wird morgen besser, " * 6,
    "yes no maybe " * 8,
    "of it " * 10,
    "\u6211\u559c\u6b22\u4f60\u3002" * 12,
]
NO_LOOPS = [
    "No, no, no, no! It is a film for children.",
    "Ha ha ha ha ha ha ha, that was a good one, and I laughed about it all day.",
    "Day 1, Day 2, Day 3, Day 4, Day 5, Day 6, Day 7, Day 8, Day 9, Day 10, Day 11, Day 12, Day 13",
    "| a | b |\n|---|---|\n| 0 | 0 |\n| 0 | 0 |\n| 0 | 0 |\n| 0 | 0 |\n| 0 | 0 |\n| 0 | 0 |",
    "```python\nprint(1)\nprint(1)\nprint(1)\nprint(1)\nprint(1)\nprint(1)\nprint(1)\nprint(1)\nprint(1)\n```",
    "Row, row, row your boat, gently down the stream. Merrily, merrily, merrily, merrily, life is but a dream.",
    "The cat sat on the mat. The cat sat on the mat because it was warm, and then the cat ran away from it.",
    "def f(t0, t1):\n    if t0 is None: m0 = t0\n    if t1 is None: m1 = t1\n    if t2 is None: m2 = t2\n"
    "    if t3 is None: m3 = t3\n    return m0",
    "0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0",
    "C G Am F " * 5,
    "Ha ha ha ha ha ha ha ha ha ha ha ha ha ha",
    "\u54c8" * 20,
    "\u0425\u0430\u0445\u0430 " * 14,
    "La la la la la la la la la la la la la",
    "ACGT " * 20,
    "ff ff 00 ff " * 6,
    "x = x + 1\n" * 5,
    "Here is the code:\n" + "x = x + 1\n" * 5,
    "print('x')\n" * 15,
    "<li>x</li>\n" * 15,
    "\u54c8\u54c8\u54c8\u54c8\uff0c\u8fd9\u4e2a\u7b11\u8bdd\u771f\u7684\u5f88\u597d\u7b11\uff0c\u6211\u4e00\u6574\u5929\u90fd\u5728\u7b11\u3002",
]
MARKED = [
    "It rains.\n\nHuman: And what about tomorrow?",
    "It rains.\n### Human: Thanks a lot.",
    "### Response: It rains.",
    "Assistant: It rains.",
    "It rains.\n\nUSER:\nThanks!",
    "<|channel|>final It rains.",
    "<\uff5cAssistant\uff5c>It rains.",
    "[|Human|] And tomorrow?",
    "It rains.\n\nUser: And then?\nAssistant: Sun.",
    "It rains.\n\nHuman:",
    "It rains.\n\n**User:** And what about tomorrow?",
    "It rains.\n\n**User**: And then?\n**Assistant**: Sun.",
    "**Assistant:** It rains.",
    "Es regnet.\n\nNutzer: Und wie wird es morgen?",
    "Llueve.\n\nUsuario: \u00bfY ma\u00f1ana?",
    "\u4e0b\u96e8\u3002\n\n\u7528\u6237\uff1a\u660e\u5929\u5462\uff1f\n\u52a9\u624b\uff1a\u6674\u5929\u3002",
    "\u52a9\u624b\uff1a\u4e0b\u96e8\u3002",
    "### Instruction:\nTell me.\n\n### Response:\nYes.",
    "It rains.\n\n### User\nAnd tomorrow?\n\n### Assistant\nSun.",
    "It rains.\nHuman: thanks\nAI: You are welcome.",
]
NOT_MARKED = [
    "### Instructions:\nMix the flour with water.\n\n### Response times\nThey are short.",
    "Fill in the form:\nServer: mail.example.org\nUser: your name",
    "Start it with `### Human:` and end it with `### Assistant:`.",
    "```\n### Human: hi\n```",
    "Human: of or belonging to people. An animal is no human: it has rights of its own.",
    "AI: the science of machines that learn.",
    "# Assistant manager\nShe runs the shop: all of it.",
    "f(x) = |x| and |x|>0 for x: real",
    "# Tool\n\n## Usage\n\nRun it.\n\n## System\n\nLinux.\n\n## Response\n\nJSON",
    "The server answers so:\n\n### Response\n200 OK",
    'It answers so.\n\n## Response:\n{"ok": 1}',
    "### User\nHas a name",
    "Roles:\nUser: may read all the files\nAdmin: may write",
    "- Admin: may write all\n- User: may read all of it",
    "Roles\n\nAdmin: She may write it all.\nUser: He may read it all.",
    "The roles are these:\n\nUser: Asks the questions here.\nAssistant: Answers them all.",
    "Bot: a program",
    "Assistant: a person who helps.",
    "The form:\nUser: enter your full name\nPassword: it is a secret of yours",
    "It sets the behaviour of a chat model.\n\nUser: prefix lines often follow it, for example.",
]
NOTHING = [
    ".", "...", "\u2026", "\u3002", "?!", "-- ", "[Insert answer here]", "<answer>", "No response.", "(no output)",
    "TODO", "<noinput>", "Answer:", "[deleted]", "**", "___", "same as above", "insert answer here", "Your answer here",
    "A:", "asdf", "asdfghjkl", "test", "Test 123", "nothing", "Empty.",
]  # fmt: skip
SAYS_SOMETHING = [
    "C",
    "7",
    "\u2713",
    "+",
    "<=",
    "\U0001f600",
    "no",
    "Nothing compares to you.",
    "$",
    "\u5426",
    "Yes!",
    "[x]",
    "()",
    "{}",
]
LONG = ["It is a tale of the sea and of those who live from it."] * 40


@pytest.mark.parametrize("answer", LOOPS)
def test_an_answer_in_a_loop_is_found(answer):
    assert loop(answer)


@pytest.mark.parametrize("answer", NO_LOOPS)
def test_emphasis_laughter_chords_tables_code_and_numbered_items_are_no_loop(answer):
    assert loop(answer) == ""


def test_who_asks_for_a_song_gets_its_refrain():
    refrain = "We sail, we sail, we sail the sea. " * 5
    assert loop(refrain, "Tell me what they do.")
    assert loop(refrain, "Write a song about sailors.") == ""


@pytest.mark.parametrize("answer", MARKED)
def test_a_chat_marker_is_found(answer):
    assert chat_markers.in_answer(answer, "What is the weather like?")


@pytest.mark.parametrize("answer", NOT_MARKED)
def test_headings_forms_and_code_are_no_chat_markers(answer):
    assert chat_markers.in_answer(answer, "What is it?") == ""


def test_who_asks_for_a_dialogue_gets_one():
    said = "User: Hello, is anybody there?\nAssistant: Yes, I am here.\nUser: What are you doing?"
    assert chat_markers.in_answer(said, "Write a dialogue with a support bot.") == ""


def test_a_prompt_in_another_template_is_found():
    assert chat_markers.in_prompt("Human: What is rain?\nAssistant:") == "Assistant:"
    assert chat_markers.in_prompt("### User: What is rain?") == "### User:"
    assert chat_markers.in_prompt("Who is the assistant: Ann or Bob?") == ""


def test_a_heading_of_the_own_template_is_the_other_finding():
    report = audit_instructions(changed(pairs(), "completion", {5: "It rains.\n\n### Response:\nIt rains a lot."}))
    assert report["template_headings"].rows == ("r5",)
    assert "chat_markers" not in report


@pytest.mark.parametrize("answer", NOTHING)
def test_an_answer_that_says_nothing_is_found_among_long_ones(answer):
    assert empty_like([*LONG, answer])[-1] == answer.strip()


@pytest.mark.parametrize("answer", SAYS_SOMETHING)
def test_a_letter_a_number_or_a_symbol_may_be_an_answer(answer):
    assert empty_like([*LONG, answer])[-1] == ""


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("Which punctuation ends a question?", "?"),
        ("What sign ends a sentence?", "."),
        ("What ends a statement in C? Give the character.", ";"),
        ("Complete: How are you", "?"),
        ("Choose '...' or '?'.", "..."),
        ("What is in the box?", "Nothing."),
        ("Is the page blank or full?", "blank"),
        ("Give the opposite of full.", "empty"),
        ("What is a synonym of exam?", "test"),
        ("What does this program print?", "No output."),
    ],
)
def test_who_asks_for_a_sign_or_a_word_gets_it(prompt, answer):
    prompts = ["Tell me a tale."] * len(LONG)
    assert empty_like([*LONG, answer], [*prompts, prompt])[-1] == ""
    assert empty_like([*LONG, answer], [*prompts, "Describe the film."])[-1] == answer
    assert empty_like([*LONG, "[answer]"], [*prompts, prompt])[-1] == "[answer]"


def test_a_long_run_of_signs_says_nothing_and_is_shown_in_part():
    assert empty_like([*LONG, "!" * 300])[-1] == "!" * 60 + " ..."


def test_a_sign_is_an_answer_where_answers_are_short_or_signs():
    assert empty_like(["yes", "no", ".", "no", "yes"]) == [""] * 5
    assert empty_like([*LONG[:10], ".", "?", "!", "."]) == [""] * 14


@pytest.mark.parametrize(
    "answer",
    ['{"a": 1,}', "{'a': 1}", '{"a" 1}', 'Here it is: {"a": 1}', '{"a": 1}\nI hope that helps!', "no idea", "{a: 1}"],
)
def test_json_with_a_mistake_is_found_among_valid_json(answer):
    assert broken([*['{"a": 1}'] * 30, answer])[-1]


def test_prose_is_an_answer_to_a_prompt_that_asks_for_no_json():
    asked = [f"Extract the fields from: order {number} of tea" for number in range(80)]
    said = [f'{{"order": {number}, "item": "tea"}}' for number in range(80)]
    others = {
        "Thanks!": "You are welcome!",
        "What is JSON?": 'A text format for data. An object is written as {"a": 1}.',
        "Who made JSON?": "Douglas Crockford made it popular.",
        "Write a dictionary in Python.": '{"a": None}',
    }
    assert not any(broken([*said, *others.values()], [*asked, *others]))
    assert broken([*said, "There is none."], [*asked, "Extract the fields from: order 9 of ham"])[-1] == "no JSON"
    assert broken([*said, "{'order': 5, 'item': 'ham'}"], [*asked, "And ham?"])[-1] == "text around the JSON"


@pytest.mark.parametrize(
    "answer",
    ['{"a": [1, 2]}', "```json\n[1, 2]\n```", '{"a": 1}\n{"a": 2}', "null", "", " \n", "[" * 100_000, '{"a": NaN}'],
)
def test_valid_json_however_it_is_written_is_whole(answer):
    assert broken([*['{"a": 1}'] * 30, answer])[-1] == ""


def test_a_mistake_in_json_counts_only_where_others_are_valid():
    assert broken(['{"a": 1,}', *["It is a film."] * 30]) == [""] * 31
    assert broken([*['{"a": 1,}'] * 10, *['{"a": 1}'] * 10]) == [""] * 20


def test_a_fence_that_was_never_opened_is_broken_and_not_cut_off():
    closed = "def f():\n    return 1\n```"
    assert sure_sign(closed) == ""
    assert sure_sign("Here it is:\n```") == "an open code fence"
    assert broken([*["```\nf()\n```"] * 20, closed])[-1] == "a code fence that is closed but never opened"


@pytest.mark.parametrize(
    "said",
    [
        "<|",
        "User:\n",
        "\nUser: a\n",
        "### User:\n",
        "*",
        "a: ",
        "a(",
        "### ",
        "a ",
        "a b ",
        "0 ",
        "\u0300",
        "(",
        "{",
        "[",
        ". ",
        "```\n",
        "'",
        "\u54c8",
        "\n",
    ],
)
@pytest.mark.clock
def test_a_hostile_answer_takes_no_longer_than_it_is_long(said):
    answer = said * (300_000 // len(said))
    start = time.process_time()
    loop(answer)
    chat_markers.in_answer(answer)
    chat_markers.in_prompt(answer)
    empty_like([*LONG, answer])
    broken([*['{"a": 1}'] * 30, answer])
    assert time.process_time() - start < 4


def test_the_findings_name_the_rows_and_what_was_found():
    said = {5: LOOPS[0], 6: MARKED[0], 7: "...", 8: "[no answer]"}
    report = audit_instructions(changed(pairs(), "completion", said))
    assert report["repetition_loop"].rows == ("r5",)
    assert report["chat_markers"].evidence.to_dict("records") == [{"id": "r6", "found": "Human:", "part": "answer"}]
    assert report["empty_like_answer"].rows == ("r7", "r8")
    assert len(report.repair(["repetition_loop", "empty_like_answer"]).rows) == 17


def test_a_translation_ends_in_a_colon_as_its_original_does():
    said = changed(pairs(), "completion", {5: "Die folgenden Teile sind nicht in der Datei:"})
    assert audit_instructions(said)["cut_off_answer"].rows == ("r5",)
    asked = changed(said, "prompt", {5: "Translate: The following parts are not in the file:"})
    assert "cut_off_answer" not in audit_instructions(asked)
