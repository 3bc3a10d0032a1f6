"""What can go wrong, as exceptions: each message is one line that says what to do.

Every error is an :class:`EmbedpressError` and also the built-in class that a caller would
expect, so ``except ValueError`` keeps working.
"""

from __future__ import annotations

_LONGEST = 2000
"""Characters of a message; only names out of a hostile file make it longer."""


class EmbedpressError(Exception):
    """Base of all errors raised on purpose by embedpress.

    Its message is one line, whatever names out of a file went into it: line ends, escape
    sequences of a terminal and half surrogate pairs are written out, as in ``\\n``.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(_shortened(one) if isinstance(one, str) else one for one in args))


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


def printable(text: str) -> str:
    """One line that a terminal shows and does not obey."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text
    )


def _shortened(text: str) -> str:
    shown = printable(text)
    return shown if len(shown) <= _LONGEST else f"{shown[:1500]} … {shown[-400:]}"


def one_line(error: BaseException) -> str:
    """What another library's exception says, its lines joined and cut at 200 characters."""
    return " ".join(str(error).split())[:200]


def first_line(error: BaseException) -> str:
    """What another library's exception says, in one line; its class where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
