"""`embedpress index`, `delete` and `compact`: codes to an index, and its changes."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedpress.cli.options import Json, Model, Threads
from embedpress.console import progress_bar, show, stopwatch
from embedpress.errors import UsageError

if TYPE_CHECKING:
    from embedpress.index.change import Changed


class Rerank(str, Enum):
    """Form of the rerank tier."""

    none = "none"
    int8 = "int8"
    float16 = "float16"
    float32 = "float32"


class Existing(Enum):
    """What becomes of ids that an index already has."""

    refuse = "refuse"
    replace = "replace"
    skip = "skip"


def index_command(
    source: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of codes or latents.")],
    model: Model,
    out: Annotated[Path, typer.Option("-o", "--output", help="Index folder to write.")],
    factory: Annotated[
        str, typer.Option(help="auto, Flat, IVF<lists> or IVF<lists>_HNSW32.")
    ] = "auto",
    nprobe: Annotated[
        int | None,
        typer.Option(
            help="Lists that a search visits; found by sample queries.", show_default="auto"
        ),
    ] = None,
    rerank: Annotated[Rerank, typer.Option(help="Finer vectors kept on disk.")] = Rerank.none,
    vectors: Annotated[
        Path | None, typer.Option(help="The embeddings, for the rerank tier.")
    ] = None,
    queries: Annotated[
        Path | None, typer.Option(help="Embeddings of sample queries, to find nprobe with.")
    ] = None,
    memory_budget: Annotated[
        str, typer.Option(help="Memory of the build; a larger index is opened memory-mapped.")
    ] = "2G",
    add: Annotated[
        bool, typer.Option("--add", help="Add to the index that is there, with its options.")
    ] = False,
    existing: Annotated[
        Existing, typer.Option(help="With --add: what becomes of ids that are already there.")
    ] = Existing.refuse,
    seed: Annotated[int, typer.Option(help="Of the inverted lists.")] = 0,
    num_threads: Threads = None,
    as_json: Json = False,
) -> None:
    """A FAISS index of codes or latents, with ids and metadata.

    Example: `embedpress index codes -m model -o index --rerank int8 --vectors embeddings`

    Example: `embedpress index more-codes -m model -o index --add`
    """
    if add:
        from embedpress.index.change import add_to_index

        with stopwatch() as seconds, progress_bar("vectors") as progress:
            changed = add_to_index(
                source,
                model,
                out,
                existing=existing.value,
                vectors=vectors,
                memory_budget=memory_budget,
                num_threads=num_threads,
                progress=progress,
            )
        _show_changed(changed, out, seconds(), as_json)
        return
    from dataclasses import asdict

    from embedpress.index.build import build_index
    from embedpress.index.manifest import summary

    with stopwatch() as seconds, progress_bar("vectors") as progress:
        manifest = build_index(
            source,
            model,
            out,
            factory=factory,
            nprobe=nprobe,
            rerank=rerank.value,
            vectors=vectors,
            queries=queries,
            memory_budget=memory_budget,
            seed=seed,
            num_threads=num_threads,
            progress=progress,
        )
    text = "\n".join([f"index in {out}", *summary(manifest)])
    result = {"output": str(out), "seconds": seconds(), **asdict(manifest)}
    show(result, as_json=as_json, text=text)


def delete_command(
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="Index folder.")],
    ids: Annotated[
        list[str] | None, typer.Option("--id", "--ids", help="An id; repeat it for several.")
    ] = None,
    ids_file: Annotated[Path | None, typer.Option(help="A text file with an id a line.")] = None,
    filter: Annotated[
        str | None, typer.Option(help='Rows such as label == "food" and year > 2000.')
    ] = None,
    as_json: Json = False,
) -> None:
    """Delete vectors from an index: marked at once, removed by `embedpress compact`.

    Example: `embedpress delete index --ids 17 --ids 18`

    Example: `embedpress delete index --filter 'year < 2000'`
    """
    from embedpress.index.change import delete_from_index

    named = [*(ids or []), *(_lines_of(ids_file) if ids_file else [])]
    with stopwatch() as seconds:
        wanted = named if ids or ids_file else None
        changed = delete_from_index(index, ids=wanted, filter=filter)
    _show_changed(changed, index, seconds(), as_json)


def compact_command(
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="Index folder.")],
    memory_budget: Annotated[str, typer.Option(help="Memory to use.")] = "2G",
    as_json: Json = False,
) -> None:
    """Write an index anew without its deleted vectors.

    Example: `embedpress compact index`
    """
    from embedpress.index.change import compact_index

    with stopwatch() as seconds:
        changed = compact_index(index, memory_budget=memory_budget)
    _show_changed(changed, index, seconds(), as_json)


def _show_changed(changed: Changed, index: Path, seconds: float, as_json: bool) -> None:
    from dataclasses import asdict

    from embedpress.index.manifest import summary

    counts = asdict(changed)
    manifest = counts.pop("manifest")
    done = [f"{n:,} {name.replace('_', ' ')}" for name, n in counts.items() if n]
    text = "\n".join([f"{index}: {', '.join(done) or 'nothing to do'}", *summary(changed.manifest)])
    result = {"output": str(index), "seconds": seconds, **counts, **manifest}
    # Not the count of a change but what the index holds.
    result |= {"deleted": counts["deleted"], "deleted_rows": manifest["deleted"]}
    show(result, as_json=as_json, text=text)


def _lines_of(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line]
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
