"""A training's curves and final figures as TensorBoard event files."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from embedpress.autoencoder.judge import held_out_recall
from embedpress.autoencoder.record import Record
from embedpress.errors import MissingDependencyError
from embedpress.vectors.files import check_no_file, storage_errors

if TYPE_CHECKING:
    from embedpress.autoencoder.estimator import Compressor


class TowerLog(Protocol):
    """What a training tells of one tower; it changes nothing there."""

    def step(self, step: int, parts: Mapping[str, float], learning_rate: float) -> None:
        """A step was made: the loss and its parts, and the rate it was made with."""

    def evaluation(self, record: Record) -> None:
        """Held-out recall was measured."""


class TrainingLog:
    """Event files of one training in a folder, as ``tensorboard --logdir`` shows them.

    For each tower: ``<tower>/loss`` and its parts and ``<tower>/learning_rate`` at every step,
    ``<tower>/recall`` (and ``noisy_recall``, ``recall_32``) at every evaluation; in the end the
    options with held-out recall@10 of each tower and of its start as hyperparameters.

    Parameters
    ----------
    folder : str or Path
        Made where it does not exist; several trainings in subfolders of one are compared.

    Raises
    ------
    MissingDependencyError
        Without tensorboard.
    UsageError, StorageError
        A file is in its place, or it cannot be written to.
    """

    def __init__(self, folder: str | Path) -> None:
        out = Path(folder)
        check_no_file(out)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingDependencyError(
                "a training's log needs tensorboard: pip install 'embedpress[tensorboard]'"
            ) from error
        with storage_errors(out):
            out.mkdir(parents=True, exist_ok=True)
            self._writer: Any = SummaryWriter(str(out))
            self._writer.flush()
        self._folder, self._lost = out, False

    def tower(self, name: str) -> TowerLog:
        """The part of one tower."""
        return _Curves(name.replace(" ", "_"), self._write)

    def figures(self, compressor: Compressor) -> None:
        """The options and the final figures; of a fitted compressor."""
        plain = (bool, int, float, str)
        options = {
            name: value if isinstance(value, plain) else str(value)
            for name, value in compressor.get_params().items()
        }
        measured = {
            f"{tower}/{which}_recall": found[which]
            for tower, found in held_out_recall(compressor).items()
            for which in ("trained", "start")
        }
        self._write(lambda writer: writer.add_hparams(options, measured, run_name="."))

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._write(lambda writer: writer.close())

    def _write(self, act: Callable[[Any], None]) -> None:
        if self._lost:
            return
        try:
            act(self._writer)
        except OSError as error:
            # A disk that is full of logs is no reason to lose a training.
            self._lost = True
            why = error.strerror or str(error)
            warnings.warn(
                f"the log in {self._folder} ends here ({why}); training goes on",
                RuntimeWarning,
                stacklevel=2,
            )


class _Curves:
    def __init__(self, name: str, write: Callable[[Callable[[Any], None]], None]) -> None:
        self._name, self._write = name, write

    def step(self, step: int, parts: Mapping[str, float], learning_rate: float) -> None:
        self._scalars(step, {**parts, "learning_rate": learning_rate})

    def evaluation(self, record: Record) -> None:
        recalls = {key: value for key, value in record.items() if "recall" in key}
        self._scalars(record["step"], recalls)

    def _scalars(self, step: int, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            scalar = (f"{self._name}/{key}", value, step)
            self._write(partial(_add, scalar))


def _add(scalar: tuple[str, float, int], writer: Any) -> None:
    writer.add_scalar(*scalar)
