"""The pre-training loop and its recipe, on pictures of 160 pixels."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from glip_model.loading import ModelFolderError, load_model_folder
from glip_model.modeling_glip import GlipForDetection
from glip_model.pretraining.batches import Mixture
from glip_model.pretraining.kept import PretrainingError
from glip_model.pretraining.recipe import Schedule, nano_config
from glip_model.pretraining.run import RunSettings, pretrain
from glip_model.training.optimisation import AveragedWeights, parameter_groups
from tests.glip_model.tiny import tiny_model, tiny_processor


def settings(steps: int, *, fusion: bool = True) -> RunSettings:
    return RunSettings(
        steps=steps,
        processes=1,
        early_fusion=fusion,
        mixture=Mixture(batch_size=1, sides=(160,)),
        schedule=Schedule(last_share=1.0, warm_up_steps=1),
    )


def log_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_run_leaves_a_model_that_loads_and_fits_into_twenty_megabytes(tmp_path: Path) -> None:
    pretrain(tmp_path / "run", [], [], settings(1))
    model, processor = load_model_folder(tmp_path / "run", torch.device("cpu"))
    assert model.dtype == torch.float32
    assert processor.tokenizer.tokenize("striped star") == ["striped", "star"]
    assert (tmp_path / "run" / "model.safetensors").stat().st_size < 20e6
    assert log_of(tmp_path / "run")[0]["step"] == 1


def test_a_resumed_run_ends_with_the_same_weights_as_one_that_was_never_stopped(tmp_path: Path) -> None:
    pretrain(tmp_path / "whole", [], [], settings(3))
    for steps in (2, 3):
        pretrain(tmp_path / "parts", [], [], settings(steps))
    whole, parts = (torch.load(tmp_path / name / "checkpoint.pt") for name in ("whole", "parts"))
    assert whole["step"] == parts["step"] == 3
    for name, tensor in whole["model"].items():
        torch.testing.assert_close(parts["model"][name], tensor, rtol=0, atol=1e-6)


def test_a_finished_run_that_is_started_again_changes_nothing(tmp_path: Path) -> None:
    pretrain(tmp_path, [], [], settings(1))
    before = torch.load(tmp_path / "checkpoint.pt")["average"]
    pretrain(tmp_path, [], [], settings(1))
    after = torch.load(tmp_path / "checkpoint.pt")["average"]
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    pretrain(tmp_path, [], [], settings(1))
    with pytest.raises(PretrainingError, match=r"checkpoint\.pt: of a run with"):
        pretrain(tmp_path, [], [], settings(1, fusion=False))


def test_numbers_that_are_not_finite_stop_the_run_and_keep_the_last_checkpoint(tmp_path: Path) -> None:
    pretrain(tmp_path, [], [], settings(1))
    checkpoint = torch.load(tmp_path / "checkpoint.pt")
    checkpoint["model"]["head.prior_bias"].fill_(float("nan"))
    torch.save(checkpoint, tmp_path / "checkpoint.pt")
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(PretrainingError, match=r"first weight not finite: head\.prior_bias"):
        pretrain(tmp_path, [], [], settings(2))
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_a_run_may_start_from_another_runs_weights_and_word_head(tmp_path: Path) -> None:
    pretrain(tmp_path / "first", [], [], settings(1))
    start = load_model_folder(tmp_path / "first", torch.device("cpu"))[0].state_dict()
    again = RunSettings(
        steps=1,
        processes=1,
        init=tmp_path / "first",
        mixture=Mixture(batch_size=1, sides=(160,)),
        schedule=Schedule(peak_lr=0.0),
    )
    pretrain(tmp_path / "second", [], [], again)
    first, second = (torch.load(tmp_path / name / "checkpoint.pt") for name in ("first", "second"))
    assert torch.equal(second["model"]["head.box.weight"], start["head.box.weight"])
    assert torch.equal(second["word_head"]["words.weight"], first["word_head"]["words.weight"])


def test_learning_words_alone_leaves_the_text_encoder_and_the_tower_as_they_were(tmp_path: Path) -> None:
    pretrain(tmp_path / "first", [], [], settings(1))
    only_words = replace(settings(1), init=tmp_path / "first", words_only=True)
    pretrain(tmp_path / "second", [], [], only_words)
    first, second = (load_model_folder(tmp_path / name, torch.device("cpu"))[0] for name in ("first", "second"))
    later = second.state_dict()
    changed = {
        name.split(".")[0] for name, tensor in first.state_dict().items() if not torch.equal(later[name], tensor)
    }
    assert changed == {"backbone", "pyramid"}


def test_a_run_without_fusion_may_start_from_one_with_fusion(tmp_path: Path) -> None:
    pretrain(tmp_path / "fused", [], [], settings(1))
    unfused = replace(settings(1, fusion=False), init=tmp_path / "fused", schedule=Schedule(peak_lr=0.0))
    pretrain(tmp_path / "unfused", [], [], unfused)
    start = load_model_folder(tmp_path / "fused", torch.device("cpu"))[0].state_dict()
    end = torch.load(tmp_path / "unfused" / "checkpoint.pt")["model"]
    assert torch.equal(end["tower.0.dynamic_conv.offset.weight"], start["tower.0.dynamic_conv.offset.weight"])
    assert torch.equal(end["pyramid.p6.weight"], start["pyramid.p6.weight"])
    assert not any("fusion" in name for name in end)


def test_a_start_from_what_is_no_glip_nano_is_refused_with_its_cause(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path / "tiny")
    with pytest.raises(ModelFolderError, match=r"tokenizer\.json or vocab\.txt is missing"):
        pretrain(tmp_path / "run", [], [], replace(settings(1), init=tmp_path / "tiny"))
    tiny_processor().save_pretrained(tmp_path / "tiny")
    with pytest.raises(PretrainingError, match="tiny: its weights have other shapes than glip-nano's"):
        pretrain(tmp_path / "run", [], [], replace(settings(1), init=tmp_path / "tiny"))


@pytest.mark.parametrize("part", ["run", "init"])
def test_a_checkpoint_from_before_the_word_head_is_named(tmp_path: Path, part: str) -> None:
    pretrain(tmp_path / "old", [], [], settings(1))
    checkpoint = torch.load(tmp_path / "old" / "checkpoint.pt")
    del checkpoint["word_head"]
    torch.save(checkpoint, tmp_path / "old" / "checkpoint.pt")
    out, init = (tmp_path / "old", None) if part == "run" else (tmp_path / "new", tmp_path / "old")
    with pytest.raises(PretrainingError, match=r"checkpoint\.pt: of an older glip-label"):
        pretrain(out, [], [], replace(settings(2), init=init))


def test_without_fusion_the_tower_holds_no_cross_attention() -> None:
    fused, unfused = (GlipForDetection(nano_config(100, early_fusion=on)) for on in (True, False))
    assert any("fusion" in name for name, _ in fused.named_parameters())
    assert not any("fusion" in name for name, _ in unfused.named_parameters())


def test_the_rate_rises_then_falls_to_its_last_share() -> None:
    schedule = Schedule(peak_lr=1.0, last_share=0.1, warm_up_steps=10)
    assert schedule.learning_rate(0, 0.0) == pytest.approx(0.1)
    assert schedule.learning_rate(10, 0.0) == pytest.approx(1.0)
    assert schedule.learning_rate(500, 0.5) == pytest.approx(0.55)
    assert schedule.learning_rate(900, 1.0) == schedule.learning_rate(999, 1.2) == pytest.approx(0.1)


def test_only_kernels_decay() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    kernels, rest = parameter_groups(model, 0.05)
    assert (kernels["weight_decay"], rest["weight_decay"]) == (0.05, 0.0)
    assert [len(group["params"]) for group in (kernels, rest)] == [1, 3]


def test_averaged_weights_follow_fast_at_first_and_copy_whole_numbers() -> None:
    average = AveragedWeights({"w": torch.zeros(2), "n": torch.tensor(1)}, decay=0.9)
    average.update({"w": torch.ones(2), "n": torch.tensor(7)})
    assert average.state["w"].tolist() == pytest.approx([1 - 2 / 11] * 2)
    assert average.state["n"] == 7
