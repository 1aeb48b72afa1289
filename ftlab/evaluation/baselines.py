"""What a fine-tuned model has to beat: the majority class, word counts, and the same encoder left as it was."""

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

STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0)  # of logistic regression's C, for cross-validation to choose from


def majority(train: Dataset, rows: Dataset) -> pd.DataFrame:
    """Predict the most frequent training label for each of `rows` (a table as `prediction_table` makes it)."""
    from sklearn.dummy import DummyClassifier

    model = DummyClassifier(strategy="prior").fit(list(train["text"]), list(train["label"]))
    return _answers(model, rows, list(rows["text"]))


def tfidf(train: Dataset, rows: Dataset, *, seed: int = 0) -> pd.DataFrame:
    """TF-IDF over words and word pairs with logistic regression, fitted on `train`: predictions for `rows`.

    Where no text has a word (of two letters or more), it is over characters and pairs of them.
    A weak baseline flatters whatever stands beside it, so C is chosen by five-fold cross-validated accuracy. The word
    counts are weighed once over all training rows, held-out folds included: no label is seen in doing so, and it is
    five times faster. Source: scikit-learn's user guide, sections 6.2.3 (text features) and 1.1.11.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline

    labels = list(train["label"])
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, strip_accents="unicode")
    words = counting_what_is_there(words, train["text"])
    model = _fitted(make_pipeline(words, _logistic_regression(labels, seed)), list(train["text"]), labels)
    return _answers(model, rows, list(rows["text"]))


def counting_what_is_there(vectorizer: Any, texts: Iterable[str]) -> Any:
    """scikit-learn's vectorizer of words, made to count characters where no text has a word (texts of emoji, say)."""
    return vectorizer if any(map(vectorizer.build_analyzer(), texts)) else vectorizer.set_params(analyzer="char")


def embed(
    texts: Sequence[str],
    model: str,
    *,
    max_length: int,
    read: Callable[[Any, torch.Tensor], torch.Tensor] = batches.mean_pooled,
) -> np.ndarray:
    """What the pretrained encoder `model` makes of each text before any fine-tuning: (texts, hidden size), length 1.

    `read` makes one vector of a text's tokens: `batches.mean_pooled` or `batches.first_token`.
    """
    tokenizer, encoder = loading.tokenizer(model, split_special_tokens=True), loading.body(model)
    loading.match_pad_token(encoder, tokenizer)
    encodings = tokenizer(list(texts), truncation=True, max_length=max_length)
    return batches.run(encoder, tokenizer, encodings, read, what="embedding")


def on_vectors(
    train: Dataset, train_vectors: np.ndarray, rows: Dataset, vectors: np.ndarray, *, seed: int = 0
) -> pd.DataFrame:
    """Logistic regression on the frozen encoder's vectors (see `embed`): predictions for `rows`.

    What pretraining alone knows of the task. C is chosen as for `tfidf`.
    """
    labels = list(train["label"])
    model = _fitted(_logistic_regression(labels, seed), train_vectors, labels)
    return _answers(model, rows, vectors)


def ladder(answers: Mapping[str, pd.DataFrame], *, seed: int = 0) -> pd.DataFrame:
    """One line for each model, in the order given: accuracy and macro F1, each with its interval, and MCC."""
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

    with threadpool_limits(1):  # the products are small: two threads took twenty times as long, waiting for each other
        return model.fit(inputs, labels)


def _answers(model: Any, rows: Dataset, inputs: Any) -> pd.DataFrame:
    """A fitted model's predictions for `rows`; a label that no training row had gets the probability 0."""
    probabilities = np.zeros((len(rows), rows.features["label"].num_classes))
    probabilities[:, model.classes_] = model.predict_proba(inputs)
    return prediction_table(rows, probabilities)


def _logistic_regression(labels: Sequence[int], seed: int) -> Any:
    """Logistic regression whose C is chosen by cross-validation on the training rows."""
    from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
    from sklearn.model_selection import StratifiedKFold

    rarest = min(Counter(labels).values())
    if rarest < 2:
        return LogisticRegression(max_iter=1000)  # a class of one row cannot stand on both sides of a fold
    folds = StratifiedKFold(n_splits=min(5, rarest), shuffle=True, random_state=seed)
    return LogisticRegressionCV(
        Cs=list(STRENGTHS),
        cv=folds,
        scoring="accuracy",
        max_iter=1000,
        l1_ratios=(0.0,),  # plain L2
        use_legacy_attributes=False,
    )
