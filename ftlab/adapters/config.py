"""An adapter's `adapter_config.json` and `base.json`, read strictly: types, ranges and unsupported settings.

PEFT ignores an unknown setting with a warning, and accepts a string in place of a number until something breaks. Here
each setting must have the type of PEFT's own dataclass. A setting that is in force and unsupported is refused: without
it the adapter would be another one.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, get_type_hints

from ftlab.adapters.json_values import fits, read_object, words
from ftlab.errors import BadInput
from ftlab.internals import peft as peft_internals
from ftlab.models import model_files
from ftlab.wording import one_line, quoted, shown, some

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedTokenizerBase

CONFIG, WEIGHTS, BASE = "adapter_config.json", "adapter_model.safetensors", "base.json"
MANY = 500  # entries of a list that are matched with each module's name; Python caches about as many expressions
PATIENCE = 2.0  # seconds for all regular expressions of a config; real ones take milliseconds
# Settings of a LoRA adapter that are supported here (FOLLOWED), or that do not change its result (SILENT). Any other
# setting in force makes another kind of adapter (aLoRA, VeLoRA, trained token rows, ...), of this PEFT or a later one.
FOLLOWED = {
    "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "target_modules", "modules_to_save",
    "bias", "fan_in_fan_out", "exclude_modules", "layers_to_transform", "layers_pattern", "init_lora_weights",
}  # fmt: skip
APART = {"lora_bias"}  # supported for an unmerged adapter, not in a merge from file to file
SILENT = {
    "peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    "lora_dropout", "loftq_config", "eva_config", "corda_config", "lora_ga_config", "megatron_core", "runtime_config",
    "qalora_group_size", "ensure_weight_tying",
}  # fmt: skip
# The others (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA, MiCA) also change the base's weights each time the adapter is loaded.
INITS_THAT_LEAVE_THE_BASE = {"True", "False", "gaussian", "eva", "orthogonal"}
INITS_MADE_AGAIN = {"pissa", "olora"}  # computed from the base's weights alone, so the same each time
TASKS_OF = {
    "ForCausalLM": {"CAUSAL_LM"}, "LMHeadModel": {"CAUSAL_LM"},
    # Sequence to sequence, or text and images read by a decoder (Gemma 3).
    "ForConditionalGeneration": {"SEQ_2_SEQ_LM", "CAUSAL_LM"},
    "ForSequenceClassification": {"SEQ_CLS"}, "ForTokenClassification": {"TOKEN_CLS"},
    "ForQuestionAnswering": {"QUESTION_ANS"},
}  # fmt: skip
KINDS = {
    "SEQ_CLS": "a classifier", "TOKEN_CLS": "a token classifier", "QUESTION_ANS": "a question answerer",
    "SEQ_2_SEQ_LM": "a sequence-to-sequence model", "CAUSAL_LM": "a causal language model",
    "FEATURE_EXTRACTION": "a model that computes features",
}  # fmt: skip
# In place of PEFT's hints that are too narrow or too wide: alpha may be a fraction; patterns have typed values.
TYPES: dict[str, Any] = {
    "lora_alpha": float, "rank_pattern": dict[str, int] | None, "alpha_pattern": dict[str, float] | None,
    "init_lora_weights": bool | str,
}  # fmt: skip
USED = FOLLOWED | APART | {"task_type", "base_model_name_or_path", "revision", "lora_dropout", "ensure_weight_tying"}
BACKTRACKS = re.compile(r"[*+?{|]")  # without these a regular expression is as quick as a comparison


def read(folder: Path) -> LoraConfig:
    """Return the config of the LoRA adapter in `folder`. Other files are not opened.

    Raises:
        BadInput: the folder is not an adapter; or its config is not a JSON object with values of the right types
            (strictly: no NaN, no name twice), is not of a LoRA adapter, or has an unsupported setting.
    """
    from peft import LoraConfig

    folder = Path(folder)
    _require_files(folder)
    path = folder / CONFIG
    settings = read_object(path, "is no LoRA config", "save the adapter again")
    if (kind := settings.get("peft_type")) is None:
        raise BadInput(f"{path} is no LoRA config: it has no peft_type; expected LORA: save the adapter again")
    if kind != "LORA":
        raise BadInput(
            f"{path} is no LoRA config: it is of type {shown(kind)}, and only LORA (rsLoRA and DoRA too) can be used "
            "here; use PEFT itself (`PeftModel.from_pretrained`, `merge_and_unload`)"
        )
    if strange := sorted(name for name, value in settings.items() if value and name not in FOLLOWED | APART | SILENT):
        raise BadInput(
            f"{path} sets {some(strange)}, which ftlab does not support, neither merged nor unmerged; use PEFT itself "
            "(`PeftModel.from_pretrained`, `merge_and_unload`), in the release that wrote the adapter"
        )
    asked = _typed(path, settings, get_type_hints(LoraConfig) | TYPES)
    _require_numbers(path, asked)
    _require_targets(path, asked)
    init = str(asked.get("init_lora_weights", True))
    if init not in INITS_THAT_LEAVE_THE_BASE | INITS_MADE_AGAIN:
        raise BadInput(
            f"{path} has init_lora_weights={shown(init)}, which also changes the base's weights, in a way that cannot "
            "be made again; convert the adapter to plain LoRA (path_initial_model_for_weight_conversion of PEFT's "
            "`save_pretrained`)"
        )
    if init in INITS_THAT_LEAVE_THE_BASE:
        asked["init_lora_weights"] = True  # the factors in the file replace the initial ones, whatever those were
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return LoraConfig(**{name: value for name, value in asked.items() if name in USED})
    except (ValueError, TypeError, KeyError, AttributeError) as problem:
        raise BadInput(f"{path} is no LoRA config ({one_line(problem)}); save the adapter again") from problem


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return the record of the base in the adapter's `folder`, or None if there is no `base.json`.

    It has name, revision, weights_sha256 and architecture.

    Raises:
        BadInput: the file cannot be read, or has values of other types than `base_record.record_base` writes.
    """
    path = Path(folder) / BASE
    if not path.exists() and not path.is_symlink():
        return None
    redo = "save the adapter again"
    record = read_object(path, "cannot be read", redo)
    for name, wanted in (
        ("name", str),
        ("weights_sha256", str),
        ("revision", str | None),
        ("architecture", str | None),
    ):
        if (value := record.get(name)) is None and name in ("name", "weights_sha256"):
            raise BadInput(f"{path} cannot be read: it has no {name}; {redo}")
        if not fits(value, wanted):
            raise BadInput(f"{path} cannot be read: {name} is {quoted(value)}, expected {words(wanted)}; {redo}")
    if not re.fullmatch("[0-9a-f]{64}", record["weights_sha256"]):
        raise BadInput(
            f"{path} cannot be read: weights_sha256 is {quoted(record['weights_sha256'])}, expected 64 hexadecimal "
            f"digits; {redo}"
        )
    return record


def brings_tokenizer(folder: Path) -> bool:
    """Return whether `folder` has a tokenizer, which trainers save with an adapter."""
    known = ("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model", "spiece.model")
    return (folder / "tokenizer_config.json").is_file() and any((folder / name).is_file() for name in known)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer in `folder`. Raises BadInput if it cannot be loaded."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as problem:  # each kind of tokenizer has errors of its own
        raise BadInput(f"the tokenizer in {folder} cannot be loaded ({one_line(problem)}); save it again") from problem


def require_task(config: LoraConfig, architecture: str, folder: Path, base: Any) -> None:
    """Raise BadInput if the adapter in `folder` is for another kind of model (`task_type` of `config`).

    `architecture` is the class of the model, and `base` its name in the message.
    """
    if kind := other_kind(config, architecture):
        raise BadInput(
            f"{folder} is the adapter of {kind}, and {base} is a {architecture}; give the model that the adapter was "
            "trained on"
        )


def other_kind(config: LoraConfig, architecture: str) -> str | None:
    """Return the kind of model that `config` is for, in words, or None if the class `architecture` is of that kind."""
    task = None if config.task_type is None else str(getattr(config.task_type, "value", config.task_type))
    fitting = next((tasks for ending, tasks in TASKS_OF.items() if architecture.endswith(ending)), None)
    if task is None or fitting is None or task in fitting:
        return None
    return f"{KINDS.get(task, 'another kind of model')} (task_type {task})"


def require_patterns(config: LoraConfig, names: Iterable[str], where: Path | str) -> None:
    """Raise BadInput for a regular expression of `config` that is invalid, or whose matching does not end in time.

    PEFT matches the model's modules, `names`, with Python's `re`, where an expression of a few characters can take
    years. So they are matched here first, in a process that can be stopped. `where` is the config in the message.
    """
    names = list(names)
    for field in ("target_modules", "exclude_modules", "modules_to_save", "rank_pattern", "alpha_pattern",
                  "layers_pattern", "layers_to_transform"):  # fmt: skip
        value = getattr(config, field)
        if not isinstance(value, str | int | None) and len(value) > (most := max(MANY, len(names))):
            raise BadInput(
                f"{where} has {len(value):,} entries in {field}, and the model has {len(names):,} modules; "
                f"expected at most {most:,}: name the last parts of their names"
            )
    slow = []
    for one in peft_internals.regular_expressions(config):
        if BACKTRACKS.search(one[2]):
            slow.append(one)
            continue
        try:
            re.compile(one[2])
        except (re.error, OverflowError, RecursionError) as problem:
            _refuse_pattern(where, one, f"is no regular expression ({one_line(problem)})")
    if not slow:
        return
    given = json.dumps({"patterns": [each[2:] for each in slow], "names": names})
    command = [sys.executable, "-I", "-S", "-c", _MATCHING]
    in_time = True
    try:
        said = subprocess.run(command, input=given.encode(), capture_output=True, timeout=PATIENCE, check=False).stdout
    except subprocess.TimeoutExpired as stopped:
        said, in_time = stopped.stdout or b"", False
    lines = said.decode("utf-8", "replace").split("\n")
    if lines[-2:] == ["done", ""]:
        return
    last = slow[max((int(line) for line in lines if line.isdigit()), default=0)]
    if not in_time:
        _refuse_pattern(where, last, f"does not come to an end ({PATIENCE:g} seconds were given)")
    reason = one_line(lines[-1]) if lines[-1] else "it takes too much memory"
    _refuse_pattern(where, last, f"is no regular expression that can be used ({reason})")


# Prints the number of each expression before it is tried, then "done".
_MATCHING = """
import json, re, sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
except (ImportError, ValueError, OSError):
    pass
given = json.load(sys.stdin)
for number, (pattern, way) in enumerate(given["patterns"]):
    print(number, flush=True)
    try:
        matches = getattr(re.compile(pattern), way)
    except (re.error, OverflowError, RecursionError, MemoryError) as problem:
        print(" ".join(str(problem).split()), end="")
        sys.exit(1)
    for name in given["names"]:
        matches(name)
print("done")
"""


def _refuse_pattern(where: Path | str, pattern: tuple[str, str, str, str], reason: str) -> NoReturn:
    field, text = pattern[:2]
    raise BadInput(
        f"{where} has in {field} the pattern {quoted(text)}, which {reason}; name the modules, or the last "
        "parts of their names, instead"
    )


def _require_files(folder: Path) -> None:
    """Raise BadInput unless `folder` has the two files of an adapter. Nothing but a regular file is opened."""
    for name in (CONFIG, WEIGHTS):
        path = folder / name
        if path.is_file():
            continue
        told = f"{folder} is no adapter: it has no {name}"
        if not folder.is_dir():
            told += ", because it is not a folder"
        elif path.exists() or path.is_symlink():
            told += " that is a file (a folder, a pipe, a device or a broken link has that name)"
        if name == WEIGHTS and (pickles := model_files.pickles(folder, "adapter_model")):
            told += f" (only the pickle {pickles[0]}, {model_files.RISK})"
        redo = "give a folder that `lora.save` or PEFT's `save_pretrained` wrote"
        raise BadInput(f"{told}; {redo}" if name == CONFIG else f"{told}; save the adapter again, or {redo}")


def _typed(path: Path, settings: Mapping[str, Any], hints: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that are given. Raises BadInput for a value of another type than its hint.

    Null means the default where PEFT has a bool or a number, as in files of other tools.
    """
    asked = {}
    for name in sorted(settings.keys() & (FOLLOWED | APART | SILENT) - {"runtime_config"}):
        value, hint = settings[name], hints.get(name, Any)
        if value is None and (hint in (bool, float) or name in SILENT) and name != "lora_alpha":
            continue
        if not fits(value, hint):
            above = " above 0" if name in ("r", "lora_alpha") else ""
            raise BadInput(f"{path} has {name}={quoted(value)}; expected {words(hint)}{above}: save the adapter again")
        asked[name] = value
    return asked


def _require_numbers(path: Path, asked: Mapping[str, Any]) -> None:
    """Raise BadInput for a rank, an alpha or a dropout outside of its range."""
    ranks = {"r": asked.get("r"), **_entries(asked, "rank_pattern")}
    scales = {"lora_alpha": asked.get("lora_alpha"), **_entries(asked, "alpha_pattern")}
    for name, value in (ranks | scales).items():
        kind = "a whole number" if name in ranks else "a number"
        if value is None or value <= 0 or (name in ranks and value >= 2**31) or value > sys.float_info.max:
            raise BadInput(f"{path} has {name}={quoted(value)}; expected {kind} above 0: save the adapter again")
    if not 0 <= asked.get("lora_dropout", 0) <= 1:
        raise BadInput(f"{path} has lora_dropout={quoted(asked['lora_dropout'])}; expected a number from 0 to 1")


def _require_targets(path: Path, asked: Mapping[str, Any]) -> None:
    """Raise BadInput if target_modules is given and names nothing: no pattern, no names, or a blank one."""
    targets = asked.get("target_modules")
    names = [targets] if isinstance(targets, str) else targets
    if names is not None and not (names and all(name.strip() for name in names)):
        raise BadInput(
            f"{path} has target_modules={quoted(targets)}; expected names of modules, or the last parts of their "
            "names: save the adapter again"
        )


def _entries(asked: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {f"{name}[{shown(key)}]": value for key, value in (asked.get(name) or {}).items()}
