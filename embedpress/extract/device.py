"""Where a network runs: the torch device, and how many threads a call may use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from embedpress.errors import MissingDependencyError, UsageError, first_line
from embedpress.extract import torchvision_trap
from embedpress.threads import check_threads

if TYPE_CHECKING:
    import torch


def resolve_device(name: str) -> torch.device:
    """Turn a device name into a torch device that exists here.

    Parameters
    ----------
    name : str
        As torch writes it: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.

    Returns
    -------
    torch.device

    Raises
    ------
    UsageError
        For a name that torch does not know or a device that is not there.
    MissingDependencyError
        Where torch is not installed.
    """
    torchvision_trap.prepare()
    try:
        import torch
    except ImportError as error:
        raise MissingDependencyError(
            "extraction needs torch: install it with pip install 'embedpress[train]'"
        ) from error
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        reason = first_line(error)
        raise UsageError(f"device {name!r} cannot be used here ({reason}); try 'cpu'") from error
    return device


@contextmanager
def exact_float32(num_threads: int | None) -> Iterator[None]:
    """Run torch without gradients, in true float32 and with so many threads, then restore.

    Parameters
    ----------
    num_threads : int or None
        Threads of this call; None keeps torch's own choice.

    Raises
    ------
    UsageError
        For a number of threads below one.
    """
    import torch

    before = torch.get_num_threads()
    # TF32 is torch's default for convolutions on a GPU, and is worth only three decimal digits.
    with torch.backends.cudnn.flags(
        enabled=torch.backends.cudnn.enabled,
        benchmark=False,
        deterministic=True,
        allow_tf32=False,
    ):
        if num_threads is not None:
            torch.set_num_threads(check_threads(num_threads))
        try:
            with torch.inference_mode():
                yield
        finally:
            torch.set_num_threads(before)
