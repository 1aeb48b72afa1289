"""Recall and precision of the audit's checks, on real reviews with planted defects.

First, natural defects are removed from the reviews by other methods than the audit's (a plain-characters filter, and
cosine similarity of character n-grams for copies). Then every kind of defect is planted at once, each into rows of its
own, so that a check can also mistake one kind for another.

The modules in `planted/` do the same for kinds that need rows of their own. Each runs in a process of its own.
"""

from __future__ import annotations

import json
import re
import runpy
import sys
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ftlab.course.bench import alone
from ftlab.data import sources, tasks
from ftlab.data.audit import audit, audit_instructions

SEEDS = range(5)
ROWS = 3000  # reviews that the defects are planted into
EACH = 50  # rows of each kind
PARTS = ("answers", "disguises", "secrets", "shortcuts", "groups", "doubtful", "languages")  # in planted/
AT_ONCE = 2
TEXT_NOISE = {
    "markup": ["<br />", "<p>", "</div>", '<a href="x">', "<b>"],
    "entities": ["&amp;", "&quot;", "&#39;", "&nbsp;", "&eacute;"],
    "control_characters": ["\x07", "\u200b", "\ufeff", "\x1b", "\u202e"],
    "email_addresses": ["jo.doe@filmpost.net", "k_l+m@mail.filmpost.org", "A.B@x-y.co.uk"],
    "phone_numbers": ["+44 20 7946 0958", "(212) 736-5000", "212-736-5000", "020 7946 0018", "+49 30 901820"],
    "card_numbers": ["4111 1111 1111 1111", "5500-0000-0000-0004", "378282246310005"],
}
SPECIAL = ["<|endoftext|>", "<|im_end|>", "<|im_start|>user", "[SEP]", "</s>", "<|eot_id|>", "[INST]"]
LINES = ["Was this review helpful to you? Yes or no", "Read more reviews on our pages today"]
REFUSALS = [
    "As an AI language model, I cannot watch films, so I have no view of my own.",
    "As an AI, I do not have personal experiences with this film.",
    "I'm sorry, but as a large language model I cannot judge a film that I have not seen.",
    "I am an AI assistant and was not made to review films.",
    "I'm just an AI, so I can't feel suspense the way you do.",
    "I do not have personal opinions or beliefs about films.",
    "I'm sorry, but I can't assist with that request.",
    "I cannot help with that. Is there anything else you would like to know?",
    "Sorry, I'm not able to help with this.",
    "I apologize, but I am unable to provide an answer to this question.",
    "I can't write that for you, because it goes against my guidelines.",
    "Unfortunately, I cannot fulfill this request.",
    "I must respectfully decline to answer this question.",
    "I won't provide instructions for copying a film.",
    "It would be inappropriate for me to comment on a real actor.",
    "I'm afraid I can't help you with that.",
    "I don't have access to the internet, so I cannot look the film up.",
    "My knowledge cutoff is 2021, and the film is newer.",
    "That is not something I can help with.",
    "I cannot create content that promotes violence.",
]
SHORT = [("positive", "negative"), ("yes", "No."), ("7", "8"), ("The Matrix", "Alien"), ("true", "false")]


def measure() -> dict[str, Any]:
    """Return recall and precision of each check over the seeds, and which bars they meet."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        first, *others = pool.map(lambda part: alone(__file__, part), ("here", *PARTS))
    for part in others:
        first["scores"] += part.pop("scores", [])
        first["bars"] |= part.pop("bars")
        first |= part
    return first


def part(name: str) -> dict[str, Any]:
    """Return the result of one part: "here" for the kinds of this module, or a module of `planted/`."""
    if name != "here":
        return runpy.run_path(str(Path(__file__).parent / "planted" / f"{name}.py"))["measure"](clean_rows, _score)
    table = [*_planted("imdb"), *_planted("rotten_tomatoes"), *_whole_tables(), *_instructions()]
    clean = {corpus: _clean_errors(corpus) for corpus in ("imdb", "rotten_tomatoes")}
    own = _own_rows()
    return {
        "seeds": len(SEEDS),
        "scores": table,
        "error_findings_on_clean_rows": clean,
        "answer_findings_on_own_rows": own,
        "bars": _bars(table, clean, own),
    }


def clean_rows(corpus: str, rows: int, seed: int) -> pd.DataFrame:
    """Return `rows` reviews of `corpus`, of 20 words or more, without natural defects, shuffled with `seed`."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    frame = sources.read(corpus)
    plain = frame["text"].map(lambda text: text.isascii() and not re.search(r"[<>&@\x00-\x1f]|\d{4}", text))
    long = frame["text"].str.split().str.len() >= 20
    frame = frame[plain & long].sample(frac=1, random_state=seed).head(rows + 500)
    weights = TfidfVectorizer(analyzer="char_wb", ngram_range=(5, 5), max_features=50_000).fit_transform(frame["text"])
    similar = (weights @ weights.T).tocoo()
    copies = {int(second) for first, second, value in zip(similar.row, similar.col, similar.data, strict=True)
              if first < second and value > 0.5}  # fmt: skip
    return frame[~np.isin(np.arange(len(frame)), list(copies))].head(rows).reset_index(drop=True)


def _changed(text: str, rng: np.random.Generator, vocabulary: list[str]) -> str:
    """The text with one word to a tenth of its words changed: replaced, removed, or with another word beside it."""
    words = text.split()
    places = [place for place, word in enumerate(words) if any(map(str.isalnum, word))]  # punctuation is not a word
    count = int(rng.integers(1, len(places) // 10 + 1))
    for place in sorted(rng.choice(places, count, replace=False), reverse=True):
        other = vocabulary[int(rng.integers(len(vocabulary)))]
        words[place : place + 1] = [[other], [], [words[place], other], [other, words[place]]][int(rng.integers(4))]
    return " ".join(words)


def _rewritten(text: str, rng: np.random.Generator) -> str:
    """The text in other case, white space or full-width letters."""
    wide = str.maketrans({chr(code): chr(code + 0xFEE0) for code in range(ord("a"), ord("z") + 1)})
    ways: list[Callable[[str], str]] = [
        str.upper, str.title, lambda text: text.replace(" ", "  ") + "\n", lambda text: text.translate(wide),
    ]  # fmt: skip
    return ways[int(rng.integers(len(ways)))](text)


def _broken(text: str) -> str:
    """UTF-8 decoded as Windows-1252, the usual damage to typographic quotes and accents."""
    return f"\u201c{text}\u201d \u2014 caf\u00e9".encode().decode("cp1252", errors="ignore")


def _planted(corpus: str) -> list[dict[str, Any]]:
    """Scores of the row-wise kinds, planted at once; planted, found and right are summed over the seeds."""
    sums: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for seed in SEEDS:
        train, test, truth = plant(corpus, seed)
        report = audit(train, test=test)
        for kind, ids in truth.items():
            found = set(report[kind].rows) if kind in report else set()
            sums[kind] = [a + b for a, b in zip(sums[kind], (len(ids), len(found), len(found & ids)), strict=True)]
    return [_score(corpus, kind, *counts) for kind, counts in sums.items()]


def plant(corpus: str, seed: int) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, set[str]]]:
    """Plant defects into reviews of `corpus`, drawn and planted with `seed`.

    Returns:
        Training rows, test rows, and the ids that each kind of finding should list.
    """
    rng = np.random.default_rng(seed)
    rows = clean_rows(corpus, ROWS, seed)
    vocabulary = sorted({word for text in rows["text"].head(500) for word in text.split()})
    spare = iter(rng.permutation(len(rows) // 2))  # positions in the first half; each gets one defect
    train, test = rows.iloc[: len(rows) * 4 // 5].copy(), rows.iloc[len(rows) * 4 // 5 :].copy()
    more: list[dict[str, str]] = []
    truth: defaultdict[str, set[str]] = defaultdict(set)
    other = {"positive": "negative", "negative": "positive"}

    def copy(kind: str, text: str, label: str, place: str = "train") -> str:
        row = f"{kind}-{len(more)}"
        more.append({"id": row, "text": text, "label": label, "place": place})
        return row

    for _ in range(EACH):
        for kind, change in (
            ("exact_duplicates", lambda text: text),
            ("normalised_duplicates", lambda text: _rewritten(text, rng)),
            ("near_duplicates", lambda text: _changed(text, rng, vocabulary)),
        ):
            row = train.iloc[next(spare)]
            truth[kind].add(copy(kind, change(row["text"]), row["label"]))
        row = train.iloc[next(spare)]
        again = copy("conflicting_labels", row["text"], other[row["label"]])
        truth["conflicting_labels"] |= {row["id"], again}
        truth["exact_duplicates"].add(again)
        row = train.iloc[next(spare)]
        again = copy("conflicting_near_labels", _changed(row["text"], rng, vocabulary), other[row["label"]])
        truth["conflicting_near_labels"] |= {row["id"], again}
        truth["near_duplicates"].add(again)
        row = train.iloc[next(spare)]
        text = row["text"] if rng.random() < 0.5 else _rewritten(row["text"], rng)
        truth["leakage"].add(copy("leakage", text, row["label"], "test"))
        row = train.iloc[next(spare)]
        truth["near_leakage"].add(copy("near_leakage", _changed(row["text"], rng, vocabulary), row["label"], "test"))
    for kind, pieces in TEXT_NOISE.items():
        for _ in range(EACH):
            place = int(next(spare))
            words = train["text"].iloc[place].split(" ")
            words.insert(int(rng.integers(1, len(words))), pieces[int(rng.integers(len(pieces)))])
            train.iloc[place, train.columns.get_loc("text")] = " ".join(words)
            truth[kind].add(train["id"].iloc[place])
    for kind, column, value in (
        ("mojibake", "text", _broken),
        ("boilerplate", "text", lambda text: f"{text}\n{LINES[int(rng.integers(len(LINES)))]}"),
        ("missing_text", "text", lambda text: [None, "", "  \n"][int(rng.integers(3))]),
        ("missing_label", "label", lambda label: [None, "", " "][int(rng.integers(3))]),
        ("label_slip", "label", lambda label: [label.title(), f" {label}", label.upper()][int(rng.integers(3))]),
    ):
        for _ in range(EACH):
            place = int(next(spare))
            where = train.columns.get_loc(column)
            train.iloc[place, where] = value(train.iloc[place, where])
            truth[kind].add(train["id"].iloc[place])
    for _ in range(EACH):
        place = int(next(spare))
        words = train["text"].iloc[place].split(" ")
        words.insert(int(rng.integers(1, len(words) + 1)), SPECIAL[int(rng.integers(len(SPECIAL)))])
        train.iloc[place, train.columns.get_loc("text")] = " ".join(words)
        truth["special_tokens"].add(train["id"].iloc[place])
    extra = pd.DataFrame(more)
    columns = ["id", "text", "label"]
    train = pd.concat([train, extra[extra["place"] == "train"]], ignore_index=True)[columns]
    test = pd.concat([test, extra[extra["place"] == "test"]], ignore_index=True)[columns]
    return train, test, dict(truth)


def _whole_tables() -> list[dict[str, Any]]:
    """Scores of the kinds that concern the whole table: found in a table with the defect, not in the clean one."""

    def marked(rows: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
        sign = (rows["label"] == "positive") & (rng.random(len(rows)) < 0.9)
        return rows.assign(text=rows["text"].where(~sign, "verified " + rows["text"] + " qqzx"))

    def shortened(rows: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
        short = (rows["label"] == "positive") & (rng.random(len(rows)) < 0.95)
        return rows.assign(text=rows["text"].where(~short, rows["text"].str.split().str[:12].str.join(" ")))

    def rare(rows: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
        keep = (rows["label"] == "positive") | (rng.random(len(rows)) < 0.1)
        return rows[keep].reset_index(drop=True)

    def tiny(rows: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
        labels = rows["label"].copy()
        labels.iloc[rng.choice(len(rows), 2, replace=False)] = "neutral"
        return rows.assign(label=labels)

    makers: dict[str, Callable[[pd.DataFrame, np.random.Generator], pd.DataFrame]] = {
        "sorted_by_label": lambda rows, rng: rows.sort_values("label", kind="stable").reset_index(drop=True),
        "imbalance": rare,
        "one_class": lambda rows, rng: rows[rows["label"] == "positive"].reset_index(drop=True),
        "tiny_class": tiny,
        "token_shortcut": marked,
        "length_shortcut": shortened,
        "few_rows": lambda rows, rng: rows.head(200),
    }
    sums: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for seed in SEEDS:
        rows = clean_rows("imdb", 1500, seed)
        untouched = audit(rows)
        for kind, make in makers.items():
            hit = kind in audit(make(rows, np.random.default_rng(seed)))
            sums[kind][0] += 1
            sums[kind][1] += hit + (kind in untouched)
            sums[kind][2] += hit
    return [_score("imdb, whole tables", kind, *counts) for kind, counts in sums.items()]


def _instructions() -> list[dict[str, Any]]:
    """Scores on pairs made of reviews: the first ten words as the instruction, the rest as the completion.

    Reviews that do not end with punctuation are left out: their authors may have stopped in the middle.
    """
    sums: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for seed in SEEDS:
        frame, truth = plant_pairs(seed)
        report = audit_instructions(frame)
        for kind, ids in truth.items():
            found = set(report[kind].rows) if kind in report else set()
            sums[kind] = [a + b for a, b in zip(sums[kind], (len(ids), len(found), len(found & ids)), strict=True)]
    return [_score("imdb, as pairs", kind, *counts) for kind, counts in sums.items()]


def plant_pairs(seed: int) -> tuple[pd.DataFrame, dict[str, set[str]]]:
    """Plant defects of instruction data into pairs made of reviews, drawn and planted with `seed`.

    Returns:
        The rows, and the ids that each kind of finding should list.
    """
    rng = np.random.default_rng(seed)
    rows = clean_rows("imdb", 1500, seed)
    rows = rows[rows["text"].str.contains(r"[.!?][\"')]*$")].head(1000).reset_index(drop=True)
    words = rows["text"].str.split()
    pairs = pd.DataFrame(
        {"id": rows["id"], "prompt": words.str[:10].str.join(" "), "completion": words.str[10:].str.join(" ")}
    )
    places = rng.permutation(len(pairs))
    empty, copied, repeated, sources_of, missing, headed, refusing, labelled = (
        places[start : start + EACH] for start in range(0, 8 * EACH, EACH)
    )
    cut = [place for place in places[8 * EACH :] if len(words[place]) >= 30][:EACH]
    pairs.loc[empty, "completion"] = ""
    pairs.loc[copied, "completion"] = pairs.loc[copied, "prompt"].str.upper() + "."
    pairs = pairs.assign(instruction=pairs["prompt"], input="")
    pairs.loc[missing, "input"] = rng.choice(["nan", "NaN", "N/A", "null"], EACH)
    pairs.loc[missing, "prompt"] += "\n" + pairs.loc[missing, "input"]
    pairs.loc[headed, "completion"] += "\n\n### Instruction:\n" + pairs.loc[headed, "prompt"] + "."
    for place in refusing:  # half of them go on with an answer
        said = REFUSALS[int(rng.integers(len(REFUSALS)))]
        pairs.loc[place, "completion"] = f"{said} {pairs['completion'][place]}" if rng.random() < 0.5 else said
    for place in cut:
        said = pairs["completion"][place].split(" ")
        pairs.loc[place, "completion"] = " ".join(said[: int(rng.integers(10, len(said)))])
    again = pairs.loc[sources_of].assign(id=pairs.loc[sources_of, "id"] + "-again")
    again["completion"] = pairs.loc[repeated, "completion"].to_numpy()
    short = [SHORT[int(number)] for number in rng.integers(len(SHORT), size=EACH)]
    pairs.loc[labelled, "completion"] = [first for first, _ in short]
    other = pairs.loc[labelled].assign(id=pairs.loc[labelled, "id"] + "-other")
    other["completion"] = [second for _, second in short]
    truth = {
        "empty_completion": set(pairs.loc[empty, "id"]),
        "copied_completion": set(pairs.loc[copied, "id"]),
        "duplicate_prompts": set(again["id"]),
        "contradicting_answers": set(other["id"]),
        "refusal": set(pairs.loc[refusing, "id"]),
        "cut_off_answer": set(pairs.loc[cut, "id"]),
        "placeholder_texts": set(pairs.loc[missing, "id"]),
        "template_headings": set(pairs.loc[headed, "id"]),
    }
    return pd.concat([pairs.drop(index=repeated), again, other], ignore_index=True), truth


def _own_rows() -> dict[str, dict[str, int]]:
    """How many answers in the course's own data sets are found to refuse or to be cut off.

    The texts of tickets and notes count as answers here: they were written in a hurry, often without a full stop.
    """
    answers = {name: tasks.read(name)["output"] for name in tasks.TASKS}  # `tutor` has the docstrings of Python
    answers |= {name: sources.read(name)["text"] for name in ("tickets", "clinical_notes", "domains")}
    found = {}
    for name, texts in answers.items():
        frame = pd.DataFrame({"id": [f"{number}" for number in range(len(texts))], "completion": texts})
        report = audit_instructions(frame.assign(prompt="Question " + frame["id"]))
        found[name] = {kind: report[kind].count if kind in report else 0 for kind in ("refusal", "cut_off_answer")}
        found[name]["rows"] = len(texts)
    return found


def _clean_errors(corpus: str) -> list[str]:
    """The error-level findings on clean rows over all seeds; none is expected."""
    return [found.id for seed in SEEDS for found in audit(clean_rows(corpus, ROWS, seed)).at_least("error")]


def _score(corpus: str, kind: str, planted: int, found: int, right: int) -> dict[str, Any]:
    return {
        "corpus": corpus, "finding": kind, "planted": planted, "found": found,
        "recall": round(right / planted, 4), "precision": round(right / found, 4) if found else None,
    }  # fmt: skip


def _bars(
    table: list[dict[str, Any]],
    clean: dict[str, list[str]],
    own: dict[str, dict[str, int]],
) -> dict[str, bool]:
    exact = (
        "exact_duplicates", "normalised_duplicates", "conflicting_labels", "leakage", "missing_text", "missing_label",
        "sorted_by_label", "contradicting_answers",
    )  # fmt: skip
    near = [row for row in table if row["finding"] in ("near_duplicates", "near_leakage")]
    scores = {row["finding"]: row for row in table if row["corpus"] == "imdb, as pairs"}
    written = ("refusal", "cut_off_answer", "contradicting_answers")
    return {
        "exact kinds: recall 1": all(row["recall"] == 1 for row in table if row["finding"] in exact),
        "near-duplicates: recall at least 0.95": all(row["recall"] >= 0.95 for row in near),
        "near-duplicates: precision at least 0.95": all((row["precision"] or 0) >= 0.95 for row in near),
        "no error on clean rows": not any(clean.values()),
        "refusals, cut and contradicting answers: recall at least 0.9": all(
            scores[kind]["recall"] >= 0.9 for kind in written
        ),
        "refusals, cut and contradicting answers: precision at least 0.95": all(
            (scores[kind]["precision"] or 0) >= 0.95 for kind in written
        ),
        "no refusal and no cut answer in the course's own rows": not any(
            found[kind] for found in own.values() for kind in ("refusal", "cut_off_answer")
        ),
    }


if __name__ == "__main__":
    print(json.dumps(part(sys.argv[1])))
