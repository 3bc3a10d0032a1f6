"""Real texts that an export is checked on: glosses of WordNet; see LICENSE beside this file."""

from __future__ import annotations

import gzip
from importlib.resources import files


def sample_texts() -> list[str]:
    """3,000 English texts of 2 to 110 words, always in the same order."""
    packed = files(__name__).joinpath("texts.txt.gz").read_bytes()
    return gzip.decompress(packed).decode("utf-8").splitlines()
