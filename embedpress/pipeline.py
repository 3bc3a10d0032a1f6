"""The whole way of the data with one call, each step resumed where it was stopped."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from embedpress.console import progress_bar, training_bar
from embedpress.errors import UsageError
from embedpress.vectors import write_atomic

DEFAULT_TEXT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
DEFAULT_IMAGE_MODEL = "resnet50"


def run_pipeline(
    source: str | Path,
    out: str | Path,
    *,
    model: str | None = None,
    weights: str | None = None,
    column: str = "text",
    id_column: str | None = None,
    n_components: int = 64,
    code_size: int = 32,
    epochs: int = 30,
    time_budget: float | None = None,
    seed: int = 0,
    num_threads: int | None = None,
) -> dict[str, Any]:
    """Extract, fit, compress, index, cluster, map and evaluate into one work folder.

    Parameters
    ----------
    source : str or Path
        A file of texts (.txt, .jsonl, .csv, .parquet) or a folder of photos.
    out : str or Path
        The work folder: embeddings, model, codes, latents, index, clusters, map, report.
    model, weights, column, id_column
        See :func:`embedpress.extract_text` and :func:`embedpress.extract_images`.
    n_components, code_size, epochs, time_budget, seed
        See :class:`embedpress.Compressor`.
    num_threads : int, optional

    Returns
    -------
    dict
        ``outputs`` (name to path) and the figures of each step.
    """
    work = Path(out)
    if work.exists() and not work.is_dir():
        raise UsageError(f"{work} is a file: give a folder to write to")
    source = Path(source)
    if not source.exists():
        raise UsageError(f"no such file or folder: {source}")
    work.mkdir(parents=True, exist_ok=True)
    folders = {
        name: work / name
        for name in (
            "embeddings", "model", "codes", "latents", "index", "clusters", "map", "report"
        )
    }  # fmt: skip
    result: dict[str, Any] = {"outputs": {name: str(path) for name, path in folders.items()}}

    if source.is_dir() and not any(source.glob("*.parquet")):
        from embedpress.extract.job import extract_images

        with progress_bar("extracting images") as advance:
            embeddings = extract_images(
                source,
                folders["embeddings"],
                model=model or DEFAULT_IMAGE_MODEL,
                weights=weights,
                num_threads=num_threads,
                progress=advance,
            )
    else:
        from embedpress.extract.job import extract_text

        with progress_bar("extracting texts") as advance:
            embeddings = extract_text(
                source,
                folders["embeddings"],
                model=model or DEFAULT_TEXT_MODEL,
                column=column,
                id_column=id_column,
                num_threads=num_threads,
                progress=advance,
            )
    result["count"], result["dim"] = embeddings.count, embeddings.dim

    options = {
        "n_components": min(n_components, max(1, embeddings.dim - 1)) or None,
        "code_size": code_size or None,
        "metric": embeddings.metric,
        "epochs": epochs,
        "time_budget": time_budget,
        "seed": seed,
    }
    stamp = _stamp(options, embeddings.fingerprint)
    steps = _Steps(work / "steps.json", stamp)
    if not steps.done("model", folders["model"] / "config.json"):
        from embedpress.autoencoder.estimator import Compressor
        from embedpress.autoencoder.fit import fit

        steps.restart()
        for name in ("codes", "latents"):
            _empty(folders[name])
        with training_bar() as train:
            fit(
                folders["embeddings"],
                folders["model"],
                Compressor(num_threads=num_threads, **options),
                progress=train,
            )
        steps.finish("model")

    from embedpress.onnx.compress import compress

    for what in ("codes", "latents"):
        if options["code_size" if what == "codes" else "n_components"] is None:
            continue
        with progress_bar(f"compressing to {what}") as advance:
            compress(
                folders["embeddings"],
                folders["model"],
                folders[what],
                what=what,
                num_threads=num_threads,
                progress=advance,
            )
    result |= _index_and_judge(folders, steps, seed=seed, num_threads=num_threads)
    return result


def _index_and_judge(
    folders: dict[str, Path], steps: _Steps, *, seed: int, num_threads: int | None
) -> dict[str, Any]:
    from embedpress.analyze.verbs import cluster_folder, map_folder
    from embedpress.evaluate.verb import evaluate_folder
    from embedpress.index.build import build_index

    searched = folders["codes"] if folders["codes"].exists() else folders["latents"]
    analysed = folders["latents"] if folders["latents"].exists() else folders["codes"]
    if not steps.done("index", folders["index"] / "manifest.json"):
        with progress_bar("indexing") as advance:
            build_index(
                searched,
                folders["model"],
                folders["index"],
                seed=seed,
                num_threads=num_threads,
                progress=advance,
            )
        steps.finish("index")
    result = {}
    calls = {
        "clusters": lambda: cluster_folder(
            analysed, folders["clusters"], seed=seed, num_threads=num_threads
        ),
        "map": lambda: map_folder(analysed, folders["map"], seed=seed, num_threads=num_threads),
        "report": lambda: evaluate_folder(
            folders["embeddings"],
            folders["model"],
            folders["report"],
            seed=seed,
            num_threads=num_threads,
        ),
    }
    for name, call in calls.items():
        file = folders[name] / "result.json"
        if not steps.done(name, file):
            figures = call()
            write_atomic(file, json.dumps(figures, indent=1) + "\n")
            steps.finish(name)
        result[name] = json.loads(file.read_text(encoding="utf-8"))
    return result


class _Steps:
    """Which steps of this very pipeline are done, in one small file."""

    def __init__(self, file: Path, stamp: str) -> None:
        self.file = file
        try:
            noted = json.loads(file.read_text(encoding="utf-8"))
            same = noted["stamp"] == stamp
        except (OSError, ValueError, KeyError, TypeError):
            same = False
        self.noted: dict[str, Any] = noted if same else {"stamp": stamp, "done": []}

    def done(self, name: str, proof: Path) -> bool:
        """Noted as done, and what it made is still there."""
        return name in self.noted["done"] and proof.is_file()

    def finish(self, name: str) -> None:
        self.noted["done"].append(name)
        write_atomic(self.file, json.dumps(self.noted) + "\n")

    def restart(self) -> None:
        self.noted["done"] = []


def _stamp(options: dict[str, Any], fingerprint: str) -> str:
    text = json.dumps([options, fingerprint], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _empty(folder: Path) -> None:
    """Remove what an earlier compressor left in a folder of this pipeline."""
    if folder.is_dir():
        for file in folder.iterdir():
            if file.is_file():
                file.unlink()
        folder.rmdir()
