"""What is killed: each thing of ftlab that writes, with tiny models of the real classes, in a folder of its own."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from ftlab import cli, files
from ftlab.data import assets
from ftlab.errors import CourseError
from ftlab.progress import LIVE
from tests.faults import local_asset

GIVEN: dict[str, Any] = {}  # made once by `warm_up`, and shared by all forks
HOMES = "FTLAB_HOME"
HOME = "home"  # the cache, in an operation's folder
VOLATILE = ("seconds", "wall_seconds", "started", "begun", "peak_memory_mb")  # of a record, from run to run


# Else each fork would import them.
IMPORTED = (
    "peft", "transformers.models.gpt2.modeling_gpt2", "transformers.models.phi.modeling_phi", "transformers.trainer",
    "sklearn.linear_model", "sklearn.feature_extraction.text", "sklearn.model_selection", "sklearn.neighbors",
    "huggingface_hub.repocard_data", "jinja2", "pandas", "datasets", "ftlab.course.runner", "ftlab.data.audit",
    "ftlab.data.audit.pricing", "ftlab.merging.certificate", "ftlab.inference", "ftlab.freezing.features",
    "ftlab.exercises.recorder", "tests.training.resumable",
)  # fmt: skip


def warm_up(folder: Path) -> None:
    """Import what the operations use, and write what they read. No thread may start here: a fork has none of them."""
    import torch

    for name in IMPORTED:
        importlib.import_module(name)
    from ftlab.adapters import lora
    from ftlab.models import loading
    from tests.merging import merge_cases

    torch.set_num_threads(1)
    os.environ[HOMES] = str(folder / "home")
    for name in ("tiny-distilbert", "tiny-phi"):
        loading.folder(name)
    classifier = loading.encoder("tiny-distilbert", ["bad", "good"])
    classifier.save_pretrained(folder / "classifier")
    loading.tokenizer("tiny-distilbert").save_pretrained(folder / "classifier")
    base = merge_cases.save_base(folder / "base")
    merge_cases.save_adapter(folder / "unrecorded", base)
    shutil.copytree(folder / "unrecorded", folder / "adapter")
    lora.record_base(folder / "adapter", str(base))
    lines = [f"review number {number} says that it is {'good' if number % 2 else 'bad'}" for number in range(60)]
    (folder / "texts.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    table = "".join(f"{line},{number % 2}\n" for number, line in enumerate(lines))
    (folder / "reviews.csv").write_text(f"text,label\n{table}", encoding="utf-8")
    (folder / "few.txt").write_text("A quiet film about a family.\nThe rain fell on the roof.\n", encoding="utf-8")
    _write_lesson(folder / "notebooks")
    asset = local_asset.make(folder / "index")
    GIVEN.update(folder=folder, classifier=classifier, tokenizer=loading.tokenizer("tiny-distilbert"), asset=asset)
    for file in [folder, *folder.rglob("*")]:
        file.chmod(file.stat().st_mode | 0o055)  # another user reads it, too


def _command(*words: Any) -> int:
    return cli.main([str(word) for word in words])


def _save(place: Path) -> None:
    """As the lessons save a model."""
    with files.atomic(place / "model", folder=True) as partial:
        GIVEN["classifier"].save_pretrained(partial)
        GIVEN["tokenizer"].save_pretrained(partial)


def _save_adapter(place: Path) -> Any:
    from ftlab.adapters import lora
    from ftlab.models import loading

    folder = GIVEN["folder"]
    model = lora.load(loading.causal_lm(str(folder / "base")), folder / "adapter", str(folder / "base"))
    return lambda: lora.save(model, place / "adapter", str(folder / "base")) and None


def _merge(place: Path) -> int:
    folder = GIVEN["folder"]
    if (place / "merged").exists():
        return 0  # whole, or it would not be there; a merge overwrites nothing
    return _command("merge", folder / "base", folder / "adapter", place / "merged", "--prompts", folder / "few.txt")


def _predict(place: Path) -> int:
    folder = GIVEN["folder"]
    return _command("predict", folder / "classifier", folder / "texts.txt", "--out", place / "labels.csv")


def _generate(place: Path) -> int:
    """Its answers go to stdout; what it writes is the record of the base in the adapter's folder."""
    folder = GIVEN["folder"]
    words = ("generate", folder / "base", folder / "few.txt", "--adapter", place / "adapter")
    return _command(*words, "--record-base", "--max-new-tokens", 4)


def _with_adapter(place: Path) -> None:
    if not (place / "adapter").exists():
        shutil.copytree(GIVEN["folder"] / "unrecorded", place / "adapter")


def _audit(place: Path) -> int:
    return _command("audit", GIVEN["folder"] / "reviews.csv", "--html", place / "report.html")


def _store(place: Path) -> str:
    import torch

    from ftlab.freezing import features, plans
    from tests.models import tiny_classifiers

    torch.manual_seed(0)
    model = GIVEN["classifier"]
    plan = plans.freeze(model, "first_layers", 4)
    rows = tiny_classifiers.reviews(24).map(
        lambda batch: GIVEN["tokenizer"](batch["text"], truncation=True, max_length=32), batched=True
    )
    found = features.compute(model, plan, rows, GIVEN["tokenizer"], folder=place / "features")
    return files.sha256(place / "features" / "features.f32") if found is not None else ""


def _tiny(place: Path) -> None:
    from ftlab.models import tiny

    os.environ[HOMES] = str(place / HOME)
    tiny.folder("tiny-distilbert")


def _fetch(place: Path) -> int:
    os.environ[HOMES] = str(place / HOME)
    local_asset.use(GIVEN["asset"], GIVEN["folder"] / "index")
    return _command("fetch")


def _use(place: Path) -> str:
    """What a lesson does with a cache in which everything is."""
    from ftlab.models import loading

    os.environ[HOMES] = str(place / HOME)
    local_asset.use(GIVEN["asset"], GIVEN["folder"] / "nothing")
    loading.tokenizer("tiny-distilbert")
    assert assets.damaged("tiny") == []
    return (assets.path("tiny") / "two.txt").read_text(encoding="utf-8")[:3] + assets.manifest("tiny")["version"]


def _train(place: Path) -> str:
    from safetensors.torch import save

    from tests.training import resumable

    trainer = resumable.train(place / "checkpoints", resume=True)
    return hashlib.sha256(save(trainer.model.state_dict())).hexdigest()


ABOUT = {"profile": "smoke", "seed": 0, "model": "tiny-distilbert", "dataset": "mini_reviews"}


def _hand_in(place: Path) -> None:
    import pandas as pd

    from ftlab.exercises import manifest
    from ftlab.exercises.recorder import Recorder
    from tests.models import tiny_classifiers

    rows = tiny_classifiers.reviews(12).map(lambda row, number: {"id": f"row-{number}"}, with_indices=True)
    recorder = Recorder(manifest.level("level1"), place / "work", ABOUT)
    recorder.rows(train=rows.select(range(6)), validation=rows.select(range(6, 9)), test=rows.select(range(9, 12)))
    table = pd.DataFrame({"id": rows["id"][9:], "label": ["a"] * 3, "prediction": ["a"] * 3, "p_a": 1.0})
    recorder.weights(GIVEN["classifier"], GIVEN["tokenizer"], max_length=32)
    recorder.predictions(table)
    recorder.baseline(table)
    recorder.report({"accuracy": 1.0})
    recorder.conclusion(better="yes")


def _export(place: Path) -> int:
    if (place / "tiny.gguf").exists():
        return 0  # the model is moved last, so all is there; an export overwrites nothing
    for left in ("tiny.Modelfile", "tiny.certificate.json"):
        (place / left).unlink(missing_ok=True)
    return _command("export", "tiny-phi", place / "tiny.gguf", "--prompts", GIVEN["folder"] / "few.txt")


def _run(place: Path) -> None:
    """A course of one short lesson, through the runner, with a kernel of its own."""
    from ftlab.course import notebooks, runner

    notebooks.notebooks_folder = lambda: GIVEN["folder"] / "notebooks"
    runner.run(["02"], profile="smoke", out=place / "out", watch=False)


def _run_with_a_cache(place: Path) -> None:
    os.environ[HOMES] = str(place / HOME)
    _run(place)


def _write_lesson(folder: Path) -> None:
    import nbformat

    path = folder / "02_text_classification.ipynb"
    parameters = nbformat.v4.new_code_cell("profile: str = 'smoke'\nseed: int = 0\nrows: int = None")
    parameters.metadata.tags = ["parameters"]
    sources = (
        "from ftlab.course import begin\nlesson = begin('02_text_classification', profile=profile, seed=seed)",
        "lesson.measure(value=2)\nlesson.claim('two is two', 2, at_least=2, always=True)",
        "from ftlab import files\nwith files.atomic(lesson.folder / 'model', folder=True) as partial:\n"
        "    (partial / 'weights').write_text('whole')",
        "lesson.finish('two')",
    )
    cells = [nbformat.v4.new_markdown_cell("# A lesson"), parameters, *map(nbformat.v4.new_code_cell, sources)]
    metadata = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
    with files.atomic(path) as partial:
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), partial)


def _lesson(place: Path) -> None:
    """The cells of the lesson that trains, in this process: it goes on from its checkpoints."""
    from tests import cells

    cells.run("02", place / "out", {"resume": True})


def _on_a_small_disk(name: str, place: Path) -> list[dict[str, Any]]:
    """Do it on a disk of one page, and again when that has grown: what came of each."""
    from tests.faults import small_disks

    small_disks.mount_small(place, "4k")
    outcomes = [_outcome(name, place)]
    small_disks.enlarge(place, "50m")
    return [*outcomes, _outcome(name, place)]


def _outcome(name: str, place: Path) -> dict[str, Any]:
    said, code = io.StringIO(), 0
    with contextlib.redirect_stderr(said):
        try:
            value = OPERATIONS[name].begin(place)()
            code = value if isinstance(value, int) else 0
        except (OSError, RuntimeError, CourseError, SafetensorError) as problem:
            code = 70
            said.write(str(problem))
    return {"code": code, "said": said.getvalue()[-2000:], "found": found(place), "hidden": hidden(place)}


@dataclass(frozen=True)
class Operation:
    """`run` writes into a folder, after `prepare`.

    `depth`: how deep the files and folders lie that are whole or absent. `marked`: the name of a file that marks an
    older result of the same kind, which this one replaces; None if it replaces nothing. `unfinished`: the ends of the
    visible names that a killed one may leave as they are, and the next run carries on from. `in_process`: whether it
    writes all by itself. `kills`: how many by day, and how many at night.
    """

    run: Callable[[Path], Any]
    kills: tuple[int, int]
    prepare: Callable[[Path], Any] | None = None
    depth: int = 1
    marked: str | None = None
    unfinished: tuple[str, ...] = ()
    in_process: bool = True

    def begin(self, place: Path) -> Callable[[], Any]:
        """Do what is not to be killed, and return the rest."""
        made = self.prepare(place) if self.prepare else None
        return made if callable(made) else lambda: self.run(place)


OPERATIONS: dict[str, Operation] = {
    "save": Operation(_save, (5, 140), marked="old.txt"),
    "save an adapter": Operation(_save_adapter, (3, 100), prepare=_save_adapter, marked="chat_template.jinja"),
    "merge": Operation(_merge, (4, 120)),
    "predict": Operation(_predict, (3, 80), marked=""),
    "generate": Operation(_generate, (2, 60), prepare=_with_adapter, depth=2),
    "audit": Operation(_audit, (2, 60), marked=""),
    "store": Operation(_store, (4, 90)),
    "tiny": Operation(_tiny, (4, 100), depth=3),
    "fetch": Operation(_fetch, (4, 90), depth=3, in_process=False),
    "train": Operation(_train, (3, 60), unfinished=("checkpoints",)),
    "hand in": Operation(_hand_in, (4, 60), depth=2),
    "export": Operation(_export, (1, 15), in_process=False),
    "run": Operation(_run, (1, 15), depth=2, marked="old.txt", in_process=False),
    "run with a cache": Operation(_run_with_a_cache, (0, 0)),
    "use": Operation(_use, (0, 0)),
    "lesson": Operation(_lesson, (0, 10), depth=3, unfinished=(".checkpoints", LIVE)),
}

for _name in ("save", "merge", "predict", "audit", "store", "tiny", "fetch", "hand in", "train"):
    OPERATIONS[f"{_name} on a small disk"] = Operation(partial(_on_a_small_disk, _name), (0, 0))


def found(place: Path) -> dict[str, str]:
    """The hash of each visible file, by its path; of JSON without what differs from run to run."""
    hashes = {}
    for path in sorted(place.rglob("*")):
        name = path.relative_to(place).as_posix()
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(place).parts):
            hashes[name] = "present" if path.suffix == ".ipynb" else _digest(path)
    return hashes


def _digest(path: Path) -> str:
    if path.suffix == ".json":
        with contextlib.suppress(ValueError):
            value = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(value, dict):
                text = files.to_json({name: one for name, one in value.items() if name not in VOLATILE})
                return f"{text[:2000]} {hashlib.sha256(text.encode()).hexdigest()}"  # the text shows what differs
    return files.sha256(path)


def hidden(place: Path) -> list[str]:
    """The hidden files and folders that were left, and not what lies in them."""
    paths = [path.relative_to(place) for path in place.rglob(".*")]
    return sorted(path.as_posix() for path in paths if sum(part.startswith(".") for part in path.parts) == 1)
