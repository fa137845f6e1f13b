import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModelForZeroShotObjectDetection,
    AutoProcessor,
    AutoTokenizer,
    pipeline,
)

from glip_model.auto import register_auto_classes
from glip_model.image import ImageDecodeError
from glip_model.inference import GlipDetector
from glip_model.modeling_glip import GlipForDetection, GlipOutput
from glip_model.postprocess import Detections
from glip_model.processing_glip import GlipImageProcessor, GlipProcessor, ModelOutputError, scale_boxes
from glip_model.sentence import CaptionError
from tests.glip_model.tiny import noise, tiny_model, tiny_processor


@pytest.fixture(scope="module", params=[False, True], ids=["edges", "last-pixel"])
def model(request: pytest.FixtureRequest) -> GlipForDetection:
    return tiny_model(last_pixel=request.param)


@pytest.fixture(scope="module")
def folder(model: GlipForDetection, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("tiny")
    model.save_pretrained(path)
    tiny_processor().save_pretrained(path)
    register_auto_classes()
    return path


def outputs_of(model: GlipForDetection, images: Any, text: Any) -> GlipOutput:
    with torch.no_grad():
        outputs: GlipOutput = model(**tiny_processor()(images, text))
    return outputs


def test_auto_classes_load_a_saved_folder(folder: Path) -> None:
    processor = AutoProcessor.from_pretrained(folder)
    assert type(processor) is GlipProcessor
    assert type(AutoImageProcessor.from_pretrained(folder)) is GlipImageProcessor
    assert type(AutoModelForZeroShotObjectDetection.from_pretrained(folder)) is GlipForDetection
    assert AutoTokenizer.from_pretrained(folder)("red car")["input_ids"] == processor.tokenizer("Red CAR")["input_ids"]


def test_a_processor_loads_wherever_its_class_is_imported_from(folder: Path) -> None:
    load = f"from glip_model.processing_glip import GlipProcessor; GlipProcessor.from_pretrained({str(folder)!r})"
    subprocess.run([sys.executable, "-c", load], check=True)


def test_settings_of_the_image_processor_are_saved(folder: Path) -> None:
    loaded = GlipProcessor.from_pretrained(folder).image_processor
    assert loaded.settings == tiny_processor().image_processor.settings
    assert loaded.size == {"shortest_edge": 64, "longest_edge": 128}


@pytest.mark.parametrize("size", [{"height": 64, "width": 64}, 64])
def test_a_size_that_would_be_ignored_is_refused(size: Any) -> None:
    with pytest.raises(ValueError, match="size must be shortest_edge and longest_edge"):
        GlipImageProcessor(size=size)


def test_settings_are_given_once_and_not_call_by_call(folder: Path) -> None:
    with pytest.raises(ValueError, match="do_resize cannot differ from call to call: give it to from_pretrained"):
        tiny_processor()(noise(70, 40), ["cat"], do_resize=False)
    processor = GlipProcessor.from_pretrained(folder, do_resize=False)
    assert processor(noise(70, 40), ["cat"], do_resize=False, padding=True)["pixel_values"].shape == (1, 3, 96, 64)


def test_the_zero_shot_pipeline_finds_what_the_detector_finds(folder: Path) -> None:
    image = noise(90, 120)
    found = pipeline("zero-shot-object-detection", model=str(folder))(
        Image.fromarray(image), candidate_labels=["cat", "red car"], threshold=0.3
    )
    detector = GlipDetector.from_folder(folder)
    expected = []
    for name in ("cat", "red car"):
        (single,) = detector.detect([image], detector.captions([[name]]), 0.3)
        for box, score in zip(single.boxes_xyxy.int().tolist(), single.scores.tolist(), strict=True):
            expected.append((name, pytest.approx(score, abs=1e-5), box))
    assert {name for name, _, _ in expected} == {"cat", "red car"}
    assert sorted((row["label"], row["score"], list(row["box"].values())) for row in found) == sorted(
        expected, key=lambda row: (row[0], row[1].expected)
    )


@pytest.mark.parametrize(
    ("label", "message"),
    [("", "a label has no words"), ("cat " * 600, "a caption has 602 tokens, the text encoder reads 512")],
)
def test_the_pipeline_refuses_labels_without_words_and_with_too_many(folder: Path, label: str, message: str) -> None:
    find = pipeline("zero-shot-object-detection", model=str(folder))
    with pytest.raises(ValueError, match=message):
        find(Image.fromarray(noise(64, 64)), candidate_labels=["cat", label])


@pytest.mark.parametrize("batch_size", [3, 8])
def test_a_batched_pipeline_finds_the_same(folder: Path, batch_size: int) -> None:
    images: list[Any] = [Image.fromarray(noise(90, 120, seed)) for seed in range(4)]
    find = pipeline("zero-shot-object-detection", model=str(folder))
    alone = find(images, candidate_labels=["cat", "red car"])
    together = find(images, candidate_labels=["cat", "red car"], batch_size=batch_size)
    for one, other in zip(alone, together, strict=True):
        assert [row["score"] for row in one] == pytest.approx([row["score"] for row in other], abs=1e-5)
        assert [row["label"] for row in one] == [row["label"] for row in other]


def test_the_bundled_model_works_in_the_pipeline_in_the_half_precision_it_is_saved_in() -> None:
    picture = Image.new("RGB", (160, 100), "white")
    picture.paste("red", (40, 20, 100, 80))
    half = pipeline("zero-shot-object-detection", model="glip_model/weights/glip-nano")
    full = pipeline("zero-shot-object-detection", model="glip_model/weights/glip-nano", dtype=torch.float32)
    assert half.model.dtype == torch.float16
    found, expected = (find(picture, candidate_labels=["red square", "blue star"])[0] for find in (half, full))
    assert found["label"] == expected["label"] == "red square"
    assert found["score"] == pytest.approx(expected["score"], abs=0.01)


def test_loading_announces_nothing(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    GlipDetector.from_folder(folder)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_a_flat_list_of_names_is_one_caption_for_all_images() -> None:
    inputs = tiny_processor()([noise(60, 60), noise(64, 96)], ["cat", "red car"])
    assert inputs["pixel_values"].shape == (2, 3, 64, 96)
    assert inputs["input_ids"].shape == (1, 6)


def test_lists_per_image_are_padded_together() -> None:
    inputs = tiny_processor()(text=[["cat"], "two [dogs] behind a car"])
    assert inputs["attention_mask"].sum(1).tolist() == [3, 7]
    assert inputs["input_ids"].shape == (2, 7)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "CMYK"])
def test_images_come_as_pictures_of_any_mode_or_as_arrays(mode: str) -> None:
    picture = Image.fromarray(np.full((64, 64, 3), 100, np.uint8)).convert(mode)
    inputs = tiny_processor()(picture)
    planes_first = tiny_processor()(np.full((3, 64, 64), 100, np.uint8))
    assert inputs["pixel_values"].shape == (1, 3, 64, 64)
    assert (inputs["pixel_values"] - planes_first["pixel_values"]).abs().max() < 0.05


def test_files_are_decoded_as_pictures_are(tmp_path: Path) -> None:
    transparent = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    deep = Image.fromarray(np.full((64, 64), 30_000, np.uint16))
    for number, picture in enumerate((transparent, deep)):
        path = tmp_path / f"{number}.png"
        picture.save(path)
        expected = tiny_processor()(picture)["pixel_values"]
        for given in (path, [str(path)]):
            assert torch.equal(tiny_processor()(given)["pixel_values"], expected)


def test_a_file_that_is_missing_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ImageDecodeError, match=r"missing\.png: no such file"):
        tiny_processor()([tmp_path / "missing.png"])


def test_images_keep_their_size_where_resizing_is_off() -> None:
    processor = GlipImageProcessor(do_resize=False)
    assert processor(noise(70, 40))["pixel_values"].shape == (1, 3, 96, 64)
    assert processor.network_sizes([(70, 40)]) == [(70, 40)]


def test_grounded_boxes_are_in_the_pixels_of_each_image(model: GlipForDetection) -> None:
    images = [noise(128, 128), noise(100, 200)]
    names = ["cat", "red car"]
    outputs = outputs_of(model, images, names)
    results = tiny_processor().post_process_grounded_object_detection(
        outputs, threshold=0.2, target_sizes=[(128, 128), (100, 200)], text_labels=names
    )
    expected = model.postprocess(outputs, [[1], [3, 4]], [(64, 64), (64, 128)])
    for result, wanted, ratio in zip(results, expected, [2, 100 / 64], strict=True):
        keep = wanted.scores > 0.2
        assert keep.any()
        assert torch.allclose(result["scores"], wanted.scores[keep])
        low, high = wanted.boxes_xyxy[keep].split(2, dim=1)
        expected_boxes = torch.cat([low * ratio, high * ratio + model.config.border * (high > low)], dim=1)
        assert torch.allclose(result["boxes"], expected_boxes, atol=1e-4)
        assert result["text_labels"] == [names[label] for label in result["labels"].tolist()]


def test_a_box_ends_behind_its_last_pixel_and_one_beyond_the_image_has_none() -> None:
    boxes = torch.tensor([[10.0, 14, 28, 32], [199, 20, 199, 60], [0, 0, 199, 119]])
    scaled = scale_boxes(Detections(boxes, torch.ones(3), torch.zeros(3)), (120, 200), (60, 100), border=1)
    assert scaled.boxes_xyxy.tolist() == [[5, 7, 15, 17], [99.5, 10, 99.5, 31], [0, 0, 100, 60]]


def test_a_sentence_is_answered_by_its_phrases(model: GlipForDetection) -> None:
    image, sentence = noise(64, 64), "a [red car] behind [two dogs]"
    (result,) = tiny_processor().post_process_grounded_object_detection(
        outputs_of(model, image, sentence), target_sizes=torch.tensor([[64, 64]]), text_labels=sentence
    )
    assert set(result["text_labels"]) == {"red car", "two dogs"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text_labels": ["cat"]}, "target_sizes must give"),
        ({"text_labels": ["cat"], "target_sizes": [(64, 64), (64, 64)]}, "target_sizes must give"),
        ({"text_labels": ["cat"], "target_sizes": [(64, 128)]}, "not the sizes of the images"),
        ({"target_sizes": [(64, 64)]}, "text_labels must be"),
        ({"text_labels": [["cat"], ["dog"]], "target_sizes": [(64, 64)]}, "for 2 images, outputs for 1"),
    ],
)
def test_outputs_without_their_names_or_sizes_are_refused(
    model: GlipForDetection, arguments: dict[str, Any], message: str
) -> None:
    outputs = outputs_of(model, noise(64, 64), ["cat"])
    with pytest.raises(ValueError, match=message):
        tiny_processor().post_process_grounded_object_detection(outputs, **arguments)


def test_sizes_given_as_width_and_height_are_refused(model: GlipForDetection) -> None:
    outputs = outputs_of(model, noise(64, 128), ["cat"])  # of which the upright image has as many anchors
    with pytest.raises(ValueError, match="not the sizes of the images"):
        tiny_processor().post_process_grounded_object_detection(outputs, 0.2, [(128, 64)], ["cat"])


def test_an_answer_that_is_not_finite_is_an_error_and_not_an_empty_one() -> None:
    model = tiny_model()
    torch.nn.init.constant_(model.head.text_bias, float("nan"))
    outputs = outputs_of(model, noise(64, 64), ["cat"])
    with pytest.raises(ModelOutputError, match="token_logits are not finite"):
        tiny_processor().post_process_grounded_object_detection(outputs, 0.2, [(64, 64)], ["cat"])
    with pytest.raises(ModelOutputError, match="token_logits are not finite"):
        tiny_processor().image_processor.post_process_object_detection(outputs, 0.2, [(64, 64)])


def test_nothing_to_process_and_unknown_names_are_refused() -> None:
    numbered: Any = ["cat", 4]
    with pytest.raises(ValueError, match="needs images, text or both"):
        tiny_processor()()
    with pytest.raises(CaptionError, match="'zebra' has no token"):
        tiny_processor()(text=["zebra"])
    with pytest.raises(CaptionError, match="the name of label 2 is 4: give it as text"):
        tiny_processor()(text=numbered)


def test_the_saved_configuration_names_its_classes(folder: Path) -> None:
    saved = json.loads((folder / "processor_config.json").read_text())
    assert saved["processor_class"] == "GlipProcessor"
    assert saved["image_processor"]["image_processor_type"] == "GlipImageProcessor"
