"""The share of a job that one of several processes does."""

from __future__ import annotations

import re
from dataclasses import dataclass

from embedpress.errors import UsageError

_SHARE = re.compile(r"([0-9]{1,9})/([0-9]{1,9})", re.ASCII)


@dataclass(frozen=True)
class Share:
    """Shards number `index`, `index + count`, `index + 2 * count`, ... of a job.

    Parameters
    ----------
    index
        Which of the shares, counted from 0.
    count
        How many there are; with 1, all of the job.
    """

    index: int = 0
    count: int = 1

    @property
    def whole(self) -> bool:
        """Whether it is all of the job."""
        return self.count == 1

    @property
    def suffix(self) -> str:
        """What tells the files of one share from those of another."""
        return "" if self.whole else f"-{self.index}-of-{self.count}"

    def holds(self, shard: int) -> bool:
        """Say whether a shard is one of this share."""
        return shard % self.count == self.index


def parse_share(text: str | None) -> Share:
    """Read ``"I/N"``, I counted from 0; None is all of a job.

    Raises
    ------
    UsageError
        If the text is another, or I is not one of 0 .. N-1.
    """
    if text is None:
        return Share()
    found = _SHARE.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"shard {text!r} must be I/N, as in 0/4 for the first of four")
    index, count = int(found[1]), int(found[2])
    if index >= count:
        raise UsageError(f"shard {text} is none of 0/{count} to {max(count - 1, 0)}/{count}")
    return Share(index, count)
