"""Replay: passages are read or refused in a sentence, mixed by their share, and hold nothing that judges."""

import pytest
from datasets import Dataset

from ftlab.data import prompts, replay, tasks
from ftlab.errors import BadInput
from ftlab.evaluation import forgetting
from tests.data import made_tokenizers

TEXT = ["The parcel arrived today, and the lamp broke twice.", "The kettle stopped slowly.", "A ticket arrived twice."]
ROWS = [
    {"id": f"row-{number}", "instruction": "the parcel", "input": f"arrived {'twice ' * number}", "output": "today"}
    for number in range(12)
]


@pytest.fixture(params=["tiny-gpt2", "tiny-llama", "begins"])
def tokenizer(request):
    return made_tokenizers.tokenizer(request.param)


@pytest.fixture
def encoded(tokenizer):
    return prompts.encode(Dataset.from_list(ROWS), tokenizer, max_length=64)[0]


@pytest.fixture
def file(tmp_path):
    """Write a text of your own."""

    def write(content: str | bytes, name: str = "mine.txt") -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


def mixed(encoded, tokenizer, texts=TEXT, *, share=0.25, seed=0, max_length=64):
    return replay.mix(encoded, tokenizer, texts, share=share, seed=seed, max_length=max_length)


def general(rows) -> list[list[int]]:
    """The rows that are pieces of general text: nothing in them is masked."""
    return [row["input_ids"] for row in rows if prompts.IGNORED not in row["labels"]]


# --- the text -------------------------------------------------------------------------------------------------------
def test_the_course_s_text_has_passages_that_resemble_nothing_that_judges():
    texts = replay.passages()
    assert len(texts) >= 100
    assert all(30 <= len(text.split()) <= 130 for text in texts)
    rows = [row for task in tasks.TASKS for row in tasks.read(task).to_dict("records")]
    replay.require_unseen(texts, forgetting.general_passages(), rows)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_text_of_your_own_has_blank_lines_between_its_passages(file, end):
    written = end.join(["\ufeffOne passage", "in two lines.", "", " \t", "Another one.", ""])
    assert replay.passages(file(written)) == ["One passage\nin two lines.", "Another one."]


def test_a_text_without_spaces_between_words_has_passages_too(file):
    assert replay.passages(file("今日は雨です。\n\n猫が寝ている。")) == ["今日は雨です。", "猫が寝ている。"]


def test_a_heading_or_a_rule_of_one_word_is_joined_to_the_next_passage(file):
    written = "# Preface\n\nII\n\nThe parcel arrived.\n\n-----\n\nIt broke.\n\n* * *"
    assert replay.passages(file(written)) == ["# Preface\n\nII\n\nThe parcel arrived.", "-----\n\nIt broke.\n\n* * *"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "mine.txt is empty; give a UTF-8 text file with blank lines"),
        (" \n\n \n", "is empty"),
        (b"PK\x03\x04\xff\xfe", "is not UTF-8: byte 4 cannot be read"),
        ("Grüße aus Köln".encode("latin-1"), "is not UTF-8: byte 2 cannot be read; save it as UTF-8"),
        ("The parcel arrived.".encode("utf-16-le"), "has NUL characters"),
        ("# Title\n\n-----", "mine.txt has fewer than two words, so there is nothing to predict"),
    ],
)
def test_a_text_that_cannot_be_used_is_one_sentence(file, content, message):
    with pytest.raises(BadInput, match=message) as raised:
        replay.passages(file(content))
    assert "\n" not in str(raised.value)


def test_what_is_no_text_file_is_one_sentence(file, tmp_path):
    for given, message in [
        (str(tmp_path / "none.txt"), r"none.txt does not exist; give a UTF-8 text file"),
        (str(tmp_path), "is a folder; give a UTF-8 text file"),
        ("~nobody/x" * 2000, "cannot be looked at"),
        (file('{"instruction": "x"}', "rows.jsonl"), "rows.jsonl is a table, not a text"),
    ]:
        with pytest.raises(BadInput, match=message):
            replay.passages(given)


def test_a_text_that_is_much_larger_than_replay_needs_is_refused(file, monkeypatch):
    monkeypatch.setattr(replay, "LARGEST", 1_000_000)
    with pytest.raises(BadInput, match="has 2 MB; give at most 1 MB of it"):
        replay.passages(file("The parcel arrived.\n\n" * 72_000))


# --- the mix --------------------------------------------------------------------------------------------------------
def test_the_share_is_that_of_the_rows_and_every_row_of_the_task_stays(encoded, tokenizer):
    rows, found = mixed(encoded, tokenizer)
    assert rows.column_names == list(replay.COLUMNS)
    assert (found.task_rows, found.replay_rows, found.share) == (12, 4, 0.25)
    assert len(general(rows)) == 4
    kept = [row["input_ids"] for row in rows if prompts.IGNORED in row["labels"]]
    assert sorted(kept) == sorted(encoded["input_ids"])
    assert str(found).startswith("4 of 16 rows are general text (25.0%); they have ")


def test_a_piece_is_read_as_the_meter_reads_it_and_ends_without_eos(encoded, tokenizer):
    rows, _ = mixed(encoded, tokenizer)
    as_measured = [tokenizer(text)["input_ids"] for text in TEXT]
    for row in rows:
        if prompts.IGNORED not in row["labels"]:
            assert row["labels"] == row["input_ids"] in as_measured
            assert row["attention_mask"] == [1] * len(row["input_ids"])
            assert row["input_ids"][-1] != tokenizer.eos_token_id


def test_the_tokens_of_the_mix_are_those_that_the_loss_counts(encoded, tokenizer):
    rows, found = mixed(encoded, tokenizer)
    counted = [sum(label != prompts.IGNORED for label in row[1:]) for row in rows["labels"]]
    pieces = [prompts.IGNORED not in row for row in rows["labels"]]
    assert found.replay_tokens == sum(count for count, piece in zip(counted, pieces, strict=True) if piece)
    assert found.task_tokens == sum(counted) - found.replay_tokens
    assert found.token_share == found.replay_tokens / sum(counted)


def test_a_long_passage_is_cut_into_even_pieces_without_a_loss(encoded, tokenizer):
    text = "the parcel arrived twice " * 20
    begin, whole = prompts.prompt_ids("", tokenizer), prompts.prompt_ids(text, tokenizer)
    rows, _ = mixed(encoded, tokenizer, [text], share=0.9, max_length=16)
    pieces = {tuple(piece) for piece in general(rows)}
    assert all(9 <= len(piece) <= 16 and list(piece[: len(begin)]) == begin for piece in pieces)
    joined = " ".join(map(str, whole))
    assert all(" ".join(map(str, piece[len(begin) :])) in joined for piece in pieces)
    covered = {number for piece in pieces for number in piece}
    assert covered == set(whole)


def test_a_piece_has_at_most_so_many_tokens_however_long_a_row_may_be(encoded, tokenizer):
    rows, _ = mixed(encoded, tokenizer, ["the parcel arrived twice " * 40], share=0.5, max_length=1000)
    assert max(map(len, general(rows))) <= replay.PIECE


def test_all_pieces_come_once_before_any_comes_again(encoded, tokenizer):
    once, _ = mixed(encoded, tokenizer, share=0.2)  # 3 of 15
    assert len({tuple(piece) for piece in general(once)}) == 3
    twice, _ = mixed(encoded, tokenizer, share=1 / 3)  # 6 of 18
    assert sorted(map(tuple, general(twice))) == sorted(2 * [*map(tuple, general(once))])


def test_a_text_that_is_too_short_for_the_share_is_used_four_times_and_the_mix_says_so(encoded, tokenizer):
    rows, found = mixed(encoded, tokenizer, TEXT[:1], share=0.5)
    assert len(general(rows)) == found.replay_rows == replay.MOST_TIMES == 4
    assert str(found).startswith("4 of 16 rows are general text (25.0%)")
    assert "for the 50.0% that were asked for the text is too short: each piece of it stands in the mix 4" in str(found)


def test_the_seed_decides_and_the_rows_are_not_in_order(encoded, tokenizer):
    first, again, other = (mixed(encoded, tokenizer, seed=seed)[0].to_list() for seed in (0, 0, 1))
    assert first == again != other
    places = [place for place, row in enumerate(first) if prompts.IGNORED not in row["labels"]]
    assert places != list(range(12, 16))


def test_a_book_in_one_passage_is_drawn_from_all_over_and_not_read_whole(encoded, tokenizer, monkeypatch):
    read = []
    plain = replay._pieces
    monkeypatch.setattr(
        replay, "_pieces", lambda part, *rest, **options: read.append(part) or plain(part, *rest, **options)
    )
    book = " ".join(f"the lamp {number} broke" for number in range(20_000))
    mixed(encoded, tokenizer, [book], share=0.5)
    assert sum(map(len, read)) <= 12 * replay.PART
    assert all(part in book and part.endswith(("the", "lamp", "broke", *"0123456789")) for part in read)
    assert max(map(book.index, read)) > 10 * replay.PART  # and not the beginning of the book


@pytest.mark.parametrize("text", ["one two three " * 500, "今日は雨です" * 1000, "short", "x" * 2001])
def test_the_parts_of_a_text_are_the_text(text):
    parts = replay._parts(text)
    assert "".join(parts) == text
    assert len(parts) == 1 or min(map(len, parts)) > replay.PART // 2 - 20


def test_a_small_task_has_at_least_one_piece(encoded, tokenizer):
    assert mixed(encoded.select([0]), tokenizer, share=0.1)[1].replay_rows == 1


def test_no_more_passages_are_tokenized_than_the_share_needs(encoded, tokenizer, monkeypatch):
    read = []
    plain = replay._pieces
    monkeypatch.setattr(
        replay, "_pieces", lambda text, *rest, **options: read.append(text) or plain(text, *rest, **options)
    )
    mixed(encoded, tokenizer, TEXT * 1000)
    assert len(read) == 4


@pytest.mark.parametrize("share", [0, 1, -0.5, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(encoded, tokenizer, share):
    with pytest.raises(BadInput, match="the share of general text is"):
        mixed(encoded, tokenizer, share=share)


def test_rows_that_are_not_encoded_and_no_passages_are_refused(encoded, tokenizer):
    with pytest.raises(BadInput, match=r"have no column 'input_ids'; encode them with `prompts\.encode`"):
        mixed(Dataset.from_list(ROWS), tokenizer)
    with pytest.raises(BadInput, match="there are no passages"):
        mixed(encoded, tokenizer, [])


def test_a_passage_of_one_token_is_refused():
    tokenizer = made_tokenizers.tokenizer("tiny-gpt2")
    encoded = prompts.encode(Dataset.from_list(ROWS), tokenizer, max_length=64)[0]
    with pytest.raises(BadInput, match=r"passage 0 \('a', counted from 0\) of the replay text has fewer than two tok"):
        mixed(encoded, tokenizer, ["a"])


def test_a_special_token_in_a_passage_stays_text(encoded, tokenizer):
    rows, _ = mixed(encoded, tokenizer, [f"the tag {tokenizer.eos_token} ends a text"])
    assert all(tokenizer.eos_token_id not in piece[1:] for piece in general(rows))


# --- what must not be in it -----------------------------------------------------------------------------------------
NOTE = "The patient reports a dull ache behind the left knee after long walks, mostly in the evening hours."
TEST = [{"id": "note-1", "instruction": "Is this a symptom?", "input": NOTE, "output": "symptom"}]
METER = forgetting.general_passages()


def leak(passages, rows=TEST, meter=METER) -> str:
    with pytest.raises(BadInput) as raised:
        replay.require_unseen(passages, meter, rows)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_text_that_holds_nothing_of_them_passes():
    replay.require_unseen(["A symptom of the times, they said, and laughed about it.", *TEXT], METER, TEST)
    replay.require_unseen(["Symptom"], METER, TEST)


def test_a_passage_that_measures_forgetting_is_a_leak():
    message = leak([*TEXT, METER[5]])
    assert message.startswith("passage 3 (")
    assert "holds passage 5 of the text that measures forgetting" in message


@pytest.mark.parametrize(
    "passage",
    [
        NOTE,
        NOTE.upper().replace(",", " --"),
        f"He wrote it down. {NOTE} Then he went home, and nobody spoke of it again for a week.",
        "It was late. The patient reports a dull ache behind the left knee after long walks, mostly at night.",
        NOTE.replace("dull", "sharp").replace("long walks", "short walks").replace("evening", "morning"),
        "a dull ache behind the left knee",
    ],
    ids=["the same", "other case and signs", "inside", "thirteen words in a row", "three words changed", "a part"],
)
def test_the_input_of_a_test_row_is_a_leak_in_any_of_its_shapes(passage):
    assert "holds the input of test row note-1; take it out" in leak([*TEXT, passage])


def test_one_test_row_in_a_book_is_found():
    book = " ".join(METER) + " " + NOTE.replace("dull", "sharp") + " " + " ".join(METER)
    assert "the input of test row note-1" in leak([book], meter=[])
    replay.require_unseen([" ".join(METER)], [], TEST)


def test_answers_instructions_and_turns_are_looked_for_too():
    answer = "A list keeps its order, and a set does not keep any."
    rows = [{"id": "t-1", "instruction": "x", "input": "", "output": answer}]
    assert "the output of test row t-1" in leak([f"As they say: {answer} That is all."], rows)
    rows = [{"id": "t-2", "instruction": answer, "input": None, "output": "no"}]
    assert "the instruction of test row t-2" in leak([answer], rows)
    turns = [{"role": "user", "content": answer}, {"role": "assistant", "content": "no"}]
    rows = [{"id": "t-3", "instruction": "x", "input": "", "output": "no", "messages": turns}]
    assert "the turn of the user of test row t-3" in leak([answer], rows)


def test_a_system_turn_and_an_instruction_of_several_rows_are_no_leak():
    told = {"role": "system", "content": "You are a helpful assistant, and you answer all questions briefly."}
    said = [told, {"role": "user", "content": NOTE}, {"role": "assistant", "content": "symptom"}]
    ask = "Answer the following question about the patient briefly."
    rows = [{"id": f"t-{n}", "instruction": ask, "input": f"{NOTE} {n}", "output": "no"} for n in range(2)]
    passages = [f"He said: {told['content']}", f"It began thus: {ask} Nobody did."]
    replay.require_unseen(passages, [], [*rows, {**TEST[0], "messages": said}])
    assert "the instruction of test row t-0" in leak(passages, rows[:1], [])


def test_a_short_answer_is_a_leak_only_as_a_whole_sentence_or_passage():
    rows = [{"id": "t-1", "instruction": "x", "input": "", "output": "as soon as possible, please"}]
    replay.require_unseen(["Send it as soon as possible, please, he wrote to the office."], [], rows)
    for passage in ("As soon as possible, please!", "He waited. As soon as possible, please. Then he left the room."):
        assert "the output of test row t-1" in leak([*TEXT, passage], rows, [])


def test_the_message_counts_the_other_passages():
    assert "holds the input of test row note-1, and 2 more of its passages hold such texts;" in leak([NOTE, *METER[:2]])
