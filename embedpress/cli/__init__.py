"""The command line: one command a verb, each parses, calls one function, shows the result."""

from __future__ import annotations

import warnings
from typing import Annotated

import typer

from embedpress import __version__, console
from embedpress.cli.cluster import cluster_command, duplicates_command
from embedpress.cli.compress import compress_command
from embedpress.cli.evaluate import evaluate_command
from embedpress.cli.export import export_command
from embedpress.cli.extract import extract_image_command, extract_text_command
from embedpress.cli.fit import fit_command
from embedpress.cli.index import compact_command, delete_command, index_command
from embedpress.cli.info import info_command
from embedpress.cli.map import map_command
from embedpress.cli.outliers import drift_command, outliers_command
from embedpress.cli.push import push_command
from embedpress.cli.run import run_command
from embedpress.cli.search import search_command
from embedpress.cli.serve import serve_command
from embedpress.errors import TargetWarning

app = typer.Typer(
    help="Compress BERT and ResNet embeddings 10 to 50 times and keep the search results.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
extract_app = typer.Typer(help="Embeddings of texts (BERT) or images (ResNet).")
extract_app.command("text")(extract_text_command)
extract_app.command("image")(extract_image_command)
app.add_typer(extract_app, name="extract", no_args_is_help=True)
# In the order of the data's way: so --help lists them.
app.command("fit")(fit_command)
app.command("export")(export_command)
app.command("compress")(compress_command)
app.command("index")(index_command)
app.command("delete")(delete_command)
app.command("compact")(compact_command)
app.command("push")(push_command)
app.command("search")(search_command)
app.command("cluster")(cluster_command)
app.command("duplicates")(duplicates_command)
app.command("outliers")(outliers_command)
app.command("drift")(drift_command)
app.command("evaluate")(evaluate_command)
app.command("map")(map_command)
app.command("serve")(serve_command)
app.command("run")(run_command)
app.command("info")(info_command)


@app.callback(invoke_without_command=True)
def about(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Compress BERT and ResNet embeddings 10 to 50 times and keep the search results."""
    if version:
        console.output.print(f"embedpress {__version__}")
        raise typer.Exit


def main() -> None:
    """Entry point: exit code 0, 1 (failed) or 2 (bad usage)."""
    # The commands say it in their results.
    warnings.simplefilter("ignore", TargetWarning)
    raise SystemExit(console.run(lambda: app(standalone_mode=True)))
