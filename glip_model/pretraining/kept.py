"""What a run keeps on disk, with one line for whatever is wrong with it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch.multiprocessing.spawn import ProcessRaisedException
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from glip_model.loading import ModelFolderError, is_damage, quiet
from glip_model.modeling_glip import GlipForDetection
from glip_model.pretraining.coco_sets import DataError
from glip_model.pretraining.word_head import WordHead
from glip_model.training import machine

CHECKPOINT = "checkpoint.pt"
_PARTS = ("run", "model", "optimizer", "average", "updates", "step", "seconds")
_ASIDE = ".saving"
_OF_FUSION = (".fusion.", ".text_layer.")  # parts of the tower


class PretrainingError(RuntimeError):
    """A run that cannot start or go on; the message says why."""


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint without running any code in it.

    Raises:
        PretrainingError: it cannot be read, is damaged, or is of an older release.
    """
    damaged = f"{path}: no checkpoint, or a damaged one: delete it or give another folder"
    try:
        checkpoint = machine.load_checkpoint(path, _PARTS)
    except machine.DamagedCheckpointError as error:
        raise PretrainingError(damaged) from error
    except OSError as error:
        raise PretrainingError(f"{path}: cannot be read ({error.strerror or error})") from error
    if "word_head" not in checkpoint:
        raise PretrainingError(f"{path}: of an older glip-label, without a word head: delete it or give another folder")
    return checkpoint


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Read the tokenizer of a run or of the model that it starts from.

    Raises:
        PretrainingError: it is missing or damaged.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        if not is_damage(error):
            raise
        raise PretrainingError(f"{folder}: tokenizer.json is missing or damaged: give another folder") from error
    return tokenizer


def start_from(init: Path, first: GlipForDetection, model: GlipForDetection, word_head: WordHead) -> None:
    """Take over the weights of ``init``, which are those of ``first``, and its word head if it has one.

    Raises:
        PretrainingError: they are of another network.
    """
    try:
        differing = model.load_state_dict(first.state_dict(), strict=False)
    except RuntimeError as error:
        raise PretrainingError(f"{init}: its weights have other shapes than glip-nano's") from error
    # A run without fusion may start from one with fusion; nothing else may be left at chance or unused.
    other = [name for names in differing for name in names if not any(part in name for part in _OF_FUSION)]
    if other:
        raise PretrainingError(f"{init}: is another network than glip-nano, as {other[0]} shows: give another folder")
    if (init / CHECKPOINT).exists():
        try:
            word_head.load_state_dict(load_checkpoint(init / CHECKPOINT)["word_head"])
        except RuntimeError as error:
            if isinstance(error, PretrainingError):
                raise
            raise PretrainingError(f"{init / CHECKPOINT}: its word head is of another tokenizer: delete it") from error


def raised_in_process(error: ProcessRaisedException) -> Exception:
    """What a training process raised, of which its parent gets the traceback as text."""
    line = str(error).strip().splitlines()[-1]
    for ours in (PretrainingError, ModelFolderError, DataError):
        name = f"{ours.__module__}.{ours.__qualname__}: "
        if line.startswith(name):
            return ours(line.removeprefix(name))
    return PretrainingError(line)


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Turn what the system says against writing to ``out`` into one line.

    Raises:
        PretrainingError: ``out`` cannot be written, as on a full disk.
    """
    try:
        yield
    except Exception as error:
        cause = error.__context__ if isinstance(error, RuntimeError) else error  # as of ``save_checkpoint``
        if not isinstance(cause, OSError | SafetensorError) and type(cause) is not Exception:  # of the tokenizers
            raise
        reason = getattr(cause, "strerror", None) or cause
        raise PretrainingError(f"cannot write {out}: {reason}: the same command goes on from its checkpoint") from error


@contextmanager
def files_aside(out: Path) -> Iterator[Path]:
    """Give a folder to fill; its files replace those of the same names in ``out`` when the block succeeds."""
    aside = out / _ASIDE
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        with quiet():
            yield aside
        for file in aside.iterdir():
            file.replace(out / file.name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
