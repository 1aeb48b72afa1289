import numpy as np
import pandas as pd
import pytest
import torch
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

from ftlab.data import sources
from ftlab.errors import BadInput
from ftlab.evaluation import comparison
from ftlab.evaluation.predictions import predict_rows, prediction_table
from ftlab.freezing import features, plans
from ftlab.inference import Classifier
from ftlab.models import loading
from tests.evaluation.tables import assert_one_sentence, labelled_rows


@pytest.fixture(scope="module")
def tokenizer():
    return loading.tokenizer("tiny-distilbert")


@pytest.fixture(scope="module")
def rows():
    return sources.load("mini_reviews", seed=1)["train"].select(range(50))


@pytest.fixture(scope="module")
def tokenized(rows, tokenizer):
    return rows.map(lambda batch: tokenizer(batch["text"], truncation=True, max_length=64), batched=True)


@pytest.fixture
def trainer(tokenizer, tmp_path):
    return Trainer(
        model=loading.encoder("tiny-distilbert", ["negative", "positive"]),
        args=TrainingArguments(
            output_dir=str(tmp_path), per_device_eval_batch_size=7, train_sampling_strategy="group_by_length"
        ),
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
    )


def test_predictions_keep_their_rows_whatever_the_order_of_the_batches(trainer, rows, tokenized):
    grouped = predict_rows(trainer, rows, tokenized)
    assert grouped["id"].tolist() == rows["id"][:]
    assert grouped["text"].tolist() == rows["text"][:]
    assert grouped["p_positive"].nunique() > 40
    for place in range(0, 50, 7):
        alone = predict_rows(trainer, rows.select([place]), tokenized.select([place]))
        pd.testing.assert_series_equal(alone.iloc[0], grouped.iloc[place], check_names=False, atol=1e-5)
    turned = predict_rows(trainer, rows.select(range(49, -1, -1)), tokenized.select(range(49, -1, -1)))
    np.testing.assert_allclose(turned["p_positive"][::-1], grouped["p_positive"], atol=1e-5)


def test_predictions_are_the_models_own_without_dropout(trainer, rows, tokenized):
    trainer.model.train()
    found = predict_rows(trainer, rows, tokenized)
    model = trainer.model.eval()
    for place in (0, 17, 49):
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([tokenized[place]["input_ids"]], device=model.device)).logits[0]
        assert found["p_positive"][place] == pytest.approx(logits.softmax(dim=-1)[1].item(), abs=1e-5)


def test_predictions_are_those_of_the_saved_model_though_the_trainer_runs_in_mixed_precision(
    tokenizer, rows, tokenized, tmp_path
):
    torch.manual_seed(0)
    model = loading.encoder("tiny-distilbert", ["negative", "positive"])
    with torch.no_grad():
        model.classifier.weight.mul_(50)  # far enough from one half for rounding to be seen
    model.save_pretrained(tmp_path / "saved")
    options = {"output_dir": str(tmp_path), "report_to": "none", "use_cpu": True}
    mixed, saved = (
        Trainer(
            model=each,
            args=TrainingArguments(bf16=bf16, **options),
            data_collator=DataCollatorWithPadding(tokenizer),
            processing_class=tokenizer,
        )
        for each, bf16 in ((model, True), (type(model).from_pretrained(tmp_path / "saved"), False))
    )
    rows, tokenized = rows.select(range(6)), tokenized.select(range(6))
    rounded = torch.tensor(mixed.predict(tokenized).predictions).softmax(dim=-1)[:, 1].numpy()
    expected = predict_rows(saved, rows, tokenized)["p_positive"]
    assert np.abs(rounded - expected).max() > 1e-4
    np.testing.assert_allclose(predict_rows(mixed, rows, tokenized)["p_positive"], expected, atol=1e-6)


def test_predictions_are_for_the_rows_that_were_tokenized(trainer, rows, tokenized):
    with pytest.raises(BadInput) as caught:
        predict_rows(trainer, rows, tokenized.select(range(49)))
    assert_one_sentence(caught, "49 tokenized rows for 50 rows", "tokenize the rows that you predict")
    with pytest.raises(BadInput) as caught:
        predict_rows(trainer, rows, tokenized.shuffle(seed=0))
    assert_one_sentence(caught, "another order", "tokenize the rows that you predict")
    without_ids = tokenized.remove_columns(["id"])
    assert len(predict_rows(trainer, rows, without_ids)) == 50


def test_a_trainer_without_a_tokenizer_is_told_what_it_lacks(trainer, rows, tokenized):
    trainer.processing_class = None
    with pytest.raises(BadInput) as caught:
        predict_rows(trainer, rows, tokenized)
    assert_one_sentence(caught, "no tokenizer", "processing_class=tokenizer")


def test_a_prediction_table_names_labels_and_keeps_every_probability():
    rows = labelled_rows(["x", "y", "z"], [2, 0, 1], names=["up", "down", "p_side"])
    shares = np.array([[0.2, 0.1, 0.7], [0.4, 0.5, 0.1], [0.3, 0.3, 0.4]])
    made = prediction_table(rows, shares)
    assert made.columns.tolist() == ["id", "text", "label", "prediction", "confidence", "p_up", "p_down", "p_p_side"]
    assert made["id"].tolist() == ["r0", "r1", "r2"]
    assert made["label"].tolist() == ["p_side", "up", "down"]
    assert made["prediction"].tolist() == ["p_side", "down", "p_side"]
    assert made["confidence"].tolist() == [0.7, 0.5, 0.4]
    np.testing.assert_array_equal(made[["p_up", "p_down", "p_p_side"]], shares)


@pytest.mark.parametrize("shape", [(2, 3), (3, 2), (2,), (2, 2, 1)])
def test_probabilities_have_a_line_for_each_row_and_a_column_for_each_label(shape):
    with pytest.raises(BadInput) as caught:
        prediction_table(labelled_rows(["x", "y"], [0, 1]), np.zeros(shape))
    assert_one_sentence(caught, f"the shape {shape}", "expected (2, 2)")


NAMES = ("billing", "delivery", "other")


def test_answers_are_held_against_the_rows_by_the_name_of_the_label_and_not_by_its_number():
    rows = labelled_rows(["a", "b", "c", "d"], [0, 1, 2, 1], names=NAMES)
    turned = ["other", "billing", "delivery"]
    perfect = np.eye(3)[[turned.index(NAMES[label]) for label in rows["label"]]]
    made = prediction_table(rows, perfect, turned)
    assert comparison.accuracy(made).value == 1.0
    assert made["prediction"].tolist() == made["label"].tolist() == ["billing", "delivery", "other", "delivery"]
    np.testing.assert_array_equal(made[[f"p_{name}" for name in NAMES]], np.eye(3)[rows["label"]])
    assert made["confidence"].tolist() == [1.0] * 4


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (["billing", "delivery"], "the rows have the label 'other', and the model knows billing, delivery"),
        (
            ["billing", "delivery", "other", "spam"],
            "the model has the label 'spam', and the rows know billing, delivery",
        ),
        (["LABEL_0", "LABEL_1", "LABEL_2"], "the rows have the label 'billing', and the model knows LABEL_0"),
        (["Billing", "delivery", "other"], "the rows have the label 'billing'"),
        (["billing", "billing", "delivery", "other"], "the probabilities have the shape (2, 4)"),
    ],
)
def test_labels_that_only_the_model_or_only_the_rows_have_are_refused(labels, told):
    rows = labelled_rows(["a", "b"], [0, 1], names=NAMES)
    with pytest.raises(BadInput) as caught:
        prediction_table(rows, np.full((2, len(labels)), 1 / len(labels)), labels)
    assert_one_sentence(caught, told)


def turn_head(model, order):
    """Number the labels of a model in another order; its answers stay."""
    names = [model.config.id2label[number] for number in order]
    with torch.no_grad():
        for tensor in model.classifier.parameters():
            tensor.copy_(tensor[order].clone())
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: number for number, name in enumerate(names)}


def test_a_model_that_numbers_its_labels_otherwise_is_judged_alike(trainer, rows, tokenized, tokenizer, tmp_path):
    expected = predict_rows(trainer, rows, tokenized)
    turn_head(trainer.model, [1, 0])
    pd.testing.assert_frame_equal(predict_rows(trainer, rows, tokenized), expected, atol=1e-6)
    trainer.model.save_pretrained(tmp_path / "turned")
    tokenizer.save_pretrained(tmp_path / "turned")
    desk = Classifier(str(tmp_path / "turned"), max_length=64, device="cpu")
    assert desk.labels == ["positive", "negative"]
    found = prediction_table(rows, desk.probabilities(list(rows["text"])), desk.labels)
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, atol=1e-5)


def test_a_model_with_names_of_its_own_is_not_judged_on_others_and_one_without_names_has_the_rows_own(
    trainer, rows, tokenized
):
    expected = predict_rows(trainer, rows, tokenized)
    trainer.model.config.id2label = {0: "LABEL_0", 1: "LABEL_1"}
    pd.testing.assert_frame_equal(predict_rows(trainer, rows, tokenized), expected, atol=1e-6)
    trainer.model.config.id2label = {0: "ham", 1: "spam"}
    with pytest.raises(BadInput) as caught:
        predict_rows(trainer, rows, tokenized)
    assert_one_sentence(caught, "the rows have the label 'negative', and the model knows ham, spam")


def test_cached_features_of_other_rows_are_refused(trainer, rows, tokenized, tokenizer):
    plan = plans.freeze(trainer.model, "first_layers", 2)
    made = features.compute(trainer.model, plan, tokenized.select(range(12)), tokenizer)
    assert len(predict_rows(trainer, rows.select(range(12)), made)) == 12
    for other in (rows.select(range(11, -1, -1)), rows.select(range(12, 24))):
        with pytest.raises(BadInput, match="the cached features are of other rows, or in another order"):
            predict_rows(trainer, other, made)


def test_a_table_keeps_the_groups_of_its_rows(rows):
    grouped = rows.select(range(4)).add_column("group", ["Ann", "Ann", None, "Bob"])
    kept = prediction_table(grouped, np.full((4, 2), 0.5))["group"]
    assert kept.isna().tolist() == [False, False, True, False]
    assert kept.dropna().tolist() == ["Ann", "Ann", "Bob"]
    assert "group" not in prediction_table(rows.select(range(4)), np.full((4, 2), 0.5))
