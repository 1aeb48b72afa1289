"""Download one revision of a repository of a model hub into a folder: only files of the given names, so no pickles."""

from __future__ import annotations

import errno
import os
import socket
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
    from huggingface_hub import constants, errors, snapshot_download

    try:
        path = snapshot_download(
            repo_id,
            repo_type=kind,
            revision=revision,
            allow_patterns=patterns,
            tqdm_class=Bar,
            local_files_only=unreachable() is not None,  # else it tries five times before it looks in the cache
        )
    except errors.RevisionNotFoundError as problem:
        raise AssetError(f"the hub has {repo_id}, but no revision {revision} of it; check the revision") from problem
    except errors.GatedRepoError as problem:
        raise AssetError(f"{repo_id} is gated: accept its terms on the hub and run `hf auth login`") from problem
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as problem:
        raise AssetError(f"the hub has no {kind} {repo_id!r}; check the name (namespace/name)") from problem
    except Exception as problem:
        if files.says_disk_is_full(problem) or isinstance(problem, PermissionError):
            cache = Path(constants.HF_HUB_CACHE)
            said = problem if isinstance(problem, PermissionError) else OSError(errno.ENOSPC, files.NO_SPACE)
            raise AssetError(f"{files.explain(said, cache)} (HF_HOME names another)") from problem
        # All other errors come from the network, in many classes of several libraries.
        reason = unreachable() or (str(problem).splitlines() or [type(problem).__name__])[0]
        raise AssetError(
            f"{repo_id} is not in the hub's cache and the hub cannot be reached ({reason[:160]}); connect, or use "
            "profile cpu, which needs no hub"
        ) from problem
    return Path(path)
