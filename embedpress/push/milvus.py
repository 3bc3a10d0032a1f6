"""Rows of an index in Milvus: a cluster by its address, or Milvus Lite in a local file."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from embedpress.errors import (
    InputError,
    MismatchError,
    MissingDependencyError,
    StorageError,
    UsageError,
)
from embedpress.push.rows import IndexRows, query_vectors

Floats = NDArray[np.float32]

ATTEMPTS = 6
FIRST_WAIT = 0.5
"""Seconds before the second attempt; doubled for each further one."""
_RESERVED = ("vector",)
_ORIGIN = "_embedpress"
_METRICS = {"ip": "IP", "cosine": "COSINE", "l2": "L2"}


@dataclass(frozen=True)
class Origin:
    """What a collection was pushed from; kept in a small collection beside it.

    `state` is a checksum of the index's rows, `whole` says whether all of them arrived.
    """

    state: str
    compressor: str
    what: str
    form: str
    metric: str
    extractor: dict[str, Any]
    dim: int
    rows: int
    whole: bool


class MilvusTarget:
    """A collection of a Milvus server.

    Parameters
    ----------
    target : str
        ``milvus://HOST:PORT[/DATABASE]``, ``milvus+tls://...``, or the path of a ``.db`` file for
        Milvus Lite. A token is taken from the environment variable MILVUS_TOKEN.
    collection : str
    new : bool
        A file of Milvus Lite may be missing.

    Raises
    ------
    UsageError
        There is no such file.
    MissingDependencyError
        pymilvus is not installed.
    StorageError
        The server cannot be reached.
    """

    def __init__(self, target: str, collection: str, *, new: bool = False) -> None:
        if "://" not in target and not new and not Path(target).exists():
            raise UsageError(f"there is no {target}: push an index to it first")
        try:
            import pymilvus
        except ImportError:
            raise MissingDependencyError(
                "Milvus needs pymilvus: pip install 'embedpress[milvus]'"
            ) from None
        self.target, self.collection = target, collection
        self._pymilvus = pymilvus
        self._client = self._again(pymilvus.MilvusClient, **_address(target))

    def __enter__(self) -> MilvusTarget:
        return self

    def __exit__(self, *error: object) -> None:
        self._client.close()

    def origin(self) -> Origin | None:
        """What the collection was pushed from; None where there is none.

        Raises
        ------
        MismatchError
            The collection is there, but embedpress did not make it.
        """
        beside = self.collection + _ORIGIN
        if not self._again(self._client.has_collection, beside):
            if self._again(self._client.has_collection, self.collection):
                raise MismatchError(
                    f"the collection {self.collection!r} was not made by embedpress: name another"
                )
            return None
        self._again(self._client.load_collection, beside)
        found = self._again(self._client.query, beside, ids=[0], output_fields=["about"])
        try:
            return Origin(**json.loads(found[0]["about"]))
        except (LookupError, TypeError, ValueError):
            raise MismatchError(
                f"the collection {beside!r} does not say what was pushed: push with --overwrite"
            ) from None

    def pushed_from(self) -> Origin:
        """What the collection was pushed from; raises `MismatchError` where there is none."""
        origin = self.origin()
        if origin is None:
            raise MismatchError(f"there is no collection {self.collection!r} at {self.target}")
        return origin

    def push(
        self,
        rows: IndexRows,
        *,
        overwrite: bool = False,
        batch_rows: int = 1000,
        progress: Callable[[int], None] = lambda rows: None,
    ) -> int:
        """Write all rows, in batches; those that are there already are left out.

        Parameters
        ----------
        rows : IndexRows
        overwrite : bool
            Remove the collection first.
        batch_rows : int
        progress : callable

        Returns
        -------
        int
            Rows that were written.

        Raises
        ------
        MismatchError
            The collection holds the rows of another index, or of another state of it.
        StorageError
            The server refused for good.
        """
        for name in rows.columns.names:
            if name in _RESERVED:
                raise InputError(f"a metadata column cannot be called {name!r} in Milvus")
        wanted = _origin_of(rows)
        if overwrite:
            self._drop()
        origin = None if overwrite else self.origin()
        if origin is not None and {**vars(origin), "whole": False} != vars(wanted):
            raise MismatchError(
                f"the collection {self.collection!r} holds the rows of another index, or of an "
                "earlier state of it: push with --overwrite, or name another"
            )
        if origin is None:
            self._create(rows, wanted)
        written = 0
        for start in range(0, rows.count, batch_rows):
            stop = min(start + batch_rows, rows.count)
            if origin is None or not self._held(rows.ids(start, stop)):
                block = rows.block(start, stop)
                data = [
                    {**{k: v for k, v in record.items() if v is not None}, "vector": vector}
                    for record, vector in zip(block.table.to_pylist(), block.vectors, strict=True)
                ]
                self._again(self._client.upsert, self.collection, data)
                written += stop - start
            progress(stop - start)
        self._again(self._client.flush, self.collection)
        self._note(Origin(**{**vars(wanted), "whole": True}))
        return written

    def search(
        self,
        compressor: Any,
        embeddings: Floats,
        k: int = 10,
        *,
        filter: str = "",
    ) -> list[list[dict[str, Any]]]:
        """The nearest rows of query embeddings, asked through the compressor's query encoder.

        Parameters
        ----------
        compressor : OnnxCompressor
            That of the index that was pushed.
        embeddings : ndarray of shape (n_queries, d), float32
        k : int
        filter : str
            An expression of Milvus, such as ``year > 2000``.

        Returns
        -------
        list of list of dict
            For each query its hits: id, score and metadata.

        Raises
        ------
        MismatchError
            Nothing was pushed, or by another compressor.
        """
        origin = self.pushed_from()
        if origin.compressor != compressor.fingerprint:
            raise MismatchError(
                f"the collection {self.collection!r} was pushed by another compressor than "
                f"{compressor.path}"
            )
        self._again(self._client.load_collection, self.collection)
        asked = query_vectors(compressor, origin.what, origin.form, embeddings, origin.dim)
        found = self._again(
            self._client.search,
            self.collection,
            list(asked),
            limit=k,
            filter=filter,
            output_fields=["*"],
        )
        return [[_record(hit) for hit in line] for line in found]

    def _create(self, rows: IndexRows, origin: Origin) -> None:
        kinds = self._pymilvus.DataType
        schema = self._pymilvus.MilvusClient.create_schema(auto_id=False, enable_dynamic_field=True)
        if pa.types.is_integer(rows.columns.field("id").type):
            schema.add_field("id", kinds.INT64, is_primary=True)
        else:
            ids = rows.ids(0, rows.count)
            longest = pc.max(pc.binary_length(ids)).as_py() or 1
            schema.add_field("id", kinds.VARCHAR, is_primary=True, max_length=longest)
        schema.add_field("vector", kinds.FLOAT_VECTOR, dim=rows.dim)
        # The origin comes first: a collection without one would not be taken for ours.
        self._note(origin)
        self._make(self.collection, schema, _METRICS[rows.metric])

    def _note(self, origin: Origin) -> None:
        """Write what the collection is into the one beside it."""
        beside = self.collection + _ORIGIN
        if not self._again(self._client.has_collection, beside):
            kinds = self._pymilvus.DataType
            schema = self._pymilvus.MilvusClient.create_schema(auto_id=False)
            schema.add_field("id", kinds.INT64, is_primary=True)
            schema.add_field("about", kinds.VARCHAR, max_length=65_535)
            schema.add_field("vector", kinds.FLOAT_VECTOR, dim=2)
            self._make(beside, schema, "L2")
        row = {"id": 0, "about": json.dumps(vars(origin)), "vector": [0.0, 0.0]}
        self._again(self._client.upsert, beside, [row])
        self._again(self._client.flush, beside)

    def _make(self, name: str, schema: Any, metric: str) -> None:
        params = self._client.prepare_index_params()
        params.add_index("vector", index_type="AUTOINDEX", metric_type=metric)
        if not self._again(self._client.has_collection, name):
            self._again(self._client.create_collection, name, schema=schema, index_params=params)

    def _drop(self) -> None:
        for name in (self.collection, self.collection + _ORIGIN):
            if self._again(self._client.has_collection, name):
                self._again(self._client.drop_collection, name)

    def _held(self, ids: pa.Array) -> bool:
        """Whether all of these rows arrived before."""
        wanted = ids.to_pylist()
        self._again(self._client.load_collection, self.collection)
        found = self._again(self._client.query, self.collection, ids=wanted, output_fields=["id"])
        return len(found) == len(wanted)

    def _again(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """A call, and again after a while where the server did not answer it."""
        wait = FIRST_WAIT
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return call(*arguments, **options)
            except self._pymilvus.exceptions.MilvusException as error:
                refused = isinstance(error, self._pymilvus.exceptions.ParamError)
                if refused or attempt == ATTEMPTS:
                    text = " ".join(str(error.message).split())[:300]
                    raise StorageError(f"Milvus at {self.target}: {text}") from None
            time.sleep(wait * random.uniform(0.8, 1.2))
            wait *= 2
        raise AssertionError("unreachable")


def _address(target: str) -> dict[str, str]:
    if "://" not in target:
        Path(target).absolute().parent.mkdir(parents=True, exist_ok=True)
        return {"uri": str(Path(target).absolute())}
    parts = urlsplit(target)
    scheme = "https" if parts.scheme == "milvus+tls" else "http"
    address = {"uri": f"{scheme}://{parts.netloc}", "db_name": parts.path.strip("/")}
    address["token"] = os.environ.get("MILVUS_TOKEN", "")
    return {name: value for name, value in address.items() if value}


def _origin_of(rows: IndexRows) -> Origin:
    manifest = rows.manifest
    sums = [manifest.sha256[manifest.files[role]] for role in sorted(manifest.files)]
    return Origin(
        state="-".join(digest[:16] for digest in sums),
        compressor=manifest.compressor,
        what=manifest.what,
        form=rows.form,
        metric=rows.metric,
        extractor=manifest.extractor,
        dim=rows.dim,
        rows=rows.count,
        whole=False,
    )


def _record(hit: Any) -> dict[str, Any]:
    metadata = {k: v for k, v in hit["entity"].items() if k not in ("id", "vector")}
    return {"id": hit["id"], "score": 0.0} | metadata | {"score": float(hit["distance"])}
