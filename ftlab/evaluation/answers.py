"""Answers of a language model to held-out instructions, and metrics of them that need no judge.

The metrics: exact match, right label, whether the answer stopped, format, ROUGE-L, the row's own test of written code,
and what a snippet prints.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ftlab.data import few_shot, group_columns, prompts
from ftlab.data.group_columns import GROUP
from ftlab.errors import BadInput
from ftlab.evaluation import baselines, sandbox
from ftlab.intervals import Comparison, Interval, mean_interval, paired, proportion
from ftlab.models import generation, positions

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BINARY = ("exact match", "right word", "stopped", "format", "tests passed", "prints it")
FEW_WORDS = 3  # a longer answer hardly ever repeats the reference word for word
QUOTED = re.compile(r"(`+)(.+?)\1", re.DOTALL)  # code in prose: between backticks, or in a fenced block


def answer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    *,
    max_new_tokens: int,
    template: prompts.Format = prompts.ALPACA,
    examples: Sequence[Mapping[str, Any]] = (),
    sampling: generation.Sampling | None = None,
    what: str = "answering",
) -> pd.DataFrame:
    """Generate the model's answer to each row of an instruction task.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer.
        rows: with id, kind, instruction, input, output and test, and perhaps group.
        max_new_tokens: the longest answer, in tokens.
        template: the format of the prompts; an answer also stops at the token that ends it there.
        examples: rows that are shown before each question (`few_shot.draw`).
        sampling: how to draw; greedy without it (see `generation.generate`).
        what: the text of the progress bar.

    Returns:
        One line a row: its columns that are named above, and of the answer its text (`answer`), its length in `tokens`,
        and whether it `stopped` at an end token; and the length of the prompt in `prompt_tokens`.

    Raises:
        BadInput: the examples do not fit the model (`few_shot.all_question_ids`), or a prompt is too long for it.
    """
    ids = few_shot.all_question_ids(
        rows, examples, tokenizer, positions=positions.most_tokens(model), max_new_tokens=max_new_tokens,
        template=template,
    )  # fmt: skip
    found = generation.generate(
        model, tokenizer, ids, max_new_tokens=max_new_tokens, sampling=sampling,
        ends=prompts.ends(template, tokenizer), what=what,
    )  # fmt: skip
    return _questions(rows).assign(
        answer=[one.text for one in found],
        tokens=[one.tokens for one in found],
        stopped=[one.stopped for one in found],
        prompt_tokens=[len(prompt) for prompt in ids],
    )


def _questions(rows: Dataset) -> pd.DataFrame:
    columns = ["id", "kind", "instruction", "input", "output", "test", GROUP]
    return rows.select_columns([name for name in columns if name != GROUP or name in rows.column_names]).to_pandas()


def has_labels(rows: Dataset) -> bool:
    """Return whether the outputs of `rows` are the names of their kinds, so that a classifier could answer too."""
    return list(rows["kind"]) == list(rows["output"])


def by_word_counts(train: Dataset, rows: Dataset, *, seed: int = 0) -> pd.DataFrame:
    """Return the answers of TF-IDF with logistic regression (`baselines.tfidf`) to `rows`, in the form of `answer`.

    It is the baseline of a task with labels (`has_labels`) and needs no language model. It learns the outputs of
    `train` from their inputs; `seed` is of the folds.
    """
    from datasets import ClassLabel

    names = ClassLabel(names=sorted({*train["output"], *rows["output"]}))
    labelled = [
        part.select_columns(["id", "input", "output"]).rename_columns({"input": "text", "output": "label"})
        .cast_column("label", names)
        for part in (train, rows)
    ]  # fmt: skip
    one_class = len(set(train["output"])) < 2  # logistic regression needs two
    found = baselines.majority(*labelled) if one_class else baselines.tfidf(*labelled, seed=seed)
    table = _questions(rows)
    said = found.set_index("id").loc[table["id"], "prediction"].to_numpy()
    return table.assign(answer=said, tokens=0, stopped=True, prompt_tokens=0)


def main_metric(names: Sequence[str], rows: Dataset) -> str:
    """Return the main metric among `names` for `rows`: exact match for a few words, ROUGE-L for longer outputs."""
    words = float(np.median([len(output.split()) for output in rows["output"]]))
    wanted = "exact match" if words <= FEW_WORDS else "rouge-l"
    return wanted if wanted in names else names[0]


def measured(table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Return a `table` of answers with one more column for each metric of `names`, a value from 0 to 1 for each row.

    A metric that does not apply to a row is NaN. Raises BadInput for a name that is not in MEASURES.
    """
    if unknown := [name for name in names if name not in MEASURES]:
        raise BadInput(f"there is no measure {unknown[0]!r}; there are {', '.join(MEASURES)}")
    return table.assign(**{name: MEASURES[name](table).astype(float) for name in names})


def scores(table: pd.DataFrame, *, seed: int = 0) -> dict[str, Interval]:
    """Return the mean of each metric of a `table` of `measured`, with its interval.

    The interval is Wilson's for shares, and a bootstrap with `seed` for other metrics. If rows share groups, it is a
    bootstrap over groups for both.
    """
    found = {}
    for name in (name for name in MEASURES if name in table):
        there = table[table[name].notna()]
        values, groups = there[name].to_numpy(dtype=float), group_columns.of(there)
        if len(values) and name in BINARY and groups is None:
            found[name] = proportion(values)
        elif len(values):
            found[name] = mean_interval(values, groups=groups, bounds=(0, 1), seed=seed)
    return found


def compare(first: pd.DataFrame, second: pd.DataFrame, name: str, *, seed: int = 0) -> Comparison | Interval:
    """Return the metric `name` of `first` minus that of `second`, two tables of `measured` on the same rows.

    For shares the result has McNemar's test (`intervals.paired`); for other metrics it is a bootstrap interval. If rows
    share groups, these are drawn, and have one vote each in the test. `seed` is of the bootstrap. Raises BadInput for
    different rows and for a metric that was not measured or does not apply.
    """
    if sorted(first["id"]) != sorted(second["id"]):
        raise BadInput("the two models answered different rows; compare them on the same ones")
    if name not in first or name not in second:
        raise BadInput(f"{name!r} has not been measured for both models; add it with `measured`, then compare")
    one = first[name]
    other = second.set_index("id").loc[first["id"], name].set_axis(first.index)
    both = one.notna() & other.notna()
    if not both.any():
        raise BadInput(f"{name!r} applies to none of these rows; compare another measure")
    values = [each[both].to_numpy(dtype=float) for each in (one, other)]
    groups = group_columns.of(first[both])
    if name in BINARY:
        return paired(*values, groups=groups, seed=seed)
    return mean_interval(values[0] - values[1], groups=groups, bounds=(-1, 1), seed=seed)


def score_table(tables: Mapping[str, pd.DataFrame], names: Sequence[str], *, seed: int = 0) -> pd.DataFrame:
    """Return one line for each model of `tables` and one column for each metric of `names`, with its interval.

    `tables` are those of `answer`, by the name of the model; `seed` is of the bootstrap.
    """
    lines = {
        name: {
            measure: str(found)
            for measure, found in scores(measured(table, names), seed=seed).items()
            if measure in names  # every table has the column "stopped"
        }
        for name, table in tables.items()
    }
    return pd.DataFrame(lines).T.rename_axis("model")


def _exact(table: pd.DataFrame) -> pd.Series:
    return table["answer"].str.strip() == table["output"].str.strip()


def _right_word(table: pd.DataFrame) -> pd.Series:
    """For rows with labels: whether the first label in the answer is the right one, whatever else the answer says."""
    labels = sorted(set(table["output"][table["output"] == table["kind"]]), key=len, reverse=True)
    pattern = "|".join(map(re.escape, labels)) or "(?!)"

    def right(kind: str, output: str, text: str) -> float:
        if output != kind:
            return float("nan")
        first = re.search(pattern, text, re.IGNORECASE)
        return float(first is not None and first[0].lower() == output.lower())

    rows = zip(table["kind"], table["output"], table["answer"], strict=True)
    return pd.Series([right(*row) for row in rows], table.index, dtype=float)


def _stopped(table: pd.DataFrame) -> pd.Series:
    return table["stopped"]


def _format(table: pd.DataFrame) -> pd.Series:
    """Whether the answer has the form that its kind requires, right or wrong, and stopped.

    A label (the output is the name of the row's kind): one of the labels and nothing else. Code: Python that can be
    parsed and defines a function. Prose: not empty, and without a heading of the template, which would begin another
    instruction.
    """
    outputs = table["output"].str.strip()
    labels = set(outputs[outputs == table["kind"]])

    def adheres(kind: str, output: str, text: str) -> bool:
        if kind == "write":
            return _defines_a_function(text)
        return text in labels if kind == output else bool(text) and "###" not in text

    rows = zip(table["stopped"], table["kind"], outputs, table["answer"].str.strip(), strict=True)
    return pd.Series([stopped and adheres(*row) for stopped, *row in rows], table.index, dtype=float)


def _defines_a_function(text: str) -> bool:
    import ast

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python warns of "\d" in a plain string
        try:
            return any(isinstance(node, ast.FunctionDef) for node in ast.parse(text).body)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return False


def _rouge_l(table: pd.DataFrame) -> pd.Series:
    return pd.Series([rouge_l(*pair) for pair in zip(table["answer"], table["output"], strict=True)], table.index)


def rouge_l(text: str, reference: str) -> float:
    """Return the ROUGE-L of `text` against `reference`: F1 of their longest common subsequence of words, in lower case.

    It measures whether the words of the reference occur in the same order. That is useful for a summary or an
    explanation, and not for a label (which is right or wrong) or for code (which runs or does not). Source: Lin, ROUGE,
    2004, section 3.1.

    "the cat sat" is common to both: 3 of 4 words of the text, 3 of 3 of the reference.

    >>> rouge_l("The cat sat down.", "the cat sat") == 2 * 3 / (4 + 3)
    True
    """
    one, other = (re.findall(r"[^\W_]+", part.lower()) for part in (text, reference))
    if not one or not other:
        return 0.0
    lengths = np.zeros(len(other) + 1, dtype=int)
    for word in one:
        before = lengths.copy()
        for place, there in enumerate(other, start=1):
            lengths[place] = before[place - 1] + 1 if word == there else max(before[place], lengths[place - 1])
    common = int(lengths[-1])
    return 2 * common / (len(one) + len(other))


def _tests(table: pd.DataFrame) -> pd.Series:
    """Whether a written function passes its row's test; NaN for rows that have none."""
    pairs = zip(table["answer"], table["test"], strict=True)
    return pd.Series([float(passes(*pair)) if pair[1] else np.nan for pair in pairs], table.index, dtype=float)


def passes(code: str, test: str, *, seconds: float = sandbox.SECONDS) -> bool:
    """Return whether `code` runs and the asserts of `test` hold, within `seconds`, in a sandbox (see `sandbox`)."""
    return sandbox.holds(code, test, seconds=seconds)


def _prints(table: pd.DataFrame) -> pd.Series:
    """For rows that ask what code prints: whether the answer says it, quoted as code or between spaces."""
    values = []
    for kind, code, answer in zip(table["kind"], table["input"], table["answer"], strict=True):
        shown = _printed(code) if kind == "read" else ""
        values.append(float(_says(answer, shown)) if shown else np.nan)
    return pd.Series(values, table.index, dtype=float)


@lru_cache(maxsize=1000)
def _printed(code: str) -> str:
    """Return what a row's snippet prints; a reference answer quotes other things too."""
    return (sandbox.printed(code) or "").strip()


def _says(answer: str, shown: str) -> bool:
    """Return whether `shown` is quoted in the answer, or stands between spaces: 4 is not in 14, nor in [4, 5]."""
    quoted = {found[2].strip() for found in QUOTED.finditer(answer)}
    alone = rf"(?<![^\s\"'(]){re.escape(shown)}(?=[\"').,;:!?]*(?:\s|$))"
    return shown in quoted or re.search(alone, QUOTED.sub(" ", answer)) is not None


MEASURES: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
    "exact match": _exact,
    "right word": _right_word,
    "stopped": _stopped,
    "format": _format,
    "rouge-l": _rouge_l,
    "tests passed": _tests,
    "prints it": _prints,
}
# The metrics that suit the answers of each task; your own file is measured as prose.
OF_TASK = {
    "clinical_notes": ("exact match", "right word", "stopped", "format"),
    "tutor": ("stopped", "format", "rouge-l", "tests passed", "prints it"),
    "summaries": ("stopped", "format", "rouge-l"),
}
OF_OWN = ("exact match", "stopped", "format", "rouge-l")
