"""Real sets, augmentation, tokenizer and batches of pre-training."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import PreTrainedTokenizerBase

from glip_model.image import PixelSettings
from glip_model.pretraining.asking import ask_names
from glip_model.pretraining.batches import Mixture, PretrainingBatches, word_targets
from glip_model.pretraining.coco_sets import DataError, RealSet, read_coco_set, refuse_unusable_sets
from glip_model.pretraining.samples import as_captioned
from glip_model.pretraining.scenes import draw_scene
from glip_model.pretraining.tokenizer import train_tokenizer
from glip_model.pretraining.words import SCENE_WORDS, Looks
from glip_model.training.augment import augmented, cut, mirrored, mosaic, quarter_turned, recoloured
from glip_model.training.machine import pixel_values
from glip_model.training.samples import Handling, Sample


def marked(height: int = 60, width: int = 100) -> Sample:
    """A grey picture with a white block exactly where its box is."""
    rgb = np.full((height, width, 3), 90, dtype=np.uint8)
    rgb[10:30, 20:60] = 255
    return Sample(rgb, np.array([[20, 10, 60, 30]], dtype=np.float32), (("block",),), ("block", "hole"))


def block_of(rgb: NDArray[np.uint8]) -> list[int]:
    ys, xs = np.nonzero(rgb[..., 0] > 200)
    return [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1]


def write_set(folder: Path, file_name: str = "a.png") -> None:
    (folder / "images").mkdir(parents=True)
    Image.fromarray(marked().rgb).save(folder / "images" / "a.png")
    coco = {
        "images": [{"id": 5, "file_name": file_name, "width": 100, "height": 60}],
        "annotations": [{"id": 1, "image_id": 5, "category_id": 2, "bbox": [20, 10, 40, 20]}],
        "categories": [{"id": 1, "name": "hole"}, {"id": 2, "name": "block"}],
    }
    (folder / "train.json").write_text(json.dumps(coco))


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_turned_box_still_lies_on_its_thing(turns: int) -> None:
    turned = quarter_turned(marked(), turns)
    assert turned.boxes_xyxy[0].tolist() == block_of(turned.rgb)


def test_a_mirrored_box_still_lies_on_its_thing() -> None:
    assert mirrored(marked()).boxes_xyxy[0].tolist() == block_of(mirrored(marked()).rgb) == [40, 10, 80, 30]


@pytest.mark.parametrize(("origin", "scale"), [((0.0, 0.0), 1.0), ((-10.0, 5.0), 1.0), ((10.0, 0.0), 2.0)])
def test_a_cut_box_still_lies_on_its_thing(origin: tuple[float, float], scale: float) -> None:
    view = cut(marked(), origin, scale, (64, 128))
    assert view.rgb.shape == (64, 128, 3)
    assert np.abs(view.boxes_xyxy[0] - block_of(view.rgb)).max() <= 1


def test_a_box_that_is_mostly_cut_off_is_dropped_with_its_name() -> None:
    view = cut(marked(), (55.0, 0.0), 1.0, (60, 45))
    assert len(view.boxes_xyxy) == len(view.names) == 0
    assert view.asked == ("block", "hole")


def test_recolouring_changes_pixels_and_nothing_else() -> None:
    sample = marked()
    changed = recoloured(sample, 0.3, np.random.default_rng(0))
    assert not np.array_equal(changed.rgb, sample.rgb)
    assert np.array_equal(changed.boxes_xyxy, sample.boxes_xyxy)


def test_an_augmented_view_has_the_wanted_size_and_boxes_inside() -> None:
    handling = Handling(quarter_turns=True)
    for seed in range(30):
        view = augmented(marked(), handling, (48, 72), (0.5, 1.25), np.random.default_rng(seed))
        assert view.rgb.shape == (48, 72, 3)
        assert (view.boxes_xyxy >= 0).all()
        assert (view.boxes_xyxy[:, 2:] <= [72, 48]).all()


def test_a_mosaic_keeps_each_tile_and_asks_for_all_names() -> None:
    sizes = [(30, 40), (30, 60), (70, 40), (70, 60)]
    tiles = [
        Sample(
            np.full((height, width, 3), 40 * i, dtype=np.uint8),
            np.array([[1, 2, 11, 12]], dtype=np.float32),
            ((f"thing {i}",),),
            (f"thing {i}", "nothing"),
        )
        for i, (height, width) in enumerate(sizes)
    ]
    whole = mosaic(tiles, (40, 30), 100)
    assert whole.boxes_xyxy.tolist() == [[1, 2, 11, 12], [41, 2, 51, 12], [1, 32, 11, 42], [41, 32, 51, 42]]
    assert [int(whole.rgb[int(y1), int(x1), 0]) for x1, y1, *_ in whole.boxes_xyxy] == [0, 40, 80, 120]
    assert sorted(whole.asked) == ["nothing", "thing 0", "thing 1", "thing 2", "thing 3"]


def test_a_coco_folder_is_read_with_boxes_as_corners(tmp_path: Path) -> None:
    write_set(tmp_path / "blocks")
    real = read_coco_set(tmp_path / "blocks", "train")
    assert real.names == ("hole", "block")
    assert real.samples[0].boxes_xyxy.tolist() == [[20, 10, 60, 30]]
    assert real.samples[0].names == (("block",),)


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    write_set(tmp_path / "blocks", file_name="b.png")
    with pytest.raises(DataError, match=r"b\.png"):
        read_coco_set(tmp_path / "blocks", "train")


@pytest.mark.parametrize("text", ["", "[]", '{"images": []}', '{"images": 3, "annotations": [], "categories": []}'])
def test_a_file_that_is_no_coco_data_set_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "train.json").write_text(text)
    with pytest.raises(DataError, match=r"train\.json: no COCO data set"):
        read_coco_set(tmp_path, "train")


@pytest.mark.parametrize(
    ("part", "value", "complaint"),
    [
        (
            "annotations",
            [{"image_id": 5, "category_id": 7, "bbox": [1, 2, 3, 4]}],
            "[0] is of category 7, which is not",
        ),
        (
            "annotations",
            [{"image_id": 6, "category_id": 2, "bbox": [1, 2, 3, 4]}],
            "[0] is of image 6, which is not in",
        ),
        ("annotations", [{"image_id": 5, "category_id": 2, "bbox": [1, 2, 3]}], "bbox [1, 2, 3] is not of four finite"),
        (
            "annotations",
            [{"image_id": 5, "category_id": 2, "bbox": ["a", 2, 3, 4]}],
            "could not convert string to float",
        ),
        ("annotations", [{"image_id": 5, "category_id": 2, "bbox": [1, 2, float("nan"), 3]}], "not of four finite"),
        ("categories", [{"id": 2, "name": "hole"}, {"id": 2, "name": "block"}], "an id of its categories or images"),
        ("categories", [{"id": 2, "name": "\ud800"}], "surrogates not allowed"),
        ("images", [{"id": 5, "file_name": "a.png"}, {"id": 5, "file_name": "a.png"}], "an id of its categories or"),
        ("images", [{"id": 5, "file_name": "a.png"}, {"id": "x", "file_name": "a.png"}], "no COCO data set ('<' not"),
        ("images", [{"id": 5, "file_name": "a" * 400}], "File name too long"),
    ],
)
def test_what_a_coco_file_says_wrong_is_named_with_its_file(
    part: str, value: object, complaint: str, tmp_path: Path
) -> None:
    write_set(tmp_path)
    coco = json.loads((tmp_path / "train.json").read_text())
    (tmp_path / "train.json").write_text(json.dumps({**coco, part: value}))
    with pytest.raises(DataError) as caught:
        read_coco_set(tmp_path, "train")
    assert complaint in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_picture_that_is_a_line_keeps_a_pixel_of_height(tmp_path: Path) -> None:
    write_set(tmp_path)
    Image.new("RGB", (3000, 1)).save(tmp_path / "images" / "a.png")
    assert read_coco_set(tmp_path, "train").samples[0].rgb.shape == (1, 640, 3)


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        ((), "no names"),
        (("Block", "block"), "'Block' and 'block' are the same tokens"),
        (("block", " "), "has an empty name"),
        (tuple(f"block {number}" for number in range(200)), "its names fill more than one caption"),
    ],
)
def test_a_set_whose_names_cannot_be_asked_in_one_caption_is_named(names: tuple[str, ...], complaint: str) -> None:
    tokenizer = train_tokenizer(["block"])
    with pytest.raises(DataError, match=f"blocks: .*{complaint}"):
        refuse_unusable_sets([RealSet("blocks", names, (marked(),))], tokenizer)


def test_a_set_without_pictures_is_named() -> None:
    with pytest.raises(DataError, match="blocks: has no images"):
        refuse_unusable_sets([RealSet("blocks", ("block",), ())], train_tokenizer(["block"]))


def test_the_tokenizer_knows_every_plain_word_and_keeps_given_names_whole() -> None:
    tokenizer = train_tokenizer(["jellyfish"])
    assert tokenizer.tokenize("Jellyfish") == ["jellyfish"]
    ids = tokenizer("Quartz zygote 1234567890 JACKDAWS!")["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)


def test_a_caption_holds_all_names_in_some_order_and_spans_that_point_at_them() -> None:
    captioned = as_captioned(marked(), np.random.default_rng(0))
    ((start, end),) = captioned.spans[0]
    assert sorted(captioned.caption.split(". ")) == ["block", "hole"]
    assert captioned.caption[start:end] == "block"


def make_batches(mixture: Mixture) -> PretrainingBatches:
    real = RealSet("blocks", ("block", "hole"), (marked(300, 400),))
    other = RealSet("discs", ("disc",), (Sample(marked(200, 200).rgb, np.zeros((0, 4), np.float32), (), ("disc",)),))
    return PretrainingBatches(train_tokenizer(["block", "hole", "disc"]), [real, other], [1, 1], mixture, seed=3)


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    batches = make_batches(Mixture(batch_size=4, sides=(96,)))
    first, again, next_one = batches[5], make_batches(Mixture(batch_size=4, sides=(96,)))[5], batches[6]
    assert torch.equal(first["rgb"], again["rgb"])
    assert torch.equal(first["input_ids"], again["input_ids"])
    assert not torch.equal(first["rgb"], next_one["rgb"])


def test_positive_maps_point_at_the_tokens_of_the_boxes_names() -> None:
    batches = make_batches(Mixture(batch_size=8, sides=(128,), scene_share=0, sentence_share=0))
    tokenizer = train_tokenizer(["block", "hole", "disc"])
    boxes = 0
    for step in range(3):
        batch = batches[step]
        assert batch["rgb"].shape == (8, 128, 128, 3)
        for ids, target in zip(batch["input_ids"], batch["targets"], strict=True):
            assert target["positive_map"].shape == (len(target["boxes"]), len(ids))
            for row in target["positive_map"]:
                assert tokenizer.decode(ids[row > 0]) == "block"
                boxes += 1
    assert boxes > 5


def test_scenes_and_sentences_come_in_the_wanted_shares() -> None:
    only_sentences = make_batches(Mixture(batch_size=6, sides=(96,), scene_share=0, sentence_share=1))
    tokenizer = train_tokenizer(["block", "hole", "disc"])
    texts = [tokenizer.decode(ids) for ids in only_sentences[0]["input_ids"]]
    assert not any("block" in text or ". " in text for text in texts)


def test_pixel_values_are_normalised_blue_green_red() -> None:
    rgb = torch.tensor([[[[30, 20, 10]]]], dtype=torch.uint8)
    settings = PixelSettings(mean=(10, 10, 10), std=(1, 2, 4))
    assert pixel_values(rgb, settings).flatten().tolist() == [0, 5, 5]


def test_training_the_tokenizer_twice_gives_the_same_numbers() -> None:
    assert train_tokenizer(["jellyfish"]).get_vocab() == train_tokenizer(["jellyfish"]).get_vocab()


def pieces_of(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    numbers: dict[str, int] = tokenizer.get_vocab()
    return sorted(numbers, key=numbers.__getitem__)


def decided_words(targets: torch.Tensor, pieces: list[str]) -> tuple[set[str], set[str]]:
    """Words that fit the first box, and words that do not."""
    fits, fails = ((targets[0] == mark).nonzero()[:, 0].tolist() for mark in (1, 0))
    return {pieces[i] for i in fits}, {pieces[i] for i in fails}


def test_of_a_real_box_its_own_words_are_true_and_those_of_the_other_names_false() -> None:
    tokenizer = train_tokenizer(["red block", "red hole"])
    boxes = np.array([[20, 10, 60, 30]], dtype=np.float32)
    sample = Sample(marked().rgb, boxes, (("red block",),), ("red block", "red hole"))
    targets = word_targets(tokenizer, as_captioned(sample, np.random.default_rng(0)))
    pieces = pieces_of(tokenizer)
    assert decided_words(targets, pieces) == ({"red", "block"}, {"hole"})


def test_a_scene_phrase_asked_of_a_real_picture_settles_none_of_its_words() -> None:
    tokenizer = train_tokenizer(["block", "hole"])
    boxes = np.array([[20, 10, 60, 30]], dtype=np.float32)
    sample = Sample(marked().rgb, boxes, (("block",),), ("block", "hole", "blue square"))
    targets = word_targets(tokenizer, as_captioned(sample, np.random.default_rng(0)))
    assert decided_words(targets, pieces_of(tokenizer)) == ({"block"}, {"hole"})


def test_of_a_generated_thing_every_word_is_decided_that_is_not_held_out_for_it() -> None:
    tokenizer = train_tokenizer([])
    rng = np.random.default_rng(3)
    scene = draw_scene(160, [Looks("star", "green", "striped", "large")], rng)
    sample = next(s for s in (ask_names(scene, rng) for _ in range(50)) if len(s.boxes_xyxy))
    pieces = pieces_of(tokenizer)
    fits, fails = decided_words(word_targets(tokenizer, as_captioned(sample, rng)), pieces)
    assert fits == {"star", "green", "striped", "large"}
    held_out = {"arrow", "circle", "heart", "red", "hollow"}  # "green arrow" ... "hollow star"
    assert fails == SCENE_WORDS - fits - held_out
