"""What breaks at transformers' next release."""

import json

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BitsAndBytesConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.integrations import deepspeed
from transformers.quantizers import base, quantizers_utils

from ftlab.internals import transformers as transformers_internals

BERT = {
    "vocab_size": 32, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
    "max_position_embeddings": 16,
}  # fmt: skip
GPT2 = {"vocab_size": 32, "n_embd": 64, "n_layer": 1, "n_head": 2, "n_positions": 16}


def classifier(**options):
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(**BERT, **options))


def gpt2(**options):
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(**GPT2, **options))


@pytest.mark.parametrize(
    ("module", "name", "used_by"),
    [
        (PreTrainedModel, "_init_weights", "draw_weights"),
        (PreTrainedModel, "get_expanded_tied_weights_keys", "tied_but_apart"),
        (base, "get_keys_to_not_convert", "is_converted"),
        (quantizers_utils, "should_convert_module", "is_converted"),
        (PreTrainedModel, "_keep_in_fp32_modules", "is_converted"),
        (Trainer, "_prepare_inputs", "prepared_inputs"),
        (Trainer, "get_decay_parameter_names", "decayed_parameters"),
    ],
)
def test_the_names_are_there(module, name, used_by):
    assert hasattr(module, name), (
        f"transformers no longer has {module.__name__}.{name}: ftlab.internals.transformers.{used_by} needs another way"
    )


def test_the_attention_of_a_model_is_known_as_it_was_set():
    model = classifier()
    model.set_attn_implementation("eager")
    eager = transformers_internals.attention(model)
    model.set_attn_implementation("sdpa")
    assert (eager, transformers_internals.attention(model)) == ("eager", "sdpa"), (
        "transformers keeps the attention implementation elsewhere: see ftlab.internals.transformers.attention"
    )


def test_weights_that_were_loaded_are_drawn_again_and_the_others_stay(tmp_path):
    classifier(initializer_range=0.5).save_pretrained(tmp_path)
    model = BertForSequenceClassification.from_pretrained(tmp_path)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(1)
    transformers_internals.draw_weights(model, [model.classifier])
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {"classifier.weight"}, (  # the bias is 0 before and after
        "transformers marks loaded tensors otherwise: see ftlab.internals.transformers.draw_weights"
    )
    assert 0.3 < float(model.classifier.weight.detach().std()) < 0.7


def test_tied_tensors_are_known_and_those_that_the_files_hold_apart(tmp_path):
    model = gpt2()
    assert transformers_internals.tied_weights(model) == {"lm_head.weight": "transformer.wte.weight"}, (
        "transformers keeps tied weights elsewhere: see ftlab.internals.transformers.tied_weights"
    )
    assert transformers_internals.tied_but_apart(model) == set()
    gpt2(tie_word_embeddings=False).save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**written, "tie_word_embeddings": True}), encoding="utf-8")
    apart = GPT2LMHeadModel.from_pretrained(tmp_path)
    assert transformers_internals.tied_but_apart(apart) == {"lm_head.weight"}, (
        "transformers treats tied weights that differ otherwise: see ftlab.internals.transformers.tied_but_apart"
    )


@pytest.mark.parametrize("tied", [True, False])
def test_the_layers_that_are_converted_are_those_of_a_load_in_4_bits_and_know_what_they_were(tmp_path, tied):
    gpt2(tie_word_embeddings=tied).save_pretrained(tmp_path)
    whole = GPT2LMHeadModel.from_pretrained(tmp_path)
    is_converted = transformers_internals.is_converted(whole)
    few = GPT2LMHeadModel.from_pretrained(
        tmp_path, quantization_config=BitsAndBytesConfig(load_in_4bit=True), device_map="cpu"
    )
    layers = {name: module for name, module in few.named_modules() if type(module).__name__ == "Linear4bit"}
    asked = {name for name, module in whole.named_modules() if type(module).__name__ in ("Conv1D", "Linear")}
    assert {name for name in asked if is_converted(name)} == layers.keys() != set(), (
        "transformers converts other layers: see ftlab.internals.transformers.is_converted"
    )
    assert all(map(transformers_internals.was_conv1d, layers.values())), (
        "transformers no longer notes the class of a layer before quantization: see "
        "ftlab.internals.transformers.was_conv1d"
    )


def test_no_decay_falls_on_biases_and_normalisations():
    found = transformers_internals.decayed_parameters(classifier())
    assert "classifier.weight" in found, (
        "transformers decays other parameters: see ftlab.internals.transformers.decayed_parameters"
    )
    assert not any("bias" in name or "LayerNorm" in name for name in found)


class Stop(TrainerCallback):
    def on_step_end(self, args, state, control, **more):
        control.should_training_stop = True


@pytest.mark.parametrize("stopped", [True, False])
def test_a_checkpoint_says_whether_a_callback_had_ended_the_training(tmp_path, stopped):
    rows = [{"input_ids": [1, 2], "labels": 0}] * 4
    trainer = Trainer(
        model=classifier(),
        args=TrainingArguments(
            output_dir=str(tmp_path), max_steps=2, per_device_train_batch_size=2, save_strategy="epoch",
            report_to="none", disable_tqdm=True, use_cpu=True,
        ),
        train_dataset=rows,
        callbacks=[Stop()] if stopped else [],
    )  # fmt: skip
    trainer.train()
    batch = transformers_internals.prepared_inputs(trainer, {"input_ids": torch.ones(1, 2)})
    assert batch["input_ids"].device == trainer.args.device
    (state,) = tmp_path.glob("checkpoint-*/trainer_state.json")
    step = json.loads(state.read_text(encoding="utf-8"))["global_step"]
    assert step == (1 if stopped else 2)
    if stopped:
        assert transformers_internals.was_told_to_stop(json.loads(state.read_text(encoding="utf-8"))), (
            "transformers writes Trainer's control elsewhere: see ftlab.internals.transformers.was_told_to_stop"
        )


def test_a_config_keeps_where_it_came_from_under_this_key(tmp_path):
    classifier().save_pretrained(tmp_path)
    model = BertForSequenceClassification.from_pretrained(tmp_path)
    assert model.config.to_dict()[transformers_internals.CONFIG_PATH] == str(tmp_path), (
        "transformers keeps the folder of a config elsewhere: see ftlab.internals.transformers.CONFIG_PATH"
    )


# Undocumented behaviour that has no name of its own in ftlab.internals.


def test_the_loading_report_lists_missing_unexpected_and_mismatched_tensors(tmp_path):
    classifier().bert.save_pretrained(tmp_path)
    options = {"output_loading_info": True, "ignore_mismatched_sizes": True}
    _, report = BertForSequenceClassification.from_pretrained(tmp_path, **options)
    assert report["missing_keys"] == {"classifier.weight", "classifier.bias"}, "see ftlab.models.loading_report"
    classifier(num_labels=3).save_pretrained(tmp_path)
    _, report = BertForSequenceClassification.from_pretrained(tmp_path, num_labels=4, **options)
    shapes = {key: (tuple(has), tuple(wants)) for key, has, wants in report["mismatched_keys"]}
    assert shapes["classifier.bias"] == ((3,), (4,)), "see ftlab.models.loading_report"
    assert not report["unexpected_keys"]


def test_a_language_model_takes_a_mask_of_positions_and_the_labels_of_these_positions():
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**BERT)).eval()
    ids, keep = torch.tensor([[1, 2, 3, 4]]), torch.tensor([[False, True, True, False]])
    plain = model(input_ids=ids, labels=torch.tensor([[-100, -100, 3, 4]])).loss
    some = model(input_ids=ids, labels=ids, logits_to_keep=keep, shift_labels=torch.tensor([3, 4])).loss
    assert torch.allclose(plain, some), (
        "transformers takes logits_to_keep or shift_labels otherwise: see ftlab.training.instruction.supervised_only"
    )


def test_trainer_asks_a_model_whether_it_divides_its_loss_itself(tmp_path):
    answers = []
    for accepts in (True, False):
        model = classifier()
        model.accepts_loss_kwargs = accepts
        answers.append(Trainer(model, TrainingArguments(str(tmp_path), report_to="none")).model_accepts_loss_kwargs)
    assert answers == [True, False], (
        "Trainer no longer reads accepts_loss_kwargs of a model: see ftlab.training.invariants.accumulation"
    )


def test_models_are_loaded_whole_after_a_training_with_deepspeed():
    class Sharding:
        def is_zero3(self):
            return True

    kept = Sharding()  # as Trainer's arguments keep it
    deepspeed.set_hf_deepspeed_config(kept)
    assert deepspeed.is_deepspeed_zero3_enabled()
    transformers_internals.load_models_whole()
    assert not deepspeed.is_deepspeed_zero3_enabled()
