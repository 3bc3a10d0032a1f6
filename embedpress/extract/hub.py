"""A model's folder, from a folder or a hub id."""

from __future__ import annotations

import os
import re
from pathlib import Path

from embedpress.errors import MissingDependencyError, UsageError, first_line
from embedpress.extract import torchvision_trap

_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]
_OLDER_WEIGHTS = ["pytorch_model*.bin", "*/pytorch_model*.bin"]
_COMMIT = re.compile(r"[0-9a-f]{40}\Z")


def model_folder(model: str | Path, revision: str | None = None) -> tuple[Path, str | None]:
    """Find a model's files, downloading them only for a hub id.

    Parameters
    ----------
    model : str or Path
        A folder, which goes first, or a hub id such as
        ``"sentence-transformers/all-MiniLM-L6-v2"``.
    revision : str, optional
        Branch, tag or commit on the hub.

    Returns
    -------
    tuple of Path and (str or None)
        The folder, and the commit it was taken from (None for a folder of the user's).

    Raises
    ------
    UsageError
        Where there is no such folder, or the hub does not know the model or is out of reach.
        With ``HF_HUB_OFFLINE=1`` only the local cache is asked.
    """
    name = str(model)
    folder = Path(model).expanduser()
    if name and folder.is_dir():
        if revision is not None:
            raise UsageError(f"revision={revision!r} belongs to a hub id, but {model} is a folder")
        return folder, None
    if isinstance(model, Path) or name[:1] in (".", "/", "~") or name.count("/") > 1 or not name:
        raise UsageError(f"{name!r}: no such model folder")
    snapshot = Path(_download(name, revision))
    return snapshot, snapshot.name if _COMMIT.match(snapshot.name) else revision


def _download(name: str, revision: str | None) -> str:
    torchvision_trap.prepare()
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError as error:
        raise MissingDependencyError(
            "a model of the hub needs huggingface-hub: pip install 'embedpress[train]'"
        ) from error
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    try:
        found = ""
        for patterns in (_FILES, _OLDER_WEIGHTS):
            found = huggingface_hub.snapshot_download(
                name, revision=revision, allow_patterns=patterns, local_files_only=offline
            )
            if any(Path(found).rglob("*.safetensors")):
                break
        return found
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise UsageError(f"{name!r} is neither a folder nor a model that the hub has") from error
    except errors.RevisionNotFoundError as error:
        raise UsageError(f"{name!r} has no revision {revision!r}") from error
    except Exception as error:  # the client lets its HTTP library's own errors through
        why = "HF_HUB_OFFLINE is set" if offline else first_line(error)
        raise UsageError(
            f"{name!r} is not a folder, not in the hub's cache and cannot be downloaded ({why}); "
            "give the folder of a model"
        ) from error
