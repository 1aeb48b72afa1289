"""A stand-in for the model hub: serves folders on this machine over the hub's own routes, and fails where it is told.

It answers just what `snapshot_download` and `list_repo_tree` ask: the commit of a revision, its files, and each file
with its ETag and commit. As on the real hub, a file of Git LFS has its SHA-256 in the listing and as its ETag, any
other its Git blob hash; a revision that a repository does not have is refused.
"""

import fnmatch
import hashlib
import http.server
import json
import re
import socket
import ssl
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from ftlab.data import sources
from ftlab.models import loading, tiny

MAIN = "a" * 40
IN_LFS = (".safetensors", ".bin", ".parquet")
# The tiny models of the real classes that stand for the models of the gpu profile.
STAND_FOR = {"distilbert-base-uncased": "tiny-distilbert", "gpt2": "tiny-gpt2", "microsoft/phi-2": "tiny-phi"}


@dataclass(frozen=True)
class Fault:
    """What happens to the requests whose path matches `path`.

    status: answered with `status` and `headers`, without a body. page: a web page, as a network's sign-in page answers.
    stall: nothing is sent. half: half of the file is sent, then nothing. cut: half of it, then the connection is
    closed; reset: then it is reset. wrong: a file of the right size with other bytes.
    """

    kind: Literal["status", "page", "stall", "half", "cut", "reset", "wrong"]
    path: str = "*"
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)


class Hub:
    """`repositories`: {("model" or "dataset", repo id): folder}. Every revision of a repository is the same files."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Path] = {}
        self.revisions: dict[tuple[str, str], dict[str, str]] = {}
        self.gated: set[tuple[str, str]] = set()
        self.claimed: dict[str, int] = {}
        self.listed: dict[str, list[str]] = {}  # repository id: files that are listed, and are not there
        self.instead: dict[str, bytes] = {}  # <repository id>/<file>: the bytes that are sent instead of its own
        self.xet = False  # whether files of Git LFS are kept in Xet, for which there is no server here
        self.requests: list[str] = []
        self.failing = 0  # a status, with which every request is answered
        self.fault: Fault | None = None
        self.ended = threading.Event()  # a stalled answer waits for it
        self.endpoint = ""

    def add(
        self,
        repo_id: str,
        folder: Path,
        kind: str = "model",
        *,
        revisions: Mapping[str, str] | None = None,
        gated: bool = False,
    ) -> None:
        """`revisions`: {branch or tag: commit}, beside main. What is gated is listed, and its files are refused."""
        self.repositories[kind, repo_id] = folder
        self.revisions[kind, repo_id] = {"main": MAIN, **(revisions or {})}
        if gated:
            self.gated.add((kind, repo_id))

    def add_course(self, imdb: Path) -> None:
        """Serve the models and the data set of the gpu profile at their pinned revisions; main is another commit.

        `imdb`: a folder with Parquet files as IMDB has them.
        """
        for name, built in STAND_FOR.items():
            model = loading.HUB_MODELS[name]
            self.add(model.repo_id, tiny.folder(built), revisions={"pinned": model.revision})
        pinned = sources.SOURCES["imdb"].revision
        assert pinned is not None
        self.add("stanfordnlp/imdb", imdb, "dataset", revisions={"pinned": pinned})

    def heal(self) -> None:
        """Answer everything as asked again; what was stalled ends."""
        self.fault, self.failing, self.instead, self.xet = None, 0, {}, False
        self.ended.set()
        self.ended = threading.Event()

    def commit(self, kind: str, repo_id: str, revision: str) -> str | None:
        """The commit of a branch, a tag, or a commit by its hash; None if the repository does not have it."""
        known = self.revisions.get((kind, repo_id), {})
        return revision if revision in known.values() else known.get(revision)


def reviews(folder: Path) -> Path:
    """Write a few reviews of films into `folder`, as IMDB has them on the hub; return the folder."""
    (folder / "plain_text").mkdir(parents=True)
    rows = sources.read("mini_reviews").sample(frac=1, random_state=0)
    rows["label"] = (rows["label"] == "positive").astype(int)
    for split, part in (("train", rows[:140]), ("test", rows[140:])):
        part[["text", "label"]].to_parquet(folder / "plain_text" / f"{split}-00000-of-00001.parquet")
    return folder


def _names(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def _blob(content: bytes) -> str:
    """The hash of a file in Git (https://git-scm.com/book/en/v2/Git-Internals-Git-Objects)."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _entry(folder: Path, name: str, claimed: int | None) -> dict[str, object]:
    """A file as the listing of a repository describes it."""
    content = (folder / name).read_bytes() if (folder / name).is_file() else b""
    entry: dict[str, object] = {"type": "file", "path": name, "size": claimed or len(content), "oid": _blob(content)}
    if name.endswith(IN_LFS):
        entry["oid"] = _blob(name.encode())  # of its pointer
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return entry


def _etag(name: str, content: bytes) -> str:
    return hashlib.sha256(content).hexdigest() if name.endswith(IN_LFS) else _blob(content)


def _handler(hub: Hub) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            path = urlsplit(self.path).path
            hub.requests.append(unquote(path))
            fault = hub.fault if hub.fault and fnmatch.fnmatch(unquote(path), hub.fault.path) else None
            if hub.failing:
                return self.refuse("", status=hub.failing)
            if fault and fault.kind == "status":
                return self.refuse("", fault.status, fault.headers)
            if fault and fault.kind == "page":
                return self.send(b"<!DOCTYPE html><title>Sign in</title>", body, {"Content-Type": "text/html"})
            if fault and fault.kind == "stall":
                return self.fall_silent()
            # A slash in a revision is quoted: refs%2Fconvert%2Fparquet.
            if found := re.fullmatch(r"/api/(model|dataset)s/(.+?)/(revision|tree)/([^/]+)(?:/.*)?", path):
                return self.describe(found[1], unquote(found[2]), unquote(found[4]), found[3] == "tree", body)
            if found := re.fullmatch(r"/(datasets/)?(.+?)/resolve/([^/]+)/(.+)", path):
                repo_id, revision, name = map(unquote, found.groups()[1:])
                return self.file("dataset" if found[1] else "model", repo_id, revision, name, fault, body)
            if hub.xet and "/xet-read-token/" in path:  # the token of a server that is not there
                nowhere = {"X-Xet-Cas-Url": "http://127.0.0.1:9", "X-Xet-Access-Token": "token"}
                return self.send(b"{}", body, {**nowhere, "X-Xet-Token-Expiration": "4102444800"})
            return self.refuse("EntryNotFound")

        def describe(self, kind: str, repo_id: str, revision: str, tree: bool, body: bool) -> None:
            folder, commit = hub.repositories.get((kind, repo_id)), hub.commit(kind, repo_id, revision)
            if folder is None:
                return self.refuse("RepoNotFound")
            if commit is None:
                return self.refuse("RevisionNotFound")
            names = _names(folder) + hub.listed.get(repo_id, [])
            if tree:
                listing = [_entry(folder, name, hub.claimed.get(f"{repo_id}/{name}")) for name in names]
                for entry in listing if hub.xet else ():
                    entry |= {"xetHash": "e" * 64} if "lfs" in entry else {}
                return self.send(json.dumps(listing).encode(), body)
            info = {
                "id": repo_id,
                "sha": commit,
                "siblings": [{"rfilename": name} for name in names],
                "private": False,
                "downloads": 0,
                "likes": 0,
                "tags": [],
            }
            return self.send(json.dumps(info).encode(), body)

        def file(self, kind: str, repo_id: str, revision: str, name: str, fault: Fault | None, body: bool) -> None:
            folder, commit = hub.repositories.get((kind, repo_id)), hub.commit(kind, repo_id, revision)
            if folder is None:
                return self.refuse("RepoNotFound")
            if commit is None:
                return self.refuse("RevisionNotFound")
            if not (folder / name).is_file():
                return self.refuse("EntryNotFound")
            if (kind, repo_id) in hub.gated and name != "README.md":
                return self.refuse("GatedRepo", status=403 if self.headers.get("Authorization") else 401)
            content = (folder / name).read_bytes()
            headers = {"X-Repo-Commit": commit, "ETag": f'"{_etag(name, content)}"'}
            if fault and body:
                if fault.kind == "wrong":
                    return self.send(bytes(255 - byte for byte in content), body, headers)
                return self.break_off(content, headers, fault.kind)
            return self.send(hub.instead.get(f"{repo_id}/{name}", content), body, headers)

        def send(self, content: bytes, body: bool, headers: Mapping[str, str] | None = None) -> None:
            self.send_response(200)
            for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def break_off(self, content: bytes, headers: Mapping[str, str], kind: str) -> None:
            """Announce the whole file, and send half of it."""
            self.send_response(200)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            if kind == "reset":  # what is not yet sent is thrown away, and the other side gets a reset
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if kind == "half":
                self.fall_silent()
            self.close_connection = True

        def fall_silent(self) -> None:
            hub.ended.wait(60)
            self.close_connection = True

        def refuse(self, code: str, status: int = 404, headers: Mapping[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {**({"X-Error-Code": code} if code else {}), **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    return Handler


class _Server(http.server.ThreadingHTTPServer):
    block_on_close = False  # a stalled answer ends with its connection

    def handle_error(self, *_: object) -> None:
        """Say nothing of connections that clients close, and of those that this server resets."""


@contextmanager
def serve(tls: ssl.SSLContext | None = None) -> Iterator[Hub]:
    """A hub on the loopback address, until the block ends; with `tls` one at https://localhost."""
    hub = Hub()
    server = _Server(("127.0.0.1", 0), _handler(hub))
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        hub.endpoint = f"https://localhost:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        hub.ended.set()
        server.shutdown()
        server.server_close()
