"""ftlab generate: answer the prompts of a file with a language model, with or without an adapter."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlab import files
from ftlab.errors import BadInput
from ftlab.wording import printable

if TYPE_CHECKING:
    from ftlab.inference.generator import Generator


def add(commands: Any) -> None:
    """Add the command and its options to `commands`, the subparsers of the command line."""
    generate = commands.add_parser("generate", help="answer the prompts of a file with a language model")
    generate.add_argument("model", help="a folder that a lesson saved, a model of the course, or a hub id")
    generate.add_argument(
        "file", nargs="?", default="-", help="CSV, TSV, JSONL or .txt (default: one prompt a line on stdin)"
    )
    generate.add_argument("--adapter", type=Path, metavar="DIR", help="a LoRA adapter that was trained on this model")
    generate.add_argument(
        "--record-base", action="store_true", help="record this model as the base, in the adapter's folder"
    )
    generate.add_argument("--prompt", default="prompt", metavar="COL", help="the column of the prompts")
    generate.add_argument(
        "--instruct", action="store_true", help="put each prompt into the course's instruction format"
    )
    generate.add_argument("--chat", action="store_true", help="put each prompt into the model's own chat template")
    generate.add_argument("--system", metavar="TEXT", help="with --chat: the system message")
    generate.add_argument(
        "--max-new-tokens", type=int, default=128, metavar="N", help="the longest answer (default: 128)"
    )
    generate.add_argument("--temperature", type=float, metavar="T", help="draw tokens (default: the most likely)")
    generate.add_argument("--seed", type=int, metavar="S", help="seed of the drawn tokens (default: 0)")
    generate.add_argument("--batch-size", type=int, metavar="N", help="the most prompts in a batch")
    generate.add_argument("--json", action="store_true", help="one JSON object a line, with prompt, stopped and tokens")
    generate.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Write the answers to stdout, in the order of the prompts, as the `options` ask. Return the exit code.

    Raises:
        BadInput: options that do not go together, or prompts, a model or an adapter that cannot be used.
    """
    import pandas as pd

    from ftlab.data import streams
    from ftlab.models.generation import Sampling

    if options.record_base and options.adapter is None:
        raise BadInput("--record-base needs an adapter; name its folder with --adapter, or leave --record-base out")
    if options.seed is not None and options.temperature is None:
        raise BadInput("--seed needs tokens that are drawn; add a --temperature, or leave --seed out")
    sampling = None if options.temperature is None else Sampling(options.seed or 0, options.temperature)
    for name, value in (("--max-new-tokens", options.max_new_tokens), ("--batch-size", options.batch_size)):
        if value is not None and value < 1:
            raise BadInput(f"{name} is {value}; expected at least 1")
    if options.chat and options.instruct:
        raise BadInput("--chat is the model's own format and --instruct that of the course; give one of them")
    if options.system is not None and not options.chat:
        raise BadInput("--system needs a chat; add --chat, or leave --system out")
    if options.adapter:
        options.adapter = files.named_path(str(options.adapter), "the folder of an adapter")[0]
    parts = list(streams.chunks(options.file, options.prompt, advice="name the column of the prompts with --prompt"))
    from ftlab.inference.generator import Generator, require_prompts

    given = [text for part in parts for text in streams.texts(part, options.prompt)]
    source, unit = _source(options.file)
    require_prompts(given, where=lambda place: f"{source}, {unit} {place + 1}: prompt {place}")
    if options.record_base:
        from ftlab.adapters import lora

        lora.record_fitting_base(options.adapter, options.model)
    generator = Generator.load(options.model, options.adapter)
    _report_unused(generator, options)
    prompts = [generator.prompt(text) for text in given] if options.instruct else given
    answers = generator.answer(
        prompts, chat=options.chat, system=options.system, max_new_tokens=options.max_new_tokens, sampling=sampling,
        batch_size=options.batch_size,
    )  # fmt: skip
    if options.json:
        lines = [(prompt, one.text, one.stopped, one.tokens) for prompt, one in zip(given, answers, strict=True)]
        with streams.writer(None) as write:
            write(pd.DataFrame(lines, columns=["prompt", "answer", "stopped", "tokens"]))
    else:
        several = sum("\n" in answer.text for answer in answers)
        if several and len(answers) > 1:  # a reader could not assign the lines to the prompts
            print(
                f"ftlab: {several:,} of {len(answers):,} answers have more than one line; --json keeps each on one",
                file=sys.stderr,
            )
        text = "\n".join(answer.text for answer in answers)
        if sys.stdout.isatty():
            text = printable(text)
        else:  # a file or a program gets what the model said
            streams.write_utf8()
        print(text)
    return 0


def _source(file: str) -> tuple[str, str]:
    """Return the name of the file in messages, and the unit in which they count."""
    if file == "-":
        return "stdin", "line"
    return file, "line" if file.lower().endswith(".txt") else "row"


def _report_unused(generator: Generator, options: argparse.Namespace) -> None:
    """Report, on stderr, a format that the model may not know, and a generation config that is not used."""
    from ftlab.models.generation import own_rules

    if doubt := _doubt(generator, options):
        print(f"ftlab: {printable(doubt)}", file=sys.stderr)
    if rules := own_rules(generator.model):
        said = ", ".join(f"{name} {value}" for name, value in rules.items())
        print(
            f"ftlab: {printable(options.model)} has a generation config with {printable(said[:200])}; it is ignored, "
            "so that all models answer by the same rules",
            file=sys.stderr,
        )


def _doubt(generator: Generator, options: argparse.Namespace) -> str:
    """Return why the model may not know the format of the prompts, in one sentence; "" if there is no doubt."""
    from ftlab.data import alpaca_chat, chat

    own = generator.chat_template
    if own and not (options.chat or options.instruct):
        return (
            f"{options.model} has a chat template, and the prompts are used without it; --chat puts each into it, "
            "--instruct into the course's format"
        )
    if own and options.instruct and not alpaca_chat.is_alpaca(own):
        return (
            f"{options.adapter or options.model} has a chat template, which is another format than --instruct; if it "
            "was trained in its own, ask with --chat"
        )
    if options.chat and options.adapter and not chat.of_folder(options.adapter):
        return (
            f"{options.adapter} does not say in which format it was trained, so the chat template is that of "
            f"{options.model}; --instruct asks in the format of the course's lessons"
        )
    return ""
