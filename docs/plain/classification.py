"""Fine-tune a text classifier with plain Hugging Face code: python classification.py MODEL ROWS OUT.

MODEL is a folder or a hub id such as distilbert-base-uncased. ROWS is a folder with train.csv, validation.csv and
test.csv, each with columns text and label. The trained model goes into the folder OUT.
"""

import sys

import torch
from datasets import load_dataset
from sklearn.metrics import accuracy_score, f1_score
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments, pipeline

MODEL, ROWS, OUT = sys.argv[1:] if len(sys.argv) == 4 else sys.exit("usage: classification.py MODEL ROWS OUT")
MAX_LENGTH = 64  # tokens; what is longer is cut

splits = ("train", "validation", "test")  # old: train and test, and the test rows chose the epoch
rows = load_dataset("csv", data_files={split: f"{ROWS}/{split}.csv" for split in splits}, keep_default_na=False)
names = sorted(set(map(str, rows["train"]["label"])))
tokenizer = AutoTokenizer.from_pretrained(MODEL, split_special_tokens=True)  # "[SEP]" in a text stays text


def encode(batch):  # old: padding="max_length", and most of the computing goes into padding
    encoded = tokenizer(batch["text"], truncation=True, max_length=MAX_LENGTH)
    return {**encoded, "labels": [names.index(str(label)) for label in batch["label"]]}


def compute_metrics(answers):  # old: evaluate.load("accuracy"), which downloads a script and fails offline
    predicted, labels = answers.predictions.argmax(-1), answers.label_ids
    return {"accuracy": accuracy_score(labels, predicted), "f1": f1_score(labels, predicted, average="macro")}


rows = rows.map(encode, batched=True, remove_columns="label")
torch.manual_seed(0)  # before the model is made: its new head is random
model = AutoModelForSequenceClassification.from_pretrained(
    MODEL,
    id2label=dict(enumerate(names)),  # the head gets so many labels, and the saved model answers with their names
    label2id={name: number for number, name in enumerate(names)},
    dtype=torch.float32,  # old: torch_dtype. The default is now the dtype of the file, which may be half precision
    use_safetensors=True,  # a .bin file is a pickle, and opening a pickle can run any code
)
model.accepts_loss_kwargs = False  # else gradient accumulation multiplies the loss (transformers issue 47688)
arguments = TrainingArguments(
    output_dir=f"{OUT}/checkpoints",  # old: overwrite_output_dir=True beside it, now a TypeError; leave it out
    num_train_epochs=2, per_device_train_batch_size=16, per_device_eval_batch_size=64,
    learning_rate=1e-4, weight_decay=0.01, lr_scheduler_type="cosine",
    warmup_steps=0.1,  # old: warmup_ratio=0.1, now a TypeError. Below 1 it is a share of the steps
    train_sampling_strategy="group_by_length",  # old: group_by_length=True, now a TypeError
    eval_strategy="epoch", save_strategy="epoch",  # old: evaluation_strategy, now a TypeError. They must be equal
    load_best_model_at_end=True, metric_for_best_model="f1", save_total_limit=1,
    fp16=torch.cuda.is_available(),  # old: True, which a CPU ignores without a word. To avoid a GPU: use_cpu=True
    report_to="none", seed=0,  # old: without it, every tracker that was installed got the figures
)  # fmt: skip
trainer = Trainer(
    model=model, args=arguments, compute_metrics=compute_metrics,
    train_dataset=rows["train"],
    eval_dataset=rows["validation"],  # old: the test rows, whose score is then too good
    processing_class=tokenizer,  # old: tokenizer=, now a TypeError. It pads each batch, and is saved with the weights
)  # fmt: skip
seconds = trainer.train().metrics["train_runtime"]
scores = trainer.evaluate(rows["test"], metric_key_prefix="test")  # once, at the end
trainer.save_model(OUT)
print(f"{seconds:.1f} s of training, test accuracy {scores['test_accuracy']:.4f}, macro F1 {scores['test_f1']:.4f}")

classifier = pipeline("text-classification", model=OUT)  # old: device=0. Now it finds a GPU by itself
print(classifier(rows["test"][0]["text"], truncation=True, max_length=MAX_LENGTH))
