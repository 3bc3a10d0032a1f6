"""The command line: one command a verb, each parses, calls one function, shows the result."""

from __future__ import annotations

import warnings
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedpress import __version__
from embedpress.console import output, progress_bar, run, show, stopwatch, training_bar
from embedpress.errors import TargetWarning, UsageError

if TYPE_CHECKING:
    from embedpress.index.change import Changed
    from embedpress.onnx.compressor import OnnxCompressor

app = typer.Typer(
    help="Compress BERT and ResNet embeddings 10 to 50 times and keep the search results.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
extract_app = typer.Typer(help="Embeddings of texts (BERT) or images (ResNet).")
app.add_typer(extract_app, name="extract", no_args_is_help=True)


class Where(str, Enum):
    """Where a job runs."""

    local = "local"
    ray = "ray"


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
Threads = Annotated[
    int | None, typer.Option("--num-threads", help="Threads; all available by default.")
]
Out = Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")]
Model = Annotated[Path, typer.Option("-m", "--model", help="Compressor folder.")]
MemoryBudget = Annotated[str, typer.Option(help="Most memory to take, as in 512M or 2G.")]
EngineOption = Annotated[
    Where, typer.Option("--engine", help="In this process, or by tasks on a Ray cluster.")
]
RayAddress = Annotated[
    str | None,
    typer.Option(help="Ray cluster; RAY_ADDRESS by default, else one started here.", metavar="A"),
]
RowsPerShard = Annotated[int, typer.Option(help="Rows of each file but the last.")]
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Do every N-th shard, from I (0 to N-1); the last of N processes joins them.",
    ),
]
CodeSize = Annotated[
    str | None,
    typer.Option(
        help="Bytes of a code; 0 for none; auto for the fewest that reach --target-recall.",
        show_default="32",
    ),
]
TargetRecall = Annotated[
    float | None,
    typer.Option(help="Held-out recall@10 that --code-size auto reaches; 0.9 by default."),
]
TimeBudget = Annotated[
    float | None,
    typer.Option(help="Seconds of training at the most, for each size with --code-size auto."),
]


class ExportFormat(str, Enum):
    """What export writes."""

    onnx = "onnx"
    sentence_transformers = "sentence-transformers"


class What(str, Enum):
    """What compress writes."""

    codes = "codes"
    latents = "latents"


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


class Form(str, Enum):
    """What the codes of an index are pushed as."""

    latents = "latents"
    embeddings = "embeddings"


class Metric(str, Enum):
    """What near means."""

    cosine = "cosine"
    ip = "ip"
    l2 = "l2"


class Score(str, Enum):
    """What counts as strange."""

    combined = "combined"
    reconstruction = "reconstruction"
    density = "density"
    distance = "distance"


class MapMethod(str, Enum):
    """How latents are laid out in the plane."""

    auto = "auto"
    pca = "pca"
    graph = "graph"
    umap = "umap"


class ClusterMethod(str, Enum):
    """How rows are divided."""

    kmeans = "kmeans"
    hdbscan = "hdbscan"


@app.callback(invoke_without_command=True)
def about(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Compress BERT and ResNet embeddings 10 to 50 times and keep the search results."""
    if version:
        output.print(f"embedpress {__version__}")
        raise typer.Exit


@extract_app.command("text")
def extract_text_command(
    source: Annotated[
        Path, typer.Argument(metavar="INPUT", help=".txt (a line each), .jsonl, .csv, .parquet.")
    ],
    out: Out,
    model: Annotated[
        str, typer.Option(help="Model folder or hub id.")
    ] = "sentence-transformers/all-MiniLM-L6-v2",
    column: Annotated[str, typer.Option(help="Column that holds the texts.")] = "text",
    id_column: Annotated[
        str | None, typer.Option(help="Column that holds the ids; row numbers by default.")
    ] = None,
    pooling: Annotated[
        str | None, typer.Option(help="mean, cls or max; what the model says by default.")
    ] = None,
    normalize: Annotated[
        bool | None,
        typer.Option("--normalize/--no-normalize", help="Scale embeddings to length 1."),
    ] = None,
    max_length: Annotated[int | None, typer.Option(help="Tokens kept of a text.")] = None,
    revision: Annotated[str | None, typer.Option(help="Revision of a hub id.")] = None,
    batch_tokens: Annotated[int, typer.Option(help="Most tokens of a batch.")] = 4096,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps.")] = "cpu",
    rows_per_shard: RowsPerShard = 8192,
    memory_budget: MemoryBudget = "2G",
    shard: ShardOption = None,
    engine: EngineOption = Where.local,
    ray_address: RayAddress = None,
    num_threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Embeddings of texts by a BERT-like model. The same command resumes a stopped job.

    Example: `embedpress extract text reviews.jsonl -o embeddings --model ./minilm`
    """
    from embedpress.engine.options import RunOptions
    from embedpress.extract.job import extract_text

    options = RunOptions(engine.value, ray_address, shard)
    with stopwatch() as seconds, progress_bar("texts") as progress:
        manifest = extract_text(
            source,
            out,
            model=model,
            column=column,
            id_column=id_column,
            batch_tokens=batch_tokens,
            pooling=pooling,
            normalize=normalize,
            max_length=max_length,
            revision=revision,
            device=device,
            rows_per_shard=rows_per_shard,
            memory_budget=memory_budget,
            num_threads=num_threads,
            options=options,
            progress=progress,
        )
    _show_vectors(manifest, out, seconds(), as_json)


@extract_app.command("image")
def extract_image_command(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Photos, in subfolders too.")],
    out: Out,
    model: Annotated[str, typer.Option(help="resnet18, 34, 50, 101 or 152.")] = "resnet50",
    weights: Annotated[
        str | None, typer.Option(help="Weights by torchvision's name, or a local file.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Photos at once.")] = 32,
    max_skipped: Annotated[
        int | None, typer.Option(help="Fail beyond so many unreadable photos.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps.")] = "cpu",
    rows_per_shard: RowsPerShard = 2048,
    memory_budget: MemoryBudget = "2G",
    shard: ShardOption = None,
    engine: EngineOption = Where.local,
    ray_address: RayAddress = None,
    num_threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Embeddings of photos by a ResNet. The same command resumes a stopped job.

    Example: `embedpress extract image photos -o embeddings --weights resnet50.safetensors`
    """
    from embedpress.engine.options import RunOptions
    from embedpress.extract.job import extract_images

    options = RunOptions(engine.value, ray_address, shard)
    with stopwatch() as seconds, progress_bar("images") as progress:
        manifest = extract_images(
            folder,
            out,
            model=model,
            weights=weights,
            batch_size=batch_size,
            max_skipped=max_skipped,
            device=device,
            rows_per_shard=rows_per_shard,
            memory_budget=memory_budget,
            num_threads=num_threads,
            options=options,
            progress=progress,
        )
    _show_vectors(manifest, out, seconds(), as_json)


@app.command("fit")
def fit_command(
    source: Annotated[Path, typer.Argument(metavar="EMB", help="Embeddings: folder or file.")],
    out: Out,
    n_components: Annotated[int, typer.Option(help="Floats of a latent; 0 for none.")] = 64,
    code_size: CodeSize = None,
    target_recall: TargetRecall = None,
    metric: Annotated[
        Metric | None, typer.Option(help="What near means; what EMB says by default.")
    ] = None,
    hidden_sizes: Annotated[
        str, typer.Option(help="Hidden layers, as in 1024,512; empty for linear.")
    ] = "1024",
    dropout: Annotated[float, typer.Option(help="Share of hidden units dropped.")] = 0.0,
    batch_norm: Annotated[bool, typer.Option(help="Batch-normalise hidden layers.")] = False,
    noise: Annotated[
        float, typer.Option(help="Denoising: most noise in a query, of its norm.")
    ] = 0.0,
    mask: Annotated[float, typer.Option(help="Denoising: most entries a query lacks.")] = 0.0,
    mixup: Annotated[
        float, typer.Option(help="Augmentation: step towards a neighbour; 0 for none.")
    ] = 0.2,
    weight_decay: Annotated[float, typer.Option(help="Of AdamW.")] = 0.0,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the vectors; 40 and 600 steps by default.")
    ] = None,
    time_budget: TimeBudget = None,
    patience: Annotated[
        int | None, typer.Option(help="Stop after so many evaluations without a gain.")
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option(help="Embeddings of sample queries, where they are of another kind."),
    ] = None,
    max_samples: Annotated[int, typer.Option(help="Train on at most so many rows.")] = 100_000,
    column: Annotated[str | None, typer.Option(help="Vector column of a plain file.")] = None,
    seed: Annotated[int, typer.Option(help="Of every random choice.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps.")] = "cpu",
    num_threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Train a compressor: latents and codes, exported to ONNX and measured.

    Example: `embedpress fit embeddings -o model --n-components 64 --code-size 32`

    Example: `embedpress fit embeddings -o model --target-recall 0.9`
    """
    from embedpress.autoencoder.estimator import Compressor
    from embedpress.autoencoder.fit import fit
    from embedpress.autoencoder.judge import figures

    compressor = Compressor(
        n_components or None,
        _code_size(code_size, target_recall),
        target_recall=target_recall,
        metric=metric.value if metric else _metric_of(source),
        hidden_sizes=_whole_numbers(hidden_sizes),
        dropout=dropout,
        batch_norm=batch_norm,
        noise=noise,
        mask=mask,
        mixup=mixup,
        weight_decay=weight_decay,
        epochs=epochs,
        time_budget=time_budget,
        patience=patience,
        max_samples=max_samples,
        seed=seed,
        device=device,
        num_threads=num_threads,
    )
    with stopwatch() as seconds, training_bar() as progress:
        config = fit(source, out, compressor, column=column, queries=queries, progress=progress)
    found = figures(compressor)
    result = {
        "output": str(out),
        "fingerprint": config["fingerprint"],
        "dim": config["dim"],
        "n_components": config["n_components"],
        "code_size": config["code_size"],
        **found,
        "seconds": seconds(),
    }
    lines = [f"compressor in {out}, {seconds():.0f} s", *_figure_lines(result)]
    show(result, as_json=as_json, text="\n".join(lines))


@app.command("export")
def export_command(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Compressor folder.")],
    out: Out,
    with_extractor: Annotated[
        str | None,
        typer.Option(help="Text model (folder, hub id) or ResNet name, to go into the graph."),
    ] = None,
    weights: Annotated[str | None, typer.Option(help="Weights of a ResNet.")] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Quantize the text model to int8.")] = False,
    sample: Annotated[
        Path | None, typer.Option(help="Texts (a line each) that int8 is judged on.")
    ] = None,
    format: Annotated[ExportFormat, typer.Option(help="Of the folder.")] = ExportFormat.onnx,
    num_threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Write what production needs, each ONNX graph checked against the network again.

    Example: `embedpress export model -o deploy`

    Example: `embedpress export model -o deploy --with-extractor ./minilm --int8`

    Example: `embedpress export model -o st --with-extractor hub/id --format sentence-transformers`
    """
    from embedpress.onnx.export import export

    files = export(
        model,
        out,
        with_extractor=with_extractor,
        weights=weights,
        int8=int8,
        sample=sample,
        format=format.value,
        num_threads=num_threads,
    )
    result: dict[str, Any] = {"output": str(out), "files": files}
    show(result, as_json=as_json, text=f"{out}: " + ", ".join(files))


@app.command("compress")
def compress_command(
    source: Annotated[Path, typer.Argument(metavar="EMB", help="Embeddings: folder or file.")],
    model: Model,
    out: Out,
    what: Annotated[What, typer.Option(help="Bytes or floats.")] = What.codes,
    column: Annotated[str | None, typer.Option(help="Vector column of a plain file.")] = None,
    rows_per_shard: RowsPerShard = 65_536,
    memory_budget: MemoryBudget = "2G",
    shard: ShardOption = None,
    engine: EngineOption = Where.local,
    ray_address: RayAddress = None,
    num_threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Embeddings to codes or latents, by ONNX Runtime. The same command resumes a stopped job.

    Example: `embedpress compress embeddings -m model -o codes`

    Example: `embedpress compress embeddings -m model -o codes --shard 0/4` beside 1/4, 2/4, 3/4
    """
    from embedpress.engine.options import RunOptions
    from embedpress.onnx.compress import compress

    options = RunOptions(engine.value, ray_address, shard)

    with stopwatch() as seconds, progress_bar("vectors") as progress:
        manifest = compress(
            source,
            model,
            out,
            what=what.value,
            column=column,
            rows_per_shard=rows_per_shard,
            memory_budget=memory_budget,
            num_threads=num_threads,
            options=options,
            progress=progress,
        )
    _show_vectors(manifest, out, seconds(), as_json)


@app.command("index")
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


@app.command("delete")
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


@app.command("compact")
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


@app.command("push")
def push_command(
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="Index folder.")],
    model: Model,
    to: Annotated[
        str,
        typer.Option(help="milvus://HOST:PORT[/DB], FILE.db, parquet:FOLDER or csv:FILE."),
    ],
    form: Annotated[
        Form, typer.Option(help="For the query encoder (latents), or for plain queries.")
    ] = Form.latents,
    collection: Annotated[str, typer.Option(help="Of Milvus.")] = "embedpress",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Remove such a collection first.")
    ] = False,
    batch_rows: Annotated[int, typer.Option(help="Rows sent to Milvus at once.")] = 1000,
    num_threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Hand an index over: vectors, ids and metadata. The same command resumes a stopped push.

    Example: `embedpress push index -m model --to items.db`, then
    `embedpress search items.db -m model --text "a warm film"`

    Example: `embedpress push index -m model --to csv:items.csv`, for pgvector's COPY
    """
    from dataclasses import asdict

    from embedpress.push.verb import push

    with stopwatch() as seconds, progress_bar("vectors") as progress:
        pushed = push(
            index,
            model,
            to,
            form=form.value,
            collection=collection,
            overwrite=overwrite,
            batch_rows=batch_rows,
            num_threads=num_threads,
            progress=progress,
        )
    text = (
        f"{pushed.rows:,} vectors of {pushed.dim} floats in {to}, {seconds():.1f} s "
        f"({pushed.written:,} written); compare them by {pushed.metric}"
    )
    result = {"to": to, "seconds": seconds(), **asdict(pushed)}
    show(result, as_json=as_json, text="\n".join(filter(None, [text, pushed.sql])))


@app.command("search")
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
    oversample: Annotated[int, typer.Option(help="Hits reordered by the rerank tier.")] = 10,
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
        if radius is not None or nprobe is not None:
            raise UsageError("Milvus is asked for the k nearest: leave --radius and --nprobe out")
        from embedpress.push.milvus import MilvusTarget

        with MilvusTarget(index, collection) as target:
            compressor = load(model, num_threads=num_threads)
            questions = questions_for(compressor, target.pushed_from().extractor)
            with stopwatch() as seconds:
                records = target.search(compressor, questions, k, filter=filter or "")
        result = {"k": k, "seconds": seconds(), "hits": records}
        show(result, as_json=as_json, text="\n\n".join(_hit_lines(found) for found in records))
        return
    opened = open_index(index, model, num_threads=num_threads)
    questions = questions_for(opened.compressor, opened.manifest.extractor)
    with stopwatch() as seconds:
        if radius is None:
            found = opened.search(questions, k, filter=filter, nprobe=nprobe, oversample=oversample)
            records = opened.records(found)
        else:
            near = opened.range_search(questions, radius, filter=filter, nprobe=nprobe)
            records = opened.records(near)
    asked = {"k": k} if radius is None else {"radius": radius}
    result = {**asked, "seconds": seconds(), "hits": records}
    show(result, as_json=as_json, text="\n\n".join(_hit_lines(found) for found in records))


@app.command("cluster")
def cluster_command(
    source: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of latents or vectors.")],
    out: Annotated[Path, typer.Option("-o", "--output", help="Folder for the labels.")],
    n_clusters: Annotated[
        int | None, typer.Option(help="Clusters; chosen by silhouette by default.")
    ] = None,
    method: Annotated[ClusterMethod, typer.Option(help="k-means, or by density.")] = (
        ClusterMethod.kmeans
    ),
    min_cluster_size: Annotated[int, typer.Option(help="Of HDBSCAN.")] = 10,
    labels: Annotated[
        str | None, typer.Option(help="Column of true labels to compare with.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the photos, for contact sheets.")
    ] = None,
    memory_budget: MemoryBudget = "2G",
    seed: Annotated[int, typer.Option(help="Of k-means.")] = 0,
    num_threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Clusters of latents: sizes, names by the members' words, typical members.

    Example: `embedpress cluster latents -o clusters --n-clusters 20`
    """
    from embedpress.analyze.cluster_folder import cluster_folder

    with stopwatch() as seconds:
        result = cluster_folder(
            source,
            out,
            n_clusters=n_clusters,
            method=method.value,
            min_cluster_size=min_cluster_size,
            labels=labels,
            images=images,
            memory_budget=memory_budget,
            seed=seed,
            num_threads=num_threads,
        )
    show({**result, "seconds": seconds()}, as_json=as_json, text="\n".join(_cluster_lines(result)))


@app.command("duplicates")
def duplicates_command(
    source: Annotated[
        Path, typer.Argument(metavar="EMB_OR_OUT", help="Embeddings, latents or codes.")
    ],
    out: Annotated[Path, typer.Option("-o", "--output", help="Folder for the groups.")],
    threshold: Annotated[
        float | None,
        typer.Option(help="Least cosine, 0.95 by default; largest distance for the metric l2."),
    ] = None,
    model: Annotated[
        Path | None, typer.Option("-m", "--model", help="Compressor folder, for codes.")
    ] = None,
    memory_budget: MemoryBudget = "2G",
    num_threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Groups of near-duplicates: every pair is compared.

    Example: `embedpress duplicates embeddings -o duplicates --threshold 0.95`
    """
    from embedpress.analyze.duplicates_folder import duplicates_folder

    with stopwatch() as seconds:
        result = duplicates_folder(
            source,
            out,
            threshold=threshold,
            model=model,
            memory_budget=memory_budget,
            num_threads=num_threads,
        )
    lines = [
        f"{result['n_groups']:,} groups of {result['n_members']:,} of {result['count']:,} rows at "
        f"{result['threshold']:g}; {result['n_redundant']:,} rows could go; in {out}"
    ]
    for group in result["groups"][:10]:
        lines.append(f"  group {group['group']}, {group['size']:,} rows")
        lines += [f"    {_shortened(member)}" for member in group["members"]]
    show({**result, "seconds": seconds()}, as_json=as_json, text="\n".join(lines))


@app.command("outliers")
def outliers_command(
    source: Annotated[Path, typer.Argument(metavar="EMB", help="Embeddings: folder or file.")],
    model: Model,
    out: Annotated[Path, typer.Option("-o", "--output", help="Folder for the scores.")],
    contamination: Annotated[
        str, typer.Option(help="Expected share of outliers, 0 to 0.5, or auto.")
    ] = "0.01",
    false_positive_rate: Annotated[
        float | None,
        typer.Option(help="Threshold by held-out rows instead: so many known ones may be flagged."),
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="Embeddings of the known kind; EMB itself by default.")
    ] = None,
    score: Annotated[Score, typer.Option(help="What is strange.")] = Score.combined,
    seed: Annotated[int, typer.Option(help="Of samples.")] = 0,
    num_threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Rows unlike the others, by reconstruction error and by distance to the nearest known ones.

    Example: `embedpress outliers embeddings -m model -o scores --contamination 0.01`

    Example: `embedpress outliers new -m model -o scores --reference old --false-positive-rate 0.01`
    """
    from embedpress.analyze.outliers_folder import outliers_folder

    with stopwatch() as seconds:
        result = outliers_folder(
            source,
            model,
            out,
            reference=reference,
            contamination=contamination,
            false_positive_rate=false_positive_rate,
            score=score.value,
            seed=seed,
            num_threads=num_threads,
        )
    limit = "" if result["threshold"] is None else f", with scores above {result['threshold']:.4f}"
    lines = [f"{result['n_outliers']:,} of {result['count']:,} rows are outliers{limit}: {out}"]
    lines += [f"  {top['score']:.4f}  {_shortened(top)}" for top in result["top"]]
    show({**result, "seconds": seconds()}, as_json=as_json, text="\n".join(lines))


@app.command("drift")
def drift_command(
    source: Annotated[Path, typer.Argument(metavar="EMB", help="Embeddings: folder or file.")],
    model: Model,
    reference: Annotated[
        Path | None,
        typer.Option(help="Embeddings to compare with; what MODEL was fitted on by default."),
    ] = None,
    canary: Annotated[
        Path | None,
        typer.Option(help="Inputs of the fit (canary_ids in --json), embedded again now."),
    ] = None,
    false_alarm_rate: Annotated[
        float, typer.Option(help="Chance of an alarm without drift, all checks together.")
    ] = 0.01,
    least_shift: Annotated[
        float, typer.Option(help="Shift of the errors' distribution that matters, 0 to 1.")
    ] = 0.1,
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 0,
    num_threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Are these vectors still of the kind MODEL was fitted on? Exit code 1 where they are not.

    Example: `embedpress drift embeddings-of-today -m model`
    """
    from embedpress.analyze.drift_folder import drift_folder

    with stopwatch() as seconds:
        result = drift_folder(
            source,
            model,
            reference=reference,
            canary=canary,
            false_alarm_rate=false_alarm_rate,
            least_shift=least_shift,
            seed=seed,
            num_threads=num_threads,
        )
    lines = [f"{'drifted' if result['drifted'] else 'no drift'}, by {result['rows']:,} rows"]
    for check in result["checks"]:
        verdict = "DRIFT" if check["drifted"] else "ok"
        lines.append(
            f"  {verdict:<5}  {check['name']}: {check['value']:.4f}, threshold "
            f"{check['threshold']:.4f}; {check['detail']}"
        )
    lines += [f"  -      {name} not checked: {why}" for name, why in result["not_checked"].items()]
    show({**result, "seconds": seconds()}, as_json=as_json, text="\n".join(lines))
    if result["drifted"]:
        raise typer.Exit(1)


@app.command("evaluate")
def evaluate_command(
    source: Annotated[Path, typer.Argument(metavar="EMB", help="Embeddings: folder or file.")],
    model: Model,
    out: Annotated[Path, typer.Option("-o", "--output", help="Folder for the report.")],
    queries: Annotated[
        Path | None, typer.Option(help="Query embeddings; held-out rows of EMB by default.")
    ] = None,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Peers at the same bytes as well (slower).")
    ] = False,
    index: Annotated[
        Path | None, typer.Option(help="Index of the same vectors: its loss apart.")
    ] = None,
    beir: Annotated[
        Path | None,
        typer.Option(help="Folder in BEIR's layout: nDCG and MRR by its judgements."),
    ] = None,
    split: Annotated[str, typer.Option(help="Which judgements: qrels/SPLIT.tsv.")] = "test",
    images: Annotated[
        Path | None, typer.Option(help="Folder of the photos, to show the worst queries.")
    ] = None,
    planned_vectors: Annotated[
        int, typer.Option(help="Tell bytes and money for so many vectors.")
    ] = 100_000_000,
    price: Annotated[float, typer.Option(help="US dollars for a gigabyte and a month.")] = 4.5,
    k: Annotated[int, typer.Option(help="Neighbours that count.")] = 10,
    seed: Annotated[int, typer.Option(help="Of samples and intervals.")] = 0,
    num_threads: Threads = None,
    as_json: Json = False,
) -> None:
    """How much of the search results is kept: an HTML report and its figures as JSON.

    Example: `embedpress evaluate embeddings -m model -o report --baselines`

    Example: `embedpress evaluate answers -m model -o report --queries questions --beir medquad`
    """
    from embedpress.evaluate.verb import evaluate_folder

    with stopwatch() as seconds:
        result = evaluate_folder(
            source,
            model,
            out,
            queries=queries,
            baselines=baselines,
            index=index,
            beir=beir,
            split=split,
            images=images,
            planned_vectors=planned_vectors,
            price=price,
            k=k,
            seed=seed,
            num_threads=num_threads,
        )
    lines = [f"report in {result['report']}"]
    for row in result["recall"]:
        lines.append(f"  {row['name']:<24} {row['bytes']:>6} bytes  recall@{k} {row['recall']:.3f}")
    if result["index"] is not None:
        point = next(point for point in result["index"]["points"] if point["default"])
        lines.append(
            f"  index, {point['name']}: recall@{k} {point['recall']:.3f}, "
            f"{point['difference']:+.3f} against a scan of all {result['index']['form']}"
        )
    for row in result["relevance"]:
        lines.append(f"  {row['name']:<24} nDCG@{k} {row['ndcg']:.3f}  MRR {row['mrr']:.3f}")
    show({**result, "seconds": seconds()}, as_json=as_json, text="\n".join(lines))


@app.command("map")
def map_command(
    source: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of latents or vectors.")],
    out: Annotated[Path, typer.Option("-o", "--output", help="Folder for the map.")],
    method: Annotated[MapMethod, typer.Option(help="auto: UMAP, else a graph.")] = (MapMethod.auto),
    labels: Annotated[
        str | None, typer.Option(help="Column that colours the points; clusters by default.")
    ] = None,
    n_clusters: Annotated[int, typer.Option(help="How many clusters colour it.", min=1)] = 12,
    seed: Annotated[int, typer.Option(help="Of the layout.")] = 0,
    num_threads: Threads = None,
    as_json: Json = False,
) -> None:
    """A picture of the latent space: PNG, and Parquet with x, y and neighbours.

    Example: `embedpress map latents -o map`
    """
    from embedpress.analyze.map_folder import map_folder

    with stopwatch() as seconds:
        result = map_folder(
            source,
            out,
            method=method.value,
            labels=labels,
            n_clusters=n_clusters,
            seed=seed,
            num_threads=num_threads,
        )
    text = f"{result['count']:,} points: {result['png']} and {result['parquet']}"
    show({**result, "seconds": seconds()}, as_json=as_json, text=text)


@app.command("serve")
def serve_command(
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="Index folder.")],
    model: Model,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 8080,
    workers: Annotated[int, typer.Option(help="Processes that share the port.")] = 1,
    map_folder: Annotated[
        Path | None, typer.Option("--map", help="Folder of embedpress map, for the page.")
    ] = None,
    image_root: Annotated[
        Path | None, typer.Option(help="Folder of the photos; the page shows files in it.")
    ] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option(help="File of the key that requests carry; else EMBEDPRESS_API_KEY."),
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Name that Host headers may have; repeatable.")
    ] = None,
    max_queue: Annotated[int, typer.Option(help="Most inputs that wait; then 429.")] = 2048,
    max_batch: Annotated[int, typer.Option(help="Most texts or pictures run at once.")] = 32,
    max_wait: Annotated[
        float, typer.Option(help="Milliseconds that a batch waits for others.")
    ] = 2.0,
    max_inputs: Annotated[int, typer.Option(help="Most inputs of a request; then 413.")] = 1024,
    max_body: Annotated[str, typer.Option(help="Most bytes of a request; then 413.")] = "16M",
    stop_timeout: Annotated[
        int, typer.Option(help="Seconds that requests have to end in when stopped.")
    ] = 30,
    reload_interval: Annotated[
        float, typer.Option(help="Seconds between looks for a new index; 0 for never.")
    ] = 2.0,
    memory_map: Annotated[
        bool, typer.Option("--memory-map", help="Leave the vectors on disk.")
    ] = False,
    num_threads: Threads = None,
    as_json: Json = False,
) -> None:
    """An HTTP service of embeddings, compression and search, with a page to search by.

    Example: `embedpress serve index -m model --map map`
    """
    from embedpress.serve.run import serve
    from embedpress.serve.settings import Settings
    from embedpress.vectors import parse_size

    settings = Settings(
        index=str(index),
        model=str(model),
        host=host,
        port=port,
        workers=workers,
        map=None if map_folder is None else str(map_folder),
        image_root=None if image_root is None else str(image_root),
        max_queue=max_queue,
        max_batch=max_batch,
        max_wait=max_wait,
        max_inputs=max_inputs,
        max_body=parse_size(max_body),
        allowed_hosts=tuple(allow_host or ()),
        stop_timeout=stop_timeout,
        reload_interval=reload_interval,
        memory_map=memory_map,
        num_threads=num_threads,
    )
    serve(
        settings,
        api_key_file=api_key_file,
        tell=lambda where: show(
            where, as_json=as_json, text=f"serving {index} at {where['url']} (Ctrl-C stops it)"
        ),
    )


@app.command("run")
def run_command(
    source: Annotated[
        Path, typer.Argument(metavar="INPUT", help="A file of texts or a folder of photos.")
    ],
    out: Annotated[Path, typer.Option("-o", "--output", help="Work folder.")],
    model: Annotated[
        str | None, typer.Option(help="Text model (folder, hub id) or resnet name.")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="Weights of a ResNet.")] = None,
    column: Annotated[str, typer.Option(help="Column that holds the texts.")] = "text",
    id_column: Annotated[str | None, typer.Option(help="Column that holds the ids.")] = None,
    n_components: Annotated[int, typer.Option(help="Floats of a latent.")] = 64,
    code_size: CodeSize = None,
    target_recall: TargetRecall = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the vectors; 40 and 600 steps by default.")
    ] = None,
    time_budget: TimeBudget = None,
    seed: Annotated[int, typer.Option(help="Of every random choice.")] = 0,
    num_threads: Threads = None,
    as_json: Json = False,
) -> None:
    """All of it: extract, fit, compress, index, cluster, map, evaluate. Resumes where stopped.

    Example: `embedpress run reviews.txt -o work --model ./minilm`
    """
    from embedpress.pipeline import run_pipeline

    result = run_pipeline(
        source,
        out,
        model=model,
        weights=weights,
        column=column,
        id_column=id_column,
        n_components=n_components,
        code_size=_code_size(code_size, target_recall),
        target_recall=target_recall,
        epochs=epochs,
        time_budget=time_budget,
        seed=seed,
        num_threads=num_threads,
    )
    lines = [f"{name}: {path}" for name, path in result["outputs"].items()]
    lines += ["compressor", *_figure_lines(result["compressor"])]
    show(result, as_json=as_json, text="\n".join(lines))


@app.command("info")
def info_command(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Any folder of embedpress.")],
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Read everything and check checksums.")
    ] = True,
    as_json: Json = False,
) -> None:
    """What a folder is, and whether its checksums hold.

    Example: `embedpress info codes`
    """
    from embedpress.info import describe

    result = describe(path, verify=verify)
    lines = [f"{name}: {value}" for name, value in result.items() if value is not None]
    show(result, as_json=as_json, text="\n".join(lines))
    if result["bad_files"]:
        raise typer.Exit(1)


def _show_vectors(manifest: Any, out: Path, seconds: float, as_json: bool) -> None:
    from embedpress.vectors.manifest import MANIFEST

    unit = "bytes" if manifest.kind == "codes" else "floats"
    finished = (out / MANIFEST).is_file()
    text = f"{manifest.count:,} {manifest.kind} of {manifest.dim} {unit} in {out}, {seconds:.1f} s"
    if not finished:
        text += "; the other shares are still to come"
    noted = [f"{value:,} {name}" for name, value in manifest.counters.items() if value]
    if noted:
        text += f" ({', '.join(noted)})"
    result = {
        "output": str(out),
        "kind": manifest.kind,
        "dim": manifest.dim,
        "count": manifest.count,
        "metric": manifest.metric,
        "shards": len(manifest.shards),
        "counters": dict(manifest.counters),
        "finished": finished,
        "seconds": seconds,
    }
    show(result, as_json=as_json, text=text)


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


def _metric_of(source: Path) -> str:
    from embedpress.vectors import read_manifest

    return read_manifest(source).metric if source.is_dir() else "cosine"


def _whole_numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise UsageError(f"--hidden-sizes {text!r} must be whole numbers, as in 1024,512") from None


def _code_size(text: str | None, target_recall: float | None) -> int | str | None:
    """What --code-size says; without it a target is to be reached."""
    if text is None:
        return 32 if target_recall is None else "auto"
    if text == "auto":
        return text
    try:
        return int(text) or None
    except ValueError:
        raise UsageError(f"--code-size {text!r} must be a whole number or auto") from None


def _figure_lines(found: dict[str, Any]) -> list[str]:
    """What training achieved: a line a tower, and the sizes among which one was found."""
    lines = []
    stored = {"latents": 4 * (found["n_components"] or 0), "codes": found["code_size"]}
    for name, held in found["held_out"].items():
        method = held["start_method"]
        lines.append(
            f"  {name}: recall@10 {held['trained']:.3f} on held-out queries; "
            f"{method} at the same {stored[name]} bytes: {held['start']:.3f}"
        )
        if held["fell_back"]:
            lines.append(f"    training did not beat {method}: the start was kept")
    if found["sizes"]:
        lines.append("  bytes  start  trained")
    for size in found["sizes"]:
        trained = "-" if size["trained"] is None else f"{size['trained']:.3f}"
        chosen = "  <- chosen" if size["code_size"] == found["code_size"] else ""
        lines.append(f"  {size['code_size']:>5}  {size['start']:.3f}  {trained:>7}{chosen}")
    if found["target_reached"] is False:
        lines.append(f"  no size reaches recall@10 {found['target_recall']:g}: this is the largest")
    return lines


def _cluster_lines(result: dict[str, Any]) -> list[str]:
    """The clusters, largest first: size, words, most frequent label, typical members."""
    lines = [f"{result['n_clusters']} clusters of {result['count']:,} rows: {result['labels']}"]
    if result["noise"]:
        lines.append(f"  {result['noise']:,} rows belong to none")
    if "agreement" in result:
        figures = (f"{name} {value:.3f}" for name, value in result["agreement"].items())
        lines.append("  agreement with true labels: " + ", ".join(figures))
    for entry in result["clusters"]:
        line = f"  cluster {entry['cluster']}, {entry['size']:,} members"
        if entry.get("words"):
            line += f": {', '.join(entry['words'])}"
        if "most_frequent" in entry:
            line += f" ({entry['share']:.0%} {entry['most_frequent']})"
        lines.append(line)
        lines += [f"    {_shortened(typical)}" for typical in entry["typical"]]
    return lines + [f"  contact sheet {path}" for path in result.get("sheets", [])]


def _hit_lines(records: list[dict[str, Any]]) -> str:
    return "\n".join(
        f"{place:>3}. {record['score']:.4f}  {_shortened(record)}"
        for place, record in enumerate(records, 1)
    )


def _shortened(record: dict[str, Any], width: int = 100) -> str:
    """A row as a person knows it: its text, else its path, else its id."""
    words = str(record.get("text") or record.get("path") or record["id"])
    words = " ".join(words.split())
    label = f" [{record['label']}]" if record.get("label") is not None else ""
    return (words if len(words) <= width else words[: width - 1] + "…") + label


def main() -> None:
    """Entry point: exit code 0, 1 (failed) or 2 (bad usage)."""
    # The commands say it in their results.
    warnings.simplefilter("ignore", TargetWarning)
    raise SystemExit(run(lambda: app(standalone_mode=True)))
