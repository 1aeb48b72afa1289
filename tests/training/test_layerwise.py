"""Gradual unfreezing, a learning rate for each layer, and both in one call."""

import gc
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import DataCollatorWithPadding, PrinterCallback, Trainer, TrainerCallback, TrainingArguments, set_seed

from ftlab.data import sources
from ftlab.errors import BadInput
from ftlab.evaluation.predictions import predict_rows
from ftlab.freezing import features, plans
from ftlab.models import devices, loading
from ftlab.training import classification, cpu_speed
from ftlab.training import layerwise as policies
from ftlab.training.cpu_speed import QuickDropout
from tests.models import tiny_classifiers
from tests.models.tiny_classifiers import DEPTH, NAMES, build

FROM_THE_HEAD = ["head", "layer 3", "layer 2", "layer 1", "embeddings"]


@pytest.fixture(scope="module", autouse=True)
def settled():
    """Exclude the objects of the libraries from garbage collection, which Trainer runs after each training."""
    gc.freeze()
    yield
    gc.unfreeze()


def groups_of(model):
    """{parameter's name: its group, counted from the head}; what stands behind the layers goes with the head."""
    places = {part: place for place, part in enumerate(FROM_THE_HEAD)}
    return {name: places.get(part, 0) for name, part in tiny_classifiers.parts_of(model).items()}


def training_groups(model, groups):
    """The groups in which something trains; it must then be all of it."""
    on = {groups[name] for name, parameter in model.named_parameters() if parameter.requires_grad}
    off = {groups[name] for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert not on & off
    return sorted(on)


def thawing(model, steps, over):
    """How many groups train at each of so many steps."""
    callback, groups = policies.GradualUnfreezing(over), groups_of(model)
    callback.on_train_begin(None, SimpleNamespace(global_step=0, max_steps=steps), None, model=model)
    counts = []
    for step in range(steps):
        callback.on_step_begin(None, SimpleNamespace(global_step=step, max_steps=steps), None)
        trains = training_groups(model, groups)
        assert trains == list(range(len(trains)))  # from the head on, without a gap
        counts.append(len(trains))
    callback.on_train_end(None, SimpleNamespace(global_step=steps, max_steps=steps), None)
    assert training_groups(model, groups) == list(range(len(FROM_THE_HEAD)))
    return counts


@pytest.mark.parametrize("name", NAMES)
def test_groups_go_group_by_layer_to_the_embeddings_and_hold_each_parameter_once(name):
    model = build(name)
    expected, names = groups_of(model), {id(tensor): each for each, tensor in model.named_parameters()}
    found = [[names[id(tensor)] for tensor in group] for group in policies.group_by_layer(model)]
    assert {each: place for place, group in enumerate(found) for each in group} == expected
    assert sum(map(len, found)) == len(expected)


@pytest.mark.parametrize("name", NAMES)
def test_layers_thaw_group_by_layer_to_the_embeddings_and_none_freezes_again(name):
    counts = thawing(build(name), steps=16, over=0.5)
    assert counts == sorted(counts)
    assert counts[0] == 1
    assert set(counts) == {1, 2, 3, 4, 5}
    assert counts[8:] == [5] * 8


@pytest.mark.parametrize("over", [0.25, 0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("steps", [40, 97, 200])
def test_layers_thaw_at_like_distances_and_all_train_after_the_share_of_the_steps(over, steps):
    counts = thawing(build("distilbert"), steps, over)
    thaws = [counts.index(number) for number in (1, 2, 3, 4, 5)]
    distances = np.diff(thaws)
    assert distances.min() > 0
    assert distances.max() - distances.min() <= 1
    assert thaws[-1] - 1 < over * steps <= thaws[-1] + 1e-9


def test_no_layer_thaws_a_step_late_for_a_rounded_share():
    assert thawing(build("distilbert"), steps=40, over=0.1)[:5] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("steps", "over"), [(1, 0.5), (2, 0.5), (3, 0.5), (4, 1.0), (10, 0.01)])
def test_with_fewer_steps_than_layers_several_thaw_at_once(steps, over):
    counts = thawing(build("distilbert"), steps, over)
    assert counts == sorted(counts)
    assert counts[0] == 1  # the head is alone for a step at least
    assert all(count == 5 for step, count in enumerate(counts) if step >= over * steps)


class Watched(TrainerCallback):
    """What trained in each step, and the fingerprints behind it."""

    def __init__(self):
        self.trained, self.prints = [], []

    def on_step_begin(self, args, state, control, model=None, **more):
        self.trained.append({name for name, parameter in model.named_parameters() if parameter.requires_grad})

    def on_step_end(self, args, state, control, model=None, **more):
        self.prints.append(plans.fingerprints(model))


@pytest.mark.parametrize(("name", "weight_decay"), [("distilbert", 0.0), ("distilbert", 0.5), ("gpt2", 0.5)])
def test_a_layer_moves_from_the_step_on_at_which_it_thaws_and_not_before(name, weight_decay, tmp_path):
    model, watched, tokenizer = build(name), Watched(), tiny_classifiers.tokenizer()
    plan, groups = plans.freeze(model, "gradual"), groups_of(model)
    before = plans.fingerprints(model)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(tmp_path), max_steps=10, per_device_train_batch_size=8, learning_rate=0.01,
            weight_decay=weight_decay, save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True,
        ),
        train_dataset=tiny_classifiers.reviews(24),
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
        callbacks=[policies.GradualUnfreezing(0.5), watched],
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    assert [len({groups[each] for each in names}) for names in watched.trained] == [1, 1, 2, 3, 4] + [5] * 5
    last = before
    for trained, prints in zip(watched.trained, watched.prints, strict=True):
        assert {each for each in prints if prints[each] != last[each]} == trained
        last = prints
    assert all(parameter.requires_grad for parameter in model.parameters())
    proof = plan.verify(before, plans.fingerprints(model), trainer.optimizer, model)
    assert proof["tensors"].tolist() == [len(before)]


@pytest.mark.parametrize("over", [0, -0.5, 1.01, float("nan"), float("inf")])
def test_a_share_of_the_steps_that_is_none_is_refused(over):
    with pytest.raises(BadInput) as raised:
        policies.GradualUnfreezing(over)
    assert f"over is {over}; expected a share of the steps, more than 0 and at most 1" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", NAMES)
def test_rates_fall_by_the_decay_group_by_layer_to_the_embeddings(name):
    model = build(name)
    found = policies.layerwise_groups(model, learning_rate=2e-3, decay=0.8, weight_decay=0.05)
    names = {id(tensor): each for each, tensor in model.named_parameters()}
    rates = {names[id(tensor)]: group["lr"] for group in found for tensor in group["params"]}
    decays = {names[id(tensor)]: group["weight_decay"] for group in found for tensor in group["params"]}
    assert sum(len(group["params"]) for group in found) == len(rates) == len(names)  # each parameter once
    assert rates == pytest.approx({each: 2e-3 * 0.8**place for each, place in groups_of(model).items()})
    assert min(rates.values()) == pytest.approx(2e-3 * 0.8 ** (DEPTH + 1))
    # Biases and normalisations are the tensors of one dimension.
    assert decays == {each: 0.05 if tensor.dim() > 1 else 0.0 for each, tensor in model.named_parameters()}


@pytest.mark.parametrize("name", NAMES)
def test_a_decay_of_one_is_one_rate(name):
    found = policies.layerwise_groups(build(name), learning_rate=1e-3, decay=1)
    assert {group["lr"] for group in found} == {1e-3}
    assert {group["weight_decay"] for group in found} == {0.01, 0.0}


def test_a_decay_of_one_trains_as_trainer_does(tmp_path):
    weights = []
    for layerwise in (False, True):
        model, tokenizer = build("distilbert"), tiny_classifiers.tokenizer()
        groups = policies.layerwise_groups(model, learning_rate=0.01, decay=1, weight_decay=0.1)
        set_seed(0)
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=str(tmp_path), max_steps=3, per_device_train_batch_size=8, learning_rate=0.01,
                weight_decay=0.1, optim="adamw_torch", save_strategy="no", report_to="none", disable_tqdm=True,
                use_cpu=True,
            ),
            train_dataset=tiny_classifiers.reviews(24),
            data_collator=DataCollatorWithPadding(tokenizer),
            optimizers=(torch.optim.AdamW(groups, lr=0.01) if layerwise else None, None),
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        weights.append(model.state_dict())
    assert all(torch.allclose(weights[0][name], weights[1][name], atol=1e-5) for name in weights[0])


@pytest.mark.parametrize("decay", [0, -0.9, 1.1, float("nan")])
def test_a_decay_that_is_none_is_refused(decay):
    with pytest.raises(BadInput) as raised:
        policies.layerwise_groups(build("distilbert"), learning_rate=1e-3, decay=decay)
    assert str(raised.value) == f"decay is {decay}; expected more than 0 and at most 1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """tiny-distilbert with weights so large that it tells texts apart."""
    torch.manual_seed(0)
    model = loading.encoder("tiny-distilbert", ["negative", "positive"])
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(10)
    model.config.initializer_range *= 10  # a fresh head is drawn as large
    path = tmp_path_factory.mktemp("pretrained") / "classifier"
    model.save_pretrained(path)
    tiny_classifiers.tokenizer().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def settings(folder):
    return {
        "model": str(folder), "max_length": 32, "epochs": 1, "batch_size": 8, "learning_rate": 0.003, "least_steps": 8,
        "precision": {"fp16": False, "bf16": False, "use_cpu": True},
    }  # fmt: skip


@pytest.fixture(scope="module")
def rows():
    return sources.load("mini_reviews")["train"].select(range(32))


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_classifiers.tokenizer()


@pytest.fixture(scope="module")
def tokenized(rows, tokenizer):
    return classification.tokenized(rows, tokenizer, 32)


@pytest.fixture
def encoder(folder):
    return loading.encoder(str(folder), ["negative", "positive"])


def moved(model, pretrained):
    """The names of the tensors that training moved."""
    before, after = plans.fingerprints(pretrained), plans.fingerprints(model)
    return {name for name in after if after[name] != before[name]}


def test_fine_tune_in_pieces_is_fine_tune_on_whole_batches(settings, rows, folder, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path / "still")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    off = {"dropout": 0.0, "attention_dropout": 0.0, "seq_classif_dropout": 0.0}  # which draws for each piece
    (tmp_path / "still" / "config.json").write_text(json.dumps({**config, **off}), encoding="utf-8")
    options = {**settings, "model": str(tmp_path / "still")}
    monkeypatch.setattr(devices, "best_device", lambda: "cpu")
    whole = classification.fine_tune(rows, tmp_path, **options)
    monkeypatch.setattr(cpu_speed, "FP32_TOKENS", 2 * settings["max_length"])
    pieces = classification.fine_tune(rows, tmp_path, **options)
    assert (whole.args.gradient_accumulation_steps, pieces.args.gradient_accumulation_steps) == (1, 4)
    assert whole.state.global_step == pieces.state.global_step == 8
    losses = [trainer.state.log_history[-1]["train_loss"] for trainer in (whole, pieces)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    for name, weight in whole.model.state_dict().items():
        if name.endswith("k_lin.bias"):  # no softmax sees it: its gradient is rounding, which Adam blows up
            continue
        torch.testing.assert_close(pieces.model.state_dict()[name], weight, atol=1e-4, rtol=1e-3)


def test_fine_tune_drops_quickly_and_gives_the_model_its_own_dropout_back(settings, rows, tmp_path, monkeypatch):
    dropped, forward = [], QuickDropout.forward
    monkeypatch.setattr(QuickDropout, "forward", lambda self, values: [dropped.append(self), forward(self, values)][1])
    model = classification.fine_tune(rows, tmp_path, **settings).model
    kinds = {type(module) for module in model.modules() if isinstance(module, torch.nn.Dropout)}
    assert len(dropped) >= 8 * model.config.n_layers
    assert kinds == {torch.nn.Dropout}


@pytest.mark.parametrize(("policy", "frozen_layers"), [("head", None), ("first_layers", 3), ("first_layers", 6)])
def test_fine_tune_on_features_is_fine_tune_without_them(
    policy, frozen_layers, settings, rows, tokenized, tokenizer, encoder, tmp_path
):
    plan = plans.freeze(encoder, policy, frozen_layers)
    made = features.compute(encoder, plan, tokenized, tokenizer)
    options = {**settings, "policy": policy, "frozen_layers": frozen_layers}
    plain = classification.fine_tune(rows, tmp_path, **options)
    cached = classification.fine_tune(rows, tmp_path, **options, features=made)
    assert plain.state.global_step == cached.state.global_step == 8
    expected = predict_rows(plain, rows, tokenized)["p_positive"].to_numpy()
    assert np.ptp(expected) > 0.01
    assert np.abs(predict_rows(cached, rows, tokenized)["p_positive"].to_numpy() - expected).max() < 1e-5
    assert np.abs(predict_rows(cached, rows, made)["p_positive"].to_numpy() - expected).max() < 1e-5
    for trainer in (plain, cached):
        assert moved(trainer.model, encoder) == plan.trained
    assert not list(tmp_path.iterdir())


def test_fine_tune_on_a_part_is_fine_tune_on_its_rows(settings, rows, tokenized, tokenizer, encoder, tmp_path):
    made = features.compute(encoder, plans.freeze(encoder, "head"), tokenized, tokenizer)
    places = [30, 2, 17, 8, 9, 25, 3, 11]
    options = {**settings, "policy": "head", "least_steps": 3}
    plain = classification.fine_tune(rows.select(places), tmp_path, **options)
    cached = classification.fine_tune(rows.select(places), tmp_path, **options, features=made.part(places))
    found = [predict_rows(trainer, rows, tokenized)["p_positive"].to_numpy() for trainer in (plain, cached)]
    assert np.abs(found[0] - found[1]).max() < 1e-5


@pytest.mark.parametrize("policy", ["full", "gradual", "layerwise"])
def test_fine_tune_moves_every_tensor_unless_told_otherwise(policy, settings, rows, tokenized, encoder, tmp_path):
    trainer = classification.fine_tune(rows, tmp_path, **{**settings, "policy": policy, "least_steps": 16})
    assert moved(trainer.model, encoder) == {name for name, _ in encoder.named_parameters()}
    assert all(parameter.requires_grad for parameter in trainer.model.parameters())
    assert predict_rows(trainer, rows, tokenized)["confidence"].between(0.5, 1).all()


def test_fine_tune_thaws_gradually(settings, rows, tmp_path):
    trainer = classification.fine_tune(rows, tmp_path, **{**settings, "policy": "gradual", "least_steps": 16})
    state = trainer.optimizer.state
    taken = [{int(state[tensor]["step"]) for tensor in group} for group in policies.group_by_layer(trainer.model)]
    assert taken == [{16}, {14}, {13}, {12}, {11}, {10}, {9}, {8}]  # the head, 6 layers, the embeddings


def test_fine_tune_with_layerwise_rates_keeps_them_through_the_schedule(settings, rows, tmp_path):
    trainer = classification.fine_tune(rows, tmp_path, **{**settings, "policy": "layerwise", "least_steps": 4})
    first = sorted({group["initial_lr"] for group in trainer.optimizer.param_groups}, reverse=True)
    assert first == pytest.approx([0.003 * 0.9**place for place in range(8)])  # the head, 6 layers, the embeddings
    held = {id(tensor) for group in trainer.optimizer.param_groups for tensor in group["params"]}
    assert held == {id(parameter) for parameter in trainer.model.parameters()}


def test_fine_tune_tells_a_policy_that_cannot_be(settings, rows, tmp_path):
    with pytest.raises(BadInput, match="frozen_layers is 7; DistilBertForSequenceClassification has 6 layers"):
        classification.fine_tune(rows, tmp_path, **settings, policy="first_layers", frozen_layers=7)
    with pytest.raises(BadInput, match="no policy 'some'"):
        classification.fine_tune(rows, tmp_path, **settings, policy="some")


@pytest.mark.parametrize(("policy", "frozen_layers"), [("full", None), ("first_layers", 2), ("first_layers", 4)])
def test_fine_tune_refuses_features_of_another_plan(
    policy, frozen_layers, settings, rows, tokenized, tokenizer, encoder, tmp_path
):
    plan = plans.freeze(encoder, "first_layers", 3)
    made = features.compute(encoder, plan, tokenized, tokenizer)
    options = {**settings, "policy": policy, "frozen_layers": frozen_layers, "least_steps": 1}
    with pytest.raises(BadInput):
        classification.fine_tune(rows, tmp_path, **options, features=made)


def test_fine_tune_refuses_features_of_other_rows(settings, rows, tokenized, tokenizer, encoder, tmp_path):
    made = features.compute(encoder, plans.freeze(encoder, "head"), tokenized, tokenizer)
    options = {**settings, "policy": "head", "least_steps": 1}
    with pytest.raises(BadInput):
        classification.fine_tune(rows.select(range(8)), tmp_path, **options, features=made)
