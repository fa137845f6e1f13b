"""What holds of the verdicts on any annotation."""

from itertools import permutations

from hypothesis import given, settings
from hypothesis import strategies as st

from backend.domain.annotations import AnnotatedRegion, Annotation, PercentBox
from backend.domain.geometry import Box
from backend.domain.matching import verdicts_of
from backend.domain.records import Prediction, Region
from backend.domain.verdicts import VerdictKind
from integrations.label_studio.regions import box_to_percent
from tests.regions import annotated, emitted, final, predicted, shorthand

quick = settings(deadline=None)  # other work on the machine must not fail a test
numbers = st.one_of(st.integers(0, 20).map(float), st.floats(-10, 110))
labels = st.sampled_from(["cat", "dog"])
KEPT = {VerdictKind.ACCEPTED, VerdictKind.MOVED, VerdictKind.RELABELLED}


@st.composite
def cases(draw: st.DrawFn) -> tuple[Annotation, list[Prediction]]:
    predictions = []
    for number in range(draw(st.integers(0, 3))):
        proposals = [
            emitted(Box(min(x), min(y), max(x), max(y)), draw(labels))
            for x, y in draw(st.lists(st.tuples(*[st.tuples(numbers, numbers)] * 2), max_size=4))
        ]
        predictions.append(predicted(*proposals, id=f"p{number}", version=f"glip-{draw(st.integers(1, 2))}"))
    known = [region.id for prediction in predictions for region in prediction.regions]
    regions = [
        AnnotatedRegion(
            draw(st.sampled_from([*known, "hand-1", "hand-2"])),
            draw(st.sampled_from(["image", "second"])),
            tuple(draw(st.lists(labels, max_size=2, unique=True))),
            PercentBox(
                draw(numbers), draw(numbers), draw(numbers), draw(numbers), draw(st.sampled_from([0.0, 0.0, 30.0]))
            ),
            *draw(st.sampled_from([(200, 100), (None, None), (300, 50)])),
            prediction=draw(st.sampled_from([None, "p0", "p1", "else"])),
        )
        for _ in range(draw(st.integers(0, 5)))
    ]
    return annotated(*regions), predictions


@quick
@given(cases())
def test_the_order_of_predictions_changes_nothing(case: tuple[Annotation, list[Prediction]]) -> None:
    annotation, predictions = case
    answers = {repr(verdicts_of(annotation, order)) for order in permutations(predictions)}
    assert len(answers) == 1


@quick
@given(cases())
def test_every_final_region_has_one_verdict_and_so_has_every_region_of_an_answered_prediction(
    case: tuple[Annotation, list[Prediction]],
) -> None:
    annotation, predictions = case
    verdicts = verdicts_of(annotation, predictions)
    here = [each for each in verdicts if each.kind != VerdictKind.DELETED]
    assert [each.final_region for each in here] == [region.id for region in annotation.regions]
    assert all((each.emitted_region is None) == (each.kind == VerdictKind.ADDED) for each in verdicts)
    named = [each.emitted_region for each in verdicts if each.emitted_region]
    assert len(set(named)) == len(named)
    answered = {name.partition("-")[0] for name in named}
    owned = {region.id for each in predictions if each.id in answered for region in each.regions}
    assert set(named) == owned


@quick
@given(cases())
def test_a_region_that_kept_its_id_is_never_given_away_to_one_that_overlaps_more(
    case: tuple[Annotation, list[Prediction]],
) -> None:
    annotation, predictions = case
    for verdict in verdicts_of(annotation, predictions):
        if verdict.kind in KEPT and verdict.emitted_region != verdict.final_region:
            assert verdict.emitted_region not in [region.id for region in annotation.regions]


@quick
@given(cases())
def test_positions_count_from_zero(case: tuple[Annotation, list[Prediction]]) -> None:
    verdicts = verdicts_of(*case)
    assert [each.position for each in verdicts] == list(range(len(verdicts)))


@quick
@given(*[st.integers(1, 20_000)] * 2, st.tuples(*[st.floats(0, 1)] * 4))
def test_percent_and_back_is_no_move(width: int, height: int, shares: tuple[float, float, float, float]) -> None:
    left, top, wide, high = shares
    x1, y1 = left * width, top * height
    box = Box(x1, y1, x1 + wide * (width - x1), y1 + high * (height - y1))
    prediction = Prediction(7, "glip-1", width, height, (Region("p1-0", emitted(box)),), "p1")
    value = PercentBox(**box_to_percent(box, width, height))
    (verdict,) = verdicts_of(annotated(AnnotatedRegion("p1-0", "image", ("cat",), value, width, height)), [prediction])
    assert verdict.kind == VerdictKind.ACCEPTED


@st.composite
def sessions(draw: st.DrawFn) -> tuple[Annotation, Prediction, list[tuple[str, str | None, str | None]]]:
    """A prediction, what the editor makes of it when a person works on it, and what that person did."""
    cells = draw(st.lists(st.integers(0, 39), unique=True, max_size=8))  # of 20 x 16 pixels, eight in a row
    spots = [Box(cell % 8 * 20, cell // 8 * 16, cell % 8 * 20 + 18, cell // 8 * 16 + 14) for cell in cells]
    prediction = predicted(*(emitted(box, draw(labels)) for box in spots))
    regions: list[AnnotatedRegion] = []
    kept: list[tuple[str, str | None, str | None]] = []
    deleted: list[tuple[str, str | None, str | None]] = []
    for region in prediction.regions:
        box, label = region.proposal.box, region.proposal.label
        action = draw(st.sampled_from(VerdictKind))
        if action == VerdictKind.ADDED:  # next to a proposal that is left alone
            regions.append(final("hand", Box(box.x1, 96, box.x2, 100), label, origin="manual"))
            kept.append(("added", None, "hand"))
            action = VerdictKind.ACCEPTED
        if action == VerdictKind.DELETED:
            deleted.append(("deleted", region.id, None))
            continue
        if action == VerdictKind.MOVED:
            by = draw(st.floats(0.02, 20))
            box = Box(box.x1 + by, box.y1, box.x2 + by, box.y2)
        if action == VerdictKind.RELABELLED:
            label = "horse"
        regions.append(final(region.id, box, label, origin=draw(st.sampled_from([None, "prediction", "manual"]))))
        kept.append((action.value, region.id, region.id))
    return annotated(*regions), prediction, kept + deleted


@quick
@given(sessions())
def test_the_verdicts_tell_what_the_person_did(
    session: tuple[Annotation, Prediction, list[tuple[str, str | None, str | None]]],
) -> None:
    annotation, prediction, done = session
    assert shorthand(verdicts_of(annotation, [prediction])) == done
