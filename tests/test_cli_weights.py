"""``glip-label weights`` from the words typed to a model folder that loads."""

import gzip
import json
import pickle
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from backend.cli import run
from glip_model.loading import load_model_folder
from tests.full_disk import largest_file
from tests.glip_model.text import small_tokenizer
from tests.golden.cases import FOLDER, official_shapes, tiny_config, write_official_checkpoint


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GLIP_LABEL_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "no cache"))


@pytest.fixture
def tokenizer(tmp_path: Path) -> str:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "vocab.txt").write_bytes(gzip.decompress((FOLDER / "vocab.txt.gz").read_bytes()))
    return str(folder)


@pytest.fixture
def config(tmp_path: Path) -> str:
    file = tmp_path / "tiny.json"
    file.write_text(json.dumps(tiny_config().to_dict()))
    return str(file)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    file = tmp_path / "tiny.pth"
    write_official_checkpoint(file, official_shapes("tiny"), "some")
    return file


@pytest.fixture
def options(config: str, tokenizer: str) -> tuple[str, ...]:
    return ("--config", config, "--tokenizer", tokenizer)


def convert(file: Path, out: Path, *words: str) -> int:
    return run(["weights", "convert", str(file), str(out), *words])


def changed(file: Path, name: str, tensor: torch.Tensor | None) -> Path:
    """Replace a weight in the checkpoint, or take it out."""
    state = torch.load(file, weights_only=True)
    key = f"module.{name}"
    if tensor is None:
        del state["model"][key]
    else:
        state["model"][key] = tensor
    torch.save(state, file)
    return file


def test_an_official_checkpoint_becomes_a_folder_that_loads(
    checkpoint: Path, config: str, tokenizer: str, tmp_path: Path
) -> None:
    out = tmp_path / "models" / "mine"
    assert convert(checkpoint, out, "--config", config, "--tokenizer", tokenizer) == 0
    model, processor = load_model_folder(out, torch.device("cpu"))
    official = torch.load(checkpoint, weights_only=True)["model"]
    assert torch.equal(model.head.text_bias, official["module.rpn.head.bias_lang"])
    assert len(processor.tokenizer) == 30522
    assert json.loads((out / "config.json").read_text())["boxes_include_last_pixel"] is True
    assert [path.name for path in out.parent.iterdir()] == ["mine"]


def test_a_bare_state_dict_in_the_old_file_format_converts_too(
    checkpoint: Path, config: str, tokenizer: str, tmp_path: Path
) -> None:
    state = torch.load(checkpoint, weights_only=True)["model"]
    old = tmp_path / "old.pth"
    torch.save(
        {name.removeprefix("module."): tensor for name, tensor in state.items()},
        old,
        _use_new_zipfile_serialization=False,
    )
    assert convert(old, tmp_path / "out", "--config", config, "--tokenizer", tokenizer) == 0
    load_model_folder(tmp_path / "out", torch.device("cpu"))


def test_weights_that_share_memory_convert_to_their_own(
    checkpoint: Path, options: tuple[str, ...], tmp_path: Path
) -> None:
    state = torch.load(checkpoint, weights_only=True)
    norm = "module.language_backbone.body.model.embeddings.LayerNorm.weight"
    state["model"]["module.rpn.head.bias_lang"] = state["model"][norm]
    torch.save(state, checkpoint)
    assert convert(checkpoint, tmp_path / "out", *options) == 0
    model, _ = load_model_folder(tmp_path / "out", torch.device("cpu"))
    assert torch.equal(model.head.text_bias, state["model"][norm])


def test_a_checkpoint_whose_records_name_what_it_does_not_hold_is_one_line(
    checkpoint: Path, options: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "old.pth"
    torch.save({"a": torch.zeros(3)}, old, _use_new_zipfile_serialization=False)
    content = old.read_bytes()
    (key, *_) = re.findall(rb"\d{12,}", content)  # of the memory that the tensor lies in
    old.write_bytes(content.replace(key, b"1" * len(key), 1))
    assert convert(old, tmp_path / "out", *options) == 1
    assert "not a PyTorch checkpoint of plain weights, or a damaged one" in capsys.readouterr().err


@pytest.mark.usefixtures("no_hub")
def test_without_a_tokenizer_the_weights_are_converted_and_one_line_says_what_is_missing(
    checkpoint: Path,
    config: str,
    tokenizer: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    assert convert(checkpoint, out, "--config", config) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "put vocab.txt of the Hugging Face repository google-bert/bert-base-uncased into" in line
    assert str(out) in line
    (out / "vocab.txt").write_bytes((Path(tokenizer) / "vocab.txt").read_bytes())
    _, processor = load_model_folder(out, torch.device("cpu"))
    assert processor.tokenizer("a cat").input_ids[0] == processor.tokenizer.cls_token_id


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("rpn.head.bias_lang", None), "missing: head.text_bias"),
        (("rpn.head.bias_lang", torch.zeros(3)), "mis-shaped: head.text_bias (3,) instead of (64,)"),
        (("rpn.head.dyhead_tower.2.DyConv.0.conv.weight", torch.zeros(3, 3)), "mis-shaped"),
        (("rpn.head.scales.2.scale", torch.zeros(3)), "mis-shaped: head.level_scales (7,) instead of (5,)"),
        (("rpn.head.other", torch.zeros(3)), "unknown: rpn.head.other"),
        (
            ("rpn.head.bias0", torch.tensor([float("nan")])),
            "weight module.rpn.head.bias0 holds numbers that are not finite",
        ),
        (
            ("rpn.head.bias_lang", torch.zeros(64).to_sparse()),
            "is no dense tensor of plain numbers (torch.float32, torch.s",
        ),
        (
            ("rpn.head.bias_lang", torch.zeros(64, dtype=torch.float8_e4m3fn)),
            "bias_lang is no dense tensor of plain numb",
        ),
        (
            ("rpn.head.bias_lang", torch.zeros(64, dtype=torch.complex64)),
            "bias_lang is no dense tensor of plain numbers",
        ),
        (
            ("rpn.head.bias_lang", torch.zeros(64, device="meta")),
            "of plain numbers (without numbers): save it as float32",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_by_name(
    change: tuple[str, torch.Tensor | None],
    complaint: str,
    checkpoint: Path,
    options: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    assert convert(changed(checkpoint, *change), out, *options) == 1
    error = capsys.readouterr().err
    assert complaint in error
    assert error.startswith(f"glip-label: {checkpoint}: ")
    assert error.count("\n") == 1
    assert not out.exists()


def test_a_full_disk_is_one_line_and_leaves_nothing_behind(
    checkpoint: Path, options: tuple[str, ...], tmp_path: Path
) -> None:
    out = tmp_path / "models" / "out"
    ended = subprocess.run(
        [sys.executable, "-m", "backend.cli", "weights", "convert", str(checkpoint), str(out), *options],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000)),
    )
    assert ended.returncode == 1
    assert re.fullmatch(rf"glip-label: cannot write {out}: .*File too large.*\n", ended.stderr)
    assert list(out.parent.iterdir()) == []


def test_another_models_checkpoint_is_refused_in_one_short_line(
    checkpoint: Path, tokenizer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(checkpoint, tmp_path / "out", "--variant", "glip-t-a", "--tokenizer", tokenizer) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert len(error) < 3000


@pytest.mark.parametrize(
    "content",
    [b"", b"no pickle at all", pickle.dumps({"model": Path("/")}), pickle.dumps([1, 2])],
    ids=["empty", "text", "code", "list"],
)
def test_a_file_that_is_no_checkpoint_is_one_line(
    content: bytes, config: str, tokenizer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.pth"
    file.write_bytes(content)
    assert convert(file, tmp_path / "out", "--config", config, "--tokenizer", tokenizer) == 1
    assert capsys.readouterr().err.startswith(f"glip-label: {file}: not a PyTorch checkpoint of plain weights")


@pytest.mark.parametrize("content", [[1], {}, {"model": 3}, {"model": {"a": 3}}])
def test_a_checkpoint_without_weights_is_one_line(
    content: object, config: str, tokenizer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.pth"
    torch.save(content, file)
    assert convert(file, tmp_path / "out", "--config", config, "--tokenizer", tokenizer) == 1
    assert "holds no state dict" in capsys.readouterr().err


def test_a_folder_with_files_in_it_is_never_overwritten(
    checkpoint: Path, config: str, tokenizer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    assert convert(checkpoint, tmp_path / "out", "--config", config, "--tokenizer", tokenizer) == 1
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "is no GLIP configuration"),
        ("[]", "it must be an object"),
        ('{"model_type": "swin"}', "it is of a 'swin' model"),
        ('{"hidden_size": "wide"}', "is no GLIP configuration"),
        ('{"num_fusion_heads": 0}', "is no GLIP configuration"),
        ('{"dtype": "nonsense"}', "is no GLIP configuration"),
        ('{"id2label": 3}', "is no GLIP configuration"),
        ('{"backbone_config": {"model_type": "nonsense"}}', "is no GLIP configuration"),
    ],
)
def test_a_configuration_that_is_none_is_one_line_and_exit_code_2(
    text: str, complaint: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.json"
    file.write_text(text)
    assert convert(checkpoint, tmp_path / "out", "--config", str(file)) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(None, "no tokenizer there"), (b"\xff\xfe", "the tokenizer is damaged"), (b"a\nb\n", "the tokenizer is damaged")],
)
def test_a_tokenizer_that_is_none_is_one_line(
    content: bytes | None,
    complaint: str,
    checkpoint: Path,
    config: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "words"
    folder.mkdir()
    if content is not None:
        (folder / "vocab.txt").write_bytes(content)
    assert convert(checkpoint, tmp_path / "out", "--config", config, "--tokenizer", str(folder)) == 1
    assert complaint in capsys.readouterr().err


def test_a_tokenizer_of_a_later_version_is_one_line(
    checkpoint: Path, config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "words"
    small_tokenizer("cat").save_pretrained(folder)
    words = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**words, "pre_tokenizer": {"type": "OfTomorrow"}}))
    assert convert(checkpoint, tmp_path / "out", "--config", config, "--tokenizer", str(folder)) == 1
    assert "the tokenizer is damaged" in capsys.readouterr().err


def test_the_list_tells_what_is_installed_where(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "models" / "glip-t").mkdir(parents=True)
    (home / "models" / "glip-t" / "model.safetensors").touch()
    assert run(["weights", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(rows) == {"glip-t-a", "glip-t-b", "glip-t-c", "glip-t", "glip-l"}
    assert rows["glip-t"]["installed"] == str(home / "models" / "glip-t")
    assert rows["glip-l"]["installed"] is None
    assert run(["weights", "list"]) == 0
    assert "glip-label weights pull glip-l" in capsys.readouterr().out


@pytest.mark.usefixtures("no_hub")
def test_a_tokenizer_that_has_no_room_is_one_line_and_pulled_again(
    checkpoint: Path,
    config: str,
    tokenizer: str,
    home: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = home / "models" / "glip-t"
    assert convert(checkpoint, folder, "--config", config) == 0
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    pull = ["weights", "pull", "glip-t", "--tokenizer", tokenizer]
    capsys.readouterr()
    with largest_file(500_000):
        assert run(pull) == 1
    error = capsys.readouterr().err
    assert re.fullmatch(rf"glip-label: cannot put the tokenizer into {folder}: File too large.*\n", error)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert run(pull) == 0
    load_model_folder(folder, torch.device("cpu"))


@pytest.mark.usefixtures("no_hub")
def test_pulling_without_a_network_says_which_file_to_put_where(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["weights", "pull", "glip-t"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    file = "glip_tiny_model_o365_goldg_cc_sbu.pth"
    assert f"put {file} of its repository GLIPModel/GLIP at {home / 'downloads' / file}" in line


def test_pulling_an_unknown_model_lists_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["weights", "pull", "glip-xxl"]) == 2
    assert "there are glip-t-a, glip-t-b, glip-t-c, glip-t, glip-l" in capsys.readouterr().err
