"""An ONNX Runtime session of one file that was checked first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnxruntime

from embedpress.errors import FormatError, first_line
from embedpress.onnx.contents import check_contents
from embedpress.vectors import sha256_of


def open_session(
    path: Path,
    *,
    stamps: Mapping[str, str],
    sha256: str | None,
    num_threads: int,
    providers: tuple[str, ...],
    varied_shapes: bool = False,
) -> onnxruntime.InferenceSession:
    """Open a graph that belongs to a compressor.

    Parameters
    ----------
    path : Path
    stamps : mapping of str to str
        What the graph's metadata must say.
    sha256 : str or None
        Of the file; None where the compressor does not say.
    num_threads : int
        Threads of each run.
    providers : tuple of str
        Execution providers of ONNX Runtime.
    varied_shapes : bool
        Every run has another shape, as batches of texts do: memory is given back after it
        instead of being planned ahead for a shape that does not come again.

    Returns
    -------
    onnxruntime.InferenceSession

    Raises
    ------
    FormatError
        No such file, a changed one, not a graph, one that embedpress does not write, or one of
        another compressor.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised
    if varied_shapes:
        options.enable_mem_pattern = False
    if not path.is_file():
        raise FormatError(f"{path.parent} has no {path.name}: export the compressor again")
    if sha256 is not None and sha256 != sha256_of(path):
        raise FormatError(f"{path} was changed since it was written: export again")
    check_contents(path)
    try:
        # The fallback prints to standard output, and here falls back to the same.
        session = onnxruntime.InferenceSession(
            str(path), options, providers=list(providers), enable_fallback=0
        )
        found = session.get_modelmeta().custom_metadata_map
    except Exception as error:  # onnxruntime's exceptions share no public base
        raise FormatError(
            f"{path} is not a graph ONNX Runtime can load: {first_line(error)}"
        ) from None
    for name, said in stamps.items():
        if found.get(name) != said:
            raise FormatError(
                f"{path} belongs to another compressor ({name} "
                f"{found.get(name)!r:.80}, config.json says {said!r}): export again"
            )
    return session
