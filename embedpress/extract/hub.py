"""A model's folder, from a folder or a hub id."""

from __future__ import annotations

import re
from pathlib import Path

from embedpress.errors import UsageError
from embedpress.extract import torchvision_trap
from embedpress.hub import fetch

_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]
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
    snapshot = _download(name, revision)
    return snapshot, snapshot.name if _COMMIT.match(snapshot.name) else revision


def _download(name: str, revision: str | None) -> Path:
    torchvision_trap.prepare()
    return fetch(name, revision, _FILES)
