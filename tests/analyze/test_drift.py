from __future__ import annotations

import shutil

import numpy as np
import pytest
from samples import SMALL, curved, write_embeddings

from embedpress.analyze.drift import check_canaries, check_recall, ks_statistic, ks_threshold
from embedpress.analyze.drift_folder import drift_folder
from embedpress.analyze.reference import FILE, load_reference
from embedpress.errors import FormatError, InputError, MismatchError, UsageError
from embedpress.onnx.runtime import load

N = 4000


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Embeddings and a compressor that was fitted on them as a command does it."""
    from embedpress.autoencoder.estimator import Compressor
    from embedpress.autoencoder.fit import fit

    folder = tmp_path_factory.mktemp("drift")
    about = {"config": {"fingerprint": "one", "weights_sha256": "abc"}}
    write_embeddings(
        folder / "emb", curved(N), ids=[f"r{i}" for i in range(N)], rows_per_shard=2000, **about
    )
    fit(folder / "emb", folder / "model", Compressor(**{**SMALL, "epochs": 4}))
    return folder


def found(result):
    return {check["name"]: check["drifted"] for check in result["checks"]}


def drift(work, x, tmp_path, **options):
    np.save(tmp_path / "x.npy", np.asarray(x, np.float32))
    return drift_folder(tmp_path / "x.npy", work / "model", num_threads=1, **options)


@pytest.mark.parametrize("rows", [120, 700])
def test_the_same_kind_passes_at_the_stated_rate(work, tmp_path, rows):
    alarms = [
        drift(work, curved(rows, seed=100 + seed), tmp_path, seed=seed, false_alarm_rate=0.02)
        for seed in range(50)
    ]
    # One is expected at most; 5 or more would come by chance once in a thousand times.
    assert sum(result["drifted"] for result in alarms) <= 4
    assert {len(result["checks"]) for result in alarms} == {3}


def test_a_rate_that_is_asked_for_is_kept(work, tmp_path):
    alarms = [
        drift(
            work, curved(150, seed=seed), tmp_path, seed=seed, false_alarm_rate=0.3, least_shift=0
        )["drifted"]
        for seed in range(60)
    ]
    # A binomial of 60 and .3 exceeds 29 once in a thousand times. That alarms come shows that
    # the checks can fail.
    assert 1 <= sum(alarms) <= 29


def test_another_kind_is_told(work, tmp_path):
    rng = np.random.default_rng(0)
    x = curved(500, seed=1)
    noise = rng.normal(size=x.shape) * x.std()
    for other in (
        rng.normal(size=x.shape),
        x + 0.2 * noise,
        np.where(rng.random(x.shape) < 0.1, 0, x),
        x @ np.linalg.qr(rng.normal(size=(x.shape[1], x.shape[1])))[0],
        np.sin(3 * x) + 0.1,
    ):
        result = drift(work, other, tmp_path)
        assert result["drifted"]
        assert found(result)["error of codes"]


def test_half_of_another_kind_is_told(work, tmp_path):
    x = curved(600, seed=2)
    x[::2] = np.random.default_rng(0).normal(size=x[::2].shape)
    assert drift(work, x, tmp_path)["drifted"]


def test_what_is_the_same_has_the_same_canaries_and_extractor(work):
    result = drift_folder(work / "emb", work / "model", canary=work / "emb")
    assert found(result)["canary"] is False
    assert found(result)["extractor"] is False
    assert result["not_checked"] == {}


def test_an_extractor_that_changed_is_told(work, tmp_path):
    known = load_reference(load(work / "model"))
    x = curved(N)
    rows = [int(one[1:]) for one in known.canary_ids]
    np.testing.assert_array_equal(known.canaries, x[rows])
    changed = x[rows] + 0.05 * np.random.default_rng(0).normal(size=(len(rows), x.shape[1]))
    again = write_embeddings(
        tmp_path / "again", changed.astype(np.float32), ids=known.canary_ids, rows_per_shard=5
    )
    result = drift_folder(work / "emb", work / "model", canary=again)
    assert found(result)["canary"]
    assert result["drifted"]
    other = write_embeddings(tmp_path / "other", curved(300, seed=4), config={"fingerprint": "two"})
    result = drift_folder(other, work / "model")
    assert found(result)["extractor"]
    assert "canary" in result["not_checked"]
    assert result["canary_ids"] == known.canary_ids
    with pytest.raises(InputError, match="none of the canaries"):
        drift_folder(other, work / "model", canary=other)
    longer = check_canaries(known, known.canary_ids, 2 * known.canaries)
    assert longer.drifted
    assert check_canaries(known, ["stranger"], x[:1]) is None


def test_a_drop_of_recall_is_told():
    known = {200: (0.8, 0.2)}
    assert not check_recall(known, 200, (0.78, 0.2), rate=0.01).drifted
    assert check_recall(known, 200, (0.7, 0.2), rate=0.01).drifted
    # Sure but small is none, large but unsure neither.
    assert not check_recall({200: (0.8, 0.01)}, 200, (0.76, 0.01), rate=0.01).drifted
    assert not check_recall({200: (0.8, 0.6)}, 200, (0.7, 0.6), rate=0.01).drifted


def test_an_old_folder_needs_a_reference(work, saved, tmp_path):
    with pytest.raises(InputError, match="--reference EMB"):
        drift_folder(work / "emb", saved())
    # Compressed by vectors of the same sheet, of which none of these were trained on.
    result = drift_folder(
        write_embeddings(tmp_path / "new", curved(600, seed=8)),
        saved(),
        reference=write_embeddings(tmp_path / "ref", curved(800, seed=9)),
    )
    assert not result["drifted"]
    noisy = curved(600, seed=8) + 0.5 * np.random.default_rng(0).normal(size=(600, 32))
    result = drift_folder(
        write_embeddings(tmp_path / "noisy", noisy.astype(np.float32)),
        saved(),
        reference=tmp_path / "ref",
    )
    assert result["drifted"]


def test_rows_of_the_fit_are_compared_by_those_left_out(work):
    itself = drift_folder(work / "emb", work / "model", least_shift=0)
    assert [check["value"] for check in itself["checks"] if "error" in check["name"]] == [
        pytest.approx(0, abs=0.02)
    ] * 2
    result = drift_folder(work / "emb", work / "model", reference=work / "emb", seed=3)
    assert not result["drifted"]


def test_a_reference_that_was_tampered_with(work, saved, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(work / "model", model)
    whole = (model / FILE).read_bytes()
    for content in (whole[:-9], whole[: len(whole) // 2], b"", b"\xff" * 64):
        (model / FILE).write_bytes(content)
        with pytest.raises(FormatError, match=FILE):
            drift_folder(work / "emb", model)
    (model / FILE).write_bytes(whole.replace(b'"reference"', b'"something"'))
    with pytest.raises(FormatError, match=FILE):
        drift_folder(work / "emb", model)
    broken = bytearray(whole)
    broken[-4:] = np.float32(np.nan).tobytes()
    (model / FILE).write_bytes(broken)
    with pytest.raises(FormatError, match=FILE):
        drift_folder(work / "emb", model)
    other = tmp_path / "other"
    shutil.copytree(saved(), other)
    (other / FILE).write_bytes(whole)
    with pytest.raises(MismatchError, match="another compressor"):
        drift_folder(work / "emb", other)


def test_bad_requests(work, tmp_path):
    for options, said in (
        ({"false_alarm_rate": 0}, "false_alarm_rate"),
        ({"false_alarm_rate": 1}, "false_alarm_rate"),
        ({"least_shift": -0.1}, "least_shift"),
    ):
        with pytest.raises(UsageError, match=said):
            drift(work, curved(100), tmp_path, **options)
    with pytest.raises(InputError, match="50 or more"):
        drift(work, curved(49), tmp_path)
    with pytest.raises(MismatchError, match="dimensions"):
        drift(work, curved(100, dim=8), tmp_path)


@pytest.mark.parametrize(("n", "m"), [(60, 60), (300, 2000), (1000, 50)])
def test_thresholds_are_exceeded_at_their_rate(n, m):
    rng = np.random.default_rng(0)
    threshold = ks_threshold(n, m, 0.1)
    trials = [ks_statistic(rng.normal(size=n), rng.normal(size=m)) for _ in range(400)]
    # Of 400 at a rate of .1: 40, with a deviation of 6.
    assert 18 <= sum(trial > threshold for trial in trials) <= 60


def test_the_statistic_is_that_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    for n, m in ((5, 9), (100, 100), (1, 1)):
        a, b = rng.integers(6, size=n), rng.integers(1, 7, size=m)
        assert ks_statistic(a, b) == pytest.approx(stats.ks_2samp(a, b).statistic)
