"""Ctrl-C at any instant ends what runs in several threads; no thread waits for ever."""

from __future__ import annotations

import dis
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest
from small_job import in_child

from embedpress.engine.ahead import read_ahead, write_behind
from embedpress.threads import side_by_side

# Where Python looks for signals: after these.
_LOOKS = {"CALL", "CALL_FUNCTION", "CALL_METHOD", "CALL_FUNCTION_EX", "RESUME"}
# Standard modules in which a thread waits for another, and ours.
_STANDARD = ("queue.py", "threading.py", "_base.py", "thread.py", "contextlib.py")
_FILES = (*_STANDARD, "ahead.py", "threads.py")
SECONDS = 5


@cache
def _instants(code: CodeType) -> frozenset[int]:
    steps = [step for step in dis.get_instructions(code) if step.opname != "CACHE"]
    return frozenset(later.offset for step, later in pairwise(steps) if step.opname in _LOOKS)


class Interrupt:
    """Raises KeyboardInterrupt in the calling thread, at one of the instants it may come."""

    def __init__(self, at: int) -> None:
        self.passed, self._at = 0, at

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        name = Path(frame.f_code.co_filename).name
        if self.passed > self._at or name not in _FILES:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._step

    def _step(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "opcode" and frame.f_lasti in _instants(frame.f_code):
            self.passed += 1
            if self.passed > self._at:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self._step


def slow(number: int) -> int:
    time.sleep(0.0005)
    return number


def line() -> None:
    """What is read ahead is handed to what is written behind, which is slower."""

    def consume(items: Iterator[int]) -> None:
        for item in items:
            slow(item)

    with write_behind(consume, 1) as hand:
        for item in read_ahead(map(slow, range(6)), 1):
            hand(item)


def many() -> None:
    assert list(side_by_side(slow, range(8), 2)) == list(range(8))


def interrupted(body: Callable[[], None], at: int) -> None:
    """Run `body`, and exit with 3 if the interrupt came out of it, 0 if it came too late."""
    signal.alarm(SECONDS)
    interrupt = Interrupt(at)
    sys.settrace(interrupt)
    try:
        body()
    except KeyboardInterrupt:
        os._exit(3)
    except RuntimeError as error:
        # While a thread is started, Python's own locks may make another error of it.
        os._exit(3 if isinstance(error.__context__, KeyboardInterrupt) else 5)
    finally:
        sys.settrace(None)
    # One that came must not be lost.
    os._exit(0 if interrupt.passed <= at else 4)


@pytest.mark.skipif(sys.gettrace() is not None, reason="needs the trace function")
@pytest.mark.parametrize("body", [line, many])
def test_ctrl_c_at_any_instant(body: Callable[[], None]) -> None:
    instants = list(range(600))
    random.Random(0).shuffle(instants)
    ended = {
        at: in_child(lambda at=at: interrupted(body, at))  # type: ignore[misc]
        for at in instants[:100]
    }
    assert set(ended.values()) <= {0, 3}, ended
    assert sum(code == 3 for code in ended.values()) > 10
