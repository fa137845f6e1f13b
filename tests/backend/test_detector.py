"""The detector port on a real, tiny model."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from backend.detector import GlipModelDetector
from backend.domain.geometry import iou
from backend.domain.records import Label, Picture, Query, Sentence, Span
from backend.errors import ModelError, UsageError
from backend.trainer import GlipTrainer
from tests.fakes import FakeImages
from tests.glip_model.tiny import noise, tiny_model, tiny_processor


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_model().save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return folder


@pytest.fixture
def detector(folder: Path, tmp_path: Path) -> GlipModelDetector:
    return GlipModelDetector(folder, tmp_path / "versions.json", "cpu")


def picture(width: int = 90, height: int = 60, seed: int = 0) -> Picture:
    return Picture(width, height, noise(height, width, seed).tobytes(), "0" * 64, "noise.png")


def test_labels_are_found_under_their_own_names_inside_the_picture(detector: GlipModelDetector) -> None:
    query = (Label("Katze", ("cat", "red cat")), Label("dog"))
    (found,) = detector.detect([picture()], query, score_threshold=0.05)
    assert found
    assert {proposal.label for proposal in found} <= {"Katze", "dog"}
    assert {proposal.prompt for proposal in found} <= {"cat", "red cat", "dog"}
    assert [proposal.score for proposal in found] == sorted((proposal.score for proposal in found), reverse=True)
    for proposal in found:
        assert 0 <= proposal.box.x1 < proposal.box.x2 <= 90
        assert 0 <= proposal.box.y1 < proposal.box.y2 <= 60


def test_a_sentence_is_answered_with_the_labels_of_its_spans(detector: GlipModelDetector) -> None:
    sentence = Sentence("a red car behind two dogs", (Span(2, 9, "vehicle"), Span(17, 25, "dog")))
    (found,) = detector.detect([picture()], sentence, score_threshold=0.0)
    assert {(proposal.label, proposal.prompt) for proposal in found} <= {("vehicle", "red car"), ("dog", "two dogs")}
    assert found


def test_a_gpu_with_too_little_memory_is_said_with_the_cure(detector: GlipModelDetector) -> None:
    def full(_: torch.Tensor) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nOf the allocated memory ...")

    detector.model().model.encode_image = full  # type: ignore[method-assign, assignment]
    with pytest.raises(ModelError, match=r"model tiny: the GPU has too little memory left: .* \(GLIP_LABEL_DEVICE\)"):
        detector.detect([picture()], (Label("cat"),))


def test_an_object_is_proposed_under_its_best_name_alone_unless_it_may_have_several(
    folder: Path, tmp_path: Path
) -> None:
    cache, query = tmp_path / "versions.json", (Label("cat"), Label("dog"), Label("red cat"))
    one, several = (GlipModelDetector(folder, cache, "cpu", overlapping_labels=flag) for flag in (False, True))
    (single,), (doubled,) = (each.detect([picture()], query, score_threshold=0.0) for each in (one, several))
    better = [
        [each for each in doubled[:place] if each.label != worse.label and iou(each.box, worse.box) > 0.75]
        for place, worse in enumerate(doubled)
    ]
    assert any(better)
    assert single[0] == doubled[0]
    for place, each in enumerate(single):
        assert each in doubled
        assert not any(iou(each.box, other.box) > 0.75 for other in single[:place])


def test_the_phrases_of_a_sentence_may_mean_one_thing(folder: Path, tmp_path: Path) -> None:
    sentence = Sentence("a red car behind two dogs", (Span(2, 9, "vehicle"), Span(17, 25, "dog")))
    one, several = (
        GlipModelDetector(folder, tmp_path / "versions.json", "cpu", overlapping_labels=flag) for flag in (False, True)
    )
    assert one.detect([picture()], sentence) == several.detect([picture()], sentence)


def test_what_is_found_in_a_picture_does_not_depend_on_its_company(detector: GlipModelDetector) -> None:
    pictures = [picture(90, 60, 0), picture(60, 90, 1), picture(90, 60, 2)]
    together = detector.detect(pictures, (Label("cat"),))
    assert together == [detector.detect([each], (Label("cat"),))[0] for each in pictures]


@pytest.mark.parametrize(
    ("query", "twice"),
    [
        ((Label("cat"),), True),
        ((Label("left cat"), Label("dog")), False),
        ((Label("dog", ("dog on the Right",)),), False),
        ((Label("left_dog", ("dog",)),), False),
        (Sentence("a red car", (Span(2, 9, "vehicle"),)), False),
    ],
)
def test_pictures_are_looked_at_in_the_mirror_too_where_sides_do_not_matter(
    query: Query, twice: bool, folder: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "versions.json"
    one, two = (GlipModelDetector(folder, cache, "cpu", mirrored=flag) for flag in (False, True))
    shown = picture()
    turned = np.frombuffer(shown.rgb, np.uint8).reshape(60, 90, 3)[:, ::-1]
    (plain,), (careful,) = (each.detect([shown], query, score_threshold=0.0) for each in (one, two))
    (mirrored,) = two.detect([replace(shown, rgb=turned.tobytes())], query, score_threshold=0.0)
    assert (plain != careful) is twice
    as_sure = [each.score for each in mirrored] == pytest.approx([each.score for each in careful], abs=1e-4)
    assert as_sure is twice


def test_the_weights_are_loaded_once_on_first_use_whoever_asks(detector: GlipModelDetector) -> None:
    assert detector.version.startswith("tiny-")
    assert detector.state == "idle"
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: detector.detect([picture()], (Label("cat"),)), range(4)))
    assert detector.state == "ready"
    assert all(answer == answers[0] for answer in answers)


def test_the_version_is_that_of_the_weights_in_memory_whatever_becomes_of_the_folder(
    folder: Path, tmp_path: Path
) -> None:
    changing, cache = tmp_path / "changing", tmp_path / "versions.json"
    copytree(folder, changing)
    detector = GlipModelDetector(changing, cache, "cpu")
    detector.load()
    loaded = detector.version
    (changing / "README.md").write_text("other weights")
    assert GlipModelDetector(changing, cache, "cpu").version != loaded
    assert detector.version == loaded


@pytest.mark.parametrize("query", [(), (Label(""),), (Label("cat"), Label("CAT"))])
def test_names_that_cannot_be_asked_are_the_askers_error(detector: GlipModelDetector, query: Query) -> None:
    with pytest.raises(UsageError):
        detector.detect([picture()], query)


def test_weights_that_are_no_numbers_are_refused(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in folder.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    weights = load_file(broken / "model.safetensors")
    weights["head.box.weight"] = torch.full_like(weights["head.box.weight"], float("nan"))
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    detector = GlipModelDetector(broken, tmp_path / "versions.json", "cpu")
    with pytest.raises(ModelError, match="not finite"):
        detector.load()
    assert detector.state == "failed"


@pytest.mark.parametrize("device", ["toaster", "cuda:99", "meta:nowhere"])
def test_a_device_that_does_not_exist_is_said(folder: Path, tmp_path: Path, device: str) -> None:
    with pytest.raises(ModelError, match=f"no device '{device}' here: set GLIP_LABEL_DEVICE"):
        GlipModelDetector(folder, tmp_path / "versions.json", device).load()
    with pytest.raises(ModelError, match=f"no device '{device}' here: set GLIP_LABEL_DEVICE"):
        GlipTrainer(folder, FakeImages(), device)
