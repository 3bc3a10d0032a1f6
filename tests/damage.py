"""Damage done to files, as hypothesis draws it."""

from __future__ import annotations

from typing import Any, TypeAlias

from hypothesis import HealthCheck
from hypothesis import strategies as st

Damage: TypeAlias = tuple[str, float, int]

ANYTHING: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture],
}
"""Settings of a test that reads what hypothesis drew from one folder, again and again."""

# Half of it falls near the start and the end of a file, where headers and footers are.
PLACE = st.floats(0, 1, exclude_max=True) | st.floats(0, 0.1) | st.floats(0.9, 1, exclude_max=True)
DAMAGE = st.one_of(
    st.tuples(st.just("flip"), PLACE, st.integers(1, 255)),
    st.tuples(st.just("cut"), PLACE, st.sampled_from([1, 4, 60, 10**9])),
    st.tuples(st.just("number"), PLACE, st.sampled_from([2**31 - 1, 2**32 - 1, 2**63 - 1, 2**40])),
)


def damaged(content: bytes, damage: Damage) -> bytes:
    """The content after one flip, cut or overwritten number."""
    what, place, value = damage
    data = bytearray(content)
    at = int(place * len(data))
    if what == "flip":
        data[at] ^= value
    elif what == "cut":
        del data[at : at + value]
    else:
        data[at : at + 8] = value.to_bytes(8, "little")
    return bytes(data)
