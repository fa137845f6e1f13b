"""What fine-tuning shows the model: which pictures, which views of them, which targets."""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from glip_model.anchors import grid_anchors
from glip_model.caption import Caption, plan_captions
from glip_model.finetuning.batches import Asking, Plan, padded_target, target_of
from glip_model.finetuning.examples import Pictures, TrainingExample, View, fingerprint
from glip_model.finetuning.loader import Loader
from glip_model.finetuning.settings import FinetuneSettings
from glip_model.finetuning.student import Asked, FullStudent
from glip_model.image import PixelSettings
from glip_model.loss_glip import detection_losses
from glip_model.postprocess import Detections
from glip_model.processing_glip import GlipImageProcessor, GlipProcessor, scale_boxes
from glip_model.sentence import parse_sentence
from glip_model.training.augment import cut, mirrored, quarter_turned
from glip_model.training.samples import Handling, Sample
from tests.glip_model.text import small_tokenizer
from tests.glip_model.tiny import tiny_model, tiny_processor

TOKENIZER = small_tokenizer("cat red dog bird two dogs behind")
Change = Callable[[Sample], Sample]
BOX = [[20.0, 10.0, 60.0, 30.0]]


def boxes(*rows: Sequence[float]) -> NDArray[np.float32]:
    return np.array(rows, dtype=np.float32).reshape(-1, 4)


def caption(*names: str) -> Caption:
    return plan_captions(TOKENIZER, [[name] for name in names])[0]


def marked() -> TrainingExample:
    """A white block with its box, a deleted box beside it, and a part that nobody looked at."""
    rgb = np.full((60, 100, 3), 90, dtype=np.uint8)
    rgb[10:30, 20:60] = 255
    return TrainingExample(lambda: rgb, boxes(*BOX), (1,), boxes([70, 35, 95, 55]), (0,), boxes([0, 40, 50, 60]))


def plan(empty: tuple[bool, ...], views: int | None = None) -> Plan:
    return Plan(empty, batch_size=3, sides=(160, 192), views=views, seed=1)


def test_views_grow_where_nothing_is_kept_of_them() -> None:
    growing = replace(plan((False,) * 4), early_sides=(64, 96), early_steps=3)
    assert [growing.step(step)[0].side for step in range(6)] == [64, 96, 64, 192, 160, 192]
    assert {view.side for view in growing.step(3)} == {192}
    assert [growing.step(step, late=True)[0].side for step in range(3)] == [160, 192, 160]


def test_most_views_show_the_whole_of_an_object_that_is_larger_than_they_are() -> None:
    rgb = np.full((400, 500, 3), 90, dtype=np.uint8)
    large = TrainingExample(lambda: rgb, boxes([50, 40, 450, 360]), (0,))
    pictures = Pictures([large], PixelSettings(400, 500), Handling(), 0)
    views = [pictures.view(View(0, number, 160)) for number in range(60)]
    sides = [tuple(view.boxes_xyxy[0, 2:] - view.boxes_xyxy[0, :2]) for view in views if len(view.boxes_xyxy)]
    whole = [width < 150 and abs(width / height - 400 / 320) < 0.01 for width, height in sides]
    assert 0.55 < sum(whole) / len(views) < 0.95  # the others are cut anywhere


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (mirrored, [50, 40, 100, 60]),
        (lambda sample: quarter_turned(sample, 1), [40, 50, 60, 100]),
        (lambda sample: cut(sample, (20.0, 30.0), 2.0, (60, 60)), [0, 20, 60, 60]),
    ],
)
def test_parts_that_nobody_looked_at_move_with_the_picture(change: Change, expected: list[int]) -> None:
    rgb = np.zeros((60, 100, 3), dtype=np.uint8)
    sample = Sample(rgb, boxes(), (), (), unreviewed_xyxy=boxes([0, 40, 50, 60]))
    assert change(sample).unreviewed_xyxy.tolist() == [expected]


def test_what_shows_of_a_box_that_is_mostly_cut_off_counts_as_not_looked_at() -> None:
    sample = Sample(np.zeros((60, 100, 3), np.uint8), boxes(*BOX), (("cat",),), ("cat",), rejected=((),))
    view = cut(sample, (55.0, 0.0), 1.0, (60, 45))
    assert (len(view.boxes_xyxy), view.names, view.rejected) == (0, (), ())
    assert view.unreviewed_xyxy.tolist() == [[0, 10, 5, 30]]


def test_a_view_is_the_same_whenever_it_is_drawn_and_holds_what_people_said() -> None:
    pixels = PixelSettings(shortest_edge=160, longest_edge=320)
    keys = [View(0, number, 160) for number in range(8)]
    first, again = (Pictures([marked()], pixels, Handling(quarter_turns=True), seed=3) for _ in range(2))
    drawn = [first.view(key) for key in keys]
    for key, view in zip(reversed(keys), reversed(drawn), strict=True):
        assert np.array_equal(again.view(key).rgb, view.rgb)
        for box, names in zip(view.boxes_xyxy, view.names, strict=True):
            x1, y1, x2, y2 = box.round().astype(int)
            inside = view.rgb[y1 + 3 : y2 - 3, x1 + 3 : x2 - 3].min(axis=-1)
            assert (inside.mean() > 180) == (names == ("1",))
    assert len({view.rgb.tobytes() for view in drawn}) == len(drawn)
    assert {("1",), ()} <= {names for view in drawn for names in view.names}
    assert {("0",), ()} <= {names for view in drawn for names in view.rejected or ()}


def test_views_show_things_about_as_large_as_inference_does() -> None:
    pixels = PixelSettings(shortest_edge=120, longest_edge=320)  # twice as large
    pictures = Pictures([marked()], pixels, Handling(), seed=0)
    views = [pictures.view(View(0, number, 320)) for number in range(30)]
    named = [zip(view.boxes_xyxy, view.names, strict=True) for view in views]
    widths = [box[2] - box[0] for pairs in named for box, names in pairs if names]
    assert 0.7 * 80 - 1 <= min(widths) < 0.8 * 80
    assert 1.2 * 80 < max(widths) <= 1.3 * 80 + 1


def test_views_know_how_large_they_show_a_pixel_of_the_picture() -> None:
    rgb = np.full((240, 400, 3), 90, dtype=np.uint8)
    large = TrainingExample(lambda: rgb, boxes([80, 40, 240, 120]), (0,))
    pictures = Pictures([large], PixelSettings(shortest_edge=60, longest_edge=320), Handling(), seed=0)
    views = [pictures.view(View(0, number, 160)) for number in range(30)]
    whole = [
        view for view in views if len(view.boxes_xyxy) and (view.boxes_xyxy > 0).all() and (view.boxes_xyxy < 160).all()
    ]
    assert len(whole) > 10
    for view in whole:
        assert (view.boxes_xyxy[0, 2] - view.boxes_xyxy[0, 0]) / 160 == pytest.approx(view.pixel, rel=1e-3)


def test_every_picture_with_boxes_is_seen_once_a_round_and_empty_ones_take_turns() -> None:
    empty = (False,) * 8 + (True,) * 10
    rounds = plan(empty)
    assert rounds.round_size == 8 + 2
    seen = [view.example for step in range(40) for view in rounds.step(step)]  # twelve rounds of ten
    for number in range(12):
        of_round = seen[10 * number : 10 * number + 10]
        assert set(range(8)) <= set(of_round)
        assert len(set(of_round)) == 10
    assert set(seen) == set(range(18))
    assert plan((True, False)).round_size == 2


def test_kept_views_come_again_and_others_never() -> None:
    kept = {view for step in range(60) for view in plan((False,) * 4, views=2).step(step)}
    fresh = [view for step in range(60) for view in plan((False,) * 4).step(step)]
    assert len(kept) == 4 * 2 * 2
    assert len(set(fresh)) == len(fresh)
    assert {view.side for view in plan((False,) * 4).step(1)} == {192}


def test_names_that_need_several_captions_are_asked_in_turn() -> None:
    asking = Asking(TOKENIZER, [["cat"], ["red dog"], ["bird"]], [marked()], max_tokens=5)
    assert [asking.caption(View(0, 0, 160), step).text for step in range(3)] == ["cat", "red dog", "bird"]


def test_steps_with_one_caption_take_the_sides_in_turn() -> None:
    sides = (64, 96, 128)
    alone = replace(plan((False,) * 4), sides=sides, early_sides=sides[::-1], early_steps=4)
    assert [alone.step(step)[0].side for step in range(9)] == [128, 96, 64, 128, 96, 128, 64, 96, 128]


@pytest.mark.parametrize("count", range(1, 7))
def test_each_caption_is_asked_with_each_side_equally_often(count: int) -> None:
    names = ["cat", "red", "dog", "bird", "two", "dogs"][:count]
    asking = Asking(TOKENIZER, [[name] for name in names], [marked()], max_tokens=3)
    assert len(asking.captions) == count
    processor = GlipProcessor(GlipImageProcessor(size={"shortest_edge": 800, "longest_edge": 1333}), TOKENIZER)
    settings = FinetuneSettings("full", steps=1000, batch_size=1)
    with ThreadPoolExecutor(1) as pool:
        loader = Loader(FullStudent(tiny_model(), processor, ()), asking, [marked()], settings, pool)
        batches = [loader.batch(step) for step in range(6 * count)]
    times = Counter((asked.caption, asked.key.side) for (asked,) in batches)
    assert len(times) == 3 * count
    assert set(times.values()) == {2}


def test_where_time_ends_a_run_views_grow_by_the_clock() -> None:
    """A slow machine may not come to the step from which on they are large."""
    asking = Asking(TOKENIZER, [["cat"], ["red dog"]], [marked()], max_tokens=32)
    processor = GlipProcessor(GlipImageProcessor(size={"shortest_edge": 800, "longest_edge": 1333}), TOKENIZER)
    settings = FinetuneSettings("full", steps=1000, batch_size=1, minutes=1.0)
    with ThreadPoolExecutor(1) as pool:
        loader = Loader(FullStudent(tiny_model(), processor, ()), asking, [marked()], settings, pool)
        spent = [0.1, 0.3, 0.59, 0.61, 0.7, 0.9]
        sides = [loader.batch(step, share)[0].key.side for step, share in enumerate(spent)]
    assert max(sides[:4]) < 490 < min(sides[4:]), "the fourth was drawn before"


def test_a_picture_with_a_sentence_is_asked_with_it() -> None:
    pictures = [marked(), replace(marked(), labels=(0,), sentence=parse_sentence("[two dogs] behind"))]
    asking = Asking(TOKENIZER, [["cat"], ["bird"]], pictures, max_tokens=32)
    assert [asking.caption(View(number, 0, 160), 0).text for number in (0, 1)] == ["cat. bird", "two dogs behind"]
    assert len(asking.all_captions) == 2


def test_targets_point_at_the_tokens_of_names_and_of_deleted_names() -> None:
    sample = Sample(
        np.zeros((60, 100, 3), np.uint8), boxes(*BOX, [1, 1, 9, 9]), (("1",), ()), (), ((), ("0",)), boxes([0, 0, 5, 5])
    )
    target = target_of(sample, caption("cat", "red dog"), weight=0.5)  # [CLS] cat . red dog [SEP]
    assert target["boxes"].tolist() == BOX
    assert target["positive_map"].tolist() == [[0, 0, 0, 1, 1, 0]]
    assert target["rejected"].tolist() == [[1, 1, 9, 9]]
    assert target["rejected_map"].tolist() == [[0, 1, 0, 0, 0, 0]]
    assert target["unreviewed"].tolist() == [[0, 0, 5, 5]]
    assert target["weight"] == 0.5
    padded = padded_target(target, 8, torch.device("cpu"))
    assert padded["positive_map"].shape == padded["rejected_map"].shape == (1, 8)
    assert padded["boxes"].tolist() == BOX


def test_all_tokens_of_labels_that_nobody_looked_for_are_marked() -> None:
    several = plan_captions(TOKENIZER, [["cat"], ["red dog", "bird"]])[0]
    sample = Sample(np.zeros((60, 100, 3), np.uint8), boxes(*BOX), (("0",),), ())
    target = target_of(sample, several, 1.0, unasked=(1,))
    assert target["unasked"].tolist() == [0, 0, 0, 1, 1, 0, 1, 0]
    assert padded_target(target, 9, torch.device("cpu"))["unasked"].tolist() == [0, 0, 0, 1, 1, 0, 1, 0, 0]
    assert "unasked" not in target_of(sample, caption("cat"), 1.0, unasked=(1,))


def test_boxes_that_the_caption_does_not_ask_for_are_no_targets() -> None:
    sample = Sample(np.zeros((60, 100, 3), np.uint8), boxes(*BOX, [1, 1, 9, 9]), (("1",), ()), (), ((), ("1",)))
    target = target_of(sample, caption("cat"), weight=1.0)
    assert target["boxes"].shape == (0, 4)
    assert "rejected" not in target


def test_every_prompt_of_a_label_names_its_boxes() -> None:
    several = plan_captions(TOKENIZER, [["cat"], ["red dog", "bird"]])[0]
    sample = Sample(np.zeros((60, 100, 3), np.uint8), boxes(*BOX), (("1",),), ())
    assert target_of(sample, several, 1.0)["positive_map"].tolist() == [[0, 0, 0, 1, 1, 0, 1, 0]]


def test_all_labels_of_one_box_name_it() -> None:
    rows = boxes(*BOX, [1, 1, 9, 9], *BOX, [2, 1, 9, 9], [1, 1, 9, 9])
    names = (("0",), (), ("1",), ("1",), ())
    sample = Sample(np.zeros((60, 100, 3), np.uint8), rows, names, (), ((), ("1",), (), (), ("0",)))
    target = target_of(sample, caption("cat", "red dog"), 1.0)  # [CLS] cat . red dog [SEP]
    assert target["boxes"].tolist() == [*BOX, [2, 1, 9, 9]]
    assert target["positive_map"].tolist() == [[0, 1, 0, 1, 1, 0], [0, 0, 0, 1, 1, 0]]
    assert target["rejected"].tolist() == [[1, 1, 9, 9]]
    assert target["rejected_map"].tolist() == [[0, 1, 0, 1, 1, 0]]
    assert target_of(sample, caption("cat"), 1.0)["positive_map"].tolist() == [[0, 1, 0]]


@pytest.mark.parametrize("deleted", [False, True])
def test_each_label_of_one_box_is_taught(deleted: bool) -> None:
    names, nobody = (("0",), ("1",)), ((), ())
    given = (nobody, names) if deleted else (names, nobody)
    sample = Sample(np.zeros((60, 100, 3), np.uint8), boxes(*BOX, *BOX), given[0], (), given[1])
    target = target_of(sample, caption("cat", "red dog"), 1.0)
    anchors = grid_anchors([(8, 13), (4, 7), (2, 4), (1, 2), (1, 1)])
    logits = torch.zeros(1, sum(map(len, anchors)), 6, requires_grad=True)
    others = torch.zeros(*logits.shape[:2], 4), torch.zeros(logits.shape[:2])
    losses = detection_losses(logits, *others, anchors=anchors, targets=[target], attention_mask=torch.ones(1, 6))
    losses["token"].backward()
    assert logits.grad is not None
    cat, dog = logits.grad[0, :, 1], logits.grad[0, :, 3]
    assert torch.equal(cat, dog)
    taught = cat > cat.median() if deleted else cat < 0
    assert taught.any()


@pytest.mark.parametrize(
    ("last_pixel", "change", "learnt"),
    [
        (True, lambda sample: sample, [5, 7, 14, 16]),
        (False, lambda sample: sample, [5, 7, 15, 17]),
        (True, lambda sample: cut(sample, (0.0, 0.0), 0.5, (30, 50)), [2.5, 3.5, 7, 8]),
        (
            True,
            lambda sample: cut(cut(sample, (0.0, 0.0), 0.5, (30, 50)), (0.0, 0.0), 4.0, (120, 200)),
            [10, 14, 28, 32],
        ),
        (True, lambda sample: mirrored(cut(sample, (0.0, 0.0), 2.0, (120, 200))), [170, 14, 188, 32]),
        (False, lambda sample: mirrored(cut(sample, (0.0, 0.0), 2.0, (120, 200))), [170, 14, 190, 34]),
    ],
)
def test_what_is_learnt_comes_out_as_the_box_that_people_drew(
    last_pixel: bool, change: Change, learnt: list[float]
) -> None:
    drawn = Sample(np.zeros((60, 100, 3), np.uint8), boxes([5, 7, 15, 17]), (("0",),), ())
    view, student = change(drawn), FullStudent(tiny_model(last_pixel), tiny_processor(), ())
    (target,) = student.targets([Asked(View(0, 0, 160), caption("cat"), 1.0, None)], [view])
    assert target["boxes"].tolist() == [learnt]  # with the last pixel: what the official code makes of [5, 7, 10, 10]
    found = Detections(target["boxes"], torch.ones(1), torch.zeros(1))
    height, width = view.rgb.shape[:2]
    (box,) = scale_boxes(found, (height, width), (60, 100), student.model.config.border).boxes_xyxy.tolist()
    assert [box[2] - box[0], box[3] - box[1]] == [10, 10]
    assert box[:2] in ([5, 7], [85, 7])


def test_the_fingerprint_changes_with_whatever_people_said() -> None:
    rgb = np.zeros((9, 9, 3), np.uint8)
    told = [
        TrainingExample(lambda: rgb, boxes(*BOX), (1,)),
        TrainingExample(lambda: rgb, boxes(*BOX), (0,)),
        TrainingExample(lambda: rgb, boxes(), (), boxes(*BOX), (1,)),
        TrainingExample(lambda: rgb, boxes(), (), unreviewed_xyxy=boxes(*BOX)),
        TrainingExample(lambda: rgb, boxes(*BOX), (1,), weight=0.5),
        TrainingExample(lambda: rgb, boxes(*BOX), (0,), sentence=parse_sentence("[two dogs] behind")),
        TrainingExample(lambda: rgb, boxes(*BOX), (0,), unasked=(1,)),
    ]
    assert len({fingerprint([example]) for example in told}) == len(told)
