import numpy as np
import pandas as pd
import pytest

from ftlab.errors import BadInput
from ftlab.evaluation.error_analysis import mistakes
from ftlab.evaluation.predictions import prediction_table
from tests.evaluation.tables import assert_one_sentence, labelled_rows

TRAIN = labelled_rows(["awful film", "lovely film", "dull book", "fine book"], [0, 1, 0, 1])
TRAIN_VECTORS = np.array([[1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
ROWS = labelled_rows(["a", "b", "c", "d", "e"], [0, 1, 0, 1, 1])
VECTORS = np.array([[1.0, 0.0, 0.0], [0.0, 0.6, 0.8], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.6, 0.8, 0.0]])
POSITIVE = np.array([0.1, 0.3, 0.95, 0.8, 0.45])  # b, c and e are wrong


def judged(**options) -> pd.DataFrame:
    answers = prediction_table(ROWS, np.stack([1 - POSITIVE, POSITIVE], axis=1))
    return mistakes(answers, TRAIN, TRAIN_VECTORS, VECTORS, **options)


def test_the_wrong_answers_stand_with_the_most_confident_first():
    found = judged()
    assert found["text"].tolist() == ["c", "b", "e"]
    assert found["confidence"].tolist() == pytest.approx([0.95, 0.7, 0.55])
    assert found["label"].tolist() == ["negative", "positive", "positive"]
    assert found["prediction"].tolist() == ["positive", "negative", "negative"]
    assert found.index.tolist() == [0, 1, 2]


def test_each_stands_beside_the_training_rows_that_are_most_like_it():
    found = judged().set_index("text")
    nearest = {"c": ("r3", "r1"), "b": ("r2", "r3"), "e": ("r1", "r3")}
    cosines = {"c": (1.0, 0.6), "b": (0.8, 0.6), "e": (0.96, 0.8)}
    shown = {f"r{place}": f"r{place} ({name}): {text}" for place, (name, text) in enumerate(
        [("negative", "awful film"), ("positive", "lovely film"), ("negative", "dull book"), ("positive", "fine book")]
    )}  # fmt: skip
    for text in nearest:
        for rank in (1, 2):
            assert found.loc[text, f"nearest_{rank}"] == shown[nearest[text][rank - 1]]
            assert found.loc[text, f"similarity_{rank}"] == pytest.approx(cosines[text][rank - 1])


def test_one_asks_for_as_many_neighbours_as_one_wants_and_gets_as_many_as_there_are():
    assert [column for column in judged(nearest=1) if column.startswith("nearest")] == ["nearest_1"]
    every = judged(nearest=9)
    assert [column for column in every if column.startswith("nearest")] == [f"nearest_{rank}" for rank in (1, 2, 3, 4)]
    similar = every[[f"similarity_{rank}" for rank in (1, 2, 3, 4)]].to_numpy()
    assert (np.diff(similar, axis=1) <= 0).all()


def test_neighbours_are_those_of_scikit_learn():
    from sklearn.neighbors import NearestNeighbors

    rng = np.random.default_rng(0)
    train = labelled_rows([f"text {number}" for number in range(60)], rng.integers(0, 2, 60))
    rows = labelled_rows([f"row {number}" for number in range(40)], rng.integers(0, 2, 40))
    near, far = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
                 for vectors in (rng.normal(size=(60, 8)), rng.normal(size=(40, 8))))  # fmt: skip
    found = mistakes(prediction_table(rows, rng.dirichlet([1, 1], 40)), train, near, far, nearest=3)
    places = found["id"].str.removeprefix("r").astype(int).to_numpy()
    distances, expected = NearestNeighbors(n_neighbors=3, metric="cosine").fit(near).kneighbors(far[places])
    for rank in range(3):
        named = found[f"nearest_{rank + 1}"].str.partition(" ")[0]
        assert named.tolist() == [f"r{place}" for place in expected[:, rank]]
        np.testing.assert_allclose(found[f"similarity_{rank + 1}"], 1 - distances[:, rank])


def test_without_a_mistake_the_table_is_empty_and_has_its_columns():
    answers = prediction_table(ROWS, np.eye(2)[ROWS["label"]])
    found = mistakes(answers, TRAIN, TRAIN_VECTORS, VECTORS)
    assert len(found) == 0
    assert found.columns.tolist() == judged().columns.tolist()


@pytest.mark.parametrize(
    ("train_vectors", "vectors", "part"),
    [
        (TRAIN_VECTORS, VECTORS[:4], "4 vectors for 5 predictions"),
        (TRAIN_VECTORS[:3], VECTORS, "3 for 4 training rows"),
        (VECTORS, TRAIN_VECTORS, "4 vectors for 5 predictions"),
    ],
)
def test_each_row_needs_its_vector(train_vectors, vectors, part):
    answers = prediction_table(ROWS, np.eye(2)[ROWS["label"]])
    with pytest.raises(BadInput) as caught:
        mistakes(answers, TRAIN, train_vectors, vectors)
    assert_one_sentence(caught, part, "give one for each row, in the same order")
