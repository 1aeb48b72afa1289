"""Baselines of text classification: majority class, TF-IDF with logistic regression, and the frozen encoder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ftlab.evaluation import comparison
from ftlab.evaluation.predictions import prediction_table
from ftlab.models import batches, loading

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0)  # values of logistic regression's C for cross-validation


def majority(train: Dataset, rows: Dataset) -> pd.DataFrame:
    """Return a prediction table in which each of `rows` gets the most frequent label of `train`."""
    from sklearn.dummy import DummyClassifier

    model = DummyClassifier(strategy="prior").fit(list(train["text"]), list(train["label"]))
    return _answers(model, rows, list(rows["text"]))


def tfidf(train: Dataset, rows: Dataset, *, seed: int = 0) -> pd.DataFrame:
    """Fit TF-IDF over words and word pairs with logistic regression, and predict.

    If no text has a word (of two letters or more), TF-IDF is over characters and pairs of them. A weak baseline makes
    any model look good, so C is chosen by five-fold cross-validated accuracy. TF-IDF is fitted once on all training
    rows, held-out folds included: it uses no labels, and this is five times faster. Source: scikit-learn's user guide,
    sections 6.2.3 (text features) and 1.1.11.

    Args:
        train: rows with text and label.
        rows: those to predict.
        seed: of the folds.

    Returns:
        A prediction table of `rows`.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline

    labels = list(train["label"])
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, strip_accents="unicode")
    words = words_or_characters(words, train["text"])
    model = _fitted(make_pipeline(words, _logistic_regression(labels, seed)), list(train["text"]), labels)
    return _answers(model, rows, list(rows["text"]))


def words_or_characters(vectorizer: Any, texts: Iterable[str]) -> Any:
    """Return scikit-learn's `vectorizer`, set to count characters if none of `texts` has a word (only emoji, say)."""
    return vectorizer if any(map(vectorizer.build_analyzer(), texts)) else vectorizer.set_params(analyzer="char")


def embed(
    texts: Sequence[str],
    model: str,
    *,
    max_length: int,
    read: Callable[[Any, torch.Tensor], torch.Tensor] = batches.mean_pooled,
) -> np.ndarray:
    """Embed texts with a pretrained encoder, without fine-tuning.

    Args:
        texts: of any length.
        model: the name of the encoder.
        max_length: in tokens; longer texts are truncated.
        read: makes one vector of a text's tokens: `batches.mean_pooled` or `batches.first_token`.

    Returns:
        (texts, hidden size) L2-normalised vectors, in the order of `texts`.
    """
    tokenizer, encoder = loading.tokenizer(model, split_special_tokens=True), loading.body(model)
    loading.match_pad_token(encoder, tokenizer)
    encodings = tokenizer(list(texts), truncation=True, max_length=max_length)
    return batches.run(encoder, tokenizer, encodings, read, what="embedding")


def on_vectors(
    train: Dataset, train_vectors: np.ndarray, rows: Dataset, vectors: np.ndarray, *, seed: int = 0
) -> pd.DataFrame:
    """Fit logistic regression on the frozen encoder's vectors, and predict: what pretraining alone knows of the task.

    C is chosen as for `tfidf`.

    Args:
        train: rows with label.
        train_vectors: (training rows, hidden size) of `embed`.
        rows: those to predict.
        vectors: (rows, hidden size) of `embed`.
        seed: of the folds.

    Returns:
        A prediction table of `rows`.
    """
    labels = list(train["label"])
    model = _fitted(_logistic_regression(labels, seed), train_vectors, labels)
    return _answers(model, rows, vectors)


def ladder(answers: Mapping[str, pd.DataFrame], *, seed: int = 0) -> pd.DataFrame:
    """Return one line for each model of `answers`, in their order: accuracy and macro F1 with intervals, and MCC.

    `answers` are prediction tables by the name of the model; `seed` is of the bootstrap.
    """
    lines = []
    for name, table in answers.items():
        found = comparison.scores(table, seed=seed)
        accuracy, f1 = found["accuracy"], found["f1_macro"]
        lines.append(
            {
                "model": name, "accuracy": accuracy.value, "low": accuracy.low, "high": accuracy.high,
                "macro F1": f1.value, "F1 low": f1.low, "F1 high": f1.high, "MCC": found["mcc"].value,
            }
        )  # fmt: skip
    return pd.DataFrame(lines)


def _fitted(model: Any, inputs: Any, labels: Sequence[int]) -> Any:
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # the matrices are small: two threads wait for each other, and took twenty times as long
        return model.fit(inputs, labels)


def _answers(model: Any, rows: Dataset, inputs: Any) -> pd.DataFrame:
    """Return a fitted model's predictions for `rows`; a label without a training row has the probability 0."""
    probabilities = np.zeros((len(rows), rows.features["label"].num_classes))
    probabilities[:, model.classes_] = model.predict_proba(inputs)
    return prediction_table(rows, probabilities)


def _logistic_regression(labels: Sequence[int], seed: int) -> Any:
    """Return a logistic regression whose C is chosen by cross-validation on the training rows."""
    from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
    from sklearn.model_selection import StratifiedKFold

    rarest = min(Counter(labels).values())
    if rarest < 2:
        return LogisticRegression(max_iter=1000)  # a class of one row cannot be in training and held-out fold
    folds = StratifiedKFold(n_splits=min(5, rarest), shuffle=True, random_state=seed)
    return LogisticRegressionCV(
        Cs=list(STRENGTHS),
        cv=folds,
        scoring="accuracy",
        max_iter=1000,
        l1_ratios=(0.0,),  # plain L2
        use_legacy_attributes=False,
    )
