import math

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from transformers import BertConfig, BertForSequenceClassification, DataCollatorWithPadding, Trainer, TrainingArguments

from ftlab.data import sources
from ftlab.errors import BadInput
from ftlab.models import loading
from ftlab.training.classification import class_weights, require_batches, weighted_cross_entropy


@pytest.mark.parametrize("labels", [[0, 1], [0, 0, 0, 1], [2, 0, 1, 2, 2, 2, 1], [0] * 97 + [1] * 2 + [2]])
def test_class_weights_are_scikit_learn_s_balanced_ones_with_mean_one_over_the_rows(labels):
    classes = max(labels) + 1
    weights = class_weights(labels, classes)
    assert weights == pytest.approx(compute_class_weight("balanced", classes=np.arange(classes), y=labels))
    assert np.mean([weights[label] for label in labels]) == pytest.approx(1)
    totals = [labels.count(label) * weights[label] for label in range(classes)]
    assert totals == pytest.approx([totals[0]] * classes)  # each class counts alike


def test_a_class_without_rows_has_no_weight():
    with pytest.raises(BadInput, match=r"none of class 1,.*of the 3 classes.*without class weights") as raised:
        class_weights([0, 2, 2], 3)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("rows", "batch_size"), [(1, 1), (8, 8), (9, 8)])
def test_a_batch_that_the_rows_fill_is_accepted(rows, batch_size):
    require_batches(rows, batch_size)


@pytest.mark.parametrize(("rows", "batch_size", "better"), [(7, 8, 1), (1500, 1501, 150)])
def test_a_batch_larger_than_the_rows_is_refused_with_both_numbers(rows, batch_size, better):
    with pytest.raises(BadInput) as raised:
        require_batches(rows, batch_size)
    message = str(raised.value)
    assert f"batch_size is {batch_size}, and there are {rows:,} training rows" in message
    assert f"({better})" in message
    assert "\n" not in message


def logits_and_labels():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(12, 3, generator=generator), torch.randint(3, (12,), generator=generator)


def test_with_weights_of_one_it_is_plain_cross_entropy():
    logits, labels = logits_and_labels()
    loss = weighted_cross_entropy([1.0, 1.0, 1.0])({"logits": logits}, labels)
    assert loss.item() == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-6)


def test_each_row_counts_by_the_weight_of_its_class():
    logits, labels = logits_and_labels()
    weights = class_weights(labels.tolist(), 3)
    rows = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    expected = sum(weights[label] * row for label, row in zip(labels.tolist(), rows.tolist(), strict=True)) / 12
    assert weighted_cross_entropy(weights)({"logits": logits}, labels).item() == pytest.approx(expected, rel=1e-6)


def test_half_precision_logits_give_a_loss_in_full_precision():
    logits, labels = logits_and_labels()
    loss = weighted_cross_entropy([0.5, 1.0, 2.0])({"logits": logits.bfloat16()}, labels)
    assert loss.dtype == torch.float32


def distilbert():
    model = loading.encoder("tiny-distilbert", ["negative", "positive"], dropout=0.0, attention_dropout=0.0,
                            seq_classif_dropout=0.0)  # fmt: skip
    model.accepts_loss_kwargs = False
    return model


def bert():
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=len(loading.tokenizer("tiny-distilbert")), hidden_size=32, num_hidden_layers=2,
            num_attention_heads=2, intermediate_size=64, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )
    )  # fmt: skip


def one_step(model, folder, batch_size, times, **options):
    """The model's weights, the loss and the gradient norm of one step over the same 8 rows."""
    tokenizer = loading.tokenizer("tiny-distilbert")
    rows = sources.load("mini_reviews")["train"].select(range(8))
    rows = rows.map(lambda batch: tokenizer(batch["text"], truncation=True, max_length=32), batched=True)
    torch.manual_seed(0)
    trainer = Trainer(
        model=model(),
        args=TrainingArguments(
            output_dir=str(folder), max_steps=1, per_device_train_batch_size=batch_size, optim="sgd", learning_rate=1.0,
            gradient_accumulation_steps=times, train_sampling_strategy="sequential", logging_steps=1,
            save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True,
        ),
        train_dataset=rows,
        data_collator=DataCollatorWithPadding(tokenizer),
        **options,
    )  # fmt: skip
    trainer.train()
    logged = trainer.state.log_history[0]
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}, logged


@pytest.mark.parametrize("model", [distilbert, bert])
def test_accumulation_makes_the_step_of_one_batch_under_class_weights(tmp_path, model):
    loss = weighted_cross_entropy([0.4, 2.5])
    (whole, logged), *cut = [
        one_step(model, tmp_path, size, times, compute_loss_func=loss) for size, times in ((8, 1), (4, 2), (2, 4))
    ]
    for weights, also_logged in cut:
        assert also_logged["loss"] == pytest.approx(logged["loss"], rel=1e-5)
        assert also_logged["grad_norm"] == pytest.approx(logged["grad_norm"], rel=1e-5)
        assert all(torch.allclose(weights[name], whole[name], rtol=1e-5, atol=1e-6) for name in whole)


@pytest.mark.parametrize("model", [distilbert, bert])
def test_a_step_with_weights_of_one_is_the_step_without_weights(tmp_path, model):
    plain, logged = one_step(model, tmp_path, 8, 1)
    weighted, also_logged = one_step(model, tmp_path, 8, 1, compute_loss_func=weighted_cross_entropy([1.0, 1.0]))
    assert also_logged["loss"] == pytest.approx(logged["loss"], rel=1e-6)
    assert all(torch.allclose(weighted[name], plain[name], rtol=1e-5, atol=1e-7) for name in plain)


def test_weights_move_the_step_towards_the_class_that_counts_more(tmp_path):
    towards_first, _ = one_step(distilbert, tmp_path, 8, 1, compute_loss_func=weighted_cross_entropy([2.0, 0.1]))
    towards_second, _ = one_step(distilbert, tmp_path, 8, 1, compute_loss_func=weighted_cross_entropy([0.1, 2.0]))
    leaning = [weights["classifier.bias"][1] - weights["classifier.bias"][0] for weights in
               (towards_first, towards_second)]  # fmt: skip
    assert leaning[0] < 0 < leaning[1]


def test_evaluation_weighs_its_rows_too(tmp_path):
    tokenizer = loading.tokenizer("tiny-distilbert")
    rows = sources.load("mini_reviews")["train"].select(range(10))
    rows = rows.map(lambda batch: tokenizer(batch["text"], truncation=True, max_length=32), batched=True)
    trainer = Trainer(
        model=distilbert(),
        args=TrainingArguments(output_dir=str(tmp_path), report_to="none", disable_tqdm=True, use_cpu=True),
        eval_dataset=rows,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_loss_func=weighted_cross_entropy([2.0, 2.0]),
    )
    assert trainer.evaluate()["eval_loss"] == pytest.approx(2 * math.log(2), rel=0.05)  # nothing is learned yet
