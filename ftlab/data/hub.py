"""Repositories of a model hub: one revision of one repository is one folder on disk, and holds no pickle."""

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
    """Why the hub cannot be reached, or None when it answers. Behind a proxy only a request could tell: None."""
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
    """The folder of a hub repository at a revision, downloaded when the hub's cache lacks it.

    Only files that match `patterns` are taken. Raises AssetError in one sentence when the hub cannot be reached, or
    does not have it.
    """
    from huggingface_hub import constants, errors, snapshot_download

    try:
        path = snapshot_download(
            repo_id,
            repo_type=kind,
            revision=revision,
            allow_patterns=patterns,
            tqdm_class=Bar,
            local_files_only=unreachable() is not None,  # else it would try five times before it looks on the disk
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
        # The rest is the network's, in many classes of several libraries.
        reason = unreachable() or (str(problem).splitlines() or [type(problem).__name__])[0]
        raise AssetError(
            f"{repo_id} is not in the hub's cache and the hub cannot be reached ({reason[:160]}); connect, or use "
            "profile cpu, which needs no hub"
        ) from problem
    return Path(path)
