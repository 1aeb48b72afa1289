"""The gpu profile's way to weights and data, against a stand-in for the hub with tiny models of the real classes."""

import json
import os
import shutil
import subprocess
import sys

import pandas as pd
import pytest

from ftlab.data import sources
from ftlab.models import loading, tiny
from tests import hub as stand_in


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    root = tmp_path_factory.mktemp("hub")
    with stand_in.serve() as served:
        pickled = root / "pickled"
        shutil.copytree(tiny.folder("tiny-distilbert"), pickled)
        (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
        served.add("somebody/pickled", pickled)
        served.add("somebody/counts", tiny.folder("tiny-gpt2"))  # whose tokenizer alone is asked for
        data = root / "imdb" / "plain_text"
        data.mkdir(parents=True)
        for split, start in (("train", 0), ("test", 500)):
            frame = pd.DataFrame(
                {
                    "text": [f"{split} review {start + n} of a film" for n in range(80)],
                    "label": [n % 2 for n in range(80)],
                }
            )
            frame.to_parquet(data / f"{split}-00000-of-00001.parquet")
        served.add_course(root / "imdb")
        yield served


@pytest.fixture
def ask(hub, tmp_path):
    """Run code in a process that knows the stand-in as the hub, with a hub cache of its own."""

    def run(code: str, online: bool = True, arguments: list[str] | None = None) -> subprocess.CompletedProcess:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        endpoint = hub.endpoint if online else "http://127.0.0.1:9"
        environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
        environment |= {"no_proxy": "127.0.0.1", "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}
        command = [sys.executable, *(arguments or ["-c", code])]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)

    return run


LOAD = """
import json
from ftlab.progress import quiet; quiet()
from ftlab.models import loading
encoder = loading.encoder("distilbert-base-uncased", ["bad", "good"])
gpt2, phi = loading.causal_lm("gpt2"), loading.causal_lm("microsoft/phi-2")
print(json.dumps([type(model).__name__ for model in (encoder, gpt2, phi)] + [str(loading.folder("gpt2"))]))
"""


def test_the_three_hub_models_load_at_their_pinned_revisions(ask, hub):
    done = ask(LOAD)
    assert done.returncode == 0, done.stderr
    *classes, folder = json.loads(done.stdout.splitlines()[-1])
    assert classes == ["DistilBertForSequenceClassification", "GPT2LMHeadModel", "PhiForCausalLM"]
    assert folder.endswith(loading.HUB_MODELS["gpt2"].revision)
    assert any(loading.HUB_MODELS["microsoft/phi-2"].revision in request for request in hub.requests)


def test_what_was_downloaded_once_loads_with_the_hub_gone(ask):
    assert ask(LOAD).returncode == 0
    done = ask(LOAD, online=False)
    assert done.returncode == 0, done.stderr


def test_imdb_from_the_hub_keeps_its_test_split(ask):
    code = """
import json
from ftlab.progress import quiet; quiet()
from ftlab.data import sources, splits
rows = sources.load("imdb", from_hub=True)
parts = splits.split(rows, rows=None, validation_rows=20, test_rows=80)
print(json.dumps([parts.sizes, rows["test"][0]["id"][:9], parts.label_names, sources.provenance(rows["train"]).origin]))
"""
    done = ask(code)
    assert done.returncode == 0, done.stderr
    sizes, row_id, names, origin = json.loads(done.stdout.splitlines()[-1])
    assert sizes == {"train": 60, "validation": 20, "test": 80}
    assert (row_id, names) == ("imdb-test", ["negative", "positive"])
    assert origin == f"stanfordnlp/imdb@{sources.SOURCES['imdb'].revision}"


SAY = """
import sys
from ftlab.progress import quiet; quiet()
from ftlab.models import loading
from ftlab.errors import CourseError
try:
    loading.folder({name!r})
except CourseError as problem:
    sys.exit(f"{{problem}}")
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("somebody/nothing", "the hub has no model 'somebody/nothing'"),
        ("somebody/pickled", "has a config.json but no safetensors"),
        ("somebody/pickled@nowhere", "no revision nowhere"),
    ],
)
def test_what_the_hub_lacks_is_one_sentence(ask, name, message):
    done = ask(SAY.format(name=name))
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_pickle_is_never_downloaded(ask, hub):
    ask(SAY.format(name="somebody/pickled"))
    assert not [request for request in hub.requests if request.endswith("pytorch_model.bin")]


def test_no_hub_and_an_empty_cache_is_one_sentence(ask):
    done = ask(SAY.format(name="gpt2"), online=False)
    assert done.returncode == 1
    assert "the hub cannot be reached" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.night
def test_an_audit_fetches_the_tokenizer_and_no_weights(ask, hub, tmp_path):
    rows = [f"review number {number} is {'good' if number % 2 else 'bad'},{number % 2}" for number in range(40)]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    arguments = [
        "-m",
        "ftlab.cli",
        "audit",
        "rows.csv",
        "--tokenizer",
        "somebody/counts",
        "--max-length",
        "8",
        "--json",
    ]
    for online in (True, False):  # the second time from the cache
        done = ask("", arguments=arguments, online=online)
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        tokens = loading.tokenizer("tiny-gpt2")
        longest = max(len(tokens(row.split(",")[0])["input_ids"]) for row in rows)
        assert report["lengths"]["tokens"]["max"] == longest
    asked = [request for request in hub.requests if "somebody/counts" in request]
    assert any(request.endswith("tokenizer.json") for request in asked)
    assert not any(request.endswith((".safetensors", ".bin")) for request in asked)
    # Nor is the tokenizer taken for a model that is there.
    done = ask(SAY.format(name="somebody/counts"), online=False)
    assert done.returncode == 1
    assert "somebody/counts is not in the hub's cache and the hub cannot be reached" in done.stderr
    assert ask(SAY.format(name="somebody/counts")).returncode == 0


@pytest.mark.slow
def test_the_command_runs_a_lesson_in_the_gpu_profile_from_the_hub(ask, tmp_path):
    """By a kernel. Every lesson's cells run so in test_promises."""
    out = str(tmp_path / "out")
    arguments = ["-m", "ftlab.cli", "run", "01", "--profile", "gpu", "-p", "max_length", "32", "--out", out, "--json"]
    done = ask("", arguments=arguments)
    assert done.returncode == 0, done.stderr
    (lesson,) = json.loads(done.stdout)["lessons"]
    assert lesson["metrics"]["rows"] == 80
    notebook = (tmp_path / "out" / "01_data_audit" / "01_data_audit.ipynb").read_text(encoding="utf-8")
    assert "leakage between splits: give" not in notebook  # it was checked


@pytest.mark.parametrize(
    ("problem", "sentence"),
    [
        (OSError(28, "No space left on device"), "the disk is full: .* free some space there"),
        (PermissionError(13, "Permission denied", "/cache/blob"), "cannot be written .*HF_HOME names another"),
        (ConnectionError("reset by peer"), "the hub cannot be reached"),
        (KeyError("sha"), r"the hub cannot be reached \('sha'\)"),
        (UnicodeEncodeError("ascii", "\u00fc", 0, 1, "not ASCII"), "the hub cannot be reached"),
        (UnicodeDecodeError("utf-8", b"\xfc", 0, 1, "no UTF-8"), "is no hub, perhaps the sign-in page"),
        (json.JSONDecodeError("no value", "<html>", 0), "is no hub, perhaps the sign-in page"),
    ],
)
def test_a_full_disk_is_not_taken_for_a_hub_that_cannot_be_reached(monkeypatch, problem, sentence):
    import huggingface_hub

    from ftlab.data import hub
    from ftlab.errors import AssetError

    def fails(*given, **named):
        raise problem

    monkeypatch.setattr(hub, "unreachable", lambda: None)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fails)
    with pytest.raises(AssetError, match=sentence):
        hub.folder("a/b", None, kind="model", patterns=["*"])
