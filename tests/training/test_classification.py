import math

import numpy as np
import pytest
import torch
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    pipeline,
)

from ftlab.data import sources
from ftlab.errors import BadInput
from ftlab.freezing import features, plans
from ftlab.inference import Classifier
from ftlab.memory import footprint
from ftlab.models import batches, loading
from ftlab.training import classification
from ftlab.training.classification import class_weights, require_batches, weighted_cross_entropy
from tests.models.saved_models import save


@pytest.mark.parametrize("labels", [[0, 1], [0, 0, 0, 1], [2, 0, 1, 2, 2, 2, 1], [0] * 97 + [1] * 2 + [2]])
def test_class_weights_are_rows_by_classes_and_rows_of_the_class_with_mean_one_over_the_rows(labels):
    classes = max(labels) + 1
    weights = class_weights(labels, classes)
    assert weights == [len(labels) / (classes * labels.count(label)) for label in range(classes)]
    assert all(type(weight) is float for weight in weights)  # they are written to JSON
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
    """Return the model's weights, the loss and the gradient norm of one step over the same 8 rows."""
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


TINY_DECODERS = ("tiny-gpt2", "tiny-phi")


def fine_tuned(model, folder, **options):
    rows = sources.load("mini_reviews")["train"].select(range(24))
    settings = {"max_length": 48, "epochs": 1, "batch_size": 8, "learning_rate": 1e-3, "least_steps": 1}
    exact = {"precision": {"fp16": False, "bf16": False}}
    return classification.fine_tune(rows, folder, model=model, **{**settings, **exact, **options})


def test_fine_tune_weighs_the_classes_as_it_is_asked_to(tmp_path):
    def shares(**options):
        trainer = fine_tuned("tiny-distilbert", tmp_path, learning_rate=1e-2, **options)
        texts = trainer.processing_class(["a film", "so it goes"])
        return batches.run(trainer.model, trainer.processing_class, texts, batches.softmax)

    first, second = shares(class_weights=[1.9, 0.1]), shares(class_weights=[0.1, 1.9])
    assert (first[:, 0] > second[:, 0] + 0.1).all()
    np.testing.assert_allclose(shares(class_weights=[1.0, 1.0]), shares(), atol=1e-5)


def test_fine_tune_refuses_a_step_that_does_not_fit_if_it_is_asked_to(tmp_path, monkeypatch):
    monkeypatch.setattr(footprint, "free_memory", lambda device: 1000)
    with pytest.raises(BadInput, match=r"training 8 rows of \d+ tokens at a time needs about .* GB"):
        fine_tuned("tiny-distilbert", tmp_path, guard_memory=True)
    fine_tuned("tiny-distilbert", tmp_path)


def left_padded_gpt2(folder):
    """Save a decoder whose tokenizer pads on the left, as for generation."""
    model = loading.causal_lm("tiny-gpt2")
    with torch.no_grad():
        model.transformer.wpe.weight.mul_(20)  # so that a token's position counts
    model.save_pretrained(folder)
    loading.tokenizer("tiny-gpt2").save_pretrained(folder)
    AutoTokenizer.from_pretrained(folder, padding_side="left").save_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder).padding_side == "left"
    return str(folder)


@pytest.mark.parametrize("model", [*TINY_DECODERS, left_padded_gpt2])
def test_a_decoder_learns_to_classify_and_padding_changes_no_answer(model, tmp_path):
    name = model if isinstance(model, str) else model(tmp_path / "left")
    trainer = fine_tuned(name, tmp_path)
    texts = ["a film", "a very long text " * 9, "so it goes", "and another one, of some length, to the end"]
    encodings = trainer.processing_class(texts, truncation=True, max_length=48)
    logits = batches.run(trainer.model, trainer.processing_class, encodings, lambda output, mask: output.logits)
    padded = trainer.data_collator([{"input_ids": ids} for ids in encodings["input_ids"]]).to(trainer.model.device)
    assert (padded["input_ids"] == trainer.model.config.pad_token_id).any()
    with torch.no_grad():
        collated = trainer.model(**padded).logits.cpu()
        alone = torch.cat([
            trainer.model(input_ids=torch.tensor([ids], device=trainer.model.device)).logits.cpu()
            for ids in encodings["input_ids"]
        ])  # fmt: skip
    assert alone.std(dim=0).min() > 0
    torch.testing.assert_close(collated, alone, atol=1e-5, rtol=1e-4)
    np.testing.assert_allclose(logits, alone, atol=1e-5)


@pytest.mark.parametrize("model", TINY_DECODERS)
def test_a_decoder_that_was_fine_tuned_answers_alike_in_its_folder_and_in_a_pipeline(model, tmp_path):
    trainer = fine_tuned(model, tmp_path)
    trainer.save_model(tmp_path / "saved")
    texts = ["a film", "a very long text " * 9, "so it goes"]
    encodings = trainer.processing_class(texts, truncation=True, max_length=48)
    expected = batches.run(trainer.model, trainer.processing_class, encodings, batches.softmax)
    classifier = Classifier(str(tmp_path / "saved"), max_length=48, device="cpu")
    assert classifier.labels == ["negative", "positive"]
    np.testing.assert_allclose(classifier.probabilities(texts), expected, atol=1e-5)
    pipe = pipeline("text-classification", model=str(tmp_path / "saved"), top_k=None, device="cpu", batch_size=3)
    answers = [{one["label"]: one["score"] for one in each} for each in pipe(texts, truncation=True, max_length=48)]
    np.testing.assert_allclose([[each[name] for name in classifier.labels] for each in answers], expected, atol=1e-5)


@pytest.mark.parametrize("policy", ["head", "first_layers", "gradual", "layerwise"])
@pytest.mark.parametrize("model", TINY_DECODERS)
def test_a_decoder_trains_what_a_policy_says(model, policy, tmp_path):
    frozen = 1 if policy == "first_layers" else None
    torch.manual_seed(0)
    before = plans.fingerprints(loading.encoder(model, ["negative", "positive"]))
    plan = plans.freeze(loading.encoder(model, ["negative", "positive"]), policy, frozen)
    trainer = fine_tuned(model, tmp_path, policy=policy, frozen_layers=frozen, epochs=2)
    after = plans.fingerprints(trainer.model)
    assert {name for name in plan.frozen if before[name] != after[name]} == set()
    assert "score.weight" in plan.trained
    assert before["score.weight"] != after["score.weight"]


@pytest.mark.parametrize("model", TINY_DECODERS)
def test_a_decoder_trains_from_stored_features_as_it_does_without_them(model, tmp_path):
    rows = sources.load("mini_reviews")["train"].select(range(24))
    tokenizer, encoder = loading.tokenizer(model), loading.encoder(model, ["negative", "positive"])
    plan = plans.freeze(encoder, "first_layers", 1)
    stored = features.compute(encoder, plan, classification.tokenized(rows, tokenizer, 48), tokenizer)
    options = {"policy": "first_layers", "frozen_layers": 1}
    plain, cached = (fine_tuned(model, tmp_path, **options, **given) for given in ({}, {"features": stored}))
    for (name, one), (_, other) in zip(plain.model.named_parameters(), cached.model.named_parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3, msg=name)


def test_full_fine_tuning_trains_a_model_whose_layers_are_not_found(tmp_path):
    save(tmp_path / "model", "deberta-v2", AutoModel)
    with pytest.raises(BadInput, match="cannot be taken apart"):
        plans.freeze(loading.encoder(str(tmp_path / "model"), ["no", "yes"]), "full")
    rows = sources.load("mini_reviews", most=100)["train"].select(range(16))
    trainer = classification.fine_tune(
        rows, tmp_path / "out", model=str(tmp_path / "model"), max_length=32, epochs=1, batch_size=8,
        learning_rate=1e-3, least_steps=1,
    )  # fmt: skip
    assert trainer.state.global_step == 2
    assert all(parameter.requires_grad for parameter in trainer.model.parameters())
