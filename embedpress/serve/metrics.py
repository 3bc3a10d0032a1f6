"""What a server counts, for Prometheus; with several workers, the sum of all of them."""

from __future__ import annotations

import os
import re
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_OWNER = re.compile(r"_(\d+)\.db$")


class Metrics:
    """The counters of one application."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "embedpress_requests",
            "Requests answered.",
            ("path", "method", "status"),
            registry=registry,
        )
        self.seconds = Histogram(
            "embedpress_request_seconds",
            "From the head of a request to the end of its response.",
            ("path",),
            buckets=SECONDS,
            registry=registry,
        )
        self.queue_depth = Gauge(
            "embedpress_queue_depth",
            "Texts, pictures or vectors that are admitted and not yet done.",
            ("kind",),
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.batch_size = Histogram(
            "embedpress_batch_size",
            "Texts, pictures or vectors that were worked on together.",
            ("kind",),
            buckets=ROWS,
            registry=registry,
        )
        self.reloads = Counter(
            "embedpress_index_loads",
            "Times that an index was loaded, or could not be.",
            ("result",),
            registry=registry,
        )
        self.vectors = Gauge(
            "embedpress_index_vectors",
            "Vectors in the index.",
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.bytes = Gauge(
            "embedpress_index_bytes",
            "Bytes of the index's files.",
            multiprocess_mode="livemax",
            registry=registry,
        )

    def render(self) -> bytes:
        """The text that Prometheus reads."""
        folder = os.environ.get(MULTIPROCESS)
        if not folder:
            return generate_latest(self.registry)
        _forget_the_dead(Path(folder))
        everyone = CollectorRegistry()
        MultiProcessCollector(everyone, path=folder)  # type: ignore[no-untyped-call]
        return generate_latest(everyone)


def _forget_the_dead(folder: Path) -> None:
    """Drop the gauges of workers that were killed: they hold no queue any more."""
    owners = {int(found[1]) for file in folder.iterdir() if (found := _OWNER.search(file.name))}
    for pid in owners:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
        except PermissionError:
            continue
