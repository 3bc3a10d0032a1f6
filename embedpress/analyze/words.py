"""Names of clusters from the words of their members: class-based TF-IDF."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

import numpy as np

MOST_COUNTS = 2_000_000
"""Pairs of cluster and word that are counted at a time; rare ones make room beyond it."""
SHORTEST = 3
_WORD = re.compile(r"[^\W\d_][\w'’-]*", re.UNICODE)
# Words that name nothing. Other languages' are held down by their frequency alone.
_STOP_WORDS = (
    "a about above after again against all almost also although always am among an and another any "
    "are aren't around as at away be became because become been before behind being below between "
    "both but by came can can't cannot come could couldn't did didn't do does doesn't doing don't "
    "done down during each either else enough especially etc even ever every few for from further "
    "get gets getting give given go goes going got had has hasn't have haven't having he he's her "
    "here hers herself him himself his how however i i'd i'll i'm i've if in into is isn't it it's "
    "its itself just know less let like likely made make makes many may me might mine more most "
    "much must my myself need neither never no nor not nothing now of off often on once one ones "
    "only onto or other others our ours out over own per perhaps please put quite rather really "
    "said same say see seem seems several shall she she's should shouldn't since so some something "
    "still such take than that that's the their theirs them themselves then there there's these "
    "they they're this those though through thus to together too toward towards under until up "
    "upon us use used using usually various very via want was wasn't way we we're well were what "
    "what's when where whether which while who whom whose why will with within without won't would "
    "you you'd you'll you're you've your yours yourself"
)
STOP_WORDS = frozenset(_STOP_WORDS.split())


class ClusterWords:
    """Counts of words by cluster, taken a batch at a time.

    Parameters
    ----------
    n_clusters : int
    """

    def __init__(self, n_clusters: int) -> None:
        self.counts: list[Counter[str]] = [Counter() for _ in range(n_clusters)]
        self._held = 0

    def add(self, texts: Iterable[object], labels: Iterable[int]) -> None:
        """Count the words of texts; a negative label is left out."""
        for text, label in zip(texts, labels, strict=True):
            if label >= 0 and text is not None:
                counter = self.counts[label]
                before = len(counter)
                counter.update(words_of(str(text)))
                self._held += len(counter) - before
        if self._held > MOST_COUNTS:
            self._make_room()

    def names(self, n_words: int = 4) -> list[list[str]]:
        """The words that set each cluster apart, the strongest first.

        Returns
        -------
        list of list of str
            At most `n_words` each, none where a cluster has no words.

        Notes
        -----
        c-TF-IDF (Grootendorst 2022, BERTopic): the share of a word among those of its cluster
        times log(1 + A / f), of its frequency f in all clusters and A, the mean number of words
        of a cluster.
        """
        everywhere: Counter[str] = Counter()
        for counter in self.counts:
            everywhere.update(counter)
        mean = sum(everywhere.values()) / max(1, len(self.counts))
        names = []
        for counter in self.counts:
            total = sum(counter.values())
            scored = [
                (-n / total * np.log1p(mean / everywhere[word]), word)
                for word, n in counter.items()
            ]
            names.append(_distinct([word for _, word in sorted(scored)[: 3 * n_words]])[:n_words])
        return names

    def _make_room(self) -> None:
        least = 1
        while self._held > MOST_COUNTS // 2:
            for counter in self.counts:
                for word in [word for word, n in counter.items() if n <= least]:
                    del counter[word]
            self._held = sum(map(len, self.counts))
            least *= 2


def words_of(text: str) -> list[str]:
    """Words of a text in lower case, without the shortest and those that name nothing."""
    found = (word.strip("-'’") for word in _WORD.findall(text.lower().replace("’", "'")))
    return [word for word in found if len(word) >= SHORTEST and word not in STOP_WORDS]


def _distinct(words: list[str]) -> list[str]:
    """Without a word that is only another's plural."""
    kept: list[str] = []
    for word in words:
        if not any(word in (f"{other}s", f"{other}es") or other == f"{word}s" for other in kept):
            kept.append(word)
    return kept
