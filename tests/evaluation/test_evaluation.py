import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, f1_score

from ftlab.data import sources
from ftlab.data.splits import split
from ftlab.evaluation import baselines, comparison, metrics
from ftlab.evaluation.predictions import predict_rows, prediction_table
from ftlab.models import loading


def table(labels, predictions) -> pd.DataFrame:
    ids = [f"r{number}" for number in range(len(labels))]
    return pd.DataFrame({"id": ids, "label": labels, "prediction": predictions})


def test_metrics_need_no_hub_and_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    references, predictions = rng.integers(0, 3, 200), rng.integers(0, 3, 200)
    accuracy = metrics.Accuracy().compute(predictions=predictions, references=references)
    assert accuracy == {"accuracy": accuracy_score(references, predictions)}
    for average in ("macro", "weighted"):
        f1 = metrics.F1().compute(predictions=predictions, references=references, average=average)
        assert f1 == {"f1": f1_score(references, predictions, average=average)}


def test_compute_metrics_reads_logits():
    logits = np.array([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0], [5.0, 0.0]])
    scores = metrics.accuracy_and_f1()((logits, np.array([0, 1, 1, 0])))
    assert scores["accuracy"] == 0.75
    assert scores["f1"] == pytest.approx((0.8 + 2 / 3) / 2)


def test_predictions_keep_their_rows_whatever_the_order_of_the_batches(tmp_path):
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    rows = sources.load("mini_reviews", seed=1)["train"].select(range(50))
    tokenizer = loading.tokenizer("tiny-distilbert")
    tokenized = rows.map(lambda batch: tokenizer(batch["text"], truncation=True, max_length=64), batched=True)
    trainer = Trainer(
        model=loading.encoder("tiny-distilbert", ["negative", "positive"]),
        args=TrainingArguments(
            output_dir=str(tmp_path), per_device_eval_batch_size=7, train_sampling_strategy="group_by_length"
        ),
        data_collator=DataCollatorWithPadding(tokenizer),
    )
    grouped = predict_rows(trainer, rows, tokenized)
    alone = pd.concat(
        predict_rows(trainer, rows.select([index]), tokenized.select([index])) for index in range(len(rows))
    )
    assert grouped["id"].tolist() == rows["id"][:]
    np.testing.assert_allclose(grouped["p_positive"], alone["p_positive"], atol=1e-5)
    assert grouped["p_positive"].nunique() > 40


def test_a_prediction_table_names_labels_and_refuses_another_shape():
    rows = sources.load("mini_reviews")["train"].select(range(2))
    made = prediction_table(rows, np.array([[0.9, 0.1], [0.2, 0.8]]))
    assert made["prediction"].tolist() == ["negative", "positive"]
    assert made["confidence"].tolist() == [0.9, 0.8]
    with pytest.raises(ValueError, match="expected \\(2, 2\\)"):
        prediction_table(rows, np.zeros((2, 3)))


def test_the_interval_holds_the_mean_and_narrows_with_more_rows():
    rng = np.random.default_rng(0)
    few, many = rng.random(100) < 0.8, rng.random(10_000) < 0.8
    narrow, wide = comparison.mean_interval(many.astype(float)), comparison.mean_interval(few.astype(float))
    assert wide.low < wide.value < wide.high
    assert narrow.high - narrow.low < (wide.high - wide.low) / 5
    assert comparison.mean_interval(few.astype(float), seed=0) == wide


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = 0
    for seed in range(60):
        interval = comparison.mean_interval((rng.random(150) < 0.8).astype(float), seed=seed)
        covered += interval.low <= 0.8 <= interval.high
    assert 51 <= covered <= 60  # 95 % of 60 is 57


def test_a_perfect_score_is_not_a_certain_one():
    perfect = comparison.accuracy(table(["a"] * 50, ["a"] * 50))
    assert (perfect.value, perfect.high) == (1.0, 1.0)
    assert 0.9 < perfect.low < 0.95


def test_a_few_disagreements_are_no_clear_difference_though_a_bootstrap_says_so():
    first = table(["a"] * 200, ["a"] * 200)
    second = table(["a"] * 200, ["b"] * 3 + ["a"] * 197)
    result = comparison.compare(first, second)
    assert result.difference.low > 0
    assert result.p_value == pytest.approx(0.25)
    assert not result.clear


def test_a_comparison_is_paired_by_row_and_not_by_place():
    first = table(["a"] * 10, ["a"] * 9 + ["b"])
    second = table(["a"] * 10, ["a"] * 4 + ["b"] * 6)
    shuffled = second.sample(frac=1, random_state=0)
    assert comparison.compare(first, shuffled) == comparison.compare(first, second)
    assert comparison.compare(first, second).difference.value == pytest.approx(0.5)


def test_exact_mcnemar_counts_only_disagreements():
    first = table(["a"] * 20, ["a"] * 15 + ["b"] * 5)
    second = table(["a"] * 20, ["a"] * 10 + ["b"] * 5 + ["b"] * 5)
    result = comparison.compare(first, second)
    assert (result.only_first, result.only_second) == (5, 0)
    assert result.p_value == pytest.approx(2 * 0.5**5)


def test_equal_models_show_no_clear_difference():
    same = table(["a", "b"] * 10, ["a", "a"] * 10)
    result = comparison.compare(same, same)
    assert result.p_value == 1.0
    assert not result.clear
    assert "no clear difference" in str(result)


def test_baselines_stand_in_the_order_of_the_rows_and_beat_nothing_by_magic():
    splits = split(sources.load("mini_reviews"), rows=120, validation_rows=40, test_rows=40)
    majority = baselines.majority(splits.train, splits.validation)
    assert majority["prediction"].nunique() == 1
    assert comparison.accuracy(majority).value == 0.5
    tfidf = baselines.tfidf(splits.train, splits.train)
    assert tfidf["id"].tolist() == splits.train["id"][:]
    assert comparison.accuracy(tfidf).value > 0.9  # it has seen these rows
    pd.testing.assert_frame_equal(tfidf, baselines.tfidf(splits.train, splits.train))


def test_the_report_has_a_line_for_each_class():
    report = comparison.report(table(["a", "a", "b", "b"], ["a", "b", "b", "b"]))
    assert report.loc["a", "recall"] == 0.5
    assert report.loc["b", "precision"] == pytest.approx(2 / 3)
    assert report.loc["b", "support"] == 2
