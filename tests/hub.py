"""A stand-in for the model hub: serves folders on this machine over the hub's own routes.

It answers just what `snapshot_download` asks: the files of a revision, and each file with its ETag and commit.
"""

import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = re.compile(r"[0-9a-f]{40}")


class Hub:
    """`repositories`: {("model" or "dataset", repo id): folder}. Every revision of a repository is the same files."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Path] = {}
        self.requests: list[str] = []
        self.endpoint = ""

    def add(self, repo_id: str, folder: Path, kind: str = "model") -> None:
        self.repositories[kind, repo_id] = folder


def _handler(hub: Hub) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.requests.append(path)
            if found := re.fullmatch(r"/api/(model|dataset)s/(.+?)/(?:revision|tree)/([^/]+)(/.*)?", path):
                kind, repo_id, revision = found[1], found[2], found[3]
                folder = hub.repositories.get((kind, repo_id))
                if folder is None:
                    return self.refuse("RepoNotFound")
                if not (COMMIT.fullmatch(revision) or revision == "main"):
                    return self.refuse("RevisionNotFound")
                names = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
                if "/tree/" in path:
                    listing = [
                        {"type": "file", "path": name, "size": (folder / name).stat().st_size, "oid": "0" * 40}
                        for name in names
                    ]
                    return self.send(json.dumps(listing).encode(), body)
                info = {
                    "id": repo_id,
                    "sha": revision if COMMIT.fullmatch(revision) else "a" * 40,
                    "siblings": [{"rfilename": name} for name in names],
                    "private": False,
                    "downloads": 0,
                    "likes": 0,
                    "tags": [],
                }
                return self.send(json.dumps(info).encode(), body)
            if found := re.fullmatch(r"/(datasets/)?(.+?)/resolve/([^/]+)/(.+)", path):
                folder = hub.repositories.get(("dataset" if found[1] else "model", found[2]))
                if folder is None or not (folder / found[4]).is_file():
                    return self.refuse("EntryNotFound")
                content = (folder / found[4]).read_bytes()
                commit = found[3] if COMMIT.fullmatch(found[3]) else "a" * 40
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

        def refuse(self, code: str) -> None:
            self.send_response(404)
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
