"""The model hub: files brought from it, and a compressor folder given to it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedpress import __version__
from embedpress.errors import (
    EmbedpressError,
    FormatError,
    MissingDependencyError,
    StorageError,
    UsageError,
    first_line,
)

if TYPE_CHECKING:
    from huggingface_hub import HfApi

PUSHED = (
    "README.md",
    "canaries.safetensors",
    "code_decoder.onnx",
    "rerank_documents.onnx",
    "rerank_queries.onnx",
    "code_encoder.onnx",
    "config.json",
    "decoder.onnx",
    "encoder.onnx",
    "extractor.json",
    "extractor_canaries.safetensors",
    "image_encoder.onnx",
    "latent_encoder.onnx",
    "metrics.json",
    "model.safetensors",
    "query_encoder.onnx",
    "text_encoder.onnx",
    "tokenizer.json",
)
"""Files of a compressor that travel. Embeddings of real inputs, for `drift`, do not."""
FETCHED = (*PUSHED, "reference.safetensors")
"""Files that are taken from the hub, whatever else a repository holds."""
MOST_BYTES = 16 << 30
"""What a download may take: the files of a compressor, or of a BERT, take a tenth of it."""
_SLACK = 1 << 20
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_ID = re.compile(rf"(?P<id>{_NAME}/{_NAME})(?:@(?P<revision>[A-Za-z0-9._/-]+))?\Z")


def compressor_folder(
    model: str | Path,
    revision: str | None = None,
    *,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """The folder of a compressor, downloaded where it is named by a hub id.

    Parameters
    ----------
    model : str or Path
        A folder, which goes first, or a hub id such as ``"org/name"`` or ``"org/name@v1"``.
        A Path is always a folder.
    revision : str, optional
        Branch, tag or commit on the hub, in place of the one after ``@``.
    token : str or bool, optional
        Of the hub; the one that `hf auth login` left by default.
    cache_dir : str or Path, optional
        Where downloads are kept; the hub's own cache by default.
    local_files_only : bool
        Take what is in the cache and ask nobody; so does ``HF_HUB_OFFLINE=1``.

    Returns
    -------
    Path
        What it holds is checked by whoever opens it. Of the hub, only files of a compressor's
        own names are fetched, so never a pickle.

    Raises
    ------
    UsageError
        Where the hub does not know the model or the revision, or is out of reach, or for files
        of more than 16 GiB.
    MissingDependencyError
        For a hub id without huggingface-hub.
    """
    folder = Path(model).expanduser()
    found = None if isinstance(model, Path) or folder.is_dir() else _ID.match(str(model))
    if found is None:
        if revision is not None:
            raise UsageError(f"revision={revision!r} belongs to a hub id, but {model} is a folder")
        return folder
    name, pinned = found["id"], found["revision"]
    if revision is not None and pinned not in (None, revision):
        raise UsageError(f"{model} names another revision than revision={revision!r}: give one")
    snapshot = fetch(
        name,
        revision or pinned,
        FETCHED,
        token=token,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
    )
    if not (snapshot / "config.json").is_file():
        raise FormatError(f"{model} is no compressor: it has no config.json on the hub")
    return snapshot


def model_name(folder: Path) -> str:
    """What a model is called: its folder's name, or the repository's for one of the hub."""
    folder = folder.resolve()
    kind, _, repository = folder.parent.parent.name.partition("--")
    if folder.parent.name == "snapshots" and kind == "models":
        return repository.rpartition("--")[2]
    return folder.name


def fetch(
    name: str,
    revision: str | None,
    patterns: Sequence[str],
    *,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """The snapshot of a repository in the cache, with the files of some names alone.

    Raises
    ------
    UsageError, MissingDependencyError
        See :func:`compressor_folder`.
    """
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    with _answers(name, revision, offline=offline):
        import huggingface_hub

        download: Any = partial(
            huggingface_hub.snapshot_download,
            name,
            revision=revision,
            allow_patterns=list(patterns),
            token=token,
            cache_dir=cache_dir,
            endpoint=_endpoint(),
        )
        if offline or local_files_only:
            return Path(download(local_files_only=True))
        return Path(download(tqdm_class=_bars(name, _told(name, download))))


def _told(name: str, download: Any) -> int:
    """The most bytes that are let in: twice what the hub says it has to send.

    Raises
    ------
    UsageError
        It is more than any model takes.
    """
    from huggingface_hub import errors

    try:
        files = download(dry_run=True, tqdm_class=_bars(name, MOST_BYTES, silent=True))
    except errors.DryRunError:  # it does not answer: what is in the cache will do
        return MOST_BYTES
    size = sum(file.file_size or 0 for file in files if file.will_download)
    if size > MOST_BYTES:
        raise UsageError(
            f"{name!r} has files of {size:,} bytes on the hub, more than {MOST_BYTES:,}: download"
            " it yourself where you trust it, and give the folder"
        )
    return 2 * size + _SLACK


def _bars(name: str, most: int, *, silent: bool = False) -> Any:
    """The client's own progress bars, which count what comes, and stop it."""
    from huggingface_hub import utils

    shown: Any = utils.tqdm  # type: ignore[attr-defined]

    class Bars(shown):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            self._came = 0 if options.get("unit") == "B" else None
            super().__init__(*args, **(options | {"disable": True} if silent else options))

        def update(self, n: float | None = 1) -> None:
            if self._came is not None:
                self._came += int(n or 0)
                if self._came > most:
                    raise UsageError(
                        f"{name!r} sends over {most:,} bytes, more than the hub told of: the"
                        " download is stopped"
                    )
            super().update(n)

    return Bars


def push(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    commit_message: str = "Upload a compressor",
    create_pr: bool = False,
) -> str:
    """Upload a compressor folder as it is, with its card, in one commit.

    Parameters
    ----------
    folder : str or Path
        Written by `embedpress fit`, `embedpress export` or
        :meth:`embedpress.Compressor.save_pretrained`. Only a compressor's own files are
        uploaded, without `reference.safetensors`, which holds embeddings of real inputs.
    repo_id : str
        ``"org/name"``, made where it does not exist. An older compressor in it is replaced.
    private : bool, optional
        Of a repository that is made; the account's default where None.
    token : str or bool, optional
        With the right to write; the one that `hf auth login` left by default.
    revision : str, optional
        A branch, made where it does not exist; the main one by default.
    commit_message : str
    create_pr : bool
        Open a pull request rather than commit.

    Returns
    -------
    str
        The address of the commit or of the pull request.

    Raises
    ------
    UsageError
        No such folder, or the hub refuses the token or the name.
    FormatError
        A folder that is not a whole compressor.
    StorageError
        The hub is out of reach or fails.
    MissingDependencyError
        Without huggingface-hub.
    """
    from embedpress.onnx.compressor import OnnxCompressor

    path = Path(folder)
    compressor = OnnxCompressor(path)
    files = [name for name in PUSHED if (path / name).is_file()]
    bad = {*compressor.bad_files(), *set(compressor.config.get("sha256", {})).difference(files)}
    if bad:
        named = ", ".join(sorted(bad))
        raise FormatError(f"{path} is not a whole compressor ({named}): write it again")
    with _answers(repo_id, revision, writing=True):
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

        api: HfApi = HfApi(
            endpoint=_endpoint(),
            token=token,
            library_name="embedpress",
            library_version=__version__,
        )
        name = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision is not None:
            api.create_branch(name, branch=revision, exist_ok=True)
        # A graph of the compressor that was there before would be taken for this one's.
        held = api.list_repo_files(name, revision=revision)
        stale = sorted(set(FETCHED).intersection(held).difference(files))
        done = api.create_commit(
            name,
            [
                *(CommitOperationAdd(file, str(path / file)) for file in files),
                *(CommitOperationDelete(file) for file in stale),
            ],
            commit_message=commit_message,
            revision=revision,
            create_pr=create_pr,
        )
    return str(done.pr_url if create_pr else done.commit_url)


def _endpoint() -> str | None:
    """The hub's address; huggingface_hub itself reads it once, on its import."""
    return os.environ.get("HF_ENDPOINT") or None


@contextmanager
def _answers(
    name: str, revision: str | None, *, offline: bool = False, writing: bool = False
) -> Iterator[None]:
    """Every answer of the hub but a good one as one line; bars only on a terminal."""
    try:
        from huggingface_hub import errors
        from huggingface_hub.utils import (  # type: ignore[attr-defined]
            are_progress_bars_disabled,
            disable_progress_bars,
            enable_progress_bars,
        )
    except ImportError as error:
        raise MissingDependencyError(
            f"{name!r} is not a folder, and a model of the hub needs huggingface-hub: "
            "pip install 'embedpress[hub]'"
        ) from error
    quiet = not sys.stderr.isatty() and not are_progress_bars_disabled()
    if quiet:
        disable_progress_bars()
    try:
        yield
    except EmbedpressError:
        raise
    except errors.GatedRepoError as error:
        raise UsageError(f"{name!r} is gated: ask for access on its page, hf auth login") from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        known = "no repository" if writing else "neither a folder nor a model"
        raise UsageError(
            f"{name!r} is {known} that the hub has or shows to this token (hf auth login)"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UsageError(f"{name!r} has no revision {revision!r}") from error
    except Exception as error:  # the client lets its HTTP library's own errors through
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            asked = "write to" if writing else "read"
            raise UsageError(
                f"the hub does not let this token {asked} {name!r}: hf auth login with another"
            ) from error
        why = "HF_HUB_OFFLINE is set" if offline else first_line(error)
        if writing:
            raise StorageError(f"{name!r} cannot be uploaded ({why})") from error
        raise UsageError(
            f"{name!r} is not a folder, not in the hub's cache and cannot be downloaded ({why}); "
            "give the folder of a model"
        ) from error
    finally:
        if quiet:
            enable_progress_bars()
