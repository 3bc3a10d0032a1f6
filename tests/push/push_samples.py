"""What the indexes that are pushed hold."""

from __future__ import annotations

N = 90
IDS = [f"é {i}" for i in range(N)]
METADATA = {
    "year": [None if i % 7 == 0 else 1990 + i % 30 for i in range(N)],
    "label": [["food", "", None, 'it\'s "odd", really\nso'][i % 4] for i in range(N)],
}
GONE = IDS[:9]
