"""What a hostile file does is seen from a process of its own, with bounded memory and time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from embedpress.errors import EmbedpressError

MEMORY = 4 << 30
"""Addresses a child may take: libraries with their threads' stacks take half of it."""
SECONDS = 30

_BEFORE = f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, ({MEMORY}, {MEMORY}))
from pathlib import Path
from embedpress.errors import EmbedpressError
folder = Path(sys.argv[1])
try:
"""
_AFTER = """
except EmbedpressError as error:
    print(type(error).__name__, error)
else:
    print("read")
# Not getrusage, which counts what the parent held.
status = Path("/proc/self/status").read_text()
print(int(status.split("VmHWM:")[1].split()[0]) >> 10)
"""


@contextmanager
def one_line() -> Iterator[None]:
    """The body ends well, or with an error of ours in one printable line."""
    try:
        yield
    except EmbedpressError as error:
        if not str(error).isprintable():
            raise AssertionError(repr(str(error))) from error


@dataclass(frozen=True)
class Answer:
    """What the child said, and the most memory it held, in MiB."""

    said: str
    peak: int


def answer(code: str, folder: Path) -> Answer:
    """Run lines of Python with `folder` in a child that may take little; its one-line answer."""
    body = "".join(f"    {line.strip()}\n" for line in code.strip().splitlines())
    done = subprocess.run(
        [sys.executable, "-c", _BEFORE + body + _AFTER, str(folder)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        env={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": ":".join(sys.path)},
    )
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    said, peak = done.stdout.splitlines()
    return Answer(said, int(peak))
