from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    # Syncing matters when the power fails, which no test can bring about; a killed process
    # loses nothing that it wrote. That files are synced in the right order has its own test.
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
