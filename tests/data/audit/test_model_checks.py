import numpy as np
import pandas as pd
import pytest

from ftlab.data.audit import audit, linear_model

from .planted import PLAIN, changed, example, opinions, report, reviews, table


def guess(report, by: str) -> float:
    return report.shortcuts.set_index("guess by").loc[by, "accuracy"]


def plain(rows: int, seed: int = 0) -> list[str]:
    """Return texts whose words do not predict a label."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(PLAIN, 12)) for _ in range(rows)]


# --- label errors ---


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_flipped_labels_rank_on_top(seed):
    frame = opinions(400, seed)
    flipped = np.random.default_rng(seed).choice(len(frame), 10, replace=False)
    other = {"good": "bad", "bad": "good"}
    found = audit(changed(frame, "label", {row: other[frame["label"][row]] for row in flipped}))["likely_label_errors"]
    assert set(found.rows[:10]) == {f"r{row}" for row in flipped}


def test_a_doubtful_row_is_listed_with_its_label_and_the_suggested_one():
    evidence = report("likely_label_errors")["likely_label_errors"].evidence.set_index("id")
    meant = opinions(400).set_index("id")["label"]
    for row in example("likely_label_errors").rows:
        assert evidence.loc[row, "suggested"] == meant[row] != evidence.loc[row, "label"]


def test_the_likeliest_errors_come_first():
    frame = example("likely_label_errors").frame
    confidence = audit(frame)["likely_label_errors"].evidence["confidence"]
    assert confidence.is_monotonic_decreasing


def test_correct_labels_are_not_listed():
    assert "likely_label_errors" not in audit(opinions())


def test_label_errors_are_not_listed_if_the_model_is_no_better_than_the_baseline():
    found = audit(table(plain(200), ["a", "b"] * 100))
    assert "likely_label_errors" not in found
    assert "little better than the most frequent label" in " ".join(found.skipped)


def test_label_errors_among_several_classes_are_found():
    rng = np.random.default_rng(0)
    words = {
        "red": ["crimson", "scarlet", "ruby"],
        "blue": ["azure", "navy", "teal"],
        "green": ["lime", "jade", "moss"],
    }
    labels = rng.permutation(list(words) * 100).tolist()
    frame = table([" ".join([*rng.choice(words[label], 3), *rng.choice(PLAIN, 6)]) for label in labels], labels)
    other = {"red": "blue", "blue": "green", "green": "red"}
    found = audit(changed(frame, "label", {row: other[labels[row]] for row in range(0, 90, 10)}))["likely_label_errors"]
    assert set(found.rows[:9]) == {f"r{row}" for row in range(0, 90, 10)}


# --- shortcuts ---


def test_a_word_that_predicts_the_label_is_named_with_its_rows():
    frame = table(plain(200), ["a", "b"] * 100)
    marked = frame["label"] == "a"
    frame.loc[marked, "text"] = "starfive " + frame["text"]
    report = audit(frame)
    assert set(report["token_shortcut"].evidence["word"]) == {"starfive"}
    assert report["token_shortcut"].rows == tuple(frame["id"][marked])
    assert guess(report, "one word alone") == 1


def test_a_word_that_is_in_most_rows_of_a_class_is_a_shortcut_too():
    frame = table(plain(200), ["a", "b"] * 100)
    marked = (frame["label"] == "a") & (frame.index % 10 != 0)
    frame.loc[marked, "text"] = "starfive " + frame["text"]
    assert "'starfive'" in audit(frame)["token_shortcut"].what


def test_words_that_each_predict_a_little_are_no_shortcut():
    report = audit(opinions())
    assert guess(report, "TF-IDF over all words") > 0.95
    assert "token_shortcut" not in report


def test_a_length_that_predicts_the_label_is_found():
    texts = plain(200)
    frame = table([f"{text} {text[::-1]}" if row % 2 else text for row, text in enumerate(texts)], ["a", "b"] * 100)
    report = audit(frame)
    assert guess(report, "length alone") > 0.95
    assert "length alone predicts" in report["length_shortcut"].what


def test_similar_lengths_in_all_classes_are_no_shortcut():
    report = audit(opinions())
    assert guess(report, "length alone") < 0.65
    assert "length_shortcut" not in report


def test_the_accuracy_of_the_most_frequent_label_is_its_share():
    frame = table(plain(100), ["a"] * 3 + ["b"] * 20 + ["a"] * 77)
    assert guess(audit(frame), "the most frequent label") == 0.8


def test_guesses_on_random_labels_are_no_better_than_chance():
    rng = np.random.default_rng(3)
    shortcuts = audit(table(plain(400), rng.choice(["a", "b"], 400))).shortcuts.set_index("guess by")["accuracy"]
    assert shortcuts[["length alone", "one word alone", "TF-IDF over all words"]].between(0.4, 0.6).all()


def test_a_label_that_is_in_the_text_is_a_shortcut():
    frame = reviews(200)
    frame["text"] = frame["text"] + " " + frame["label"]
    assert set(audit(frame)["token_shortcut"].evidence["word"]) <= {"positive", "negative"}


# --- where the model cannot be used ---


def test_checks_are_skipped_if_a_class_has_too_few_rows():
    few = linear_model.FEWEST_OF_A_CLASS - 1
    report = audit(changed(opinions(), "label", dict.fromkeys(range(few), "mixed")))
    assert report.shortcuts.empty
    assert f"different texts of each class, and one has {few}" in " ".join(report.skipped)
    assert not audit(changed(opinions(), "label", dict.fromkeys(range(few + 1), "mixed"))).shortcuts.empty


def test_copies_do_not_make_a_class_large_enough():
    frame = reviews(40)
    few = frame[frame["label"] == "positive"].head(5)
    copies = pd.concat([few.assign(id=f"copy-{copy}-" + few["id"]) for copy in range(4)])
    report = audit(pd.concat([frame[frame["label"] == "negative"], copies]))
    assert "different texts of each class, and one has 5" in " ".join(report.skipped)


def test_labels_of_copies_are_not_learned_from_the_other_copies():
    """Random texts, each four times: a model fitted to one of the copies would know the label of the others."""
    labels = np.random.default_rng(0).choice(["a", "b"], 50).tolist()
    report = audit(table(plain(50) * 4, labels * 4))
    assert guess(report, "TF-IDF over all words") < 0.7


def test_checks_are_skipped_if_there_is_one_class():
    assert "need two classes" in " ".join(audit(reviews().assign(label="good")).skipped)


@pytest.mark.parametrize(
    "texts", [[f"word{row}" for row in range(40)], ["!" * (row + 1) for row in range(40)]], ids=["distinct", "none"]
)
def test_texts_that_share_no_word_are_audited(texts):
    assert "few_rows" in audit(table(texts, ["a", "b"] * 20))


def test_rows_without_a_text_or_a_label_are_left_out():
    frame = changed(changed(opinions(), "text", {3: None}), "label", {4: None})
    assert audit(frame)["few_rows"].count == 198


# --- the model itself ---


def test_each_row_is_scored_by_a_model_that_was_not_fitted_to_it():
    """A model that was fitted to a row would be right; any other is wrong on a label that no other row has."""
    labels = np.array([0, 1] * 50)
    features = np.arange(100.0).reshape(-1, 1)
    from sklearn.neighbors import KNeighborsClassifier

    fold = linear_model.folds(labels)
    seen = KNeighborsClassifier(1).fit(features, labels)
    assert (seen.predict(features) == labels).all()
    for number in range(linear_model.FOLDS):
        held_out = fold == number
        again = labels.copy()
        again[held_out] = 1 - again[held_out]
        once, other = (
            linear_model.out_of_fold(features, each, fold, KNeighborsClassifier(1))[held_out]
            for each in (labels, again)
        )
        assert (once == other).all()  # the held-out labels decide nothing


def test_folds_are_stratified():
    labels = np.array([0] * 100 + [1] * 25)
    fold = linear_model.folds(labels)
    assert np.bincount(fold).tolist() == [25] * 5
    assert [int(labels[fold == number].sum()) for number in range(5)] == [5] * 5


def test_copies_share_a_fold():
    labels = np.array([0, 1] * 60)
    clusters = np.arange(120) // 3
    fold = linear_model.folds(labels, clusters)
    assert all(len(set(fold[clusters == cluster])) == 1 for cluster in range(40))
    assert set(fold) == set(range(linear_model.FOLDS))


def test_folds_depend_on_the_seed_alone():
    labels = np.array([0, 1] * 50)
    assert (linear_model.folds(labels, seed=1) == linear_model.folds(labels, seed=1)).all()
    assert (linear_model.folds(labels, seed=1) != linear_model.folds(labels, seed=2)).any()


def test_probabilities_of_a_row_add_up_to_one():
    labels = np.array([0, 1, 2] * 20)
    features = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 4))).to_numpy()
    assert linear_model.out_of_fold(features, labels, linear_model.folds(labels)).sum(axis=1) == pytest.approx(
        np.ones(60)
    )
