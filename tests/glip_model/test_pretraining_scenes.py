"""Generated scenes and what is asked about them."""

import numpy as np
import pytest

from glip_model.pretraining.asking import ask_names, ask_sentence, describe, random_phrase
from glip_model.pretraining.measure import asked_phrases, scene_set
from glip_model.pretraining.scenes import SIDE_OF_SIZE, Scene, Thing, draw_scene, random_scene
from glip_model.pretraining.shapes import draw_alpha
from glip_model.pretraining.words import HELD_OUT, SCENE_WORDS, SHAPES, Looks, Phrase, possible_looks


def scene(number: int, side: int = 160) -> Scene:
    return random_scene(side, np.random.default_rng([7, number]))


def test_equal_generators_draw_equal_scenes() -> None:
    one, other = scene(1), scene(1)
    assert np.array_equal(one.rgb, other.rgb)
    assert one.things == other.things
    assert not np.array_equal(one.rgb, scene(2).rgb)


def test_boxes_lie_inside_the_picture() -> None:
    for number in range(30):
        for thing in scene(number).things:
            x1, y1, x2, y2 = thing.box_xyxy
            assert 0 <= x1 < x2 <= 160
            assert 0 <= y1 < y2 <= 160


def test_a_box_is_tight_around_what_is_drawn() -> None:
    wanted = [Looks("circle", "red", "plain", "large")]
    drawn = draw_scene(200, wanted, np.random.default_rng(3))
    (thing,) = drawn.things
    x1, y1, x2, y2 = (int(v) for v in thing.box_xyxy)
    # The middle of each edge of a circle's box is the circle, in the colour of its centre; beyond is ground.
    centre = drawn.rgb[(y1 + y2) // 2, (x1 + x2) // 2].astype(int)
    inside = drawn.rgb[(y1 + y2) // 2, x1 + 2].astype(int)
    outside = drawn.rgb[(y1 + y2) // 2, x1 - 2].astype(int)
    assert np.abs(inside - centre).max() < 40
    assert np.abs(outside - centre).max() > 40


def test_sizes_in_a_part_of_a_scene_are_shares_of_the_whole() -> None:
    wanted = [Looks("circle", "red", "plain", "large")]
    (thing,) = draw_scene(160, wanted, np.random.default_rng(3), frame=400).things
    low, high = SIDE_OF_SIZE["large"]
    assert 400 * low - 2 <= thing.box_xyxy[2] - thing.box_xyxy[0] <= 400 * high + 2


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_as_large_as_asked(shape: str) -> None:
    for angle in (0.0, 0.4, 2.0):
        alpha = draw_alpha(shape, 60, angle, hollow=False)
        assert 45 <= max(alpha.shape) <= 62
        assert 0.1 < alpha.mean() <= 1.0


def test_training_never_draws_a_held_out_combination() -> None:
    drawn = [thing.looks for number in range(150) for thing in scene(number, 64).things]
    assert len(drawn) > 300
    assert not any((looks.colour, looks.shape) in HELD_OUT for looks in drawn)
    assert not any((looks.texture, looks.shape) in HELD_OUT for looks in drawn)


def test_training_never_names_a_held_out_combination() -> None:
    rng = np.random.default_rng(0)
    texts = [random_phrase(rng).text() for _ in range(300)]
    for number in range(150):
        texts += ask_names(scene(number, 64), rng).asked
        texts.append(ask_sentence(scene(number, 64), rng).caption)
    for attribute, shape in HELD_OUT:
        assert not any(f" {attribute} {shape}" in f" {text}" for text in texts)


def test_a_box_answers_to_every_asked_name_that_fits_it_and_to_no_other() -> None:
    things = (
        Thing(Looks("star", "blue", "striped", "small"), (1, 1, 20, 20)),
        Thing(Looks("ring", "blue", "plain", None), (30, 30, 60, 60)),
    )
    drawn = Scene(np.zeros((64, 64, 3), dtype=np.uint8), things)
    for seed in range(40):
        sample = ask_names(drawn, np.random.default_rng(seed))
        named = {tuple(box): names for box, names in zip(sample.boxes_xyxy.tolist(), sample.names, strict=True)}
        for thing in things:
            shown = {thing.looks.shape, "shape", thing.looks.colour, thing.looks.texture, thing.looks.size}
            fitting = {name for name in sample.asked if set(name.split()) <= shown}
            assert set(named.get(tuple(map(float, thing.box_xyxy)), ())) == fitting


def test_what_is_held_out_is_left_open() -> None:
    looks = Looks("square", "red", "plain", None)  # "red hexagon" and "red star" are held out, so is "yellow square"
    assert looks.decided == SCENE_WORDS - {"hexagon", "star", "yellow"}
    assert looks.leaves_open(Phrase("hexagon"))
    assert not looks.leaves_open(Phrase("hexagon", "blue"))  # it is not blue
    assert not looks.leaves_open(Phrase("square"))


def test_undecided_names_are_marked_for_each_thing() -> None:
    things = (
        Thing(Looks("square", "red", "plain", None), (1, 1, 20, 20)),
        Thing(Looks("hexagon", "blue", "plain", None), (30, 30, 60, 60)),
    )
    drawn = Scene(np.zeros((64, 64, 3), dtype=np.uint8), things)
    seen: set[str] = set()
    for seed in range(40):
        sample = ask_names(drawn, np.random.default_rng(seed))
        boxes, undecided = sample.boxes_xyxy.tolist(), sample.undecided
        named = {tuple(box): names for box, names in zip(boxes, undecided, strict=True)}
        assert ("hexagon" in named.get((1, 1, 20, 20), ())) == ("hexagon" in sample.asked)
        assert ("red shape" in named.get((30, 30, 60, 60), ())) == ("red shape" in sample.asked)
        seen.update(*undecided)
    assert "hexagon" in seen
    assert "square" not in seen


def test_absent_names_are_asked_too() -> None:
    samples = [ask_names(scene(number), np.random.default_rng(number)) for number in range(30)]
    absent = [len(set(s.asked) - {name for names in s.names for name in names}) for s in samples]
    assert sum(absent) > 30


def test_spans_of_a_sentence_are_the_phrases_of_their_boxes() -> None:
    for number in range(60):
        drawn = scene(number)
        sample = ask_sentence(drawn, np.random.default_rng(number))
        looks_of = {thing.box_xyxy: thing.looks for thing in drawn.things}
        assert len(sample.boxes_xyxy) == len(sample.spans)
        assert sample.spans or not drawn.things
        for box, spans, undecided in zip(sample.boxes_xyxy.tolist(), sample.spans, sample.undecided, strict=True):
            assert len(spans) == 1 or undecided
            if not spans:
                continue
            ((start, end),) = spans
            words = sample.caption[start:end].split()
            looks = looks_of[tuple(box)]
            assert words[-1].rstrip("es") in looks.shape or words[-1] in ("shape", "shapes")
            assert set(words[:-1]) <= {looks.colour, looks.texture, looks.size}


def test_counts_in_a_sentence_are_true() -> None:
    looks = Looks("square", "green", "plain", None)
    things = tuple(Thing(looks, (20.0 * i, 0.0, 20.0 * i + 10, 10.0)) for i in range(3))
    drawn = Scene(np.zeros((64, 64, 3), dtype=np.uint8), things)
    captions = [ask_sentence(drawn, np.random.default_rng(seed)).caption for seed in range(20)]
    assert all("three " in caption for caption in captions)


def test_relations_in_a_sentence_are_true() -> None:
    left = Thing(Looks("square", "green", "plain", None), (0, 0, 10, 10))
    right = Thing(Looks("star", "pink", "plain", None), (50, 5, 60, 15))
    drawn = Scene(np.zeros((64, 64, 3), dtype=np.uint8), (left, right))
    captions = [ask_sentence(drawn, np.random.default_rng(seed)).caption for seed in range(60)]
    related = [caption for caption in captions if "to the" in caption]
    assert related
    for caption in related:
        before, after = caption.split(" to the ")
        green_first = "green" in before or "square" in before
        pink_first = "pink" in before or "star" in before
        if green_first or pink_first:
            assert after.startswith("left" if green_first else "right")


def test_a_phrase_reads_from_size_to_noun_and_counts() -> None:
    phrase = Phrase("cross", "red", "striped", "small")
    assert phrase.text() == "small striped red cross"
    assert phrase.text(2) == "small striped red crosses"
    assert Phrase(colour="red").text(3) == "red shapes"


def test_descriptions_fit_what_they_describe() -> None:
    rng = np.random.default_rng(0)
    for shape, colour, texture in possible_looks():
        looks = Looks(shape, colour, texture, "small")
        assert describe(looks, rng).fits(looks)


def test_unseen_scenes_ask_for_held_out_combinations_only_and_seen_ones_for_none() -> None:
    assert all(phrase.held_out for phrase in asked_phrases("unseen"))
    assert not any(phrase.held_out for phrase in asked_phrases("seen"))
    assert len(asked_phrases("unseen")) == len(asked_phrases("seen")) == len(HELD_OUT)


def test_a_scene_set_is_a_coco_data_set_with_boxes_of_most_names() -> None:
    data = scene_set("unseen", count=40, side=96)
    coco = data.coco()
    assert [category["name"] for category in coco["categories"]] == list(data.names)
    assert len(coco["images"]) == 40
    assert len({annotation["category_id"] for annotation in coco["annotations"]}) > 15
    assert all(annotation["bbox"][2] > 0 for annotation in coco["annotations"])
