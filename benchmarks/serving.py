"""Speed of one graph from texts to codes, beside sentence-transformers and fastembed.

All of them run the same MiniLM on the same real texts with the same threads, in turns in one run,
so that a busy machine slows all alike; ratios are the median over the turns. Theirs give plain
embeddings, ours codes of 32 bytes. Texts are WordNet glosses, short and long film reviews
(60, 30 and 10 of a hundred), cut at the model's 256 tokens.

Memory and the time to a first result are measured in processes of their own. fastembed runs a
plain graph of the same weights, as ``torch.onnx.export`` writes it, the way its library batches.
ResNet-50, with ``--photos``, has ImageNet's weights and a compressor trained on 1,000 photos of the
folder; int8 is judged on others.

Writes ``benchmarks/results/serving.json`` and prints the README's table.

Run: python benchmarks/serving.py [--texts 300] [--rounds 5] [--photos FOLDER] [--only-photos]
"""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx
import onnxruntime
import pyarrow.parquet as pq
import typer
from onnx import TensorProto, helper, numpy_helper
from split import METRIC, ROOT, run_script
from wordnet import DATA, embeddings_folder, load_split

from embedpress.extract import torchvision_trap

torchvision_trap.prepare()

import torch  # noqa: E402

import embedpress  # noqa: E402
from embedpress.autoencoder.pretrained import save  # noqa: E402
from embedpress.errors import ExportError  # noqa: E402
from embedpress.extract.image import ImageExtractor  # noqa: E402
from embedpress.extract.images import list_images, load_image  # noqa: E402
from embedpress.onnx.export import export  # noqa: E402
from embedpress.onnx.runtime import ImageEncoder, TextEncoder, load  # noqa: E402
from embedpress.threads import available_threads  # noqa: E402
from embedpress.vectors.files import write_atomic  # noqa: E402

RESULTS = Path(__file__).parent / "results"
OURS, INT8, LIBRARY, FASTEMBED = "float32", "int8", "sentence-transformers", "fastembed"
PRODUCTS = "bare products"
N_TRAINED, N_PHOTOS, TRAINING_SECONDS = 1_000, 64, 30

FIRST = """
import sys, time
started = time.perf_counter()
from embedpress.onnx.runtime import TextEncoder
TextEncoder(sys.argv[1]).encode(["one text"])
assert "torch" not in sys.modules
print(time.perf_counter() - started)
"""
IMPORT = """
import time
started = time.perf_counter()
from embedpress.extract import torchvision_trap
torchvision_trap.prepare()
import sentence_transformers
print(time.perf_counter() - started)
"""
PEAK = """
def peak_bytes():
    # Of this program alone: what getrusage tells starts at its parent's.
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
"""
PEAK_OURS = f"""{PEAK}
import json, sys
from embedpress.onnx.runtime import TextEncoder
texts = json.load(open(sys.argv[2]))
TextEncoder(sys.argv[1]).encode(texts)
print(peak_bytes())
"""
PEAK_LIBRARY = f"""{PEAK}
import json, sys
from embedpress.extract import torchvision_trap
torchvision_trap.prepare()
from sentence_transformers import SentenceTransformer
texts = json.load(open(sys.argv[2]))
SentenceTransformer(sys.argv[1], device="cpu").encode(texts)
print(peak_bytes())
"""


def minilm() -> Path:
    """Folder of the real MiniLM weights."""
    from demo import minilm_folder

    return minilm_folder()


def mixed_texts(count: int) -> list[str]:
    """Real texts of mixed length, in mixed order."""
    rng = np.random.default_rng(0)
    found: list[str] = []
    embeddings_folder()  # which fetches the glosses
    for name, share, option in (
        ("glosses", 0.6, None),
        ("reviews", 0.3, ()),
        ("long_reviews", 0.1, ("--long",)),
    ):
        file = DATA / f"{name}.parquet"
        if option is not None:
            run_script("fetch_reviews.py", "-o", file, *option)
        column = pq.read_table(file, columns=["text"]).column("text")
        drawn = rng.choice(len(column), round(share * count), replace=False)
        found += [column[int(row)].as_py() for row in drawn]
    return [found[row] for row in rng.permutation(len(found))]


def deploy(work: Path) -> None:
    """A compressor of 64 floats and 32 bytes, exported with MiniLM: float32, int8."""
    # How well it is trained does not change its speed.
    compressor = embedpress.Compressor(64, 32, metric=METRIC, time_budget=30)
    save(compressor.fit(load_split().base[:20_000]), work / "model")
    for name in (OURS, INT8):
        export(work / "model", work / name, with_extractor=minilm(), int8=name == INT8)


def plain_onnx(folder: Path, st: Any) -> Path:
    """MiniLM as a plain ONNX graph, in a folder as fastembed reads it."""
    folder.mkdir()
    network = st[0].model
    network.config._attn_implementation = "eager"

    class Hidden(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
            output = self.network(
                input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
            )
            return output.last_hidden_state

    ids = torch.ones(2, 8, dtype=torch.int64)
    names = ["input_ids", "attention_mask", "token_type_ids"]
    axes = {name: {0: "batch", 1: "sequence"} for name in [*names, "last_hidden_state"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Hidden(), (ids, ids, 0 * ids), str(folder / "model.onnx"), input_names=names,
            output_names=["last_hidden_state"], dynamic_axes=axes, opset_version=17, dynamo=False,
        )  # fmt: skip
    network.config._attn_implementation = "sdpa"
    st.tokenizer.save_pretrained(folder)
    # fastembed cuts at the smaller of two lengths: both are to be the model's.
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["max_length"] = settings["model_max_length"] = st.max_seq_length
    write_atomic(folder / "tokenizer_config.json", json.dumps(settings))
    network.config.save_pretrained(folder)
    special = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    write_atomic(folder / "special_tokens_map.json", json.dumps(special))
    return folder


def fastembed_model(folder: Path, threads: int) -> Any:
    """The library's own class on our graph; None where it is not installed."""
    try:
        from fastembed import TextEmbedding
        from fastembed.common.model_description import ModelSource, PoolingType
    except ImportError:
        return None
    TextEmbedding.add_custom_model(
        model="minilm", pooling=PoolingType.MEAN, normalization=True,
        sources=ModelSource(hf="none/minilm"), dim=384, model_file="model.onnx",
    )  # fmt: skip
    return TextEmbedding("minilm", specific_model_path=str(folder), threads=threads)


def seconds_of(function: Callable[[], Any]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def in_turns(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call, taken in turns; a first turn does not count."""
    for call in calls.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            seconds[name].append(seconds_of(call))
    return seconds


def ratio(seconds: dict[str, list[float]], name: str, against: str) -> float:
    """How many times as fast, the median over the turns."""
    pairs = zip(seconds[against], seconds[name], strict=True)
    return statistics.median(theirs / ours for theirs, ours in pairs)


def latencies(calls: dict[str, Callable[[str], Any]], texts: list[str]) -> dict[str, Any]:
    """Milliseconds of one text at a time, in turns: median and 99th percentile."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for text in texts:
        for name, call in calls.items():
            found[name].append(seconds_of(lambda call=call, text=text: call(text)) * 1e3)
    return {
        name: {"p50_ms": float(np.percentile(ms, 50)), "p99_ms": float(np.percentile(ms, 99))}
        for name, ms in found.items()
    }


def multiply_session(shape: tuple[int, ...], threads: int) -> onnxruntime.InferenceSession:
    """A graph of one matrix product: rows times weights (k, n), or (groups, k, n)."""
    *groups, k, n = shape
    weight = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [*groups, "b", k])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [*groups, "b", n])],
        [numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that wait for the next call would take the processor from the turn of the other.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def product_shapes(graph: Path, prefix: str = "") -> list[tuple[int, ...]]:
    """Shapes of a graph's weights that rows are multiplied by, of those whose names start so."""
    model = onnx.load(graph).graph
    sizes = {one.name: tuple(one.dims) for one in model.initializer}
    products = (node.input[1] for node in model.node if node.op_type in ("Gemm", "MatMul"))
    return [sizes[name] for name in products if name.startswith(prefix)]


def bare_products(graph: Path, tokens: int, threads: int, batch: int = 1024) -> Callable[[], Any]:
    """A call that multiplies tokens by each matrix of a network, and does nothing else."""
    rng = np.random.default_rng(0)
    shapes = product_shapes(graph, "layer.")
    sessions = {shape: multiply_session(shape, threads) for shape in shapes}
    given = {k: rng.standard_normal((batch, k), dtype=np.float32) for k, _ in sessions}
    counts = [min(batch, tokens - start) for start in range(0, tokens, batch)]

    def multiply() -> None:
        for count in counts:
            for shape in shapes:
                sessions[shape].run(None, {"x": given[shape[0]][:count]})

    return multiply


def encoder_alone(folder: Path, threads: int, batch: int = 1024, runs: int = 40) -> dict[str, Any]:
    """Embeddings to codes: its multiply-adds a second beside those of bare matrix products."""
    compressor = load(folder, num_threads=threads)
    x = load_split().unseen[:batch]
    narrow = folder / "code_encoder.onnx"
    shapes = product_shapes(narrow if narrow.is_file() else folder / "encoder.onnx")
    rng = np.random.default_rng(0)
    products = [
        (
            multiply_session(shape, threads),
            rng.standard_normal((*shape[:-2], batch, shape[-2]), dtype=np.float32),
        )
        for shape in shapes
    ]
    multiply_adds = sum(math.prod(shape) for shape in shapes)
    seconds = in_turns(
        {
            "codes": lambda: compressor.encode(x),
            "products": lambda: [session.run(None, {"x": given}) for session, given in products],
        },
        runs,
    )
    rates = {
        name: batch * multiply_adds / statistics.median(taken) for name, taken in seconds.items()
    }
    shares = [
        theirs / ours for ours, theirs in zip(seconds["codes"], seconds["products"], strict=True)
    ]
    micro = []
    for row in range(1000):
        one = x[row : row + 1]
        micro.append(seconds_of(lambda one=one: compressor.encode(one)) * 1e6)
    return {
        "vectors_per_second": batch / statistics.median(seconds["codes"]),
        "multiply_adds_per_second": rates,
        "share_of_matrix_rate": statistics.median(shares),
        "one_vector_p50_us": float(np.percentile(micro[100:], 50)),
        "one_vector_p99_us": float(np.percentile(micro[100:], 99)),
    }


def child(code: str, *arguments: object) -> float:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        check=True, capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    return float(done.stdout.strip().splitlines()[-1])


def resnet(work: Path, threads: int, rounds: int, photos: Path) -> dict[str, Any]:
    """ResNet-50 with ImageNet weights: photos a second to codes, beside torch giving features."""
    weights = ROOT / "data" / "resnet50.safetensors"
    run_script("convert_resnet.py", "-o", weights)
    extractor = ImageExtractor("resnet50", weights=weights, num_threads=threads)
    files = [photo.path for photo in list_images(photos)]
    drawn = np.random.default_rng(0).permutation(len(files))[:N_TRAINED]
    images = [load_image(files[row]) for row in drawn]
    compressor = embedpress.Compressor(None, 32, metric=METRIC, time_budget=TRAINING_SECONDS)
    save(compressor.fit(extractor.encode(images)), work / "image_model")
    options: dict[str, Any] = {"with_extractor": "resnet50", "weights": weights}
    export(work / "image_model", work / "images", **options)
    encoders = {OURS: ImageEncoder(work / "images", num_threads=threads)}
    judged: dict[str, Any] = {}
    try:
        export(work / "image_model", work / "images_int8", **options, int8=True, sample=photos)
    except ExportError as error:
        # Whether int8 keeps enough lies near what is asked of it.
        judged["refused"] = str(error)
    else:
        encoders[INT8] = ImageEncoder(work / "images_int8", num_threads=threads)
        judged |= json.loads((work / "images_int8" / "extractor.json").read_text())["measured"]
    asked = images[:N_PHOTOS]
    calls: dict[str, Callable[[], Any]] = {
        "torch": lambda: extractor.encode(asked),
        **{name: lambda e=encoder: e.encode(asked) for name, encoder in encoders.items()},
    }
    seconds = in_turns(calls, rounds)
    return {
        "images_per_second": {n: len(asked) / statistics.median(s) for n, s in seconds.items()},
        "ratio": {name: ratio(seconds, name, "torch") for name in encoders},
        "int8": judged,
    }


def measure(work: Path, n_texts: int, rounds: int, photos: Path | None) -> dict[str, Any]:
    """Everything, on one machine in one run."""
    from sentence_transformers import SentenceTransformer

    threads = available_threads()
    torch.set_num_threads(threads)
    texts = mixed_texts(n_texts)
    deploy(work)
    st = SentenceTransformer(str(minilm()), device="cpu")
    fast = fastembed_model(plain_onnx(work / "plain", st), threads)
    encoders = {name: TextEncoder(work / name, num_threads=threads) for name in (OURS, INT8)}
    calls: dict[str, Callable[[list[str]], Any]] = {
        LIBRARY: lambda given: st.encode(given),
        OURS: encoders[OURS].encode,
        INT8: encoders[INT8].encode,
    }
    if fast is not None:
        calls[FASTEMBED] = lambda given: list(fast.embed(given))
        found = np.stack(calls[FASTEMBED](texts[:20]))
        difference = float(np.abs(found - st.encode(texts[:20])).max())
        assert difference < 1e-4, f"fastembed gives other embeddings, by {difference}"
    lengths = encoders[OURS].count_tokens(texts)
    bulk = in_turns(
        {
            **{name: lambda call=call: call(texts) for name, call in calls.items()},
            PRODUCTS: bare_products(work / OURS / "text_encoder.onnx", sum(lengths), threads),
        },
        rounds,
    )
    measured = json.loads((work / INT8 / "extractor.json").read_text())["measured"]
    singles = {name: lambda text, call=call: call([text]) for name, call in calls.items()}
    listed = work / "texts.json"
    listed.write_text(json.dumps(texts))
    result = {
        "threads": threads,
        "texts": len(texts),
        "tokens": {
            "mean": float(np.mean(lengths)),
            **{f"p{p}": float(np.percentile(lengths, p)) for p in (1, 50, 90, 99)},
        },
        "texts_per_second": {n: len(texts) / statistics.median(s) for n, s in bulk.items()},
        "ratio": {name: ratio(bulk, name, LIBRARY) for name in bulk},
        "one_text": latencies(singles, texts[:200]),
        "int8": measured,
        "encoder": encoder_alone(work / "model", threads),
        "first_result_seconds": statistics.median(child(FIRST, work / OURS) for _ in range(3)),
        "import_seconds": statistics.median(child(IMPORT) for _ in range(3)),
        "peak_bytes": {
            OURS: child(PEAK_OURS, work / OURS, listed),
            INT8: child(PEAK_OURS, work / INT8, listed),
            LIBRARY: child(PEAK_LIBRARY, minilm(), listed),
        },
        "graph_bytes": {n: (work / n / "text_encoder.onnx").stat().st_size for n in (OURS, INT8)},
    }
    if photos is not None:
        result["resnet50"] = resnet(work, threads, min(rounds, 3), photos)
    return result


def table(result: dict[str, Any]) -> str:
    """The README's lines."""
    rate, one, peak = result["texts_per_second"], result["one_text"], result["peak_bytes"]
    library = LIBRARY
    encoder = result["encoder"]
    lines = [
        f"| {result['threads']} threads | embedpress, float32 | embedpress, int8 | {library} | "
        f"{FASTEMBED} |",
        "| --- | --- | --- | --- | --- |",
    ]

    def row(title: str, values: dict[str, Any], form: Callable[[Any], str]) -> None:
        cells = [form(values[n]) if n in values else "–" for n in (OURS, INT8, library, FASTEMBED)]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")

    row("texts / s, in bulk", rate, lambda v: f"{v:,.0f}")
    row("times as fast", result["ratio"], lambda v: f"{v:.2f}")
    row("one text, median", one, lambda v: f"{v['p50_ms']:.1f} ms")
    row("one text, 99th percentile", one, lambda v: f"{v['p99_ms']:.1f} ms")
    row("peak memory, in bulk", peak, lambda v: f"{v / 2**20:,.0f} MiB")
    first = {OURS: result["first_result_seconds"], library: result["import_seconds"]}
    row("load to first result (sentence-transformers: import)", first, lambda v: f"{v:.2f} s")
    row("graph", result["graph_bytes"], lambda v: f"{v / 1e6:.0f} MB")
    kept = result["int8"]
    lines += [
        "",
        f"recall@10 of codes from int8 on the export's sample: {kept['recall@10']:.3f}, from "
        f"float32 {kept['recall@10 of float32']:.3f}.",
        f"The float32 matrix products of these texts' layers, and nothing else, would be "
        f"{result['ratio'][PRODUCTS]:.2f} times as fast as {library}.",
        f"Encoder alone: {encoder['vectors_per_second']:,.0f} vectors / s in batches of 1,024, "
        f"{encoder['share_of_matrix_rate']:.0%} of the rate of bare matrix products of its shapes; "
        f"one vector {encoder['one_vector_p50_us']:.0f} µs (median).",
    ]
    if "resnet50" in result:
        lines.append(photo_line(result["resnet50"]))
    return "\n".join(lines)


def photo_line(found: dict[str, Any]) -> str:
    """The README's line on photos."""
    rate, times, kept = found["images_per_second"], found["ratio"], found["int8"]
    if INT8 in rate:
        told = (
            f"in int8 {rate[INT8]:.1f} ({times[INT8]:.2f} times), recall@10 of its codes "
            f"{kept['recall@10']:.3f}, from float32 {kept['recall@10 of float32']:.3f}"
        )
    else:
        told = kept["refused"]
    return (
        f"ResNet-50, photos / s: {rate[OURS]:.1f} in float32, torch {rate['torch']:.1f} "
        f"({times[OURS]:.2f} times); {told}."
    )


def main(
    texts: Annotated[int, typer.Option(help="How many.")] = 300,
    rounds: Annotated[int, typer.Option(help="Turns of each.")] = 5,
    photos: Annotated[
        Path | None, typer.Option(help="A folder of 628 photos or more, for ResNet-50.")
    ] = None,
    only_photos: Annotated[bool, typer.Option("--only-photos", help="Keep the rest.")] = False,
) -> None:
    """Measure and write results/serving.json."""
    warnings.filterwarnings("ignore", "texts longer than")
    if only_photos and photos is None:
        raise typer.BadParameter("give the folder with --photos", param_hint="--only-photos")
    output = RESULTS / "serving.json"
    with tempfile.TemporaryDirectory() as folder:
        if only_photos and photos is not None:
            result = json.loads(output.read_text())
            result["resnet50"] = resnet(Path(folder), available_threads(), min(rounds, 3), photos)
        else:
            result = measure(Path(folder), texts, rounds, photos)
    RESULTS.mkdir(exist_ok=True)
    write_atomic(output, json.dumps(result, indent=1) + "\n")
    print(table(result))


if __name__ == "__main__":
    # Typer's own traceback would print every text and vector.
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(main)
    app()
