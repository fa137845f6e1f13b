"""Many small versions over one base."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from glip_model.adapters import Adapter, AdapterError, PromptOffsets, is_adapter, load_adapter, weights_sha256
from glip_model.caption import Caption, plan_captions
from glip_model.inference import GlipDetector
from glip_model.modeling_glip import AlignmentHead, TextStates
from tests.glip_model.finetuning_cases import CPU, PROMPTS, save_tiny_base, squares
from tests.glip_model.text import small_tokenizer
from tests.glip_model.tiny import WORDS

TOKENIZER = small_tokenizer(WORDS)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_base(tmp_path_factory.mktemp("base"))


def caption(*names: str) -> Caption:
    return plan_captions(TOKENIZER, [[name] for name in names])[0]


def offsets(*names: str, width: int = 32, seed: int = 0) -> PromptOffsets:
    made = PromptOffsets.of_captions([caption(*names)], width)
    torch.nn.init.normal_(made.table, generator=torch.Generator().manual_seed(seed))
    return made


def added(learnt: PromptOffsets, asked: Caption) -> dict[str, list[list[float]]]:
    """What each prompt's tokens get; all other tokens get nothing."""
    length = len(asked.input_ids)
    states = TextStates(torch.zeros(1, length, learnt.table.shape[1]), torch.ones(1, length))
    hidden = learnt(states, [asked]).hidden[0]
    named = [token for tokens in asked.label_tokens for token in tokens]
    assert not hidden[[token for token in range(length) if token not in named]].any()
    pairs = zip(asked.prompts, asked.label_tokens, strict=True)
    return {words: hidden[list(tokens)].tolist() for words, tokens in pairs}


def test_new_offsets_change_nothing_to_the_last_bit() -> None:
    asked = caption("cat", "red dog")
    hidden = torch.randn(1, len(asked.input_ids), 32)
    learnt = PromptOffsets.of_captions([asked], 32)
    assert torch.equal(learnt(TextStates(hidden, torch.ones(hidden.shape[:2])), [asked]).hidden, hidden)


def test_offsets_follow_their_names_when_names_come_go_or_change_places() -> None:
    learnt = offsets("cat", "red dog")
    before = added(learnt, caption("cat", "red dog"))
    assert before["cat"] != before["red dog"][:1]
    later = added(learnt, caption("red dog", "car", "cat"))
    assert later == {"red dog": before["red dog"], "car": [[0.0] * 32], "cat": before["cat"]}


def test_each_caption_of_a_batch_gets_its_own_offsets() -> None:
    learnt = offsets("cat", "dog")
    captions = [caption("cat", "dog"), caption("dog", "cat")]
    hidden = torch.zeros(2, len(captions[0].input_ids), 32)
    both = learnt(TextStates(hidden, torch.ones(hidden.shape[:2])), captions).hidden
    assert torch.equal(both[0, 1], both[1, 3])
    assert torch.equal(both[0, 3], both[1, 1])
    assert not torch.equal(both[0, 1], both[0, 3])


def test_an_adapter_comes_back_as_it_was_saved(base: Path, tmp_path: Path) -> None:
    head = AlignmentHead(16, 32, 5, 0.01)
    assert not is_adapter(tmp_path)
    Adapter("base", weights_sha256(base), offsets("cat", "red dog"), head).save(tmp_path)
    assert is_adapter(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["adapter.json", "adapter.safetensors"]
    again = load_adapter(tmp_path, base, CPU)
    assert again.base == "base"
    assert again.offsets is not None
    assert again.head is not None
    assert torch.equal(again.offsets.table, offsets("cat", "red dog").table)
    assert all(torch.equal(again.head.state_dict()[name], value) for name, value in head.state_dict().items())


def test_an_adapter_of_other_weights_is_refused(base: Path, tmp_path: Path) -> None:
    Adapter("other-model", "0" * 64, offsets("cat")).save(tmp_path)
    with pytest.raises(AdapterError, match="made on other-model, whose weights are not those in"):
        load_adapter(tmp_path, base, CPU)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "adapter.json").unlink(), "cannot be loaded"),
        (lambda folder: (folder / "adapter.json").write_text("[]"), "cannot be loaded"),
        (lambda folder: (folder / "adapter.safetensors").write_bytes(b"x"), "cannot be loaded"),
        (lambda folder: save_file({}, folder / "adapter.safetensors"), "the adapter is empty"),
        (lambda folder: change(folder, torch.full((1, 32), torch.nan)), "not finite"),
        (lambda folder: change(folder, torch.zeros(2, 32)), "cannot be loaded"),
        (lambda folder: change(folder, torch.zeros(1)), "cannot be loaded"),
        (lambda folder: state(folder, format=2), "of a newer version"),
        (lambda folder: state(folder, base=None), r"cannot be loaded \('base'\)"),
        (lambda folder: state(folder, base_sha256=None), r"cannot be loaded \('base_sha256'\)"),
    ],
)
def test_a_damaged_adapter_is_refused_by_name(
    base: Path, tmp_path: Path, damage: Callable[[Path], object], reason: str
) -> None:
    Adapter("base", weights_sha256(base), offsets("cat")).save(tmp_path)
    damage(tmp_path)
    with pytest.raises(AdapterError, match=reason) as caught:
        load_adapter(tmp_path, base, CPU)
    assert str(caught.value).startswith(str(tmp_path))
    assert "\n" not in str(caught.value)


def change(folder: Path, table: torch.Tensor) -> None:
    save_file(load_file(folder / "adapter.safetensors") | {"offsets.table": table}, folder / "adapter.safetensors")


def state(folder: Path, **changed: int | None) -> None:
    """Write other facts, and leave those out that are None."""
    facts = json.loads((folder / "adapter.json").read_text()) | changed
    (folder / "adapter.json").write_text(json.dumps({key: fact for key, fact in facts.items() if fact is not None}))


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="asks Linux how much memory is in use")
def test_a_hundred_adapters_take_less_than_a_megabyte_each_and_switching_costs_nothing(base: Path) -> None:
    """In the sizes of GLIP-T: 768 wide text, 256 channels, 20 names of two tokens."""
    detector = GlipDetector.from_folder(base, CPU)
    before = resident_bytes()
    versions = []
    for number in range(100):
        learnt = PromptOffsets({f"name {i}": 2 for i in range(20)}, 768) if number % 2 else None
        head = None if number % 2 else AlignmentHead(256, 768, 5, 0.01)
        versions.append(detector.adapted(Adapter("base", "0" * 64, learnt, head)))
    assert (resident_bytes() - before) / len(versions) < 1e6
    assert all(version.model is detector.model for version in versions)
    began = time.perf_counter()
    for version in versions:
        detector.adapted(version.adapted(None)._adapter)
    assert (time.perf_counter() - began) / len(versions) < 1e-3


def test_adapted_views_share_encoded_captions(base: Path) -> None:
    detector = GlipDetector.from_folder(base, CPU)
    captions = detector.captions(PROMPTS)
    adapted = detector.adapted(Adapter("base", weights_sha256(base), offsets("cat", "red dog")))
    plain = detector.detect([squares(0)[0]], captions)[0]
    calls: list[int] = []
    detector.model.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    changed = adapted.detect([squares(0)[0]], captions)[0]
    assert not torch.equal(changed.scores, plain.scores)
    assert torch.equal(detector.detect([squares(0)[0]], captions)[0].scores, plain.scores)
    assert calls == []
