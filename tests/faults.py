"""The real command killed, stopped, on a full disk, and finished again."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from embedpress.engine.lock import folder_lock

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
MAIN = "from embedpress.cli import main; main()"
# Dies when files under a folder are touched for the n-th time: opened, renamed, removed, synced.
KILLED = """
import os, signal, sys
left, folder = int(sys.argv.pop(1)), sys.argv.pop(1)
def tick():
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
def hook(name, args):
    names = ("open", "os.rename", "os.remove", "os.mkdir")
    if name in names and str(args[0]).startswith(folder):
        tick()
sync = os.fsync
def fsync(descriptor):
    tick()
    tick()
os.fsync = fsync
sys.addaudithook(hook)
"""

full = pytest.mark.faults


def content(folder: Path) -> dict[str, bytes]:
    """All files of a folder, which has no folders in it."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@dataclass(frozen=True)
class Command:
    """A command that writes a folder.

    Attributes
    ----------
    arguments : list of str
        All but the folder.
    whole : dict
        What an undisturbed run writes.
    before : Path, optional
        What is in the folder when the command comes to it.
    setting : str
        Python that is run before the command.
    """

    arguments: list[str]
    whole: dict[str, bytes] = field(default_factory=dict)
    before: Path | None = None
    setting: str = ""

    def line(self, out: Path, *options: str, code: str = "") -> list[str]:
        """The words of a process."""
        program = code + self.setting + MAIN
        return [sys.executable, "-c", program, *options, *self.arguments, "-o", str(out)]

    def start(self, out: Path, *options: str, code: str = "") -> subprocess.Popen[str]:
        """Run it in the background."""
        if self.before is not None and not out.exists():
            shutil.copytree(self.before, out)
        return subprocess.Popen(
            self.line(out, *options, code=code), text=True, env=ENVIRONMENT,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=_heed_ctrl_c,
        )  # fmt: skip

    def run(self, out: Path, *options: str, code: str = "") -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        process = self.start(out, *options, code=code)
        out_text, error_text = process.communicate(timeout=120)
        return subprocess.CompletedProcess("", process.returncode, out_text, error_text)

    def finish(self, out: Path) -> None:
        """Run it again, and look that nothing is lost, repeated or changed."""
        done = self.run(out)
        assert done.returncode == 0, done.stderr
        assert content(out) == self.whole


def _heed_ctrl_c() -> None:
    # A shell that runs the tests in the background has its children ignore it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def killed_at_random(
    command: Command,
    folder: Path,
    seed: int,
    sent: signal.Signals = signal.SIGKILL,
    *,
    began: Callable[[Path], bool] = Path.exists,
    within: float = 0.12,
) -> bool:
    """Kill a run at a random instant of its life, and finish it; whether it was cut short."""
    chance = random.Random(seed)
    process = command.start(folder)
    # The work begins when the folder is there: half of the instants are to lie in it.
    deadline = time.monotonic() + (60 if chance.random() < 0.8 else chance.uniform(0, 0.5))
    while not began(folder) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.002)
    time.sleep(chance.uniform(0, within))
    process.send_signal(sent)
    _, error = process.communicate(timeout=60)
    cut_short = process.returncode != 0
    if cut_short and sent == signal.SIGINT and began(folder):
        assert process.returncode in (130, -signal.SIGINT)
        assert "Traceback" not in error
    command.finish(folder)
    return cut_short


def killed_at_event(command: Command, folder: Path, event: int) -> bool:
    """Kill a run when it touches its folder for the n-th time, and finish it."""
    done = command.run(folder, str(event), str(folder), code=KILLED)
    if done.returncode == 0:
        assert content(folder) == command.whole
        return False
    assert done.returncode == -signal.SIGKILL, done.stderr
    command.finish(folder)
    return True


def two_at_once(command: Command, out: Path) -> None:
    """One of two runs on a folder is refused, or comes when all is done."""
    out.mkdir()
    with folder_lock(out):
        done = command.run(out)
    assert done.returncode == 1
    assert "another process is writing to" in done.stderr
    both = [command.start(out) for _ in range(2)]
    ended = [process.communicate(timeout=120)[1] for process in both]
    codes = sorted(process.returncode for process in both)
    # The second one either met the first, or came when all was done.
    assert codes in ([0, 0], [0, 1])
    assert codes == [0, 0] or any("another process is writing to" in text for text in ended)
    assert content(out) == command.whole


def spoil(path: Path, chance: random.Random) -> None:
    """Flip a bit of a file, or cut it."""
    data = bytearray(path.read_bytes())
    if chance.random() < 0.5:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    else:
        del data[chance.randrange(len(data)) :]
    path.write_bytes(data)


@contextmanager
def small_disk_at(place: Path) -> Iterator[Callable[[int], Path]]:
    """A file system in memory of so many KiB, to be made larger by asking again."""
    place.mkdir()
    mounted = False

    def sized(kib: int) -> Path:
        nonlocal mounted
        how = f"remount,size={kib}k" if mounted else f"size={kib}k"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", how, "tmpfs", str(place)], capture_output=True
        )
        if done.returncode:
            pytest.skip("mounting is not allowed here")
        mounted = True
        return place

    if shutil.which("mount") is None:
        pytest.skip("there is no mount here")
    yield sized
    if mounted:
        subprocess.run(["umount", str(place)], check=True)
