"""The whole way of the data with one call, each step resumed where it was stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from embedpress.console import progress_bar, training_bar
from embedpress.errors import FormatError, UsageError
from embedpress.vectors import Manifest, write_atomic
from embedpress.vectors.arrow import saved_files
from embedpress.vectors.document import read_json
from embedpress.vectors.files import check_no_file

DEFAULT_TEXT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
DEFAULT_IMAGE_MODEL = "resnet50"
FOLDERS = ("embeddings", "model", "codes", "latents", "index", "clusters", "map", "report")


def run_pipeline(
    source: str | Path,
    out: str | Path,
    *,
    model: str | None = None,
    weights: str | None = None,
    column: str = "text",
    id_column: str | None = None,
    n_components: int = 64,
    code_size: int | str | None = 32,
    target_recall: float | None = None,
    epochs: int | None = None,
    time_budget: float | None = None,
    baselines: Sequence[str] = (),
    log_dir: str | Path | None = None,
    seed: int = 0,
    num_threads: int | None = None,
    tell: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Extract, fit, compress, index, cluster, map and evaluate into one work folder.

    Parameters
    ----------
    source : str or Path
        A file of texts (.txt, .jsonl, .csv, .parquet) or a folder of photos.
    out : str or Path
        The work folder; a step that is done there for the same input and options is kept.
    model, weights, column, id_column
        See :func:`embedpress.extract_text` and :func:`embedpress.extract_images`.
    n_components, code_size, target_recall, epochs, time_budget, seed
        See :class:`embedpress.Compressor`; an `n_components` that the embeddings' dimensions
        do not allow is lowered.
    baselines : sequence of str
        Peers to measure at the same bytes; see :func:`embedpress.evaluate.baselines.baseline`.
    log_dir : str or Path, optional
        Folder for TensorBoard's event files of the training.
    num_threads : int, optional
    tell : callable, optional
        Called with each step as it starts.

    Returns
    -------
    dict
        ``outputs`` (name to path) and the figures of each step.

    Raises
    ------
    EmbedpressError
        As the steps do; what is done is kept.
    """
    source, work = Path(source), Path(out)
    if not source.exists():
        raise UsageError(f"no such file or folder: {source}")
    check_no_file(work)
    work.mkdir(parents=True, exist_ok=True)
    at = {name: work / name for name in FOLDERS}
    say = tell or (lambda step: None)

    from embedpress.autoencoder.estimator import Compressor
    from embedpress.autoencoder.fit import fit
    from embedpress.index.build import build_index
    from embedpress.onnx.compress import compress
    from embedpress.onnx.compressor import read_config

    say("extracting embeddings")
    embeddings = _extract(source, at["embeddings"], model, weights, column, id_column, num_threads)
    compressor = Compressor(
        min(n_components, embeddings.dim - 1) or None,
        code_size or None,
        target_recall=target_recall,
        metric=embeddings.metric,
        epochs=epochs,
        time_budget=time_budget,
        seed=seed,
        num_threads=num_threads,
    )
    steps = _Steps(work / "steps.json", compressor, embeddings, baselines)
    measured = at["model"] / "metrics.json"
    if not (steps.done("model", at["model"] / "config.json") and measured.is_file()):
        say("training the compressor")
        steps.restart()
        for name in ("codes", "latents"):
            _clear(at[name])
        with training_bar() as train:
            fit(at["embeddings"], at["model"], compressor, progress=train, log_dir=log_dir)
        steps.finish("model")
    kinds = [
        what for what, size in (("codes", code_size), ("latents", compressor.n_components)) if size
    ]
    for what in kinds:
        say(f"compressing to {what}")
        with progress_bar(what) as advance:
            compress(
                at["embeddings"],
                at["model"],
                at[what],
                what=what,
                num_threads=num_threads,
                progress=advance,
            )
    if not steps.done("index", at["index"] / "manifest.json"):
        say("building the index")
        build_index(at[kinds[0]], at["model"], at["index"], seed=seed, num_threads=num_threads)
        steps.finish("index")
    config, figures = read_config(at["model"]), read_json(measured)
    del figures["history"]
    result = {
        "outputs": {name: str(path) for name, path in at.items()},
        "count": embeddings.count,
        "dim": embeddings.dim,
        "compressor": {name: config[name] for name in ("n_components", "code_size")} | figures,
    }
    images = source if source.is_dir() and embeddings.config.get("extractor") == "image" else None
    return result | _judge(
        at, at[kinds[-1]], embeddings.count, steps, images, baselines, seed, num_threads, say
    )


def _extract(
    source: Path,
    out: Path,
    model: str | None,
    weights: str | None,
    column: str,
    id_column: str | None,
    num_threads: int | None,
) -> Manifest:
    from embedpress.extract.job import extract_images, extract_text

    if source.is_dir() and not any(source.glob("*.parquet")) and saved_files(source) is None:
        with progress_bar("images") as advance:
            return extract_images(
                source,
                out,
                model=model or DEFAULT_IMAGE_MODEL,
                weights=weights,
                num_threads=num_threads,
                progress=advance,
            )
    with progress_bar("texts") as advance:
        return extract_text(
            source,
            out,
            model=model or DEFAULT_TEXT_MODEL,
            column=column,
            id_column=id_column,
            num_threads=num_threads,
            progress=advance,
        )


def _judge(
    at: dict[str, Path],
    analysed: Path,
    count: int,
    steps: _Steps,
    images: Path | None,
    baselines: Sequence[str],
    seed: int,
    num_threads: int | None,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Clusters, map and report; the figures of each are kept beside its files."""
    from embedpress.analyze.cluster_folder import cluster_folder
    from embedpress.analyze.map_folder import map_folder
    from embedpress.evaluate.verb import MOST_ROWS, evaluate_folder

    shared: dict[str, Any] = {"seed": seed, "num_threads": num_threads}
    calls: dict[str, Callable[[], dict[str, Any]]] = {
        "clusters": lambda: cluster_folder(analysed, at["clusters"], images=images, **shared),
        "map": lambda: map_folder(analysed, at["map"], **shared),
        "report": lambda: evaluate_folder(
            at["embeddings"],
            at["model"],
            at["report"],
            baselines=baselines,
            # A larger collection is searched in part, and then an index of all cannot be judged.
            index=at["index"] if count <= MOST_ROWS else None,
            images=images,
            **shared,
        ),
    }
    result: dict[str, Any] = {}
    for name, call in calls.items():
        file = at[name] / "result.json"
        if not steps.done(name, file):
            say(f"making the {name}")
            write_atomic(file, json.dumps(call(), indent=1) + "\n")
            steps.finish(name)
        result[name] = read_json(file)
    return result


class _Steps:
    """Which steps are done for this very input and these options, in one small file."""

    def __init__(
        self, file: Path, compressor: Any, embeddings: Manifest, baselines: Sequence[str]
    ) -> None:
        options = [compressor.get_params(), embeddings.fingerprint, list(baselines)]
        text = json.dumps(options, sort_keys=True, default=list)
        stamp = hashlib.sha256(text.encode()).hexdigest()
        self.file = file
        try:
            noted = read_json(file)
            same = noted["stamp"] == stamp and isinstance(noted["done"], list)
        except (FormatError, KeyError, TypeError):
            same = False
        self.noted: dict[str, Any] = noted if same else {"stamp": stamp, "done": []}

    def done(self, name: str, proof: Path) -> bool:
        """Noted as done, and what it made is still there."""
        return name in self.noted["done"] and proof.is_file()

    def finish(self, name: str) -> None:
        """Note a step as done."""
        self.noted["done"].append(name)
        write_atomic(self.file, json.dumps(self.noted) + "\n")

    def restart(self) -> None:
        """Forget every step: they follow from the one that is done again."""
        self.noted["done"] = []


def _clear(folder: Path) -> None:
    """Remove what an earlier compressor of this pipeline left."""
    if folder.is_dir():
        for file in folder.iterdir():
            if file.is_file():
                file.unlink()
