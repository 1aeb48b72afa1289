"""SFTTrainer with the head at supervised positions: the loss equals TRL's, rows are checked, and trainings resume."""

import copy

import pytest
import torch
from datasets import Dataset
from peft import get_peft_model
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PrinterCallback,
    TrainerCallback,
    set_seed,
)
from trl import SFTConfig, SFTTrainer

from ftlab.adapters import lora
from ftlab.data import prompts
from ftlab.errors import BadInput
from ftlab.models import loading
from ftlab.training import sft
from ftlab.training.checkpoints import checkpoint
from ftlab.training.sft import SupervisedSFTTrainer

pytestmark = pytest.mark.usefixtures("one_thread")
ALPACA = prompts.ALPACA
IDENTITY = {"rows": "pairs", "seed": 0}


@pytest.fixture(scope="module")
def tokenizer():
    return loading.tokenizer("tiny-gpt2")


@pytest.fixture(scope="module")
def pairs():
    return [
        {"instruction": "Name it.", "input": "a film " * (number % 5), "output": "good " * (1 + number % 3) + "end"}
        for number in range(16)
    ]


@pytest.fixture(scope="module")
def rows(tokenizer, pairs):
    return prompts.encode(Dataset.from_list(pairs), tokenizer, max_length=100)[0].select_columns(
        ["input_ids", "labels"]
    )


@pytest.fixture(params=["tiny-gpt2", "tiny-phi", "llama"])
def base(request, tokenizer):
    torch.manual_seed(0)
    if request.param != "llama":
        dropout = ("attn_pdrop",) if request.param == "tiny-gpt2" else ()
        return loading.causal_lm(request.param, embd_pdrop=0.0, resid_pdrop=0.0, **dict.fromkeys(dropout, 0.0))
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **shape))


def adapted(base):
    torch.manual_seed(0)
    model = copy.deepcopy(base)
    return get_peft_model(model, lora.config(model, rank=2, alpha=4))


def trainer_of(kind, model, rows, tokenizer, folder, *, callbacks=(), **options):
    arguments = {
        "max_steps": 4, "per_device_train_batch_size": 4, "learning_rate": 1e-2, "logging_steps": 1,
        "train_sampling_strategy": "sequential", "save_strategy": "no", **options,
    }  # fmt: skip
    set_seed(0)
    trainer = kind(
        model=model,
        args=SFTConfig(
            output_dir=str(folder), max_length=100, activation_checkpointing=False, bf16=False, use_cpu=True, seed=0,
            report_to="none", disable_tqdm=True, **arguments,
        ),
        train_dataset=rows,
        processing_class=tokenizer,
        callbacks=list(callbacks),
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    return trainer


def logged(trainer, name):
    return [entry[name] for entry in trainer.state.log_history if name in entry]


def test_losses_and_gradients_are_those_of_trl(base, rows, tokenizer, tmp_path):
    theirs, ours = (
        trainer_of(kind, adapted(base), rows, tokenizer, tmp_path) for kind in (SFTTrainer, SupervisedSFTTrainer)
    )
    theirs.train()
    ours.train()
    assert logged(ours, "loss") == pytest.approx(logged(theirs, "loss"), abs=1e-5)
    assert logged(ours, "grad_norm") == pytest.approx(logged(theirs, "grad_norm"), rel=1e-3)
    assert logged(ours, "loss")[0] != pytest.approx(logged(ours, "loss")[-1], abs=1e-3)  # it did train
    losses = [trainer.evaluate(rows)["eval_loss"] for trainer in (theirs, ours)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_the_course_s_rows_are_those_that_trl_makes_of_prompts_and_completions(base, pairs, rows, tokenizer, tmp_path):
    texts = Dataset.from_list([{"prompt": ALPACA.prompt(row), "completion": row["output"]} for row in pairs])
    trainer = trainer_of(SFTTrainer, adapted(base), texts, tokenizer, tmp_path)
    ours = trainer_of(SFTTrainer, adapted(base), rows, tokenizer, tmp_path)
    for theirs, mine in zip(trainer.get_train_dataloader(), ours.get_train_dataloader(), strict=True):
        assert torch.equal(theirs["input_ids"], mine["input_ids"])
        assert torch.equal(theirs["labels"], mine["labels"])


def test_the_head_sees_supervised_positions_only(base, rows, tokenizer, tmp_path):
    model, shapes = adapted(base), []
    trainer = trainer_of(SupervisedSFTTrainer, model, rows, tokenizer, tmp_path)
    model.get_output_embeddings().register_forward_pre_hook(lambda _, given: shapes.append(given[0].shape))
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.compute_loss(model, dict(batch))
    width = model.get_output_embeddings().in_features
    assert shapes[0].numel() == int((batch["labels"] != prompts.IGNORED).sum()) * width


class CutOff(Exception):
    pass


class CutsAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **more):
        if state.global_step == self.step:
            raise CutOff


def test_an_adapter_s_training_that_was_cut_off_ends_with_the_same_weights_bit_for_bit(base, rows, tokenizer, tmp_path):
    by_epoch = {
        "max_steps": -1, "num_train_epochs": 3, "save_strategy": "epoch", "train_sampling_strategy": "random",
        "restore_callback_states_from_checkpoint": True,
    }  # fmt: skip
    whole = trainer_of(SupervisedSFTTrainer, adapted(base), rows, tokenizer, tmp_path / "whole", **by_epoch)
    whole.train()
    cut = trainer_of(
        SupervisedSFTTrainer, adapted(base), rows, tokenizer, tmp_path / "cut", callbacks=[CutsAt(6)], **by_epoch
    )
    with pytest.raises(CutOff):
        cut.train(resume_from_checkpoint=checkpoint(tmp_path / "cut", IDENTITY, resume=False))
    again = trainer_of(SupervisedSFTTrainer, adapted(base), rows, tokenizer, tmp_path / "cut", **by_epoch)
    there = checkpoint(tmp_path / "cut", IDENTITY, resume=True)
    assert there == str(tmp_path / "cut" / "checkpoint-4")
    again.train(resume_from_checkpoint=there)
    for (name, one), other in zip(whole.model.named_parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other), name


def test_a_row_that_teaches_nothing_or_would_be_cut_is_refused(base, rows, tokenizer, tmp_path):
    """TRL by itself would drop the first row and cut off the EOS of the other, both without a warning."""

    def masked(row, number):
        return {"labels": [prompts.IGNORED] * len(row["labels"])} if number == 3 else {}

    empty = rows.map(masked, with_indices=True)
    with pytest.raises(BadInput, match=r"row 3 of 16 has no token that is supervised: every label is -100; look"):
        trainer_of(SupervisedSFTTrainer, adapted(base), empty, tokenizer, tmp_path)
    long = rows.map(lambda row: {"input_ids": row["input_ids"] * 9, "labels": row["labels"] * 9})
    with pytest.raises(BadInput, match=r"row 0 of 16 has \d+ tokens, and max_length is 100: its end, with EOS, would"):
        trainer_of(SupervisedSFTTrainer, adapted(base), long, tokenizer, tmp_path)


def test_rows_whose_answers_do_not_fit_are_refused_before_training(pairs, tokenizer):
    with pytest.raises(BadInput, match=r"the output of row 0 has \d+ tokens with EOS, and max_length is 4"):
        prompts.encode(Dataset.from_list(pairs), tokenizer, max_length=4)


def test_one_call_trains_the_adapter_alone_and_equal_runs_are_equal(base, rows, tokenizer, tmp_path):
    frozen = {name: parameter.clone() for name, parameter in base.named_parameters()}
    runs = []
    for _ in range(2):
        model = adapted(base)
        options = {"max_length": 100, "epochs": 2, "batch_size": 4, "learning_rate": 1e-2}
        trainer = sft.fine_tune(model, tokenizer, rows, tmp_path, **options)
        assert trainer.state.global_step == 8
        runs.append({name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad})
        for name, parameter in model.get_base_model().named_parameters():
            if "lora_" not in name:
                assert torch.equal(parameter, frozen[name.replace(".base_layer", "")]), name
    assert all(float(parameter.abs().max()) > 0 for name, parameter in runs[0].items() if "lora_B" in name)
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])
    assert list(tmp_path.iterdir()) == []


def test_the_loss_of_a_router_counts_once_a_step_however_the_step_is_divided(rows, tokenizer, tmp_path):
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = MixtralConfig(
        vocab_size=len(tokenizer), **shape, num_key_value_heads=2, num_local_experts=4, router_aux_loss_coef=1.0
    )
    norms = {}
    for accumulation in (1, 4):
        torch.manual_seed(0)
        model = MixtralForCausalLM(config)
        arguments = SFTConfig(
            output_dir=str(tmp_path), per_device_train_batch_size=8 // accumulation, max_steps=1,
            gradient_accumulation_steps=accumulation, max_length=100, logging_steps=1, save_strategy="no", seed=0,
            report_to="none", disable_tqdm=True, use_cpu=True, bf16=False,
        )  # fmt: skip
        trainer = SupervisedSFTTrainer(model, arguments, train_dataset=rows, processing_class=tokenizer)
        assert trainer.aux_loss_enabled
        trainer.train()
        line = next(line for line in trainer.state.log_history if "grad_norm" in line)
        norms[accumulation] = (line["loss"], line["grad_norm"])
    # The loss of the router is not linear in the rows, so a mean over four parts is near that of the whole.
    assert norms[4] == pytest.approx(norms[1], rel=0.1)
