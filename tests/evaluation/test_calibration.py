import numpy as np
import pandas as pd
import pytest
import sklearn.metrics
import torch
from sklearn.calibration import calibration_curve
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from ftlab.errors import BadInput
from ftlab.evaluation import calibration
from ftlab.evaluation.comparison import correct
from ftlab.models import loading
from tests.evaluation.tables import answers, assert_one_sentence, from_logits
from tests.models.saved_models import config


def simulated(rows=2000, classes=3, *, sureness=1.0, seed=0) -> pd.DataFrame:
    """Labels drawn from probabilities, and answers whose logits are those of these probabilities, times `sureness`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=2, size=(rows, classes))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (rng.random((rows, 1)) > shares.cumsum(axis=1)[:, :-1]).sum(axis=1)
    return from_logits(logits * sureness, labels)


def with_confidence(confidences, right) -> pd.DataFrame:
    labels = ["a" if one else "b" for one in right]
    return answers(labels, ["a"] * len(labels)).assign(confidence=confidences)


# Reliability


def test_a_calibrated_model_has_almost_no_error_and_an_overconfident_one_has_its_gap():
    assert calibration.expected_calibration_error(simulated(40_000)) < 0.01
    assert calibration.expected_calibration_error(simulated(40_000, sureness=3)) > 0.1
    right = np.arange(1000) % 10 < 7
    too_sure = with_confidence([0.93] * 1000, right)
    assert calibration.expected_calibration_error(too_sure) == pytest.approx(0.93 - 0.7)
    assert calibration.expected_calibration_error(too_sure.assign(confidence=0.5)) == pytest.approx(0.7 - 0.5)


def test_the_error_weighs_bins_by_their_rows_and_lets_no_gap_undo_another():
    table = with_confidence([0.9] * 6 + [0.6] * 2, [True, True, True, False, False, False, True, True])
    assert calibration.expected_calibration_error(table) == pytest.approx((6 * 0.4 + 2 * 0.4) / 8)
    assert calibration.expected_calibration_error(table, bins=1) == pytest.approx(abs(6.6 / 8 - 5 / 8))


@pytest.mark.parametrize("bins", [1, 7, 10, 15])
def test_the_bins_are_those_of_scikit_learn(bins):
    table = simulated(500, sureness=2)
    found = calibration.reliability(table, bins=bins)
    accuracy, confidence = calibration_curve(correct(table), table["confidence"], n_bins=bins)
    np.testing.assert_allclose(found["accuracy"], accuracy)
    np.testing.assert_allclose(found["confidence"], confidence)


@pytest.mark.parametrize("bins", [1, 7, 15, 100])
def test_every_row_lies_in_one_bin_that_holds_its_upper_end(bins):
    edges = [upper / bins for upper in range(1, bins + 1)]
    found = calibration.reliability(with_confidence(edges, [True] * bins), bins=bins)
    assert found["rows"].tolist() == [1] * bins
    assert found["high"].tolist() == found["confidence"].tolist() == edges
    assert found["low"].tolist() == [0.0, *edges[:-1]]


def test_bins_without_rows_are_left_out_and_the_rest_add_up():
    found = calibration.reliability(simulated(300, classes=2), bins=10)
    assert found["low"].min() >= 0.5  # the better of two is never below one half
    assert found["rows"].sum() == 300
    assert ((found["low"] < found["confidence"]) & (found["confidence"] <= found["high"])).all()
    assert found["gap"].tolist() == (found["confidence"] - found["accuracy"]).tolist()


def test_a_confidence_a_hair_outside_of_0_to_1_has_a_bin():
    found = calibration.reliability(with_confidence([0.0, 1.0000001], [True, True]), bins=4)
    assert found["low"].tolist() == [0.0, 0.75]


@pytest.mark.parametrize("judge", [calibration.reliability, calibration.expected_calibration_error])
@pytest.mark.parametrize("bins", [0, -3])
def test_there_is_at_least_one_bin(judge, bins):
    with pytest.raises(BadInput) as caught:
        judge(simulated(10), bins=bins)
    assert_one_sentence(caught, f"bins is {bins}", "expected at least 1")


# Temperature


@pytest.mark.parametrize("classes", [2, 4])
def test_the_log_loss_is_that_of_scikit_learn(classes):
    table = simulated(classes=classes)
    shares = table[[f"p_{number}" for number in range(classes)]].to_numpy(dtype=float)
    shares /= shares.sum(axis=1, keepdims=True)
    assert calibration.log_loss(table) == pytest.approx(sklearn.metrics.log_loss(table["label"], shares), abs=1e-6)


def test_the_probability_0_for_what_happened_is_a_large_loss_and_no_infinite_one():
    table = from_logits(np.array([[200.0, 0.0], [1.0, 0.0]]), [1, 0])
    assert table["p_1"].iloc[0] == 0
    assert 40 < calibration.log_loss(table) < 100


@pytest.mark.parametrize("sureness", [0.25, 1.0, 3.0, 8.0])
@pytest.mark.parametrize("classes", [2, 3])
def test_the_temperature_is_what_the_logits_were_multiplied_with(classes, sureness):
    found = calibration.temperature(simulated(10_000, classes, sureness=sureness))
    assert found == pytest.approx(sureness, rel=0.05)  # the labels were drawn
    assert found == pytest.approx(sureness * calibration.temperature(simulated(10_000, classes)), rel=1e-3)


def test_no_other_temperature_has_a_smaller_loss():
    table = simulated(400, sureness=2.5)
    best = calibration.temperature(table)
    least = calibration.log_loss(calibration.scaled(table, best))
    for factor in (0.5, 0.9, 0.99, 1.01, 1.1, 2):
        assert calibration.log_loss(calibration.scaled(table, best * factor)) > least
    assert calibration.temperature(calibration.scaled(table, best)) == pytest.approx(1, abs=1e-3)


def test_scaling_mends_the_error_of_other_rows_that_the_model_answers():
    validation, test = (simulated(4000, sureness=3, seed=seed) for seed in (1, 2))
    mended = calibration.scaled(test, calibration.temperature(validation))
    assert calibration.expected_calibration_error(mended) < 0.03
    assert calibration.log_loss(mended) < calibration.log_loss(test)


def test_a_model_that_is_far_too_sure_is_cooled_down_and_not_heated_up():
    labels = np.zeros(200, dtype=int)
    labels[:10] = 1  # one in twenty is wrong, with a probability that float32 hardly holds
    assert calibration.temperature(from_logits(np.tile([50.0, 0.0], (200, 1)), labels)) == pytest.approx(
        50 / np.log(19), rel=1e-3
    )
    assert calibration.temperature(from_logits(np.tile([70.0, 0.0], (200, 1)), labels)) == pytest.approx(20, rel=1e-3)


@pytest.mark.parametrize("confidence", [0.6, 0.9, 0.999])
def test_answers_that_are_all_right_change_nothing(confidence):
    logits = np.tile([np.log(confidence / (1 - confidence)), 0.0], (50, 1))
    assert calibration.temperature(from_logits(logits, np.zeros(50, dtype=int))) == 1.0


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("temperature", [0.05, 0.7, 4.0, 20.0])
def test_scaling_changes_how_sure_the_answers_are_and_no_answer(classes, temperature):
    table = simulated(classes=classes, sureness=0.5)
    found = calibration.scaled(table, temperature)
    columns = [f"p_{number}" for number in range(classes)]
    pd.testing.assert_frame_equal(found[["id", "label", "prediction"]], table[["id", "label", "prediction"]])
    assert found.columns.tolist() == table.columns.tolist()
    np.testing.assert_allclose(found[columns].sum(axis=1), 1)
    assert found["confidence"].tolist() == found[columns].max(axis=1).tolist()
    assert found[columns].idxmax(axis=1).tolist() == ("p_" + table["prediction"]).tolist()
    surer, less_sure = (found, table) if temperature < 1 else (table, found)
    assert (surer["confidence"] > less_sure["confidence"] - 1e-7).all()
    assert surer["confidence"].mean() > less_sure["confidence"].mean() + 0.01
    if classes == 2:  # of more classes, another row may be the surest afterwards
        in_order = found["confidence"].to_numpy()[table["confidence"].argsort()]
        assert np.diff(in_order).min() > -1e-7


def test_temperature_1_changes_nothing_and_two_temperatures_are_their_product():
    table = simulated(200)
    pd.testing.assert_frame_equal(calibration.scaled(table, 1.0), table, check_dtype=False, atol=1e-6)
    twice = calibration.scaled(calibration.scaled(table, 2.0), 3.0)
    pd.testing.assert_frame_equal(twice, calibration.scaled(table, 6.0))


def test_scaled_probabilities_are_the_softmax_of_the_divided_logits():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(scale=5, size=(100, 4)), rng.integers(0, 4, 100)
    found = calibration.scaled(from_logits(logits, labels), 2.5)
    pd.testing.assert_frame_equal(found, from_logits(logits / 2.5, labels), check_dtype=False, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_is_above_0(temperature):
    model = loading.encoder("tiny-distilbert", ["no", "yes"])
    for use, what in ((calibration.scaled, simulated(5)), (calibration.fold_into_head, model)):
        with pytest.raises(BadInput) as caught:
            use(what, temperature)
        assert_one_sentence(caught, f"the temperature is {temperature}", "expected more than 0")
    assert all(torch.isfinite(weights).all() for weights in model.parameters())


# The model itself

SHAPE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
PLACES = {"vocab_size": 50, "max_position_embeddings": 40}


def bert(labels):
    return BertForSequenceClassification(BertConfig(**SHAPE, **PLACES, num_labels=labels))


def roberta(labels):
    return RobertaForSequenceClassification(RobertaConfig(**SHAPE, **PLACES, num_labels=labels))


def gpt2(labels):
    shape = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 40, "vocab_size": 50}
    ends = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}
    return GPT2ForSequenceClassification(GPT2Config(**shape, **ends, num_labels=labels))


def distilbert(labels):
    return loading.encoder("tiny-distilbert", [f"label {number}" for number in range(labels)])


OTHER_KINDS = ("llama", "phi", "opt", "bloom", "albert", "electra", "deberta-v2", "xlnet")


def of_kind(kind):
    def build(labels):
        return AutoModelForSequenceClassification.from_config(config(kind, num_labels=labels))

    return build


@pytest.mark.parametrize("labels", [2, 5])
@pytest.mark.parametrize("build", [distilbert, bert, roberta, gpt2, *map(of_kind, OTHER_KINDS)])
def test_a_folded_model_answers_as_the_scaled_table(build, labels, tmp_path):
    torch.manual_seed(0)
    model = build(labels).eval()
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if name.endswith("bias"):
                weights.add_(torch.randn_like(weights))  # they begin at 0, where nothing would be seen of them
    ids = torch.randint(3, 50, (8, 12))
    with torch.inference_mode():
        before = model(input_ids=ids).logits
        calibration.fold_into_head(model, 2.5)
        after = model(input_ids=ids).logits
    torch.testing.assert_close(after, before / 2.5)
    expected = calibration.scaled(from_logits(before.numpy(), [0] * 8), 2.5)
    pd.testing.assert_frame_equal(from_logits(after.numpy(), [0] * 8), expected, check_dtype=False, atol=1e-6)

    model.save_pretrained(tmp_path)
    with torch.inference_mode():
        saved = type(model).from_pretrained(tmp_path).eval()(input_ids=ids).logits
    torch.testing.assert_close(saved, after)


def test_only_the_head_is_divided():
    model = distilbert(3)
    before = {name: weights.clone() for name, weights in model.state_dict().items()}
    calibration.fold_into_head(model, 2.0)
    changed = {name for name, weights in model.state_dict().items() if not torch.equal(weights, before[name])}
    assert changed <= {"classifier.weight", "classifier.bias"}
    assert "classifier.weight" in changed


@pytest.mark.parametrize(
    "build",
    [
        lambda: BertModel(BertConfig(**SHAPE, **PLACES)),
        lambda: GPT2LMHeadModel(gpt2(2).config),
        lambda: bert(32).bert,
    ],
)
def test_a_model_without_a_head_for_labels_is_refused(build):
    model = build()
    with pytest.raises(BadInput) as caught:
        calibration.fold_into_head(model, 2.0)
    assert_one_sentence(caught, type(model).__name__, "has 0 linear layers", "give a sequence classifier")


def test_a_head_that_cannot_be_told_from_another_layer_is_refused():
    model = roberta(32)  # as many labels as the layer before has outputs
    with pytest.raises(BadInput) as caught:
        calibration.fold_into_head(model, 2.0)
    assert_one_sentence(caught, "has 2 linear layers with 32 outputs", "expected one")
