"""Download one revision of a repository of a model hub into a folder: only files of the given names, so no pickles."""

from __future__ import annotations

import errno
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

    The hub's cache has this list, since `folder` keeps it: without it, one shard of two would look like all of them.

    Args:
        repo_id: namespace/name.
        snapshot: what `folder` returned for it; its name is the commit.

    Raises:
        AssetError: the list is not in the cache.
    """
    from huggingface_hub import errors, get_cached_repo_tree

    try:
        tree = get_cached_repo_tree(repo_id, repo_type="dataset", revision=snapshot.name)
    except errors.CachedRepoTreeNotFoundError as problem:
        raise AssetError(
            f"{repo_id}: the list of its files is not in the hub's cache, so a file may be missing from it; connect to "
            "the hub and run this again"
        ) from problem
    return {file.path: file.size for file in tree}


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
        raise AssetError(
            f"the hub has no {called} {repo_id!r}{path}; check the name (namespace/name), or it is private: run "
            "`hf auth login`"
        ) from problem
    except Exception as problem:
        if files.says_disk_is_full(problem) or isinstance(problem, PermissionError):
            cache = Path(constants.HF_HUB_CACHE)
            said = problem if isinstance(problem, PermissionError) else OSError(errno.ENOSPC, files.NO_SPACE)
            raise AssetError(f"{files.explain(said, cache)} (HF_HOME names another)") from problem
        if answer := _answer(problem):
            raise AssetError(f"{repo_id} is not complete in the hub's cache and {answer}") from problem
        # All other errors come from the network, in many classes of several libraries.
        reason = unreachable() or (str(problem).splitlines() or [type(problem).__name__])[0]
        instead = {
            "model": "use profile cpu, which needs no hub",
            "dataset": "use a file or a data set of the course (profile cpu needs no hub)",
        }[kind]
        raise AssetError(
            f"{repo_id} is not in the hub's cache and the hub cannot be reached ({reason[:160]}); connect, or {instead}"
        ) from problem


def _answer(problem: Exception) -> str:
    """What the hub answered instead of the files, and what to do about it; "" if it did not answer."""
    from huggingface_hub import errors

    # Where the cache is tried after such an answer, the error is that of the cache, and the answer its cause.
    refused = next((one for one in (problem, problem.__cause__) if isinstance(one, errors.HfHubHTTPError)), None)
    if refused is None or refused.response is None:
        return ""
    status = refused.response.status_code
    advice = "run `hf auth login` with a token that may read it" if status in (401, 403) else "try again later"
    return f"the hub answered {status} {refused.response.reason_phrase}".rstrip() + f"; {advice}"
