"""A folder of vectors as a dataset of Hugging Face's library; the other way is `open_vectors`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from embedpress.errors import FormatError, MissingDependencyError
from embedpress.vectors.footer import open_door
from embedpress.vectors.manifest import read_manifest, shard_path

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset


def to_dataset(folder: str | Path, *, streaming: bool = False) -> Dataset | IterableDataset:
    """Embeddings, latents or codes, with their ids and metadata, as a `datasets.Dataset`.

    Parameters
    ----------
    folder : str or Path
        Of Parquet shards, finished.
    streaming : bool
        Read the shards where they are, in order, as an `IterableDataset`. Else the library
        makes a copy in its cache, where rows are found by their number.

    Returns
    -------
    Dataset or IterableDataset
        Columns ``id``, ``vector`` (lists of float32) or ``code`` (bytes), and the others.

    Raises
    ------
    UsageError, FormatError
        Not a whole folder of vectors.
    MissingDependencyError
        Without the datasets library, or for codes with one older than 5.1.
    """
    path = Path(folder)
    manifest = read_manifest(path)
    files = []
    for shard in manifest.shards:
        file = shard_path(path, shard)
        if not file.is_file() or file.stat().st_size != shard.bytes:
            raise FormatError(f"{file} is not as its manifest says: run the job again")
        with open_door(file) as door:
            door.check()
        files.append(str(file))
    try:
        import datasets
    except ImportError as error:
        raise MissingDependencyError(
            "a dataset needs the datasets library: pip install 'embedpress[datasets]'"
        ) from error
    if manifest.kind == "codes" and _version(datasets.__version__) < (5, 1):
        raise MissingDependencyError(
            f"datasets {datasets.__version__} does not know codes of a fixed size: "
            "pip install 'embedpress[datasets]'"
        )
    return datasets.load_dataset("parquet", data_files=files, split="train", streaming=streaming)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2])
