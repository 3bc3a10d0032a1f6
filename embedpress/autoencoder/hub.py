"""A compressor's way to a folder or the model hub and back, by the names that others use."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from embedpress.autoencoder.estimator import Compressor


class HubMixin:
    """`save_pretrained`, `from_pretrained` and `push_to_hub` of a :class:`Compressor`."""

    def save_pretrained(self, folder: str | Path, *, license: str | None = None) -> None:
        """Write a compressor folder: weights, configuration, ONNX graphs, card and figures.

        Parameters
        ----------
        folder : str or Path
            Made where it does not exist; a compressor that is there is replaced.
        license : str, optional
            For the card, as the hub abbreviates it: ``"apache-2.0"``.

        Raises
        ------
        UsageError, StorageError, ExportError
            See :func:`embedpress.autoencoder.pretrained.save`.
        """
        from embedpress.autoencoder.pretrained import save

        save(cast("Compressor", self), folder, license=license)

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        device: str = "cpu",
        num_threads: int | None = None,
    ) -> Compressor:
        """Load a compressor to judge or to train on; :func:`embedpress.load` needs no torch.

        Parameters
        ----------
        model : str or Path
            A folder, or a hub id such as ``"org/name"`` or ``"org/name@v1"``.
        revision : str, optional
            Branch, tag or commit on the hub.
        token, cache_dir, local_files_only
            See :func:`embedpress.hub.compressor_folder`.
        device : str
        num_threads : int, optional

        Returns
        -------
        Compressor
            Fitted.

        Raises
        ------
        UsageError, FormatError
            No such folder or model, or not a whole compressor.
        MissingDependencyError
            For a hub id without huggingface-hub.
        """
        from embedpress.autoencoder.pretrained import load_compressor
        from embedpress.hub import compressor_folder

        folder = compressor_folder(
            model,
            revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )
        loaded: Compressor = load_compressor(folder)
        return cast("Compressor", loaded.set_params(device=device, num_threads=num_threads))

    def push_to_hub(
        self,
        repo_id: str,
        *,
        license: str | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        commit_message: str = "Upload a compressor",
        create_pr: bool = False,
    ) -> str:
        """Upload the compressor with a card; :func:`embedpress.hub.push` uploads a folder.

        Parameters
        ----------
        repo_id : str
            ``"org/name"``, made where it does not exist.
        license : str, optional
            For the card, as the hub abbreviates it: ``"apache-2.0"``.
        private, token, revision, commit_message, create_pr
            See :func:`embedpress.hub.push`.

        Returns
        -------
        str
            The address of the commit or of the pull request.

        Raises
        ------
        UsageError, StorageError, ExportError, MissingDependencyError
            See :func:`embedpress.hub.push` and :meth:`save_pretrained`.
        """
        from embedpress.autoencoder.pretrained import save
        from embedpress.hub import push

        with tempfile.TemporaryDirectory() as folder:
            save(cast("Compressor", self), folder, name=repo_id, license=license)
            return push(
                folder,
                repo_id,
                private=private,
                token=token,
                revision=revision,
                commit_message=commit_message,
                create_pr=create_pr,
            )
