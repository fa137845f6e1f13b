"""The trainer port: what frozen data become for the model."""

import errno
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from backend.domain.geometry import Box
from backend.domain.learning import Mode, TrainingProgress, TrainingRequest
from backend.domain.records import Picture
from backend.domain.training_data import FrozenData, LabelledBox, PseudoImage, ReviewedImage
from backend.errors import ImageError, StorageError, TrainingError
from backend.trainer import PSEUDO_WEIGHT, GlipTrainer, training_examples
from glip_model.adapters import load_adapter
from glip_model.finetune import CHECKPOINT, FinetuneSettings
from glip_model.loading import load_model_folder
from tests.fake_learning import digest_of
from tests.fakes import FakeImages
from tests.full_disk import largest_file
from tests.glip_model.text import small_tokenizer
from tests.glip_model.tiny import WORDS, noise, tiny_model, tiny_processor

CPU = torch.device("cpu")
LABELS = (("cat", ("cat",)), ("dog", ("dog",)))
CAT, DOG = LabelledBox(Box(4, 8, 20, 30), "cat"), LabelledBox(Box(30, 5, 60, 44), "dog")
REVIEWED = ReviewedImage(digest_of("train-1"), 64, 48, boxes=(CAT,), rejected=(DOG,))
PSEUDO = PseudoImage(digest_of("train-2"), 64, 48, "tiny-0001", (DOG, CAT), (Box(1, 2, 3, 4), Box(5, 6, 7, 8)))


def picture(number: int) -> Picture:
    return Picture(64, 48, noise(48, 64, number).tobytes(), "", "noise.png")


def test_what_people_left_counts_in_full_and_nothing_of_it_is_unreviewed() -> None:
    (example,) = training_examples(FrozenData(LABELS, (REVIEWED,)), FakeImages())

    assert (example.boxes_xyxy.tolist(), example.labels) == ([[4, 8, 20, 30]], (0,))
    assert (example.rejected_xyxy.tolist(), example.rejected_labels) == ([[30, 5, 60, 44]], (1,))
    assert (example.unreviewed_xyxy.shape, example.weight) == ((0, 4), 1.0)


def test_a_label_that_was_added_after_the_review_is_not_asked_of_the_picture() -> None:
    image = ReviewedImage(digest_of("train-1"), 64, 48, boxes=(CAT,), unasked=("dog",))
    (example,) = training_examples(FrozenData(LABELS, (image,)), FakeImages())

    assert example.unasked == (1,)


def test_a_place_in_doubt_teaches_nothing() -> None:
    image = ReviewedImage(digest_of("train-1"), 64, 48, boxes=(CAT,), doubtful=(DOG.box,))
    (example,) = training_examples(FrozenData(LABELS, (image,)), FakeImages())

    assert (example.unreviewed_xyxy.tolist(), example.weight) == ([[30, 5, 60, 44]], 1.0)


def test_what_a_model_labelled_counts_for_less_and_teaches_nothing_where_it_was_in_doubt() -> None:
    images = FakeImages({PSEUDO.sha256: picture(2)})
    reviewed, pseudo = training_examples(FrozenData(LABELS, (REVIEWED,), (PSEUDO,)), images)

    assert pseudo.boxes_xyxy.tolist() == [[30, 5, 60, 44], [4, 8, 20, 30]]
    assert pseudo.labels == (1, 0)
    assert pseudo.unreviewed_xyxy.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert (pseudo.rejected_xyxy.shape, pseudo.rejected_labels) == ((0, 4), ())
    assert pseudo.weight == PSEUDO_WEIGHT < reviewed.weight
    assert images.fetched == []
    assert np.array_equal(pseudo.image(), noise(48, 64, 2))


def test_held_out_images_teach_nothing() -> None:
    held_out = [ReviewedImage(digest_of(name), 64, 48, boxes=(CAT,)) for name in ("tune-3", "gate-4")]

    assert len(training_examples(FrozenData(LABELS, (REVIEWED, *held_out)), FakeImages())) == 1


def test_a_picture_of_another_size_than_its_boxes_were_made_for_is_refused() -> None:
    _, pseudo = training_examples(FrozenData(LABELS, (REVIEWED,), (PSEUDO,)), FakeImages(default=(48, 64)))

    with pytest.raises(ImageError, match="is 48 x 64, not as it was annotated"):
        pseudo.image()


def test_training_looks_at_what_a_model_labelled_too(tmp_path: Path) -> None:
    base, out = tmp_path / "tiny", tmp_path / "out"
    tiny_model().save_pretrained(base)
    tiny_processor().save_pretrained(base)
    images = FakeImages({REVIEWED.sha256: picture(1), PSEUDO.sha256: picture(2)})
    request = TrainingRequest("command", Mode.PROMPT, minutes=0.005)
    out.mkdir()

    mode = GlipTrainer(base, images, "cpu").train(
        FrozenData(LABELS, (REVIEWED,), (PSEUDO,)), request, None, out, lambda progress: None
    )

    assert mode is Mode.PROMPT
    assert set(images.fetched) == {REVIEWED.sha256, PSEUDO.sha256}
    assert json.loads((out / "adapter.json").read_text())


def test_a_training_ends_after_the_minutes_of_its_request_or_else_of_the_installation(tmp_path: Path) -> None:
    base = tmp_path / "tiny"
    tiny_model().save_pretrained(base)
    tiny_processor().save_pretrained(base)
    trainer = GlipTrainer(base, FakeImages({REVIEWED.sha256: picture(1)}), "cpu", minutes=1e-5)
    steps = {}

    for minutes in (None, 1000.0):
        out = tmp_path / f"{minutes}"
        out.mkdir()
        told: list[TrainingProgress] = []
        request = TrainingRequest("command", Mode.HEAD, minutes=minutes)
        trainer.train(FrozenData(LABELS, (REVIEWED,)), request, None, out, told.append)
        steps[minutes] = (len(told), told[-1].steps)

    assert steps[None] == (1, 300)
    assert steps[1000.0] == (300, 300)


def written(state: object) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


PARTS = ("trained", "optimizer", "average", "updates", "step", "seconds")
OF_BEFORE = written({"run": "of an older version", **{part: torch.zeros(1000) for part in PARTS}})


@pytest.mark.parametrize(
    "checkpoint",
    [OF_BEFORE, OF_BEFORE[:9000], b"", bytes(len(OF_BEFORE)), written([1, 2])],
    ids=["of-other-settings", "cut-off", "empty", "zeros", "a-list"],
)
def test_a_job_whose_checkpoint_is_of_other_settings_or_damaged_begins_anew_and_says_so(
    checkpoint: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base, out = tmp_path / "tiny", tmp_path / "out"
    tiny_model().save_pretrained(base)
    tiny_processor().save_pretrained(base)
    trainer = GlipTrainer(base, FakeImages({REVIEWED.sha256: picture(1)}), "cpu")
    out.mkdir()
    (out / CHECKPOINT).write_bytes(checkpoint)
    told: list[TrainingProgress] = []
    request = TrainingRequest("command", Mode.HEAD, minutes=1e-5)

    trainer.train(FrozenData(LABELS, (REVIEWED,)), request, None, out, told.append)

    assert [progress.step for progress in told] == [1]
    assert {file.name for file in out.iterdir()} == {"adapter.json", "adapter.safetensors"}
    assert [record.getMessage() for record in caplog.records] == [
        f"{out / CHECKPOINT}: damaged, or of other settings or another base, as before an upgrade: training begins anew"
    ]


def test_a_full_disk_is_told_with_the_folder_and_training_goes_on_once_there_is_room(tmp_path: Path) -> None:
    base, out = tmp_path / "tiny", tmp_path / "out"
    tiny_model().save_pretrained(base)
    tiny_processor().save_pretrained(base)
    out.mkdir()
    trainer = GlipTrainer(base, FakeImages({REVIEWED.sha256: picture(1)}), "cpu", minutes=1e-5)
    data, request = FrozenData(LABELS, (REVIEWED,)), TrainingRequest("command", Mode.HEAD)

    with largest_file(4096), pytest.raises(StorageError, match=rf"^{out}: cannot be written \(File too large\): make"):
        trainer.train(data, request, None, out, lambda progress: None)
    assert list(out.iterdir()) == []
    trainer.train(data, request, None, out, lambda progress: None)
    assert (out / "adapter.json").is_file()


@pytest.mark.parametrize(
    "write",
    [
        lambda folder: tiny_model().save_pretrained(folder),
        lambda folder: small_tokenizer(WORDS).backend_tokenizer.save(str(folder / "tokenizer.json")),
        lambda folder: (folder / "adapter.json").write_text("{}" * 1000),
    ],
    ids=["safetensors", "tokenizers", "python"],
)
def test_a_full_disk_is_known_whichever_library_writes(
    write: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glip_model.finetune.finetune", lambda *given: write(given[4]))
    trainer = GlipTrainer(tmp_path, FakeImages(), "cpu")

    with largest_file(1024), pytest.raises(StorageError, match="cannot be written"):
        trainer.train(FrozenData(LABELS, (REVIEWED,)), TrainingRequest("command"), None, tmp_path, lambda _: None)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EIO, errno.EACCES])
def test_a_disk_that_fails_is_no_defect_of_the_training(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def finetune(*given: object) -> None:
        raise OSError(number, os.strerror(number), str(tmp_path / CHECKPOINT))

    monkeypatch.setattr("glip_model.finetune.finetune", finetune)
    trainer = GlipTrainer(tmp_path, FakeImages(), "cpu")

    with pytest.raises(StorageError, match=rf"cannot be written \({os.strerror(number)}\): .*mend the disk"):
        trainer.train(FrozenData(LABELS, (REVIEWED,)), TrainingRequest("command"), None, tmp_path, lambda _: None)


def test_too_little_memory_names_what_needs_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def finetune(*given: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr("glip_model.finetune.finetune", finetune)
    trainer, request = GlipTrainer(tmp_path, FakeImages(), "cpu"), TrainingRequest("command", Mode.FULL)
    cure = r"take --mode head or prompt, a smaller model .* or another device"

    with pytest.raises(TrainingError, match=f"^cpu has too little memory to train .* in mode full: {cure}"):
        trainer.train(FrozenData(LABELS, (REVIEWED,)), request, None, tmp_path, lambda _: None)


def test_a_defect_stays_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def finetune(*given: object) -> None:
        raise RuntimeError("?")

    monkeypatch.setattr("glip_model.finetune.finetune", finetune)
    trainer = GlipTrainer(tmp_path, FakeImages(), "cpu")

    with pytest.raises(RuntimeError, match=r"^\?$"):
        trainer.train(FrozenData(LABELS, (REVIEWED,)), TrainingRequest("command"), None, tmp_path, lambda _: None)


@pytest.mark.parametrize(
    ("name", "word", "mirrors"),
    [
        ("cat", "cat", True),
        ("cat", "left hand", False),
        ("cat", "leftover", True),
        ("left_hand", "left_hand", False),
        ("left_hand", "hand", False),
    ],
)
def test_views_are_mirrored_unless_a_label_names_a_side(
    name: str, word: str, mirrors: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[FinetuneSettings] = []
    monkeypatch.setattr("glip_model.finetune.finetune", lambda *given: asked.append(given[3]))
    box = LabelledBox(CAT.box, name)
    data = FrozenData(((name, ("animal", word)),), (ReviewedImage(digest_of("train-1"), 64, 48, boxes=(box,)),))

    GlipTrainer(tmp_path, FakeImages(), "cpu").train(data, TrainingRequest("command"), None, tmp_path, lambda _: None)

    assert asked[0].handling.mirror is mirrors


def test_a_whole_model_goes_on_from_where_the_data_say_and_an_adapter_stays_with_the_base(tmp_path: Path) -> None:
    base, start = tmp_path / "base", tmp_path / "start"
    for folder, factor in ((base, 1.0), (start, 3.0)):
        model = tiny_model()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(factor)
        model.save_pretrained(folder)
        tiny_processor().save_pretrained(folder)
    trainer = GlipTrainer(base, FakeImages({REVIEWED.sha256: picture(1)}), "cpu")
    data = FrozenData(LABELS, (REVIEWED,), start="tiny-0001")

    for mode, out in ((Mode.FULL, tmp_path / "full"), (Mode.PROMPT, tmp_path / "prompt")):
        out.mkdir()
        trainer.train(data, TrainingRequest("command", mode, minutes=0.001), start, out, lambda progress: None)

    kernels = [
        next(parameter for parameter in load_model_folder(folder, CPU)[0].parameters() if parameter.ndim > 1)
        for folder in (tmp_path / "full", base, start)
    ]
    assert (kernels[0] - kernels[2]).norm() < 0.1 * (kernels[0] - kernels[1]).norm()
    load_adapter(tmp_path / "prompt", base, CPU)
