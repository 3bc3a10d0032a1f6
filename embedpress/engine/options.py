"""How a job is run; nothing of it changes what the job writes."""

from __future__ import annotations

from dataclasses import dataclass

from embedpress.engine.share import Share, parse_share
from embedpress.errors import UsageError

ENGINES = ("local", "ray")


@dataclass(frozen=True)
class RunOptions:
    """Where a job runs, and how much of it.

    Parameters
    ----------
    engine : {"local", "ray"}
        In this process, or on a Ray cluster.
    ray_address : str, optional
        Of the cluster, as ``ray.init`` takes it; by default the one of the environment variable
        ``RAY_ADDRESS``, or one that is started on this machine for the job alone.
    shard : str, optional
        ``"I/N"``: do shards I, I + N, I + 2 N, ... alone; I counts from 0.

    Raises
    ------
    UsageError
        For values that make no sense.
    """

    engine: str = "local"
    ray_address: str | None = None
    shard: str | None = None

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise UsageError(f"engine {self.engine!r} is not one of {', '.join(ENGINES)}")
        if self.ray_address is not None and self.engine != "ray":
            raise UsageError("a Ray address needs the engine ray: give --engine ray as well")
        parse_share(self.shard)

    @property
    def share(self) -> Share:
        """The share of the job as numbers."""
        return parse_share(self.shard)
