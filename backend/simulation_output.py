"""Figures of simulated projects for people: lines of text, and curves."""

from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

from backend.analysis.simulated_project import STRICT_IOU, Strategy
from backend.analysis.simulation_report import Estimate, Quality, SimulationReport, Stage
from backend.errors import StorageError, UsageError

NAMES = {
    Strategy.ZERO_SHOT: "no learning",
    Strategy.RANDOM: "learning, random order",
    Strategy.ACTIVE: "learning, chosen order",
}
_ENDINGS = (".png", ".svg", ".pdf")
_SHOWN_CUTS = (0.3, 0.5)


def table(figures: SimulationReport) -> Iterator[str]:
    """Lay out what was saved, the quality of labels, and how it went."""
    draws = tuple(figures.drawing_seconds)
    minutes = ", ".join(
        f"{seconds / 60:.0f} minutes at {draw:g} s per box" for draw, seconds in figures.drawing_seconds.items()
    )
    yield (
        f"{figures.images} images, {figures.boxes} boxes, {figures.seeds} seeds; drawing all takes {minutes}; "
        "in brackets 95 % intervals"
    )
    yield ""
    yield _row("saved, percent", [f"at {draw:g} s" for draw in draws], "clicks")
    yield _row("draw every box", ["0.0"] * len(draws), "-")
    for strategy in dict.fromkeys(each.strategy for each in figures.savings):
        tried = {each.cut for each in figures.savings}
        for cut in (*(cut for cut in _SHOWN_CUTS if cut in tried), None):
            ways = [figures.saving(strategy, draw, cut) for draw in draws]
            shown = "learned thresholds" if cut is None else f"from {cut:g}"
            yield _row(f"{NAMES[strategy]}, {shown}", [_percent(way.share) for way in ways], f"{ways[0].actions:.0f}")
        if any(each.strict for each in figures.savings):
            ways = [figures.saving(strategy, draw, strict=True) for draw in draws]
            shown = f"{NAMES[strategy]}, adjusted below {STRICT_IOU:g}"
            yield _row(shown, [_percent(way.share) for way in ways], f"{ways[0].actions:.0f}")
        best = [figures.best_cut(strategy, draw) for draw in draws]
        hindsight = [f"{100 * each.share.value:5.1f} from {each.cut:g}" for each in best]
        yield _row(f"{NAMES[strategy]}, best cut in hindsight", hindsight, f"{best[0].actions:.0f}")
        leads = [_percent(figures.leads[strategy, draw]) for draw in draws]
        yield _row(f"{NAMES[strategy]}, learned minus best", leads, "-")
    for draw, gain in figures.gains.items():
        yield ""
        yield (
            f"choosing images saves {gain.value:.0f} s ({gain.low:.0f} to {gain.high:.0f}) of a project more than "
            f"random order, at {draw:g} s per box"
        )
    yield ""
    yield from map(_quality, figures.qualities)
    yield ""
    yield from _stages(figures.stages, draws)


def _row(name: str, shares: Sequence[str], clicks: str) -> str:
    return f"{name:<46}" + "".join(f"{share:>24}" for share in shares) + f"{clicks:>8}"


def _percent(share: Estimate) -> str:
    return f"{100 * share.value:.1f} ({100 * share.low:.1f} to {100 * share.high:.1f})"


def _quality(quality: Quality) -> str:
    ours, drawn = (
        f"F1 {100 * (each.f1 or 0):.1f}, IoU {100 * (each.mean_iou or 0):.1f}"
        for each in (quality.labels, quality.drawn)
    )
    verdict = "as good" if quality.counts else "WORSE: the saving does not count"
    person = f", adjusted below {STRICT_IOU:g}" if quality.strict else ""
    return f"labels, {NAMES[quality.strategy]}{person}: {ours}; drawn by the same person: {drawn}; {verdict}"


def _stages(stages: Sequence[Stage], draws: Sequence[float]) -> Iterator[str]:
    saved = "".join(f"{f'at {draw:g} s':>10}" for draw in draws)
    yield f"{'saved, percent, of images':<38}{saved}{'AP':>8}{'AP50':>8}{'promoted':>10}{'training':>10}"
    for each in stages:
        shares = "".join(f"{100 * each.shares[draw]:>10.1f}" for draw in draws)
        scores = "".join(f"{'-' if score is None else f'{100 * score:.1f}':>8}" for score in (each.ap, each.ap50))
        promoted = "-" if each.promoted is None else f"{100 * each.promoted:.0f} %"
        name = f"{NAMES[each.strategy]}, {each.reviewed - each.images + 1} to {each.reviewed}"
        yield f"{name:<38}{shares}{scores}{promoted:>10}{each.training_seconds:>8.0f} s"


def refuse_undrawable(path: Path) -> None:
    """Find out before long work whether the curves can be drawn into this file.

    Raises:
        UsageError: matplotlib is not installed, the ending is none of a picture, or the folder is not there.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UsageError('--plot needs matplotlib: pip install "glip-label[plot]"') from error
    if path.suffix.lower() not in _ENDINGS:
        raise UsageError(f"--plot {path}: the name must end in {', '.join(_ENDINGS)}")
    if not path.parent.is_dir():
        raise UsageError(f"--plot {path}: there is no folder {path.parent}")
    if path.is_dir():
        raise UsageError(f"--plot {path}: is a folder, not a picture")


def draw(figures: SimulationReport, path: Path) -> None:
    """Draw what each stage saved with learned thresholds, and the precision of the model that it worked with.

    Raises:
        StorageError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    draws = tuple(figures.drawing_seconds)
    picture = Figure(figsize=(4 * (len(draws) + 1), 3.6), layout="constrained")
    panels = picture.subplots(1, len(draws) + 1)
    for panel, seconds in zip(panels, draws, strict=False):
        for strategy, stages in _by_strategy(figures.stages):
            panel.plot(
                [each.reviewed for each in stages],
                [100 * each.shares[seconds] for each in stages],
                marker=".",
                label=NAMES[strategy],
            )
        panel.axhline(0, color="grey", linewidth=0.8)
        panel.set(xlabel="images reviewed", ylabel="% saved of these images", title=f"against {seconds:g} s per box")
    for strategy, stages in _by_strategy(figures.stages):
        known = [each for each in stages if each.ap50 is not None]
        reviewed = [each.reviewed - each.images for each in known]
        panels[-1].plot(reviewed, [100 * (each.ap50 or 0) for each in known], marker=".", label=NAMES[strategy])
        panels[-1].fill_between(
            reviewed,
            [100 * (each.ap50_low or 0) for each in known],
            [100 * (each.ap50_high or 0) for each in known],
            alpha=0.2,
        )
    panels[-1].set(xlabel="images reviewed before", ylabel="AP50 on the test images", ylim=(0, 100), title="precision")
    panels[-1].legend()
    rendered = BytesIO()  # closing a file of its own on a full disk, matplotlib's writer of PDF raises AttributeError
    picture.savefig(rendered, format=path.suffix[1:].lower(), dpi=110)
    try:
        path.write_bytes(rendered.getvalue())
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror or error})") from error


def _by_strategy(stages: Sequence[Stage]) -> Iterator[tuple[Strategy, list[Stage]]]:
    for strategy in dict.fromkeys(each.strategy for each in stages):
        yield strategy, [each for each in stages if each.strategy is strategy]
