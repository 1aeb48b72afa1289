"""Small tables and rows for the tests of evaluation."""

import numpy as np
import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, Features, Value


def answers(labels, predictions) -> pd.DataFrame:
    """A prediction table without texts."""
    ids = [f"r{number}" for number in range(len(labels))]
    return pd.DataFrame({"id": ids, "label": list(labels), "prediction": list(predictions)})


def random_answers(rng, rows, classes, *, right=0.6, true=None, predicted=None) -> pd.DataFrame:
    """Answers over so many classes; `true` and `predicted` are the classes that occur, and `right` is what it knows."""
    names = np.array([f"class_{number}" for number in range(classes)])
    can_be_true, can_be_predicted = (names if some is None else names[list(some)] for some in (true, predicted))
    labels, guesses = rng.choice(can_be_true, rows), rng.choice(can_be_predicted, rows)
    knows = (rng.random(rows) < right) & np.isin(labels, can_be_predicted)
    return answers(labels, np.where(knows, labels, guesses))


def from_logits(logits, labels) -> pd.DataFrame:
    """A prediction table over the labels "0", "1", ... in float32, as a model gives it."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    made = answers(np.asarray(labels).astype(str), shares.argmax(axis=1).astype(str))
    return made.assign(confidence=shares.max(axis=1), **{f"p_{name}": share for name, share in enumerate(shares.T)})


def labelled_rows(texts, labels, names=("negative", "positive")) -> Dataset:
    features = Features({"id": Value("string"), "text": Value("string"), "label": ClassLabel(names=list(names))})
    ids = [f"r{number}" for number in range(len(texts))]
    return Dataset.from_dict({"id": ids, "text": list(texts), "label": list(labels)}, features=features)


def assert_one_sentence(caught: pytest.ExceptionInfo, *parts: str) -> None:
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
