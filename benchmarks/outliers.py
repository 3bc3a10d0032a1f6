"""Outliers among real vectors: ROC-AUC and average precision beside other detectors.

Every detector learns known vectors alone and judges others, a tenth of which are strangers (see
``strangers.py``). Each one's settings are those that are best on average over the mixtures of one
draw, by ROC-AUC plus average precision; what is reported are other draws. Ours has no setting but
the length of its training, which is short; how it weighs its distances was settled on draws 100 and
101, after a trial on draw 0, which is among the reported ones. Writes
``benchmarks/results/outliers.json``.

Run: python benchmarks/outliers.py [--banking77 FOLDER] [--medquad FOLDER] [--clothing FOLDER]
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import faiss
import numpy as np
import typer
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score, roc_auc_score
from strangers import DATA, Domain, Mixture, clothes_and_pictures, questions_and_texts
from tables import RESULTS

import embedpress
from embedpress.threads import faiss_threads
from embedpress.vectors.files import write_atomic

TUNED_ON = 100
"""Seed of the draw that settings are chosen on."""
EPOCHS = {"bank": 20, "clothes": 60}

Floats = NDArray[np.float32]
Judge = Callable[[Floats], NDArray[np.float64]]


class Ours:
    """The detector of the package on a compressor of 64 latents, trained once a draw."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.fitted: dict[int, embedpress.OutlierDetector] = {}

    def __call__(self, known: Floats, *, score: str, seed: int) -> Judge:
        """One of its scores."""
        if seed not in self.fitted:
            compressor = embedpress.Compressor(
                64, None, epochs=self.epochs, seed=seed, num_threads=1
            )
            detector = embedpress.OutlierDetector(compressor, seed=seed, num_threads=1)
            self.fitted[seed] = detector.fit(known)
        return lambda x: self.fitted[seed].scores(x)[score]


def neighbours(known: Floats, *, n_neighbors: int, seed: int) -> Judge:
    """Mean distance to the nearest known vectors."""
    return lambda x: np.sqrt(np.maximum(faiss.knn(x, known, n_neighbors)[0], 0)).mean(axis=1)


def principal(known: Floats, *, n_components: int, seed: int) -> Judge:
    """Reconstruction error of PCA."""
    pca = PCA(n_components, random_state=seed).fit(known)
    return lambda x: np.square(x - pca.inverse_transform(pca.transform(x))).sum(axis=1)


def forest(known: Floats, *, n_components: int | None, max_samples: Any, seed: int) -> Judge:
    """scikit-learn's IsolationForest, of the vectors or their principal components."""
    first = None if n_components is None else PCA(n_components, random_state=seed).fit(known)

    def seen(x: Floats) -> Floats:
        return x if first is None else first.transform(x)

    trees = IsolationForest(n_estimators=200, max_samples=max_samples, random_state=seed)
    trees.fit(seen(known))
    return lambda x: -trees.score_samples(seen(x))


def pyod_autoencoder(
    known: Floats, *, hidden: list[int], epochs: int, dropout: float, seed: int
) -> Judge:
    """PyOD's AutoEncoder."""
    from pyod.models.auto_encoder import AutoEncoder

    model = AutoEncoder(
        hidden_neuron_list=hidden,
        epoch_num=epochs,
        dropout_rate=dropout,
        batch_size=128,
        random_state=seed,
        verbose=0,
        device="cpu",
    )
    return model.fit(known).decision_function


PEERS: dict[str, tuple[Callable[..., Judge], dict[str, list[Any]]]] = {
    "k-NN distance": (neighbours, {"n_neighbors": [1, 2, 3, 5, 10, 20]}),
    "PCA reconstruction": (principal, {"n_components": [8, 16, 32, 64, 128, 256, 320]}),
    "IsolationForest": (forest, {"n_components": [None, 16, 64], "max_samples": [256, 1.0]}),
    "PyOD AutoEncoder": (
        pyod_autoencoder,
        {"hidden": [[64, 32], [256, 64], [256, 128]], "epochs": [20], "dropout": [0.0, 0.2]},
    ),
}
OURS = {
    "embedpress": "combined",
    "embedpress, reconstruction error alone": "reconstruction",
    "embedpress, latent density alone": "density",
}


def judged(mixtures: list[Mixture], make: Callable[..., Judge], seed: int) -> list[dict[str, Any]]:
    """A row a mixture; all of a draw have the same known vectors."""
    started = time.monotonic()
    judge = make(unit(mixtures[0].known), seed=seed)
    seconds = time.monotonic() - started
    rows = []
    for mixture in mixtures:
        scores = judge(unit(mixture.judged))
        rows.append(
            {
                "mixture": mixture.name,
                "seed": seed,
                "fit_seconds": seconds,
                "roc_auc": float(roc_auc_score(mixture.strange, scores)),
                "average_precision": float(average_precision_score(mixture.strange, scores)),
            }
        )
    return rows


def unit(x: Floats) -> Floats:
    """Rows of norm 1, as the metric cosine sees them: the same for every detector."""
    return np.ascontiguousarray(x / np.linalg.norm(x, axis=1, keepdims=True), np.float32)


def tuned(mixtures: list[Mixture], method: str) -> dict[str, Any]:
    """The settings of a peer that are best on one draw."""
    make, grid = PEERS[method]

    def quality(options: dict[str, Any]) -> float:
        rows = judged(mixtures, partial(make, **options), TUNED_ON)
        return float(np.mean([row["roc_auc"] + row["average_precision"] for row in rows]))

    settings = [
        dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())
    ]
    return max(settings, key=quality)


def measure(domain: Domain, seeds: int) -> list[dict[str, Any]]:
    """Every detector on every draw of a domain."""
    ours = Ours(EPOCHS[domain.name])
    makers: dict[str, tuple[Callable[..., Judge], dict[str, Any]]] = {
        name: (ours, {"score": score}) for name, score in OURS.items()
    }
    draw = domain.mixtures(TUNED_ON)
    for name, (make, _) in PEERS.items():
        makers[name] = (make, tuned(draw, name))
        print(f"{domain.name}: {name} {makers[name][1]}", flush=True)
    rows = []
    for seed, (name, (make, options)) in itertools.product(range(seeds), makers.items()):
        found = judged(domain.mixtures(seed), partial(make, **options), seed)
        rows += [{"method": name, "options": options, **row} for row in found]
        auc = np.mean([row["roc_auc"] for row in found])
        print(f"{domain.name}, draw {seed}: {name} {auc:.4f}", flush=True)
    return rows


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Markdown: a line a method, ROC-AUC / average precision a mixture, means over the draws."""
    mixtures = list(dict.fromkeys(row["mixture"] for row in rows))

    def mean(method: str, figure: str, mixture: str) -> float:
        found = [r[figure] for r in rows if (r["method"], r["mixture"]) == (method, mixture)]
        return float(np.mean(found))

    def means(method: str, figure: str) -> list[float]:
        each = [mean(method, figure, mixture) for mixture in mixtures]
        return [float(np.mean(each)), *each]

    found = {
        method: (means(method, "roc_auc"), means(method, "average_precision"))
        for method in dict.fromkeys(row["method"] for row in rows)
    }
    lines = ["| detector | mean | " + " | ".join(mixtures) + " |"]
    lines.append("| --- |" + " --- |" * (len(mixtures) + 1))
    for method in sorted(found, key=lambda name: -found[name][0][0] - found[name][1][0]):
        cells = [f"{auc:.3f} / {ap:.3f}" for auc, ap in zip(*found[method], strict=True)]
        name = f"**{method}**" if method in OURS else method
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def main(
    banking: Annotated[
        Path, typer.Option("--banking77", help="Banking77: train.csv, test.csv.")
    ] = DATA / "banking77",
    medquad: Annotated[Path, typer.Option(help="MedQuAD in BEIR's layout.")] = DATA / "medquad",
    clothing: Annotated[Path, typer.Option(help="Photos: train, validation, classes.")] = DATA
    / "clothing-photos",
    seeds: Annotated[int, typer.Option(help="Draws that are reported.", min=1)] = 3,
) -> None:
    """Measure the detectors of outliers."""
    for folder in (banking, medquad, clothing):
        if not folder.is_dir():
            print(f"outliers are skipped: no folder {folder}")
            return
    domains = [questions_and_texts(banking, medquad), clothes_and_pictures(clothing)]
    with faiss_threads(1):
        rows = [row for domain in domains for row in measure(domain, seeds)]
    write_atomic(RESULTS / "outliers.json", json.dumps(rows, indent=1) + "\n")
    print(*table(rows), sep="\n")


if __name__ == "__main__":
    typer.run(main)
