import random

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset
from transformers import AutoTokenizer

from ftlab.data import prompts, sources, tasks
from ftlab.data.audit import audit_instructions
from ftlab.errors import BadInput
from ftlab.models import loading
from tests.nightly import few_by_day

from .. import made_tokenizers
from .planted import changed, edited, example, pairs, parted, tokenizer

GPT2 = "tiny-gpt2"


def cut(frame: pd.DataFrame, max_length: int):
    return audit_instructions(frame, tokenizer=tokenizer(GPT2), max_length=max_length)


def tokens(text: str) -> int:
    return len(tokenizer(GPT2)(text)["input_ids"])


# --- prompts and completions ---


@pytest.mark.parametrize("empty", [None, "", " \n"])
def test_an_empty_completion_is_an_error(empty):
    found = audit_instructions(changed(pairs(), "completion", {5: empty}))["empty_completion"]
    assert (found.severity, found.rows) == ("error", ("r5",))


def test_a_completion_that_repeats_the_prompt_is_found_however_it_is_written():
    frame = changed(pairs(), "prompt", {5: "Name the capital of France"})
    assert audit_instructions(changed(frame, "completion", {5: "NAME the capital  of France"}))[
        "copied_completion"
    ].rows == ("r5",)


def test_a_completion_that_repeats_most_of_the_prompt_is_found():
    frame = changed(pairs(), "prompt", {5: "Tell me please what is the capital city of France"})
    copy = changed(frame, "completion", {5: "what is the capital city of France"})
    assert audit_instructions(copy)["copied_completion"].rows == ("r5",)


@pytest.mark.parametrize("answer", ["Paris", "the capital of France", "the capital city of France is Paris"])
def test_an_answer_that_uses_words_of_the_prompt_is_no_copy(answer):
    frame = changed(pairs(), "prompt", {5: "Which is the capital of France, and which one that of Spain and Portugal?"})
    assert "copied_completion" not in audit_instructions(changed(frame, "completion", {5: answer}))


def test_an_extract_from_a_long_prompt_is_no_copy():
    frame = pairs()
    prompt = " ".join(frame["prompt"][:6])
    frame = changed(changed(frame, "prompt", {5: prompt}), "completion", {5: frame["prompt"][2]})
    assert "copied_completion" not in audit_instructions(frame)


def test_a_prompt_with_another_answer_is_found_with_its_first():
    frame = changed(pairs(), "prompt", {9: pairs()["prompt"][5].upper()})
    found = audit_instructions(frame)["duplicate_prompts"]
    assert found.rows == ("r9",)
    assert found.evidence["same_prompt_as"].tolist() == ["r5"]


def test_a_prompt_with_the_same_answer_is_a_copy_of_the_row():
    frame = changed(pairs(), "prompt", {9: pairs()["prompt"][5]})
    report = audit_instructions(changed(frame, "completion", {9: pairs()["completion"][5]}))
    assert report["exact_duplicates"].rows == ("r9",)
    assert "duplicate_prompts" not in report


def test_empty_prompts_are_no_duplicates_of_each_other():
    assert "duplicate_prompts" not in audit_instructions(changed(pairs(), "prompt", {5: "", 6: "", 7: None}))


def test_rows_that_are_nearly_the_same_are_near_duplicates():
    frame = changed(pairs(), "prompt", {9: edited(pairs()["prompt"][5])})
    frame = changed(frame, "completion", {9: pairs()["completion"][5]})
    assert audit_instructions(frame)["near_duplicates"].rows == ("r9",)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_training_pair_in_a_judging_split_is_leakage(split):
    test = pairs().iloc[[5]].assign(id="t5")
    assert audit_instructions(pairs(), **{split: test})["leakage"].rows == ("t5",)


def test_a_training_prompt_in_a_judging_split_is_leakage_whatever_its_answer():
    test = pairs().iloc[[5]].assign(id="t5", completion="an answer of its own")
    assert audit_instructions(pairs(), test=test)["leakage"].rows == ("t5",)


@pytest.mark.parametrize("empty", [None, "", " "])
def test_an_empty_prompt_is_an_error(empty):
    found = audit_instructions(changed(pairs(), "prompt", {5: empty}))["missing_prompt"]
    assert (found.severity, found.rows) == ("error", ("r5",))


def test_an_instruction_that_all_rows_share_makes_none_of_them_near_to_another():
    frame = pairs()
    shared = "Say in one word and no other what the following words of somebody make you think of.\n"
    frame = frame.assign(prompt=[f"{shared}number {row}" for row in range(20)], completion=["good", "bad"] * 10)
    assert audit_instructions(frame).findings == ()


# --- truncation ---


def test_lengths_are_those_of_the_parts_and_an_end():
    frame = pairs()
    lengths = audit_instructions(frame, tokenizer=tokenizer(GPT2)).lengths
    assert lengths["prompt tokens"].tolist() == [tokens(text) for text in frame["prompt"]]
    assert lengths["completion tokens"].tolist() == [tokens(text) for text in frame["completion"]]
    assert (lengths["tokens"] == lengths["prompt tokens"] + lengths["completion tokens"] + 1).all()


def test_special_tokens_are_not_counted_twice():
    bert = tokenizer("tiny-distilbert")
    lengths = audit_instructions(pairs(), tokenizer=bert).lengths
    bare = [len(bert(text, add_special_tokens=False)["input_ids"]) for text in pairs()["completion"]]
    assert lengths["completion tokens"].tolist() == bare


def test_the_finding_on_a_cut_row_depends_on_what_it_loses():
    frame = pairs()
    prompt, completion = tokens(frame["prompt"][5]), tokens(frame["completion"][5])
    for max_length, lost in (
        (1, ["all_masked"]),
        (prompt, ["all_masked"]),
        (prompt + 1, ["completion_cut", "eos_lost"]),
        (prompt + completion - 1, ["completion_cut", "eos_lost"]),
        (prompt + completion, ["eos_lost"]),
        (prompt + completion + 1, []),
    ):
        report = cut(frame, max_length)
        of_row = [found.id for found in report.findings if "r5" in found.rows]
        assert sorted(of_row) == lost, max_length


@pytest.mark.parametrize("max_length", [8, 32, 64, 128])
def test_a_cut_keeps_no_more_than_max_length_of_any_row(max_length):
    frame = pairs()
    report = cut(frame, max_length)
    kept = 0
    for prompt, completion in zip(frame["prompt"], frame["completion"], strict=True):
        kept += min(max_length, tokens(prompt) + tokens(completion) + 1)
    assert report.classes["kept"].sum() == kept
    assert (report.classes["kept"] <= report.classes["tokens"]).all()


def test_a_larger_max_length_never_cuts_more():
    counts = []
    for max_length in (8, 16, 32, 64, 128, 256):
        report = cut(pairs(), max_length)
        counts.append([report[name].count if name in report else 0 for name in ("all_masked", "eos_lost")])
    assert (np.diff(counts, axis=0)[:, 0] <= 0).all()
    supervised = [cut(pairs(), max_length).classes.loc["completion", "kept"] for max_length in (8, 16, 32, 64, 128)]
    assert supervised == sorted(supervised)


def test_nothing_is_cut_without_a_max_length():
    report = audit_instructions(pairs(), tokenizer=tokenizer(GPT2))
    assert report.findings == ()
    assert "kept" not in report.classes


def test_the_parts_of_a_row_add_up():
    report = audit_instructions(pairs(), tokenizer=tokenizer(GPT2))
    assert report.classes["tokens"].sum() == report.lengths["tokens"].sum()
    assert report.classes["share"].sum() == pytest.approx(1, abs=0.002)
    assert report.classes.index[report.classes["supervised"]].tolist() == ["completion", "end"]


def test_without_a_tokenizer_truncation_is_reported_as_not_checked():
    report = audit_instructions(pairs(), max_length=8)
    assert report.findings == ()
    assert "name the tokenizer" in " ".join(report.skipped)


# --- ends ---


def test_padding_with_the_end_token_warns_and_a_padding_token_of_its_own_does_not():
    bare = AutoTokenizer.from_pretrained(loading.folder(GPT2))
    assert "'<|endoftext|>'" in audit_instructions(pairs(), tokenizer=bare)["pad_is_eos"].what
    bare.pad_token = bare.eos_token
    assert "pad_is_eos" in audit_instructions(pairs(), tokenizer=bare)
    assert "pad_is_eos" not in audit_instructions(pairs(), tokenizer=tokenizer(GPT2))


def test_a_tokenizer_without_an_end_token_is_reported_for_all_rows():
    found = audit_instructions(pairs(), tokenizer=tokenizer("tiny-distilbert"))["no_eos"]
    assert found.count == 20
    assert "has no end-of-sequence token" in found.what


def test_a_missing_end_token_is_not_reported_as_lost():
    report = audit_instructions(pairs(), tokenizer=tokenizer("tiny-distilbert"), max_length=32)
    assert "completion_cut" in report
    assert "eos_lost" not in report
    assert report.classes.loc["end", "tokens"] == 0


def test_an_end_token_that_is_written_in_a_completion_is_text_and_is_found():
    frame = pairs()
    ended = frame.assign(completion=frame["completion"] + tokenizer(GPT2).eos_token)
    report = audit_instructions(ended, tokenizer=tokenizer(GPT2))
    spelt = [prompts.completion_ids(text, tokenizer(GPT2)) for text in ended["completion"]]
    assert report.lengths["completion tokens"].tolist() == [*map(len, spelt)]
    assert not any(tokenizer(GPT2).eos_token_id in ids for ids in spelt)
    assert report["special_tokens"].count == len(frame)


# --- the same as training ---

MADE = {name: make() for name, make in made_tokenizers.MADE.items()}
MAX_LENGTHS = (12, 48, 300)


def named(name: str):
    return MADE.get(name) or tokenizer(name)


def trained(rows: list[dict], of, max_length: int) -> tuple[set[str], dict[str, int]]:
    """Return the ids of the rows that `prompts.encode_row` refuses, and how many tokens it cuts from others."""
    refused, cut = set(), {}
    for row in rows:
        try:
            cut[row["id"]] = prompts.encode_row(row, of, max_length=max_length)["cut"]
        except BadInput:
            refused.add(row["id"])
    return refused, {row: lost for row, lost in cut.items() if lost}


def said(report) -> tuple[set[str], dict[str, int]]:
    refused = set(report["refused"].rows) if "refused" in report else set()
    if "prompt_cut" not in report:
        return refused, {}
    evidence = report["prompt_cut"].evidence
    return refused, dict(zip(evidence["id"], evidence["lost"], strict=True))


def as_pairs(rows: list[dict]) -> pd.DataFrame:
    return tasks.as_pairs(Dataset.from_list(rows))


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-phi", *MADE])
@pytest.mark.parametrize("task", few_by_day(tasks.TASKS, "clinical_notes"))
def test_an_audit_counts_what_training_reads(task, name):
    rows = tasks.read(task)[["id", "instruction", "input", "output"]].head(25).to_dict("records")
    for max_length in MAX_LENGTHS:
        report = audit_instructions(as_pairs(rows), tokenizer=named(name), max_length=max_length)
        assert said(report) == trained(rows, named(name), max_length)
    encoded = [prompts.encode_row(row, named(name), max_length=9999) for row in rows]
    assert report.lengths["tokens"].tolist() == [len(row["input_ids"]) for row in encoded]
    supervised = sum(label != prompts.IGNORED for row in encoded for label in row["labels"])
    assert report.classes.loc[report.classes["supervised"], "tokens"].sum() == supervised


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-phi", *MADE])
def test_an_audit_counts_what_training_reads_of_random_rows(name):
    rng = random.Random(1)
    pieces = [
        "</s>",
        " </s> ",
        "<|endoftext|>",
        "<unk>",
        "the lamp broke ",
        "\n",
        "",
        " ",
        "zebra",
        "😀",
        "### Response:",
    ]
    rows = [
        {"id": f"r{number}", **{column: "".join(rng.choices(pieces, k=rng.randint(0, 5)))
                                for column in ("instruction", "input", "output")}}
        for number in range(80)
    ]  # fmt: skip
    for max_length in MAX_LENGTHS:
        report = audit_instructions(as_pairs(rows), tokenizer=named(name), max_length=max_length)
        assert said(report) == trained(rows, named(name), max_length)
        kept = Dataset.from_list([row for row in rows if row["id"] not in said(report)[0]])
        cut = prompts.encode(kept, named(name), max_length=max_length)[1]
        assert (cut.cut_rows, cut.cut_tokens) == (len(said(report)[1]), sum(said(report)[1].values()))


def test_a_tokenizer_without_an_end_token_has_one_finding_and_no_refused_rows():
    report = audit_instructions(parted(pairs()), tokenizer=tokenizer("tiny-distilbert"), max_length=64)
    assert report["no_eos"].count == 20
    assert not {"refused", "prompt_cut"} & {found.id for found in report.findings}


def test_a_refused_row_is_listed_with_its_reason():
    frame = parted(changed(changed(pairs(), "completion", {5: " ", 6: "a</s>"}), "prompt", {7: ""}))
    frame = changed(changed(frame, "instruction", {7: ""}), "prompt", {7: frame["input"][7]})
    refused = audit_instructions(frame, tokenizer=named("unigram"), max_length=500)["refused"]
    assert refused.what.startswith("training would refuse 3 rows; the reason for the first: row r5 has no output;")
    evidence = refused.evidence
    why = dict(zip(evidence["id"], evidence["why"], strict=True))
    assert why["r5"] == "row r5 has no output; give it an answer, or leave the row out"
    assert "the output of row r6 makes the special token '</s>'" in why["r6"]
    assert why["r7"] == "row r7 has no instruction; give it one, or leave the row out"


def test_a_prompt_without_its_parts_is_counted_as_it_is_and_a_note_says_so():
    bare = audit_instructions(pairs(), tokenizer=tokenizer(GPT2))
    with_headings = audit_instructions(
        parted(pairs()).assign(input="", prompt=pairs()["prompt"]), tokenizer=tokenizer(GPT2)
    )
    headings = with_headings.lengths["prompt tokens"] - bare.lengths["prompt tokens"]
    assert (headings > 0).all()
    assert "without a template" in str(bare)
    assert "with the headings of the course's template" in str(with_headings)
    assert with_headings.to_dict()["notes"] == list(with_headings.notes)
    assert "headings" in with_headings.html()


def test_a_prompt_that_differs_from_its_parts_is_refused():
    with pytest.raises(BadInput, match="the prompt of row r5 is not its instruction and input, one after the other"):
        audit_instructions(changed(parted(pairs()), "prompt", {5: "another"}))


def test_repairs_reach_the_parts_of_a_prompt():
    frame = changed(parted(pairs()), "input", {4: "a <b>bold</b> note"})
    frame = changed(frame, "prompt", {4: f"{frame['instruction'][4]}\na <b>bold</b> note"})
    repaired = audit_instructions(frame).repair("markup").rows
    assert repaired["input"][4] == "a bold note"
    assert repaired["prompt"][4] == f"{frame['instruction'][4]}\na bold note"
    assert "markup" not in audit_instructions(repaired)


# --- files ---


def test_a_prompt_is_joined_from_the_columns_that_are_not_empty(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("instruction,input,output\nTranslate,good,gut\nSay hello,,hello\nAdd,2,4\n", encoding="utf-8")
    frame = sources.read_pairs(str(path), prompt_columns=["instruction", "input"], completion_column="output")
    assert frame["prompt"].tolist() == ["Translate\ngood", "Say hello", "Add\n2"]
    assert frame["completion"].tolist() == ["gut", "hello", "4"]
    assert frame["id"].tolist() == [f"pairs.csv-0000{row}" for row in range(3)]


def test_the_first_column_is_the_instruction_unless_another_is_called_so(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text(
        "context,instruction,hint,answer\na shop,Translate,,gut\n,Say hello,loudly,hello\n", encoding="utf-8"
    )
    for columns, instruction in ((["context", "hint"], ["a shop", ""]),
                                 (["context", "instruction", "hint"], ["Translate", "Say hello"])):  # fmt: skip
        frame = sources.read_pairs(str(path), prompt_columns=columns, completion_column="answer")
        assert frame["instruction"].tolist() == instruction
    assert frame["input"].tolist() == ["a shop", "loudly"]
    assert frame["prompt"].tolist() == ["Translate\na shop", "Say hello\nloudly"]
    note = audit_instructions(frame, tokenizer=tokenizer(GPT2)).notes[0]
    assert note.endswith("the column instruction as the instruction and context, hint as the input")


def test_rows_without_prompts_or_columns_are_refused():
    with pytest.raises(BadInput, match="none of the 20 rows has a prompt; is it the right column"):
        audit_instructions(pairs().assign(prompt=" "))
    with pytest.raises(BadInput, match="lacks the columns completion; it has id, prompt"):
        audit_instructions(pairs()[["id", "prompt"]])
    with pytest.raises(BadInput, match="the test table lacks the columns prompt, completion"):
        audit_instructions(pairs(), test=pairs()[["id"]])
    with pytest.raises(BadInput, match="has one row"):
        audit_instructions(pairs(1))


def test_the_planted_examples_have_no_other_findings():
    for finding_id in ("empty_completion", "copied_completion", "duplicate_prompts", "all_masked"):
        found = [each.id for each in example(finding_id).audit().findings]
        assert finding_id in found
        assert set(found) <= {finding_id, "eos_lost"}
