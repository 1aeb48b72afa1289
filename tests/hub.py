"""A stand-in for the model hub: serves folders on this machine over the hub's own routes.

It answers just what `snapshot_download` and `list_repo_tree` ask: the commit of a revision, its files, and each file
with its ETag and commit.
"""

import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = re.compile(r"[0-9a-f]{40}")
MAIN = "a" * 40


class Hub:
    """`repositories`: {("model" or "dataset", repo id): folder}. Every revision of a repository is the same files."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Path] = {}
        self.revisions: dict[tuple[str, str], dict[str, str]] = {}
        self.gated: set[tuple[str, str]] = set()
        self.claimed: dict[str, int] = {}
        self.requests: list[str] = []
        self.failing = 0  # a status, with which every request is answered
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

    def commit(self, kind: str, repo_id: str, revision: str) -> str | None:
        """The commit of a revision. As there are no others, every commit that is asked for by its hash is there."""
        return revision if COMMIT.fullmatch(revision) else self.revisions[kind, repo_id].get(revision)


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
            if hub.failing:
                return self.refuse("", status=hub.failing)
            # A slash in a revision is quoted: refs%2Fconvert%2Fparquet.
            if found := re.fullmatch(r"/api/(model|dataset)s/(.+?)/(?:revision|tree)/([^/]+)(/.*)?", path):
                kind, repo_id, revision = found[1], unquote(found[2]), unquote(found[3])
                folder = hub.repositories.get((kind, repo_id))
                if folder is None:
                    return self.refuse("RepoNotFound")
                commit = hub.commit(kind, repo_id, revision)
                if commit is None:
                    return self.refuse("RevisionNotFound")
                names = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
                if "/tree/" in path:
                    listing = [
                        {
                            "type": "file",
                            "path": name,
                            "size": hub.claimed.get(f"{repo_id}/{name}", (folder / name).stat().st_size),
                            "oid": "0" * 40,
                        }
                        for name in names
                    ]
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
            if found := re.fullmatch(r"/(datasets/)?(.+?)/resolve/([^/]+)/(.+)", path):
                kind, repo_id, revision = "dataset" if found[1] else "model", unquote(found[2]), unquote(found[3])
                folder, name = hub.repositories.get((kind, repo_id)), unquote(found[4])
                if folder is None or not (folder / name).is_file():
                    return self.refuse("EntryNotFound")
                if (kind, repo_id) in hub.gated and name != "README.md":
                    return self.refuse("GatedRepo", status=403)
                content = (folder / name).read_bytes()
                commit = hub.commit(kind, repo_id, revision) or MAIN
                return self.send(
                    content, body, {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
                )
            return self.refuse("EntryNotFound")

        def send(self, content: bytes, body: bool, headers: dict[str, str] | None = None) -> None:
            self.send_response(200)
            for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def refuse(self, code: str, status: int = 404) -> None:
            self.send_response(status)
            if code:
                self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@contextmanager
def serve() -> Iterator[Hub]:
    """A hub on the loopback address, until the block ends."""
    hub = Hub()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
