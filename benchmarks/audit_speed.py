"""Seconds and peak memory of an audit: against cleanlab's Datalab on the same rows, and by the number of rows.

Each measurement runs in a process of its own, so that its peak memory is its own. The rows are IMDB's reviews; larger
tables are made of pieces of them.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
import pandas as pd

from ftlab.course.bench import alone

MAX_LENGTH = 256
EMBEDDED = 1000  # rows for the slowest method; its time for all rows is extrapolated


def measure() -> dict[str, Any]:
    """Return seconds and peak memory (GB) of each measurement, and which bars they meet."""
    audit = alone(__file__, "imdb")
    datalab = alone(__file__, "datalab")
    embedded = alone(__file__, "embedded")
    small, large = alone(__file__, "pieces", 10_000, 45), alone(__file__, "pieces", 100_000, 45)
    million = alone(__file__, "pieces", 1_000_000, 10)
    growth = round(large["seconds"] / small["seconds"], 2)
    cheapest = datalab["seconds"]
    return {
        "audit_of_imdb": audit,
        "datalab_with_tfidf_features": datalab,
        "datalab_with_sentence_embeddings": embedded,
        "audit_over_datalab": round(cheapest / audit["seconds"], 2),
        "pieces_10_000": small,
        "pieces_100_000": large,
        "ten_times_the_rows_take": growth,
        "pieces_1_000_000": million,
        "bars": {
            "IMDB in under 60 s and 2.5 GB": audit["seconds"] < 60 and audit["peak_gb"] < 2.5,
            "faster than Datalab on the same rows": audit["seconds"] < cheapest,
            "ten times the rows in at most twelve times the time": growth <= 12,
            "a million short rows within 6 GB": million["peak_gb"] < 6,
        },
    }


def _imdb() -> dict[str, Any]:
    """Every check on all rows, with tokens counted by lesson 02's tokenizer."""
    from transformers import AutoTokenizer

    from ftlab.data import sources
    from ftlab.data.audit import audit
    from ftlab.models import loading

    frame, tokenizer = sources.read("imdb"), AutoTokenizer.from_pretrained(loading.folder("minilm"))
    began = time.monotonic()
    report = audit(frame, tokenizer=tokenizer, max_length=MAX_LENGTH)
    return {"rows": len(frame), "seconds": time.monotonic() - began, "findings": len(report.findings)}


def _datalab() -> dict[str, Any]:
    """Near-duplicates and label issues by Datalab, from the cheapest features that it can use: TF-IDF, then SVD.

    Datalab needs features and probabilities. The time includes computing them; "of_it_features" is that part.
    """
    from cleanlab import Datalab
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    from ftlab.data import sources

    frame = sources.read("imdb")
    began = time.monotonic()
    words = TfidfVectorizer(sublinear_tf=True, min_df=2).fit_transform(frame["text"])
    features = TruncatedSVD(100, random_state=0).fit_transform(words)
    probabilities = cross_val_predict(
        LogisticRegression(max_iter=200), words, frame["label"], cv=5, method="predict_proba"
    )
    prepared = time.monotonic()
    lab = Datalab({"label": frame["label"].tolist()}, label_name="label", verbosity=0)
    lab.find_issues(features=features, pred_probs=probabilities, issue_types={"near_duplicate": {}, "label": {}})
    issues = lab.get_issue_summary().set_index("issue_type")["num_issues"].to_dict()
    return {
        "rows": len(frame), "seconds": time.monotonic() - began, "of_it_features": round(prepared - began, 1),
        "issues": {name: int(count) for name, count in issues.items()},
    }  # fmt: skip


def _embedded() -> dict[str, Any]:
    """Embed some of the texts with a transformer: the first step of Datalab's own text tutorial."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    from ftlab.data import sources
    from ftlab.models import loading

    texts = sources.read("imdb")["text"].sample(EMBEDDED, random_state=0).tolist()
    folder = loading.folder("minilm")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    texts.sort(key=len)
    began = time.monotonic()
    with torch.inference_mode():
        for start in range(0, len(texts), 32):
            batch = tokenizer(
                texts[start : start + 32], truncation=True, max_length=MAX_LENGTH, padding=True, return_tensors="pt"
            )
            model(**batch)
    seconds = time.monotonic() - began
    return {"rows": EMBEDDED, "seconds": seconds, "seconds_for_all_rows": round(seconds * 25_000 / EMBEDDED)}


def _pieces(rows: int, words: int) -> dict[str, Any]:
    """Every check except those of tokens, on `rows` pieces of `words` words from IMDB's reviews, shuffled."""
    from ftlab.data import sources
    from ftlab.data.audit import audit

    pieces: list[tuple[str, str]] = []
    for offset in (0, words // 2):  # the second pass gives pieces that half overlap those of the first
        for text, label in sources.read("imdb")[["text", "label"]].itertuples(index=False):
            split = text.split()[offset:]
            pieces += [(" ".join(split[at : at + words]), label) for at in range(0, len(split) - words + 1, words)]
    order = np.random.default_rng(0).permutation(len(pieces))[:rows]
    frame = pd.DataFrame([pieces[place] for place in order], columns=["text", "label"])
    frame.insert(0, "id", [f"piece-{number}" for number in range(len(frame))])
    del pieces
    audit(frame.head(500))  # so that loading libraries is not timed
    began = time.monotonic()
    report = audit(frame)
    return {"rows": len(frame), "seconds": time.monotonic() - began, "findings": len(report.findings)}


if __name__ == "__main__":
    from ftlab.course.records import peak_memory_mb
    from ftlab.progress import quiet

    quiet()
    what, *numbers = sys.argv[1:]
    measured = {"imdb": _imdb, "datalab": _datalab, "embedded": _embedded, "pieces": _pieces}[what](*map(int, numbers))
    measured["seconds"] = round(measured["seconds"], 2)
    print(json.dumps({**measured, "peak_gb": round(peak_memory_mb() / 1000, 2)}))
