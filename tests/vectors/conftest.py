from __future__ import annotations

import numpy as np
import pytest
from formats_on_disk import SAVERS, Save


@pytest.fixture(params=sorted(SAVERS))
def save(request: pytest.FixtureRequest) -> Save:
    """One writer a format: puts float32 vectors into a folder and says where."""
    return SAVERS[request.param]


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(43, 6)).astype(np.float32)
