"""Feature caching: stored features equal what the frozen layers compute, and are never used for anything else."""

import copy
import dataclasses
import errno
import functools
import gc
import json
import os
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    ConvBertConfig,
    ConvBertForSequenceClassification,
    DataCollatorWithPadding,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    set_seed,
)

from ftlab import files
from ftlab.errors import BadInput, CourseError
from ftlab.evaluation.predictions import predict_rows
from ftlab.freezing import features, plans, replacement, store
from ftlab.models import batches
from tests.models import tiny_classifiers
from tests.models.tiny_classifiers import WIDTH, build

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ("distilbert", "bert", "roberta", "gpt2")
CLOSE = 1e-5


@pytest.fixture(scope="module", autouse=True)
def settled():
    """Trainer collects garbage after each training; objects of the libraries need not be scanned each time."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_classifiers.tokenizer()


@pytest.fixture(scope="module")
def rows():
    return tiny_classifiers.reviews(24)


@pytest.fixture
def model():
    return build("distilbert").eval()


@pytest.fixture
def plan(model):
    return plans.freeze(model, "first_layers", 2)


@pytest.fixture
def made(model, plan, rows, tokenizer):
    return features.compute(model, plan, rows, tokenizer)


def assert_one_sentence(raised, *shown):
    message = str(raised.value)
    assert "\n" not in message
    for words in shown:
        assert words in message


def uncached(model, rows, tokenizer):
    return batches.run(model, tokenizer, rows.to_dict(), batches.softmax)


def train(model, rows, collate, tokenizer, folder, **options):
    """A Trainer after 3 epochs of 24 rows with dropout, in batches of like length."""
    set_seed(0)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(folder), num_train_epochs=3, per_device_train_batch_size=8, learning_rate=0.01,
            train_sampling_strategy="group_by_length", logging_steps=1, save_strategy="no", report_to="none",
            disable_tqdm=True, use_cpu=True, remove_unused_columns="place" not in rows.column_names, **options,
        ),
        train_dataset=rows,
        data_collator=collate,
        processing_class=tokenizer,
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return trainer


def losses(trainer):
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


def both_trainings(model, plan, rows, tokenizer, folder, **options):
    """The same training without features and with them: (trainer, proof, rows to predict) of each."""
    for cached in (False, True):
        one = copy.deepcopy(model)
        made = features.compute(one, plan, rows, tokenizer, precision=options) if cached else None
        before = plans.fingerprints(one)
        with made.in_place(one) if cached else nullcontext():
            given, collate = (made.rows, made.collate) if cached else (rows, DataCollatorWithPadding(tokenizer))
            trainer = train(one, given, collate, tokenizer, folder, **options)
        proof = plan.verify(before, plans.fingerprints(one), trainer.optimizer, one)
        yield trainer, proof, made if cached else rows


@pytest.mark.parametrize(("policy", "frozen_layers"), [("first_layers", n) for n in (1, 2, 3)] + [("head", None)])
@pytest.mark.parametrize("name", NAMES)
def test_training_on_features_is_training_without_them(name, policy, frozen_layers, rows, tokenizer, tmp_path):
    model = build(name)
    plan = plans.freeze(model, policy, frozen_layers)
    (plain, proof, _), (cached, also, made) = both_trainings(model, plan, rows, tokenizer, tmp_path)
    assert len(losses(plain)) == 9
    assert max(losses(plain)) - min(losses(plain)) > 0.01
    assert np.abs(np.subtract(losses(plain), losses(cached))).max() < CLOSE
    assert proof["tensors"].tolist() == also["tensors"].tolist()
    assert proof["tensors"].sum() == 2 * len(plan.frozen) + len(plan.trained)
    expected = uncached(plain.model, rows, tokenizer)
    assert np.ptp(expected[:, 0]) > 0.01
    assert np.abs(expected - uncached(cached.model, rows, tokenizer)).max() < CLOSE
    assert np.abs(expected - made.run(cached.model, batches.softmax)).max() < CLOSE


@pytest.mark.parametrize("name", ["distilbert", "gpt2"])
def test_in_bf16_features_are_what_training_in_bf16_computes(name, rows, tokenizer, tmp_path):
    model = build(name)
    plan = plans.freeze(model, "first_layers", 2)
    (plain, *_), (cached, *_) = both_trainings(model, plan, rows, tokenizer, tmp_path, bf16=True)
    assert np.abs(np.subtract(losses(plain), losses(cached))).max() < 1e-3  # the batch's shape may round otherwise


def test_dropout_behind_the_features_is_on(model, plan, made, tokenizer):
    batch = made.collate([made.rows[place] for place in range(4)])
    with made.in_place(model.train()), torch.no_grad():
        assert not torch.equal(model(**batch).logits, model(**batch).logits)


def test_predictions_from_features_are_a_table_of_their_rows(model, made, rows, tokenizer, tmp_path):
    trainer = Trainer(
        model=model, args=TrainingArguments(output_dir=str(tmp_path), use_cpu=True), processing_class=tokenizer
    )
    plain, cached = predict_rows(trainer, rows, rows), predict_rows(trainer, rows, made)
    assert cached["id"].tolist() == rows["id"][:]
    chances = [name for name in plain if name.startswith("p_")]
    assert np.abs(plain[chances] - cached[chances]).to_numpy().max() < CLOSE


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("frozen_layers", [1, 2, 3])
def test_features_are_the_hidden_states_behind_the_last_frozen_layer(name, frozen_layers, rows, tokenizer):
    model = build(name).eval()
    made = features.compute(model, plans.freeze(model, "first_layers", frozen_layers), rows, tokenizer)
    assert made.values.dtype == np.float32
    assert made.values.shape == (sum(map(len, rows["input_ids"])), WIDTH)
    assert made.bytes == made.values.nbytes
    assert len(made) == len(rows)
    seen = []
    plans.structure(model).layers[frozen_layers - 1].register_forward_hook(lambda *call: seen.append(call[2]))
    for place, row in enumerate(rows):
        with torch.no_grad():
            model(input_ids=torch.tensor([row["input_ids"]]))
        start, length = made.starts[place], made.lengths[place]
        assert length == len(row["input_ids"])
        assert np.abs(made.values[start : start + length] - seen.pop()[0].numpy()).max() < CLOSE


def test_the_longest_rows_lie_first_and_no_token_lies_twice(made):
    order = np.argsort(made.starts)
    assert (np.diff(made.lengths[order]) <= 0).all()
    assert (made.starts[order] == np.cumsum(made.lengths[order]) - made.lengths[order]).all()


@pytest.mark.parametrize("mode", [True, False])
def test_computing_leaves_the_model_as_it_was_and_draws_no_random_number(model, plan, rows, tokenizer, mode):
    model.train(mode)
    modes, state = [module.training for module in model.modules()], torch.get_rng_state()
    before = uncached(copy.deepcopy(model), rows, tokenizer)
    features.compute(model, plan, rows, tokenizer)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks or "forward" in vars(module) for module in model.modules())
    assert np.array_equal(uncached(model, rows, tokenizer), before)


def calls(model):
    """A counter for each layer: how often something inside it ran."""
    counts = {}
    for number, layer in enumerate(plans.structure(model).layers, start=1):
        for inner in layer.children():
            inner.register_forward_hook(lambda *_, n=number: counts.__setitem__(n, counts.get(n, 0) + 1))
    return counts


@pytest.mark.parametrize("name", NAMES)
def test_frozen_layers_do_not_run_inside_the_block_and_run_again_behind_it(name, rows, tokenizer):
    model = build(name).eval()
    made = features.compute(model, plans.freeze(model, "first_layers", 2), rows, tokenizer)
    counts = calls(model)
    batch = made.collate([made.rows[0]])
    with made.in_place(model) as inside:
        assert inside is model
        counts.clear()
        model(**batch)
    assert counts.keys() == {3}
    batch.pop("features")
    model(**batch)
    assert counts.keys() == {1, 2, 3}


@pytest.mark.parametrize("name", tiny_classifiers.NAMES)
def test_what_hands_over_to_the_layers_does_not_run_inside_the_block_either(name, rows, tokenizer):
    model = build(name).eval()
    made = features.compute(model, plans.freeze(model, "first_layers", 2), rows, tokenizer)
    entrance = replacement.input_module(model.base_model, plans.structure(model).layers)
    outputs, ran = [], []
    batch = made.collate([made.rows[0]])
    with made.in_place(model):
        entrance.register_forward_hook(lambda _, __, output: outputs.append(output))
        for inner in entrance.children():
            inner.register_forward_hook(lambda module, *_: ran.append(module))
        model(**batch)
    assert outputs[0] is batch["features"]
    assert ran == []


@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_changes_what_its_embeddings_give_takes_features_in_its_first_layer(
    name, rows, tokenizer, monkeypatch
):
    model = build(name).eval()
    made = features.compute(model, plans.freeze(model, "first_layers", 2), rows, tokenizer)
    expected = uncached(model, rows, tokenizer)
    monkeypatch.setattr(replacement, "input_module", lambda *_: None)
    assert np.abs(made.run(model, batches.softmax) - expected).max() < CLOSE
    assert np.array_equal(uncached(model, rows, tokenizer), expected)


def test_what_is_stored_counts_and_not_what_the_frozen_layers_hold(model, made, rows, tokenizer):
    expected = uncached(model, rows, tokenizer)
    for layer in plans.structure(model).layers[:2]:
        for parameter in layer.parameters():
            parameter.data.fill_(float("nan"))
    assert np.abs(made.run(model, batches.softmax) - expected).max() < CLOSE
    turned = dataclasses.replace(made, values=-made.values)
    assert np.abs(turned.run(model, batches.softmax) - expected).max() > 0.01


def interrupted_inside(model, made):
    with made.in_place(model):
        model(**made.collate([made.rows[0]]))
        raise KeyboardInterrupt


@pytest.mark.parametrize("name", NAMES)
def test_after_the_block_the_model_computes_as_before_even_after_an_interrupt(name, rows, tokenizer):
    model = build(name).eval()
    plan = plans.freeze(model, "first_layers", 2)
    made = features.compute(model, plan, rows, tokenizer)
    before = uncached(model, rows, tokenizer)
    with made.in_place(model):
        pass
    assert np.array_equal(uncached(model, rows, tokenizer), before)
    with pytest.raises(KeyboardInterrupt):
        interrupted_inside(model, made)
    assert np.array_equal(uncached(model, rows, tokenizer), before)
    assert not any(module._forward_pre_hooks or "forward" in vars(module) for module in model.modules())


def test_inside_the_block_the_weights_have_their_names_and_are_saved_under_them(model, made, rows, tokenizer, tmp_path):
    names = list(model.state_dict())
    expected = uncached(model, rows, tokenizer)
    with made.in_place(model):
        assert list(model.state_dict()) == names
        assert [name for name, _ in model.named_parameters()] == list(plans.fingerprints(model))
        model.save_pretrained(tmp_path / "saved")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert plans.fingerprints(loaded) == plans.fingerprints(model)
    assert np.array_equal(uncached(loaded, rows, tokenizer), expected)


def test_a_batch_without_features_is_refused_inside_the_block(model, made):
    batch = made.collate([made.rows[0]])
    batch.pop("features")
    with pytest.raises(BadInput) as raised, made.in_place(model):
        model(**batch)
    assert_one_sentence(raised, "this batch has no features", "rows and collate of one Features", "leave the block")
    assert model(**batch).logits.isfinite().all()


def parts_by_themselves(model, rows):
    """The outputs of a model's body, its first layer and its own `forward` for two rows, called directly."""
    ids = torch.tensor([row["input_ids"][:5] for row in rows])
    hidden = torch.linspace(-1, 1, ids.numel() * WIDTH).reshape(*ids.shape, WIDTH)
    layer = plans.structure(model).layers[0]
    with torch.no_grad():
        return [
            model.base_model(input_ids=ids)[0],
            (layer.mlp if hasattr(layer, "mlp") else layer)(hidden),  # Llama's and Phi's whole layer asks for positions
            model.get_input_embeddings()(ids),
            model.forward(input_ids=ids).logits,
        ]


@pytest.mark.parametrize("when", ["before a batch", "after a batch", "after a batch that failed"])
@pytest.mark.parametrize("name", tiny_classifiers.NAMES)
def test_a_part_that_is_called_by_itself_computes_from_its_own_input_and_never_from_a_batch_s(
    name, when, rows, tokenizer
):
    model = build(name).eval()
    made = features.compute(model, plans.freeze(model, "first_layers", 2), rows, tokenizer)
    batch, others = made.collate([made.rows[0], made.rows[1]]), [made.rows[2], made.rows[3]]
    expected = parts_by_themselves(model, others)
    with made.in_place(model), torch.no_grad():
        answer = model(**batch).logits if when != "before a batch" else None
        if when == "after a batch that failed":
            with pytest.raises(TypeError):
                model(**batch, no_such_input=1, input_ids=1)
            with pytest.raises(BadInput):
                model(**{**batch, "features": batch["features"][:, :1]})
        for found, one in zip(parts_by_themselves(model, others), expected, strict=True):
            assert torch.equal(found, one)
        assert answer is None or torch.equal(model(**batch).logits, answer)


def test_features_can_be_computed_and_layers_frozen_anew_inside_the_block(model, plan, made, rows, tokenizer):
    with made.in_place(model):
        model(**made.collate([made.rows[0]]))
        assert np.array_equal(features.compute(model, plan, rows, tokenizer).values, made.values)
        assert plans.freeze(model, "first_layers", 2) == plan


def gradients(model, batches_of_rows, backward_at_once):
    model.zero_grad()
    losses = []
    for batch in batches_of_rows:
        losses.append(model(**batch).loss)
        if not backward_at_once:
            losses.pop().backward()
    if losses:
        sum(losses).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("checkpointing", [None, True, False], ids=["kept", "reentrant", "not reentrant"])
@pytest.mark.parametrize("backward_at_once", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_without_features_however_they_are_accumulated_or_checkpointed(
    name, backward_at_once, checkpointing, rows, tokenizer
):
    model = build(name, **{key: 0.0 for key in vars(build(name).config) if key.endswith(("dropout", "pdrop", "_prob"))})
    made = features.compute(model, plans.freeze(model, "first_layers", 2), rows, tokenizer)
    model.train()
    if checkpointing is not None:
        model.activation_checkpointing_enable({"use_reentrant": checkpointing})
        model.enable_input_require_grads()
    stored = [made.collate([made.rows[place] for place in places]) for places in ([0, 1], [2, 3], [4, 5])]
    plain = [{key: value for key, value in batch.items() if key != "features"} for batch in stored]
    expected = gradients(model, plain, backward_at_once)
    with made.in_place(model):
        found = gradients(model, stored, backward_at_once)
    assert found.keys() == expected.keys()
    assert all(torch.allclose(found[key], expected[key], atol=CLOSE) for key in expected)


def test_passes_in_threads_take_each_its_own_features(model, made):
    """As under DataParallel, whose copies of a model share its hooks."""
    batches_of_rows = [made.collate([made.rows[place]]) for place in range(4)]
    together = threading.Barrier(len(batches_of_rows), timeout=10)
    with made.in_place(model), torch.no_grad():
        expected = [model(**batch).logits for batch in batches_of_rows]
        hook = replacement.input_module(model.base_model, plans.structure(model).layers).register_forward_pre_hook(
            lambda *_: together.wait() and None
        )
        with ThreadPoolExecutor(len(batches_of_rows)) as pool:
            found = list(pool.map(lambda batch: answer_in_a_thread(model, batch), batches_of_rows))
        hook.remove()
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def answer_in_a_thread(model, batch):
    with torch.no_grad():
        return model(**batch).logits


def test_a_second_run_of_the_body_in_one_pass_is_refused(model, made):
    batch, other = made.collate([made.rows[0]]), made.collate([made.rows[1]])
    hook = model.pre_classifier.register_forward_hook(
        lambda *_: model.base_model(input_ids=other["input_ids"]) and None
    )
    with made.in_place(model):
        with pytest.raises(BadInput) as raised:
            model(**batch)
        hook.remove()
        assert model(**batch).logits.isfinite().all()
    assert_one_sentence(raised, "were called a second time", "train without features")


def test_features_of_other_rows_than_the_batch_s_are_refused(model, made):
    one, other = (made.collate([made.rows[place]]) for place in np.argsort(made.lengths)[[0, -1]])
    with pytest.raises(BadInput) as raised, made.in_place(model):
        model(**{**one, "features": other["features"]})
    assert_one_sentence(raised, f"1 rows of {made.lengths.min()} tokens", f"1 rows of {made.lengths.max()} tokens")


def test_a_batch_that_does_not_begin_with_ids_is_refused(rows, tokenizer):
    model = build("llama").eval()
    made = features.compute(model, plans.freeze(model, "first_layers", 2), rows, tokenizer)
    batch = made.collate([made.rows[0]])
    del batch["input_ids"]
    with pytest.raises(BadInput) as raised, made.in_place(model):
        model(**batch, inputs_embeds=torch.zeros_like(batch["features"]))
    assert_one_sentence(raised, "did not begin with its input_ids", "as collate made it")


def test_a_copy_made_inside_the_block_takes_features_there_and_computes_for_itself_behind_it(
    model, made, rows, tokenizer
):
    batch = made.collate([made.rows[0]])
    with made.in_place(model), torch.no_grad():
        twin = copy.deepcopy(model)
        assert torch.equal(twin(**batch).logits, model(**batch).logits)
    before = uncached(model, rows, tokenizer)
    assert np.array_equal(uncached(twin, rows, tokenizer), before)
    with torch.no_grad():
        plans.structure(twin).layers[0].ffn.lin1.weight.zero_()
    assert np.abs(uncached(twin, rows, tokenizer) - before).max() > CLOSE
    assert np.array_equal(uncached(model, rows, tokenizer), before)


def test_a_forward_that_a_library_gave_a_frozen_layer_is_there_again_behind_the_block(model, made, rows, tokenizer):
    layer = plans.structure(model).layers[1]
    own = layer.forward = functools.partial(type(layer).forward, layer)
    before = uncached(model, rows, tokenizer)
    with made.in_place(model):
        model(**made.collate([made.rows[0]]))
    assert layer.forward is own
    assert np.array_equal(uncached(model, rows, tokenizer), before)


def test_rows_whose_place_trainer_dropped_are_refused_with_the_argument_that_keeps_it(model, made, tokenizer, tmp_path):
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none", disable_tqdm=True)
    with pytest.raises(BadInput) as raised, made.in_place(model):
        Trainer(model=model, args=arguments, train_dataset=made.rows, data_collator=made.collate).train()
    assert_one_sentence(raised, "remove_unused_columns=False")


def test_a_batch_is_the_plain_one_with_the_features_of_its_rows_and_zeros_behind_them(made, rows, tokenizer):
    places = [5, 0, 17, 9]
    batch = made.collate([made.rows[place] for place in places])
    columns = ["input_ids", "attention_mask", "label"]
    plain = DataCollatorWithPadding(tokenizer)([rows.select_columns(columns)[place] for place in places])
    found = batch.pop("features")
    assert batch.keys() == plain.keys() == {"input_ids", "attention_mask", "labels"}
    assert all(torch.equal(batch[name], plain[name]) for name in plain)
    assert found.shape == (*plain["input_ids"].shape, WIDTH)
    assert torch.equal(found.abs().sum(dim=-1) > 0, plain["attention_mask"].bool())
    for line, place in zip(found, places, strict=True):
        start, length = made.starts[place], made.lengths[place]
        assert np.array_equal(line[:length], made.values[start : start + length])


def test_token_types_are_part_of_what_is_computed(rows, tokenizer):
    model = build("bert").eval()
    plan = plans.freeze(model, "first_layers", 2)
    halves = [[0] * (len(ids) // 2) + [1] * (len(ids) - len(ids) // 2) for ids in rows["input_ids"]]
    typed = rows.add_column("token_type_ids", halves)
    found = features.compute(model, plan, typed, tokenizer).run(model, batches.softmax)
    assert np.abs(found - uncached(model, typed, tokenizer)).max() < CLOSE
    assert np.abs(found - uncached(model, rows, tokenizer)).max() > 1e-3


@pytest.mark.parametrize("label", ["label", "labels", None])
def test_rows_carry_what_the_model_takes_and_their_label_and_no_more(model, plan, rows, tokenizer, label):
    given = rows.remove_columns("label")
    if label:
        given = given.add_column(label, rows["label"][:])
    made = features.compute(model, plan, given, tokenizer)
    assert {*made.rows.column_names} == {"attention_mask", "input_ids", "place", "id", *([label] if label else [])}
    batch = made.collate([made.rows[3]])
    assert ("labels" in batch) == (label is not None)
    if label:
        assert batch["labels"].tolist() == [rows["label"][3]]


@pytest.mark.parametrize(
    "places", [range(23, -1, -1), [7], [3, 3, 20], np.random.default_rng(0).permutation(24).tolist(), [0, 12, 5]]
)
def test_a_part_keeps_rows_and_features_together_in_any_order(model, made, rows, tokenizer, places):
    whole = made.run(model, batches.softmax)
    part = made.part(places)
    assert len(part) == len(places)
    assert part.rows["input_ids"][:] == [rows["input_ids"][place] for place in places]
    assert part.rows["label"][:] == [rows["label"][place] for place in places]
    assert np.abs(part.run(model, batches.softmax) - whole[list(places)]).max() < CLOSE
    assert part.values is made.values  # nothing is copied
    again = part.part([len(part) - 1, 0])
    assert np.abs(again.run(model, batches.softmax) - whole[[places[-1], places[0]]]).max() < CLOSE


def test_features_in_memory_memory_mapped_and_in_a_folder_are_the_same(model, plan, made, rows, tokenizer, tmp_path):
    size = made.values.nbytes
    assert not isinstance(made.values, np.memmap)
    assert not isinstance(features.compute(model, plan, rows, tokenizer, memory=size).values, np.memmap)
    mapped = features.compute(model, plan, rows, tokenizer, memory=size - 1)
    stored = features.compute(model, plan, rows, tokenizer, folder=tmp_path / "features")
    assert (tmp_path / "features" / store.VALUES).stat().st_size == size
    for other in (mapped, stored):
        assert isinstance(other.values, np.memmap)
        assert np.array_equal(other.values, made.values)
        assert np.array_equal(other.starts, made.starts)
        assert np.array_equal(other.lengths, made.lengths)
        assert (other.dtype, other.frozen_layers, other.bytes) == (made.dtype, made.frozen_layers, made.bytes)
        assert other.rows.to_dict() == made.rows.to_dict()
        assert np.array_equal(other.run(model, batches.softmax), made.run(model, batches.softmax))


def test_memory_mapped_features_leave_the_disk_with_the_last_that_reads_them(
    model, plan, rows, tokenizer, tmp_path, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    mapped = features.compute(model, plan, rows, tokenizer, memory=0)
    expected = mapped.run(model, batches.softmax)
    part = mapped.part(range(4))
    del mapped
    gc.collect()
    assert np.abs(part.run(model, batches.softmax) - expected[:4]).max() < CLOSE
    assert len(list(tmp_path.iterdir())) == 1
    del part
    gc.collect()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def folder(tmp_path, model, plan, rows, tokenizer):
    """A folder with the features of 2 layers of `model` for `rows`."""
    features.compute(model, plan, rows, tokenizer, folder=tmp_path / "features")
    return tmp_path / "features"


def contents(folder):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_a_folder_is_read_the_second_time_and_nothing_is_computed(folder, made, rows, tokenizer):
    before = contents(folder)
    another = build("distilbert").train()  # with the same weights, as on another day
    plan = plans.freeze(another, "first_layers", 2)
    counts = calls(another)
    found = features.compute(another, plan, rows, tokenizer, folder=folder)
    assert counts == {}
    assert contents(folder) == before
    assert np.array_equal(found.values, made.values)
    assert {path.name for path in folder.parent.iterdir()} == {folder.name}


def test_a_folder_serves_another_head_and_other_labels(folder, made, rows, tokenizer):
    another = build("distilbert")
    plan = plans.freeze(another, "first_layers", 2)
    another.classifier.weight.data.mul_(2)
    plans.structure(another).layers[2].ffn.lin1.weight.data.mul_(2)
    flipped = rows.map(lambda row: {"label": 1 - row["label"]})
    found = features.compute(another, plan, flipped, tokenizer, folder=folder)
    assert np.array_equal(found.values, made.values)
    assert found.rows["label"][:] == flipped["label"][:]


def other_texts(model, plan, rows):
    return model, plan, tiny_classifiers.reviews(24, start=24), {}


def other_order(model, plan, rows):
    return model, plan, rows.select(range(23, -1, -1)), {}


def fewer_rows(model, plan, rows):
    return model, plan, rows.remove_columns("text").select(range(23)), {}


def other_tokens(model, plan, rows):
    return model, plan, rows.map(lambda row: {"input_ids": [*row["input_ids"][:-1], 5]}), {}


def other_mask(model, plan, rows):
    return model, plan, rows.map(lambda row: {"attention_mask": [*row["attention_mask"][:-1], 0]}), {}


def other_max_length(model, plan, rows):
    return model, plan, tiny_classifiers.reviews(24, max_length=16), {}


def other_weights(model, plan, rows):
    another = build("distilbert", seed=1)
    return another, plans.freeze(another, "first_layers", 2), rows, {}


def one_other_bit(model, plan, rows):
    model.distilbert.embeddings.LayerNorm.bias.data.view(torch.int32)[0] ^= 1
    return model, plan, rows, {}


def other_architecture(model, plan, rows):
    another = build("bert")
    return another, plans.freeze(another, "first_layers", 2), rows, {}


def more_layers(model, plan, rows):
    return model, plans.freeze(model, "first_layers", 3), rows, {}


def fewer_layers(model, plan, rows):
    return model, plans.freeze(model, "first_layers", 1), rows, {}


def other_precision(model, plan, rows):
    return model, plan, rows, {"precision": {"bf16": True}}


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        (other_texts, ["texts: "]),
        (other_order, ["texts: "]),
        (fewer_rows, ["texts: ", "unknown"]),
        (other_tokens, ["tokens: "]),
        (other_mask, ["tokens: "]),
        (other_max_length, ["longest row (see max_length): 32 tokens", "has 16 tokens"]),
        (other_weights, ["model: DistilBertForSequenceClassification, weights "]),
        (one_other_bit, ["model: DistilBertForSequenceClassification, weights "]),
        (other_architecture, ["model: DistilBertForSequenceClassification", "has BertForSequenceClassification"]),
        (more_layers, []),
        (fewer_layers, []),
        (other_precision, ["precision: fp32", "has bf16"]),
    ],
)
def test_a_folder_of_other_features_is_refused_with_the_difference(folder, model, plan, rows, tokenizer, change, shown):
    before = contents(folder)
    model, plan, rows, options = change(model, plan, rows)
    with pytest.raises(BadInput) as raised:
        features.compute(model, plan, rows, tokenizer, folder=folder, **options)
    assert_one_sentence(raised, str(folder), "were made with", "remove that folder or choose another", *shown)
    assert contents(folder) == before


@pytest.mark.parametrize(("change", "layers"), [(more_layers, 3), (fewer_layers, 1)])
def test_a_folder_of_another_number_of_frozen_layers_is_refused_with_both_numbers(
    folder, model, plan, rows, tokenizer, change, layers
):
    model, plan, rows, _ = change(model, plan, rows)
    with pytest.raises(BadInput) as raised:
        features.compute(model, plan, rows, tokenizer, folder=folder)
    assert_one_sentence(raised, "frozen layers: 2", f"has {layers}")


@pytest.mark.parametrize("setting", [{"n_heads": 4}, {"activation": "relu"}])
def test_a_folder_of_a_model_that_computes_otherwise_with_the_same_weights_is_refused(folder, rows, tokenizer, setting):
    another = build("distilbert", **setting)
    with pytest.raises(BadInput):
        features.compute(another, plans.freeze(another, "first_layers", 2), rows, tokenizer, folder=folder)


def test_what_stands_behind_the_layers_changes_no_features(rows, tokenizer, tmp_path):
    model = build("bert")
    stored = features.compute(model, plans.freeze(model, "head"), rows, tokenizer, folder=tmp_path / "features")
    model.bert.pooler.dense.weight.data.normal_()  # a fresh one, as where the pretrained model has none
    again = features.compute(model, plans.freeze(model, "head"), rows, tokenizer, folder=tmp_path / "features")
    assert np.array_equal(stored.values, again.values)


@pytest.mark.parametrize(("part", "how"), [(store.VALUES, n) for n in (0, 1, -1, -64)] + [(store.INDEX, "{")])
def test_a_folder_that_is_not_whole_is_refused(folder, model, plan, rows, tokenizer, part, how):
    if isinstance(how, str):
        (folder / part).write_text(how, encoding="utf-8")
    else:
        whole = (folder / part).read_bytes()
        (folder / part).write_bytes(whole[:how])
    with pytest.raises(BadInput, match=r"are not whole|cannot be read") as raised:
        features.compute(model, plan, rows, tokenizer, folder=folder)
    assert_one_sentence(raised, str(folder), "remove that folder, and they are computed again")
    files.remove(folder)
    features.compute(model, plan, rows, tokenizer, folder=folder)


def test_a_folder_whose_values_are_gone_or_too_many_is_refused(folder, model, plan, rows, tokenizer):
    size = (folder / store.VALUES).stat().st_size
    with (folder / store.VALUES).open("ab") as file:
        file.write(b"\0" * 4)
    with pytest.raises(BadInput, match=rf"not whole \({size + 4:,} bytes of {size:,}\)"):
        features.compute(model, plan, rows, tokenizer, folder=folder)
    (folder / store.VALUES).unlink()
    with pytest.raises(BadInput, match=r"cannot be read \(FileNotFoundError\)"):
        features.compute(model, plan, rows, tokenizer, folder=folder)


@pytest.mark.parametrize("index", ["[]", "7", "without dtype"])
def test_an_index_that_is_json_and_no_index_is_refused(folder, model, plan, rows, tokenizer, index):
    if index == "without dtype":
        index = json.dumps({**json.loads((folder / store.INDEX).read_text(encoding="utf-8")), "dtype": None})
    (folder / store.INDEX).write_text(index, encoding="utf-8")
    with pytest.raises(BadInput):
        features.compute(model, plan, rows, tokenizer, folder=folder)


def test_a_folder_with_something_else_in_it_is_left_alone(model, plan, rows, tokenizer, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("three years of work", encoding="utf-8")
    with pytest.raises(BadInput):
        features.compute(model, plan, rows, tokenizer, folder=tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").is_file()


class FullDisk:
    """A file to which so many bytes can be written."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def write(self, data):
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.file.write(data)


@pytest.mark.parametrize("room", [0, 5000])
@pytest.mark.parametrize("where", ["folder", "memory-mapped"])
def test_a_full_disk_is_one_sentence_and_leaves_nothing_behind(
    model, plan, rows, tokenizer, tmp_path, monkeypatch, where, room
):
    options = {"folder": tmp_path / "features"} if where == "folder" else {"memory": 0}
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = uncached(model, rows, tokenizer)
    opened, whole = [], Path.open

    def open_on_a_full_disk(path, mode="r", **more):
        if path.name != store.VALUES or mode != "wb":
            return whole(path, mode, **more)
        opened.append(path)
        return FullDisk(whole(path, mode, **more), room)

    with monkeypatch.context() as full:
        full.setattr(Path, "open", open_on_a_full_disk)
        with pytest.raises(CourseError) as raised:
            features.compute(model, plan, rows, tokenizer, **options)
    assert_one_sentence(raised, "the disk is full", "features could not be written", "free some space")
    assert len(opened) == 1
    del raised
    assert list(tmp_path.iterdir()) == []
    assert np.array_equal(uncached(model, rows, tokenizer), before)
    assert len(features.compute(model, plan, rows, tokenizer, **options)) == len(rows)


def test_a_folder_that_cannot_be_made_is_one_sentence(model, plan, rows, tokenizer, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(CourseError) as raised:
        features.compute(model, plan, rows, tokenizer, folder=tmp_path / "file" / "features")
    assert_one_sentence(raised, "cannot be written", "choose a folder that you may write to")


def test_padding_on_the_left_is_refused(model, plan, rows):
    left = tiny_classifiers.tokenizer()
    left.padding_side = "left"
    with pytest.raises(BadInput) as raised:
        features.compute(model, plan, rows, left)
    assert_one_sentence(raised, "pads on the left", "tokenizer.padding_side = 'right'")


@pytest.mark.parametrize("precision", [None, {"bf16": True}], ids=["fp32", "bf16"])
def test_a_model_that_reads_its_padding_is_refused_since_its_features_depend_on_the_batch(precision, rows, tokenizer):
    torch.manual_seed(0)
    config = ConvBertConfig(**tiny_classifiers.SHARED, **tiny_classifiers.LAYERS, embedding_size=WIDTH)
    model = ConvBertForSequenceClassification(config).eval()
    plan = plans.freeze(model, "first_layers", 2)
    with pytest.raises(BadInput) as raised:
        features.compute(model, plan, rows, tokenizer, precision=precision)
    assert_one_sentence(raised, "ConvBertForSequenceClassification", "padded", "train without features")
    of_one_length = rows.filter(lambda row: len(row["input_ids"]) == 32)
    assert len(of_one_length) > 1  # nothing is padded
    assert len(features.compute(model, plan, of_one_length, tokenizer, precision=precision)) == len(of_one_length)


@pytest.mark.parametrize(
    ("policy", "frozen_layers"), [("full", None), ("gradual", None), ("layerwise", None), ("first_layers", 0)]
)
def test_a_plan_without_frozen_layers_is_refused(model, rows, tokenizer, tmp_path, policy, frozen_layers):
    plan = plans.freeze(model, policy, frozen_layers)
    with pytest.raises(BadInput) as raised:
        features.compute(model, plan, rows, tokenizer, folder=tmp_path / "features")
    assert_one_sentence(raised, f"policy {policy!r} freezes no layer", "train without features")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_features_under_bf16_have_the_type_that_autocast_gives_and_its_rounding(name, rows, tokenizer):
    model = build(name).eval()
    plan = plans.freeze(model, "first_layers", 2)
    exact = features.compute(model, plan, rows, tokenizer)
    half = features.compute(model, plan, rows, tokenizer, precision={"bf16": True})
    seen = []
    hook = plans.structure(model).layers[1].register_forward_hook(lambda *call: seen.append(call[2].dtype))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        model(input_ids=torch.tensor([rows["input_ids"][0]]))
    hook.remove()
    assert exact.dtype == torch.float32
    assert half.dtype == seen[0]
    assert half.collate([half.rows[0]])["features"].dtype == half.dtype
    assert 0 < np.abs(half.values - exact.values).max() < 0.05 * np.abs(exact.values).max()


def test_a_model_in_bf16_has_features_in_bf16_in_memory_and_from_a_folder(rows, tokenizer, tmp_path):
    model = build("distilbert").eval().bfloat16()
    plan = plans.freeze(model, "first_layers", 2)
    expected = uncached(model, rows, tokenizer)
    for folder in (None, tmp_path / "features", tmp_path / "features"):
        made = features.compute(model, plan, rows, tokenizer, folder=folder)
        assert made.dtype == torch.bfloat16
        assert made.collate([made.rows[0]])["features"].dtype == torch.bfloat16
        assert np.abs(made.run(model, batches.softmax) - expected).max() < 0.01


def test_predicting_inside_the_block_is_predicting_behind_it(model, made):
    expected = made.run(model, batches.softmax)
    with made.in_place(model):
        assert np.array_equal(made.run(model, batches.softmax), expected)
        model(**made.collate([made.rows[0]]))


def test_rows_of_other_features_are_refused(model, plan, made, rows, tokenizer):
    other = features.compute(model, plan, rows.select(range(23, -1, -1)), tokenizer)
    with pytest.raises(BadInput):
        made.collate([other.rows[place] for place in range(4)])


def test_no_rows_are_refused(model, plan, rows, tokenizer):
    with pytest.raises(BadInput):
        features.compute(model, plan, rows.select([]), tokenizer)
