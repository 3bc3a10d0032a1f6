"""What the tests of the command line share."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

SUBJECTS = ("cats", "trains", "soup", "rivers", "chess", "violins")
VERBS = ("like", "need", "make", "miss", "find", "paint", "sell", "count")
ENDINGS = ("at night", "in spring", "with care", "for fun", "by hand", "in rain", "alone")


@dataclass(frozen=True)
class Ended:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The last line of standard output."""
        found: dict[str, Any] = json.loads(self.out.strip().splitlines()[-1])
        return found


Cli = Callable[..., Ended]


def sentences(n: int) -> list[str]:
    """Different sentences about six subjects."""
    rng = np.random.default_rng(0)
    made = [
        f"{subject} {verb} {other} {ending}"
        for subject in SUBJECTS
        for verb in VERBS
        for other in SUBJECTS
        for ending in ENDINGS
    ]
    return [made[i] for i in rng.permutation(len(made))[:n]]
