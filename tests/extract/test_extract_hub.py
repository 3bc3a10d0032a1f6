from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from embedpress.errors import UsageError
from embedpress.extract import torchvision_trap
from embedpress.extract.hub import model_folder

torchvision_trap.prepare()
hub = pytest.importorskip("huggingface_hub")
errors = pytest.importorskip("huggingface_hub.errors")
constants = pytest.importorskip("huggingface_hub.constants")

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """A hub that answers with a snapshot folder, and what it was asked."""
    calls: list[dict[str, Any]] = []

    def download(name: str, *, dry_run: bool = False, **options: Any) -> Any:
        if dry_run:
            return []
        calls.append({"name": name, **options})
        return str(tmp_path / COMMIT)

    (tmp_path / COMMIT).mkdir()
    monkeypatch.setattr(hub, "snapshot_download", download)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return calls


def test_a_folder_goes_before_the_hub(tmp_path: Path, asked: list[dict[str, Any]]) -> None:
    assert model_folder(str(tmp_path)) == (tmp_path, None)
    assert asked == []
    with pytest.raises(UsageError, match="belongs to a hub id"):
        model_folder(tmp_path, "main")


@pytest.mark.parametrize("name", ["./none", "/none/there", "a/b/c", "~/none", "", Path("none")])
def test_what_can_only_be_a_folder_is_not_asked_for(
    name: str | Path, asked: list[dict[str, Any]]
) -> None:
    with pytest.raises(UsageError, match="no such model folder"):
        model_folder(name)
    assert asked == []


def test_pickled_weights_are_not_asked_for(tmp_path: Path, asked: list[dict[str, Any]]) -> None:
    folder, revision = model_folder("org/name", "v1")
    assert (folder, revision) == (tmp_path / COMMIT, COMMIT)
    assert [call["revision"] for call in asked] == ["v1"]
    assert "*.safetensors" in asked[0]["allow_patterns"]
    assert not any("bin" in pattern for pattern in asked[0]["allow_patterns"])


@pytest.mark.parametrize(("value", "offline"), [("1", True), ("true", True), ("0", False)])
def test_offline_is_honoured(
    value: str, offline: bool, asked: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    model_folder("org/name")
    assert [call.get("local_files_only", False) for call in asked] == [offline]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ConnectionError("no route\nto host"), r"cannot be downloaded \(no route\); give the"),
        (OSError(), r"\(OSError\)"),
        (errors.LocalEntryNotFoundError("not here"), r"\(not here\)"),
        (errors.HFValidationError("bad"), "neither a folder nor a model that the hub has"),
    ],
)
def test_a_hub_out_of_reach_is_one_clear_line(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(name: str, *, dry_run: bool = False, **options: Any) -> Any:
        if dry_run:
            return []
        raise error

    monkeypatch.setattr(hub, "snapshot_download", download)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(UsageError, match=message) as caught:
        model_folder("org/name")
    assert "\n" not in str(caught.value)


def test_a_model_in_the_cache_is_found_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = tmp_path / "models--org--name" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (tmp_path / "models--org--name" / "refs").mkdir()
    (tmp_path / "models--org--name" / "refs" / "main").write_text(COMMIT)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    folder, revision = model_folder("org/name")
    assert (folder, revision) == (snapshot, COMMIT)
    with pytest.raises(UsageError, match="HF_HUB_OFFLINE is set"):
        model_folder("org/other")
