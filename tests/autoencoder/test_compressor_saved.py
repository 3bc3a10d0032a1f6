from __future__ import annotations

import hashlib
import json
import pickletools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from damage import DAMAGE, Damage, damaged
from hypothesis import HealthCheck, given, settings
from safetensors.numpy import load_file, save_file
from samples import SMALL, curved
from sklearn.exceptions import NotFittedError

from embedpress.autoencoder import towers
from embedpress.autoencoder.estimator import Compressor
from embedpress.autoencoder.judge import held_out_recall
from embedpress.autoencoder.pretrained import load_compressor, save
from embedpress.errors import EmbedpressError, FormatError, UsageError
from embedpress.info import describe

VARIANTS: list[dict[str, Any]] = [
    {},
    {"groups": 2, "batch_norm": True, "metric": "ip"},
    {"metric": "l2", "hidden_sizes": (16, 8), "dropout": 0.2},
    {"n_components": None, "groups": 1},
    {"code_size": None, "hidden_sizes": ()},
]


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_what_was_saved_is_loaded_bit_for_bit(
    fitted: Callable[..., Compressor],
    saved: Callable[..., Path],
    others: np.ndarray,
    tmp_path: Path,
    options: dict[str, Any],
) -> None:
    compressor, folder = fitted(**options), saved(**options)
    loaded = load_compressor(folder).set_params(num_threads=1)
    if compressor.latent_tower_ is not None:
        latents = compressor.transform(others)
        assert np.array_equal(loaded.transform(others), latents)
        assert np.array_equal(
            loaded.transform_queries(others), compressor.transform_queries(others)
        )
        assert np.array_equal(
            loaded.inverse_transform(latents), compressor.inverse_transform(latents)
        )
    if compressor.code_tower_ is not None:
        codes = compressor.encode(others)
        assert np.array_equal(loaded.encode(others), codes)
        assert np.array_equal(loaded.decode(codes), compressor.decode(codes))
        assert np.array_equal(loaded.encode_queries(others), compressor.encode_queries(others))
    assert loaded.history_ == compressor.history_
    assert loaded.score(others) == compressor.score(others)
    save(loaded, tmp_path / "again")
    assert content(tmp_path / "again") == content(folder)
    loaded.partial_fit(curved(100))
    assert {p.dtype for p in _parameters(loaded)} == {torch.float32}


def _parameters(compressor: Compressor) -> list[torch.Tensor]:
    towers = [tower for tower in (compressor.latent_tower_, compressor.code_tower_) if tower]
    return [parameter for tower in towers for parameter in tower.parameters()]


def test_a_folder_is_always_the_same_bytes(
    saved: Callable[..., Path], embeddings: np.ndarray, tmp_path: Path
) -> None:
    again = Compressor(**SMALL).fit(embeddings).set_params(num_threads=None)
    # Time is all that may differ between two runs.
    for mine, theirs in zip(
        again.history_.values(), load_compressor(saved()).history_.values(), strict=True
    ):
        for record, other in zip(mine, theirs, strict=True):
            record["seconds"] = other["seconds"]
    save(again, tmp_path / "again")
    assert content(tmp_path / "again") == content(saved())


def test_the_files_are_those_announced(saved: Callable[..., Path]) -> None:
    graphs = {"encoder.onnx", "query_encoder.onnx"}
    notes = {"config.json", "model.safetensors", "metrics.json", "README.md"}
    notes |= {"canaries.safetensors"}
    latents, codes = {"decoder.onnx"}, {"code_decoder.onnx"}
    narrow = {"latent_encoder.onnx", "code_encoder.onnx"}
    assert set(content(saved())) == graphs | notes | latents | codes | narrow
    assert set(content(saved(n_components=None, groups=1))) == graphs | notes | codes
    assert set(content(saved(code_size=None, hidden_sizes=()))) == graphs | notes | latents
    config = json.loads((saved() / "config.json").read_text())
    for name, digest in config["sha256"].items():
        assert hashlib.sha256((saved() / name).read_bytes()).hexdigest() == digest
    assert set(config["sha256"]) == graphs | latents | codes | narrow | {"canaries.safetensors"}


def test_nothing_in_a_folder_is_a_pickle(saved: Callable[..., Path]) -> None:
    for data in content(saved()).values():
        with pytest.raises(ValueError):  # noqa: PT011 (whatever the parser says)
            list(pickletools.genops(data))
        assert not data.startswith(b"PK")


def test_saving_over_another_compressor(
    fitted: Callable[..., Compressor], tmp_path: Path, others: np.ndarray
) -> None:
    from embedpress.onnx.compressor import load

    save(fitted(), tmp_path)
    latents = fitted(code_size=None, hidden_sizes=())
    save(latents, tmp_path)
    assert not (tmp_path / "code_encoder.onnx").exists()
    assert describe(tmp_path)["bad_files"] == []
    np.testing.assert_allclose(
        load(tmp_path).transform(others), latents.transform(others), atol=1e-5
    )


def test_places_and_compressors_that_cannot_be_saved(
    fitted: Callable[..., Compressor], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        save(fitted(), tmp_path / "file")
    with pytest.raises(NotFittedError):
        save(Compressor(), tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_no_folder_and_no_compressor(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no compressor folder"):
        load_compressor(tmp_path / "nothing")
    with pytest.raises(FormatError, match=r"has no config\.json"):
        load_compressor(tmp_path)


def test_machine_settings_are_not_part_of_a_compressor(
    saved: Callable[..., Path], embeddings: np.ndarray
) -> None:
    config = json.loads((saved() / "config.json").read_text())
    assert not {"device", "num_threads"} & set(config["parameters"])
    loaded = load_compressor(saved())
    assert (loaded.device, loaded.num_threads) == ("cpu", None)
    # JSON knows lists only.
    given = {"num_threads": 1, "hidden_sizes": (24,), "nested_sizes": ()}
    assert {**loaded.get_params(), **given} == Compressor(**SMALL).get_params()


# -- what was measured ----------------------------------------------------------------


def test_the_card_tells_the_recall_of_the_weights_that_were_kept(
    fitted: Callable[..., Compressor], embeddings: np.ndarray, saved: Callable[..., Path]
) -> None:
    for options in ({"monitor": "recall", "learning_rate": 0.5}, {"learning_rate": 0.5}):
        compressor = fitted(**options, epochs=30, code_size=None)
        _, _, validation = compressor._holdout().split(compressor._sample(embeddings))
        assert validation is not None
        figure = held_out_recall(compressor)["latents"]
        tower = compressor.latent_tower_
        assert figure["trained"] == validation.recall(tower, torch.device("cpu"))
        assert figure["start"] == compressor.history_["latents"][0]["recall"]
        card = (saved(**options, epochs=30, code_size=None) / "README.md").read_text()
        row = f"| latents | 6 floats | 5.3x | {figure['trained']:.3f} | "
        assert row + f"PCA {figure['start']:.3f} |" in card


def test_after_partial_fit_the_last_run_counts(embeddings: np.ndarray) -> None:
    compressor = Compressor(**{**SMALL, "code_size": None, "monitor": "recall"}).fit(embeddings)
    start = compressor.history_["latents"][0]["recall"]
    compressor.partial_fit(curved(400, seed=8))
    _, _, validation = compressor._holdout().split(compressor._sample(curved(400, seed=8)))
    assert validation is not None
    figure = held_out_recall(compressor)["latents"]
    assert figure["start"] == start
    assert figure["trained"] == validation.recall(compressor.latent_tower_, torch.device("cpu"))
    compressor.partial_fit(curved(60, seed=8))
    assert held_out_recall(compressor) == {}


def test_what_was_not_measured_is_not_told(tmp_path: Path) -> None:
    save(Compressor(**{**SMALL, "validation_fraction": 0}).fit(curved(60)), tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert card.count("| not measured | not measured |") == 2
    assert json.loads((tmp_path / "metrics.json").read_text())["held_out"] == {}


# -- damage ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(saved: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compressor to spoil."""
    options = {"metric": "ip", "groups": 2, "batch_norm": True}
    return Path(shutil.copytree(saved(**options), tmp_path_factory.mktemp("spoilt") / "model"))


def use(path: Path) -> None:
    from embedpress.onnx.compressor import load

    x = curved(3)
    runtime = load(path, num_threads=1)
    runtime.inverse_transform(runtime.transform(x))
    runtime.decode(runtime.encode(x))
    runtime.transform_queries(x)
    runtime.encode_queries(x)
    runtime.codebooks()


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "metrics.json", "encoder.onnx", "decoder.onnx"]
)
@given(damage=DAMAGE)
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_damage_is_answered(folder: Path, name: str, damage: Damage) -> None:
    sound = (folder / name).read_bytes()
    spoilt = damaged(sound, damage)
    (folder / name).write_bytes(spoilt)
    try:
        for read in (load_compressor, use, describe):
            message, found = "", None
            try:
                found = read(folder)
            except EmbedpressError as error:
                message = str(error)
            assert "\n" not in message
            if name == "metrics.json":
                assert not message
            if read is describe and name.endswith(("onnx", "safetensors")) and spoilt != sound:
                assert found["bad_files"] == [name]
            if read is load_compressor and name == "model.safetensors" and spoilt != sound:
                assert message
    finally:
        (folder / name).write_bytes(sound)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "query_encoder.onnx"])
def test_truncation_is_refused(folder: Path, name: str) -> None:
    sound = (folder / name).read_bytes()
    try:
        for length in {0, 1, 8, len(sound) // 2, len(sound) - 2}:
            (folder / name).write_bytes(sound[:length])
            with pytest.raises(FormatError):
                use(folder)
        (folder / name).unlink()
        with pytest.raises(FormatError):
            use(folder)
        if name != "config.json":
            assert describe(folder)["bad_files"] == [name]
    finally:
        (folder / name).write_bytes(sound)


def test_a_single_changed_weight_is_noticed(folder: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(folder, tmp_path / "copy"))
    tensors = load_file(path / "model.safetensors")
    tensors["latents.encoder.linear.bias"][0] += 1e-6
    save_file(tensors, path / "model.safetensors")
    with pytest.raises(FormatError, match="was changed since it was saved"):
        load_compressor(path)
    with pytest.raises(FormatError, match="was changed since it was saved"):
        use(path)
    assert describe(path)["bad_files"] == ["model.safetensors"]


def edited(folder: Path, **changes: Any) -> None:
    """Change config.json and weights, and stamp them as if they had been saved so."""
    config = json.loads((folder / "config.json").read_text())
    tensors = load_file(folder / "model.safetensors")
    for name, value in changes.items():
        if name == "tensors":
            tensors |= value
        elif name == "parameters":
            config["parameters"] = {**config["parameters"], **value}
        else:
            config[name] = value
    tensors = {name: value for name, value in tensors.items() if value is not None}
    save_file(tensors, folder / "model.safetensors")
    stable = {k: v for k, v in config.items() if k not in ("fingerprint", "sha256")}
    digest = hashlib.sha256(json.dumps(stable, sort_keys=True).encode())
    digest.update((folder / "model.safetensors").read_bytes())
    config["fingerprint"] = digest.hexdigest()
    (folder / "config.json").write_text(json.dumps(config))


def test_what_was_saved_under_other_defaults_is_still_read(
    embeddings: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ten = dict.fromkeys(("encoder", "query_encoder", "decoder", "documents"), 10)
    with monkeypatch.context() as patch:
        patch.setattr(towers, "HIDDEN_SIZES", dict.fromkeys(towers.HIDDEN_SIZES, ten))
        compressor = Compressor(**{**SMALL, "hidden_sizes": None}).fit(embeddings)
        save(compressor, tmp_path / "compressor")
    loaded = load_compressor(tmp_path / "compressor")
    assert np.array_equal(loaded.encode(embeddings), compressor.encode(embeddings))
    assert np.array_equal(loaded.transform(embeddings), compressor.transform(embeddings))


def test_config_alone_is_guarded_too(folder: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(folder, tmp_path / "copy"))
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "metric": "l2"}))
    with pytest.raises(FormatError, match="was changed since it was saved"):
        load_compressor(path)
    with pytest.raises(FormatError, match="another compressor"):
        use(path)


ZEROS = np.zeros


@pytest.mark.parametrize(
    "changes",
    [
        {"parameters": {"hidden_sizes": [2**40]}},
        {"parameters": {"hidden_sizes": [2**31, 2**31]}},
        {"parameters": {"hidden_sizes": "24"}},
        {"parameters": {"hidden_sizes": []}},
        {"parameters": {"colour": "red"}},
        {"parameters": {"n_components": 5}},
        {"parameters": {"metric": "cosine"}},
        {"parameters": {"groups": 3}},
        {"parameters": {"epochs": "many"}},
        {"parameters": {"batch_norm": False}},
        {"n_components": 5},
        {"n_components": None},
        {"code_size": 8},
        {"stages": 1},
        {"groups": 4},
        {"code_width": 16},
        {"dim": 31},
        {"dim": 1 << 20},
        {"metric": "l2"},
        {"tensors": {"scale": None}},
        {"tensors": {"scale": ZEROS(1, np.float32)}},
        {"tensors": {"scale": np.full(1, np.nan, np.float32)}},
        {"tensors": {"scale": ZEROS((2, 2), np.float32)}},
        {"tensors": {"latents.encoder.linear.weight": None}},
        {"tensors": {"latents.encoder.linear.weight": ZEROS((6, 31), np.float32)}},
        {"tensors": {"latents.encoder.linear.weight": ZEROS((6, 32), np.float64)}},
        {"tensors": {"latents.encoder.linear.weight": ZEROS(6, np.float32)}},
        {"tensors": {"latents.decoder.linear.bias": ZEROS(31, np.float32)}},
        {"tensors": {"latents.surprise": ZEROS(3, np.float32)}},
        {"tensors": {"reranker.log_scale": ZEROS((), np.float32)}},
        {"reranker": True},
        {"reranker": "yes"},
        {"tensors": {"codes.quantizer.codebooks": None}},
        {"tensors": {"codes.quantizer.codebooks": ZEROS((2, 2, 255, 16), np.float32)}},
        {"tensors": {"codes.quantizer.codebooks": ZEROS((1, 2, 256, 16), np.float32)}},
        {"tensors": {"codes.quantizer.codebooks": ZEROS((4, 256, 16), np.float32)}},
    ],
    ids=str,
)
def test_a_folder_stamped_to_deceive_is_refused(
    folder: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    path = Path(shutil.copytree(folder, tmp_path / "copy"))
    edited(path, **changes)
    with pytest.raises(FormatError) as caught:
        load_compressor(path)
    assert "\n" not in str(caught.value)


def test_an_honest_stamp_is_accepted(folder: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(folder, tmp_path / "copy"))
    edited(path, source={"rows": 3}, tensors={"latents.log_scale": np.float32([2.0]).reshape(())})
    assert load_compressor(path).latent_tower_.log_scale.item() == 2


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        "null",
        '{"kind": "compressor"}',
        '{"kind": "index", "format_version": 1}',
        "[" * 100_000,
        '{"kind": "compressor", "format_version": 2}',
        " " * (1 << 21),
        '{"kind": "compressor", "format_version": 1, "dim": 1e400}',
    ],
    ids=lambda text: text[:40],
)
def test_configurations_that_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    for read in (load_compressor, describe, use):
        with pytest.raises(FormatError) as caught:
            read(tmp_path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dim", 0),
        ("dim", 2**21),
        ("dim", True),
        ("dim", "32"),
        ("n_components", -1),
        ("code_size", 1.5),
        ("stages", []),
        ("metric", "euclid"),
        ("metric", None),
        ("fingerprint", 5),
        ("fingerprint", "short"),
        ("sha256", []),
        ("sha256", {"encoder.onnx": 5}),
        ("sha256", {"encoder.onnx": "0" * 64, "latent_encoder.onnx": "", "code_encoder.onnx": ""}),
    ],
)
def test_fields_that_cannot_be(folder: Path, tmp_path: Path, name: str, value: Any) -> None:
    path = Path(shutil.copytree(folder, tmp_path / "copy"))
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, name: value}))
    with pytest.raises(FormatError):
        use(path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"history": 3}',
        '{"history": {"latents": [{"recall": "x"}]}}',
        '{"history": {"latents": []}}',
        '{"history": {"words": [{"step": 0}]}}',
        '{"history": {}, "sizes": [{"code_size": 8}]}',
        '{"history": {}, "sizes": [{"code_size": 8, "start": 0.5, "trained": 0.6}]}',
        '{"history": {}, "sizes": [{"code_size": 4, "start": 0.5, "trained": null}]}',
        '{"history": {}, "sizes": [{"code_size": 4, "start": "a", "trained": 0.6}]}',
    ],
)
def test_figures_that_are_damaged_cost_only_the_figures(
    folder: Path, tmp_path: Path, text: str
) -> None:
    path = Path(shutil.copytree(folder, tmp_path / "copy"))
    (path / "metrics.json").write_text(text)
    loaded = load_compressor(path)
    assert (loaded.history_, loaded.sizes_, loaded.fell_back_) == ({}, [], {})
    save(loaded, path)
    assert describe(path)["bad_files"] == []
