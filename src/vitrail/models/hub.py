"""Weights files from the Hugging Face hub and from plain addresses, kept where those keep them."""

from __future__ import annotations

import hashlib
import re
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlparse

import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import (
    EntryNotFoundError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from vitrail.core.errors import CheckpointError
from vitrail.core.files import open_regular

SHA256 = re.compile("[0-9a-f]{64}")


def fetch_weights(address: str) -> Path:
    """The local copy of ``https://...`` or ``hf://owner/repository[@revision]/path``.

    Raises:
        CheckpointError: another kind of address, or it cannot be downloaded.
    """
    if address.startswith("hf://"):
        hub_id, revision, file = split_address(address)
        return fetch_from_hub(hub_id, file, revision)
    return _fetch_url(address)


def split_address(address: str) -> tuple[str, str, str]:
    """Repository, revision and file of ``hf://owner/repository[@revision]/path``.

    Raises:
        CheckpointError: one of them is missing.
    """
    owner, _, rest = address.removeprefix("hf://").partition("/")
    repository, _, file = rest.partition("/")
    repository, _, revision = repository.partition("@")
    if not (owner and repository and file):
        raise CheckpointError(f"weights {address} name no file; write hf://owner/repository/file")
    return f"{owner}/{repository}", revision or "main", file


def fetch_from_hub(hub_id: str, file: str, revision: str = "main", sha256: str | None = None) -> Path:
    """A file of a repository, from the hub's cache or from the hub, compared with its hash.

    ``HF_ENDPOINT``, ``HF_HUB_CACHE``, ``HF_HUB_OFFLINE`` and ``HF_TOKEN`` have their usual meaning.

    Args:
        hub_id: ``owner/name``.
        file: path in the repository.
        revision: branch, tag or commit.
        sha256: hash of the file; None takes the hub's own record.

    Raises:
        CheckpointError: no such file, no network, or a damaged copy.
    """
    source = f"hf://{hub_id}/{file}" if revision == "main" else f"hf://{hub_id}@{revision}/{file}"
    try:
        path = Path(hf_hub_download(hub_id, file, revision=revision))
        expected = sha256 or _recorded_hash(path, hub_id, file, revision)
    except LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"cannot download {source}: the hub cannot be reached, or HF_HUB_OFFLINE is set, and the file is not in "
            "the cache; check the network, or download it elsewhere and pass the file"
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError) as error:
        raise CheckpointError(
            f"cannot download {source}: the hub has no such file, or it is private; check the address, or set HF_TOKEN"
        ) from error
    except (OSError, HFValidationError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise CheckpointError(f"cannot download {source}: {reason}; check the address and the network") from error
    if expected is not None and _hash(path) != expected:
        raise CheckpointError(f"{path} is damaged: its SHA-256 is not {expected}; delete it to download it again")
    return path


def _recorded_hash(path: Path, hub_id: str, file: str, revision: str) -> str | None:
    """SHA-256 as the hub recorded it: the name of the cached blob, or where that is no link, the hub's reply.

    None where the hub cannot be reached, and for small files, which it keeps in git under another kind of hash.
    """
    if path.is_symlink():
        recorded: str | None = path.resolve().name
    else:
        try:
            recorded = get_hf_file_metadata(hf_hub_url(hub_id, file, revision=revision)).etag
        except OSError:
            recorded = None
    return recorded if recorded is not None and SHA256.fullmatch(recorded) else None


def _hash(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch_url(url: str) -> Path:
    try:
        parts = urlparse(url)
    except ValueError as error:
        raise CheckpointError(f"weights URL {url} is wrong: {error}; write https://host/file") from error
    local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if parts.scheme != "https" and not (parts.scheme == "http" and local):
        raise CheckpointError(f"weights URL {url} is not https; download it yourself and pass the file")
    address = hashlib.sha256(url.encode()).hexdigest()[:12]
    path = Path(torch.hub.get_dir()) / "vitrail" / f"{address}-{Path(parts.path).name}"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path))
        except (OSError, HTTPException, ValueError) as error:
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise CheckpointError(f"cannot download {url}: {reason}; check the address and the network") from error
    return path
