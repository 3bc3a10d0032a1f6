"""What can go wrong, as exceptions: each message is one line that says what to do.

Every error is an :class:`EmbedpressError` and also the built-in class that a caller would
expect, so ``except ValueError`` keeps working.
"""

from __future__ import annotations


class EmbedpressError(Exception):
    """Base of all errors raised on purpose by embedpress."""


class UsageError(EmbedpressError, ValueError):
    """An option or a path cannot be what was given (command-line exit code 2)."""


class InputError(EmbedpressError, ValueError):
    """Data that cannot be used: shapes, dtypes, NaN, duplicate ids, empty input."""


class FormatError(InputError):
    """A file that is not what its name or header says: truncated, corrupt, unknown version."""


class MismatchError(EmbedpressError, ValueError):
    """Two things that do not belong together: an index and another compressor, a resumed job
    and other options."""


class ExportError(EmbedpressError, RuntimeError):
    """An exported graph whose results differ from the trained network's."""


class MissingDependencyError(EmbedpressError, ImportError):
    """An optional package is needed; the message names the extra to install."""


class StorageError(EmbedpressError, OSError):
    """The disk refused: full, read-only, locked by another process."""


class TargetWarning(UserWarning):
    """A target that was not reached: the nearest to it was taken."""


class PrecisionWarning(UserWarning):
    """A precision that is of no use on this machine."""


def first_line(error: BaseException) -> str:
    """What another library's exception says, in one line; its class where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
