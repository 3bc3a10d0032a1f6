from __future__ import annotations

import os

import faiss
import pytest

from embedpress import threads
from embedpress.errors import UsageError
from embedpress.threads import available_threads, check_threads, faiss_threads


def test_threads_that_may_be_used(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr(threads, "_QUOTA", quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    for text, expected in (
        (None, 8),
        ("max 100000", 8),
        ("250000 100000", 2),
        ("50000 100000", 1),
        ("6400000 100000", 8),
        ("nonsense", 8),
        ("", 8),
    ):
        if text is not None:
            quota.write_text(text)
        assert available_threads() == expected
    assert check_threads(None) == 8
    assert check_threads(3) == 3


def test_too_few_threads() -> None:
    for number in (0, -1):
        with pytest.raises(UsageError, match=f"num_threads={number} must be 1 or more"):
            check_threads(number)
        with pytest.raises(UsageError), faiss_threads(number):
            pass


def test_the_setting_of_faiss_is_put_back() -> None:
    before = faiss.omp_get_max_threads()
    with faiss_threads(before + 2):
        assert faiss.omp_get_max_threads() == before + 2
    with pytest.raises(KeyError), faiss_threads(before + 1):
        raise KeyError
    with faiss_threads(None):
        assert faiss.omp_get_max_threads() == before
    assert faiss.omp_get_max_threads() == before
