"""Fine-tune a language model by LoRA with plain Hugging Face code: python lora.py MODEL ROWS OUT.

MODEL is a folder or a hub id such as microsoft/phi-2. ROWS is a folder with train.jsonl, validation.jsonl and
test.jsonl, each with columns prompt and completion. The adapter goes into the folder OUT, the merged model into
OUT/merged.
"""

import sys

import torch
from datasets import load_dataset
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

MODEL, ROWS, OUT = sys.argv[1:] if len(sys.argv) == 4 else sys.exit("usage: lora.py MODEL ROWS OUT")
BF16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)

rows = load_dataset("json", data_files={name: f"{ROWS}/{name}.jsonl" for name in ("train", "validation", "test")})
tokenizer = AutoTokenizer.from_pretrained(MODEL)


def load(dtype):  # old: torch_dtype=torch.float16, which fails with fp16=True where such weights train
    return AutoModelForCausalLM.from_pretrained(MODEL, dtype=dtype, use_safetensors=True)


@torch.inference_mode()
def held_out_loss(model):  # per token of the unseen answers; trainer.evaluate() averages over batches
    losses = []
    for row in rows["test"]:
        text, start = row["prompt"] + row["completion"] + tokenizer.eos_token, len(tokenizer(row["prompt"]).input_ids)
        ids = tokenizer(text, return_tensors="pt").input_ids.to(model.device)
        logits = model.eval()(ids).logits[0, start - 1 : -1].float()  # those of a token come one place before it
        losses.append(torch.nn.functional.cross_entropy(logits, ids[0, start:], reduction="none"))
    return torch.cat(losses).mean().item()


torch.manual_seed(0)  # before the trainer is made: matrix A of the adapter is random
arguments = SFTConfig(  # old: TrainingArguments, which SFTTrainer converts, with other defaults
    output_dir=f"{OUT}/checkpoints", num_train_epochs=1, per_device_train_batch_size=8, lr_scheduler_type="cosine",
    learning_rate=3e-3,  # chosen for SmolLM2-135M. For billions of parameters begin with 2e-4
    warmup_steps=0.1, train_sampling_strategy="group_by_length",  # old: warmup_ratio and group_by_length, TypeErrors
    max_length=128,  # old: SFTTrainer(max_seq_length=...). A longer row would lose EOS, so it is left out below
    completion_only_loss=True,  # old: one column text, and the model learned to write the prompts, too
    eval_strategy="steps", eval_steps=0.5, save_strategy="steps", save_steps=0.5, load_best_model_at_end=True,
    bf16=BF16, fp16=torch.cuda.is_available() and not BF16,  # TRL's default, bf16=True, is an error on a CPU
    activation_checkpointing=False, report_to="none", seed=0,  # old: gradient_checkpointing. TRL's default is True
)  # fmt: skip
trainer = SFTTrainer(  # old: get_peft_model() before it and peft_config in it, now a ValueError
    model=load(torch.bfloat16 if BF16 else torch.float32), args=arguments,
    train_dataset=rows["train"].filter(lambda row: len(tokenizer(row["prompt"] + row["completion"]).input_ids) < 128),
    eval_dataset=rows["validation"],
    processing_class=tokenizer,  # old: tokenizer=, now a TypeError. EOS is learned even if it is the pad token, too
    peft_config=LoraConfig(r=16, lora_alpha=32, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
)  # fmt: skip
before = held_out_loss(trainer.model)  # the adapter still adds zero
seconds = trainer.train().metrics["train_runtime"]
trainer.save_model(OUT)  # the adapter alone
print(f"{seconds:.1f} s of training, held-out loss {before:.4f} before, {held_out_loss(trainer.model):.4f} after")

model = PeftModel.from_pretrained(load(torch.float32), OUT).eval()  # old: merged into fp16 or 4 bits, which rounds
answer = model.generate(**tokenizer(rows["test"][0]["prompt"], return_tensors="pt"), max_new_tokens=48, do_sample=False)
print(tokenizer.decode(answer[0]))  # EOS at its end: the model stopped by itself. old: sampled, another text each time
logits, merged = model(answer).logits, model.merge_and_unload()
torch.testing.assert_close(merged(answer).logits, logits, atol=1e-3, rtol=1e-3)  # the merged model answers the same
merged.save_pretrained(f"{OUT}/merged")
tokenizer.save_pretrained(f"{OUT}/merged")
