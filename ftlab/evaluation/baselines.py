"""What a fine-tuned model has to beat: the majority class, and word counts with a linear model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from ftlab.evaluation.predictions import prediction_table

if TYPE_CHECKING:
    from datasets import Dataset
    from sklearn.model_selection import GridSearchCV


def majority(train: Dataset, rows: Dataset) -> pd.DataFrame:
    """Predict the most frequent training label for each of `rows` (a table as `prediction_table` makes it)."""
    from sklearn.dummy import DummyClassifier

    model = DummyClassifier(strategy="prior").fit(train["text"], train["label"])
    return prediction_table(rows, model.predict_proba(rows["text"]))


def fit_tfidf(train: Dataset, *, seed: int = 0) -> GridSearchCV:
    """TF-IDF over words and word pairs with logistic regression, C chosen by cross-validated accuracy on `train`.

    A weak baseline flatters whatever stands beside it, so this one is tuned. Source: scikit-learn's user guide,
    "Working with text data".
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline

    pipeline = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, strip_accents="unicode"),
        LogisticRegression(solver="lbfgs", max_iter=1000),
    )
    smallest_class = min(pd.Series(train["label"]).value_counts())
    folds = StratifiedKFold(n_splits=max(2, min(5, int(smallest_class))), shuffle=True, random_state=seed)
    grid = {"logisticregression__C": [0.3, 1.0, 3.0, 10.0, 30.0]}
    return GridSearchCV(pipeline, grid, cv=folds, scoring="accuracy").fit(train["text"], train["label"])


def tfidf(train: Dataset, rows: Dataset, *, seed: int = 0) -> pd.DataFrame:
    """Fit `fit_tfidf` on `train` and predict `rows` (a table as `prediction_table` makes it)."""
    return prediction_table(rows, fit_tfidf(train, seed=seed).predict_proba(rows["text"]))
