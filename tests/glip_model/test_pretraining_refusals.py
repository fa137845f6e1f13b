"""Pre-training that cannot start or go on: one line with the cause, and nothing lost."""

import json
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from glip_model.loading import load_model_folder
from glip_model.modeling_glip import GlipForDetection
from glip_model.pretraining.coco_sets import DataError, RealSet
from glip_model.pretraining.kept import PretrainingError, writing
from glip_model.pretraining.recipe import nano_config, save_model
from glip_model.pretraining.run import pretrain
from glip_model.pretraining.tokenizer import train_tokenizer
from tests.full_disk import largest_file
from tests.glip_model.test_pretraining_run import settings


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    pretrain(folder, [], [], settings(1))
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def a_word_less(folder: Path) -> None:
    words = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = words["model"]["vocab"]
    del vocabulary[max(vocabulary, key=vocabulary.get)]
    (folder / "tokenizer.json").write_text(json.dumps(words))


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda run: (run / "checkpoint.pt").write_bytes(b""), r"checkpoint\.pt: no checkpoint, or a damaged one"),
        (lambda run: (run / "checkpoint.pt").write_bytes(b"text"), r"checkpoint\.pt: no checkpoint, or a damaged"),
        (lambda run: os.truncate(run / "checkpoint.pt", 9000), r"checkpoint\.pt: no checkpoint, or a damaged one"),
        (lambda run: torch.save({"model": {}}, run / "checkpoint.pt"), r"checkpoint\.pt: no checkpoint, or a damaged"),
        (lambda run: (run / "tokenizer.json").unlink(), r"run: tokenizer\.json is missing or damaged"),
        (lambda run: (run / "tokenizer.json").write_text("{"), r"run: tokenizer\.json is missing or damaged"),
        (a_word_less, r"run: checkpoint\.pt does not fit the tokenizer there"),
    ],
    ids=["empty", "text", "cut off", "without parts", "no tokenizer", "damaged tokenizer", "another tokenizer"],
)
def test_a_damaged_run_is_not_gone_on_with(damage: Callable[[Path], object], complaint: str, run: Path) -> None:
    damage(run)
    with pytest.raises(PretrainingError, match=complaint):
        pretrain(run, [], [], settings(2))


def test_a_full_disk_keeps_the_last_checkpoint_and_its_model(run: Path) -> None:
    before = {file.name: file.read_bytes() for file in run.iterdir() if file.name != "log.jsonl"}
    allowed = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, allowed[1]))
    try:
        with pytest.raises(PretrainingError, match=r"cannot write .*run: .*File too large.*: the same command goes on"):
            pretrain(run, [], [], settings(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, allowed)
    assert {file.name: file.read_bytes() for file in run.iterdir() if file.name != "log.jsonl"} == before
    load_model_folder(run, torch.device("cpu"))


def test_a_full_disk_under_the_tokenizer_is_named(tmp_path: Path) -> None:
    words = train_tokenizer([]).backend_tokenizer
    refused = pytest.raises(PretrainingError, match=rf"^cannot write {tmp_path}: File too large")
    with largest_file(1024), refused, writing(tmp_path):
        words.save(str(tmp_path / "tokenizer.json"))


def test_a_full_disk_under_the_log_is_named(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    with pytest.raises(PretrainingError, match=r"cannot write .*log\.jsonl: No space left on device"):
        pretrain(tmp_path, [], [], settings(1))


@pytest.mark.parametrize("blocks", [1, 3])
def test_a_start_from_a_deeper_or_flatter_network_is_refused(blocks: int, tmp_path: Path) -> None:
    tokenizer = train_tokenizer([])
    config = nano_config(len(tokenizer))
    config.num_blocks = blocks
    save_model(tmp_path / "other", config, GlipForDetection(config).state_dict(), tokenizer)
    with pytest.raises(PretrainingError, match=r"other: is another network than glip-nano, as tower\..* shows"):
        pretrain(tmp_path / "run", [], [], replace(settings(1), init=tmp_path / "other"))


def test_a_start_from_a_damaged_checkpoint_is_refused(run: Path, tmp_path: Path) -> None:
    (run / "checkpoint.pt").write_bytes(b"")
    with pytest.raises(PretrainingError, match=r"run.checkpoint\.pt: no checkpoint, or a damaged one"):
        pretrain(tmp_path / "next", [], [], replace(settings(1), init=run))


def test_what_one_of_several_processes_raises_is_raised_as_it_was(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^nothing: has no images: leave the set out$"):
        pretrain(tmp_path, [RealSet("nothing", ("cat",), ())], [1.0], replace(settings(1), processes=2))
    assert logging.getLogger("torch.multiprocessing.spawn").level == logging.ERROR


def test_an_interruption_of_the_command_alone_ends_its_processes_too(tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ("pretrain", str(out), "--stage", "words", "--minutes", "9")
    command = subprocess.Popen(
        [sys.executable, "-m", "backend.cli", *words], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 180
    while not (out / "log.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    command.send_signal(signal.SIGINT)
    _, complaint = command.communicate(timeout=90)  # the processes hold stderr open as long as they run
    assert command.returncode == 130
    assert complaint.endswith("glip-label: interrupted\n")
