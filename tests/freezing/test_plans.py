import pytest
import torch
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    DistilBertModel,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    PhiForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from ftlab.errors import BadInput, TrainingFailed
from ftlab.freezing import features, plans
from tests.models import tiny_classifiers
from tests.models.tiny_classifiers import DEPTH, build

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = tiny_classifiers.NAMES
LAYERS = ["layer 1", "layer 2", "layer 3"]
# What each plan leaves as it is.
PLANS = {
    ("full", None): set(),
    ("first_layers", 0): {"embeddings"},
    ("first_layers", 1): {"embeddings", "layer 1"},
    ("first_layers", 2): {"embeddings", "layer 1", "layer 2"},
    ("first_layers", 3): {"embeddings", *LAYERS},
    ("head", None): {"embeddings", *LAYERS, "behind the layers"},
    ("gradual", None): set(),
    ("layerwise", None): set(),
}


def language_model():
    """GPT-2 with the head that is its embedding."""
    _, config, sizes = tiny_classifiers.KINDS["gpt2"]
    return GPT2LMHeadModel(config(**{**tiny_classifiers.SHARED, **sizes}))


def trains(model):
    return {name: parameter.requires_grad for name, parameter in model.named_parameters()}


def a_batch():
    return torch.randint(3, 600, (4, 8), generator=torch.Generator().manual_seed(0))


def one_step(model, parameters=None):
    """A step of AdamW on a batch, over what may train unless told otherwise; the optimizer."""
    chosen = [p for p in model.parameters() if p.requires_grad] if parameters is None else parameters
    optimizer = torch.optim.AdamW(chosen, lr=0.01)
    model.train()
    model(input_ids=a_batch(), attention_mask=torch.ones(4, 8), labels=torch.tensor([0, 1, 1, 0])).loss.backward()
    optimizer.step()
    return optimizer


def assert_one_sentence(raised, *shown):
    message = str(raised.value)
    assert "\n" not in message
    for words in shown:
        assert words in message


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_in_exactly_one_part_under_its_own_name(name):
    model = build(name)
    parts = plans.structure(model).parts
    found = [(each, tensor) for tensors in parts.values() for each, tensor in tensors.items()]
    assert sorted(each for each, _ in found) == sorted(each for each, _ in model.named_parameters())
    assert all(model.get_parameter(each) is tensor for each, tensor in found)
    assert sum(plans.freeze(model).parts.values()) == model.num_parameters()


@pytest.mark.parametrize(
    ("name", "behind", "head"),
    [
        ("distilbert", None, ("pre_classifier.", "classifier.")),
        ("bert", "bert.pooler.", ("classifier.",)),
        ("roberta", None, ("classifier.",)),
        ("gpt2", "transformer.ln_f.", ("score.",)),
        ("llama", "model.norm.", ("score.",)),
        ("phi", "model.final_layernorm.", ("score.",)),
    ],
)
def test_the_parts_stand_in_the_order_in_which_a_row_passes_them_and_hold_what_they_are_called(name, behind, head):
    model = build(name)
    found = plans.structure(model)
    expected = ["embeddings", *LAYERS, *(["behind the layers"] if behind else []), "head"]
    assert list(found.parts) == expected
    assert len(found.layers) == plans.freeze(model).depth == DEPTH
    for part, tensors in found.parts.items():
        for each in tensors:
            if part in LAYERS:
                assert f".{LAYERS.index(part)}." in each
            assert each.startswith(head) == (part == "head")
            assert bool(behind and each.startswith(behind)) == (part == "behind the layers")
    for layer, part in zip(found.layers, LAYERS, strict=True):
        assert set(map(id, layer.parameters())) == set(map(id, found.parts[part].values()))


def test_a_head_that_is_the_embedding_belongs_to_the_embeddings():
    model = language_model()
    parts = plans.structure(model).parts
    assert list(parts) == ["embeddings", *LAYERS, "behind the layers"]
    assert sum(plans.freeze(model).parts.values()) == model.num_parameters()


def test_a_tied_head_with_weights_of_its_own_trains_these():
    config = BertConfig(**{**tiny_classifiers.SHARED, **tiny_classifiers.LAYERS})
    plan = plans.freeze(model := BertForMaskedLM(config), "head")
    assert plan.total == model.num_parameters()
    assert not model.cls.predictions.decoder.weight.requires_grad
    assert "cls.predictions.transform.dense.weight" in plan.trained


def test_a_head_of_a_language_model_that_is_not_tied_is_a_head():
    _, config, sizes = tiny_classifiers.KINDS["phi"]
    model = PhiForCausalLM(config(**{**tiny_classifiers.SHARED, **sizes}))
    assert plans.freeze(model, "head").trained == {"lm_head.weight", "lm_head.bias"}


def test_a_model_without_a_head_has_parts_and_can_train_its_last_layers():
    config = DistilBertConfig(**{**tiny_classifiers.SHARED, **tiny_classifiers.KINDS["distilbert"][2]})
    plan = plans.freeze(DistilBertModel(config), "first_layers", 2)
    assert list(plan.parts) == ["embeddings", *LAYERS]
    assert {name.rpartition("layer.")[2][0] for name in plan.trained} == {"2"}


def layer_of_bert(width, inner):
    """Four projections, two dense layers, two normalisations; DistilBERT's and BERT's alike."""
    return 4 * (width**2 + width) + (width * inner + inner) + (inner * width + width) + 2 * 2 * width


@pytest.mark.parametrize(
    ("model", "config", "expected", "total"),
    [
        (
            DistilBertForSequenceClassification,
            DistilBertConfig(),
            {"embeddings": (30522 + 512) * 768 + 2 * 768, "layer": layer_of_bert(768, 3072),
             "head": 768**2 + 768 + 2 * 768 + 2},
            66_955_010,
        ),
        (
            BertForSequenceClassification,
            BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536),
            {"embeddings": (30522 + 512 + 2) * 384 + 2 * 384, "layer": layer_of_bert(384, 1536),
             "behind the layers": 384**2 + 384, "head": 2 * 384 + 2},
            22_713_986,
        ),
        (
            GPT2ForSequenceClassification,
            GPT2Config(),
            {"embeddings": (50257 + 1024) * 768, "layer": 12 * 768**2 + 13 * 768, "behind the layers": 2 * 768,
             "head": 2 * 768},
            124_441_344,
        ),
    ],
    ids=["DistilBERT", "MiniLM", "GPT-2"],
)  # fmt: skip
def test_the_counts_of_real_models_are_those_of_the_formula(model, config, expected, total):
    with torch.device("meta"):
        made = model(config)
    plan = plans.freeze(made, "first_layers", 3)
    layer = expected.pop("layer")
    assert plan.parts == {**expected, **{f"layer {n}": layer for n in range(1, config.num_hidden_layers + 1)}}
    assert plan.total == total
    assert plan.total - plan.trainable == expected["embeddings"] + 3 * layer
    assert plan.depth == config.num_hidden_layers


@pytest.mark.parametrize(("policy", "frozen_layers"), PLANS)
@pytest.mark.parametrize("name", NAMES)
def test_a_plan_says_what_trains_and_the_model_has_it_so(name, policy, frozen_layers):
    model = build(name)
    plan = plans.freeze(model, policy, frozen_layers)
    parts = tiny_classifiers.parts_of(model)
    stays = PLANS[policy, frozen_layers]
    assert trains(model) == {each: part not in stays for each, part in parts.items()}
    assert plan.trains == {part: part not in stays for part in plan.parts}
    assert plan.frozen == {each for each, part in parts.items() if part in stays}
    assert plan.trained == parts.keys() - plan.frozen
    sizes = {each: parameter.numel() for each, parameter in model.named_parameters()}
    trainable = sum(sizes[each] for each in plan.trained)
    assert (plan.total, plan.trainable) == (sum(sizes.values()), trainable)
    assert plan.trainable == model.num_parameters(only_trainable=True)
    assert plan.share == trainable / sum(sizes.values())
    assert plan.memory_saved == 12 * sum(sizes[each] for each in plan.frozen)
    table = plan.table()
    assert table["parameters"].to_dict() == plan.parts
    assert table["trains"].to_dict() == plan.trains
    assert str(plan) == f"{policy}: {trainable:,} of {plan.total:,} parameters train ({plan.share:.1%})"


@pytest.mark.parametrize(
    ("policy", "frozen_layers", "layers"),
    [("full", None, -1), ("gradual", None, -1), ("layerwise", None, -1), ("head", None, DEPTH)]
    + [("first_layers", number, number) for number in range(DEPTH + 1)],
)
def test_a_plan_counts_the_layers_that_stay(policy, frozen_layers, layers):
    assert plans.freeze(build("gpt2"), policy, frozen_layers).frozen_layers == layers


def test_freezing_again_makes_a_new_plan_and_leaves_nothing_of_the_old_one():
    model, fresh = build("bert"), build("bert")
    plans.freeze(model, "head")
    for policy, frozen_layers in (("first_layers", 1), ("head", None), ("first_layers", 3), ("full", None)):
        assert plans.freeze(model, policy, frozen_layers) == plans.freeze(fresh, policy, frozen_layers)
        assert trains(model) == trains(fresh)
        assert [m.training for m in model.train().modules()] == [m.training for m in fresh.train().modules()]
        fresh = build("bert")


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_freezing_draws_no_random_number_and_changes_no_weight_and_no_mode_of_what_trains(name, mode):
    model = build(name).train(mode)
    before, state = plans.fingerprints(model), torch.get_rng_state()
    plans.freeze(model, "first_layers", 2)
    assert torch.equal(torch.get_rng_state(), state)
    assert plans.fingerprints(model) == before
    assert model.training == plans.structure(model).layers[2].training == mode
    assert not any(len(module._forward_pre_hooks) for module in model.modules())


@pytest.mark.parametrize(("policy", "frozen_layers"), [plan for plan, stays in PLANS.items() if stays])
@pytest.mark.parametrize(
    ("name", "dropout"),
    [
        ("distilbert", "distilbert.embeddings.dropout"),
        ("bert", "bert.embeddings.dropout"),
        ("roberta", "roberta.embeddings.dropout"),
        ("gpt2", "transformer.drop"),
        ("llama", "model.embed_tokens"),
        ("phi", "model.embed_dropout"),
    ],
)
def test_what_is_frozen_stays_in_evaluation_and_what_trains_follows_the_model(name, dropout, policy, frozen_layers):
    model = build(name)
    plans.freeze(model, policy, frozen_layers)
    for _ in range(2):
        model.train()
        for part, modules in plans.structure(model).modules.items():
            modes = {inner.training for module in modules for inner in module.modules()}
            assert modes <= {part not in PLANS[policy, frozen_layers]}
        assert not model.get_submodule(dropout).training
        assert not any(module.training for module in model.eval().modules())
    plans.freeze(model, "full")
    assert not any(module.training for module in model.modules())  # as the model is now
    assert all(module.training for module in model.train().modules())


@pytest.mark.parametrize("name", ["distilbert", "bert", "roberta", "gpt2"])
def test_frozen_layers_give_the_same_each_time_and_those_that_train_do_not(name):
    model = build(name)
    plans.freeze(model, "first_layers", 2)
    layers, seen = plans.structure(model).layers, {2: [], 3: []}
    for number in seen:
        layers[number - 1].register_forward_hook(lambda module, _, output, n=number: seen[n].append(output))

    def twice():
        model.train()
        for outputs in seen.values():
            outputs.clear()
        for _ in range(2):
            model(input_ids=a_batch())
        return [torch.equal(*outputs) for outputs in seen.values()]

    assert twice() == [True, False]
    plans.freeze(model, "full")
    assert twice() == [False, False]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fingerprint_changes_with_one_bit_and_others_do_not(dtype):
    model = build("distilbert").to(dtype)
    before = plans.fingerprints(model)
    assert list(before) == [name for name, _ in model.named_parameters()]
    assert plans.fingerprints(model) == before
    bits = torch.int32 if dtype == torch.float32 else torch.int16
    for name in ("distilbert.embeddings.position_embeddings.weight", "classifier.bias"):
        tensor = model.get_parameter(name).data.view(-1).view(bits)
        tensor[-1] ^= 1
        after = plans.fingerprints(model)
        assert [each for each in after if after[each] != before[each]] == [name]
        tensor[-1] ^= 1
    assert plans.fingerprints(model) == before


def test_a_fingerprint_tells_zero_from_minus_zero_and_knows_a_nan_again():
    model = torch.nn.Linear(2, 2)
    prints = []
    for value in (0.0, -0.0, float("nan"), float("nan")):
        model.weight.data.fill_(value)
        prints.append(plans.fingerprints(model)["weight"])
    assert len(set(prints)) == 3
    assert prints[2] == prints[3]


def test_a_fingerprint_is_of_the_values_and_not_of_how_they_lie_in_memory():
    model, other = torch.nn.Linear(3, 4), torch.nn.Linear(3, 4)
    other.weight = torch.nn.Parameter(model.weight.detach().t().contiguous().t())
    assert not other.weight.is_contiguous()
    assert plans.fingerprints(other)["weight"] == plans.fingerprints(model)["weight"]


@pytest.mark.parametrize(("policy", "frozen_layers"), PLANS)
@pytest.mark.parametrize("name", NAMES)
def test_a_training_that_kept_the_plan_is_proven(name, policy, frozen_layers):
    model = build(name)
    plan = plans.freeze(model, policy, frozen_layers)
    before = plans.fingerprints(model)
    optimizer = one_step(model)
    proof = plan.verify(before, plans.fingerprints(model), optimizer, model)
    frozen = {claim: count for claim, count in proof["tensors"].items() if claim.startswith("frozen")}
    assert list(frozen.values()) == ([len(plan.frozen)] * 2 if plan.frozen else [])
    assert proof["tensors"]["meant to train, and moved"] == len(plan.trained)


def test_without_the_optimizer_the_proof_says_nothing_of_it():
    model = build("distilbert")
    plan = plans.freeze(model, "first_layers", 1)
    before = plans.fingerprints(model)
    one_step(model)
    claims = plan.verify(before, plans.fingerprints(model)).index.tolist()
    assert claims == ["frozen, and unchanged to the last bit", "meant to train, and moved"]


@pytest.fixture
def trained():
    """A model, its plan, its optimizer and the fingerprints before and after a step."""
    model = build("distilbert")
    plan = plans.freeze(model, "first_layers", 2)
    before = plans.fingerprints(model)
    optimizer = one_step(model)
    return model, plan, optimizer, before, plans.fingerprints(model)


def test_a_frozen_tensor_that_moved_by_a_bit_is_told_by_name(trained):
    model, plan, optimizer, before, _ = trained
    name = "distilbert.transformer.layer.1.ffn.lin1.bias"
    model.get_parameter(name).data.view(torch.int32)[0] ^= 1
    with pytest.raises(TrainingFailed) as raised:
        plan.verify(before, plans.fingerprints(model), optimizer, model)
    assert_one_sentence(raised, f"of {len(plan.frozen)} tensors", f"1 moved ({name})", "unchanged to the last bit")


def test_a_tensor_that_should_train_and_did_not_is_told_by_name(trained):
    model, plan, optimizer, before, after = trained
    name = "distilbert.transformer.layer.2.ffn.lin1.bias"
    with pytest.raises(TrainingFailed) as raised:
        plan.verify(before, {**after, name: before[name]}, optimizer, model)
    assert_one_sentence(raised, f"of {len(plan.trained)} tensors", f"1 did not move ({name})", "meant to train")


def test_of_many_tensors_that_contradict_the_plan_the_first_are_told(trained):
    _, plan, _, before, _ = trained
    with pytest.raises(TrainingFailed) as raised:
        plan.verify(before, before)
    assert_one_sentence(raised, f"{len(plan.trained)} did not move (classifier.bias, classifier.weight, ", ", ...)")


def test_a_frozen_tensor_in_the_optimizer_is_told_though_it_did_not_move():
    model = build("distilbert")
    plan = plans.freeze(model, "first_layers", 2)
    before = plans.fingerprints(model)
    given = [p for p in model.parameters() if p.requires_grad] + [model.distilbert.embeddings.LayerNorm.bias]
    optimizer = one_step(model, given)
    after = plans.fingerprints(model)
    assert len(plan.verify(before, after)) == 2
    with pytest.raises(TrainingFailed) as raised:
        plan.verify(before, after, optimizer, model)
    assert_one_sentence(raised, "1 are in it (distilbert.embeddings.LayerNorm.bias)", "not in the optimizer")


def test_a_model_that_was_thawed_behind_the_plan_is_told():
    model = build("gpt2")
    plan = plans.freeze(model, "head")
    before = plans.fingerprints(model)
    plans.freeze(model, "full")
    optimizer = one_step(model, list(model.transformer.h[2].parameters()))
    with pytest.raises(TrainingFailed, match=r"frozen, and unchanged to the last bit.*transformer\.h\.2\."):
        plan.verify(before, plans.fingerprints(model), optimizer, model)


@pytest.mark.parametrize("lacking", ["before", "after"])
@pytest.mark.parametrize("name", ["classifier.bias", "distilbert.embeddings.LayerNorm.bias"])
def test_fingerprints_that_lack_a_tensor_of_the_plan_prove_nothing(trained, lacking, name):
    _, plan, _, before, after = trained
    prints = {"before": dict(before), "after": dict(after)}
    del prints[lacking][name]
    with pytest.raises(BadInput) as raised:
        plan.verify(**prints)
    assert_one_sentence(raised, f"fingerprints {lacking} training lack {name}")


@pytest.mark.parametrize("name", ["distilbert", "gpt2"])
def test_the_memory_saved_is_what_gradients_and_moments_take_less(name):
    def taken(model):
        states = one_step(model).state.values()
        tensors = [state[moment] for state in states for moment in ("exp_avg", "exp_avg_sq")]
        tensors += [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    full, frozen = build(name), build(name)
    plan = plans.freeze(frozen, "first_layers", 2)
    assert plan.memory_saved == taken(full) - taken(frozen) > 0
    assert plans.freeze(full, "full").memory_saved == 0


@pytest.mark.parametrize(
    ("policy", "frozen_layers", "shown"),
    [
        ("first_layers", -1, ["frozen_layers is -1", "has 3 layers", "expected 0 to 3"]),
        ("first_layers", 4, ["frozen_layers is 4", "has 3 layers", "expected 0 to 3"]),
        ("first_layers", None, ["needs frozen_layers", "DistilBertForSequenceClassification", "expected 0 to 3"]),
        ("full", 1, ["'full' takes no frozen_layers", "first_layers"]),
        ("head", 0, ["'head' takes no frozen_layers", "first_layers"]),
        ("gradual", 2, ["'gradual' takes no frozen_layers", "first_layers"]),
        ("layerwise", 2, ["'layerwise' takes no frozen_layers", "first_layers"]),
        ("first", 1, ["no policy 'first'", "full, first_layers, head, gradual, layerwise"]),
        ("", None, ["no policy ''", "full, first_layers, head, gradual, layerwise"]),
        (None, None, ["no policy None", "full, first_layers, head, gradual, layerwise"]),
    ],
)
def test_a_plan_that_cannot_be_is_refused_and_the_model_left_as_it_was(policy, frozen_layers, shown):
    model = build("distilbert").train()
    plans.freeze(model, "first_layers", 1)
    before, modes = trains(model), [module.training for module in model.train().modules()]
    with pytest.raises(BadInput) as raised:
        plans.freeze(model, policy, frozen_layers)
    assert_one_sentence(raised, *shown)
    assert trains(model) == before
    assert [module.training for module in model.train().modules()] == modes


def test_a_head_that_is_tied_leaves_nothing_to_train():
    with pytest.raises(BadInput) as raised:
        plans.freeze(language_model(), "head")
    assert_one_sentence(raised, "'head' leaves nothing of GPT2LMHeadModel to train", "choose another policy")


def test_a_plan_that_leaves_nothing_to_train_is_not_carried_out():
    model = language_model()
    with pytest.raises(BadInput):
        plans.freeze(model, "head")
    assert all(trains(model).values())
    assert all(module.training for module in model.train().modules())


@pytest.mark.parametrize("frozen_layers", [1.5, "2"])
def test_frozen_layers_that_are_no_whole_number_are_refused(frozen_layers):
    with pytest.raises(BadInput) as raised:
        plans.freeze(build("distilbert"), "first_layers", frozen_layers)
    assert_one_sentence(raised, repr(frozen_layers).strip("'"), "expected 0 to 3")


SMALL = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}


@pytest.mark.parametrize(
    ("make", "shown"),
    [
        (
            lambda: AlbertForSequenceClassification(AlbertConfig(**SMALL, embedding_size=8, intermediate_size=32)),
            ["AlbertForSequenceClassification", "one list of 3 layers", "albert_layer_groups (1)"],
        ),
        (
            lambda: T5ForConditionalGeneration(T5Config(vocab_size=50, d_model=16, d_ff=32, num_layers=2, num_heads=2)),
            ["T5ForConditionalGeneration", "one list of 2 layers", "encoder.block (2)", "decoder.block (2)"],
        ),
        (lambda: torch.nn.Linear(4, 2), ["Linear", "no list of modules at all"]),
        (lambda: torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2)), ["Sequential", "no list"]),
    ],
    ids=["ALBERT", "T5", "a linear layer", "two of them"],
)
@pytest.mark.parametrize("policy", ["full", "head"])
def test_a_model_without_one_stack_of_layers_is_refused_with_what_it_has(make, shown, policy):
    model = make()
    with pytest.raises(BadInput) as raised:
        plans.freeze(model, policy)
    assert_one_sentence(raised, *shown, "as in BERT, GPT-2 or Llama", "requires_grad")
    assert all(trains(model).values())


def test_a_parameter_of_the_model_s_own_is_of_its_head():
    model = build("distilbert")
    model.scale = torch.nn.Parameter(torch.ones(3))
    plan = plans.freeze(model, "head")
    assert "scale" in plan.trained
    assert plan.total == model.num_parameters()


def test_layers_that_hand_on_more_than_hidden_states_are_refused_before_anything_is_stored(tmp_path):
    from transformers import GPTJConfig, GPTJForSequenceClassification

    shape = {"n_embd": 16, "n_layer": 2, "n_head": 2, "rotary_dim": 4, "pad_token_id": 0}
    model = GPTJForSequenceClassification(GPTJConfig(vocab_size=600, **shape))
    plan = plans.freeze(model, "head")
    tokenizer, rows = tiny_classifiers.tokenizer(), tiny_classifiers.reviews(4)
    with pytest.raises(BadInput, match=r"GPTJForSequenceClassification return more than hidden states"):
        features.compute(model, plan, rows, tokenizer, folder=tmp_path / "features")
    assert not (tmp_path / "features").exists()
