import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from glip_model.caption import plan_captions
from glip_model.configuration_glip import GlipConfig
from glip_model.convert_glip_checkpoint import convert_state_dict
from glip_model.inference import GlipDetector, merge_captions
from glip_model.loading import ModelFolderError
from glip_model.modeling_glip import GlipForDetection, TextStates
from glip_model.processing_glip import ModelOutputError
from glip_model.sentence import CaptionError, parse_sentence
from tests.glip_model.text import golden_tokenizer, small_tokenizer
from tests.glip_model.tiny import noise, seeing_all, tiny_model, tiny_processor
from tests.golden.cases import official_shapes, pixel_values, read_case, read_json, tiny_config
from tests.golden.refinit import reference_weight


@pytest.fixture(scope="module")
def detector() -> GlipDetector:
    return GlipDetector(tiny_model(), tiny_processor())


@pytest.fixture(scope="module")
def folder(detector: GlipDetector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("tiny")
    detector.model.save_pretrained(path)
    detector.processor.save_pretrained(path)
    return path


def test_chunked_captions_find_what_the_official_chunked_evaluation_finds() -> None:
    case, golden = read_case("tiny_p12"), read_json("tiny_p12_chunk5")
    shapes = official_shapes("tiny")
    weights = {name: reference_weight(name, shape, case.data["weight_tag"]) for name, shape in shapes.items()}
    config = tiny_config()
    model = GlipForDetection(config)
    model.eval()  # type: ignore[no-untyped-call]
    given = {name: torch.from_numpy(weight) for name, weight in weights.items() if weight is not None}
    model.load_state_dict(convert_state_dict(given, config))
    names = [[name] for name in case.data["class_names"]]
    captions = plan_captions(golden_tokenizer(), names, max_prompts=golden["options"]["CHUNKED_EVALUATION"])
    found = []
    for caption in captions:
        with torch.no_grad():
            output = model(pixel_values(case), torch.tensor([caption.input_ids]))
        sizes_hw = case.data["image_sizes_hw"]
        most = golden["options"]["DETECTIONS_PER_IMG"]
        found.append(model.postprocess(output, caption.label_tokens, sizes_hw, max_detections=most))
    for image, expected in enumerate(golden["detections"]):
        merged, _prompts = merge_captions([boxes[image] for boxes in found], captions, 0.6)
        assert len(merged.scores) == expected["n"]
        assert torch.allclose(merged.scores, torch.tensor(expected["scores"]), atol=3e-5)
        # Equal scores may swap places, so boxes are compared as a set of rows.
        rows = torch.cat([merged.labels[:, None] + 1.0, merged.boxes_xyxy], 1)
        wanted = torch.cat([torch.tensor(expected["labels"])[:, None], torch.tensor(expected["boxes"])], 1)
        assert torch.cdist(wanted, rows, p=torch.inf).amin(1).max() < 1e-2


def test_boxes_are_in_the_pixels_of_images_of_any_size(detector: GlipDetector) -> None:
    captions = detector.captions([["cat"], ["red car"]])
    images = [noise(100, 150), noise(40, 300), noise(100, 150)]
    results = detector.detect(images, captions)
    for image, result in zip(images, results, strict=True):
        assert len(result.scores) == len(result.labels) == len(result.prompts) == len(result.boxes_xyxy) > 0
        height, width = image.shape[:2]
        low, high = result.boxes_xyxy[:, :2], result.boxes_xyxy[:, 2:]
        assert (low >= 0).all()
        assert (low <= high).all()
        assert (high <= torch.tensor([width, height])).all()
        assert (result.scores.diff() <= 0).all()
        assert set(result.labels.tolist()) <= {0, 1}
    assert torch.equal(results[0].boxes_xyxy, results[2].boxes_xyxy)


@pytest.mark.parametrize(
    ("last_pixel", "size_hw", "expected"),
    [
        (False, (300, 400), [0, 0, 400, 300]),
        (False, (32, 48), [0, 0, 48, 32]),
        (True, (64, 96), [0, 0, 96, 64]),
        (True, (32, 48), [0, 0, 48, 32]),
        (True, (192, 288), [0, 0, 286, 190]),  # official boxes end on the last pixel of the network's input at most
    ],
)
def test_boxes_reach_the_edge_of_the_image(last_pixel: bool, size_hw: tuple[int, int], expected: list[int]) -> None:
    detector = GlipDetector(seeing_all(last_pixel), tiny_processor())
    (found,) = detector.detect([noise(*size_hw)], detector.captions([["cat"]]))
    assert len(found.boxes_xyxy) == 1
    torch.testing.assert_close(found.boxes_xyxy[0], torch.tensor(expected).float())


def test_a_result_does_not_depend_on_the_image_s_company(detector: GlipDetector) -> None:
    captions = detector.captions([["cat"]])
    wide, tall = noise(64, 128, 1), noise(128, 64, 2)
    together = detector.detect([tall, wide, tall], captions)
    assert torch.equal(together[1].boxes_xyxy, detector.detect([wide], captions)[0].boxes_xyxy)


def test_images_keep_their_size_where_the_folder_says_so(detector: GlipDetector) -> None:
    processor = tiny_processor()
    processor.image_processor.do_resize = False
    image = noise(96, 160)
    (found,) = GlipDetector(detector.model, processor).detect([image], detector.captions([["cat"]]), 0.2)
    with torch.no_grad():
        outputs = detector.model(**processor(image, ["cat"]))
    (expected,) = processor.post_process_grounded_object_detection(outputs, 0.2, [(96, 160)], ["cat"])
    torch.testing.assert_close(found.scores, expected["scores"])
    torch.testing.assert_close(found.boxes_xyxy, expected["boxes"])


@pytest.mark.parametrize("shape", [(0, 4, 3), (4, 4), (4,)])
def test_what_is_no_image_is_refused(detector: GlipDetector, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"an RGB image is|has no pixels"):
        detector.detect([np.zeros(shape, np.uint8)], detector.captions([["cat"]]))


def test_scores_below_the_threshold_are_left_out(detector: GlipDetector) -> None:
    captions = detector.captions([["cat"]])
    (everything,) = detector.detect([noise(90, 90)], captions)
    (best,) = detector.detect([noise(90, 90)], captions, float(everything.scores[2]))
    assert len(best.scores) == len(best.prompts) == 3
    assert torch.equal(best.boxes_xyxy, everything.boxes_xyxy[:3])


def test_of_several_prompts_the_best_score_wins(detector: GlipDetector) -> None:
    image = noise(90, 90)
    (both,) = detector.detect([image], detector.captions([["cat", "two dogs"]], max_prompts=1))
    alone = [detector.detect([image], detector.captions([[prompt]]))[0] for prompt in ("cat", "two dogs")]
    assert set(both.labels.tolist()) == {0}
    assert both.scores[0] == max(result.scores[0] for result in alone)
    assert len(both.scores) < len(alone[0].scores) + len(alone[1].scores)
    assert set(both.prompts) <= {"cat", "two dogs"}


def test_a_sentence_is_answered_under_the_labels_of_its_phrases(detector: GlipDetector) -> None:
    sentence = parse_sentence("a [red car] behind [two dogs]")
    (result,) = detector.detect([noise(90, 90)], detector.sentence_captions(sentence, owners=[4, 2]))
    assert {(2, "two dogs"), (4, "red car")} == set(zip(result.labels.tolist(), result.prompts, strict=True))


def test_names_longer_than_the_text_encoder_reads_are_refused(detector: GlipDetector) -> None:
    with pytest.raises(CaptionError, match="a caption holds 254"):
        detector.captions([["cat " * 255]])


def test_a_caption_is_encoded_once() -> None:
    class Counting(GlipForDetection):
        encoded = 0

        def encode_text(self, *arguments: Any) -> TextStates:
            self.encoded += 1
            return super().encode_text(*arguments)

    model = Counting(cast(GlipConfig, tiny_model().config))
    model.eval()  # type: ignore[no-untyped-call]
    detector = GlipDetector(model, tiny_processor())
    for image in (noise(64, 64, 1), noise(64, 64, 2)):
        detector.detect([image, image], detector.captions([["cat"], ["dog"]], max_prompts=1))
    assert model.encoded == 2


def test_an_answer_that_is_not_finite_is_an_error() -> None:
    model = tiny_model()
    torch.nn.init.constant_(model.head.box.bias, float("nan"))
    detector = GlipDetector(model, tiny_processor())
    with pytest.raises(ModelOutputError, match="box_deltas are not finite"):
        detector.detect([noise(64, 64)], detector.captions([["cat"]]))


def test_a_folder_gives_the_same_detector_in_float32(detector: GlipDetector, folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    halves = folder.parent / "halves"
    shutil.copytree(folder, halves)
    save_file({name: w.half() for name, w in weights.items()}, halves / "model.safetensors", {"format": "pt"})
    captions = detector.captions([["cat"]])
    (wanted,) = detector.detect([noise(64, 64)], captions)
    from_folder = GlipDetector.from_folder(folder)
    built, read = detector.model.state_dict(), from_folder.model.state_dict()
    assert all(torch.equal(read[name], tensor) for name, tensor in built.items())
    assert read.keys() == built.keys()
    # Where a file's header leaves weights unaligned, kernels may add in another order: equal up to the last bit.
    (loaded,) = from_folder.detect([noise(64, 64)], captions)
    torch.testing.assert_close(loaded.scores, wanted.scores, rtol=0, atol=1e-6)
    from_halves = GlipDetector.from_folder(halves, torch.device("cpu"))
    assert from_halves.model.dtype == torch.float32
    assert from_halves.detect([noise(64, 64)], captions)[0].scores[0] == pytest.approx(
        float(wanted.scores[0]), abs=0.01
    )


def remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def write(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


def configure(**changes: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **changes}))

    return change


def spoil_a_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["head.prior_bias"].fill_(float("nan"))
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def cut_the_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def bring_another_tokenizer(folder: Path) -> None:
    small_tokenizer(" ".join(f"w{i}" for i in range(99))).save_pretrained(folder)


def bring_a_later_tokenizer(folder: Path) -> None:
    words = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**words, "pre_tokenizer": {"type": "OfTomorrow"}}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "no such model folder"),
        (remove("config.json"), r"config\.json is missing"),
        (remove("model.safetensors"), r"model\.safetensors or .* is missing"),
        (remove("tokenizer.json"), r"tokenizer\.json or vocab\.txt is missing: copy"),
        (remove("processor_config.json"), r"processor_config\.json or .* is missing"),
        (write("config.json", "{"), r"config\.json cannot be read"),
        (write("config.json", '{"model_type": "bert"}'), "a model of type 'bert', not GLIP"),
        (write("processor_config.json", "[]"), "cannot be loaded"),
        (write("tokenizer.json", "{}"), "cannot be loaded"),
        (bring_a_later_tokenizer, "cannot be loaded .*PreTokenizer"),
        (configure(hidden_size="wide"), "cannot be loaded .*hidden_size"),
        (configure(hidden_size=17), "cannot be loaded .*17 is no multiple"),
        (configure(hidden_size=32), "of another shape: .* more: convert or pull"),
        (configure(num_blocks=2), r"missing: tower\.1"),
        (configure(early_fusion=False), r"unknown: tower\.0\.fusion"),
        (spoil_a_weight, r"weight head\.prior_bias holds numbers that are not finite"),
        (cut_the_weights, "cannot be loaded"),
        (bring_another_tokenizer, "the tokenizer has 106 tokens, the text encoder knows 15"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_in_one_line(
    folder: Path, tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    damaged = tmp_path / "model"
    shutil.copytree(folder, damaged)
    damage(damaged)
    with pytest.raises(ModelFolderError, match=f"{damaged}: .*{message}") as refusal:
        GlipDetector.from_folder(damaged)
    assert "\n" not in str(refusal.value)


def test_a_vocabulary_file_serves_as_tokenizer(detector: GlipDetector, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "model" / name).unlink()
    words = detector.processor.tokenizer.get_vocab()
    (tmp_path / "model" / "vocab.txt").write_text("\n".join(sorted(words, key=words.__getitem__)))
    assert GlipDetector.from_folder(tmp_path / "model").captions([["Red car"]]) == detector.captions([["Red car"]])
