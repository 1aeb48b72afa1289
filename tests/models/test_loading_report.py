import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from ftlab.adapters import lora
from ftlab.errors import BadInput
from ftlab.freezing import plans
from ftlab.models import loading
from ftlab.models.loading_report import REPORTED
from tests.models.saved_models import edit, rewrite, save, save_lm, without

pytestmark = pytest.mark.usefixtures("one_thread")
ENCODERS = ("bert", "roberta", "distilbert", "electra", "albert", "deberta-v2")
DECODERS = ("gpt2", "llama", "phi")
IDS = torch.arange(5, 17).reshape(2, 6)


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def refusal(kind, folder, **options) -> str:
    """What loading the folder says, on one line."""
    with pytest.raises(BadInput) as raised:
        loading.load(kind, str(folder), **options)
    assert "\n" not in str(raised.value)
    assert str(folder) in str(raised.value)
    return str(raised.value)


def fresh_refusal(folder, labels=("no", "yes")) -> str:
    with pytest.raises(BadInput) as raised:
        loading.encoder(str(folder), labels)
    assert "\n" not in str(raised.value)
    return str(raised.value)


# Whole models


@pytest.mark.parametrize("kind", ENCODERS + DECODERS)
def test_a_whole_classifier_answers_as_before_it_was_saved(kind, tmp_path):
    saved = save(tmp_path, kind)
    torch.testing.assert_close(logits(loading.load(AutoModelForSequenceClassification, str(tmp_path))), logits(saved))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_whole_language_model_answers_as_before_it_was_saved_tied_or_not(kind, tied, tmp_path):
    saved = save_lm(tmp_path, kind, tie_word_embeddings=tied)
    assert ("lm_head.weight" in load_file(tmp_path / "model.safetensors")) != tied
    torch.testing.assert_close(logits(loading.causal_lm(str(tmp_path))), logits(saved))


def test_shards_are_read_whatever_they_are_called(tmp_path):
    saved = save_lm(tmp_path)
    saved.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    shards = tmp_path / "shards"
    (tmp_path / "model.safetensors").unlink()
    index = (shards / "model.safetensors.index.json").read_text(encoding="utf-8").replace("model-0", "weights-0")
    (tmp_path / "model.safetensors.index.json").write_text(index, encoding="utf-8")
    for shard in shards.glob("*.safetensors"):
        shutil.move(shard, tmp_path / shard.name.replace("model-0", "weights-0"))
    torch.testing.assert_close(logits(loading.causal_lm(str(tmp_path))), logits(saved))


# What is missing


@pytest.mark.parametrize("kind", ENCODERS + DECODERS)
def test_a_classifier_without_its_head_is_refused_by_name(kind, tmp_path):
    save(tmp_path, kind)
    taken = without(tmp_path, "classifier.", "score.")
    said = refusal(AutoModelForSequenceClassification, tmp_path)
    assert f"lacks {len(taken)} of the" in said
    assert min(taken) in said


@pytest.mark.parametrize("kind", sorted({*ENCODERS, *DECODERS} - {"albert"}))  # whose layers are one
def test_a_layer_that_is_gone_is_refused_with_a_head_of_its_own_and_with_a_fresh_one(kind, tmp_path):
    save(tmp_path, kind)
    taken = without(tmp_path, "layer.1.", "layers.1.", "h.1.")
    for said in (refusal(AutoModelForSequenceClassification, tmp_path), fresh_refusal(tmp_path)):
        assert f"lacks {len(taken)} of the" in said
        assert min(taken) in said


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_language_model_without_its_lm_head_is_refused_unless_the_embedding_is_its_head(kind, tmp_path):
    save_lm(tmp_path, kind)
    without(tmp_path, "lm_head")
    assert "lacks 1 of the" in refusal(AutoModelForCausalLM, tmp_path)
    edit(tmp_path, tie_word_embeddings=True)
    loading.causal_lm(str(tmp_path))


def test_a_tied_pair_of_which_nothing_is_left_is_refused(tmp_path):
    save_lm(tmp_path, "gpt2", tie_word_embeddings=True)
    without(tmp_path, "wte")
    assert "wte.weight" in refusal(AutoModelForCausalLM, tmp_path)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "base_model.model.", "_fsdp_wrapped_module."])
@pytest.mark.parametrize("saved", [save, save_lm])
def test_a_wrapped_model_is_refused_before_anything_is_loaded_with_what_to_do(saved, prefix, tmp_path):
    saved(tmp_path, "llama")
    rewrite(tmp_path, lambda tensors: {prefix + name: tensor for name, tensor in tensors.items()})
    with pytest.raises(BadInput, match=r"begins with .*save the model inside") as raised:
        loading.check(str(tmp_path))
    assert repr(prefix) in str(raised.value)


def test_a_model_that_was_wrapped_within_is_refused_with_what_to_do(tmp_path):
    save_lm(tmp_path)
    rewrite(tmp_path, lambda t: {n.replace("model.", "model._orig_mod.", 1): tensor for n, tensor in t.items()})
    said = refusal(AutoModelForCausalLM, tmp_path)
    assert "is named as torch.compile wraps a model: save the model inside" in said


def test_weights_of_another_architecture_are_refused(tmp_path):
    save(tmp_path, "bert")
    edit(tmp_path, model_type="roberta", architectures=["RobertaForSequenceClassification"])
    assert "lacks 41 of the 41 tensors of Roberta" in refusal(AutoModelForSequenceClassification, tmp_path)
    assert "lacks" in fresh_refusal(tmp_path)


# What has another shape


def test_a_head_of_another_size_is_refused_with_both_shapes(tmp_path):
    save(tmp_path, "bert", num_labels=3)
    edit(tmp_path, id2label=..., label2id=...)
    said = refusal(AutoModelForSequenceClassification, tmp_path)
    assert "classifier.bias and 1 more in another shape" in said
    assert "(3,) for (2,)" in said


@pytest.mark.parametrize("four_bits", [False, True])
def test_a_matrix_of_another_shape_is_refused_whatever_it_is_loaded_into(four_bits, tmp_path):
    save_lm(tmp_path)
    name = "model.layers.0.mlp.up_proj.weight"
    rewrite(tmp_path, lambda tensors: tensors | {name: tensors[name][:30]})
    options = {"quantization_config": lora.four_bit_config()} if four_bits else {}
    said = refusal(AutoModelForCausalLM, tmp_path, **options)
    assert name in said
    assert "(30, 16) for (32, 16)" in said


def test_a_body_of_another_shape_is_refused_under_a_fresh_head_too(tmp_path):
    save(tmp_path, "bert")
    edit(tmp_path, vocab_size=700)
    assert "word_embeddings.weight in another shape" in fresh_refusal(tmp_path)


# What the files hold beyond the model


@pytest.mark.parametrize(
    "extra",
    [
        "bert.encoder.layer.2.output.dense.weight",
        "encoder.layer.2.output.dense.weight",
        "bert.encoder.layer.0.attention.self.query.lora_A.weight",
        "bert.projection.weight",
        "classifier.hidden.weight",
        "teacher.bert.encoder.layer.0.output.dense.weight",
        "module.classifier.weight",
    ],
)
def test_weights_that_belong_to_the_model_and_have_no_place_are_refused(extra, tmp_path):
    save(tmp_path, "bert")
    rewrite(tmp_path, lambda tensors: tensors | {extra: torch.ones(2, 2)})
    said = refusal(AutoModelForSequenceClassification, tmp_path)
    assert extra in said
    assert "has no place" in said


@pytest.mark.parametrize(
    ("kind", "extra"),
    [
        ("bert", "cls.predictions.transform.dense.weight"),
        ("bert", "bert.embeddings.position_ids"),
        ("albert", "sop_classifier.classifier.weight"),
        ("roberta", "roberta.pooler.dense.weight"),
        ("gpt2", "lm_head.weight"),
        ("gpt2", "transformer.h.0.attn.masked_bias"),
        ("gpt2", "transformer.h.0.attn.bias"),
        ("llama", "model.layers.0.self_attn.rotary_emb.inv_freq"),
        ("llama", "v_head.summary.weight"),
    ],
)
def test_another_task_s_head_and_what_is_no_weight_are_set_aside(kind, extra, tmp_path):
    saved = save(tmp_path, kind)
    rewrite(tmp_path, lambda tensors: tensors | {extra: torch.ones(2, 2)})
    torch.testing.assert_close(logits(loading.load(AutoModelForSequenceClassification, str(tmp_path))), logits(saved))


def test_biases_that_the_config_turns_off_are_refused(tmp_path):
    save_lm(tmp_path, attention_bias=True)
    edit(tmp_path, attention_bias=False)
    assert "self_attn.k_proj.bias" in refusal(AutoModelForCausalLM, tmp_path)


# What stands in the files


def test_two_tensors_that_the_config_calls_one_are_refused_where_they_differ(tmp_path):
    save_lm(tmp_path)
    edit(tmp_path, tie_word_embeddings=True)
    assert "ties lm_head.weight to the embeddings" in refusal(AutoModelForCausalLM, tmp_path)
    rewrite(tmp_path, lambda tensors: tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"]})
    loading.causal_lm(str(tmp_path))


@pytest.mark.parametrize("four_bits", [False, True])
@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32, torch.bool, torch.float8_e4m3fn])
def test_integers_where_floats_belong_are_refused(dtype, four_bits, tmp_path):
    save_lm(tmp_path)
    options = {"quantization_config": lora.four_bit_config()} if four_bits else {}
    name = "model.layers.1.mlp.down_proj.weight"
    rewrite(tmp_path, lambda tensors: tensors | {name: (tensors[name] * 40).to(dtype)})
    said = refusal(AutoModelForCausalLM, tmp_path, dtype=torch.float32, **options)
    assert name in said
    assert "where a model has floats" in said


@pytest.mark.parametrize("four_bits", [False, True])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused(value, four_bits, tmp_path):
    save_lm(tmp_path)
    options = {"quantization_config": lora.four_bit_config()} if four_bits else {}
    name = "model.layers.1.mlp.down_proj.weight"

    def spoil(tensors):
        tensors[name][3, 4] = value
        return tensors

    rewrite(tmp_path, spoil)
    assert f"NaN or infinite in {name}" in refusal(AutoModelForCausalLM, tmp_path, **options)


def test_weights_that_were_saved_in_4_bits_are_whole(tmp_path):
    save_lm(tmp_path / "full", hidden_size=64, intermediate_size=128)
    four_bits = loading.causal_lm(str(tmp_path / "full"), quantization_config=lora.four_bit_config())
    four_bits.save_pretrained(tmp_path / "packed")
    loading.tokenizer(str(tmp_path / "full")).save_pretrained(tmp_path / "packed")
    torch.testing.assert_close(logits(loading.causal_lm(str(tmp_path / "packed"))), logits(four_bits))


def test_numbers_too_large_for_half_precision_are_refused_there_alone(tmp_path):
    save_lm(tmp_path)
    rewrite(tmp_path, lambda tensors: tensors | {"lm_head.weight": tensors["lm_head.weight"] * 1e38})
    loading.causal_lm(str(tmp_path))  # their sum is infinite, and none of them
    assert "infinite in lm_head.weight" in refusal(AutoModelForCausalLM, tmp_path, dtype=torch.float16)


# Fresh heads


def test_a_fresh_head_is_all_that_begins_at_random(tmp_path):
    save(tmp_path, "bert", AutoModel)
    torch.manual_seed(1)
    model, report = AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=3, **REPORTED)
    fresh = loading.start_fresh_head(model, report, "mine")
    assert set(fresh) == {"classifier.weight", "classifier.bias"}
    assert fresh["classifier.weight"] is model.classifier.weight


@pytest.mark.parametrize("kind", ENCODERS + DECODERS)
@pytest.mark.parametrize("labels", [["a", "b"], ["a", "b", "c"]])
def test_a_classifier_s_own_head_makes_room_for_a_fresh_one_whatever_its_size(kind, labels, tmp_path):
    saved = save(tmp_path, kind)
    torch.manual_seed(7)
    model = loading.encoder(str(tmp_path), labels)
    torch.manual_seed(7)
    again = loading.encoder(str(tmp_path), labels)
    body = dict(saved.base_model.named_parameters())
    assert all(torch.equal(tensor, body[name]) for name, tensor in model.base_model.named_parameters())
    head = {name: tensor for name, tensor in model.named_parameters() if name in model.fresh_tensors}
    assert len(head) == len(list(model.parameters())) - len(body)
    for name, tensor in head.items():
        assert tensor.shape[0] == len(labels) or not torch.equal(tensor, dict(saved.named_parameters())[name])
        assert torch.equal(tensor, dict(again.named_parameters())[name])
    own = dict(saved.named_parameters())
    assert not any(torch.equal(tensor, own[name]) for name, tensor in head.items() if tensor.shape == own[name].shape)


def test_the_head_of_a_classifier_of_tokens_is_drawn_anew_though_it_has_the_same_shape(tmp_path):
    saved = save(tmp_path, "bert", AutoModelForTokenClassification)
    model = loading.encoder(str(tmp_path), ["no", "yes"])
    assert model.classifier.weight.shape == saved.classifier.weight.shape
    assert not torch.equal(model.classifier.weight, saved.classifier.weight)
    assert {"classifier.weight", "classifier.bias"} <= model.fresh_tensors


@pytest.mark.parametrize("kind_of_loss", ["multi_label_classification", "regression"])
def test_a_fresh_head_has_the_loss_of_classes_whatever_the_old_one_had(kind_of_loss, tmp_path):
    save(tmp_path, "bert")
    edit(tmp_path, problem_type=kind_of_loss)
    model = loading.encoder(str(tmp_path), ["no", "yes"]).eval()
    labels = torch.tensor([0, 1])
    found = model(input_ids=IDS, labels=labels)
    torch.testing.assert_close(found.loss, torch.nn.functional.cross_entropy(found.logits, labels))
    assert model.config.problem_type == "single_label_classification"


def test_a_pooler_that_pretraining_had_not_is_fresh_and_trains_with_the_head(tmp_path):
    save(tmp_path, "bert", AutoModelForMaskedLM)
    model = loading.encoder(str(tmp_path), ["no", "yes"])
    pooler = {"bert.pooler.dense.weight", "bert.pooler.dense.bias"}
    assert model.fresh_tensors == pooler | {"classifier.weight", "classifier.bias"}
    plan = plans.freeze(model, "head")
    assert pooler <= plan.trained
    assert all(model.get_parameter(name).requires_grad for name in model.fresh_tensors)
    assert plan.frozen == {name for name, _ in model.named_parameters()} - model.fresh_tensors


@pytest.mark.parametrize("policy", ["full", "head", "gradual", "layerwise", "first_layers"])
def test_no_policy_leaves_a_fresh_tensor_frozen(policy, tmp_path):
    save(tmp_path, "bert", AutoModelForMaskedLM)
    model = loading.encoder(str(tmp_path), ["no", "yes"])
    plan = plans.freeze(model, policy, 2 if policy == "first_layers" else None)
    assert model.fresh_tensors <= plan.trained


def test_a_pooler_that_was_pretrained_stays_frozen_with_the_body(tmp_path):
    save(tmp_path, "bert", AutoModel)
    plan = plans.freeze(loading.encoder(str(tmp_path), ["no", "yes"]), "head")
    assert "bert.pooler.dense.weight" in plan.frozen


def test_a_body_is_read_without_a_pooler_and_not_without_a_layer(tmp_path):
    saved = save(tmp_path, "bert", AutoModelForMaskedLM)
    with torch.no_grad():
        expected = saved.bert(input_ids=IDS).last_hidden_state
        found = loading.body(str(tmp_path)).eval()(input_ids=IDS).last_hidden_state
    torch.testing.assert_close(found, expected)
    without(tmp_path, "layer.1.")
    with pytest.raises(BadInput, match="lacks 16 of the"):
        loading.body(str(tmp_path))


def test_what_trains_is_in_full_precision_whatever_is_stored(tmp_path):
    save(tmp_path, "bert", AutoModel)
    rewrite(tmp_path, lambda tensors: {name: tensor.half() for name, tensor in tensors.items()})
    edit(tmp_path, dtype="float16")
    assert {tensor.dtype for tensor in loading.encoder(str(tmp_path), ["no", "yes"]).parameters()} == {torch.float32}


# Files


def sharded(folder):
    save_lm(folder).save_pretrained(folder, max_shard_size="20KB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 2
    return shards


def test_a_lost_shard_is_refused_like_a_missing_file(tmp_path):
    lost = sharded(tmp_path)[1]
    lost.unlink()
    with pytest.raises(BadInput) as raised:
        loading.check(str(tmp_path))
    assert str(raised.value).startswith(f"{tmp_path} lacks {lost.name}, named in its model.safetensors.index.json;")


def test_an_index_and_its_shards_have_to_agree(tmp_path):
    first, second, *_ = sharded(tmp_path)
    whole = load_file(first)
    name = min(whole)
    save_file({key: tensor for key, tensor in whole.items() if key != name}, first, metadata={"format": "pt"})
    with pytest.raises(BadInput, match=r"no shard of .* holds "):
        loading.check(str(tmp_path))
    save_file(whole, first, metadata={"format": "pt"})
    save_file({**load_file(second), name: whole[name]}, second, metadata={"format": "pt"})
    with pytest.raises(BadInput, match=r"two shards of .* hold "):
        loading.check(str(tmp_path))


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "holds no JSON object"),
        ("{}", "names no shards"),
        ('{"weight_map": {}}', "names no shards"),
        ('{"weight_map": {"a": "../other.safetensors"}}', "no safetensors file of its folder"),
        ('{"weight_map": {"a": "model.bin"}}', "no safetensors file of its folder"),
    ],
)
def test_an_index_that_names_no_shards_of_the_folder_is_refused(index, message, tmp_path):
    sharded(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(index, encoding="utf-8")
    with pytest.raises(BadInput, match=message):
        loading.check(str(tmp_path))


def test_shards_without_an_index_are_refused(tmp_path):
    sharded(tmp_path)
    (tmp_path / "model.safetensors.index.json").unlink()
    with pytest.raises(BadInput, match=r"neither model\.safetensors nor the model\.safetensors\.index\.json"):
        loading.check(str(tmp_path))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are a Unix thing")
def test_what_never_ends_is_not_read(tmp_path):
    save(tmp_path, "bert")
    os.mkfifo(tmp_path / "tokenizer_config.json.pipe")
    with pytest.raises(BadInput, match="is no file"):
        loading.check(str(tmp_path))


def test_an_adapter_alone_is_told_from_a_model(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(BadInput, match="is an adapter; give the base"):
        loading.check(str(tmp_path))


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json"])
def test_a_tokenizer_that_is_not_whole_is_refused(file, tmp_path):
    save(tmp_path, "bert")
    (tmp_path / file).write_text('{"half', encoding="utf-8")
    with pytest.raises(BadInput, match=f"{file} cannot be read as JSON"):
        loading.check(str(tmp_path))


@pytest.mark.parametrize("change", [{"hidden_size": "wide"}, {"num_attention_heads": 5}, {"model_type": "hopfield9"}])
def test_a_config_that_describes_no_model_is_one_sentence(change, tmp_path):
    save(tmp_path, "bert")
    edit(tmp_path, **change)
    for use in (loading.max_positions, lambda name: loading.encoder(name, ["no", "yes"])):
        with pytest.raises(BadInput, match=str(tmp_path)) as raised:
            use(str(tmp_path))
        assert "\n" not in str(raised.value)


def test_tokens_that_the_model_has_no_rows_for_are_refused(tmp_path):
    save_lm(tmp_path)
    tokenizer = loading.tokenizer(str(tmp_path))
    tokenizer.add_tokens([f"<new {number}>" for number in range(700 - len(tokenizer))])
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(BadInput, match="700 tokens and the model's embedding 600 rows, so '<new "):
        loading.causal_lm(str(tmp_path))
