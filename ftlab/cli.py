"""The command line: small, stable, one JSON object on request, one sentence when something is wrong.

Exit code 0: fine. 1: the answer is no. 2: the question was wrong.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from ftlab import __version__, files
from ftlab.commands import generate, merge, predict
from ftlab.errors import BadInput, CourseError
from ftlab.progress import quiet


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # argparse takes -5 for a value, and -2e-5 for an option that it does not know (until Python 3.14).
        self._negative_number_matcher = re.compile(r"^-\.?\d")

    def error(self, message: str) -> NoReturn:
        """One line, and not the whole usage before it."""
        self.exit(2, f"ftlab: {message}; see {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = _parser().parse_args(arguments)
    quiet()
    try:
        return options.command(options)
    except CourseError as problem:
        print(f"ftlab: {problem}", file=sys.stderr)
        return problem.exit_code
    except BrokenPipeError:  # whoever read along, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("ftlab: stopped", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="ftlab", description="A course on fine-tuning language models.")
    parser.add_argument("--version", action="version", version=f"ftlab {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)

    doctor = commands.add_parser("doctor", help="look at this machine and say what to do")
    doctor.add_argument("--json", action="store_true", help="one JSON object on stdout")
    doctor.set_defaults(command=_doctor)

    fetch = commands.add_parser("fetch", help="download the pinned weights and reviews into the cache")
    fetch.set_defaults(command=_fetch)

    audit = commands.add_parser("audit", help="find what is wrong with the rows of a file")
    audit.add_argument("file", help="training rows: a CSV, TSV, JSONL or Parquet file, or a data set of the course")
    audit.add_argument("--validation", metavar="FILE", help="validation rows, to look for texts that stand in both")
    audit.add_argument("--test", metavar="FILE", help="test rows, to look for texts that stand in both")
    audit.add_argument("--text", default="text", metavar="COL", help="the column of the texts (default: text)")
    audit.add_argument("--label", default="label", metavar="COL", help="the column of the labels (default: label)")
    audit.add_argument(
        "--prompt",
        nargs="+",
        metavar="COL",
        help=(
            "instruction data: the columns of the prompt; tokens are counted with the course's template around them, "
            "which takes the column called instruction, or else the first, for the instruction, and the others for its "
            "input"
        ),
    )
    audit.add_argument("--completion", metavar="COL", help="instruction data: the column of the answer")
    audit.add_argument(
        "--tokenizer", metavar="NAME",
        help="a model of the course, a folder, or a hub id, of which no weights are fetched: counts tokens",
    )  # fmt: skip
    audit.add_argument("--max-length", type=int, metavar="N", help="in tokens; says what is cut and what it costs")
    audit.add_argument("--json", action="store_true", help="one JSON object on stdout, with the ids of all rows")
    audit.add_argument("--html", type=Path, metavar="OUT", help="write the report as a web page")
    audit.add_argument("--fail-on", choices=("error", "warning"), help="leave with 1 on a finding as bad as this")
    audit.set_defaults(command=_audit)

    predict.add(commands)
    generate.add(commands)
    merge.add(commands)

    run = commands.add_parser("run", help="run lessons from start to end, without Jupyter")
    run.add_argument("lesson", nargs="*", help="number or name of a lesson; all of them when none is named")
    run.add_argument("--profile", default="cpu", help="smoke, cpu (default) or gpu")
    run.add_argument(
        "-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
        help="set a parameter of the notebook; the value is read as YAML",
    )  # fmt: skip
    run.add_argument("-y", "--yaml", action="append", default=[], help="set parameters by YAML: 'rows: 400'")
    run.add_argument("-f", "--file", action="append", default=[], type=Path, help="set parameters from a YAML file")
    run.add_argument("--out", type=Path, help="folder of the results (default: runs/<time>-<profile>)")
    run.add_argument("--json", action="store_true", help="one JSON object on stdout")
    run.set_defaults(command=_run)

    bench = commands.add_parser("bench", help="run a benchmark of the course and print what it measured")
    bench.add_argument("name", help="name of a module in benchmarks/")
    bench.add_argument("--json", action="store_true", help="one JSON object on stdout")
    bench.add_argument("--save", action="store_true", help="store the result in benchmarks/results/")
    bench.set_defaults(command=_bench)
    return parser


def _doctor(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from ftlab.course import doctor

    checks = doctor.examine()
    if options.json:
        found = {"ok": all(check.ok for check in checks), "checks": [asdict(check) for check in checks]}
        print(files.to_json(found, ascii_only=True))
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            print(f"{'OK  ' if check.ok else 'LOOK'}  {check.name:<{width}}  {check.found}")
            if not check.ok:
                print(f"      {'':<{width}}  -> {check.todo}")
    return 0 if all(check.ok for check in checks) else 1


def _fetch(options: argparse.Namespace) -> int:
    from ftlab.data import assets

    fetched = assets.fetch()
    for name, asset in assets.ASSETS.items():
        print(f"{name}: {'fetched' if name in fetched else 'already here'}, {asset.folder}")
    return 0


def _audit(options: argparse.Namespace) -> int:
    from functools import partial

    from ftlab.data import sources
    from ftlab.data.audit import audit, audit_instructions
    from ftlab.models import loading

    if bool(options.prompt) != bool(options.completion):
        raise BadInput("instruction data needs both --prompt and --completion; rows with labels need neither")
    if options.max_length is not None and options.max_length < 8:
        raise BadInput(f"--max-length is {options.max_length}; expected at least 8 tokens")
    if options.max_length is not None and not options.tokenizer:
        raise BadInput("--max-length counts tokens: name the tokenizer that counts them with --tokenizer")
    if options.tokenizer:
        loading.check_tokenizer(options.tokenizer)
    if options.file in sources.SOURCES and (options.text, options.label) != ("text", "label"):
        raise BadInput(f"{options.file} is a data set of the course, whose columns are text and label; leave them out")
    examine: Any = audit
    columns = {"text_column": options.text, "label_column": options.label}
    read: Any = partial(
        sources.read,
        **columns,
        advice="name the right ones with --text and --label, or, of instruction data, with --prompt and --completion",
    )
    if options.prompt:
        examine = audit_instructions
        columns = {"prompt_columns": options.prompt, "completion_column": options.completion}
        read = partial(sources.read_pairs, **columns, advice="name the right ones with --prompt and --completion")
    rows = read(options.file)
    if note := rows.attrs["provenance"].note:
        print(f"ftlab: {note}", file=sys.stderr)
    others = {name: read(file) for name in ("validation", "test") if (file := getattr(options, name))}
    lengths: dict[str, Any] = {}
    if options.tokenizer:
        lengths = {"tokenizer": loading.bare_tokenizer(options.tokenizer), "max_length": options.max_length}
        if (loading.tokenizer_folder(options.tokenizer) / "config.json").is_file():
            lengths["hidden_size"] = loading.hidden_size(options.tokenizer)
    report = examine(rows, **others, **lengths)
    if options.html:
        with files.atomic(options.html) as temporary:
            temporary.write_text(report.html(f"Audit of {options.file}"), encoding="utf-8")
    print(files.to_json(report.to_dict(), ascii_only=True) if options.json else report)
    if options.html and not options.json:
        print(f"\nthe report as a page: {options.html}")
    return 1 if options.fail_on and report.at_least(options.fail_on) else 0


def _run(options: argparse.Namespace) -> int:
    from ftlab.course import runner

    parameters = _parameters(options)
    profile = str(parameters.pop("profile", options.profile))
    folder, results = runner.run(
        options.lesson, profile=profile, parameters=parameters, out=options.out, watch=not options.json
    )
    if options.json:
        lessons = [
            {
                "lesson": result.lesson,
                "seconds": round(result.seconds, 1),
                "peak_memory_mb": result.peak_memory_mb,
                "headline": result.headline,
                "metrics": result.metrics["metrics"],
                "claims": result.metrics["claims"],
                "notebook": str(result.notebook),
            }
            for result in results
        ]
        print(files.to_json({"folder": str(folder), "profile": profile, "lessons": lessons}, ascii_only=True))
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table("lesson", "minutes", "memory", "result", title=f"profile {profile}")
    for result in results:
        memory = f"{result.peak_memory_mb / 1000:.1f} GB"
        table.add_row(result.lesson, f"{result.seconds / 60:.1f}", memory, result.headline)
    Console().print(table)
    print(f"notebooks, metrics and records: {folder}")
    return 0


def _bench(options: argparse.Namespace) -> int:
    from ftlab.course import bench

    result = bench.run(options.name, save=options.save)
    shown = result if options.json else result["result"]
    print(files.to_json(shown, indent=None if options.json else 2, ascii_only=True))
    return 0


def _parameters(options: argparse.Namespace) -> dict[str, Any]:
    """The parameters of -f, -y and -p, in this order; the later one wins.

    A parameter that is text is the text that stands there, whatever YAML makes of it: a column may be called 1 or yes.
    """
    import yaml

    from ftlab.course.profiles import PARAMETERS

    def as_meant(name: str, value: Any, written: Any) -> Any:
        is_text = name in PARAMETERS and PARAMETERS[name].kind is str
        return written if is_text and isinstance(written, str) and value is not None else value

    def mapping(text: str, where: str) -> dict[str, Any]:
        try:
            loaded, written = yaml.safe_load(text), yaml.load(text, yaml.BaseLoader)
        except (yaml.YAMLError, ValueError) as problem:  # a ValueError for 2024-13-45, which is no date
            raise BadInput(
                f"{where} is not YAML ({' '.join(str(problem).split())}); expected 'name: value'"
            ) from problem
        if not isinstance(loaded, dict):
            raise BadInput(f"{where} is {text.strip()[:60]!r}; expected 'name: value'")
        return {name: as_meant(name, value, written.get(name)) for name, value in loaded.items()}

    parameters: dict[str, Any] = {}
    for path in options.file:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as problem:
            raise BadInput(f"the parameter file {path} cannot be read ({problem}); expected a YAML file") from problem
        parameters |= mapping(text, f"the parameter file {path}")
    for text in options.yaml:
        parameters |= mapping(text, "--yaml")
    for name, value in options.parameter:
        try:
            parameters[name] = as_meant(name, yaml.safe_load(value), yaml.load(value, yaml.BaseLoader))
        except (yaml.YAMLError, ValueError):
            parameters[name] = value  # a path such as "[draft] reviews.csv" is text
    return parameters


if __name__ == "__main__":
    sys.exit(main())
