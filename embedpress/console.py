"""What every command shares: progress on a terminal, one JSON line, one-line errors."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from embedpress.errors import EmbedpressError, UsageError, printable
from embedpress.plain import plain

FAILED, BAD_USAGE = 1, 2
errors = Console(stderr=True, soft_wrap=True, highlight=False)
output = Console(soft_wrap=True, highlight=False)


@contextmanager
def progress_bar(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A bar on standard error where that is a terminal, else nothing; yields its advance."""
    with _bar() as bar:
        task = bar.add_task(what, total=total)
        yield lambda rows: bar.advance(task, rows)


@contextmanager
def training_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar a tower; yields what :meth:`embedpress.Compressor.fit` calls."""
    with _bar() as bar:
        tasks: dict[str, Any] = {}

        def update(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(f"training {name}", total=total)
            bar.update(tasks[name], completed=done)

        yield update


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=errors,
        disable=not sys.stderr.isatty(),
        transient=True,
    )


def show(result: dict[str, Any], *, as_json: bool, text: str) -> None:
    """The result of a command: its last line as one JSON object, or words for a person."""
    if as_json:
        line = json.dumps(plain(result), ensure_ascii=False, allow_nan=False)
        # Half a surrogate pair, as in a path that is not UTF-8, is written as JSON has it: \ud...
        sys.stdout.write(line.encode("utf-8", "backslashreplace").decode() + "\n")
        sys.stdout.flush()  # a server goes on after it
    else:
        # Texts and names out of files are shown, not obeyed: no escape sequences.
        output.print("\n".join(map(printable, text.split("\n"))), markup=False)


@contextmanager
def stopwatch() -> Iterator[Callable[[], float]]:
    """Yields a function that tells the seconds since the start."""
    started = time.monotonic()
    yield lambda: round(time.monotonic() - started, 3)


def run(command: Callable[[], Any]) -> int:
    """Run a command and turn what goes wrong into one line and an exit code."""
    try:
        command()
    except EmbedpressError as error:
        errors.print(f"embedpress: {error}", style="red", markup=False)
        return BAD_USAGE if isinstance(error, UsageError) else FAILED
    except MemoryError:
        errors.print("embedpress: the memory ran out", style="red", markup=False)
        return FAILED
    except KeyboardInterrupt:
        errors.print("embedpress: stopped; the same command goes on where it was", markup=False)
        return 130
    except BrokenPipeError:
        # The reader of our output went away, as in `embedpress search ... | head`.
        sys.stderr.close()
        return FAILED
    return 0
