from __future__ import annotations

from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(autouse=True)
def scripts_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Python itself does for a script that is run."""
    if not SCRIPTS.is_dir():
        pytest.skip("the scripts are not part of an installed package")
    monkeypatch.syspath_prepend(str(SCRIPTS))
