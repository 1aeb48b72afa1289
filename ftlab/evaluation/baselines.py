"""What a fine-tuned model has to beat: the majority class, and word counts with a linear model."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pandas as pd

from ftlab.evaluation.predictions import prediction_table

if TYPE_CHECKING:
    from datasets import Dataset


def majority(train: Dataset, rows: Dataset) -> pd.DataFrame:
    """Predict the most frequent training label for each of `rows` (a table as `prediction_table` makes it)."""
    from sklearn.dummy import DummyClassifier

    model = DummyClassifier(strategy="prior").fit(list(train["text"]), list(train["label"]))
    return prediction_table(rows, model.predict_proba(list(rows["text"])))


def tfidf(train: Dataset, rows: Dataset, *, seed: int = 0) -> pd.DataFrame:
    """TF-IDF over words and word pairs with logistic regression, fitted on `train`: predictions for `rows`.

    A weak baseline flatters whatever stands beside it, so C is chosen by five-fold cross-validated accuracy. The word
    counts are weighed once over all training rows, held-out folds included: no label is seen in doing so, and it is
    five times faster. Source: scikit-learn's user guide, sections 6.2.3 (text features) and 1.1.11.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline

    texts, labels = list(train["text"]), list(train["label"])
    folds = StratifiedKFold(n_splits=min(5, *Counter(labels).values()), shuffle=True, random_state=seed)
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, strip_accents="unicode"),
        LogisticRegressionCV(
            Cs=[0.3, 1.0, 3.0, 10.0, 30.0],
            cv=folds,
            scoring="accuracy",
            max_iter=1000,
            l1_ratios=(0.0,),  # plain L2
            use_legacy_attributes=False,
        ),
    ).fit(texts, labels)
    return prediction_table(rows, model.predict_proba(list(rows["text"])))
