"""What modes "prompt" and "head" keep of views: no more than there is room for, and learning is the same."""

import gc
import weakref
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from glip_model.caption import Caption
from glip_model.finetuning.batches import Asking
from glip_model.finetuning.examples import Pictures, View
from glip_model.finetuning.student import KEPT_BYTES, Asked, HeadStudent, KeepingStudent, PromptStudent
from glip_model.loading import load_model_folder
from glip_model.training.samples import Handling, Sample
from tests.glip_model.finetuning_cases import CPU, PROMPTS, SIDE, examples, save_tiny_base

EXAMPLES = examples(4)
KEYS = [View(number, 0, SIDE) for number in range(len(EXAMPLES))]
MODES = ("prompt", "head")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_base(tmp_path_factory.mktemp("bases") / "tiny")


def student_of(
    mode: str, base: Path, room: int = KEPT_BYTES
) -> tuple[KeepingStudent[Any], tuple[Caption, ...], Pictures]:
    """A student, two captions to ask with, and the views."""
    model, processor = load_model_folder(base, CPU)
    captions = Asking(processor.tokenizer, PROMPTS, EXAMPLES, max_tokens=5).all_captions
    pictures = Pictures(EXAMPLES, processor.image_processor.settings, Handling(), seed=0)
    if mode == "prompt":
        return PromptStudent(model, processor, captions, room), captions, pictures
    return HeadStudent(model, processor, room), captions, pictures


def asked(student: KeepingStudent[Any], caption: Caption, key: View, sample: Sample) -> Asked:
    drawn: Future[Sample] = Future()
    drawn.set_result(sample)
    return Asked(key, caption, 1.0, None if student.keeps(key, caption) else drawn)


def learned(mode: str, base: Path, room: int) -> tuple[list[Tensor], int]:
    """Losses and gradients of three rounds through two captions and four views, and bytes of tensors left then."""
    student, captions, pictures = student_of(mode, base, room)
    before, numbers = tensor_bytes(), []
    for step in range(6):
        caption = captions[step % len(captions)]
        batch = [asked(student, caption, key, pictures.view(key)) for key in KEYS]
        loss = torch.stack(list(student.losses(batch).values())).sum()
        student.trained.zero_grad()
        loss.backward()
        gradients = [each.grad.flatten() for each in student.trained.parameters() if each.grad is not None]
        numbers.append(torch.cat([loss.detach()[None], *gradients]).numpy())
    del batch, loss, gradients
    student.trained.zero_grad()
    return [torch.from_numpy(each) for each in numbers], tensor_bytes() - before


def tensor_bytes() -> int:
    gc.collect()
    storages = [
        each.untyped_storage() for each in gc.get_objects() if type(each) is Tensor and each.layout is torch.strided
    ]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


@pytest.mark.parametrize("mode", MODES)
def test_no_more_is_kept_than_there_is_room_for_and_the_rest_teaches_the_same(base: Path, mode: str) -> None:
    expected, _ = learned(mode, base, room=1)
    _, nothing = learned(mode, base, room=1)  # again, now that what any run leaves for the next is there
    roomy, everything = learned(mode, base, KEPT_BYTES)
    room = (everything - nothing) // 2
    tight, half = learned(mode, base, room)
    assert 0 < half - nothing <= room
    for numbers in (roomy, tight):
        for number, wanted in zip(numbers, expected, strict=True):
            torch.testing.assert_close(number, wanted, rtol=1e-5, atol=1e-6)  # memory is aligned otherwise


@pytest.mark.parametrize("mode", MODES)
def test_pixels_of_what_is_kept_are_let_go(base: Path, mode: str) -> None:
    student, captions, pictures = student_of(mode, base)
    sample = pictures.view(KEYS[0])
    pixels = weakref.ref(sample.rgb)
    student.losses([asked(student, captions[0], KEYS[0], sample)])
    assert student.keeps(KEYS[0], captions[0])
    del sample
    gc.collect()
    assert pixels() is None
