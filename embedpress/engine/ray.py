"""Runs a job on a Ray cluster: a task a shard by Ray Data, and one writer, this process."""

from __future__ import annotations

import io
import logging
import os
import pickle
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from embedpress.engine.job import Job, Piece
from embedpress.engine.shard_file import Built, build_shard
from embedpress.errors import EmbedpressError, MissingDependencyError, UsageError, one_line
from embedpress.threads import available_threads
from embedpress.vectors.manifest import Manifest
from embedpress.vectors.shard import shard_name

# Of a cluster that is started here for the job alone: what is on the way, not the data.
_OBJECT_STORE = 512 * 2**20
_Adopt = Callable[[int, Built, bytes], None]


def run_on_ray(job: Job, done: frozenset[int], adopt: _Adopt, address: str | None) -> None:
    """Make the shards that are not done.

    Parameters
    ----------
    job
        What to do. Its inputs and models are read on the nodes, under the paths they have here.
    done
        Numbers of the shards to leave out.
    adopt
        Called with the number, the facts and the bytes of each shard, in any order.
    address
        As :class:`embedpress.engine.RunOptions` says.

    Raises
    ------
    MissingDependencyError
        Without Ray.
    UsageError
        If there is no cluster at the address.

    Notes
    -----
    Nodes write nothing: they send whole shards back, so that the folder has one writer, its
    lock and its journal. Ray starts a task again whose worker died; as work is pure, the shard
    is the same.
    """
    ray = _imported()
    with _connected(ray, address):
        # The payload of each shard is a block of its own, so that each is one task.
        blocks = [
            ray.put(pa.table({"index": [index], "payload": [pickle.dumps(payload)]}))
            for index, payload in job.chunks(done)
        ]
        if not blocks:
            return
        build = _Build(job.header, job.read, job.work)
        shards = ray.data.from_arrow_refs(blocks).map_batches(
            build, batch_size=1, batch_format="pyarrow", num_cpus=job.cpus, num_gpus=job.gpus
        )
        for batch in shards.iter_batches(batch_size=1, batch_format="pyarrow"):
            # Out of the cluster's own memory: nothing of it comes from a file.
            found = pickle.loads(batch.column("built")[0].as_py())
            if isinstance(found, EmbedpressError):
                raise found
            built, data = found
            if job.watch is not None and built.skipped:
                job.watch(built.skipped)
            adopt(batch.column("index")[0].as_py(), built, data)


@dataclass(frozen=True)
class _Build:
    """Makes the bytes of one shard of its payload, on whatever node."""

    header: Manifest
    read: Callable[[Any], Iterator[Any]]
    work: Callable[[Any], Piece]

    def __call__(self, batch: pa.Table) -> pa.Table:
        index = batch.column("index")[0].as_py()
        payload = pickle.loads(batch.column("payload")[0].as_py())
        file = io.BytesIO()
        found: Any
        try:
            pieces = (self.work(block) for block in self.read(payload))
            built = build_shard(file, self.header, shard_name(index), pieces)
            found = (built, file.getvalue())
        except EmbedpressError as error:
            # Ray would wrap it, and try again what cannot succeed.
            found = error
        column = pa.array([pickle.dumps(found)], pa.large_binary())
        return pa.table({"index": [index], "built": column})


def _imported() -> Any:
    try:
        import ray
        import ray.data
    except ImportError:
        raise MissingDependencyError(
            "the engine ray needs Ray: pip install 'embedpress[ray]'"
        ) from None
    return ray


def _look_for(address: str | None) -> None:
    """Ask whether anybody listens at host:port: Ray itself would wait for minutes."""
    host, _, port = (address or "").rpartition(":")
    if not host or "/" in host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise UsageError(
            f"no Ray cluster can be used at {address}: {error.strerror or error}"
        ) from None


@contextmanager
def _connected(ray: Any, address: str | None) -> Iterator[None]:
    """Connect to a cluster, or start one here, unless this process already is connected."""
    ours = not ray.is_initialized()
    if ours:
        address = address or os.environ.get("RAY_ADDRESS")
        quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
        own = {
            "num_cpus": available_threads(),
            "object_store_memory": _OBJECT_STORE,
            "include_dashboard": False,
        }
        _look_for(address)
        try:
            ray.init(address=address or "local", **quiet, **({} if address else own))
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = one_line(error)
            raise UsageError(
                f"no Ray cluster can be used at {address or 'this machine'}: {reason}"
            ) from None
    context = ray.data.DataContext.get_current()
    before = context.enable_progress_bars
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield
    finally:
        context.enable_progress_bars = before
        if ours:
            ray.shutdown()
