"""`ftlab audit --messages`: conversations, and what is said where a file or an option does not fit."""

import json

import pytest

from ftlab.models import tiny

from .command_line import ftlab

TURNS = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
TEMPLATE = (
    "{% for m in messages %}<|turn|>{{ m.role }}\n{{ m.content }}<|over|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)


def conversation(number: int, answer: str = "") -> list[dict[str, str]]:
    said = answer or f"The tower number {number} fell in a storm."
    return [{"role": "user", "content": f"What about tower {number}?"}, {"role": "assistant", "content": said}]


@pytest.fixture
def desk(tmp_path, monkeypatch):
    rows = [conversation(number) for number in range(8)]
    rows[3], rows[5] = conversation(3, "I cannot help with that."), conversation(5)[:1]
    for name, column in (("chats.jsonl", "messages"), ("talks.jsonl", "talk")):
        lines = [json.dumps({column: said}) for said in rows]
        (tmp_path / name).write_text("\n".join(lines), encoding="utf-8")
    turned = [[{"from": "human", "value": a["content"]}, {"from": "gpt", "value": b["content"]}] for a, b in rows[:3]]
    lines = [json.dumps({"conversations": said}) for said in turned]
    (tmp_path / "sharegpt.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "rows.csv").write_text("text,label\na good film,good\na bad film,bad\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def audited(capsys, *arguments) -> dict:
    code, out, _ = ftlab(capsys, "audit", *arguments, "--json")
    assert code == 0
    return json.loads(out)


def test_conversations_are_audited_and_a_broken_one_is_a_finding(desk, capsys):
    report = audited(capsys, "chats.jsonl", "--messages")
    found = {each["id"]: each for each in report["findings"]}
    assert report["rows"] == 8
    assert found["broken_conversation"]["evidence"][0]["id"] == "chats.jsonl-00005"
    assert "no assistant turn" in found["broken_conversation"]["evidence"][0]["why"]
    assert found["refusal"]["evidence"] == [
        {"id": "chats.jsonl-00003", "turn": 2, "found": "I cannot help with that"}
    ]  # fmt: skip


def test_another_column_is_named_and_sharegpt_is_read_too(desk, capsys):
    assert audited(capsys, "talks.jsonl", "--messages", "talk")["rows"] == 8
    assert audited(capsys, "sharegpt.jsonl", "--messages")["rows"] == 3


def test_the_other_splits_are_conversations_too(desk, capsys):
    report = audited(capsys, "chats.jsonl", "--messages", "--test", "sharegpt.jsonl")
    leaked = next(each for each in report["findings"] if each["id"] == "leakage")
    assert leaked["rows"] == ["sharegpt.jsonl-00000", "sharegpt.jsonl-00001", "sharegpt.jsonl-00002"]


def test_the_page_shows_the_reasons_and_the_exit_code_tells(desk, capsys):
    code, out, _ = ftlab(capsys, "audit", "chats.jsonl", "--messages", "--html", "page.html", "--fail-on", "error")
    assert code == 1
    assert "no conversation that can be read in 1 row" in out
    assert "it has no assistant turn" in (desk / "page.html").read_text(encoding="utf-8")


def test_tokens_are_counted_in_the_chat_template(desk, capsys):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny.folder("tiny-gpt2"))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>", "<|over|>"]})
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(desk / "chatting")
    report = audited(capsys, "chats.jsonl", "--messages", "--tokenizer", "./chatting", "--max-length", "64")
    assert [line["class"] for line in report["classes"]] == ["prompt", "completion", "end"]
    assert "in the chat template" in report["notes"][0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["chats.jsonl"], "chats.jsonl has conversations in the column 'messages'; add --messages to audit them"),
        (["chats.jsonl", "--text", "messages"], "add --messages to audit them"),
        (["chats.jsonl", "--prompt", "messages", "--completion", "kind"], "add --messages to audit them"),
        (["rows.csv", "--test", "chats.jsonl"], "chats.jsonl has conversations in the column 'messages'"),
        (["chats.jsonl", "--messages", "--text", "body"], "--messages audits whole conversations, and --text names"),
        (["chats.jsonl", "--messages", "--prompt", "a", "--completion", "b"], "and --prompt names a column"),
        (["chats.jsonl", "--messages", "talk"], "has no column 'talk'; it has messages; name the column"),
        (["rows.csv", "--messages"], "has no column 'messages'; it has text, label; name the column"),
        (["rows.csv", "--messages", "text"], "none of its 2 rows has a conversation that can be read"),
        (["chats.jsonl", "--messages", "--test", "rows.csv"], "rows.csv has no column 'messages'"),
        (["--messages", "chats.jsonl"], "chats.jsonl is a file, and --messages takes a column; write the file first"),
        (["mini_reviews", "--messages"], "mini_reviews holds texts with labels"),
        (["nowhere.jsonl", "--messages"], "there is no file nowhere.jsonl"),
        (["chats.jsonl", "--messages", "--tokenizer", "tiny-gpt2"], "has no chat template"),
    ],
)
def test_what_does_not_fit_is_one_sentence_and_exit_code_2(desk, capsys, arguments, message):
    code, out, err = ftlab(capsys, "audit", *arguments)
    assert (code, out, len(err)) == (2, "", 1)
    assert message in err[0]
