"""Which rows are never trained on: decided by their ids alone, the same in every command."""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt
import pyarrow as pa

HELD_OUT_SHARE = 0.05


def held_out(ids: pa.Array, share: float = HELD_OUT_SHARE) -> npt.NDArray[np.bool_]:
    """Rows kept out of training, to ask honest questions with later.

    Parameters
    ----------
    ids
        int64 or string.
    share
        About this share of all ids is held out.

    Returns
    -------
    ndarray of shape (n,), bool
        Depends on each id alone: neither on its row nor on the other ids.
    """
    if pa.types.is_integer(ids.type):
        # The finaliser of MurmurHash3 spreads consecutive numbers over all 64 bits.
        x = ids.to_numpy(zero_copy_only=False).astype(np.uint64)
        x ^= x >> np.uint64(33)
        x *= np.uint64(0xFF51AFD7ED558CCD)
        x ^= x >> np.uint64(33)
        hashed = (x >> np.uint64(32)).astype(np.uint32)
    else:
        values = (zlib.crc32(value.encode()) for value in ids.to_pylist())
        hashed = np.fromiter(values, dtype=np.uint32, count=len(ids))
    mask: npt.NDArray[np.bool_] = hashed < np.uint32(share * 2**32)
    return mask
