"""Repositories of a model hub: one revision of one repository is one folder on disk, and holds no pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ftlab.errors import AssetError


def folder(repo_id: str, revision: str | None, *, kind: Literal["model", "dataset"], patterns: list[str]) -> Path:
    """The folder of a hub repository at a revision, downloaded when the hub's cache lacks it.

    Only files that match `patterns` are taken. Raises AssetError in one sentence when the hub cannot be reached, or
    does not have it.
    """
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(snapshot_download(repo_id, repo_type=kind, revision=revision, allow_patterns=patterns))
    except errors.RevisionNotFoundError as problem:
        raise AssetError(
            f"{repo_id} has no revision {revision} on the hub; leave the revision out to see what it has"
        ) from problem
    except errors.GatedRepoError as problem:
        raise AssetError(f"{repo_id} is gated: accept its terms on the hub and run `hf auth login`") from problem
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as problem:
        raise AssetError(f"the hub has no {kind} {repo_id!r}; check the name (namespace/name)") from problem
    except Exception as problem:  # the rest is the network's, in many classes of several libraries
        reason = (str(problem).splitlines() or [type(problem).__name__])[0]
        raise AssetError(
            f"{repo_id} is not in the hub's cache and the hub cannot be reached ({reason[:160]}); connect, or use "
            "profile cpu, which needs no hub"
        ) from problem
