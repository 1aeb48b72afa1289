"""ftlab export: write a language model as GGUF, for llama.cpp and Ollama, and keep it only if it answers the same."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

from ftlab import files
from ftlab.commands.merge import add_comparison, comparison_texts
from ftlab.wording import printable


def add(commands: Any) -> None:
    """Add the command and its options to `commands`, the subparsers of the command line."""
    export = commands.add_parser("export", help="write a language model as GGUF for llama.cpp and Ollama, certified")
    export.add_argument("model", help="a folder, a model of the course, or an adapter's folder that names its base")
    export.add_argument("out", type=Path, metavar="OUT.gguf", help="the new file (with --check: the file to compare)")
    export.add_argument("--adapter", type=Path, metavar="DIR", help="a LoRA adapter to merge into the model first")
    export.add_argument(
        "--type", default=None, metavar="T", help="how the weights are stored: f32, f16, bf16 or q8_0 (default: f16)"
    )
    add_comparison(export)
    export.add_argument(
        "--check", action="store_true", help="write nothing: compare an OUT.gguf of any converter with the model"
    )
    export.add_argument("--json", action="store_true", help="one JSON object on stdout")
    export.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Export or check, and print the certificate, as the `options` ask. Return the exit code.

    If a new file does not pass, nothing is kept. With --check the exit code is 1 then.

    Raises:
        BadInput: options that do not go together, or a model or a file that cannot be used.
        CheckFailed: a new file does not do what the model does.
    """
    from ftlab.errors import BadInput
    from ftlab.serving import export as exporting

    if options.check and (options.type or options.adapter or options.record_base):
        raise BadInput(
            "--check compares a file that is there with a folder; leave --type, --adapter and --record-base out"
        )
    options.out = files.named_path(str(options.out), "another file")[0]
    texts = comparison_texts(options.prompts, options.prompt)
    if options.check:
        found = exporting.certify(options.out, options.model, texts)
        print(files.to_json(found.record(), ascii_only=True) if options.json else printable(found.markdown()))
        return 1 if found.failures() else 0
    made = exporting.export(
        options.model, options.out, type=options.type or exporting.DEFAULT_TYPE, adapter=options.adapter,
        record_base=options.record_base, prompts=texts,
    )  # fmt: skip
    modelfile = str(made.modelfile) if made.modelfile else None
    if options.json:
        said = {"out": str(options.out), "modelfile": modelfile, "merge": made.merged.record() if made.merged else None}
        print(files.to_json({**said, **made.certificate.record()}, ascii_only=True))
        return 0
    if made.merged:
        print(printable(made.merged.markdown()))
    print(printable(made.certificate.markdown()))
    record = options.out.with_name(options.out.stem + exporting.RECORD)
    print(printable(f"the export: {options.out}; its certificate: {record}"))
    if made.modelfile:
        beside = options.out.with_name(made.modelfile.name)
        print(printable(f"for Ollama: ollama create NAME -f {shlex.quote(str(beside))}"))
    else:
        print(printable(f"no Modelfile: {made.no_modelfile}"))
    return 0
