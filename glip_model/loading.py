"""A model folder on disk, checked, as network and processor."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers.utils import logging

from glip_model.auto import register_auto_classes
from glip_model.configuration_glip import GlipConfig
from glip_model.modeling_glip import GlipForDetection
from glip_model.processing_glip import GlipProcessor

_CURE = "convert or pull the model again"
# What a folder needs, any one name of each row, and what to do where it lacks them.
_NEEDED = (
    (("config.json",), "give the folder of a converted or trained model"),
    (("model.safetensors", "model.safetensors.index.json"), _CURE),
    (("tokenizer.json", "vocab.txt"), "copy tokenizer.json and tokenizer_config.json of its text encoder there"),
    (("processor_config.json", "preprocessor_config.json"), _CURE),
)
# What transformers and safetensors raise on damaged files.
_DAMAGE = (
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    RuntimeError,
    SafetensorError,
    StrictDataclassError,
)


class ModelFolderError(ValueError):
    """A folder whose model cannot be used; the message names what is missing or wrong, and the cure."""


def load_model_folder(path: Path, device: torch.device) -> tuple[GlipForDetection, GlipProcessor]:
    """Load network (float32, in evaluation mode, on ``device``) and processor from a folder.

    Raises:
        ModelFolderError: a file is missing or damaged, the folder holds another model, weights or tokenizer do not
            fit the configuration, or weights are not finite.
    """
    if not path.is_dir():
        raise ModelFolderError(f"{path}: no such model folder")
    for names, cure in _NEEDED:
        if not any((path / name).is_file() for name in names):
            raise ModelFolderError(f"{path}: {' or '.join(names)} is missing: {cure}")
    _refuse_other_models(path)
    register_auto_classes()
    try:
        with quiet():
            config = GlipConfig.from_pretrained(path, local_files_only=True)
            processor = GlipProcessor.from_pretrained(path, local_files_only=True)
            loaded: Any = GlipForDetection.from_pretrained(
                path,
                config=config,
                dtype=torch.float32,
                local_files_only=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except Exception as error:
        if not is_damage(error):
            raise
        raise ModelFolderError(f"{path}: cannot be loaded ({_one_line(error)}): {_CURE}") from error
    model: GlipForDetection = loaded[0]
    _refuse_misfits(path, loaded[1])
    words, known = len(processor.tokenizer), model.text_encoder.config.vocab_size
    if words > known:
        raise ModelFolderError(
            f"{path}: the tokenizer has {words} tokens, the text encoder knows {known}: "
            "put the tokenizer of its own text encoder there"
        )
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ModelFolderError(f"{path}: weight {name} holds numbers that are not finite: {_CURE}")
    model.to(device)  # type: ignore[arg-type]  # transformers' wrapper hides the signature
    return model, processor


def is_damage(error: Exception) -> bool:
    """Whether this is what a library raises for a file that it cannot read; tokenizers' has nothing of its own."""
    return type(error) is Exception or isinstance(error, _DAMAGE)


def _refuse_other_models(path: Path) -> None:
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelFolderError(f"{path}: config.json cannot be read ({_one_line(error)}): {_CURE}") from error
    model_type = config.get("model_type") if isinstance(config, dict) else None
    if model_type != GlipConfig.model_type:
        raise ModelFolderError(
            f"{path}: holds a model of type {model_type!r}, not GLIP: give the folder of a GLIP model"
        )


def _refuse_misfits(path: Path, report: dict[str, set[object]]) -> None:
    wrong = {
        "missing": sorted(map(str, report["missing_keys"])),
        "of another shape": sorted(str(key[0]) for key in report["mismatched_keys"] if isinstance(key, tuple)),
        "unknown": sorted(map(str, report["unexpected_keys"])),
    }
    for what, keys in wrong.items():
        if keys:
            listed = ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
            raise ModelFolderError(f"{path}: weights do not fit config.json, {what}: {listed}: {_CURE}")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from drawing bars and from reporting what we report ourselves."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
