"""From an official ``.pth`` file to a model folder: config.json, model.safetensors, processor and tokenizer files."""

import pickle
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from transformers import BertTokenizer, PreTrainedTokenizerBase

from glip_model.configuration_glip import GlipConfig
from glip_model.convert_glip_checkpoint import CheckpointError, convert_state_dict
from glip_model.loading import is_damage
from glip_model.modeling_glip import GlipForDetection
from glip_model.processing_glip import GlipImageProcessor, GlipProcessor
from glip_model.published import TOKENIZER_FILES

# What torch raises for files that it cannot read; the last two are for records that name what is not in the file.
NO_CHECKPOINT = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    AssertionError,
)
_WHOLE_NUMBERS = {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
_PLAIN_NUMBERS = {torch.float16, torch.bfloat16, torch.float32, torch.float64, *_WHOLE_NUMBERS}


def convert_checkpoint(file: Path, out: Path, config: GlipConfig, tokenizer: Path | None) -> None:
    """Convert an official checkpoint to the model folder ``out``, which appears whole or not at all.

    Args:
        file: the ``.pth`` file; it may hold a training state with the weights under ``model``.
        out: a folder that does not exist yet, or is empty.
        config: the variant that the weights belong to.
        tokenizer: folder with the text encoder's tokenizer, or None to leave it out; ``add_tokenizer`` adds it later.

    Raises:
        CheckpointError: the file or the tokenizer is missing, damaged or of another model, weights are not finite, or
            ``out`` holds files.
        OSError: ``out`` cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out} is there already: name a new folder, or delete this one")
    words = None if tokenizer is None else read_tokenizer(tokenizer, config)
    try:
        with torch.device("meta"):
            GlipForDetection(config)
    except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:
        raise CheckpointError(f"the configuration describes no network: {error}") from error
    try:
        converted = _with_memory_of_their_own(convert_state_dict(read_checkpoint(file), config))
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from error
    config.architectures = [GlipForDetection.__name__]
    with _folder_aside(out) as aside:
        config.save_pretrained(aside)
        try:
            save_file(converted, aside / "model.safetensors", metadata={"format": "pt"})
        except SafetensorError as error:  # its word for what the system says, as of a full disk
            raise OSError(str(error)) from error
        processor = GlipImageProcessor() if words is None else GlipProcessor(GlipImageProcessor(), words)
        _save_processor(processor, aside)


def read_checkpoint(file: Path) -> dict[str, Tensor]:
    """Read the state dict of a ``.pth`` file without running any code in it.

    Raises:
        CheckpointError: the file cannot be read, is no checkpoint, or holds weights that are sparse, quantised, complex
            or not finite.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about pickles that are refused below anyway
            # Files in torch's newer format are mapped: training states hold much that is never looked at.
            loaded = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except FileNotFoundError as error:
        raise CheckpointError("no such file") from error
    except OSError as error:
        raise CheckpointError(f"cannot be read ({error.strerror or error})") from error
    except NO_CHECKPOINT as error:
        raise CheckpointError("not a PyTorch checkpoint of plain weights, or a damaged one") from error
    state = loaded.get("model", loaded) if isinstance(loaded, dict) else None
    if not isinstance(state, dict) or not state:
        raise CheckpointError("holds no state dict")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise CheckpointError(f"holds no state dict: {name!r} is no tensor")
        if tensor.layout is not torch.strided or tensor.is_meta or tensor.dtype not in _PLAIN_NUMBERS:
            kind = "without numbers" if tensor.is_meta else f"{tensor.dtype}, {tensor.layout}"
            raise CheckpointError(f"weight {name} is no dense tensor of plain numbers ({kind}): save it as float32")
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise CheckpointError(f"weight {name} holds numbers that are not finite (NaN or infinity)")
    return state


def _with_memory_of_their_own(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same numbers; safetensors refuses tensors that share memory, as tied weights do."""
    taken: set[int] = set()
    separate = {}
    for name, tensor in state.items():
        memory = tensor.untyped_storage().data_ptr()
        separate[name] = tensor.clone() if memory in taken else tensor
        taken.add(memory)
    return separate


def add_tokenizer(folder: Path, tokenizer: Path) -> None:
    """Put the tokenizer in the folder ``tokenizer``, whole or not at all, into a model folder converted without one.

    Raises:
        CheckpointError: the tokenizer is missing, damaged or of another text encoder.
        OSError: the model folder cannot be read or written.
    """
    words = read_tokenizer(tokenizer, GlipConfig.from_pretrained(folder, local_files_only=True))
    with tempfile.TemporaryDirectory(dir=folder, prefix=".tokenizer.") as aside:
        _save_processor(GlipProcessor(GlipImageProcessor(), words), Path(aside))
        for file in Path(aside).iterdir():
            file.replace(folder / file.name)


def _save_processor(processor: GlipProcessor | GlipImageProcessor, folder: Path) -> None:
    try:
        processor.save_pretrained(folder)
    except Exception as error:
        if type(error) is not Exception:
            raise
        raise OSError(str(error)) from error  # the tokenizers' library has no word of its own for what the system says


def read_tokenizer(folder: Path, config: GlipConfig) -> PreTrainedTokenizerBase:
    """Read a BERT tokenizer from its folder.

    Raises:
        CheckpointError: its files are missing or damaged, or it knows more words than the text encoder.
    """
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise CheckpointError(f"{folder}: no tokenizer there, it needs {' or '.join(TOKENIZER_FILES)}")
    try:
        _refuse_damaged_vocabulary(folder / "vocab.txt")
        tokenizer: PreTrainedTokenizerBase = BertTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        if not is_damage(error):
            raise
        raise CheckpointError(f"{folder}: the tokenizer is damaged ({error})") from error
    known = config.get_text_config().vocab_size
    if len(tokenizer) > known:
        raise CheckpointError(f"{folder}: the tokenizer of another model, {len(tokenizer)} words instead of {known}")
    return tokenizer


def _refuse_damaged_vocabulary(file: Path) -> None:
    # Checked here because tokenizers raises nothing more specific than Exception.
    if file.is_file() and "[UNK]" not in file.read_text(encoding="utf-8").splitlines():
        raise ValueError("vocab.txt has no line [UNK]")


@contextmanager
def _folder_aside(out: Path) -> Iterator[Path]:
    """Give a folder beside ``out`` to fill, and rename it to ``out`` when the block succeeds."""
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        yield aside
        aside.chmod(0o755)
        aside.replace(out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
