"""What a folder is, and whether its checksums hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from embedpress.errors import FormatError, UsageError, printable
from embedpress.vectors import read_manifest
from embedpress.vectors import verify as verify_shards
from embedpress.vectors.document import read_json
from embedpress.vectors.manifest import is_journal
from embedpress.vectors.verification import shard_holds


def describe(path: str | Path, *, verify: bool = True) -> dict[str, Any]:
    """Describe a folder of vectors, a compressor or an index.

    Parameters
    ----------
    path : str or Path
    verify : bool
        Compare every file with its checksum, too.

    Returns
    -------
    dict
        ``kind``, sizes, and ``bad_files``: names of files that do not hold (empty when all
        do), or None where there was nothing to compare or `verify` is off.

    Raises
    ------
    UsageError
        No such folder, or not one of embedpress.
    FormatError
        A manifest or a configuration that is not valid.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise UsageError(f"no folder at {folder}")
    if (folder / "config.json").is_file():
        return _compressor(folder, verify)
    if (folder / "manifest.json").is_file():
        return _index(folder, verify) if _is_index(folder) else _vectors(folder, verify)
    if any(is_journal(file.name) for file in folder.iterdir()):
        return _unfinished(folder, verify)
    begun = _begun_index(folder)
    if begun:
        return {"kind": "unfinished index", **begun, "bad_files": None}
    raise UsageError(f"{folder} is not a folder of vectors, a compressor or an index")


def _is_index(folder: Path) -> bool:
    from embedpress.index.manifest import FILE_NAME

    return any(FILE_NAME.fullmatch(file.name) for file in folder.iterdir())


def _vectors(folder: Path, verify: bool) -> dict[str, Any]:
    manifest = read_manifest(folder)
    return {
        "kind": manifest.kind,
        "count": manifest.count,
        "dim": manifest.dim,
        "metric": manifest.metric,
        "normalized": manifest.normalized,
        "model": manifest.model,
        "shards": len(manifest.shards),
        "bytes": sum(shard.bytes for shard in manifest.shards),
        "bad_files": verify_shards(folder) if verify else None,
    }


def _unfinished(folder: Path, verify: bool) -> dict[str, Any]:
    from embedpress.engine.entry import journals_in

    read = [journal.read() for journal in journals_in(folder)]
    # A shard that was made again has a line of its own: the last one counts.
    noted = {entry.index: entry for _, entries in read for entry in entries}
    shards = [entry.shard for entry in noted.values()]
    bad = [shard.name for shard in shards if not shard_holds(folder, shard)] if verify else None
    return {
        "kind": f"unfinished {read[0][0]['identity'].get('kind')}",
        "count": sum(shard.rows for shard in shards),
        "shards": len(shards),
        "next": "the command that writes it goes on where it was",
        "bad_files": bad,
    }


def _compressor(folder: Path, verify: bool) -> dict[str, Any]:
    from embedpress.onnx.compressor import OnnxCompressor

    compressor = OnnxCompressor(folder)
    try:
        held_out = read_json(folder / "metrics.json")["held_out"]
    except (FormatError, KeyError, TypeError):
        held_out = None
    return {
        "kind": "compressor",
        "dim": compressor.dim,
        "n_components": compressor.n_components,
        "code_size": compressor.code_size,
        "metric": compressor.metric,
        "fingerprint": compressor.fingerprint,
        "held_out_recall@10": held_out,
        "bytes": sum(file.stat().st_size for file in folder.iterdir() if file.is_file()),
        "bad_files": compressor.bad_files() if verify else None,
    }


def _index(folder: Path, verify: bool) -> dict[str, Any]:
    from embedpress.index.manifest import bad_files, read_index_manifest

    manifest = read_index_manifest(folder)
    bad = bad_files(folder, manifest) if verify else None
    return {
        "kind": "index",
        "of": manifest.what,
        "count": manifest.count,
        "metric": manifest.metric,
        "factory": manifest.factory,
        "rerank": manifest.rerank,
        "bytes_per_vector": manifest.bytes_per_vector,
        "compressor": manifest.compressor,
        **_begun_index(folder),
        "bad_files": bad,
    }


def _begun_index(folder: Path) -> dict[str, Any]:
    """What is known of a change of an index that did not come to its end."""
    from embedpress.index.unfinished import read_unfinished

    found = read_unfinished(folder)
    if found is None:
        return {}
    name = printable(str(found[0]["identity"].get("name"))[:40])
    return {"next": f"the same `embedpress {name}` goes on where it was"}
