"""One answer of a look at a picture and a look at its mirror image."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from glip_model.caption import Caption
from glip_model.inference import GlipDetector, ImageDetections
from glip_model.mirrored import detect_both_ways
from tests.glip_model.tiny import noise, seeing_all, tiny_model, tiny_processor


def found(*rows: tuple[float, float, float, float, float], label: int = 0) -> ImageDetections:
    """Boxes with their scores as a fifth number."""
    numbers = torch.tensor(rows).reshape(-1, 5)
    labels = torch.full((len(rows),), label)
    return ImageDetections(numbers[:, :4], numbers[:, 4], labels, tuple(f"word {label}" for _ in rows))


class Scripted(GlipDetector):
    """Answers what it is told: first for pictures, then for their mirror images."""

    def __init__(self, *answers: ImageDetections) -> None:
        super().__init__(tiny_model(), tiny_processor())
        self.answers = list(answers)
        self.shown: list[NDArray[np.uint8]] = []

    def detect(
        self, images: Sequence[NDArray[np.uint8]], captions: Sequence[Caption], score_threshold: float = 0.0
    ) -> list[ImageDetections]:
        self.shown += images
        return [self.answers.pop(0) for _ in images]


PICTURE = noise(40, 100, 0)


def both(one: ImageDetections, other: ImageDetections, score_threshold: float = 0.0) -> ImageDetections:
    (answer,) = detect_both_ways(Scripted(one, other), [PICTURE], (), score_threshold)
    return answer


def test_the_second_look_is_at_the_mirror_image() -> None:
    detector = Scripted(found(), found())
    detect_both_ways(detector, [PICTURE], ())
    np.testing.assert_array_equal(detector.shown[0], PICTURE)
    np.testing.assert_array_equal(detector.shown[1], PICTURE[:, ::-1])


def test_what_both_see_lies_between_and_scores_the_mean() -> None:
    answer = both(found((10, 0, 40, 30, 0.8)), found((60, 2, 90, 32, 0.8)))
    torch.testing.assert_close(answer.boxes_xyxy, torch.tensor([[10.0, 1, 40, 31]]))
    torch.testing.assert_close(answer.scores, torch.tensor([0.8]))
    answer = both(found((10, 0, 40, 30, 0.8)), found((60, 2, 90, 32, 0.4)))
    torch.testing.assert_close(answer.boxes_xyxy, torch.tensor([[10.0, 2 / 17, 40, 30 + 2 / 17]]))
    torch.testing.assert_close(answer.scores, torch.tensor([0.6]))


def test_what_one_look_alone_sees_scores_half() -> None:
    for answer in (both(found((10, 0, 40, 30, 0.8)), found()), both(found(), found((60, 0, 90, 30, 0.8)))):
        torch.testing.assert_close(answer.boxes_xyxy, torch.tensor([[10.0, 0, 40, 30]]))
        torch.testing.assert_close(answer.scores, torch.tensor([0.4]))
        assert answer.prompts == ("word 0",)


def test_what_is_sure_to_both_comes_before_what_is_surer_to_one() -> None:
    one = found((0, 0, 20, 20, 0.9), (50, 0, 80, 30, 0.7))
    other = found((20, 0, 50, 30, 0.7))
    answer = both(one, other)
    torch.testing.assert_close(answer.boxes_xyxy[0], torch.tensor([50.0, 0, 80, 30]))
    torch.testing.assert_close(answer.scores, torch.tensor([0.7, 0.45]))
    assert len(both(one, other, 0.5).scores) == 1


def test_other_labels_do_not_agree() -> None:
    answer = both(found((10, 0, 40, 30, 0.8)), found((60, 0, 90, 30, 0.6), label=1))
    torch.testing.assert_close(answer.scores, torch.tensor([0.4, 0.3]))
    assert answer.labels.tolist() == [0, 1]
    assert answer.prompts == ("word 0", "word 1")


def test_nothing_seen_is_nothing_found() -> None:
    answer = both(found(), found())
    assert answer.boxes_xyxy.shape == (0, 4)
    assert answer.prompts == ()


@pytest.mark.parametrize("seed", [0, 1])
def test_a_picture_and_its_mirror_image_are_answered_alike(seed: int) -> None:
    detector = GlipDetector(tiny_model(), tiny_processor())
    captions = detector.captions([["cat"], ["dog"]])
    image = noise(60, 90, seed)
    one, other = detect_both_ways(detector, [image, np.ascontiguousarray(image[:, ::-1])], captions)
    assert len(one.scores) > 5
    torch.testing.assert_close(one.scores, other.scores, atol=1e-5, rtol=1e-4)
    turned = torch.stack([90 - other.boxes_xyxy[:, 2], 90 - other.boxes_xyxy[:, 0]], dim=1)
    torch.testing.assert_close(one.boxes_xyxy[:, [0, 2]], turned, atol=1e-2, rtol=1e-3)


def test_a_box_over_the_whole_picture_is_whole_in_both_looks() -> None:
    for last_pixel, image in ((False, noise(300, 400)), (True, noise(64, 96))):
        detector = GlipDetector(seeing_all(last_pixel), tiny_processor())
        (answer,) = detect_both_ways(detector, [image], detector.captions([["cat"]]))
        height, width = image.shape[:2]
        torch.testing.assert_close(answer.boxes_xyxy, torch.tensor([[0.0, 0, width, height]]))


def test_looks_at_a_picture_and_its_mirror_image_agree_where_boxes_include_the_last_pixel() -> None:
    detector = GlipDetector(tiny_model(last_pixel=True), tiny_processor())
    captions = detector.captions([["cat"]])
    image = noise(60, 90)
    one, other = detect_both_ways(detector, [image, np.ascontiguousarray(image[:, ::-1])], captions)
    turned = torch.stack([90 - other.boxes_xyxy[:, 2], 90 - other.boxes_xyxy[:, 0]], dim=1)
    torch.testing.assert_close(one.boxes_xyxy[:, [0, 2]], turned, atol=1e-2, rtol=1e-3)
