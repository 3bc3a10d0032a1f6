"""`embedpress search`: questions to hits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedpress.cli.lines import shortened
from embedpress.cli.options import Json, Model, Threads
from embedpress.console import show, stopwatch
from embedpress.errors import UsageError

if TYPE_CHECKING:
    from embedpress.onnx.compressor import OnnxCompressor


def search_command(
    index: Annotated[
        str, typer.Argument(metavar="INDEX", help="Index folder, or where it was pushed: Milvus.")
    ],
    model: Model,
    text: Annotated[str | None, typer.Option(help="Ask with a text.")] = None,
    image: Annotated[Path | None, typer.Option(help="Ask with a photo.")] = None,
    vectors: Annotated[Path | None, typer.Option(help="Ask with embeddings.")] = None,
    k: Annotated[int, typer.Option("-k", help="Hits a query.")] = 10,
    radius: Annotated[
        float | None,
        typer.Option(
            help="All rows with a larger score, in place of k; of a smaller distance under l2."
        ),
    ] = None,
    filter: Annotated[
        str | None, typer.Option(help='Keep rows such as label == "food" and year > 2000.')
    ] = None,
    nprobe: Annotated[int | None, typer.Option(help="Inverted lists to visit.")] = None,
    oversample: Annotated[
        int | None, typer.Option(help="Hits reordered, as a multiple of k; 10 or 5 by default.")
    ] = None,
    rerank: Annotated[
        bool | None,
        typer.Option(help="Reorder first hits by the rerank tier, or by the reranker of codes."),
    ] = None,
    extractor: Annotated[
        str | None,
        typer.Option(help="Extractor for --text or --image; what made the index by default."),
    ] = None,
    weights: Annotated[str | None, typer.Option(help="Weights for --image.")] = None,
    collection: Annotated[str, typer.Option(help="Of Milvus.")] = "embedpress",
    num_threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Search by a text, a photo or a file of embeddings.

    Example: `embedpress search index -m model --text "a warm film about family" -k 5`
    """
    from embedpress.index.ask import embed_question, has_encoder
    from embedpress.index.search import open_index
    from embedpress.onnx.compressor import load
    from embedpress.push.verb import is_milvus

    def questions_for(compressor: OnnxCompressor, made_by: dict[str, Any]) -> Any:
        return embed_question(
            text=text,
            image=image,
            vectors=vectors,
            made_by=made_by,
            extractor=extractor or (str(model) if has_encoder(model) else None),
            weights=weights,
            dim=compressor.dim,
            metric=compressor.metric,
            num_threads=num_threads,
        )

    if is_milvus(index):
        if rerank or any(given is not None for given in (radius, nprobe, oversample)):
            raise UsageError(
                "Milvus is asked for the k nearest, as they lie there: "
                "leave --radius, --nprobe, --oversample and --rerank out"
            )
        from embedpress.push.milvus import MilvusTarget

        with MilvusTarget(index, collection) as target:
            compressor = load(model, num_threads=num_threads)
            questions = questions_for(compressor, target.pushed_from().extractor)
            with stopwatch() as seconds:
                records = target.search(compressor, questions, k, filter=filter or "")
        result = {"k": k, "seconds": seconds(), "hits": records}
        show(result, as_json=as_json, text="\n\n".join(_hit_lines(found) for found in records))
        return
    if radius is not None and oversample is not None:
        raise UsageError("--oversample is a multiple of -k: leave it out where --radius is given")
    opened = open_index(index, model, num_threads=num_threads)
    questions = questions_for(opened.compressor, opened.manifest.extractor)
    with stopwatch() as seconds:
        if radius is None:
            found = opened.search(
                questions, k, filter=filter, nprobe=nprobe, oversample=oversample, rerank=rerank
            )
            records = opened.records(found)
        else:
            near = opened.range_search(
                questions, radius, filter=filter, nprobe=nprobe, rerank=rerank
            )
            records = opened.records(near)
    asked = {"k": k} if radius is None else {"radius": radius}
    result = {**asked, "seconds": seconds(), "hits": records}
    show(result, as_json=as_json, text="\n\n".join(_hit_lines(found) for found in records))


def _hit_lines(records: list[dict[str, Any]]) -> str:
    return "\n".join(
        f"{place:>3}. {record['score']:.4f}  {shortened(record)}"
        for place, record in enumerate(records, 1)
    )
