"""Fine-tuning a tiny model on squares whose names its base was taught the wrong way round."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from glip_model.adapters import load_adapter, weights_sha256
from glip_model.finetune import (
    FinetuneSettings,
    OtherRunError,
    Progress,
    TrainingError,
    TrainingExample,
    default_settings,
    finetune,
)
from glip_model.finetuning.settings import Mode
from glip_model.inference import GlipDetector
from glip_model.loading import load_model_folder
from glip_model.sentence import parse_sentence
from glip_model.training.machine import save_checkpoint
from tests.glip_model.finetuning_cases import CPU, PROMPTS, ap50, example, examples, save_tiny_base, settings, squares

MODES: tuple[Mode, ...] = ("prompt", "head", "full")
STEPS = {"prompt": 60, "head": 200, "full": 50}
RATES = {"prompt": 0.1, "head": 0.01, "full": 0.004}
LEAST_GAINS = {"prompt": 0.2, "head": 0.05, "full": 0.2}
"""Of AP50; with other seeds and on other processors a head gained 0.16 and more, the others 0.49 and more."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """So small a model gains nothing from threads, and a busy machine makes them wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that was taught to call bright squares "red dog" and dark ones "cat"."""
    folder = tmp_path_factory.mktemp("bases")
    wrong = settings("full", 100, learning_rate=0.004)
    finetune(save_tiny_base(folder / "random"), PROMPTS[::-1], examples(12), wrong, folder / "base")
    return folder / "base"


def detector_of(base: Path, version: Path, mode: Mode) -> GlipDetector:
    if mode == "full":
        return GlipDetector.from_folder(version, CPU)
    return GlipDetector.from_folder(base, CPU).adapted(load_adapter(version, base, CPU))


def result(folder: Path) -> dict[str, Tensor]:
    if (folder / "config.json").exists():
        return load_model_folder(folder, CPU)[0].state_dict()
    return load_file(folder / "adapter.safetensors")


def files_of(folder: Path) -> dict[str, str]:
    return {file.name: sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


@pytest.mark.parametrize("mode", MODES)
def test_each_mode_lowers_the_loss_and_finds_more(base: Path, tmp_path: Path, mode: Mode) -> None:
    said: list[Progress] = []
    before = files_of(base)
    wanted = settings(mode, STEPS[mode], learning_rate=RATES[mode])
    finetune(base, PROMPTS, examples(), wanted, tmp_path / "version", said.append)
    losses = [progress.loss for progress in said]
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:3])
    gained = ap50(detector_of(base, tmp_path / "version", mode)) - ap50(GlipDetector.from_folder(base, CPU))
    assert gained > LEAST_GAINS[mode]
    assert (said[-1].step, said[-1].steps, said[-1].remaining_seconds) == (STEPS[mode], STEPS[mode], 0)
    assert said[-1].epoch == pytest.approx(STEPS[mode] * 4 / 6)
    assert not list(tmp_path.glob("version/*checkpoint*")) + list(tmp_path.glob("version/*.part"))
    assert files_of(base) == before


@pytest.mark.parametrize("mode", MODES)
def test_a_label_that_nobody_looked_for_adds_nothing_to_the_loss(base: Path, tmp_path: Path, mode: Mode) -> None:
    rgb, boxes, _ = squares(0)
    losses = []
    for unasked in ((), (1,)):
        said: list[Progress] = []
        told = TrainingExample(lambda: rgb, boxes[:1], (0,), unasked=unasked)
        finetune(base, PROMPTS, [told], settings(mode, 1), tmp_path / f"{len(unasked)}", said.append)
        losses.append(said[0].loss)
    assert losses[1] < losses[0]


class StoppedError(Exception):
    pass


def stop(progress: Progress) -> None:
    """Break a run off at its second step, or at its end if that is sooner."""
    if progress.step == min(2, progress.steps):
        raise StoppedError


@pytest.mark.parametrize("mode", MODES)
def test_a_run_that_was_stopped_goes_on_and_ends_as_if_it_had_not_been(base: Path, tmp_path: Path, mode: Mode) -> None:
    wanted = settings(mode, 5, checkpoint_seconds=0.0)
    finetune(base, PROMPTS, examples(), wanted, tmp_path / "whole")

    def stop_at_three(progress: Progress) -> None:
        if progress.step == 3:
            raise StoppedError

    with pytest.raises(StoppedError):
        finetune(base, PROMPTS, examples(), wanted, tmp_path / "parts", stop_at_three)
    assert [file.name for file in (tmp_path / "parts").iterdir()] == ["checkpoint.pt"]
    steps: list[int] = []
    finetune(base, PROMPTS, examples(), wanted, tmp_path / "parts", lambda progress: steps.append(progress.step))
    assert steps == [3, 4, 5]  # the third was not in the checkpoint yet
    whole, parts = result(tmp_path / "whole"), result(tmp_path / "parts")
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, rtol=0, atol=1e-6)


def test_a_finished_folder_is_left_as_it_is(base: Path, tmp_path: Path) -> None:
    finetune(base, PROMPTS, examples(), settings("head", 1), tmp_path)
    before = files_of(tmp_path)
    finetune(base, PROMPTS, examples(), settings("head", 1), tmp_path, stop)
    assert files_of(tmp_path) == before


def test_a_run_killed_between_its_result_and_its_end_writes_the_result_again(base: Path, tmp_path: Path) -> None:
    def keep_checkpoint(progress: Progress) -> None:
        if progress.step == 2:
            (tmp_path / "kept").write_bytes((tmp_path / "run" / "checkpoint.pt").read_bytes())

    wanted = settings("full", 2, checkpoint_seconds=0.0)
    finetune(base, PROMPTS, examples(), wanted, tmp_path / "run", keep_checkpoint)
    whole = result(tmp_path / "run")
    (tmp_path / "kept").rename(tmp_path / "run" / "checkpoint.pt")
    (tmp_path / "run" / "model.safetensors").unlink()
    finetune(base, PROMPTS, examples(), wanted, tmp_path / "run")
    assert all(torch.equal(tensor, whole[name]) for name, tensor in result(tmp_path / "run").items())
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


@pytest.mark.parametrize("change", ["seed", "data", "prompts"])
def test_a_checkpoint_of_another_run_is_refused(base: Path, tmp_path: Path, change: str) -> None:
    wanted = settings("head", 2, checkpoint_seconds=0.0)
    with pytest.raises(StoppedError):
        finetune(base, PROMPTS, examples(), wanted, tmp_path, stop)
    others = examples()
    if change == "data":
        others[0] = example(0, rejected_xyxy=np.array([[1, 1, 9, 9]], np.float32), rejected_labels=(0,))
    prompts = [["cat"], ["dog"]] if change == "prompts" else PROMPTS
    other = replace(wanted, seed=1) if change == "seed" else wanted
    with pytest.raises(OtherRunError, match=r"checkpoint\.pt: of another run"):
        finetune(base, prompts, others, other, tmp_path)


def test_writing_checkpoints_that_take_long_takes_a_small_part_of_a_run(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    took = []

    def write_slowly(path: Path, state: dict[str, Any]) -> None:
        began = time.monotonic()
        time.sleep(0.05)
        save_checkpoint(path, state)
        took.append(time.monotonic() - began)

    monkeypatch.setattr("glip_model.finetune.save_checkpoint", write_slowly)
    said: list[Progress] = []
    finetune(base, PROMPTS, examples(), settings("head", 20, checkpoint_seconds=0.01), tmp_path, said.append)
    *between, _, _ = took  # before the last but one; the last is written after the last step
    assert said[-1].seconds > 10 * sum(between)


def stopped_after_half_a_minute(base: Path, folder: Path) -> FinetuneSettings:
    """Leave a checkpoint of the first of 1000 steps, as if that had taken 30 seconds; returns the run's settings."""
    wanted = settings("head", 1000, minutes=20.0, checkpoint_seconds=0.0)
    with pytest.raises(StoppedError):
        finetune(base, PROMPTS, examples(), wanted, folder, stop)
    checkpoint = torch.load(folder / "checkpoint.pt", weights_only=True)
    torch.save({**checkpoint, "seconds": 30.0}, folder / "checkpoint.pt")
    return wanted


def test_a_run_goes_on_with_other_minutes_of_which_some_are_spent(base: Path, tmp_path: Path) -> None:
    wanted = stopped_after_half_a_minute(base, tmp_path)
    said: list[Progress] = []
    rates: list[float] = []

    def listen(progress: Progress) -> None:
        said.append(progress)
        groups = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["optimizer"]["param_groups"]
        rates.append(groups[0]["lr"] / groups[0]["peak"])  # as of the step before

    finetune(base, PROMPTS, examples(), replace(wanted, minutes=30.3 / 60, device="cpu"), tmp_path, listen)
    assert said[0].step == 2
    assert said[0].remaining_seconds < 0.3
    assert 30.3 <= said[-1].seconds < 33
    assert all(rate < 0.02 for rate in rates[1:])  # the rate has fallen as far as the time is spent


def test_a_run_whose_minutes_are_spent_before_it_goes_on_ends_with_what_it_learned(base: Path, tmp_path: Path) -> None:
    wanted = stopped_after_half_a_minute(base, tmp_path)
    learned = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["average"]
    finetune(base, PROMPTS, examples(), replace(wanted, minutes=0.25), tmp_path, stop)
    assert all(torch.equal(result(tmp_path)[f"head.{name}"], tensor) for name, tensor in learned.items())


def test_a_run_by_the_clock_goes_on_without_one_to_its_last_step(base: Path, tmp_path: Path) -> None:
    timed = settings("head", 5, minutes=20.0, checkpoint_seconds=0.0)
    with pytest.raises(StoppedError):
        finetune(base, PROMPTS, examples(), timed, tmp_path / "parts", stop)
    for folder in (tmp_path / "parts", tmp_path / "whole"):
        finetune(base, PROMPTS, examples(), replace(timed, minutes=None), folder)
    parts, whole = result(tmp_path / "parts"), result(tmp_path / "whole")
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_numbers_that_are_not_finite_stop_the_run_without_a_result(base: Path, tmp_path: Path, mode: Mode) -> None:
    with pytest.raises(
        TrainingError, match=r"^step \d+: loss .*: train in another mode or with another seed, or [^\n]*$"
    ):
        finetune(base, PROMPTS, examples(), settings(mode, 6, learning_rate=1e38), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_biases_move_twice_as_fast_and_do_not_decay_nor_do_norms(base: Path, tmp_path: Path) -> None:
    wanted = settings("full", 3, learning_rate=0.001, checkpoint_seconds=0.0)
    with pytest.raises(StoppedError):
        finetune(base, PROMPTS, examples(), wanted, tmp_path, stop)
    groups = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["optimizer"]["param_groups"]
    counts = {(group["peak"], group["weight_decay"]): len(group["params"]) for group in groups}
    named = load_model_folder(base, CPU)[0].named_parameters()
    kinds = Counter((0.002, 0.0) if "bias" in name else (0.001, 0.05 * (each.ndim > 1)) for name, each in named)
    assert counts == kinds


def test_without_an_adapter_the_base_answers_as_before_any(base: Path, tmp_path: Path) -> None:
    detector = GlipDetector.from_folder(base, CPU)
    captions = detector.captions(PROMPTS)
    weights = {name: tensor.clone() for name, tensor in detector.model.state_dict().items()}
    before = detector.detect([squares(0)[0]], captions)[0]
    for mode in ("prompt", "head"):
        wanted = settings(mode, 10, learning_rate=RATES[mode])
        finetune(base, PROMPTS, examples(), wanted, tmp_path / mode)
        adapted = detector.adapted(load_adapter(tmp_path / mode, base, CPU))
        changed = adapted.detect([squares(0)[0]], captions)[0]
        assert not torch.equal(changed.scores, before.scores)
        for off in (detector, adapted.adapted(None)):
            after = off.detect([squares(0)[0]], captions)[0]
            assert torch.equal(after.scores, before.scores)
            assert torch.equal(after.boxes_xyxy, before.boxes_xyxy)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in detector.model.state_dict().items())
    facts = json.loads((tmp_path / "head" / "adapter.json").read_text())
    assert facts["base_sha256"] == weights_sha256(base) == sha256((base / "model.safetensors").read_bytes()).hexdigest()


def test_frozen_parts_of_a_full_run_stay_as_they_are(base: Path, tmp_path: Path) -> None:
    frozen = ("backbone", "text_encoder.embeddings")
    finetune(base, PROMPTS, examples(), settings("full", 2, frozen=frozen), tmp_path)
    before, after = load_model_folder(base, CPU)[0].state_dict(), load_model_folder(tmp_path, CPU)[0].state_dict()
    for name, tensor in before.items():
        if name.startswith(frozen):
            assert torch.equal(after[name], tensor), name
    assert not torch.equal(after["pyramid.p6.weight"], before["pyramid.p6.weight"])
    encoder = "text_encoder.encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(after[encoder], before[encoder])


def test_sentences_and_names_mix_in_one_run(base: Path, tmp_path: Path) -> None:
    mixed = [example(0), example(1, sentence=parse_sentence("a [cat] behind [two dogs]"))]
    for mode in MODES:
        said: list[Progress] = []
        finetune(base, PROMPTS, mixed, settings(mode, 3, batch_size=2), tmp_path / mode, said.append)
        assert all(0 < progress.loss < 100 for progress in said)


def test_a_run_by_the_clock_ends_in_time(base: Path, tmp_path: Path) -> None:
    said: list[Progress] = []
    finetune(base, PROMPTS, examples(), settings("head", 10**6, minutes=0.01), tmp_path, said.append)
    assert 0.6 <= said[-1].seconds < 10
    assert said[-1].remaining_seconds == 0


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ([], "no example has a box"),
        ([example(0, boxes_xyxy=np.zeros((0, 4), np.float32), labels=())], "no example has a box"),
        ([example(0, labels=(0, 2))], "example 0: a label has no prompt, there are 2"),
        ([example(0), example(1, labels=(0,))], "example 1: as many labels as boxes are needed"),
    ],
)
def test_examples_that_teach_nothing_are_refused(
    base: Path, tmp_path: Path, wrong: list[TrainingExample], reason: str
) -> None:
    with pytest.raises(TrainingError, match=reason):
        finetune(base, PROMPTS, wrong, settings("head", 1), tmp_path)


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (settings("full", frozen=("neck",)), "nothing to freeze is called 'neck'"),
        (settings("full", frozen=("",)), "all parts are frozen"),
        (settings("head", frozen=("backbone",)), 'mode "head" freezes all but its own part'),
    ],
)
def test_parts_that_cannot_be_frozen_are_named(
    base: Path, tmp_path: Path, wanted: FinetuneSettings, reason: str
) -> None:
    with pytest.raises(TrainingError, match=reason):
        finetune(base, PROMPTS, examples(), wanted, tmp_path)


def test_few_pictures_teach_prompts_and_many_the_whole_model() -> None:
    assert default_settings(examples(3), CPU).mode == "prompt"
    assert default_settings(examples(3), CPU, "head").mode == "head"
    few, many, more = (default_settings(examples(count), CPU) for count in (60, 160, 1000))
    assert few.mode == many.mode == "full"
    assert few.steps < many.steps == 400 + 12 * 160
    assert more.steps == 2400
    assert default_settings(examples(200), CPU, further=True).steps < many.steps
    assert (few.minutes, default_settings(examples(60), torch.device("cuda")).minutes) == (20.0, None)


def test_the_device_that_was_chosen_is_trained_on(base: Path, tmp_path: Path) -> None:
    assert default_settings(examples(60), torch.device("cuda")).device == "cuda"
    with pytest.raises(RuntimeError, match="meta"):  # as torch says that it cannot compute there
        finetune(base, PROMPTS, examples(6), settings("full", 2, device="meta"), tmp_path)
