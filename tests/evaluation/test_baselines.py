import numpy as np
import pandas as pd
import pytest
import torch

from ftlab.data import sources
from ftlab.data.splits import split
from ftlab.evaluation import baselines, comparison
from ftlab.models import loading
from tests.evaluation.tables import labelled_rows, random_answers

TEXTS = ["good", "a bad film, and a long one at that, which never ends", "", "it was fine", "good", "a book " * 40]


@pytest.fixture(scope="module")
def splits():
    return split(sources.load("mini_reviews"), rows=120, validation_rows=40, test_rows=40)


@pytest.fixture(scope="module")
def vectors(splits):
    """Random vectors with a strong signal of the label."""
    rng = np.random.default_rng(0)
    made = {}
    for name in ("train", "validation"):
        labels = np.array(getattr(splits, name)["label"])
        made[name] = rng.normal(size=(len(labels), 6)) + 4 * labels[:, np.newaxis]
    return made


def test_the_majority_class_is_that_of_the_training_rows(splits):
    majority = baselines.majority(splits.train, splits.validation)
    assert majority["prediction"].nunique() == 1
    assert comparison.accuracy(majority).value == 0.5
    rows = labelled_rows("abcd", [0, 0, 0, 1])
    found = baselines.majority(labelled_rows("abc", [1, 1, 0]), rows)
    assert set(found["prediction"]) == {"positive"}
    assert found["confidence"].tolist() == pytest.approx([2 / 3] * 4)


def test_word_counts_learn_their_rows_and_stand_in_the_order_of_those_asked(splits):
    forward = baselines.tfidf(splits.train, splits.train)
    assert forward["id"].tolist() == splits.train["id"][:]
    assert comparison.accuracy(forward).value > 0.9  # it has seen these rows
    np.random.rand(3)  # whatever was drawn before
    back = baselines.tfidf(splits.train, splits.train.select(range(119, -1, -1)))
    pd.testing.assert_frame_equal(back.iloc[::-1].reset_index(drop=True), forward)


def test_texts_without_a_word_are_told_apart_by_their_characters():
    train = labelled_rows(
        ["\U0001f600" * (1 + row % 3) if row % 2 else "\U0001f621!" * (1 + row % 3) for row in range(40)],
        [row % 2 for row in range(40)],
    )
    assert comparison.accuracy(baselines.tfidf(train, train)).value == 1


def test_logistic_regression_on_vectors_finds_what_they_know_each_time(splits, vectors):
    arguments = (splits.train, vectors["train"], splits.validation, vectors["validation"])
    found = baselines.on_vectors(*arguments)
    assert found["id"].tolist() == splits.validation["id"][:]
    assert comparison.accuracy(found).value > 0.95
    np.random.rand(3)  # whatever was drawn before
    pd.testing.assert_frame_equal(baselines.on_vectors(*arguments), found)


@pytest.mark.parametrize("labels", [[0, 2] * 6, [2, 1] * 6, [0, 1, 2, *[0, 1] * 5]])
def test_a_label_with_few_training_rows_or_none_is_one_of_the_answers_all_the_same(labels):
    names = ["up", "down", "aside"]
    train = labelled_rows([f"word{label} and more of word{label}" for label in labels], labels, names=names)
    rows = labelled_rows(["word0", "word1", "word2"], [0, 1, 2], names=names)
    made = {
        "majority": baselines.majority(train, rows),
        "tfidf": baselines.tfidf(train, rows),
        "vectors": baselines.on_vectors(train, np.eye(3)[labels], rows, np.eye(3)),
    }
    for name, table in made.items():
        shares = table[["p_up", "p_down", "p_aside"]].to_numpy()
        np.testing.assert_allclose(shares.sum(axis=1), 1, err_msg=name)
        for label in range(3):
            assert (shares[:, label] > 0).all() == (label in labels), name
    seen = [label for label in (0, 1, 2) if labels.count(label) > 1]
    assert made["tfidf"]["prediction"].iloc[seen].tolist() == [names[label] for label in seen]


@pytest.mark.parametrize("model", ["tiny-distilbert", "tiny-gpt2"])
def test_vectors_have_length_1_and_stand_in_the_order_of_the_texts(model):
    texts = [text or "." for text in TEXTS]
    found = baselines.embed(texts, model, max_length=32)
    assert found.shape == (len(texts), loading.hidden_size(model))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(found[0], found[4], atol=1e-5)  # the same text
    np.testing.assert_allclose(baselines.embed(texts[::-1], model, max_length=32), found[::-1], atol=1e-5)
    assert not np.allclose(found[0], found[1], atol=1e-2)


@pytest.mark.parametrize("model", ["tiny-distilbert", "tiny-gpt2"])
def test_a_vector_does_not_depend_on_the_texts_beside_it(model):
    texts = [text or "." for text in TEXTS]
    together = baselines.embed(texts, model, max_length=32)
    for place in (0, 2, 5):
        alone = baselines.embed([texts[place]], model, max_length=32)
        np.testing.assert_allclose(together[place], alone[0], atol=1e-5)


def test_a_vector_is_the_mean_of_the_encoders_last_layer_over_the_tokens_that_max_length_keeps():
    from transformers import AutoModel

    tokenizer = loading.tokenizer("tiny-distilbert")
    encoder = AutoModel.from_pretrained(loading.folder("tiny-distilbert")).eval()
    for text, found in zip(TEXTS, baselines.embed(TEXTS, "tiny-distilbert", max_length=16), strict=True):
        encoding = tokenizer(text, truncation=True, max_length=16, return_tensors="pt")
        with torch.inference_mode():
            mean = encoder(**encoding).last_hidden_state[0].mean(dim=0)
        np.testing.assert_allclose(found, mean / mean.norm(), atol=1e-5)


def test_the_ladder_has_the_models_in_their_order_with_the_scores_of_each():
    answers = {
        name: random_answers(np.random.default_rng(0), 80, 3, right=right)
        for name, right in (("zebra", 0.2), ("ape", 0.9), ("majority", 0.0))
    }
    ladder = baselines.ladder(answers, seed=4)
    expected = ["model", "accuracy", "low", "high", "macro F1", "F1 low", "F1 high", "MCC"]
    assert ladder.columns.tolist() == expected
    assert ladder["model"].tolist() == list(answers)
    for line in ladder.to_dict(orient="records"):
        scores = comparison.scores(answers[line["model"]], seed=4)
        accuracy, f1 = scores["accuracy"], scores["f1_macro"]
        found = [line[column] for column in expected[1:]]
        assert found == [accuracy.value, accuracy.low, accuracy.high, f1.value, f1.low, f1.high, scores["mcc"].value]


def test_a_baseline_is_fitted_on_one_thread():
    """Two threads on matrices this small wait for each other: minutes instead of a second."""
    from threadpoolctl import threadpool_info, threadpool_limits

    class Watched:
        def fit(self, inputs, labels):
            return {pool["num_threads"] for pool in threadpool_info()}

    with threadpool_limits(2):
        assert baselines._fitted(Watched(), [[0.0], [1.0]], [0, 1]) == {1}
