"""Whatever the pages, the notebooks and the exercises name runs: from one list, tests/promises.toml."""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Collection, Iterator
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import yaml

from ftlab import cli
from ftlab.adapters import lora
from ftlab.course import notebooks, profiles
from ftlab.data import sources, tasks
from ftlab.errors import BadInput
from ftlab.freezing import plans
from ftlab.models import loading, tiny
from ftlab.serving import extra
from tests import cells, nightly, pages
from tests import hub as stand_in

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
RUNS = tomllib.loads((HERE / "promises.toml").read_text(encoding="utf-8"))["run"]
LESSONS = {lesson.number: lesson for lesson in notebooks.lessons()}
COMMAND = re.compile(r"`(?:\.venv/bin/)?(ftlab [a-z][^`]*)`")
SHELLS = ("", "bash", "sh", "shell", "console", "text", "powershell")  # "" names no language
SHELL_LINE = re.compile(r"(?:\$ |!|%)?(?:\.venv[/\\]\w+[/\\])?(ftlab [a-z].*)")
# What a value is a value of, where a text names it alone.
KINDS = {
    "dataset": set(sources.SOURCES), "task": set(tasks.TASKS), "model": set(loading.MODELS),
    "variant": set(lora.VARIANTS), "policy": set(plans.POLICIES), "profile": set(profiles.PROFILES),
    "target_modules": {lora.ALL_LINEAR},
}  # fmt: skip
Named = tuple[str, str, str]  # a lesson, a parameter and a value; "*" is any


# --- what the texts name --------------------------------------------------------------------------------------------
def plain(value: object) -> str:
    """A value as the texts and the list write it: a path is <file>, and what a person brings is its placeholder."""
    text = str(value).strip().strip("\"'")
    if re.fullmatch(r"<(file|task|chats|text)\.\w+>|<form>|[\w./-]+\.(csv|tsv|jsonl|parquet|txt)", text):
        return "<file>"
    if text in ("<model>", "<adapter>", "<classifier>"):
        return "<folder>"
    return str(yaml.safe_load(text) if text else text)


def in_command(line: str) -> Iterator[Named]:
    """What an `ftlab run` line asks for, and what the remark behind it names."""
    command, _, remark = line.partition("#")
    words = shlex.split(command)
    if words[:2] != ["ftlab", "run"]:
        return
    asked = [word for word in words[2:] if word in LESSONS] or ["*"]
    for place, word in enumerate(words):
        for number in asked:
            if word == "-p":
                yield number, words[place + 1], plain(words[place + 2])
            if word == "--profile":
                yield number, "profile", words[place + 1]
    for number in asked:
        yield from in_remark(number, remark) if number != "*" else ()


def in_remark(number: str, remark: str, parameter: str = "*") -> Iterator[Named]:
    """Known names and placeholders in the words beside a parameter or a command."""
    takes = LESSONS[number].parameters()
    for word in re.findall(r"[\w/-]+", remark):
        for name, known in KINDS.items():
            if word in known and name in takes and parameter in ("*", name):
                yield number, name, word
    for words, value in (("your own", "<file>"), ("a folder", "<folder>"), ("the folder", "<folder>"),
                         ("a hub id", "<hub id>"), ("filled-in form", "<file>")):  # fmt: skip
        # "the column of your own file" is a column, and no file
        if parameter != "*" and words in remark and not parameter.endswith("_column"):
            yield number, parameter, value


def in_parameters(number: str) -> Iterator[Named]:
    """Each parameter of a notebook, with what the comment beside it names."""
    source = next(cell.source for cell in notebook(number).cells if cell.cell_type == "code")
    lines = source.splitlines()
    for node in ast.parse(source).body:
        if isinstance(node, ast.AnnAssign):
            yield number, node.target.id, "*"
            remark = " ".join(line.partition("#")[2] for line in lines[node.lineno - 1 : node.end_lineno])
            yield from in_remark(number, remark, node.target.id)


def in_try(number: str) -> Iterator[Named]:
    """What the last section asks to try: in its code, a value belongs to the parameter that was named before it."""
    takes = ["profile", *LESSONS[number].parameters()]
    for cell in notebook(number).cells:
        if cell.cell_type != "markdown" or "**Try" not in cell.source:
            continue
        parameter = ""
        for code in re.findall(r"`([^`]+)`", cell.source[cell.source.index("**Try") :]):
            name, sign, value = (part.strip() for part in code.partition("="))
            if code.startswith("ftlab "):
                yield from in_command(code)
            elif name in takes:
                parameter = name
                yield number, name, plain(value) if sign else "*"
            elif re.fullmatch(r"\"[^\"]+\"|[\d.e-]+|True|False", code):
                of_kind = [kind for kind, known in KINDS.items() if plain(code) in known and kind in takes]
                yield number, of_kind[0] if of_kind else parameter, plain(code)


def notebook(number: str) -> nbformat.NotebookNode:
    return nbformat.read(LESSONS[number].path, as_version=4)


def commands(text: str) -> list[str]:
    """The `ftlab` lines of a text, in its code blocks and in its sentences."""
    lines = "\n".join(pages.blocks(text, *SHELLS)).splitlines()
    in_blocks = [found[1] for line in lines if (found := SHELL_LINE.match(line))]
    return in_blocks + [code for code in COMMAND.findall(pages.prose(text)) if " " in code]


def texts(repository: Path, only: Collection[str] = ()) -> str:
    """All that a learner reads, or of the pages `only` some: these first, in the order of their names."""
    read = pages.markdown_files(repository)
    wanted = [path for path in read if not only or path.relative_to(repository).as_posix() in only]
    return "\n\n".join(map(pages.markdown, [*wanted, *(lesson.path for lesson in LESSONS.values())]))


def named(repository: Path) -> set[Named]:
    found = {each for line in commands(texts(repository)) for each in in_command(line)}
    for number in LESSONS:
        found |= {*in_parameters(number), *in_try(number)}
    return found


def kept() -> set[Named]:
    """What the list runs, and what the notebooks' own run of the cpu profile does."""
    found = set()
    for run in RUNS:
        profile = run.get("profile", "smoke")
        budget = profiles.table()[LESSONS[run["lesson"]].slug][profile]
        given = {"profile": profile, **({"model": budget["model"], "dataset": budget.get("dataset", "")}
                 if run.get("hub") else {}), **run.get("parameters", {})}  # fmt: skip
        found |= {(run["lesson"], name, plain(value)) for name, value in given.items()}
    for number, lesson in LESSONS.items():
        budget = {"profile": "cpu", **profiles.table()[lesson.slug]["cpu"]}
        found |= {(number, name, plain(value)) for name, value in budget.items()}
        if budget.get("dataset") == "rotten_tomatoes":
            found.add((number, "dataset", "reviews"))
    return found


def test_the_list_has_all_that_the_texts_name(repository):
    keeps = kept()
    run_by_hand = {(run["lesson"], name) for run in RUNS for name in run.get("parameters", {})}
    missing = []
    for number, name, value in sorted(named(repository)):
        there = {(one, each, said) for one, each, said in keeps if number in ("*", one) and each == name}
        if value == "*":  # a parameter by its name alone: some run sets it
            good = name == "profile" or (number, name) in run_by_hand
        else:
            good = any(said == value for _, _, said in there)
        if not good:
            missing.append((number, name, value))
    assert missing == []


def test_every_command_of_a_page_is_one_that_the_command_line_takes(repository):
    """Also those that no test runs, since they take long or name what a reader has."""
    shown = list(dict.fromkeys(commands(texts(repository))))
    assert len(shown) > 30
    refused = [line for line in shown if not INCOMPLETE.match(line) and not parsed(line)]
    assert refused == []


def parsed(line: str) -> bool:
    """Whether the command line's own parser takes a line that a page shows."""
    words = shlex.split(line, comments=True)[1:]
    for sign in ("<", ">", "|"):  # what a shell does with the rest
        words = words[: words.index(sign)] if sign in words else words
    try:
        cli._parser().parse_args(words)
    except SystemExit as ended:
        return ended.code == 0  # --help
    return True


@pytest.mark.parametrize(
    ("line", "taken"),
    [
        ("ftlab run 02 -p rows 400  # fewer", True),
        ("ftlab generate OUT --instruct < questions.txt", True),
        ("ftlab doctor --help", True),
        ("ftlab walk", False),
        ("ftlab run 02 --rows 400", False),
        ("ftlab audit", False),
    ],
)
def test_a_command_that_does_not_exist_is_noticed(line, taken, capsys):
    assert parsed(line) == taken


def test_commands_are_found_wherever_a_page_shows_them():
    text = (
        "Run `ftlab doctor`, or `.venv/bin/ftlab run 00`.\n\n```python\nftlab = 1\n```\n\n"
        "```bash\n$ ftlab fetch\n```\n\n"
        "```\n.venv/bin/ftlab run 01  # one\n```\n\n```powershell\n.venv\\Scripts\\ftlab run 02\n```\n"
    )
    assert commands(text) == ["ftlab fetch", "ftlab run 01  # one", "ftlab run 02", "ftlab doctor", "ftlab run 00"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ftlab run 02 -p dataset moons", ("02", "dataset", "moons")),
        ("ftlab run 02 -p rows 17  # others", ("02", "rows", "17")),
        ("ftlab run 04 -p task tutor  # or summaries", ("04", "task", "summaries")),
        ("ftlab run 05 -p variant dora # or pissa", ("05", "variant", "pissa")),
        ("ftlab run --profile gpu", ("*", "profile", "gpu")),
        ("ftlab run 01 -p dataset my.csv", ("01", "dataset", "<file>")),
    ],
)
def test_a_name_in_a_text_is_noticed(text, found):
    assert found in set(in_command(text))


def test_what_the_notebooks_name_is_noticed():
    found = {each for number in LESSONS for each in (*in_parameters(number), *in_try(number))}
    assert {
        ("02", "dataset", "domains"), ("03", "policy", "layerwise"), ("05", "model", "microsoft/phi-2"),
        ("05", "target_modules", "all-linear"), ("06", "adapter", "<folder>"), ("04", "task", "<file>"),
        ("04", "ratings", "<file>"), ("03", "frozen_layers", "7"), ("02", "learning_rate", "1.0"),
        ("04", "task", "tutor"), ("06", "wanted_accuracy", "0.99"), ("02", "model", "<hub id>"), ("01", "seed", "*"),
    } <= found  # fmt: skip


# --- what a person brings -------------------------------------------------------------------------------------------
@pytest.fixture(scope="session")
def brought(tmp_path_factory) -> dict[str, str]:
    """The files and folders that the placeholders of the list stand for."""
    from peft import get_peft_model

    root = tmp_path_factory.mktemp("brought")
    found = {}
    rows = sources.read("tickets", most=120).sample(frac=1, random_state=0)
    for place, ending in enumerate(("csv", "tsv", "jsonl", "parquet")):
        frame = rows.iloc[place % 2 :: 2][["text", "label"]].set_axis(["body", "verdict"], axis=1)
        frame["author"] = [f"{ending} {number // 2}" for number in range(len(frame))]
        found[f"<file.{ending}>"] = _written(frame, root / f"rows.{ending}")
    words = ["film", "story", "actor", "scene", "music", "camera", "ending", "script", "sound", "light"]
    table = pd.DataFrame({"number": range(60)})
    asked = "What about " + table["number"].map(lambda number: f"{words[number % 10]} {words[number // 10]}?")
    said = table["number"].map(lambda number: " ".join([words[number % 7], words[number % 9], words[number % 5]] * 12))
    for ending in ("jsonl", "csv"):
        found[f"<task.{ending}>"] = _written(
            pd.DataFrame({"instruction": asked, "input": "", "output": said}), root / f"task.{ending}"
        )
    turns = [
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": one},
            {"role": "assistant", "content": other},
        ]
        for one, other in zip(asked, said, strict=True)
    ]
    more = [
        [*turn, {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So it is."}] for turn in turns
    ]
    found["<chats.jsonl>"] = _written(pd.DataFrame({"messages": turns[::2] + more[1::2]}), root / "chats.jsonl")
    found["<text.txt>"] = str(root / "mine.txt")
    passages = (f"Passage {number} tells of {words[number % 10]} number {number} and no more." for number in range(40))
    Path(found["<text.txt>"]).write_text("\n\n".join(passages), encoding="utf-8")
    wrapped = loading.causal_lm("tiny-llama")
    wrapped = get_peft_model(wrapped, lora.config(wrapped, rank=4, alpha=8))
    saved = lora.save(wrapped, root / "adapter", "tiny-llama", chat_template=tiny.CHAT_TEMPLATE)
    found["<adapter>"] = str(saved)
    classifier = loading.encoder("tiny-distilbert", sources.SOURCES["tickets"].label_names)
    classifier.save_pretrained(root / "classifier")
    loading.tokenizer("tiny-distilbert").save_pretrained(root / "classifier")
    found["<classifier>"] = str(root / "classifier")
    return found


def _written(frame: pd.DataFrame, path: Path) -> str:
    if path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    elif path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return str(path)


def filled(run: dict, brought: dict[str, str]) -> dict:
    """The parameters of a run, with what the placeholders stand for."""
    encoder = run["lesson"] in ("01", "02", "03")
    place = {**brought, "<model>": str(tiny.folder("tiny-distilbert" if encoder else "tiny-llama"))}
    place["<hub id>"] = "somebody/encoder" if encoder else "somebody/writer"
    return {name: place.get(value, value) for name, value in run.get("parameters", {}).items()}


def called(run: dict) -> str:
    given = " ".join(f"{name}={value}" for name, value in run.get("parameters", {}).items())
    return f"{run['lesson']} {run.get('profile', '')} {given}".strip()


def chosen_runs(hub: bool) -> list[dict]:
    """Those of this run: by day without those of the night."""
    return [run for run in RUNS if run.get("hub", False) == hub and (nightly.NIGHTLY or not run.get("night"))]


def cases() -> list:
    chosen = chosen_runs(hub=False)
    return [pytest.param(run, id=called(run), marks=[pytest.mark.assets] * bool(run.get("assets"))) for run in chosen]


def test_by_day_every_parameter_of_every_lesson_is_set_that_the_night_sets():
    by_day, all_of_them = (
        {(run["lesson"], name) for run in runs for name in run.get("parameters", {})}
        for runs in ([run for run in RUNS if not run.get("night")], RUNS)
    )
    assert by_day == all_of_them


@pytest.fixture(scope="session")
def form(tmp_path_factory) -> str:
    """A filled-in form of the ratings that lesson 04 asks for."""
    run = cells.run("04", tmp_path_factory.mktemp("rated"), {})
    filled_in = pd.read_csv(run["folder"] / "ratings.csv", keep_default_na=False).assign(rating=3)
    return _written(filled_in, run["folder"] / "form.csv")


# --- the runs -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("run", cases())
def test_it_runs_in_smoke(run, brought, request, tmp_path, one_thread):
    if "<form>" in run.get("parameters", {}).values():
        brought = {**brought, "<form>": request.getfixturevalue("form")}
    if "stops" in run:
        with pytest.raises(BadInput, match=re.escape(run["stops"])):
            cells.run(run["lesson"], tmp_path, filled(run, brought))
        return
    found = cells.run(run["lesson"], tmp_path, filled(run, brought))
    assert found["headline"]
    assert all(claim["true"] for claim in found["claims"] if claim["held"])


@pytest.fixture(scope="session")
def hub(tmp_path_factory):
    """A hub with tiny models of the real classes at the pinned revisions of the course's, and a few reviews."""
    with stand_in.serve() as served:
        served.add("somebody/encoder", tiny.folder("tiny-distilbert"))
        served.add("somebody/writer", tiny.folder("tiny-llama"))
        served.add_course(stand_in.reviews(tmp_path_factory.mktemp("hub") / "imdb"))
        yield served


TOGETHER = [("00", "01", "02", "03"), ("04",), ("05", "06")]


def test_every_run_from_a_hub_is_run():
    listed = {run["lesson"] for run in RUNS if run.get("hub")}
    assert sorted(lesson for some in TOGETHER for lesson in some) == sorted(listed)
    assert {run["lesson"] for run in RUNS if run.get("hub") and run.get("profile") == "gpu"} == LESSONS.keys()


@pytest.mark.parametrize("some", TOGETHER, ids=" ".join)
def test_it_runs_from_a_hub(some, brought, hub, tmp_path):
    """In a process of its own: whether there is a hub is asked once, when its library is imported."""
    chosen = [run for run in chosen_runs(hub=True) if run["lesson"] in some]
    folders = [folder_of(run) or str(number) for number, run in enumerate(chosen)]
    asked = [
        [run["lesson"], run.get("profile", "smoke"), filled(run, brought), folder]
        for run, folder in zip(chosen, folders, strict=True)
    ]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
    environment |= {"no_proxy": "127.0.0.1", "HF_HUB_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.cells", str(tmp_path / "runs"), json.dumps(asked)]
    hub.requests.clear()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=HERE.parent)
    assert done.returncode == 0, done.stderr[-3000:]
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"lesson"')]
    assert [line["lesson"] for line in told] == [run["lesson"] for run in chosen]
    for run, line in zip(chosen, told, strict=True):
        if folder_of(run):
            took_what_the_hub_has(LESSONS[run["lesson"]], tmp_path / "runs" / IN_GPU, line["said"])
    pinned = {loading.HUB_MODELS[profiles.table()[LESSONS[number].slug]["gpu"]["model"]].revision for number in some}
    assert all(any(revision in request for request in hub.requests) for revision in pinned)


IN_GPU = "gpu"
TEST_ROWS = len(sources.read("mini_reviews")) - 140  # that the stand-in keeps for testing


def folder_of(run: dict) -> str:
    """One folder for the lessons in the gpu profile, so that 06 finds the adapter of 05."""
    return IN_GPU if run.get("profile") == "gpu" and "quantize" not in run["parameters"] else ""


def took_what_the_hub_has(lesson: notebooks.LessonFile, out: Path, said: str) -> None:
    """The record names the model of the profile, with the weights that the hub has of it."""
    budget = profiles.table()[lesson.slug]["gpu"]
    record = json.loads((out / lesson.name / "record.json").read_text(encoding="utf-8"))
    pinned = loading.HUB_MODELS[budget["model"]].revision
    weights = loading.weights_sha256(tiny.folder(stand_in.STAND_FOR[budget["model"]]))
    assert (record["model"]["name"], record["model"]["weights_sha256"]) == (budget["model"], weights)
    metrics = json.loads((out / lesson.name / "metrics.json").read_text(encoding="utf-8"))["metrics"]
    if lesson.number == "02":
        assert 0 <= metrics["accuracy_value"] <= 1
        assert record["data"]["test"]["rows"] == TEST_ROWS
    if lesson.number == "04":
        assert "tuned_exact match" in metrics
    if lesson.number == "01":
        assert "leakage between splits: give" not in said  # it was checked
    if lesson.number == "05":
        base = json.loads((out / lesson.name / "adapter" / "base.json").read_text(encoding="utf-8"))
        assert (base["name"], base["revision"]) == (budget["model"], pinned)
    if lesson.number == "06":
        assert "tutor: the adapter of lesson 05" in said
        assert (out / lesson.name / "merged" / "certificate.json").is_file()


# --- commands and code ----------------------------------------------------------------------------------------------
# Lines that name no file and no model, or take long: `ftlab run` is above, and the others have tests of their own.
NOT_RUN = ("ftlab run", "ftlab bench", "ftlab fetch", "ftlab doctor", "ftlab generate", "ftlab serve")
if not extra.installed(extra.CONVERTER, extra.LLAMA_CPP):  # `make test-serve` installs them
    NOT_RUN += ("ftlab export",)
REFERENCE = (
    "README.md", "exercises/README.md", "docs/command_line.md", "docs/your_own_files.md", "docs/audit.md",
    "docs/training.md", "docs/use_a_model.md",
)  # fmt: skip
# Named in a sentence, and no line to copy.
INCOMPLETE = re.compile(r"^ftlab (audit|check|predict|generate|merge|export|serve|train|bench)( --\w+)?$")


@pytest.fixture
def desk(brought, classifier_folder, tmp_path, monkeypatch) -> Path:
    """A folder with the files and folders that the pages' lines name."""
    shutil.copytree(classifier_folder, tmp_path / "here" / "02_text_classification" / "model")
    for name in ("MODEL", "tickets"):
        (tmp_path / name).symlink_to(classifier_folder)
    for name in ("BASE", "MERGED"):
        shutil.copytree(tiny.folder("tiny-llama"), tmp_path / name)
    for folder in ("ADAPTER", "here/05_lora_phi2/adapter", "adapters/notes"):
        shutil.copytree(brought["<adapter>"], tmp_path / folder)
    rows = sources.read("mini_reviews")[["text", "label"]]
    for name, part in (("my.csv", rows), ("reviews.csv", rows), ("new.csv", rows[:20])):
        part.rename(columns={"text": "body"}).assign(text=part["text"]).to_csv(tmp_path / name, index=False)
    rows = rows.assign(author=[f"author {number // 3}" for number in range(len(rows))])
    rows[::2].to_csv(tmp_path / "train.csv", index=False)
    rows[1::2].to_csv(tmp_path / "test.csv", index=False)
    for name in ("pairs.jsonl", "rows.jsonl"):
        shutil.copy(brought["<task.jsonl>"], tmp_path / name)
    shutil.copy(brought["<chats.jsonl>"], tmp_path / "chats.jsonl")
    for name in ("unseen.txt", "questions.txt", "prompts.txt"):
        (tmp_path / name).write_text("Is it a good film?\nWhat is a film?\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.serve
def test_every_other_command_that_a_text_shows_works(desk, repository, capsys):
    """Each line as it stands, in the order of the texts; a model's name means a tiny one."""
    shown = [line.partition("#")[0].strip() for line in commands(texts(repository, REFERENCE))]
    shown = [line for line in dict.fromkeys(shown) if not line.startswith(NOT_RUN) and not INCOMPLETE.match(line)]
    shown = [line for line in shown if "FILE" not in line]
    assert len(shown) >= 8
    for line in shown:
        words = shlex.split(line)[1:]
        code = cli.main([{"minilm": "tiny-distilbert"}.get(word, word) for word in words])
        said = capsys.readouterr()
        expected = (0, 1) if "--fail-on" in words else (3,) if words[0] == "check" else (0,)  # 3: nothing is recorded
        assert code in expected, (line, said.err)


def test_the_python_that_the_page_on_using_a_model_shows_runs(desk, repository):
    """A block is run as it stands, with what its sentences speak of at hand; a model's name means a tiny one."""
    from ftlab.models import devices

    text = pages.markdown(repository / "docs" / "use_a_model.md")
    space = {"devices": devices, "folder": str(desk / "MODEL")}
    blocks = pages.blocks(text, "python")
    inline = re.findall(r"`(Classifier\([^`]+\))`", text)
    assert (len(blocks), len(inline)) == (2, 1)
    for code in (*blocks, *inline):
        exec(code.replace('"smollm2"', '"BASE"'), space)
    assert space["generator"].adapters
