"""One FAISS thread: on data this small, waking more costs more than it saves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from embedpress.threads import faiss_threads


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    with faiss_threads(1):
        yield
