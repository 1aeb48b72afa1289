"""No face of a report shows a secret or a personal datum, wherever it stands in the rows."""

import json

import pytest

from ftlab.data import sources
from ftlab.data.audit import audit, audit_instructions

from .made_keys import keys
from .planted import changed, pairs, reviews

KEY = keys(0)["GitHub"]
AWS = keys(0)["AWS access key"]
PRIVATE = {  # the text, and what must not be seen
    KEY: KEY[4:20], AWS: AWS[4:], "password = 'tr0ub4dor&3'": "tr0ub4dor", "DE89 3704 0044 0532 0130 00": "3704 0044",
    "SSN 078-05-1121": "078-05", "jo.doe@mail.de": "doe@mail", "+49 30 901820": "901820",
    "4111 1111 1111 1111": "1111 1111", "from 91.198.174.192": "198.174",
}  # fmt: skip


def faces(report):
    repaired = report.repair(report.repairable)
    evidence = "".join(found.evidence.to_string(max_colwidth=None) for found in report.findings)
    shown = [str(report), repr(report), report.html(), report._repr_html_(), json.dumps(report.to_dict()), evidence]
    shown += [report.classes.to_string(), report.lengths.to_string(), repaired.log.to_string(max_colwidth=None)]
    return [*shown, repr(repaired), *(repr(found) for found in report.findings)]


def assert_masked(report):
    for face in faces(report):
        for piece in PRIVATE.values():
            assert piece.lower() not in face.lower()


def test_no_face_shows_what_is_in_a_text():
    frame = reviews(200)
    values = {row: f"{frame['text'][row]} {' ; '.join(PRIVATE)}" for row in range(30)}
    report = audit(changed(frame, "text", values), test=frame.head(3).assign(id=["a", "b", "c"]))
    assert {"secrets", "national_ids", "bank_accounts", "ip_addresses"} <= {found.id for found in report.findings}
    assert_masked(report)


def test_a_line_that_many_rows_share_is_masked():
    frame = reviews()
    values = {row: f"{frame['text'][row]}\nSent with the key {KEY} by {AWS}" for row in range(8)}
    report = audit(changed(frame, "text", values))
    assert "[secret]" in report["boilerplate"].what
    assert_masked(report)


def test_a_key_that_gives_the_label_away_is_masked_word_by_word():
    frame = reviews(200)
    marked = frame.index[frame["label"] == "positive"]
    report = audit(changed(frame, "text", {row: f"{frame['text'][row]} key {KEY}" for row in marked}))
    assert "token_shortcut" in report
    assert_masked(report)
    assert "token_shortcut" not in report.priceable or report.price("token_shortcut")


@pytest.mark.parametrize("label", [AWS, KEY, "jo.doe@mail.de"])
def test_a_label_is_masked_and_repaired_as_it_was(label):
    frame = changed(reviews(), "label", {4: label, 5: label, 6: label.lower(), 7: label.upper(), 8: label})
    report = audit(frame)
    assert_masked(report)
    assert set(report.repair("label_slip").rows["label"][4:9]) == {label}


def test_answers_are_masked():
    frame = pairs()
    values = {3: f"Write to jo.doe@mail.de with {KEY} and", 5: KEY, 6: AWS, 7: f"I cannot help with {KEY}."}
    frame = changed(frame, "completion", values)
    assert_masked(audit_instructions(changed(frame, "prompt", {6: frame["prompt"][5]})))


def test_a_password_is_masked_in_other_rows_where_nothing_says_that_it_is_one():
    frame = reviews()
    said = {4: "the login has password: Zx81kk21Qq for all", 5: "we log in with Zx81kk21Qq <b>always</b> here"}
    report = audit(changed(frame, "text", said))
    assert {"secrets", "markup"} <= {found.id for found in report.findings}
    assert not any("zx81" in face.lower() for face in faces(report))


@pytest.mark.parametrize("broken", ["\u200b", "\n", "\u00ad", "\x07"])
def test_a_key_that_is_split_is_masked_and_repaired_as_a_whole(broken):
    frame = reviews()
    key = keys(0)["OpenAI, of a project"]
    for at in (12, 60, 120):
        report = audit(changed(frame, "text", {4: f"so {key[:at]}{broken}{key[at:]} <b>is</b> ours"}))
        shown = "".join(faces(report))
        assert not any(key[place : place + 6] in shown for place in range(9, len(key) - 6))
        assert report.repair("secrets").rows["text"][4] == "so [secret] <b>is</b> ours"


def conversations(tmp_path, *rows):
    good = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Since it rains."}]
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps({"messages": row}) + "\n" for row in (*rows, good)), encoding="utf-8")
    return audit_instructions(sources.read_conversations(str(path)))


def test_a_secret_in_a_system_turn_is_found_and_masked(tmp_path):
    turns = [("system", f"Use the key {KEY}."), ("user", "Why not?"), ("assistant", f"So, {KEY[4:]}.")]
    report = conversations(tmp_path, [{"role": role, "content": said} for role, said in turns])
    assert report["secrets"].rows == ("chats.jsonl-00000",)
    assert_masked(report)


@pytest.mark.parametrize(
    "turn",
    [
        {"role": f"Please answer as the support bot of our shop, key {KEY}", "content": "Hi"},
        {"role": f"Please answer as the support bot of ours: {AWS}", "content": "Hi"},
        {"role": "user", "content": {"please answer as the support bot": KEY}},
        {"role": "user", "content": {"key": KEY, "of": "jo.doe@mail.de", "or": "4111 1111 1111 1111"}},
        {"role": KEY, "content": "Hi"},
        {f"as the support bot of our shop, which has as its own {KEY}": "Hi"},
    ],
)
def test_a_reason_that_is_shortened_shows_no_part_of_a_secret(tmp_path, turn):
    report = conversations(tmp_path, [turn])
    assert "broken_conversation" in report
    shown = "".join(faces(report))
    assert not any(piece in shown for piece in (KEY[4:9], AWS[4:9], "jo.doe", "1111 1111"))


def test_two_spellings_of_a_masked_label_are_told_apart():
    report = audit(changed(reviews(), "label", {4: AWS, 5: AWS, 6: AWS, 7: f"{AWS} ", 8: AWS.lower()}))
    assert report["label_slip"].what == "2 rows: another spelling of the label '[secret]'"
    log = report.repair("label_slip").log
    assert (log["from"] != log["to"]).all()
    assert_masked(report)


def test_the_name_of_a_group_is_not_shown():
    frame = reviews(200).assign(group=[f"Jo Doe {number // 4}" for number in range(200)])
    report = audit(frame.head(102), test=frame.tail(98))
    assert report["group_leakage"].count == 2
    assert not any("Jo Doe" in face for face in [str(report), report.html(), json.dumps(report.to_dict())])


def test_ids_stay_as_they_are():
    frame = changed(copied := reviews(), "text", {15: copied["text"][4]})
    frame["id"] = [f"4111 1111 1111 1111-{row}" if row == 4 else f"jo{row}@mail.de" for row in range(len(frame))]
    found = audit(frame)["exact_duplicates"]
    assert found.rows == ("jo15@mail.de",)
    assert found.evidence["copy_of"].tolist() == [frame["id"][4]]
