"""How often `embedpress drift` cries out, without drift and with several kinds of it.

A compressor of 32 floats and 32 bytes is fitted, for at most a minute, on half of WordNet's
glosses. Samples of 1,000 of the other half are the same kind: 200 draws at the stated rate of
false alarms. Then kinds of drift, 20 draws each: noise, dropped dimensions, rounding to int8,
another pooling of the same model, questions to a bank where their folder is given. Writes
``benchmarks/results/drift.json``.

Run: python benchmarks/drift.py [--banking77 FOLDER]
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import labelled
import numpy as np
import pyarrow.parquet as pq
import typer
import wordnet
from numpy.typing import NDArray
from split import METRIC
from tables import RESULTS

import embedpress
from embedpress.analyze.drift_folder import drift_folder
from embedpress.autoencoder.fit import fit
from embedpress.extract.job import extract_text
from embedpress.vectors import open_vectors
from embedpress.vectors.files import write_atomic

ROWS = 1_000
RATE = 0.01
SAME_DRAWS, DRAWS = 200, 20
TRAINING_SECONDS = 60

Floats = NDArray[np.float32]
Draw = Callable[[np.random.Generator, Floats], Floats]


def noisy(level: float) -> Draw:
    """Gaussian noise whose length is a share of the vector's."""

    def draw(rng: np.random.Generator, x: Floats) -> Floats:
        noise = rng.standard_normal(x.shape, dtype=np.float32)
        noise *= level * np.linalg.norm(x, axis=1, keepdims=True) / np.sqrt(x.shape[1])
        return x + noise

    return draw


def dropped(share: float) -> Draw:
    """Some dimensions are zero, the same for all."""

    def draw(rng: np.random.Generator, x: Floats) -> Floats:
        return np.where(rng.random(x.shape[1]) < share, np.float32(0), x)

    return draw


def rounded(rng: np.random.Generator, x: Floats) -> Floats:
    """A byte a dimension, which hardly changes them: no drift to speak of."""
    scale = np.abs(x).max() / 127
    return (np.round(x / scale) * scale).astype(np.float32)


def otherwise_pooled(work: Path) -> Floats:
    """Glosses by the same model with its maximum pooling."""
    from demo import minilm_folder

    glosses = pq.read_table(wordnet.DATA / "glosses.parquet").slice(0, ROWS)
    pq.write_table(glosses, work / "glosses.parquet")
    extract_text(
        work / "glosses.parquet",
        work / "pooled",
        model=minilm_folder(),
        id_column="id",
        pooling="max",
    )
    return open_vectors(work / "pooled").read(columns=()).vectors


def measure(name: str, draws: int, sample: Callable[[int], Floats], work: Path) -> dict[str, Any]:
    """The share of draws that are called drifted, and the largest statistic of each on average."""
    alarms, shifts, recalls = [], [], []
    for seed in range(draws):
        np.save(work / "sample.npy", sample(seed))
        found = drift_folder(work / "sample.npy", work / "model", false_alarm_rate=RATE, seed=seed)
        alarms.append(found["drifted"])
        errors = [c["value"] for c in found["checks"] if c["name"].startswith("error")]
        shifts.append(max(errors))
        recalls.append(next(c["value"] for c in found["checks"] if c["name"] == "recall"))
    row = {
        "name": name,
        "draws": draws,
        "alarms": float(np.mean(alarms)),
        "shift": float(np.mean(shifts)),
        "recall": float(np.mean(recalls)),
    }
    print(
        f"{name:<34} {draws:>4} draws  alarms {row['alarms']:.3f}  shift {row['shift']:.3f}  "
        f"recall {row['recall']:.3f}",
        flush=True,
    )
    return row


def main(
    banking77: Annotated[Path | None, typer.Option(help="train.csv and test.csv.")] = None,
    output: Annotated[Path, typer.Option(help="Where the figures go.")] = RESULTS / "drift.json",
) -> None:
    """Measure and write results/drift.json."""
    split = wordnet.load_split()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        np.save(work / "base.npy", split.base)
        compressor = embedpress.Compressor(
            32, 32, metric=METRIC, seed=0, time_budget=TRAINING_SECONDS
        )
        fit(work / "base.npy", work / "model", compressor)

        def drawn(change: Draw | None, x: Floats = split.unseen) -> Callable[[int], Floats]:
            def sample(seed: int) -> Floats:
                rng = np.random.default_rng(seed)
                rows = x[rng.permutation(len(x))[:ROWS]]
                return rows if change is None else change(rng, rows)

            return sample

        rows = [measure("other glosses", SAME_DRAWS, drawn(None), work)]
        kinds: dict[str, Callable[[int], Floats]] = {
            "rounded to int8": drawn(rounded),
            "noise of 10 % of the length": drawn(noisy(0.1)),
            "noise of 20 % of the length": drawn(noisy(0.2)),
            "noise of 50 % of the length": drawn(noisy(0.5)),
            "5 % of the dimensions dropped": drawn(dropped(0.05)),
            "maximum in place of mean pooling": drawn(None, otherwise_pooled(work)),
        }
        if banking77 is None:
            print("questions to a bank are skipped: give their folder with --banking77 FOLDER")
        else:
            questions = labelled.load("banking77", banking77).vectors
            kinds["questions to a bank"] = drawn(None, questions)
        rows += [measure(name, DRAWS, sample, work) for name, sample in kinds.items()]
    result = {"rows": ROWS, "false_alarm_rate": RATE, "kinds": rows}
    write_atomic(output, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
