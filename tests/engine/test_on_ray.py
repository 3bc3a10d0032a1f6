"""Jobs on a real Ray cluster of two nodes on this machine, one of which dies in the middle."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from samples import curved, write_embeddings
from small_job import ROWS, content, make_job, piece

from embedpress.engine import Piece, RunOptions, run_job
from embedpress.errors import InputError, MissingDependencyError, UsageError

ROOT = Path(__file__).parents[2]


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'embedpress\[ray\]'"):
        run_job(make_job(tmp_path), options=RunOptions("ray"))
    run_job(make_job(tmp_path))


class Cluster:
    """A head and a worker, each a process of its own that ends with this one."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        self._nodes: list[subprocess.Popen[bytes]] = []
        self._start("--head", f"--port={port}", "--include-dashboard=false", "--num-cpus=1")

    def _start(self, *options: str) -> subprocess.Popen[bytes]:
        paths = os.pathsep.join([str(ROOT), str(Path(__file__).parent), str(ROOT / "tests")])
        ray = [sys.executable, "-c", "from ray.scripts.scripts import main; main()"]
        node = subprocess.Popen(
            [*ray, "start", "--block", "--disable-usage-stats", "--node-ip-address=127.0.0.1",
             f"--object-store-memory={100 * 2**20}", *options],
            env={**os.environ, "PYTHONPATH": paths},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        self._nodes.append(node)
        return node

    def add_worker(self) -> subprocess.Popen[bytes]:
        return self._start(f"--address={self.address}", "--num-cpus=1")

    def kill(self, node: subprocess.Popen[bytes]) -> None:
        os.killpg(node.pid, signal.SIGKILL)
        node.wait()
        self._nodes.remove(node)

    def close(self) -> None:
        for node in reversed(list(self._nodes)):
            node.terminate()
            with suppress(subprocess.TimeoutExpired):
                node.wait(20)
            with suppress(ProcessLookupError):
                os.killpg(node.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch:
        # Whoever can speak to a cluster can run code in it: this one is ours alone. Ray looks
        # at these when it is imported.
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(16))
        pytest.importorskip("ray")
        started = Cluster()
        try:
            yield started
        finally:
            started.close()


@pytest.fixture
def connected(cluster: Cluster) -> Iterator[Callable[[], int]]:
    """A connection to the cluster; gives the number of living nodes."""
    import ray

    deadline = time.monotonic() + 120
    while not ray.is_initialized():
        try:
            ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, RuntimeError):
            if time.monotonic() > deadline:
                raise
            time.sleep(1)
    yield lambda: sum(node["Alive"] for node in ray.nodes())
    ray.shutdown()


def wait_for(nodes: Callable[[], int], wanted: int) -> None:
    deadline = time.monotonic() + 120
    while nodes() != wanted:
        assert time.monotonic() < deadline, f"{nodes()} nodes, not {wanted}"
        time.sleep(0.5)


def slow(index: int) -> Piece:
    time.sleep(0.5)
    return piece(index)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_node_that_dies_in_the_middle_loses_nothing(
    cluster: Cluster, connected: Callable[[], int], tmp_path: Path
) -> None:
    run_job(make_job(tmp_path / "whole", 24))
    worker = cluster.add_worker()
    wait_for(connected, 2)
    done: list[int] = []

    def kill_at_the_fourth(rows: int) -> None:
        done.append(rows)
        if len(done) == 4:
            cluster.kill(worker)

    job = make_job(tmp_path / "out", 24, work=slow)
    run_job(job, options=RunOptions("ray", cluster.address), progress=kill_at_the_fourth)
    assert len(done) == 24
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    wait_for(connected, 1)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_job_stopped_on_one_engine_goes_on_on_the_other(
    cluster: Cluster, connected: Callable[[], int], tmp_path: Path
) -> None:
    run_job(make_job(tmp_path / "whole", 8))

    def broken(index: int) -> Piece:
        if index == 5:
            raise InputError("row 3 holds NaN")
        return piece(index)

    options = RunOptions("ray", cluster.address)
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"^row 3 holds NaN$"):
        run_job(make_job(out, 8, work=broken), options=options)
    told: list[int] = []
    run_job(make_job(out, 8), progress=told.append)
    assert sum(told) == 8 * ROWS + 4
    assert content(out) == content(tmp_path / "whole")
    (out / "part-00002.parquet").write_bytes(b"spoilt")
    run_job(make_job(out, 8), options=options)
    assert content(out) == content(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_commands_give_the_same_bytes_on_a_cluster(
    cluster: Cluster, connected: Callable[[], int], saved: Callable[..., Path], tmp_path: Path
) -> None:
    ids = [f"id {i}" for i in range(5000)]
    write_embeddings(tmp_path / "emb", curved(5000), ids=ids, metadata={"n": list(range(5000))})
    worker = cluster.add_worker()
    wait_for(connected, 2)
    from embedpress.onnx.compress import compress

    compress(tmp_path / "emb", saved(), tmp_path / "here", rows_per_shard=700)
    options = RunOptions("ray", cluster.address)
    compress(tmp_path / "emb", saved(), tmp_path / "there", rows_per_shard=700, options=options)
    assert content(tmp_path / "here") == content(tmp_path / "there")

    bert = pytest.importorskip("tiny_bert").build(tmp_path / "bert")
    texts = tmp_path / "texts.txt"
    texts.write_text("".join(f"text {i} {'abc ' * (i % 9)}\n" for i in range(300)))
    command = [
        sys.executable, "-c", "from embedpress.cli import main; main()", "extract", "text",
        str(texts), "--model", str(bert), "--json", "--num-threads", "1",
    ]  # fmt: skip
    for name, engine in (("a", []), ("b", ["--engine", "ray", "--ray-address", cluster.address])):
        done = subprocess.run(
            [*command, "-o", str(tmp_path / name), *engine],
            env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout.splitlines()[-1])["count"] == 300
    assert content(tmp_path / "a") == content(tmp_path / "b")
    cluster.kill(worker)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_photos_are_read_on_the_nodes(
    cluster: Cluster, connected: Callable[[], int], tmp_path: Path
) -> None:
    pytest.importorskip("torchvision")
    import torch_files
    from PIL import Image

    from embedpress.extract.job import extract_images

    weights = torch_files.save_resnet18(tmp_path / "resnet18.pth")
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for number in range(9):
        pixels = rng.integers(0, 256, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    (tmp_path / "photos" / "bad.png").write_bytes(b"no image")
    for name, options in (("a", RunOptions()), ("b", RunOptions("ray", cluster.address))):
        extract_images(
            tmp_path / "photos", tmp_path / name, model="resnet18", weights=weights,
            rows_per_shard=4, num_threads=1, options=options,
        )  # fmt: skip
    assert content(tmp_path / "a") == content(tmp_path / "b")
    with pytest.raises(InputError, match="more than max_skipped=0"):
        extract_images(
            tmp_path / "photos", tmp_path / "c", model="resnet18", weights=weights,
            max_skipped=0, num_threads=1, options=RunOptions("ray", cluster.address),
        )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_no_cluster_at_the_address(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    code = (
        "from embedpress.cli import main; main()",
        "compress", str(tmp_path / "x.npy"), "-m", "m", "-o", str(tmp_path / "o"),
        "--ray-address", "127.0.0.1:1",
    )  # fmt: skip
    done = subprocess.run([sys.executable, "-c", *code], capture_output=True, text=True)
    assert done.returncode == 2
    assert "give --engine ray" in done.stderr
    with pytest.raises(UsageError, match=r"no Ray cluster can be used at 127\.0\.0\.1:1"):
        run_job(make_job(tmp_path / "out"), options=RunOptions("ray", "127.0.0.1:1"))
