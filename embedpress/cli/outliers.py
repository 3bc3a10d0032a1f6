"""`embedpress outliers` and `drift`: rows, or whole sets, unlike what is known."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from embedpress.cli.lines import shortened
from embedpress.cli.options import Json, Model, Threads
from embedpress.console import show, stopwatch


class Score(str, Enum):
    """What counts as strange."""

    combined = "combined"
    reconstruction = "reconstruction"
    density = "density"
    distance = "distance"


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
    lines += [f"  {top['score']:.4f}  {shortened(top)}" for top in result["top"]]
    show({**result, "seconds": seconds()}, as_json=as_json, text="\n".join(lines))


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
