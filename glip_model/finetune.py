"""Fine-tuning on what people corrected: prompts alone, the head, or the whole model (GLIP, section 4.3).

A run's folder holds ``checkpoint.pt`` while it runs and the result afterwards: ``adapter.safetensors`` and
``adapter.json`` of modes "prompt" and "head", a model folder of mode "full". A run that was killed at any moment goes
on when it is started again.
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from glip_model.adapters import is_adapter, weights_sha256
from glip_model.finetuning.batches import Asking
from glip_model.finetuning.examples import TrainingExample, fingerprint
from glip_model.finetuning.loader import Loader
from glip_model.finetuning.settings import (
    RECIPES,
    FinetuneSettings,
    OtherRunError,
    Progress,
    Recipe,
    TrainingError,
    default_settings,
)
from glip_model.finetuning.student import Asked, FullStudent, HeadStudent, PromptStudent, Student
from glip_model.loading import load_model_folder
from glip_model.training.machine import DamagedCheckpointError, keep_freed_memory, load_checkpoint, save_checkpoint
from glip_model.training.optimisation import AveragedWeights, cosine_decay, first_not_finite
from glip_model.training.samples import Handling

__all__ = [
    "FinetuneSettings",
    "Handling",
    "OtherRunError",
    "Progress",
    "TrainingError",
    "TrainingExample",
    "default_settings",
    "finetune",
]

CHECKPOINT = "checkpoint.pt"
_PARTS = ("run", "trained", "optimizer", "average", "updates", "step", "seconds")
_GRADIENT_CLIP = 1.0
_EMA_DECAY = 0.998
_LAST_SHARE = 0.01
_WARM_UP = 0.05
_WIDE_TEXT = 512
_LEAST_PAUSE = 10  # between two checkpoints, in units of what it took to write the first


@dataclass
class _State:
    """What a checkpoint holds."""

    student: Student
    optimizer: torch.optim.Optimizer
    average: AveragedWeights
    step: int = 0
    seconds: float = 0.0


def finetune(
    base: Path,
    prompts: Sequence[Sequence[str]],
    examples: Sequence[TrainingExample],
    settings: FinetuneSettings,
    folder: Path,
    progress: Callable[[Progress], None] = lambda _: None,
) -> None:
    """Train, or go on, until the result lies in ``folder``; a folder that holds it is left as it is.

    Args:
        base: model folder to start from; only read.
        prompts: for each label the words it is asked with.
        examples: what people said; their labels count into ``prompts``.
        settings: the run.
        folder: of this run alone; made if it is missing.
        progress: told after each step. What it raises stops the run, which can be resumed.

    Raises:
        OtherRunError: the checkpoint in the folder is of a run on other data or with other settings, or damaged.
        TrainingError: there is nothing to learn from, a label has no prompt, or numbers are no longer finite.
        CaptionError: prompts or sentences that no caption can be made of.
        ModelFolderError: the base cannot be used.
    """
    _refuse_misfits(prompts, examples)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / CHECKPOINT).exists() and (is_adapter(folder) or (folder / "config.json").exists()):
        return
    keep_freed_memory()
    device = settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
    model, processor = load_model_folder(base, torch.device(device))
    asking = Asking(processor.tokenizer, prompts, examples, model.config.max_text_len)
    try:
        student = _student(settings, (model, processor), asking)
    except ValueError as error:
        raise TrainingError(str(error)) from error
    run = _run_id(base, prompts, examples, settings)
    state = _start(folder / CHECKPOINT, student, settings, run)
    with ThreadPoolExecutor(1) as pool:
        loader = Loader(student, asking, examples, settings, pool)
        _train(state, loader, settings, lambda: _save(folder / CHECKPOINT, state, run), progress)
    student.trained.load_state_dict(state.average.state)
    student.save(folder, base)
    (folder / CHECKPOINT).unlink(missing_ok=True)


def _refuse_misfits(prompts: Sequence[Sequence[str]], examples: Sequence[TrainingExample]) -> None:
    if not any(len(example.boxes_xyxy) or len(example.rejected_xyxy) for example in examples):
        raise TrainingError("no example has a box: there is nothing to learn from yet")
    for number, example in enumerate(examples):
        known = len(prompts) if example.sentence is None else len(example.sentence.spans)
        if (len(example.labels), len(example.rejected_labels)) != (len(example.boxes_xyxy), len(example.rejected_xyxy)):
            raise TrainingError(f"example {number}: as many labels as boxes are needed")
        if not known or any(not 0 <= label < known for label in (*example.labels, *example.rejected_labels)):
            raise TrainingError(f"example {number}: a label has no prompt, there are {known}")


def _student(settings: FinetuneSettings, base: tuple[Any, Any], asking: Asking) -> Student:
    if settings.frozen and settings.mode != "full":
        raise ValueError(f'mode "{settings.mode}" freezes all but its own part: leave out what else to freeze')
    if settings.mode == "full":
        return FullStudent(*base, settings.frozen)
    return HeadStudent(*base) if settings.mode == "head" else PromptStudent(*base, asking.all_captions)


def _train(
    state: _State,
    loader: Loader,
    settings: FinetuneSettings,
    save: Callable[[], None],
    progress: Callable[[Progress], None],
) -> None:
    began = time.monotonic() - state.seconds
    due = state.seconds + settings.checkpoint_seconds
    share = _share_done(state, settings)
    while share < 1:
        loss = _train_step(state, loader.batch(state.step, _time_spent(state, settings)), settings)
        state.seconds = time.monotonic() - began
        share = _share_done(state, settings)
        left = state.seconds * (1 - min(share, 1.0)) / share
        progress(Progress(state.step, settings.steps, loader.epoch(state.step), loss, state.seconds, left))
        if state.seconds > due:
            before = time.monotonic()
            save()
            after = time.monotonic()
            pause = max(settings.checkpoint_seconds, _LEAST_PAUSE * (after - before))
            due = after - began + (pause if settings.checkpoint_seconds else 0.0)
    save()


def _share_done(state: _State, settings: FinetuneSettings) -> float:
    return max(state.step / settings.steps, _time_spent(state, settings))


def _time_spent(state: _State, settings: FinetuneSettings) -> float:
    return 0.0 if settings.minutes is None else state.seconds / (60 * settings.minutes)


def _train_step(state: _State, batch: Sequence[Asked], settings: FinetuneSettings) -> float:
    share = _share_done(state, settings)
    rising = min(1.0, (share + 1 / settings.steps) / _WARM_UP)
    for group in state.optimizer.param_groups:
        group["lr"] = group["peak"] * rising * cosine_decay(share, _LAST_SHARE)
    torch.manual_seed((settings.seed << 32) + state.step)  # dropout too is a function of seed and step
    student = state.student
    parameters = [parameter for parameter in student.trained.parameters() if parameter.requires_grad]
    state.optimizer.zero_grad()
    total = torch.stack(list(student.losses(batch).values())).sum()
    total.backward()
    loss, norm = float(total.detach()), float(clip_grad_norm_(parameters, _GRADIENT_CLIP))
    if not math.isfinite(loss) or not math.isfinite(norm):
        guilty = first_not_finite(student.trained.named_parameters())
        raise TrainingError(
            f"step {state.step}: loss {loss}, gradient {norm} (first weight not finite: {guilty or 'none'}): "
            "train in another mode or with another seed, or look for a damaged picture"
        )
    state.optimizer.step()
    state.average.update(student.trained.state_dict())
    state.step += 1
    return loss


def _start(path: Path, student: Student, settings: FinetuneSettings, run: str) -> _State:
    """A state from the checkpoint, or from the base."""
    recipe, config = RECIPES[settings.mode], student.model.config
    rate = recipe.rate(config.hidden_size) if settings.learning_rate is None else settings.learning_rate
    if config.get_text_config().hidden_size < _WIDE_TEXT:
        recipe = replace(recipe, text_share=1.0)
    groups = _parameter_groups(student.trained, rate, recipe)
    optimizer = torch.optim.AdamW(groups, lr=rate, fused=True)
    average = AveragedWeights(student.trained.state_dict(), _EMA_DECAY)
    state = _State(student, optimizer, average)
    if path.exists():
        try:
            checkpoint = load_checkpoint(path, _PARTS, student.device)
        except DamagedCheckpointError as error:
            raise OtherRunError(f"{path}: a damaged checkpoint: give an empty folder") from error
        if checkpoint["run"] != run:
            raise OtherRunError(f"{path}: of another run, on other data or with other settings: give an empty folder")
        student.trained.load_state_dict(checkpoint["trained"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        average.state, average.updates = checkpoint["average"], checkpoint["updates"]
        state.step, state.seconds = checkpoint["step"], checkpoint["seconds"]
    return state


def _parameter_groups(trained: nn.Module, rate: float, recipe: Recipe) -> list[dict[str, Any]]:
    """The official groups: kernels decay; biases do not and move twice as fast; the text encoder has its own rate."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in trained.named_parameters():
        if not parameter.requires_grad:
            continue
        share = recipe.text_share if name.startswith("text_encoder.") else 1.0
        is_bias = "bias" in name  # of positions too, which is a table
        share *= 2.0 if is_bias else 1.0
        decay = recipe.weight_decay if parameter.ndim > 1 and not is_bias else 0.0
        groups.setdefault((rate * share, decay), []).append(parameter)
    return [{"params": ps, "peak": peak, "weight_decay": decay} for (peak, decay), ps in groups.items()]


def _save(path: Path, state: _State, run: str) -> None:
    save_checkpoint(
        path,
        {
            "run": run,
            "trained": state.student.trained.state_dict(),
            "optimizer": state.optimizer.state_dict(),
            "average": state.average.state,
            "updates": state.average.updates,
            "step": state.step,
            "seconds": state.seconds,
        },
    )


def _run_id(
    base: Path, prompts: Sequence[Sequence[str]], examples: Sequence[TrainingExample], settings: FinetuneSettings
) -> str:
    """Digest of all that a resumed run must have in common with the one that began."""
    facts = asdict(settings) | dict.fromkeys(("minutes", "checkpoint_seconds", "device"))
    facts |= {"prompts": [list(words) for words in prompts], "examples": fingerprint(examples)}
    facts["base"] = weights_sha256(base)
    return sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
