"""What can go wrong with a hub: each is one sentence that names the way out, and the next try works."""

import json
import os
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pandas as pd
import pytest

from ftlab import cli
from ftlab.course import doctor, lesson
from ftlab.data import hub as hub_module
from ftlab.data import hub_datasets, sources
from ftlab.errors import AssetError, BadInput
from ftlab.models import loading, tiny
from ftlab.progress import Bar
from tests import hub as stand_in
from tests.hub import Fault, Hub
from tests.nightly import NIGHTLY, few_by_day

WEIGHTS, ROWS = "*/resolve/*/model.safetensors", "*/resolve/*.parquet"
BAD_TOKEN = {"X-Error-Message": "Invalid credentials in Authorization header"}
# What a hub does to its listing, and the part of the sentence that says it.
LISTING = [
    (Fault("status", "*/tree/*", 500), "the hub answered 500 Internal Server Error; try again later"),
    (Fault("status", "*/tree/*", 503), "the hub answered 503 Service Unavailable; try again later"),
    (Fault("status", "*/tree/*", 429), "the hub answered 429 Too Many Requests; try again later"),
    (Fault("status", "*/tree/*", 429, {"Retry-After": "3600"}), "the hub answered 429 Too Many Requests; try again"),
    (Fault("status", "*/tree/*", 404, {"X-Error-Code": "RepoNotFound"}), "it was deleted or renamed, or it is private"),
    (Fault("status", "*/tree/*", 401, {"X-Error-Code": "RepoNotFound"}), "it was deleted or renamed, or it is private"),
    (Fault("status", "*/tree/*", 401, BAD_TOKEN), "the hub answered 401 Unauthorized; run `hf auth login`"),
    (Fault("status", "*/tree/*", 404, {"X-Error-Code": "RevisionNotFound"}), "but no revision"),
    (Fault("page"), "is no hub, perhaps the sign-in page of this network; sign in there"),
    (Fault("stall"), "the hub sent nothing for 0.2 seconds, time after time"),
]
# The same of a file. `{}` is its path.
FILE = [
    (Fault("status", "{}", 500), "the hub answered 500 Internal Server Error; try again later"),
    (Fault("status", "{}", 429), "the hub answered 429 Too Many Requests; try again later"),
    (Fault("status", "{}", 401, {"X-Error-Code": "GatedRepo"}), "is gated: accept its terms on the hub"),
    (Fault("status", "{}", 403, {"X-Error-Code": "GatedRepo"}), "is gated: accept its terms on the hub"),
    (Fault("status", "{}", 401, BAD_TOKEN), "the hub answered 401 Unauthorized; run `hf auth login`"),
    (Fault("status", "{}", 403), "the hub answered 403 Forbidden; run `hf auth login` with a token that may read it"),
    (Fault("status", "{}", 404, {"X-Error-Code": "EntryNotFound"}), "{}, which it lists; try again later"),
    (Fault("page", "{}"), "is no hub, perhaps the sign-in page of this network; sign in there"),
    (Fault("stall", "{}"), "the hub sent nothing for 0.2 seconds, time after time"),
    (Fault("half", "{}"), "the hub sent nothing for 0.2 seconds, time after time"),
    (Fault("cut", "{}"), "the connection to the hub broke off; try again"),
    (Fault("reset", "{}"), "the connection to the hub broke off; try again"),
    (Fault("wrong", "{}"), "is not the file that the hub lists (the hash differs), and it was deleted; try again"),
]


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Hub]:
    root = tmp_path_factory.mktemp("hub")
    with stand_in.serve() as hub:
        hub.add_course(stand_in.reviews(root / "imdb"))
        yield hub


@pytest.fixture
def waited(monkeypatch) -> list[float]:
    """The seconds that the library would have slept between two tries."""
    from huggingface_hub import file_download
    from huggingface_hub.utils import _http

    slept: list[float] = []
    clock = SimpleNamespace(sleep=slept.append, time=time.time, monotonic=time.monotonic)
    for module in (file_download, _http):
        monkeypatch.setattr(module, "time", clock)
    return slept


@pytest.fixture
def hub(served, waited, tmp_path, monkeypatch) -> Iterator[Hub]:
    """The stand-in as the hub of this process, with caches of its own, for a user who waits a fifth of a second."""
    import datasets
    from huggingface_hub import constants

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv(lesson.WENT_OFFLINE, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.2)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    at(served.endpoint, monkeypatch)
    hub_datasets.find.cache_clear()
    served.requests.clear()
    yield served
    served.heal()
    hub_datasets.find.cache_clear()


def at(endpoint: str, monkeypatch) -> None:
    """Take `endpoint` for the hub."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")


def gpt2() -> Path:
    return loading.folder("gpt2")


def imdb() -> int:
    return len(sources.read("imdb", from_hub=True))


def any_rows() -> int:
    hub_datasets.find.cache_clear()
    return len(sources.read("stanfordnlp/imdb"))


def refused(call: Callable[[], object], kind: str) -> str:
    """The sentence with which a call fails, if it is one, names the way out, and leaves no half of a file."""
    from huggingface_hub import constants

    with pytest.raises(AssetError) as raised:
        call()
    said = str(raised.value)
    assert len(said.splitlines()) == 1
    assert said.endswith(f"or {hub_module.instead(kind)}")
    assert not list(Path(constants.HF_HUB_CACHE).rglob("*.incomplete"))
    return said


def named(fault: Fault, sentence: str, path: str, name: str) -> tuple[Fault, str]:
    return Fault(fault.kind, fault.path.replace("{}", path), fault.status, fault.headers), sentence.replace("{}", name)


def called(fault: Fault) -> str:
    return f"{fault.kind}{fault.status or ''}{'-'.join(fault.headers.values())[:8]}"


OF_A_MODEL = LISTING + [named(fault, sentence, WEIGHTS, "model.safetensors") for fault, sentence in FILE]
OF_ROWS = LISTING + [named(fault, sentence, ROWS, "-00000-of-00001.parquet") for fault, sentence in FILE]


# --- a model and a data set -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("fault", "sentence"), OF_A_MODEL, ids=lambda each: called(each) if isinstance(each, Fault) else ""
)
def test_a_model_that_does_not_come_is_one_sentence_and_the_next_try_has_it(hub, waited, fault, sentence):
    hub.fault = fault
    assert sentence in refused(gpt2, "model")
    assert sum(waited) < 60
    hub.heal()
    same_as_served(gpt2(), tiny.folder("tiny-gpt2"))


def same_as_served(snapshot: Path, folder: Path) -> None:
    names = [path.name for path in folder.iterdir() if path.suffix in (".json", ".txt", ".safetensors")]
    assert "model.safetensors" in names
    for name in names:
        assert (snapshot / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.parametrize(
    ("fault", "sentence"), OF_ROWS, ids=lambda each: called(each) if isinstance(each, Fault) else ""
)
@pytest.mark.parametrize("read", few_by_day([imdb, any_rows], any_rows), ids=["pinned", "by its id"])
def test_rows_that_do_not_come_are_one_sentence_and_the_next_try_has_them(hub, read, fault, sentence):
    hub.fault = fault
    assert sentence in refused(read, "dataset")
    hub.heal()
    assert read() == 140


def test_the_pinned_revision_is_asked_for_and_another_is_not_taken_for_it(hub, monkeypatch):
    gone = dict(hub.revisions)
    for repository in gone:
        monkeypatch.setitem(hub.revisions, repository, {"main": stand_in.MAIN})  # as after a forced push
    pinned = loading.HUB_MODELS["gpt2"].revision
    assert f"the hub has openai-community/gpt2, but no revision {pinned} of it" in refused(gpt2, "model")
    pinned = sources.SOURCES["imdb"].revision
    assert f"the hub has stanfordnlp/imdb, but no revision {pinned} of it" in refused(imdb, "dataset")
    monkeypatch.undo()
    assert not any("/main" in request or stand_in.MAIN in request for request in hub.requests)


def test_a_repository_that_was_deleted_is_read_from_the_cache_where_it_is(hub, monkeypatch):
    first = gpt2()
    with monkeypatch.context() as deleted:
        deleted.delitem(hub.repositories, ("model", "openai-community/gpt2"))
        deleted.delitem(hub.repositories, ("model", "microsoft/phi-2"))
        assert gpt2() == first
        said = refused(lambda: loading.folder("microsoft/phi-2"), "model")
        assert "the hub has no model 'microsoft/phi-2': it was deleted or renamed" in said
    assert loading.folder("microsoft/phi-2").is_dir()


# --- weights in shards ----------------------------------------------------------------------------------------------
@pytest.fixture
def shards(tmp_path) -> Path:
    """A model in two shards."""
    folder = tmp_path / "in_shards"
    loading.causal_lm("tiny-gpt2").save_pretrained(folder, max_shard_size="100KB")
    loading.tokenizer("tiny-gpt2").save_pretrained(folder)
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    return folder


@pytest.mark.parametrize("listed", [True, False])
def test_a_shard_that_the_index_names_and_the_hub_lacks_is_named(hub, shards, listed):
    lost = max(shards.glob("model-*.safetensors"))
    kept = lost.rename(shards.parent / lost.name)
    hub.add("somebody/shards", shards)
    hub.listed["somebody/shards"] = [lost.name] * listed
    with pytest.raises((AssetError, BadInput)) as raised:
        loading.folder("somebody/shards")
    said = "the hub does not have {}, which it lists; try again later" if listed else "lacks {}, named in its model."
    assert said.format(lost.name) in str(raised.value)
    assert str(raised.value).endswith(hub_module.instead("model"))
    shutil.move(kept, lost)
    hub.listed.clear()
    # Its owner has uploaded it: another commit.
    hub.revisions["model", "somebody/shards"] = {"main": "d" * 40}
    assert len(list(loading.folder("somebody/shards").glob("model-*.safetensors"))) > 1


def test_of_a_download_that_failed_a_wrong_file_is_not_kept_for_the_next_one(hub, shards):
    """The first shard comes with other bytes, and then the second does not come: the next try must not trust it."""
    first, *_, last = sorted(path.name for path in shards.glob("model-*.safetensors"))
    hub.add("somebody/shards", shards)
    whole = (shards / first).read_bytes()
    wrong = bytes(255 - byte for byte in whole)
    hub.instead = {f"somebody/shards/{first}": wrong}
    hub.fault = Fault("status", f"*/resolve/*/{last}", 500)
    assert "the hub answered 500" in refused(lambda: loading.folder("somebody/shards"), "model")
    hub.heal()
    assert (loading.folder("somebody/shards") / first).read_bytes() == whole


# --- what was downloaded is compared, once --------------------------------------------------------------------------
class SeenBar(Bar):
    """A bar that notes its total where it is that of the comparison."""

    totals: ClassVar[list[int]] = []

    def __init__(self, *iterables, **options):
        super().__init__(*iterables, **options)
        if options.get("desc") == "comparing":
            self.totals.append(options["total"])


@pytest.fixture
def totals(monkeypatch) -> list[int]:
    """The bytes of each comparison, as its bar announces them."""
    monkeypatch.setattr(SeenBar, "totals", [])
    monkeypatch.setattr(hub_module, "Bar", SeenBar)
    return SeenBar.totals


def test_each_file_is_compared_once_and_the_cache_stays_one_that_the_library_reads(hub, totals):
    import huggingface_hub

    snapshot = loading.tokenizer_folder("gpt2")
    in_it = [path.stat().st_size for path in snapshot.iterdir()]
    assert loading.tokenizer_folder("gpt2") == snapshot
    assert totals == [sum(in_it)]
    gpt2()
    gpt2()
    assert totals == [sum(in_it), (snapshot / "model.safetensors").stat().st_size]
    cache = huggingface_hub.scan_cache_dir(hub_module._repository("a/b", "model").parent)
    assert (cache.warnings, len(cache.repos)) == ([], 1)


@pytest.fixture
def cut_off(hub, monkeypatch) -> Path:
    """The snapshot of a download that the user ended before it was compared; a file of it has other bytes."""
    import huggingface_hub

    came: list[Path] = []

    def ended(*given, **named):
        came.append(Path(download(*given, **named)))
        raise KeyboardInterrupt

    download = huggingface_hub.snapshot_download
    hub.fault = Fault("wrong", "*/resolve/*/model.safetensors")
    with monkeypatch.context() as interrupted:
        interrupted.setattr(huggingface_hub, "snapshot_download", ended)
        with pytest.raises(KeyboardInterrupt):
            gpt2()
    hub.heal()
    return came[0]


def test_what_was_cut_off_before_it_was_compared_is_compared_by_the_next_call(hub, cut_off, totals):
    assert (cut_off / "model.safetensors").is_file()  # nothing is read while the user waits for the prompt
    same_as_served(gpt2(), tiny.folder("tiny-gpt2"))
    assert len(totals) == 2  # of all files, and of the one that came again


def test_what_was_cut_off_is_not_used_where_the_hub_is_gone(hub, cut_off, monkeypatch):
    with monkeypatch.context() as away:
        at("http://127.0.0.1:9", away)
        assert "is not in the hub's cache and the hub cannot be reached" in refused(gpt2, "model")
    assert not (cut_off / "model.safetensors").exists()
    same_as_served(gpt2(), tiny.folder("tiny-gpt2"))


def test_one_file_under_two_names_is_deleted_under_both(hub, tmp_path):
    (tmp_path / "twins").mkdir()
    for name in ("one.json", "two.json"):
        (tmp_path / "twins" / name).write_text("{}", encoding="utf-8")
    hub.add("somebody/twins", tmp_path / "twins")
    hub.instead = {f"somebody/twins/{name}": b"[]" for name in ("one.json", "two.json")}

    def twins() -> Path:
        return hub_module.folder("somebody/twins", None, kind="model", patterns=["*.json"])

    assert "what was downloaded as one.json, two.json is not the file" in refused(twins, "model")
    hub.heal()
    assert [path.read_text(encoding="utf-8") for path in twins().iterdir()] == ["{}", "{}"]


def test_a_file_that_another_process_deletes_while_it_is_compared_is_named(hub, monkeypatch):
    class Thief(Bar):
        def __init__(self, *iterables, **options):
            super().__init__(*iterables, **options)
            if options.get("desc") == "comparing":
                for path in hub_module._repository("openai-community/gpt2", "model").rglob("config.json"):
                    path.unlink()

    with monkeypatch.context() as stolen:
        stolen.setattr(hub_module, "Bar", Thief)
        assert "what was downloaded as config.json is not the file" in refused(gpt2, "model")
    same_as_served(gpt2(), tiny.folder("tiny-gpt2"))


# --- no way to the hub ----------------------------------------------------------------------------------------------
# How the system says that nobody answers at a port.
REFUSED = "actively refused it" if sys.platform == "win32" else "Connection refused"


@pytest.mark.parametrize(
    ("endpoint", "proxy", "reason"),
    [
        ("http://127.0.0.1:9", "", REFUSED),
        ("http://hub.invalid", "", "("),  # the system says in its own words that there is no such host
        ("http://hub.invalid", "http://user:secret@127.0.0.1:9", "the proxy 127.0.0.1:9 does not answer: "),
        ("http://hub.invalid", "127.0.0.1:9", "the proxy 127.0.0.1:9 does not answer: "),
        (
            "http://hub.invalid",
            "http://user:secret/x@127.0.0.1:9",
            "the proxy (http_proxy) cannot be read: in its pass",
        ),
        (
            "http://hub.invalid",
            "http://user:secret#x@127.0.0.1:9",
            "the proxy (http_proxy) cannot be read: in its pass",
        ),
        ("http://hub.invalid", "http://[::1", "the proxy (http_proxy) cannot be read: in its password"),
        ("http://hub.invalid", "socks5://127.0.0.1", "the proxy 127.0.0.1:1080 does not answer"),
        ("http://hub.invalid:port", "", "its address (HF_ENDPOINT) cannot be read"),
    ],
    ids=[
        "refused",
        "no such host",
        "dead proxy",
        "dead proxy without http",
        "proxy with a slash",
        "proxy with a hash",
        "half an address",
        "dead proxy of SOCKS",
        "no port",
    ],
)
def test_a_hub_that_is_not_there_is_said_at_once_and_the_cache_still_serves(hub, monkeypatch, endpoint, proxy, reason):
    with monkeypatch.context() as away:
        at(endpoint, away)
        if proxy:
            away.setenv("http_proxy", proxy)
        said = [refused(gpt2, "model"), refused(imdb, "dataset"), refused(any_rows, "dataset")]
        assert reason in doctor._hub().found
    assert all("is not in the hub's cache and the hub cannot be reached" in each for each in said)
    assert all(reason in each and "secret" not in each for each in said)
    first, rows = gpt2(), imdb()
    at(endpoint, monkeypatch)
    if proxy:
        monkeypatch.setenv("http_proxy", proxy)
    assert (gpt2(), imdb()) == (first, rows)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Path:
    """A certificate that nobody has signed but its owner, and its key, in one file."""
    if not (openssl := shutil.which("openssl")):
        pytest.skip("the certificate is made by the program openssl")
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    asked = "req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -addext subjectAltName=DNS:localhost -days 2"
    command = [openssl, *asked.split(), "-keyout", str(path), "-out", str(path.with_suffix(".crt"))]
    subprocess.run(command, check=True, capture_output=True)
    with path.open("a", encoding="ascii") as file:
        file.write(path.with_suffix(".crt").read_text(encoding="ascii"))
    return path


def test_a_certificate_that_is_not_trusted_is_said_and_can_be_named(served, hub, certificate, monkeypatch):
    from huggingface_hub.utils import _http

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with stand_in.serve(context) as behind_tls:
        behind_tls.repositories, behind_tls.revisions = served.repositories, served.revisions
        at(behind_tls.endpoint, monkeypatch)
        monkeypatch.setenv("no_proxy", "localhost")
        said = refused(gpt2, "model")
        assert f"the certificate of {behind_tls.endpoint} is not one that this machine trusts (self" in said
        assert "set SSL_CERT_FILE to your network's certificate (PEM), or" in said
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate.with_suffix(".crt")))
        _http.close_session()
        assert gpt2().is_dir()
    _http.close_session()


def test_a_hub_without_tls_at_an_https_address_is_said_so(hub, monkeypatch):
    at(hub.endpoint.replace("http:", "https:"), monkeypatch)
    said = refused(gpt2, "model")
    assert f"no TLS connection to https:{hub.endpoint[5:]} came about (" in said
    assert "check that address (HF_ENDPOINT) and the proxy" in said


def test_a_token_that_cannot_be_sent_is_not_taken_for_a_sign_in_page(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret\u00fc")
    said = refused(gpt2, "model")
    assert "the hub cannot be reached ('ascii' codec can't encode character" in said
    assert "secret" not in said


def test_a_hub_that_is_turned_off_is_said_so(hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE turns it off: set it to 0" in refused(gpt2, "model")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert gpt2().is_dir()


@pytest.mark.skipif(sys.platform == "win32", reason="a system without limits of a file's size")
@pytest.mark.parametrize("read", [gpt2, imdb, any_rows])
def test_a_disk_that_is_full_is_said_and_nothing_is_left_of_the_file(hub, read):
    """As a quota does it: a file may have so many bytes and no more."""
    import resource

    from huggingface_hub import constants

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, before[1]))
    try:
        with pytest.raises(AssetError, match=r"the disk is full: .* could not be written; free some space there"):
            read()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(Path(constants.HF_HUB_CACHE).rglob("*.incomplete"))
    assert read()


def test_where_a_hub_keeps_its_files_in_xet_and_that_does_not_answer_it_is_one_sentence(hub, monkeypatch):
    monkeypatch.setenv("HF_XET_CLIENT_RETRY_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("HF_XET_CLIENT_RETRY_BASE_DELAY", "10ms")
    hub.xet = True
    assert "(Xet) does not answer; set HF_HUB_DISABLE_XET to 1 and try again" in refused(gpt2, "model")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    same_as_served(gpt2(), tiny.folder("tiny-gpt2"))


# --- at the command line and in a notebook --------------------------------------------------------------------------
@pytest.mark.parametrize("number", ["00", "01", "02", "03", "04", "05", "06"])
def test_a_run_whose_model_does_not_come_ends_with_one_line_and_leaves_nothing(
    hub, number, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    hub.fault = Fault("status", "*/resolve/*", 503)
    assert cli.main(["run", number, "--profile", "gpu"]) == 2
    *before, line = capsys.readouterr().err.splitlines()
    assert all(each.startswith("ftlab: ") for each in [*before, line])
    assert "the hub answered 503 Service Unavailable" in line
    assert line.endswith("use a model that needs no hub (profile cpu has one)")
    assert not [path for path in tmp_path.iterdir() if path.name == "runs"]


def test_a_notebook_whose_model_does_not_come_says_so_and_begins_when_it_does(hub, tmp_path, monkeypatch):
    monkeypatch.setenv(lesson.RUN_FOLDER, str(tmp_path / "run" / "02_text_classification"))
    hub.fault = Fault("half", WEIGHTS)
    with pytest.raises(AssetError, match=r"the hub sent nothing for 0\.2 seconds") as raised:
        lesson.begin("02_text_classification", profile="gpu")
    assert raised.value._render_traceback_() == [f"AssetError: {raised.value}"]
    assert not (tmp_path / "run").exists()
    hub.heal()
    begun = lesson.begin("02_text_classification", profile="gpu")
    assert begun.budget.model == "distilbert-base-uncased"
    lesson._give_back()


def in_a_process(hub: Hub, home: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, with the settings that a user has."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home), "no_proxy": "127.0.0.1", **more}
    command = [sys.executable, "-m", "ftlab.cli", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=home.parent)


def test_a_hub_that_falls_silent_ends_a_command_in_time_and_another_process_goes_on(served, tmp_path):
    rows = pd.DataFrame({"text": [f"review number {n}" for n in range(40)], "label": [n % 2 for n in range(40)]})
    rows.to_csv(tmp_path / "rows.csv", index=False)
    command = ("audit", "rows.csv", "--tokenizer", "gpt2", "--json")
    served.fault = Fault("half", "*/resolve/*/tokenizer.json")
    began = time.monotonic()
    done = in_a_process(served, tmp_path / "hf", *command, HF_HUB_DOWNLOAD_TIMEOUT="1")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert "the hub sent nothing for 1 seconds, time after time; try again later (HF_HUB_DOWNLOAD_TIMEOUT sets" in line
    assert time.monotonic() - began < 60
    served.heal()
    done = in_a_process(served, tmp_path / "hf", *command)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["lengths"]["tokens"]["max"] > 0


@pytest.mark.skipif(not NIGHTLY, reason="it starts two kernels: make test-nightly")
def test_a_run_whose_rows_do_not_come_in_mid_lesson_leaves_nothing_and_runs_when_they_do(served, tmp_path):
    """The model is asked for before a lesson starts, the rows by the lesson."""
    small = ("-p", "rows", "40", "-p", "max_length", "32", "-p", "epochs", "1", "-p", "validation_rows", "20")
    command = ("run", "02", "--profile", "gpu", *small, "--out", str(tmp_path / "out"), "--json")
    served.fault = Fault("cut", ROWS)
    done = in_a_process(served, tmp_path / "hf", *command)
    assert done.returncode == 2
    line = done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert line.startswith("ftlab: 02_text_classification: ")
    assert f"the connection to the hub broke off; try again, or {hub_module.instead('dataset')}" in line
    assert not (tmp_path / "out").exists()
    served.heal()
    done = in_a_process(served, tmp_path / "hf", *command)
    assert done.returncode == 0, done.stderr
