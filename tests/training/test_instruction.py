"""The head runs on supervised positions only, and nothing else changes: loss, gradients, accumulation."""

import copy

import pytest
import torch
from datasets import Dataset
from transformers import (
    DataCollatorForSeq2Seq,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    PrinterCallback,
    Trainer,
    TrainingArguments,
)

from ftlab.data.prompts import IGNORED, encode
from ftlab.errors import BadInput
from ftlab.models import loading
from ftlab.training.instruction import SupervisedTrainer

pytestmark = pytest.mark.usefixtures("one_thread")
SHAPE = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
MODELS = {
    "gpt2": lambda size: GPT2LMHeadModel(
        GPT2Config(vocab_size=size, n_embd=16, n_layer=2, n_head=2, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    ),
    "llama": lambda size: LlamaForCausalLM(LlamaConfig(vocab_size=size, **SHAPE)),
    "phi": lambda size: PhiForCausalLM(PhiConfig(vocab_size=size, **SHAPE)),
}


@pytest.fixture(scope="module")
def tokenizer():
    return loading.tokenizer("tiny-gpt2")


@pytest.fixture(scope="module")
def rows(tokenizer):
    pairs = [
        {"instruction": "Name it.", "input": "a film " * (number % 5), "output": "good " * (1 + number % 3)}
        for number in range(16)
    ]
    encoded, _ = encode(Dataset.from_list(pairs), tokenizer, max_length=80)
    return encoded.select_columns(["input_ids", "attention_mask", "labels"])


@pytest.fixture(params=MODELS)
def model(request, tokenizer):
    torch.manual_seed(0)
    return MODELS[request.param](len(tokenizer))


def trained(kind, model, rows, tokenizer, folder, batch_size=8, accumulation=1, steps=3):
    trainer = kind(
        model=copy.deepcopy(model),
        args=TrainingArguments(
            output_dir=str(folder), max_steps=steps, per_device_train_batch_size=batch_size, learning_rate=1e-2,
            gradient_accumulation_steps=accumulation, train_sampling_strategy="sequential", logging_steps=1,
            save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True,
        ),
        train_dataset=rows,
        data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORED),
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return trainer


def logged(trainer, name):
    return [entry[name] for entry in trainer.state.log_history if name in entry]


def test_losses_gradients_and_weights_are_those_of_the_plain_masked_loss(model, rows, tokenizer, tmp_path):
    plain = trained(Trainer, model, rows, tokenizer, tmp_path)
    ours = trained(SupervisedTrainer, model, rows, tokenizer, tmp_path)
    assert logged(ours, "loss") == pytest.approx(logged(plain, "loss"), abs=1e-5)
    assert logged(ours, "grad_norm") == pytest.approx(logged(plain, "grad_norm"), rel=1e-4)
    assert logged(plain, "loss")[0] != pytest.approx(logged(plain, "loss")[-1], abs=1e-2)  # it did train
    for (name, one), other in zip(plain.model.named_parameters(), ours.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=2e-4, rtol=1e-3, msg=name)


def test_accumulated_batches_make_the_step_of_one(model, rows, tokenizer, tmp_path):
    """Rows differ in length and batches in size: they agree only if the labels of the whole step divide the loss."""
    steps = [
        trained(SupervisedTrainer, model, rows, tokenizer, tmp_path, size, times, steps=1)
        for size, times in ((16, 1), (8, 2), (4, 4))
    ]
    for name in ("loss", "grad_norm"):
        values = [logged(step, name)[0] for step in steps]
        assert values == pytest.approx([values[0]] * 3, rel=1e-4)


def test_the_head_sees_supervised_positions_only(model, rows, tokenizer, tmp_path):
    shapes = []
    hook = model.get_output_embeddings().register_forward_pre_hook(lambda _, given: shapes.append(given[0].shape))
    trainer = SupervisedTrainer(
        model=model, args=TrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True)
    )
    batch = DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORED)(list(rows))
    trainer.compute_loss(model, dict(batch))
    hook.remove()
    assert shapes[0].numel() == int((batch["labels"] != IGNORED).sum()) * 16


def test_evaluation_gives_the_plain_loss_too(model, rows, tokenizer, tmp_path):
    losses = []
    for kind in (Trainer, SupervisedTrainer):
        trainer = kind(
            model=model,
            args=TrainingArguments(
                output_dir=str(tmp_path), report_to="none", use_cpu=True, disable_tqdm=True, prediction_loss_only=True
            ),
            data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORED),
        )
        trainer.remove_callback(PrinterCallback)
        losses.append(trainer.evaluate(rows)["eval_loss"])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_a_batch_with_nothing_to_learn_is_refused(model, rows, tokenizer, tmp_path):
    empty = rows.map(lambda row: {"labels": [IGNORED] * len(row["labels"])})
    with pytest.raises(BadInput, match=r"none of the .* tokens of this batch is supervised"):
        trained(SupervisedTrainer, model, empty, tokenizer, tmp_path, steps=1)
