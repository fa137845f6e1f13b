import json
from pathlib import Path
from typing import Any

import pytest

from glip_model.evaluation import evaluate_detections


def data_set(*boxes: tuple[int, int, list[float]], images: int = 2) -> dict[str, Any]:
    """COCO data set of cats (7) and dogs (3) from (image, category, box) rows."""
    return {
        "images": [{"id": i, "width": 400, "height": 400} for i in range(1, images + 1)],
        "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
        "annotations": [{"image_id": i, "category_id": c, "bbox": box} for i, c, box in boxes],
    }


def result(image: int, category: int, box: list[float], score: float = 0.9) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


def test_perfect_boxes_score_one_in_every_measure_that_has_boxes() -> None:
    truth = data_set((1, 7, [10, 10, 50, 50]), (2, 3, [0, 0, 200, 200]))
    scores = evaluate_detections(truth, [result(1, 7, [10, 10, 50, 50]), result(2, 3, [0, 0, 200, 200])])
    assert (scores.ap, scores.ap50, scores.ap75, scores.ar) == pytest.approx((1, 1, 1, 1))
    assert (scores.ap_medium, scores.ap_large) == pytest.approx((1, 1))
    assert scores.ap_small is None
    assert scores.images == 2


def test_a_loose_box_counts_at_low_overlaps_only() -> None:
    # Overlap 0.7: found at 0.50, 0.55, 0.60, 0.65 and 0.70 of the ten overlaps.
    scores = evaluate_detections(data_set((1, 7, [0, 0, 100, 100])), [result(1, 7, [0, 0, 100, 70.5])])
    assert scores.ap50 == pytest.approx(1)
    assert scores.ap == pytest.approx(0.5)
    assert scores.ap75 == pytest.approx(0)


def test_classes_are_scored_apart_and_by_name() -> None:
    truth = data_set((1, 7, [0, 0, 50, 50]), (1, 3, [100, 100, 50, 50]), (2, 3, [0, 0, 50, 50]))
    scores = evaluate_detections(truth, [result(1, 7, [0, 0, 50, 50]), result(1, 3, [100, 100, 50, 50])])
    by_name = {score.name: score for score in scores.classes}
    assert by_name["cat"].ap50 == pytest.approx(1)
    assert by_name["dog"].ap50 == pytest.approx(0.5, abs=0.01)
    assert (by_name["cat"].boxes, by_name["dog"].boxes) == (1, 2)
    assert by_name["dog"].category_id == 3


def test_a_class_may_be_named_by_a_number() -> None:
    truth = {**data_set((1, 7, [0, 0, 50, 50])), "categories": [{"id": 7, "name": 4}]}
    assert [score.name for score in evaluate_detections(truth, []).classes] == ["4"]


@pytest.mark.parametrize("empty", [{}, {"area": None, "iscrowd": None}, {"iscrowd": False}])
def test_an_annotation_may_lack_its_area_and_whether_it_is_a_crowd(empty: dict[str, bool | None]) -> None:
    truth = data_set((1, 7, [0, 0, 50, 50]))
    truth["annotations"][0].update(empty)
    scores = evaluate_detections(truth, [result(1, 7, [0, 0, 50, 50])])
    assert (scores.ap, scores.ap_medium, scores.classes[1].boxes) == pytest.approx((1, 1, 1))


@pytest.mark.parametrize("text", [{"iscrowd": "0"}, {"area": "2500"}])
def test_text_for_a_number_is_refused_with_its_place(text: dict[str, str]) -> None:
    truth = data_set((1, 7, [0, 0, 50, 50]))
    truth["annotations"][0].update(text)
    ((key, value),) = text.items()
    with pytest.raises(ValueError, match=f"{key} of annotation 1 must be a number, not '{value}'"):
        evaluate_detections(truth, [])


@pytest.mark.parametrize("box", [["1", "2", "3", "4"], None, [None] * 4, [1, 2, 3], "1234"])
def test_a_box_that_is_not_four_numbers_is_refused_with_its_place(box: Any) -> None:
    with pytest.raises(ValueError, match="the ground truth: bbox of annotation 1 must be four numbers, not "):
        evaluate_detections(data_set((1, 7, box)), [])


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"images": [{"id": 1}, {"file_name": "a.png"}]}, "image 2 lacks id"),
        ({"images": ["a.png"]}, "image 1 is no object but 'a.png'"),
        ({"categories": [{"id": 7}]}, "category 7 lacks id or name"),
        ({"categories": [{"name": "cat"}]}, "category 1 lacks id or name"),
        ({"annotations": [3]}, "annotation 1 is no object but 3"),
    ],
)
def test_an_entry_that_lacks_something_is_refused_with_its_place(entries: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"the ground truth: {message}"):
        evaluate_detections({**data_set(), **entries}, [])


def test_a_class_without_boxes_has_no_score_and_does_not_count() -> None:
    scores = evaluate_detections(data_set((1, 7, [0, 0, 50, 50])), [result(1, 7, [0, 0, 50, 50])])
    assert scores.ap == pytest.approx(1)
    assert [score.ap for score in scores.classes if score.name == "dog"] == [None]


def test_finding_nothing_scores_zero() -> None:
    scores = evaluate_detections(data_set((1, 7, [0, 0, 50, 50])), [])
    assert (scores.ap, scores.ap50, scores.ar) == (0, 0, 0)


def test_a_data_set_without_boxes_has_no_score() -> None:
    assert evaluate_detections(data_set(), [result(1, 7, [0, 0, 50, 50])]).ap is None


def test_scoring_prints_nothing_and_leaves_its_input_alone(capsys: pytest.CaptureFixture[str]) -> None:
    truth, results = data_set((1, 7, [0, 0, 50, 50])), [result(1, 7, [0, 0, 50, 50])]
    before = json.dumps([truth, results])
    evaluate_detections(truth, results)
    assert json.dumps([truth, results]) == before
    assert capsys.readouterr().out == ""


def test_scores_are_plain_json_and_the_same_from_a_file(tmp_path: Path) -> None:
    truth = data_set((1, 7, [0, 0, 50, 50]))
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(truth))
    results = [result(1, 7, [0, 0, 50, 50])]
    scores = evaluate_detections(path, results).to_json()
    assert scores == evaluate_detections(truth, results).to_json()
    assert json.loads(json.dumps(scores))["classes"][1]["name"] == "cat"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as COCO JSON"),
        ("[]", "not a COCO data set"),
        ('{"images": []}', "no list 'annotations'"),
        ('{"images": [], "categories": [], "annotations": [{"id": 5, "image_id": 1}]}', "annotation 5 lacks"),
    ],
)
def test_a_file_that_is_no_data_set_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "truth.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"truth\.json: .*{message}"):
        evaluate_detections(path, [])


def test_boxes_of_crowds_and_of_images_that_the_data_set_lacks_do_not_count() -> None:
    truth = data_set((1, 7, [0, 0, 50, 50]), (1, 7, [60, 0, 50, 50]), (9, 7, [0, 0, 50, 50]))
    truth["annotations"][1]["iscrowd"] = 1
    scores = evaluate_detections(truth, [result(1, 7, [0, 0, 50, 50])])
    assert (scores.ap, scores.classes[1].boxes) == pytest.approx((1, 1))


def test_a_result_for_an_unknown_category_is_refused() -> None:
    with pytest.raises(ValueError, match="category 0 of the results"):
        evaluate_detections(data_set(), [result(1, 0, [0, 0, 5, 5])])


def test_a_result_for_an_unknown_image_is_refused() -> None:
    with pytest.raises(ValueError, match="image 9 of the results"):
        evaluate_detections(data_set(), [result(9, 7, [0, 0, 5, 5])])
