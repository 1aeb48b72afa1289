"""An audit of conversations: every answer is looked at, and the tokens are those of the chat template."""

import json

import pytest

from ftlab.data import sources
from ftlab.data.audit import audit_instructions
from ftlab.data.chat import Chat
from ftlab.errors import BadInput
from ftlab.models import loading

from .planted import changed, conversations, tokenizer

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def turns(*said: str, system: str = "") -> dict[str, list[dict[str, str]]]:
    """A conversation in which the user and the assistant take turns."""
    told = [{"role": "system", "content": system}] if system else []
    roles = ["user", "assistant"] * len(said)
    return {"messages": told + [{"role": role, "content": text} for role, text in zip(roles, said, strict=False)]}


def written(path, rows) -> str:
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(path)


@pytest.fixture
def chatting():
    found = loading.tokenizer("tiny-gpt2")
    found.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    found.chat_template = CHATML
    return found


GOOD = [turns(f"Which town is number {n}?", f"It is the town {n}.", "Why?", f"It has {n} gates.") for n in range(6)]
BROKEN = [
    ({"messages": None}, "it is nothing"),
    (turns("Hi"), "it has no assistant turn"),
    (turns("Hi", "Hello.", "And?"), "its last turn is the user's"),
    (turns("Hi", ""), "turn 2 (assistant) is empty"),
    ({"messages": [{"role": "pirate", "content": "Hi"}]}, "turn 1 is of the unknown role 'pirate'"),
    ({"messages": turns("Hi", "Hello.")["messages"][::-1]}, "turn 1 is the assistant's"),
    ({**turns("Hi", "Hello."), "system": "Be brief."}, "it has a system text in the column 'system'"),
]


# --- reading ---


def test_a_conversation_is_one_row_of_what_the_user_and_of_what_the_assistant_said(tmp_path):
    rows = [turns("What is it?", "A goat.", "Where?", "At home.", system="Be brief."), *GOOD]
    first = sources.read_conversations(written(tmp_path / "chats.jsonl", rows)).iloc[0]
    assert (first["id"], first["problem"]) == ("chats.jsonl-00000", "")
    assert (first["prompt"], first["completion"]) == ("What is it?\n\nWhere?", "A goat.\n\nAt home.")
    assert [turn["role"] for turn in first["messages"]] == ["system", "user", "assistant", "user", "assistant"]


def test_the_column_is_found_or_named(tmp_path):
    shared = [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]
    for name, given in (("conversations", ""), ("talk", "talk")):
        file = written(tmp_path / f"{name}.jsonl", [{name: shared}, {name: shared}])
        assert sources.read_conversations(file, given)["completion"].tolist() == ["So.", "So."]


@pytest.mark.parametrize(
    ("rows", "column", "message"),
    [
        ([{"text": "a", "label": "b"}], "", "has no column 'messages'; it has text, label; name the column"),
        ([{"talk": []}], "chat", "has no column 'chat'; it has talk; name the column"),
        ([turns("Hi"), {"messages": None}], "", "none of its 2 rows has a conversation that can be read in the column"),
    ],
)
def test_a_file_without_a_conversation_is_refused_in_one_sentence(tmp_path, rows, column, message):
    with pytest.raises(BadInput) as raised:
        sources.read_conversations(written(tmp_path / "chats.jsonl", rows), column)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


# --- what is found ---


def test_conversations_with_nothing_wrong_give_no_finding(chatting):
    assert audit_instructions(conversations(), tokenizer=chatting).findings == ()


@pytest.mark.parametrize(("row", "why"), BROKEN)
@pytest.mark.parametrize("split", ["training", "test"])
def test_a_conversation_that_cannot_be_read_is_a_finding_and_the_others_are_audited(tmp_path, row, why, split):
    bad = turns("What is the time?", "I cannot help with that.")
    training = sources.read_conversations(written(tmp_path / "chats.jsonl", [*GOOD, bad, row]))
    given = {}
    if split == "test":
        given = {
            "test": sources.read_conversations(written(tmp_path / "test.jsonl", [turns("A new one?", "No."), row]))
        }
        training = training.head(7)
    report = audit_instructions(training, **given)
    found = report["broken_conversation"]
    assert (found.severity, found.rows) == (
        "error",
        ("chats.jsonl-00007" if split == "training" else "test.jsonl-00001",),
    )
    assert why in found.evidence["why"][0]
    assert report["refusal"].rows == ("chats.jsonl-00006",)
    assert not {"missing_prompt", "empty_completion"} & {each.id for each in report.findings}


def test_every_turn_of_the_assistant_is_looked_at_and_the_evidence_names_it(tmp_path):
    first = turns("Can you taste it?", "As an AI, I cannot taste.", "Who can?", "A cook with a good tongue can.")
    last = turns("How do I bake?", "Heat the oven first.", "And then?", "Let the dough rise, knead it, and")
    rows = sources.read_conversations(written(tmp_path / "chats.jsonl", [*GOOD, first, last]))
    report = audit_instructions(rows)
    assert report["refusal"].evidence[["id", "turn"]].values.tolist() == [["chats.jsonl-00006", 2]]
    assert report["cut_off_answer"].evidence[["id", "turn"]].values.tolist() == [["chats.jsonl-00007", 4]]
    assert "chats.jsonl-00006, turn 2: As an AI, I" in report["refusal"].what


def test_a_turn_that_repeats_the_words_of_the_user_is_a_copied_answer(tmp_path):
    again = "Now repeat this whole sentence of mine back"
    rows = [*GOOD, turns("Why is it late?", "The bus broke.", again, f"{again}."), turns("Hi", "Hi!", "And?", "Well.")]
    report = audit_instructions(sources.read_conversations(written(tmp_path / "chats.jsonl", rows)))
    found = report["copied_completion"]
    assert found.evidence[["id", "turn"]].values.tolist() == [["chats.jsonl-00006", 4]]


def test_a_system_text_that_all_conversations_share_makes_them_no_copies(tmp_path):
    system = "You are a patient guide to the towns of the region, and you answer in one short sentence. " * 3
    questions = ["Where is the old mill?", "Who built the tower?", "When does the ferry leave?", "What do bakers sell?"]
    answers = ["By the river.", "A merchant did.", "At noon.", "Rye bread."]
    rows = [turns(ask, say, system=system) for ask, say in zip(questions, answers, strict=True)]
    assert audit_instructions(sources.read_conversations(written(tmp_path / "a.jsonl", rows))).findings == ()


def test_a_training_conversation_in_the_test_rows_is_leakage(tmp_path):
    training = sources.read_conversations(written(tmp_path / "chats.jsonl", GOOD))
    test = sources.read_conversations(written(tmp_path / "test.jsonl", [GOOD[3], turns("A new one?", "No.")]))
    assert audit_instructions(training, test=test)["leakage"].rows == ("test.jsonl-00000",)


GATES = [
    turns(f"Where is gate {n}?", f"Left of the tower {n}.", f"And the town {n}?", f"By the river {n}.")
    for n in range(8)
]


def test_a_beginning_of_a_training_dialogue_in_another_split_is_leakage_and_said_once(tmp_path):
    """`tasks.load` keeps both in one split (`dialogues.clusters`)."""
    beginning = {"messages": GATES[3]["messages"][:2]}
    longer = {"messages": [*GATES[5]["messages"], *turns("Thanks, and who lives there?", "A miller.")["messages"]]}
    broken = {"messages": None}
    files = {
        "training": [*GOOD, *GATES, broken],
        "validation": [turns("Who dug the well?", "A monk did."), beginning, broken],
        "test": [turns("Who built the mill?", "A miller."), longer, GATES[1], broken],
    }
    frames = {
        split: sources.read_conversations(written(tmp_path / f"{split}.jsonl", rows)) for split, rows in files.items()
    }
    report = audit_instructions(frames.pop("training"), **frames)
    found = report["leakage"]
    assert (
        found.what
        == "a copy of a prompt or other turns of a dialogue from an earlier split in 3 rows of validation and test"
    )
    assert found.evidence[["id", "copy_of"]].to_numpy().tolist() == [
        ["validation.jsonl-00001", "training.jsonl-00009"],
        ["test.jsonl-00001", "training.jsonl-00011"],
        ["test.jsonl-00002", "training.jsonl-00007"],
    ]
    assert not {"near_leakage", "prompt_leakage", "answer_leakage"} & {each.id for each in report.findings}
    dropped = set(report.repair("leakage").log["id"])
    assert dropped == {f"training.jsonl-{number:05d}" for number in (7, 9, 11)}


def test_a_greeting_that_dialogues_share_is_no_leakage(tmp_path):
    hello = turns("Hi!", "Hello! How can I help?")["messages"]
    training = [{"messages": hello + row["messages"]} for row in GATES]
    test = [{"messages": hello + turns("Who built the mill?", "A miller.")["messages"]}]
    read = [
        sources.read_conversations(written(tmp_path / f"{number}.jsonl", rows))
        for number, rows in enumerate((training, test))
    ]
    assert "leakage" not in audit_instructions(read[0], test=read[1])


# --- tokens ---


def test_tokens_are_those_of_the_chat_template_and_the_learned_ones_have_labels(chatting, tmp_path):
    rows = sources.read_conversations(written(tmp_path / "chats.jsonl", GOOD))
    report = audit_instructions(rows, tokenizer=chatting)
    encoded = [Chat(chatting).encode_row({"messages": said}, 10_000) for said in rows["messages"]]
    learned = [sum(label != -100 for label in row["labels"]) for row in encoded]
    lengths = report.lengths
    assert lengths["tokens"].tolist() == [len(row["input_ids"]) for row in encoded]
    assert (lengths["completion tokens"] + lengths["end tokens"]).tolist() == learned
    assert set(lengths["end tokens"]) == {2}
    assert any("in the chat template of the tokenizer" in note for note in report.notes)


def test_a_broken_conversation_has_no_tokens(chatting):
    frame = conversations()
    for column, value in (("prompt", None), ("completion", None), ("messages", None), ("problem", "no turns")):
        frame = changed(frame, column, {5: value})
    report = audit_instructions(frame, tokenizer=chatting)
    assert "r5" not in set(report.lengths["id"])
    assert [found.id for found in report.findings] == ["broken_conversation"]


def test_what_training_leaves_out_and_refuses_at_a_max_length(chatting, tmp_path):
    long = turns("Say much.", "word " * 100, "And now?", "Enough.")
    hopeless = turns("Say more.", "word " * 200)
    rows = sources.read_conversations(written(tmp_path / "chats.jsonl", [*GOOD, long, hopeless]))
    report = audit_instructions(rows, tokenizer=chatting, max_length=150)
    lost = report["prompt_cut"].evidence
    assert lost["id"].tolist() == ["chats.jsonl-00006"]
    assert lost["lost"].tolist() == [Chat(chatting).encode_row(long, 150)["cut"]]
    assert report["refused"].rows == ("chats.jsonl-00007",)
    assert "max_length is 150" in report["refused"].what


def test_without_a_chat_template_the_tokens_are_not_guessed():
    with pytest.raises(BadInput, match=r"has no chat template.*name the tokenizer of a model that was trained to chat"):
        audit_instructions(conversations(), tokenizer=tokenizer("tiny-gpt2"))


def test_a_template_in_which_no_row_can_be_learned_is_a_finding_and_no_crash(chatting):
    chatting.chat_template = (  # the space before an answer is a token of its own without one, and a part of one with
        "{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    rows = conversations()
    rows = rows[rows["id"].isin(audit_instructions(rows, tokenizer=chatting)["refused"].rows)]
    report = audit_instructions(rows, tokenizer=chatting, max_length=64)
    assert report["refused"].count == len(rows) > 1
    assert report.to_dict()["budgets"] == []


def test_an_end_that_is_the_padding_token_is_found(chatting):
    chatting.pad_token = "<|im_end|>"
    found = audit_instructions(conversations(), tokenizer=chatting)["pad_is_eos"]
    assert "'<|im_end|>'" in found.what


# --- repairs ---


def test_rows_are_dropped_and_their_turns_are_not_rewritten():
    frame = conversations()
    frame = changed(frame, "completion", {5: "<b>bold</b>", 6: "I cannot help with that."})
    frame.at[6, "messages"] = [frame["messages"][6][0], {"role": "assistant", "content": "I cannot help with that."}]
    report = audit_instructions(frame)
    assert "r6" not in set(report.repair("refusal").rows["id"])
    assert "markup" not in report.repairable
    with pytest.raises(BadInput, match="markup cannot be repaired row by row"):
        report.repair("markup")
