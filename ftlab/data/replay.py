"""Replay: general text among the rows of a training, so that a model forgets less of what it knew.

Fine-tuning on one narrow task pulls every weight towards that task. Replay (rehearsal, Robins 1995; for language models
Scialom et al. 2022, arXiv 2205.12393) keeps some of the old kind of text in the mix, and its loss pulls back.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from ftlab import files
from ftlab.data import prompts, tables
from ftlab.data.duplicates import FEWEST_WORDS, NEAR
from ftlab.data.sources import ROWS
from ftlab.data.words import Words, normalise
from ftlab.errors import BadInput

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

COLUMNS = ("input_ids", "attention_mask", "labels")
LARGEST = 10_000_000  # bytes of a text; a training takes a few thousand passages
PIECE = 64  # tokens of a piece: whole passages would be most of the tokens, and pad the short rows beside them
MOST_TIMES = 4  # that a piece comes; up to there it teaches almost as much as new text does (Muennighoff et al. 2023)
RUN = 13  # words in a row that stand in both texts: the rule of GPT-3 for text that leaked (Brown et al. 2020)
FEW, SHORT = 4, 7  # up to FEW words stand in many texts, and up to SHORT words within other sentences
PART = 2000  # characters of a long passage that are tokenized at a time
BLOCK = 200  # word pairs of a long passage that are compared at a time; nearly every pair of words is in a long text


@dataclass(frozen=True)
class Mix:
    """What `mix` made: rows of the task and of general text, and the supervised tokens of each.

    `asked` is the share of rows that was asked for.
    """

    task_rows: int
    replay_rows: int
    task_tokens: int
    replay_tokens: int
    asked: float

    @property
    def rows(self) -> int:
        """All rows of the mix."""
        return self.task_rows + self.replay_rows

    @property
    def share(self) -> float:
        """The share of general text in the rows."""
        return self.replay_rows / self.rows

    @property
    def token_share(self) -> float:
        """The share of general text in the supervised tokens, which make the loss."""
        return self.replay_tokens / (self.task_tokens + self.replay_tokens)

    def __str__(self) -> str:
        text = (
            f"{self.replay_rows:,} of {self.rows:,} rows are general text ({self.share:.1%}); they have "
            f"{self.token_share:.0%} of the supervised tokens"
        )
        if self.replay_rows < _wanted(self.task_rows, self.asked):
            text += (
                f"; for the {self.asked:.1%} that were asked for the text is too short: each piece of it stands in "
                f"the mix {MOST_TIMES} times"
            )
        return text


def passages(text: str = "") -> list[str]:
    """Return the passages of a text for replay, in order.

    A passage of fewer than two words ("# Preface", "II", "* * *") is joined to the next one.

    Args:
        text: the path of a UTF-8 file with blank lines between passages; "" for the course's own (rows/replay.md).

    Raises:
        BadInput: the file is missing, a folder, a table, empty, larger than LARGEST, not UTF-8, or a single word.
    """
    if not text:
        return _split((ROWS / "replay.txt").read_text(encoding="utf-8"))
    path, there = files.named_path(text, "the path of a text file")
    expected = "give a UTF-8 text file with blank lines between its passages"
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is not a file" if there else "does not exist"
        raise BadInput(f"the replay text {text} {what}; {expected}")
    if path.suffix.lower() in (*tables.FILE_TYPES, *tables.CONVERT):
        raise BadInput(f"the replay text {text} is a table, not a text; {expected}, or name it .txt if it is one")
    if path.stat().st_size > LARGEST:
        raise BadInput(
            f"the replay text {text} has {path.stat().st_size / 1e6:,.0f} MB; give at most {LARGEST / 1e6:.0f} MB of it"
        )
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except OSError as problem:
        raise BadInput(f"the replay text {text} cannot be read ({problem.strerror}); {expected}") from problem
    except UnicodeDecodeError as problem:
        raise BadInput(
            f"the replay text {text} is not UTF-8: byte {problem.start:,} cannot be read; save it as UTF-8 text"
        ) from problem
    if "\0" in content:
        raise BadInput(f"the replay text {text} is not a text: it has NUL characters; {expected}")
    found = _split(content)
    if not found:
        raise BadInput(f"the replay text {text} is empty; {expected}")
    if _is_bare(found[-1]):
        raise BadInput(f"the replay text {text} has fewer than two words, so there is nothing to predict; {expected}")
    return found


def mix(
    train: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    passages: Sequence[str],
    *,
    share: float,
    seed: int,
    max_length: int,
) -> tuple[Dataset, Mix]:
    """Return the rows of `train` with pieces of general text among them, in mixed order, and what the mix holds.

    A piece is a row without a template: all its tokens are supervised, as in pretraining, since each word of a text is
    to be continued. It has no EOS, since it ends where it was cut and not where a text ends; EOS there would teach the
    model to stop in the middle. What the tokenizer puts before a text (BOS) stands before each piece.

    A passage of more than PIECE or `max_length` tokens is cut into pieces of about equal length. Pieces are drawn by
    `seed`, each once before any comes again, and none more than MOST_TIMES times: then the share is smaller, and the
    `Mix` says so.

    The share counts rows, and the loss counts tokens: an answer of one word has two, and a piece about fifty.
    So a small share is already most of the loss (`Mix.token_share`). Train with batches drawn at random
    (`train_sampling_strategy="random"`): rows grouped by length would put the pieces into batches of their own.

    Args:
        train: rows of `prompts.encode`, with columns input_ids, attention_mask and labels.
        tokenizer: of the model.
        passages: the general text (see `passages`).
        share: of the rows of the mix, more than 0 and less than 1.
        seed: of the draw and of the order.
        max_length: the most tokens of a row.

    Raises:
        BadInput: `share` is out of range, `train` is not encoded, there is no passage, a passage has no two tokens, or
            holds what the tokenizer takes for a special token in any case.
    """
    from datasets import Dataset, concatenate_datasets

    if not 0 < share < 1:
        raise BadInput(f"the share of general text is {share}; expected more than 0 and less than 1")
    if missing := [name for name in COLUMNS if name not in train.column_names]:
        raise BadInput(f"the rows to mix have no column {missing[0]!r}; encode them with `prompts.encode`")
    if not passages:
        raise BadInput("there are no passages to mix with the rows; give at least one")
    rows = train.select_columns(list(COLUMNS))
    drawn = _drawn(passages, tokenizer, _wanted(len(rows), share), random.Random(seed), min(PIECE, max_length))
    general = Dataset.from_dict(
        {"input_ids": drawn, "attention_mask": [[1] * len(ids) for ids in drawn], "labels": drawn},
        features=rows.features,
    )
    task_tokens, replay_tokens = (_predicted(part["labels"]) for part in (rows, general))
    found = Mix(len(rows), len(general), task_tokens, replay_tokens, share)
    return concatenate_datasets([rows, general]).shuffle(seed=seed), found


def require_unseen(passages: Sequence[str], meter: Sequence[str], test_rows: Iterable[Mapping[str, Any]]) -> None:
    """Raise BadInput if the general text holds what the model is judged by: passages of the meter, or test rows.

    Texts are compared by their words, without case and punctuation. A passage holds another text if both share RUN
    words in a row, or if the shorter of them stands in the other one whole, or if both share NEAR of the word pairs of
    the shorter one. A text of up to FEW words counts only if it is the whole passage, since a label may stand in any
    text, and one of up to SHORT words only if it is a whole sentence. System turns do not count, nor an instruction
    that several rows have for their inputs.

    Args:
        passages: the general text (see `passages`).
        meter: texts by which forgetting is measured (`forgetting.general_passages`).
        test_rows: rows of a task, with columns id, instruction, input and output, and perhaps messages.
    """
    rows = list(test_rows)
    instructions = Counter(normalise(str(row.get("instruction") or "")) for row in rows if row.get("input"))
    shared = {text for text, count in instructions.items() if count > 1}
    judges = [
        *((text, f"passage {number} of the text that measures forgetting") for number, text in enumerate(meter)),
        *(
            (text, f"the {name} of test row {row.get('id', number)}")
            for number, row in enumerate(rows)
            for name, text in _texts(row, shared)
        ),
    ]
    sentences = [(number, sentence) for number, text in enumerate(passages) for sentence in _short_sentences(text)]
    words = Words.of([*(text for text, _ in judges), *passages, *(sentence for _, sentence in sentences)])
    known = _Judges(words, len(judges))
    places = range(len(judges), len(judges) + len(passages))
    held = {place - len(judges): known.held_by(words.row(place), words.bigrams(place)) for place in places}
    for place, (number, _) in enumerate(sentences, start=places.stop):
        if held[number] is None:
            held[number] = known.sentences.get(words.row(place).tobytes())
    found = [(number, judge) for number, judge in held.items() if judge is not None]
    if found:
        number, judge = found[0]
        others = len(found) - 1
        more = f", and {others:,} more of its passages hold such texts" if others else ""
        raise BadInput(
            f"{_named(passages, number)} of the replay text holds {judges[judge][1]}{more}; take it out, since a model "
            "that trains on a text cannot be judged by it"
        )


def _split(content: str) -> list[str]:
    parts = re.split(r"\n[^\S\n]*(?:\n[^\S\n]*)+", content.replace("\r\n", "\n").replace("\r", "\n"))
    joined: list[str] = []
    bare: list[str] = []  # that wait for the next passage
    for part in filter(None, map(str.strip, parts)):
        bare.append(part)
        if not _is_bare(part):
            joined.append("\n\n".join(bare))
            bare = []
    last = "\n\n".join([*joined[-1:], *bare])
    return [*joined[:-1], last] if last else []


def _is_bare(passage: str) -> bool:
    """Whether a passage has fewer than two words. The pattern is quick; `Words` also knows scripts without spaces."""
    return not re.search(r"\w\W+\w", passage) and Words.of([passage]).lengths[0] < 2


def _short_sentences(text: str) -> list[str]:
    """The sentences of `text` that may have up to SHORT words."""
    parts = re.split(r"(?<=[.!?;:\n。！？])", text)  # noqa: RUF001
    return [part for part in parts if len(part.split()) <= SHORT and len(part) < 100]


def _named(texts: Sequence[str], number: int) -> str:
    beginning = " ".join(texts[number].split())
    shown = beginning if len(beginning) <= 40 else f"{beginning[:40].rsplit(' ', 1)[0]}..."
    return f"passage {number} ({shown!r}, counted from 0)"


def _wanted(rows: int, share: float) -> int:
    """How many rows of general text make up `share` of a mix with so many other `rows`."""
    return max(1, round(rows * share / (1 - share)))


def _predicted(labels: Iterable[Sequence[int]]) -> int:
    """The labels in the loss; the first token of a row is never predicted."""
    return sum(label != prompts.IGNORED for row in labels for label in row[1:])


def _drawn(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, count: int, draw: random.Random, length: int
) -> list[list[int]]:
    """Draw `count` pieces, or fewer if none may come again; no more of the texts is tokenized than needed."""
    parts = [(number, part) for number, text in enumerate(texts) for part in _parts(text)]
    pieces: list[list[int]] = []
    for number, part in draw.sample(parts, len(parts)):
        pieces += _pieces(part, tokenizer, length, where=f"{_named(texts, number)} of the replay text")
        if len(pieces) >= count:
            return draw.sample(pieces, count)
    often = [piece for _ in range(MOST_TIMES) for piece in draw.sample(pieces, len(pieces))]
    return often[:count]


def _parts(text: str) -> list[str]:
    """Cut a text between words into parts of about PART characters, since a book may be a single passage."""
    parts = re.findall(rf".{{1,{PART}}}(?!\S)|.{{1,{PART}}}", text, re.DOTALL)
    if len(parts) > 1 and len(parts[-1]) < PART // 2:
        parts[-2:] = [parts[-2] + parts[-1]]
    return parts


def _pieces(text: str, tokenizer: PreTrainedTokenizerBase, length: int, where: str) -> list[list[int]]:
    begin = prompts.prompt_ids("", tokenizer)  # BOS, if the tokenizer puts it before a text
    ids = prompts.prompt_ids(text, tokenizer, where=where)[len(begin) :]
    if len(begin) + len(ids) < 2:
        raise BadInput(f"{where} has fewer than two tokens, so there is nothing to predict; leave it out")
    count = -(-len(ids) // max(1, length - len(begin)))
    ends = [len(ids) * place // count for place in range(count + 1)]
    return [[*begin, *ids[start:end]] for start, end in pairwise(ends)]


def _texts(row: Mapping[str, Any], shared: set[str]) -> Iterator[tuple[str, str]]:
    """The name and the text of each part of a row, without a `shared` instruction and without the system turn."""
    for name in ("input", "output", "instruction"):
        text = str(row.get(name) or "")
        if name != "instruction" or not row.get("input") or normalise(text) not in shared:
            yield name, text
    for turn in row.get("messages") or []:
        if turn["role"] == "system":
            continue
        yield f"turn of the {turn['role']}", str(turn["content"])


class _Judges:
    """The texts that judge, the first `count` of `words`, with indexes by which a passage finds those that it holds."""

    def __init__(self, words: Words, count: int) -> None:
        self.rows = [words.row(number) for number in range(count)]
        self.pairs = [set(words.bigrams(number).tolist()) for number in range(count)]
        self.with_pair: dict[int, list[int]] = {}
        for number, own in enumerate(self.pairs):
            for pair in own:
                self.with_pair.setdefault(pair, []).append(number)
        self.lengths = sorted({len(row) for row in self.rows if SHORT < len(row) < RUN})
        self.sentences = {
            row.tobytes(): number for number, row in reversed([*enumerate(self.rows)]) if FEW < len(row) <= SHORT
        }
        self._runs: dict[tuple[int, bool], dict[bytes, int]] = {}

    def held_by(self, passage: np.ndarray, pairs: np.ndarray) -> int | None:
        """Return the number of a text that `passage` holds, given as word ids with its word pairs, or None."""
        size = min(RUN, len(passage))
        if size < 2:  # a label is no leak
            return None
        found = self._run(passage, size, whole=size <= FEW)
        for length in self.lengths:
            if found is None and length < size:
                found = self._run(passage, length, whole=True)
        return self._near(pairs) if found is None else found

    def _run(self, passage: np.ndarray, size: int, *, whole: bool) -> int | None:
        """A text that has `size` words in a row of `passage`; with `whole`, one that has no other words."""
        if (size, whole) not in self._runs:
            self._runs[size, whole] = {
                run: number
                for number, row in reversed([*enumerate(self.rows)])
                if len(row) == size or (len(row) > size and not whole)
                for run in _windows(row, size)
            }
        runs = self._runs[size, whole]
        return next((runs[run] for run in _windows(passage, size) if run in runs), None)

    def _near(self, pairs: np.ndarray) -> int | None:
        """A text that shares NEAR of its word pairs, or of theirs if these are fewer, with a block of the passage."""
        for start in range(0, max(1, len(pairs) - BLOCK // 2), BLOCK // 2):
            block = set(pairs[start : start + BLOCK].tolist())
            shared = Counter(number for pair in block for number in self.with_pair.get(pair, ()))
            for number, count in shared.items():
                fewest = min(len(block), len(self.pairs[number]))
                if fewest >= FEWEST_WORDS - 1 and count >= NEAR * fewest:
                    return number
        return None


def _windows(row: np.ndarray, size: int) -> list[bytes]:
    return [row[start : start + size].tobytes() for start in range(len(row) - size + 1)]
