"""Download one revision of a repository of a model hub into a folder: only files of the given names, so no pickles."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from ftlab import files
from ftlab.errors import AssetError
from ftlab.progress import Bar


def unreachable() -> str | None:
    """Return why the hub cannot be reached, or None if it answers. Behind a proxy, which only a request tests, None."""
    from huggingface_hub import constants

    url = urlsplit(constants.ENDPOINT)
    if os.environ.get(f"{url.scheme}_proxy") or os.environ.get(f"{url.scheme}_proxy".upper()):
        return None
    try:
        port = url.port or (443 if url.scheme == "https" else 80)
        socket.create_connection((url.hostname or "", port), timeout=5).close()
    except OSError as problem:
        return problem.strerror or str(problem)
    return None


def folder(repo_id: str, revision: str | None, *, kind: Literal["model", "dataset"], patterns: list[str]) -> Path:
    """Return the folder of a hub repository at a revision, and download it if the hub's cache lacks it.

    Args:
        repo_id: namespace/name.
        revision: a commit, branch or tag; None is the main branch.
        kind: of the repository.
        patterns: only files that match one of them are downloaded.

    Raises:
        AssetError: the hub cannot be reached, does not have the revision, or asks for its terms to be accepted; or the
            disk is full or read-only.
    """
    from huggingface_hub import snapshot_download

    with _explained(repo_id, revision, kind):
        path = snapshot_download(
            repo_id,
            repo_type=kind,
            revision=revision,
            allow_patterns=patterns,
            tqdm_class=Bar,
            local_files_only=unreachable() is not None,  # else it tries five times before it looks in the cache
        )
    return Path(path)


def sizes(repo_id: str, snapshot: Path) -> dict[str, int]:
    """Return the size in bytes of each file of a data set's repository at a commit, whether it is downloaded or not.

    Args:
        repo_id: namespace/name.
        snapshot: what `folder` returned for it; its name is the commit.

    Raises:
        AssetError: the hub does not answer, or does not show the files.
    """
    from huggingface_hub import HfApi, RepoFile, is_offline_mode

    if unreachable() or is_offline_mode():
        return _cached_sizes(snapshot)
    with _explained(repo_id, snapshot.name, "dataset"):
        tree = HfApi().list_repo_tree(repo_id, recursive=True, revision=snapshot.name, repo_type="dataset")
        return {file.path: file.size for file in tree if isinstance(file, RepoFile)}


def _cached_sizes(snapshot: Path) -> dict[str, int]:
    """The files that the hub's cache knows of: it keeps the list of each commit, so that none is silently missing."""
    try:
        listed = json.loads((snapshot.parents[1] / "trees" / f"{snapshot.name}.json").read_text(encoding="utf-8"))
        return {name: int(file["size"]) for name, file in listed["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # a cache that was filled in another way
        there = (path for path in snapshot.rglob("*") if path.is_file())
        return {path.relative_to(snapshot).as_posix(): path.stat().st_size for path in there}


@contextmanager
def _explained(repo_id: str, revision: str | None, kind: Literal["model", "dataset"]) -> Iterator[None]:
    """Raise each error of a request to the hub as an AssetError of one sentence."""
    from huggingface_hub import constants, errors

    called = {"model": "model", "dataset": "data set"}[kind]
    try:
        yield
    except errors.RevisionNotFoundError as problem:
        raise AssetError(f"the hub has {repo_id}, but no revision {revision} of it; check the revision") from problem
    except errors.GatedRepoError as problem:
        raise AssetError(f"{repo_id} is gated: accept its terms on the hub and run `hf auth login`") from problem
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as problem:
        path = " (and there is no such file here)" if kind == "dataset" else ""
        raise AssetError(f"the hub has no {called} {repo_id!r}{path}; check the name (namespace/name)") from problem
    except Exception as problem:
        if files.says_disk_is_full(problem) or isinstance(problem, PermissionError):
            cache = Path(constants.HF_HUB_CACHE)
            said = problem if isinstance(problem, PermissionError) else OSError(errno.ENOSPC, files.NO_SPACE)
            raise AssetError(f"{files.explain(said, cache)} (HF_HOME names another)") from problem
        # All other errors come from the network, in many classes of several libraries.
        reason = unreachable() or (str(problem).splitlines() or [type(problem).__name__])[0]
        instead = {
            "model": "use profile cpu, which needs no hub",
            "dataset": "use a file or a data set of the course (profile cpu needs no hub)",
        }[kind]
        raise AssetError(
            f"{repo_id} is not in the hub's cache and the hub cannot be reached ({reason[:160]}); connect, or {instead}"
        ) from problem
