"""ftlab generate: what a language model, with an adapter or without, answers to the prompts of a file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlab.errors import BadInput

if TYPE_CHECKING:
    from ftlab.inference.generator import Generator


def add(commands: Any) -> None:
    """Add the command to the command line's commands."""
    generate = commands.add_parser("generate", help="let a language model answer the prompts of a file")
    generate.add_argument("model", help="a folder that a lesson saved, a model of the course, or a hub id")
    generate.add_argument(
        "file", nargs="?", default="-", help="CSV, TSV, JSONL or .txt (default: one prompt a line on stdin)"
    )
    generate.add_argument("--adapter", type=Path, metavar="DIR", help="a LoRA adapter that was trained on this model")
    generate.add_argument(
        "--record-base", action="store_true", help="write into the adapter's folder that this model is its base"
    )
    generate.add_argument("--prompt", default="prompt", metavar="COL", help="the column of the prompts")
    generate.add_argument("--instruct", action="store_true", help="put the course's instruction format around each")
    generate.add_argument("--chat", action="store_true", help="put the chat template that the model brings around each")
    generate.add_argument("--system", metavar="TEXT", help="with --chat: what the model is told before")
    generate.add_argument("--max-new-tokens", type=int, default=128, metavar="N", help="the longest answer")
    generate.add_argument("--temperature", type=float, metavar="T", help="draw tokens (default: the likeliest)")
    generate.add_argument("--seed", type=int, metavar="S", help="of what is drawn (default: 0)")
    generate.add_argument("--batch-size", type=int, metavar="N", help="the most prompts at a time")
    generate.add_argument("--json", action="store_true", help="one JSON object a line, with prompt, stopped and tokens")
    generate.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Write the answers to stdout, in the order of the prompts. Returns the exit code."""
    import pandas as pd

    from ftlab.data import streams
    from ftlab.models.generation import Sampling

    if options.record_base and options.adapter is None:
        raise BadInput("--record-base is for an adapter; name its folder with --adapter, or leave --record-base out")
    if options.seed is not None and options.temperature is None:
        raise BadInput("--seed is for tokens that are drawn; add a --temperature, or leave --seed out")
    sampling = None if options.temperature is None else Sampling(options.seed or 0, options.temperature)
    for name, value in (("--max-new-tokens", options.max_new_tokens), ("--batch-size", options.batch_size)):
        if value is not None and value < 1:
            raise BadInput(f"{name} is {value}; expected at least 1")
    if options.chat and options.instruct:
        raise BadInput("--chat is the format of the model's maker and --instruct that of the course; give one of them")
    if options.system is not None and not options.chat:
        raise BadInput("--system is for a chat; add --chat, or leave --system out")
    parts = list(streams.chunks(options.file, options.prompt, advice="name the column of the prompts with --prompt"))
    from ftlab.inference.generator import Generator, require_prompts

    given = [text for part in parts for text in streams.texts(part, options.prompt)]
    source, unit = _source(options.file)
    require_prompts(given, where=lambda place: f"{source}, {unit} {place + 1}: prompt {place}")
    if options.record_base:
        from ftlab.adapters import lora

        lora.record_fitting_base(options.adapter, options.model)
    generator = Generator.load(options.model, options.adapter)
    _say_what_is_left_aside(generator, options)
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
        if several and len(answers) > 1:  # else nobody could tell which line belongs to which prompt
            print(
                f"ftlab: {several:,} of {len(answers):,} answers have more than one line; --json keeps each on one",
                file=sys.stderr,
            )
        print("\n".join(answer.text for answer in answers))
    return 0


def _source(file: str) -> tuple[str, str]:
    """What a message calls the file, and what it counts in it."""
    if file == "-":
        return "stdin", "line"
    return file, "line" if file.lower().endswith(".txt") else "row"


def _say_what_is_left_aside(generator: Generator, options: argparse.Namespace) -> None:
    """Tell, on stderr, of what the model brings and what is not used."""
    from ftlab.models.generation import own_rules

    if generator.chat_template and not (options.chat or options.instruct):
        print(
            f"ftlab: {options.model} brings a chat template, and the prompts go in without it; --chat puts it around "
            "each, --instruct the course's format",
            file=sys.stderr,
        )
    if rules := own_rules(generator.model):
        said = ", ".join(f"{name} {value}" for name, value in rules.items())
        print(
            f"ftlab: {options.model} has a generation config that says {said[:200]}; this is left aside, so that all "
            "models answer by the same rules",
            file=sys.stderr,
        )
