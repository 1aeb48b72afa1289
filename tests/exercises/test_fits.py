"""What the lines of a training teach: the output of each row, after the row's own prompt, and one EOS."""

from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from ftlab.data import prompts
from ftlab.exercises import instruction_checks
from ftlab.exercises.outcomes import Answer, Status
from ftlab.models import loading

pytestmark = [pytest.mark.assets]
ROWS = [
    {"instruction": "Is it heavy?", "input": "an anvil on the attic floor", "output": "yes"},
    {"instruction": "Is it heavy?", "input": "a feather in the letter box", "output": "no"},
    {"instruction": "Is it heavy?", "input": "a piano in the corridor", "output": "yes"},
    {"instruction": "Name a river of the north.", "input": "", "output": "the Glomma"},
]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return loading.tokenizer("tiny-llama")


def lines_of(rows: list[dict[str, str]], tokenizer: Any, max_length: int = 256) -> list[dict[str, Any]]:
    return [prompts.encode_row(row, tokenizer, max_length=max_length) for row in rows]


def fits(rows: list[dict[str, str]], lines: list[dict[str, Any]], tokenizer: Any) -> Answer:
    work: Any = SimpleNamespace(
        loaded={"tokenizer": tokenizer},
        instructions=lambda name: pd.DataFrame(rows).assign(id=[f"mine-{n}" for n in range(len(rows))]),
        lines=lambda name: lines,
        path=lambda name: name,
    )
    return instruction_checks.fits(work)


def test_lines_of_the_rows_pass_in_any_order_and_more_than_once(tokenizer):
    lines = lines_of(ROWS, tokenizer)
    assert fits(ROWS, lines, tokenizer).status == Status.PASS
    assert fits(ROWS, [*lines[::-1], *lines[:2]], tokenizer).status == Status.PASS


def test_an_answer_after_the_prompt_of_another_row_is_refused(tokenizer):
    exchanged = [{**ROWS[0], "output": "no"}, {**ROWS[1], "output": "yes"}, *ROWS[2:]]
    found = fits(ROWS, lines_of(exchanged, tokenizer), tokenizer)
    assert (found.status, found.expected) == (Status.FIX, "each output after its own prompt")
    assert found.found.startswith("line 1 teaches 'no' after")
    assert "attic floor" in found.found


def test_a_training_on_further_rows_is_refused(tokenizer):
    further = {"instruction": "Is it heavy?", "input": "a barge below the bridge", "output": "yes"}
    found = fits(ROWS, lines_of([*ROWS, further], tokenizer), tokenizer)
    assert found.expected == "each output after its own prompt"
    assert found.found.startswith("line 5 teaches 'yes' after")


def test_an_answer_without_its_prompt_is_refused(tokenizer):
    lines = lines_of(ROWS, tokenizer)
    first = next(place for place, label in enumerate(lines[3]["labels"]) if label != prompts.IGNORED)
    lines[3] = {name: lines[3][name][first:] for name in ("input_ids", "labels")}
    assert fits(ROWS, lines, tokenizer).found == "line 4 teaches 'the Glomma' after no prompt"


def test_each_row_needs_a_line_of_its_own(tokenizer):
    """Two rows are equal, and one line cannot be both."""
    rows = [*ROWS, ROWS[0]]
    assert fits(rows, lines_of(rows, tokenizer), tokenizer).status == Status.PASS
    found = fits(rows, lines_of([*ROWS, ROWS[2]], tokenizer), tokenizer)
    assert (found.status, found.expected) == (Status.FIX, "a training on all rows")
    assert found.found == "1 were not learned: 'yes'"


def test_a_row_that_was_left_out_is_missed_though_another_has_its_output(tokenizer):
    found = fits(ROWS, lines_of([ROWS[0], ROWS[0], *ROWS[1:2], ROWS[3]], tokenizer), tokenizer)
    assert (found.expected, found.found) == ("a training on all rows", "1 were not learned: 'yes'")


def test_a_prompt_that_was_cut_from_the_left_is_still_the_rows_own(tokenizer):
    rows = [{**row, "input": f"{' and so on' * 60} {row['input']}"} for row in ROWS]
    lines = lines_of(rows, tokenizer, max_length=120)
    assert all(line["cut"] for line in lines)
    assert fits(rows, lines, tokenizer).status == Status.PASS


def test_special_tokens_and_blanks_in_a_row_are_text(tokenizer):
    rows = [{**row, "input": f"{row['input']} {tokenizer.eos_token}\n\t  😀 ½ …", "output": f" {row['output']}\n\n(so)"}
            for row in ROWS]  # fmt: skip
    assert fits(rows, lines_of(rows, tokenizer), tokenizer).status == Status.PASS


@pytest.mark.parametrize("ends", [2, 21])
def test_padding_that_is_learned_is_refused(tokenizer, ends):
    """A pad token that is EOS, and labels that are a copy of the padded ids."""
    lines = lines_of(ROWS, tokenizer)
    more = [tokenizer.eos_token_id] * (ends - 1)
    lines[1] = {name: lines[1][name] + more for name in ("input_ids", "labels")}
    found = fits(ROWS, lines, tokenizer)
    assert (found.status, found.expected) == (Status.FIX, "one EOS, after the answer")
    assert found.found == f"line 2 learns {ends} of them: padding has labels"


def test_an_end_in_the_middle_of_an_answer_is_refused(tokenizer):
    lines = lines_of(ROWS, tokenizer)
    for name in ("input_ids", "labels"):
        lines[3][name].insert(-2, tokenizer.eos_token_id)
    assert fits(ROWS, lines, tokenizer).expected == "one EOS, after the answer"


def test_accents_may_be_written_in_two_ways(tokenizer):
    """A tokenizer may compose them, so what it gives back is the same text in other characters."""
    decomposed = [{"instruction": "Où est le cafe\u0301 ?", "input": "", "output": "pre\u0300s du the\u0301a\u0302tre"}]
    composed = [{"instruction": "Où est le café ?", "input": "", "output": "près du théâtre"}]
    assert decomposed != composed
    assert fits(decomposed, lines_of(composed, tokenizer), tokenizer).status == Status.PASS
