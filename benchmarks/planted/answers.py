"""Planted defects of instruction rows: loops, chat markers, empty-like, contradicting and shuffled answers, leakage by
a part of a row.

Reviews stand in for instruction data: the beginning of each as the prompt, the rest as the answer. Where prompt and
answer must fit each other, the answer is made of words of the prompt. The course's own rows have none of these defects.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from ftlab.data import tasks
from ftlab.data.audit import audit_instructions

SEEDS, ROWS, EACH = range(3), 600, 30
DRAWN = 1300  # reviews without defects, of which each seed takes ROWS
LONG_PROMPT = 40  # words; in a shorter prompt one other word may make another question
KINDS = (
    "repetition_loop", "chat_markers", "empty_like_answer", "broken_format", "mismatched_answers",
    "contradicting_near_prompts", "prompt_leakage", "answer_leakage",
)  # fmt: skip
PARTS = ("prompt_leakage", "answer_leakage")
MARKERS = [
    "{}\n\nHuman: What else have you seen?", "{}\n\n### Human: Tell me more.", "{}\nUSER: Thanks, and the actors?",
    "Assistant: {}", "{}\n\n### Assistant:\nIt is a good film.", "ASSISTANT: {}", "{}<|channel|>final", "[|AI|] {}",
    "{}\n\n### User:\nAnd the music?\n\n### Assistant:\nIt is loud.", "<\uff5cAssistant\uff5c>{}", "<bot>: {}",
    "{}\n\n### Response: It is a good film.", "{}\nUser: And what about the end of it?", "{}\nHuman:\nWho plays in it?",
]  # fmt: skip
EMPTY = [
    ".", "...", "\u2026", "?", "***", "[Insert answer here]", "<answer>", "No response", "no output.", "(no answer)",
    "TODO", "Not applicable", "<noinput>", "Answer:", "[deleted]", "Xxxx", "_____",
]  # fmt: skip
SHORT = [("positive", "negative"), ("yes", "No."), ("7", "8"), ("The Matrix", "Alien"), ("true", "false")]


def measure(
    clean_rows: Callable[[str, int, int], pd.DataFrame], score: Callable[[str, str, int, int, int], dict[str, Any]]
) -> dict[str, Any]:
    """Return recall and precision of each kind over the seeds, what is found in rows without defects, and the bars.

    Args:
        clean_rows: returns reviews of a corpus without natural defects, from corpus, number and seed.
        score: returns a line of the table from corpus, kind, and the rows planted, found and rightly found.
    """
    sums: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    drawn = clean_rows("imdb", DRAWN, 0)
    drawn = drawn[drawn["text"].str.contains(r"[.!?][\"')]*$")]
    for seed in SEEDS:
        reviews = drawn.sample(ROWS, random_state=seed).reset_index(drop=True)
        for corpus, plant in PLANTED.items():
            frame, truth, given = plant(reviews, np.random.default_rng(seed))
            report = audit_instructions(frame, **given)
            for kind, ids in truth.items():
                found = set(report[kind].rows) if kind in report else set()
                if kind in PARTS and "near_leakage" in report:  # the rows may be alike as a whole, too
                    found |= ids & set(report["near_leakage"].rows)
                counts = (len(ids), len(found), len(found & ids))
                sums[corpus, kind] = [a + b for a, b in zip(sums[corpus, kind], counts, strict=True)]
    scores = [score(corpus, kind, *counts) for (corpus, kind), counts in sums.items()]
    own = {name: _found_in(tasks.read(name)) for name in tasks.TASKS}
    return {"scores": scores, "answer_kinds_on_own_rows": own, "bars": _bars(scores, own)}


def _bars(scores: list[dict[str, Any]], own: dict[str, dict[str, int]]) -> dict[str, bool]:
    return {
        "kinds of instruction rows: precision at least 0.95": all(
            row["precision"] is None or row["precision"] >= 0.95 for row in scores
        ),
        "kinds of instruction rows: recall at least 0.9, shuffled single rows aside": all(
            row["recall"] >= 0.9 for row in scores if row["corpus"] != "imdb, answers swapped"
        ),
        "none of them in the course's own rows": not any(map(any, (found.values() for found in own.values()))),
    }


def _found_in(rows: pd.DataFrame) -> dict[str, int]:
    """How many rows of a task each kind lists, audited as one file and in a first and a second half."""
    frame = rows.rename(columns={"output": "completion"}).assign(
        prompt=rows["instruction"].where(rows["input"] == "", rows["instruction"] + "\n" + rows["input"])
    )
    frame = frame[["id", "prompt", "completion"]].sample(frac=1, random_state=0)
    half = len(frame) // 2
    reports = (audit_instructions(frame), audit_instructions(frame[:half], test=frame[half:]))
    return {kind: max(report[kind].count if kind in report else 0 for report in reports) for kind in KINDS}


def _pairs(reviews: pd.DataFrame, words_of_prompt: int | None = 10) -> pd.DataFrame:
    """Prompts of so many words (None: of half a review), and the rest as the answers."""
    words = reviews["text"].str.split()
    ends = [words_of_prompt or len(each) // 2 for each in words]
    prompts = [" ".join(each[:end]) for each, end in zip(words, ends, strict=True)]
    answers = [" ".join(each[end:]) for each, end in zip(words, ends, strict=True)]
    return pd.DataFrame({"id": reviews["id"], "prompt": prompts, "completion": answers})


def _spoilt(reviews: pd.DataFrame, rng: np.random.Generator):
    """Rows with loops, markers, answers that say nothing, and prompts that are asked again in other words."""
    pairs = _pairs(reviews)
    places = iter(rng.permutation(len(pairs)))
    truth: dict[str, set[str]] = {kind: set() for kind in ("repetition_loop", "chat_markers", "empty_like_answer")}
    for kind, change in (
        ("repetition_loop", lambda text: _looped(text, rng)),
        ("chat_markers", lambda text: MARKERS[int(rng.integers(len(MARKERS)))].format(text)),
        ("empty_like_answer", lambda text: EMPTY[int(rng.integers(len(EMPTY)))]),
    ):
        for _ in range(EACH):
            place = next(places)
            pairs.loc[place, "completion"] = change(pairs["completion"][place])
            truth[kind].add(pairs["id"][place])
    asked = [next(places) for _ in range(EACH)]
    answers = [SHORT[int(number)] for number in rng.integers(len(SHORT), size=EACH)]
    pairs.loc[asked, "completion"] = [first for first, _ in answers]
    again = pairs.loc[asked].assign(id=pairs.loc[asked, "id"] + "-again", completion=[other for _, other in answers])
    again["prompt"] = [_reworded(prompt, rng) for prompt in again["prompt"]]
    truth["contradicting_near_prompts"] = set(again["id"])
    return pd.concat([pairs, again], ignore_index=True), truth, {}


def _looped(text: str, rng: np.random.Generator) -> str:
    words = text.split()
    end = int(rng.integers(min(10, len(words)), len(words) + 1))
    start, phrase = " ".join(words[:end]), " ".join(words[max(0, end - int(rng.integers(4, 15))) : end])
    times = int(rng.integers(4, 9))
    return [
        f"{start} " + f"{phrase} " * times,
        f"{start} " + f"{words[end - 1]} " * 3 * times,
        f"{start}\n" + "\n".join(f"{number}. It is {phrase}" for number in range(1, times + 1)),
        f"{start} " * 4,
        f"{start} " + f"{' '.join(words[:3])} " * 2 * times,
    ][int(rng.integers(5))]


def _reworded(prompt: str, rng: np.random.Generator) -> str:
    """The prompt with other manners, another punctuation, or a disguise."""
    return [
        lambda text: f"Please, {text[0].lower()}{text[1:]}",
        lambda text: text.rstrip(".,;:") + "?",
        lambda text: f"Could you tell me: {text}",
        lambda text: text.replace("a", "\u0430", 2).replace("o", "\u043e", 2).replace("e", "\u0435", 2),
        lambda text: text[:9] + "\u200b" + text[9:],
        lambda text: f"the {text}",
    ][int(rng.integers(6))](prompt)


def _swapped(reviews: pd.DataFrame, rng: np.random.Generator):
    """Answers that are made of words of their prompts; some are swapped."""
    pairs = _summaries(reviews, rng)
    places = rng.choice(len(pairs), EACH, replace=False)
    pairs.loc[places, "completion"] = pairs.loc[np.roll(places, 1), "completion"].to_numpy()
    return pairs, {"mismatched_answers": set(pairs.loc[places, "id"])}, {}


def _summaries(reviews: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    answers = []
    for text in reviews["text"]:
        words = text.split()
        kept = np.sort(rng.choice(len(words), max(8, len(words) // 6), replace=False))
        answers.append(" ".join(words[place] for place in kept) + ".")
    return pd.DataFrame({"id": reviews["id"], "prompt": "Summarize: " + reviews["text"], "completion": answers})


def _slipped(reviews: pd.DataFrame, rng: np.random.Generator):
    """The answers of a third of the rows or more belong to the prompts one row before them."""
    pairs = _pairs(reviews)
    start = int(rng.integers(0, 2 * len(pairs) // 3))
    end = int(rng.integers(start + len(pairs) // 3, len(pairs) + 1))
    answers = pairs["completion"].to_numpy()
    pairs["completion"] = np.concatenate([answers[:start], np.roll(answers[start:end], 1), answers[end:]])
    return pairs, {"mismatched_answers": set(pairs["id"][start:end])}, {}


def _in_json(reviews: pd.DataFrame, rng: np.random.Generator):
    """Answers in JSON, some with a mistake."""
    pairs = _pairs(reviews)
    pairs["completion"] = [json.dumps({"words": len(text), "said": text[:60]}) for text in pairs["completion"]]
    ways: list[Callable[[str], str]] = [
        lambda text: text[:-1] + ",}", lambda text: text.replace('"', "'"), lambda text: f"Here it is: {text}",
        lambda text: f"{text}\nI hope that this helps!", lambda text: text.replace(": ", " ", 1),
        lambda text: text.replace('"words"', "words"), lambda text: text.replace(', "said', ' "said'),
    ]  # fmt: skip
    places = rng.choice(len(pairs), EACH, replace=False)
    for place in places:
        pairs.loc[place, "completion"] = ways[int(rng.integers(len(ways)))](pairs["completion"][place])
    return pairs, {"broken_format": set(pairs.loc[places, "id"])}, {}


def _leaked(reviews: pd.DataFrame, rng: np.random.Generator):
    """Test rows with the edited prompt, or the answer, of a training row, and the other part of a third row."""
    pairs = _pairs(reviews, None)
    words = sorted({word for text in reviews["text"].head(300) for word in text.split()})
    order = iter(rng.permutation(len(pairs) // 2))
    train, test = pairs.iloc[: len(pairs) // 2].reset_index(drop=True), pairs.iloc[len(pairs) // 2 :].copy()
    truth: dict[str, set[str]] = {"prompt_leakage": set(), "answer_leakage": set()}
    places = iter(rng.permutation(len(test)))
    for _ in range(EACH):
        for kind, part in (("prompt_leakage", "prompt"), ("answer_leakage", "completion")):
            text = train[part][next(order)]
            while part == "prompt" and len(text.split()) < LONG_PROMPT:
                text = train[part][next(order)]
            if kind == "prompt_leakage" or rng.random() < 0.5:
                text = _edited(text, rng, words)
            place = next(places)
            test.iloc[place, test.columns.get_loc(part)] = text
            truth[kind].add(test["id"].iloc[place])
    return train, truth, {"test": test}


def _edited(text: str, rng: np.random.Generator, vocabulary: list[str]) -> str:
    """The text with one word to a tenth of its words replaced."""
    words = text.split()
    for place in rng.choice(len(words), int(rng.integers(1, max(2, len(words) // 10 + 1))), replace=False):
        words[place] = vocabulary[int(rng.integers(len(vocabulary)))]
    return " ".join(words)


PLANTED = {
    "imdb, as pairs": _spoilt,
    "imdb, answers swapped": _swapped,
    "imdb, answers slipped": _slipped,
    "imdb, as JSON": _in_json,
    "imdb, split pairs": _leaked,
}
