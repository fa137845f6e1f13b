"""The pre-training loop: resumable, budgeted in steps or minutes, one JSON line of log now and then.

A run's folder always holds the averaged weights of its last checkpoint as a loadable model, ``checkpoint.pt`` to go on
from, and ``log.jsonl``.
"""

import json
import logging
import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import ProcessException, ProcessRaisedException, start_processes
from torch.nn.utils import clip_grad_norm_
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from glip_model.configuration_glip import GlipConfig
from glip_model.image import DEFAULT_PIXELS
from glip_model.loading import load_model_folder
from glip_model.modeling_glip import GlipForDetection
from glip_model.pretraining.batches import Batch, Mixture, PretrainingBatches
from glip_model.pretraining.coco_sets import RealSet, refuse_unusable_sets
from glip_model.pretraining.kept import (
    CHECKPOINT,
    PretrainingError,
    files_aside,
    load_checkpoint,
    load_tokenizer,
    raised_in_process,
    start_from,
    writing,
)
from glip_model.pretraining.recipe import Schedule, nano_config, save_model
from glip_model.pretraining.tokenizer import train_tokenizer
from glip_model.pretraining.word_head import WordHead
from glip_model.training.machine import has_bf16_units, keep_freed_memory, pixel_values, save_checkpoint
from glip_model.training.optimisation import AveragedWeights, first_not_finite, parameter_groups

LOG = "log.jsonl"
_LOG_EVERY = 20
_MEETING_POINT = "processes"
_QUEUED_BATCHES = 6


@dataclass(frozen=True)
class RunSettings:
    """One run.

    Attributes:
        steps: length of the run; None measures it by ``minutes`` of training time, earlier parts included.
        checkpoint_minutes: time between checkpoints.
        processes: single-threaded processes that share each step, each with a batch of its own. On a CPU that others
            use too this beats threads, which wait for one another thousands of times a step.
        init: model folder to start from instead of chance; its tokenizer is kept, and where it is the folder of an
            earlier run, that run's word head too.
        words_only: train backbone, pyramid and word head alone, which takes half the time a picture.
    """

    steps: int | None = None
    minutes: float = 75.0
    early_fusion: bool = True
    seed: int = 0
    checkpoint_minutes: float = 4.0
    processes: int = 2
    init: Path | None = None
    words_only: bool = False
    mixture: Mixture = field(default_factory=Mixture)
    schedule: Schedule = field(default_factory=Schedule)


@dataclass
class _State:
    """What a checkpoint holds."""

    model: GlipForDetection
    word_head: WordHead
    tokenizer: PreTrainedTokenizerBase
    optimizer: torch.optim.Optimizer
    average: AveragedWeights
    step: int = 0
    seconds: float = 0.0

    def trained(self) -> list[nn.Parameter]:
        """All weights that the optimizer moves."""
        return [*self.model.parameters(), *self.word_head.parameters()]


def pretrain(out: Path, sets: Sequence[RealSet], weights: Sequence[float], settings: RunSettings) -> None:
    """Train until the budget is used up, and leave a model folder in ``out``; goes on where a stopped run was.

    Args:
        out: folder of the run.
        sets: real sets in memory; none trains on scenes alone.
        weights: how often each set is drawn relative to the others.
        settings: the rest.

    Raises:
        PretrainingError: the loss is no longer finite, the folder's checkpoint is damaged or of another run, ``init``
            is of another network, or ``out`` cannot be written.
        DataError: a set has no images, or its names cannot be asked in one caption.
        ModelFolderError: ``init`` cannot be used.
    """
    out.mkdir(parents=True, exist_ok=True)
    if settings.processes == 1:
        _train(0, out, sets, weights, settings)
        return
    meeting_point = out / _MEETING_POINT
    meeting_point.unlink(missing_ok=True)
    logging.getLogger(start_processes.__module__).setLevel(logging.ERROR)  # it tells which processes it ends
    arguments = (out, sets, weights, settings)
    running = start_processes(_train, arguments, settings.processes, join=False, start_method="fork")
    try:
        while not running.join():
            pass
    except ProcessRaisedException as error:
        raise raised_in_process(error) from error
    except ProcessException as error:
        raise PretrainingError(f"{error}: the same command goes on from its checkpoint") from error
    finally:
        for process in running.processes:
            process.terminate()  # of an interruption they know only where all of the terminal's processes got it
        meeting_point.unlink(missing_ok=True)


def _train(rank: int, out: Path, sets: Sequence[RealSet], weights: Sequence[float], settings: RunSettings) -> None:
    """One of the processes; all hold the same weights, the first one also writes."""
    keep_freed_memory()
    world = settings.processes
    if world > 1:
        torch.set_num_threads(1)
        meeting_point = f"file://{(out / _MEETING_POINT).resolve()}"
        dist.init_process_group("gloo", init_method=meeting_point, rank=rank, world_size=world)
    torch.manual_seed(settings.seed)
    state = _start(out, sets, settings)
    batches = PretrainingBatches(state.tokenizer, sets, weights, settings.mixture, settings.seed)
    last = settings.steps if settings.steps is not None else sys.maxsize // world
    loader: DataLoader[Batch] = DataLoader(
        batches,
        batch_size=None,
        sampler=range(state.step * world + rank, last * world, world),
        num_workers=1,
        prefetch_factor=_QUEUED_BATCHES,
        worker_init_fn=_calm_worker,
    )
    began, saved = time.monotonic() - state.seconds, state.seconds
    with _Journal(out / LOG, settings, enabled=rank == 0) as journal:
        for batch in loader if _progress(state, settings) < 1 else ():
            journal.write(state, _train_step(state, batch, settings, time.monotonic() - began))
            if _progress(state, settings) >= 1:
                break
            if rank == 0 and state.seconds - saved > 60 * settings.checkpoint_minutes:
                _save(out, state, settings)
                saved = state.seconds
    if rank == 0:
        _save(out, state, settings)
    if world > 1:
        dist.barrier()
        dist.destroy_process_group()


class _Journal:
    """The progress bar and the JSON lines of a run."""

    def __init__(self, path: Path, settings: RunSettings, enabled: bool) -> None:
        self._settings, self._enabled = settings, enabled
        self._path = path
        with writing(path):
            self._file = path.open("a", encoding="utf-8") if enabled else None
        self._bar = tqdm(total=100, unit="%", desc="pretrain", disable=not enabled)

    def __enter__(self) -> "_Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        if self._file:
            with writing(self._path):  # what was not flushed
                self._file.close()

    def write(self, state: _State, losses: dict[str, float]) -> None:
        """Note a step; every so often as a line."""
        self._bar.update(min(100, round(100 * _progress(state, self._settings))) - self._bar.n)
        if self._file and (state.step == 1 or state.step % _LOG_EVERY == 0):
            line = {"step": state.step, "seconds": round(state.seconds, 1), **losses}
            with writing(self._path):
                self._file.write(json.dumps(line) + "\n")
                self._file.flush()
            self._bar.set_postfix({"step": state.step, "loss": f"{losses['loss']:.2f}"})


def _calm_worker(_: int) -> None:
    os.nice(5)  # a late batch waits in the queue; a late step costs time
    torch.set_num_threads(1)


def _progress(state: _State, settings: RunSettings) -> float:
    if settings.steps is not None:
        return state.step / settings.steps
    return state.seconds / (60 * settings.minutes)


def _train_step(state: _State, batch: Batch, settings: RunSettings, seconds: float) -> dict[str, float]:
    """One step of AdamW; bf16 where the processor has units for it, losses in fp32 always."""
    schedule, model = settings.schedule, state.model
    rate = schedule.learning_rate(state.step, _progress(state, settings))
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    pixels = pixel_values(batch["rgb"], DEFAULT_PIXELS)
    model.train()
    with torch.autocast("cpu", torch.bfloat16, enabled=has_bf16_units()):
        image = model.encode_image(pixels)
        losses = {"words": schedule.word_weight * state.word_head(image, batch["targets"])}
        if not settings.words_only:
            text = {name: batch[name] for name in ("input_ids", "attention_mask", "targets")}
            losses |= model(image_states=image, **text).losses
    state.optimizer.zero_grad()
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    state.seconds, loss = _share_gradients(state.trained(), seconds, float(total.detach()))
    norm = float(clip_grad_norm_(state.trained(), schedule.gradient_clip))
    if not math.isfinite(loss) or not math.isfinite(norm):
        guilty = first_not_finite(model.named_parameters()) or "none of the weights, so a batch did it"
        raise PretrainingError(
            f"step {state.step}: loss {loss}, gradient {norm} "
            f"(first weight not finite: {guilty}): start anew in an empty folder with another --seed"
        )
    state.optimizer.step()
    state.average.update(model.state_dict())
    state.step += 1
    parts = {name: round(float(value.detach()), 4) for name, value in losses.items()}
    return {"loss": round(loss, 4), **parts, "norm": round(norm, 3), "lr": rate}


def _share_gradients(parameters: Sequence[nn.Parameter], seconds: float, loss: float) -> tuple[float, float]:
    """Average the gradients over all processes, and with them seconds and loss.

    So all agree on the learning rate, and on whether to go on.
    """
    if not dist.is_initialized():
        return seconds, loss
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([torch.tensor([seconds, loss]), *(gradient.flatten() for gradient in gradients)])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    parts = flat[2:].split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))
    return float(flat[0]), float(flat[1])


def _start(out: Path, sets: Sequence[RealSet], settings: RunSettings) -> _State:
    """A state from the folder's checkpoint, from ``init``, or from chance."""
    checkpoint = _read_checkpoint(out / CHECKPOINT, settings)
    folder = out if checkpoint else settings.init
    first = load_model_folder(settings.init, torch.device("cpu"))[0] if settings.init and not checkpoint else None
    if folder is None:
        tokenizer: PreTrainedTokenizerBase = train_tokenizer([name for real in sets for name in real.names])
    else:
        tokenizer = load_tokenizer(folder)
    refuse_unusable_sets(sets, tokenizer)
    config = nano_config(len(tokenizer), settings.early_fusion)
    model, word_head = GlipForDetection(config), WordHead(config.hidden_size, len(tokenizer))
    if settings.init and first:
        start_from(settings.init, first, model, word_head)
    nn.Module.to(model, memory_format=torch.channels_last)  # type: ignore[call-overload]
    groups = parameter_groups(nn.ModuleList([model, word_head]), settings.schedule.weight_decay)
    state = _State(
        model,
        word_head,
        tokenizer,
        torch.optim.AdamW(groups, lr=settings.schedule.peak_lr, fused=True),
        AveragedWeights(model.state_dict(), settings.schedule.ema_decay),
    )
    if checkpoint:
        _restore(state, checkpoint, out)
    return state


def _restore(state: _State, checkpoint: dict[str, Any], out: Path) -> None:
    """Go on where the checkpoint of ``out`` was written."""
    try:
        state.model.load_state_dict(checkpoint["model"])
        state.word_head.load_state_dict(checkpoint["word_head"])
        state.optimizer.load_state_dict(checkpoint["optimizer"])
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise PretrainingError(
            f"{out}: {CHECKPOINT} does not fit the tokenizer there, or glip-nano: give another folder"
        ) from error
    state.average.state = checkpoint["average"]
    state.average.updates = checkpoint["updates"]
    state.step, state.seconds = checkpoint["step"], checkpoint["seconds"]


def _read_checkpoint(path: Path, settings: RunSettings) -> dict[str, Any] | None:
    if not path.exists():
        return None
    checkpoint = load_checkpoint(path)
    wanted = {"seed": settings.seed, "early_fusion": settings.early_fusion}
    if checkpoint["run"] != wanted:
        raise PretrainingError(f"{path}: of a run with {checkpoint['run']}, not {wanted}: give another folder")
    return checkpoint


def _save(out: Path, state: _State, settings: RunSettings) -> None:
    """Write all files aside and rename them, so that a killed run always finds whole ones."""
    with writing(out):
        with files_aside(out) as aside:
            save_model(aside, cast(GlipConfig, state.model.config), state.average.state, state.tokenizer)
        _save_checkpoint(out, state, settings)


def _save_checkpoint(out: Path, state: _State, settings: RunSettings) -> None:
    save_checkpoint(
        out / CHECKPOINT,
        {
            "run": {"seed": settings.seed, "early_fusion": settings.early_fusion},
            "model": state.model.state_dict(),
            "word_head": state.word_head.state_dict(),
            "optimizer": state.optimizer.state_dict(),
            "average": state.average.state,
            "updates": state.average.updates,
            "step": state.step,
            "seconds": state.seconds,
        },
    )
