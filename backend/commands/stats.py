"""``glip-label stats``: what people changed in a project's proposals, and what these saved them."""

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from backend.analysis.acceptance import Acceptance, AcceptanceTable
    from backend.analysis.intervals import Rate
    from backend.analysis.work_saved import WorkSaved

RATES = ("acceptance", "edit", "relabel", "deletion", "miss", "precision", "recall")


@click.command(short_help="What people changed, and what the proposals saved them.")
@click.option("--project", required=True, help="Name or id of the Label Studio project.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(project: str, as_json: bool) -> None:
    """Count what people accepted, moved, relabelled, deleted and added, per label and model version.

    Acceptance, edit (moved), relabel and deletion rates and precision (accepted or moved) are of the regions shown;
    miss rate (added) and recall are of the regions that people left. What a
    prompt found counts as added. Rates are percentages with 95 % intervals, the wider the more alike verdicts of one
    annotation are.

    Seconds saved are a share of the time for drawing the same boxes, at 7 s and at 25.5 s each and, once people drew
    20, at their own pace, out of the annotations that tell their time; with 95 % intervals over annotations.

    \b
    Example:
      glip-label stats --project "street scenes"
    """
    from backend.bootstrap import open_database
    from backend.services.stats import project_stats
    from backend.settings import Settings

    stats = project_stats(open_database(Settings.from_env(), reads_only=True), project)
    if as_json:
        click.echo(json.dumps(stats.to_json(), ensure_ascii=False, indent=1))
        return
    click.echo("\n".join(lines(stats.acceptance)))
    if stats.acceptance.annotations:
        click.echo("\n" + "\n".join(work_lines(stats.work)))


def lines(table: "AcceptanceTable") -> Iterator[str]:
    """Lay the table out for people: counts, then rates in percent, then what was moved and how long it took."""
    if not table.annotations:
        yield "no verdicts yet: none of the annotations that are known answers a prediction or adds a region"
        return
    rows = [*table.rows, *table.totals]
    names = [(_label(row), row.model_version or "(none)") for row in rows]
    counts = ("shown", "accepted", "moved", "relabelled", "deleted", "added")
    yield from _aligned(counts, names, [[str(getattr(row, name)) for name in counts] for row in rows])
    yield ""
    yield from _aligned(
        [f"{name} %" for name in RATES], names, [[_rate(row.rates[name]) for name in RATES] for row in rows]
    )
    yield ""
    header = ("IoU moved", "left px", "top px", "right px", "bottom px", "s", "s p90")
    yield from _aligned(header, names, [_medians(row) for row in rows])
    yield ""
    yield f"Annotations: {table.annotations}. Overlap and edges: medians of the moved. s: seconds per verdict, median."


def work_lines(work: "WorkSaved") -> Iterator[str]:
    """Lay out what was saved, and the times that it rests on."""
    from backend.analysis.work_saved import LEAST_ACTS

    told = f"{work.annotations} annotations on proposals tell their time ({work.seconds:.0f} s, {work.untimed} do not)"
    if not work.savings:
        yield f"Seconds saved: {told}; an estimate needs ten and at least one box."
        return
    yield f"Seconds saved, of drawing every box; {told}:"
    width = max(map(len, work.savings))
    for name, saving in work.savings.items():
        share, low, high = (f"{100 * value:.0f}" for value in (saving.share, saving.low, saving.high))
        yield f"  {name:<{width}}  {share} % ({low} to {high})"
    if "added" not in work.times:
        yield f"  {'own pace':<{width}}  not told: people drew fewer than {LEAST_ACTS} boxes in annotations with a time"
    if work.times:
        times = ", ".join(f"{act} {seconds:.1f}" for act, seconds in work.times.items())
        yield f"Seconds per act, fitted where there are {LEAST_ACTS}: {times}."


def _medians(row: "Acceptance") -> list[str]:
    edges = row.median_offsets
    offsets = [f"{edge:+.1f}" for edge in (edges.left, edges.top, edges.right, edges.bottom)] if edges else ["-"] * 4
    seconds = ["-" if each is None else f"{each:.1f}" for each in (row.median_seconds, row.p90_seconds)]
    return ["-" if row.median_iou is None else f"{row.median_iou:.3f}", *offsets, *seconds]


def _label(row: "Acceptance") -> str:
    if row.label is None:
        return "(all)"
    return (row.label if row.label.isprintable() else repr(row.label)) or "(no label)"


def _rate(rate: "Rate") -> str:
    if rate.share is None:
        return "-"
    low, high = rate.interval
    return f"{100 * rate.share:.0f} ({100 * low:.0f}-{100 * high:.0f})"


def _aligned(header: Sequence[str], names: Sequence[tuple[str, str]], cells: Sequence[Sequence[str]]) -> Iterator[str]:
    table = [("label", "model version", *header), *((*name, *row) for name, row in zip(names, cells, strict=True))]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cell_widths = zip(row, widths, strict=True)
        aligned = [
            f"{cell:<{width}}" if index < 2 else f"{cell:>{width}}" for index, (cell, width) in enumerate(cell_widths)
        ]
        yield "  ".join(aligned)
