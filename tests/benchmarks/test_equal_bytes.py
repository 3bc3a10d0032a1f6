from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import typer

pytest.importorskip("torch")

from embedpress.vectors import Batch


def row(method: str, n_bytes: int, seen: float, **more: Any) -> dict[str, Any]:
    key = {"dataset": "wordnet", "method": method, "what": "codes", "bytes": n_bytes, "seed": 0}
    return {**key, "form": method, "seen": seen, "unseen": seen - 0.1, **more}


ROWS = [
    row("opq", 16, 0.5, train_seconds=1200.0, model_bytes=600_000, encode_per_second=12_345.6),
    row("gaussian", 16, 0.9),
    row("embedpress", 16, 0.6, seed=0, train_seconds=10.0, model_bytes=6e6, encode_per_second=9.0),
    row("embedpress", 16, 0.8, seed=1, train_seconds=20.0, model_bytes=6e6, encode_per_second=9.0),
    row("opq", 8, 0.3, train_seconds=5.0, model_bytes=600_000, encode_per_second=9.0),
]


def test_the_plan_begins_with_what_says_most() -> None:
    from equal_bytes import BYTES, DIMS, Job, plan

    jobs = plan(seeds=3)
    assert len(set(jobs)) == len(jobs)
    assert jobs[:3] == [Job("wordnet", "embedpress", "codes", n, 0) for n in (32, 16, 64)]
    first_slow = next(n for n, job in enumerate(jobs) if job.method == "opq")
    cheap = {"gaussian", "pca-sq", "rabitq", "binary"}
    assert {job.method for job in jobs[3:first_slow]} == {"embedpress-brief", *cheap}
    place = {job: n for n, job in enumerate(jobs)}
    assert (
        place[Job("wordnet", "lsq", "codes", 64, 0)]
        < place[Job("wordnet", "pca-sq", "codes", 8, 0)]
    )
    assert [job.seed for job in jobs] == sorted(job.seed for job in jobs)
    for dataset, dim in DIMS.items():
        ours = {job.bytes for job in jobs if job[:3] == (dataset, "embedpress", "codes")}
        assert ours == set(BYTES)
        assert Job(dataset, "int8", "codes", dim, 0) in place
        assert Job(dataset, "exact", "embeddings", 4 * dim, 0) in place
    assert {job.dataset for job in jobs if job.what == "latents"} == {"wordnet"}
    # 96 bytes are more bits than 384 dimensions have.
    assert Job("wordnet", "binary", "codes", 96, 0) not in place


def test_a_summary_is_the_mean_and_the_deviation_over_seeds() -> None:
    from equal_bytes import summary

    [(size, mean, spread)] = summary(ROWS, "wordnet", "embedpress", "seen")
    assert (size, mean) == (16, pytest.approx(0.7))
    assert spread == pytest.approx(0.2 / np.sqrt(2))
    points = summary(ROWS, "wordnet", "opq", "unseen")
    assert points == [(8, pytest.approx(0.2), 0), (16, pytest.approx(0.4), 0)]
    assert summary(ROWS, "photos", "opq", "seen") == []


def test_a_table_has_a_line_a_method_and_size() -> None:
    from tables import recall_table

    head, _, *lines = recall_table(ROWS)
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert "nDCG@10" not in head
    assert [line[:2] for line in cells] == [
        ["8", "OPQ"],
        ["16", "**embedpress**, 2 seeds"],
        ["16", "OPQ"],
        ["16", "Gaussian channel"],
    ]
    assert cells[1][2:4] == ["0.700 ± 0.141", "0.600 ± 0.141"]
    assert cells[1][4:7] == ["15 s", "9", "6.0 MB"]
    # 16 bytes and a share of 6 MB.
    assert cells[1][7:] == ["116.0", "22.0", "16.1"]
    assert cells[2][4:] == ["1,200 s", "12,346", "0.6 MB", "26.0", "16.6", "16.0"]
    assert cells[3][4:] == ["–"] * 6


def test_a_table_shows_ndcg_where_there_are_judgements() -> None:
    from tables import recall_table

    head, _, line = recall_table([row("exact", 1536, 1.0, ndcg=0.5)])
    assert "nDCG@10" in head
    assert line.startswith("| 1,536 | the embeddings | 1.000 | 0.900 | 0.500 | – |")


def test_seconds_are_those_of_the_processor() -> None:
    from tables import method_cells

    there = {**row("embedpress", 16, 0.5), "device": "cuda", "train_seconds": 1.0}
    here = {**row("embedpress", 16, 0.7), "train_seconds": 30.0}
    cells = method_cells([here, there], judged=False)
    assert cells[1].startswith("0.600")
    assert "30 s" in cells
    assert method_cells([there], judged=False)[3:5] == ["–", "–"]
    timed = {"train_seconds": 20.0, "encode_per_second": 7.0}
    assert method_cells([{**there, "timed": timed}], judged=False)[3:5] == ["20 s", "7"]


def test_a_line_says_where_the_reranker_alone_gave_the_order() -> None:
    from tables import recall_table

    before = {**row("embedpress", 8, 0.5), "reranker_weight": 1.0, "scan": {"unseen": 0.4}}
    lines = recall_table([before, row("embedpress", 16, 0.5)])[2:]
    told = ["by the reranker alone" in line for line in lines]
    assert told == [line.startswith("| 8 | **") for line in lines]
    assert sum(told) == 1


def test_the_page_holds_every_size_and_the_readme_three(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import tables

    (tmp_path / "equal_bytes.json").write_text(json.dumps(ROWS))
    (tmp_path / "speed.json").write_text((tables.RESULTS / "speed.json").read_text())
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    monkeypatch.setattr(tables, "PAGE", tmp_path / "page.md")
    tables.main()
    page, shown = (tmp_path / "page.md").read_text(), capsys.readouterr().out
    assert "| 8 | OPQ |" in page
    assert "| 16 | OPQ |" in page
    assert "| 8 | OPQ |" not in shown
    assert "| 16 | OPQ |" in shown


def test_every_method_has_a_name_and_the_plot_is_drawn(tmp_path: Path) -> None:
    from equal_bytes import COLOURS, METHODS, plot
    from tables import NAMES

    assert set(METHODS) == set(NAMES)
    assert set(COLOURS) <= set(METHODS)
    assert len(set(COLOURS.values())) == len(COLOURS)
    plot([*ROWS, {**ROWS[0], "dataset": "photos"}], tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_only_names_that_are_known() -> None:
    from equal_bytes import chosen

    assert chosen("", ("a", "b"), "--datasets") == ("a", "b")
    assert chosen("b", ("a", "b"), "--datasets") == ("b",)
    with pytest.raises(typer.BadParameter, match="'c' is none of a, b"):
        chosen("a,c", ("a", "b"), "--datasets")


def test_methods_are_scored_on_both_bases_and_by_judgements() -> None:
    from equal_bytes import Job, measure
    from split import Split

    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 32)).astype(np.float32)
    queries = x[[0, 400]] + np.float32(0.01)
    split = Split(x[:300], x[300:], queries, [{0: 1.0}, {400: 1.0}])
    exact = measure(split, Job("wordnet", "exact", "embeddings", 128, 0))
    assert (exact["seen"], exact["unseen"], exact["ndcg"]) == (1, 1, 1)
    assert "train_seconds" not in exact
    peer = measure(split, Job("wordnet", "pca-sq", "codes", 16, 0))
    assert (peer["method"], peer["bytes"], peer["form"]) == ("pca-sq", 16, "PCA16+SQ8")
    assert 0.2 < peer["unseen"] < 1
    assert peer["encode_per_second"] == pytest.approx(300 / peer["encode_seconds"])
    noisy = [measure(split, Job("wordnet", "gaussian", "codes", n, 0)) for n in (2, 64)]
    assert noisy[0]["unseen"] < noisy[1]["unseen"]


def test_a_stopped_run_goes_on_with_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    import equal_bytes

    measured = []

    def measure(split: Any, job: Any, epochs: Any = None, device: str = "") -> dict[str, Any]:
        assert device == "cpu"
        measured.append(job)
        return {**job._asdict(), "seen": 0.5, "unseen": 0.5}

    monkeypatch.setattr(equal_bytes, "measure", measure)
    monkeypatch.setattr(equal_bytes.wordnet, "load_split", lambda: None)
    output = tmp_path / "a.json"
    output.write_text(json.dumps([row("opq", 16, 0.5)]))
    equal_bytes.main(
        datasets="wordnet,medquad", methods="opq,pca-sq", sizes="16,32", seeds=1,
        medquad_folder=tmp_path / "none", quick=False, output=output,
    )  # fmt: skip
    assert [job[1:4] for job in measured] == [
        ("pca-sq", "codes", 32), ("pca-sq", "codes", 16), ("opq", "codes", 32),
    ]  # fmt: skip
    assert len(json.loads(output.read_text())) == 4
    assert (tmp_path / "a.png").is_file()
    assert f"medquad is skipped: no folder {tmp_path / 'none'}" in capsys.readouterr().out


def test_medquad_is_halved_and_its_judgements_follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import medquad
    import pyarrow as pa

    def embedded(folder: Path, name: str, embeddings: Path) -> Batch:
        count, letter = (10, "d") if name == "corpus" else (6, "q")
        ids = pa.array([f"{letter}{n}" for n in range(count)])
        vectors = np.arange(count, dtype=np.float32)[:, None].repeat(2, axis=1)
        return Batch(ids, vectors, pa.table({}))

    monkeypatch.setattr(medquad, "embedded", embedded)
    (tmp_path / "qrels").mkdir()
    pairs = "".join(f"q{n}\td{n}\t1\nq{n}\td{n + 1}\t0\n" for n in range(6))
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + pairs)
    split = medquad.load_split(tmp_path, tmp_path, n_queries=4)
    assert split.base.shape == split.unseen.shape == (5, 2)
    assert split.queries.shape == (4, 2)
    both = np.concatenate([split.base, split.unseen])
    assert sorted(both[:, 0]) == list(range(10))
    for query, judged in zip(split.queries, split.judgements, strict=True):
        assert {both[answer, 0] - query[0]: grade for answer, grade in judged.items()} == {
            0: 1,
            1: 0,
        }


def test_medquad_may_be_gzipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import medquad

    from embedpress.errors import UsageError

    read = []
    monkeypatch.setattr(medquad, "extract_text", lambda file, out, **options: read.append(file))
    monkeypatch.setattr(medquad, "open_vectors", lambda out: Mock())
    with pytest.raises(UsageError, match=r"holds no corpus\.jsonl or corpus\.jsonl\.gz"):
        medquad.embedded(tmp_path, "corpus", tmp_path / "out")
    with gzip.open(tmp_path / "corpus.jsonl.gz", "wt") as file:
        file.write("{}\n")
    medquad.embedded(tmp_path, "corpus", tmp_path / "out")
    assert read == [tmp_path / "corpus.jsonl.gz"]


def test_weights_for_small_photos_differ_in_their_transform_alone(tmp_path: Path) -> None:
    import photos
    from safetensors import safe_open
    from safetensors.numpy import save_file

    notes = {"resize": "256", "crop": "224", "stride": "v1"}
    save_file({"a": np.arange(3, dtype=np.float32)}, tmp_path / "a.safetensors", notes)
    photos.with_small_photos(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    with safe_open(tmp_path / "b.safetensors", "np") as file:
        assert file.metadata() == {"resize": "112", "crop": "112", "stride": "v1"}
        np.testing.assert_array_equal(file.get_tensor("a"), [0, 1, 2])
