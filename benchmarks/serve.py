"""Models outside PyTorch: are they as fast, with the same answers? A classifier on ONNX Runtime, a tutor on llama.cpp.

Classifier: MiniLM, trained briefly on short reviews, labels short reviews and IMDB's long ones. `Classifier` (float32,
and half precision where the machine computes in it) and ONNX Runtime (float32, and dynamic int8) get the same batches,
tokenized before, and as many threads. Generator: SmolLM2 with a small adapter of the tutor, merged, and exported to
GGUF in each type. llama.cpp, with its own settings (keys and values in float16, in an f32 file too), and `Generator`
answer the same token ids greedily: one prompt after another, and all at once. All ways of a comparison run in turn,
several times; the fastest round of each counts, because other load only ever makes it slower. Then three questions go
to the servers, and to the certificate wrong exports and, as the control, the right one.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from ftlab import files
from ftlab.course.bench import alone

FULL: dict[str, Any] = {
    "model": "smollm2", "types": ["f32", "f16", "q8_0"], "tiny": ["tiny-llama", "tiny-gpt2", "tiny-phi"], "passages": 4,
    "adapter": {"rows": 40, "max_length": 320, "rank": 16, "alpha": 32, "batch_size": 8, "learning_rate": 3e-3},
    "singly": 3, "at_once": 16, "new_tokens": 48, "rounds": 2,
    "encoder": "minilm", "training": {"rows": 500, "epochs": 2}, "texts": {"short": 600, "imdb": 60}, "read_to": 256,
}  # fmt: skip
# The same on tiny models, to see that it runs.
TINY = FULL | {
    "model": "tiny-llama", "types": ["f32", "q8_0"], "tiny": ["tiny-gpt2"], "passages": 2,
    "adapter": FULL["adapter"] | {"rows": 16}, "singly": 2, "at_once": 4, "new_tokens": 8, "rounds": 1,
    "encoder": "tiny-distilbert", "training": {"rows": 40, "epochs": 1}, "texts": {"short": 40, "imdb": 4},
    "read_to": 128,
}  # fmt: skip
TRAINED_TO = 64  # tokens of a review, in training
FASTER = 1.2  # from which another engine is worth a switch
SAME_NEXT = 0.95  # of the next tokens that 8 bits must leave
PARTS, SETTINGS = ("classifier", "exports", "generator", "servers", "wrong"), "settings.json"
RIGHT = "right file"  # the control among the wrong ones
# What one line of the certificate must say of each wrong file.
SAYS = {
    "EOS dropped": "names no EOS token",
    "BOS added": "puts BOS before a text",
    "template of another model": "chat template is another one",
    "vocabulary one short": "tokens, and the model has rows for",
    "a tensor permuted as for another architecture": "layers.0.self_attn.q_proj.weight",
    "two layers swapped": "layers.1.self_attn.q_proj.weight",
    "another base of its positions": "rope.freq_base",
    "file of another fine-tune": "layers.0.self_attn.q_proj.weight of the folder",
}
QUESTIONS = ("What is a list in Python?", "Explain `enumerate` in one sentence.", "How do I read a file line by line?")


def measure(settings: Mapping[str, Any] = FULL) -> dict[str, Any]:
    """Return speeds and agreement of each engine, the servers' answers, the certificates, and which bars they meet.

    `settings` are those of the stored result, FULL, or those of a trial, TINY.
    """
    with tempfile.TemporaryDirectory(prefix="ftlab-serve-") as folder:
        files.write_json(Path(folder) / SETTINGS, settings)
        classifier, exports, generator, servers, wrong = (alone(__file__, part, folder) for part in PARTS)
    in_floats = [one for one in exports["certificates"].values() if one["type"] in ("f32", "f16")]
    rounded = [one for one in exports["certificates"].values() if one["type"] not in ("f32", "f16")]
    return {
        "settings": dict(settings),
        "classifier": classifier,
        "exports": exports,
        "generator": generator,
        "servers": servers["questions"],
        "wrong_exports": wrong,
        "wrong_exports_refused": sum(map(bool, wrong.values())),
        "faster_by_a_fifth_at_equal_answers": {**_faster(classifier), **_faster(generator)},
        "bars": {
            "exports in f32 and f16 pass": all(one["ok"] for one in in_floats),
            "8 bits are measured, do not pass, and leave 95 % of the next tokens": all(
                one["ok"] is None and one["loaded"]["same_next"] >= SAME_NEXT for one in rounded
            ),
            "each wrong export is refused for its own fault, and the right one is not": not wrong[RIGHT]
            and all(any(words in line for line in wrong[name]) for name, words in SAYS.items()),
            "the classifier's export in float32 gives the same labels": all(
                one["ways"]["onnx"]["equal"] for one in classifier["comparisons"].values()
            ),
            "the servers answer as Generator": all(
                len(set(one["answers"].values())) == 1 and all(one["answers"].values()) for one in servers["questions"]
            ),
        },
    }


def _faster(measured: Mapping[str, Any]) -> dict[str, str]:
    """Return, for each comparison, the ways that are FASTER times as fast as ours in float32, at equal answers."""
    found = {}
    for name, one in measured["comparisons"].items():
        faster = [way for way, its in one["ways"].items() if its["equal"] and its["times_as_fast"] > FASTER]
        found[name] = ", ".join(faster) or "none"
    return found


# --- the classifier --------------------------------------------------------------------------------------------------


def _classifier(settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    import torch

    from ftlab.inference import Classifier
    from ftlab.models import batches, devices
    from ftlab.serving import onnx_classifier

    model = folder / "classifier"
    short = _train_classifier(settings, model)
    texts = {"short": short, "imdb": _imdb(settings["texts"]["imdb"])}
    written = {"onnx": folder / "float32.onnx", "onnx_int8": folder / "int8.onnx"}
    exports = {
        name: onnx_classifier.export(str(model), file, short[:32], int8="int8" in name)
        for name, file in written.items()
    }
    most = settings["read_to"]
    ways = {
        "full": Classifier(str(model), device="cpu", dtype=torch.float32, max_length=most),
        "half": Classifier(str(model), device="cpu", dtype=devices.answer_dtype(), max_length=most),
        **{name: onnx_classifier.OnnxClassifier(str(model), file, max_length=most) for name, file in written.items()},
    }
    comparisons = {}
    for name, some in texts.items():
        encodings = ways["full"].tokenizer(some, truncation=True, max_length=most)
        runs = {
            way: partial(batches.run, one.model, one.tokenizer, encodings, batches.softmax) for way, one in ways.items()
        }
        seconds, answers = _in_turn(runs, settings["rounds"] + 1)
        labels = {way: found.argmax(axis=1) for way, found in answers.items()}
        comparisons[name] = {
            "texts": len(some), "tokens": sum(map(len, encodings["input_ids"])),
            "ways": {
                way: {
                    "texts_per_second": round(len(some) / min(times), 1), "seconds_of_each_round": times,
                    "times_as_fast": round(min(seconds["full"]) / min(times), 2),
                    "labels_that_agree": float((labels[way] == labels["full"]).mean()),
                    "equal": bool((labels[way] == labels["full"]).all()),
                    "largest_difference_in_probability": float(abs(answers[way] - answers["full"]).max()),
                }
                for way, times in seconds.items()
            },
        }  # fmt: skip
    return {
        "threads": torch.get_num_threads(), "half": str(ways["half"].model.dtype).removeprefix("torch."),
        "megabytes": {name: round(one.size / 1e6, 1) for name, one in exports.items()},
        "certificates": {name: one.line() for name, one in exports.items()}, "comparisons": comparisons,
    }  # fmt: skip


def _train_classifier(settings: Mapping[str, Any], folder: Path) -> list[str]:
    """Train on reviews, save the model, and return other reviews."""
    from ftlab.data import sources, splits
    from ftlab.training import classification

    rows, test_rows = settings["training"]["rows"], settings["texts"]["short"]
    drawn = splits.split(sources.load("reviews", seed=0), rows=rows, validation_rows=2, test_rows=test_rows, seed=0)
    with tempfile.TemporaryDirectory() as work:
        trainer = classification.fine_tune(
            drawn.train, work, model=settings["encoder"], max_length=TRAINED_TO, epochs=settings["training"]["epochs"],
            batch_size=16, learning_rate=2e-4,
        )  # fmt: skip
        trainer.save_model(str(folder))
    return list(drawn.open_test("label texts on several engines, and choose nothing")["text"])


def _imdb(count: int) -> list[str]:
    from ftlab.data import sources, splits

    drawn = splits.split(sources.load("imdb", seed=0), rows=4, validation_rows=2, test_rows=count, seed=0)
    return list(drawn.open_test("label texts on several engines, and choose nothing")["text"])


# --- the language model ----------------------------------------------------------------------------------------------


def _exports(settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Train an adapter, merge it, and export it in each type; and the tiny models. Return their certificates."""
    from ftlab.commands.merge import comparison_texts
    from ftlab.errors import CourseError
    from ftlab.merging import merge as merging
    from ftlab.models import loading
    from ftlab.serving import export

    base, seconds = loading.folder(settings["model"]), {}
    passages = comparison_texts(None, "")[: settings["passages"]]
    _, seconds["training"] = _timed(lambda: _train_adapter(settings, folder / "adapter"))
    _, seconds["merge"] = _timed(lambda: merging.merge(base, folder / "adapter", folder / "merged"))
    made = {f"{settings['model']}_{type}": (folder / "merged", type) for type in settings["types"]}
    made |= {f"{name}_f32".replace("-", "_"): (loading.folder(name), "f32") for name in settings["tiny"]}
    certificates = {}
    for name, (model, type) in made.items():
        out = folder / f"{type}.gguf" if model == folder / "merged" else folder / f"{model.name}.gguf"
        try:
            found, seconds[name] = _timed(partial(export.export, model, out, type=type, prompts=passages))
            certificates[name] = {"line": found.certificate.line(), **found.certificate.record()}
        except CourseError as problem:
            certificates[name] = {"line": str(problem), "type": type, "ok": False}
    return {"seconds": {name: round(one, 1) for name, one in seconds.items()}, "certificates": certificates}


def _train_adapter(settings: Mapping[str, Any], folder: Path) -> None:
    """Train an adapter as lesson 06 does where lesson 05 has left none."""
    from peft import get_peft_model
    from transformers import set_seed

    from ftlab.adapters import lora
    from ftlab.data import alpaca_chat, prompts, tasks
    from ftlab.models import loading
    from ftlab.training import sft

    how, model = settings["adapter"], settings["model"]
    tokenizer = loading.tokenizer(model)
    drawn = tasks.load("tutor", rows=how["rows"], validation_rows=8, test_rows=8, seed=0, at_most=True)
    encoded, _ = prompts.encode(drawn.train, tokenizer, max_length=how["max_length"])
    set_seed(0)  # a new adapter is drawn at random
    base = loading.causal_lm(model)
    wrapped = get_peft_model(base, lora.config(base, rank=how["rank"], alpha=how["alpha"]))
    with tempfile.TemporaryDirectory() as work:
        sft.fine_tune(
            wrapped, tokenizer, encoded, work, max_length=how["max_length"], epochs=1, batch_size=how["batch_size"],
            learning_rate=how["learning_rate"], seed=0,
        )  # fmt: skip
    asked_in = alpaca_chat.with_template(tokenizer, prompts.ALPACA).chat_template
    lora.save(wrapped, folder, model, chat_template=asked_in)


def _generator(settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Tokens a second of `Generator`, in full and half precision, and of llama.cpp in each type."""
    import torch

    from ftlab.data import prompts, tasks
    from ftlab.inference import Generator
    from ftlab.models import devices

    rows = sorted(tasks.read("tutor").to_dict("records"), key=lambda row: len(prompts.ALPACA.prompt(row)))
    rows = rows[:: len(rows) // settings["at_once"]][: settings["at_once"]]
    texts = [prompts.ALPACA.prompt(row) for row in rows]
    new, threads = settings["new_tokens"], torch.get_num_threads()
    ways = {
        "generator": Generator.load(folder / "merged", device="cpu"),
        "generator_half": Generator.load(folder / "merged", device="cpu", dtype=devices.answer_dtype()),
    }
    ids = [prompts.prompt_ids(text, ways["generator"].tokenizer) for text in texts]
    some = range(0, len(texts), len(texts) // settings["singly"])[: settings["singly"]]
    comparisons = {}
    for name, chosen, at_once in (("one_prompt", some, 1), ("all_at_once", range(len(texts)), len(texts))):
        asked, asked_ids = [texts[place] for place in chosen], [ids[place] for place in chosen]
        with _engines(settings["types"], folder, slots=at_once, threads=threads) as engines:
            runs: dict[str, Callable[[], Any]] = {
                way: partial(_by_generator, one, asked, new, at_once) for way, one in ways.items()
            }
            runs |= {way: partial(_by_engine, one, asked_ids, new) for way, one in engines.items()}
            seconds, answers = _in_turn(runs, settings["rounds"])
        comparisons[name] = {
            "prompts": len(asked), "ways": _speeds(seconds, answers),
        }  # fmt: skip
    return {"threads": threads, "half": str(ways["generator_half"].model.dtype).removeprefix("torch."),
            "llama_cpp_keeps_keys_and_values_in": _cache_type(), "comparisons": comparisons}  # fmt: skip


def _cache_type() -> str:
    """The type of llama.cpp's keys and values, where `Engine` leaves it as llama.cpp has it."""
    import xllamacpp

    return xllamacpp.CommonParams().cache_type_k.name.removeprefix("GGML_TYPE_").lower()


def _by_generator(generator: Any, prompts: list[str], new: int, at_once: int) -> list[tuple[str, bool, int]]:
    """The text of each answer, whether it ended, and its number of tokens."""
    found = generator.answer(prompts, max_new_tokens=new, batch_size=at_once, tokens=10**9)
    return [(one.text, one.stopped, one.tokens) for one in found]


def _by_engine(engine: Any, prompts: list[list[int]], new: int) -> list[tuple[str, bool, int]]:
    """The same by llama.cpp."""
    return [(one.text, one.stopped, len(one.ids)) for one in engine.write(prompts, max_new_tokens=new)]


def _speeds(seconds: Mapping[str, list[float]], answers: Mapping[str, list[Any]]) -> dict[str, Any]:
    """Tokens a second of each way, beside those of `Generator`, and how many of its answers are the same."""
    rates = {way: sum(size for *_, size in answers[way]) / min(times) for way, times in seconds.items()}
    found = {}
    for way, times in seconds.items():
        same = sum(one[:2] == other[:2] for one, other in zip(answers[way], answers["generator"], strict=True))
        found[way] = {
            "tokens_per_second": round(rates[way], 1), "tokens": sum(size for *_, size in answers[way]),
            "seconds_of_each_round": times, "times_as_fast": round(rates[way] / rates["generator"], 2),
            "answers_that_agree": round(same / len(answers[way]), 4), "equal": same == len(answers[way]),
        }  # fmt: skip
    return found


@contextmanager
def _engines(types: list[str], folder: Path, *, slots: int, threads: int) -> Iterator[dict[str, Any]]:
    from ftlab.serving.llama_cpp import Engine

    with ExitStack() as stack:
        yield {
            f"llama_cpp_{type}": stack.enter_context(Engine(folder / f"{type}.gguf", slots=slots, threads=threads))
            for type in types
        }


def _servers(settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The answers of `transformers serve`, of llama.cpp's server and of `Generator` to the same questions."""
    from ftlab.inference import Generator
    from ftlab.serving.llama_cpp import Engine
    from tests.serving.servers import chat, transformers_serve

    new, merged = settings["new_tokens"], folder / "merged"
    generator = Generator.load(merged, device="cpu")
    asked = {"temperature": 0, "max_tokens": new}
    answers = {"Generator": [one.text for one in generator.answer(QUESTIONS, chat=True, max_new_tokens=new)]}
    with transformers_serve(folder / "log.txt") as address:
        answers["transformers serve"] = [chat(address, merged, text, **asked)[0] for text in QUESTIONS]
    with Engine(folder / f"{settings['types'][0]}.gguf", exact=True) as engine:
        answers["llama.cpp"] = [chat(engine.address, "model", text, **asked)[0] for text in QUESTIONS]
    questions = [
        {"question": text, "answers": {name: found[place] for name, found in answers.items()}}
        for place, text in enumerate(QUESTIONS)
    ]
    return {"questions": questions}


def _wrong(settings: Mapping[str, Any], folder: Path) -> dict[str, list[str]]:
    """Spoil an export in one way after another. Return what the certificate has against each, and against it whole."""
    from ftlab.commands.merge import comparison_texts
    from ftlab.models import loading
    from ftlab.serving import export_certificate, gguf_files
    from tests.serving import wrong_gguf

    right, merged = folder / f"{settings['types'][0]}.gguf", folder / "merged"
    architecture = gguf_files.read(right).architecture
    heads = loading.config(str(merged)).num_attention_heads
    other = "{% for message in messages %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% endfor %}"
    query, key = "blk.0.attn_q.weight", "blk.1.attn_q.weight"
    changes: dict[str, dict[str, Any]] = {
        "EOS dropped": {"values": {"tokenizer.ggml.eos_token_id": None}},
        "BOS added": {"values": {"tokenizer.ggml.add_bos_token": True}},
        "template of another model": {"values": {"tokenizer.chat_template": other}},
        "vocabulary one short": {"values": {"tokenizer.ggml.tokens": lambda tokens: tokens[:-1]}},
        "a tensor permuted as for another architecture": {"tensors": {query: wrong_gguf.permuted(heads)}},
        "two layers swapped": {"tensors": wrong_gguf.swapped(right, query, key)},
        "another base of its positions": {"values": {f"{architecture}.rope.freq_base": 500.0}},
    }
    passages = comparison_texts(None, "")[:1]

    def failures(file: Path, model: Path) -> list[str]:
        return export_certificate.certify(file, model, passages, max_new_tokens=8).failures()

    base = loading.folder(settings["model"])
    found = {RIGHT: failures(right, merged), "file of another fine-tune": failures(right, base)}
    for name, change in changes.items():
        file = wrong_gguf.rewrite(right, folder / "wrong.gguf", **change)
        found[name] = failures(file, merged)
        file.unlink()
    return found


# --- timing ----------------------------------------------------------------------------------------------------------


def _in_turn(runs: Mapping[str, Callable[[], Any]], rounds: int) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Run all in turn, `rounds` times. Return the seconds of each round, and the last results."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    results = {}
    for _ in range(rounds):
        for name, work in runs.items():
            results[name], taken = _timed(work)
            seconds[name].append(round(taken, 3))
    return seconds, results


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """The result of `work`, and its seconds."""
    began = time.perf_counter()
    return work(), time.perf_counter() - began


if __name__ == "__main__":
    from ftlab.progress import quiet

    quiet()
    sys.path.insert(0, str(Path(__file__).parents[1]))  # the servers and the wrong files are those of the tests
    what, place = sys.argv[1], Path(sys.argv[2])
    work = {
        "classifier": _classifier,
        "exports": _exports,
        "generator": _generator,
        "servers": _servers,
        "wrong": _wrong,
    }
    print(json.dumps(work[what](json.loads((place / SETTINGS).read_text(encoding="utf-8")), place)))
