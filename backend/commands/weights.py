"""``glip-label weights``: list, fetch and convert model weights."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from backend.errors import GlipLabelError, ModelError, UsageError
from glip_model.published import PUBLISHED, TOKENIZER_FILES

if TYPE_CHECKING:
    from backend.model_store import ModelStore
    from glip_model import GlipConfig

_VARIANTS = ("glip-t", "glip-t-a", "glip-l")
_TOKENIZER_OPTION = click.option(
    "--tokenizer",
    type=click.Path(path_type=Path),
    help="Folder with bert-base-uncased's vocab.txt or tokenizer.json; by default its copy in the Hugging Face cache,"
    " or a download.",
)


@click.group()
def command() -> None:
    """List, fetch and convert model weights.

    \b
    Examples:
      glip-label weights list
      glip-label weights pull glip-t
      glip-label weights convert glip_a_tiny_o365.pth my-model --variant glip-t-a
    """


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_weights(as_json: bool) -> None:
    """List the models there are, and where they lie on this machine.

    \b
    Example:
      glip-label weights list
    """
    store = _store()
    rows = [
        {
            "name": model.name,
            "file": model.file,
            "trained_on": model.trained_on,
            "coco_ap": model.coco_ap,
            "installed": str(store.folder(model)) if store.is_installed(model) else None,
        }
        for model in PUBLISHED.values()
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    click.echo("glip-nano  is bundled: demo grade, see docs/model-card.md")
    for row in rows:
        place = row["installed"] or f"glip-label weights pull {row['name']}"
        click.echo(f"{row['name']:<9}  {row['file']:<39}  COCO AP {row['coco_ap']}  {row['trained_on']:<31}  {place}")


@command.command()
@click.argument("name")
@_TOKENIZER_OPTION
def pull(name: str, tokenizer: Path | None) -> None:
    """Fetch the published model NAME and convert it, so that --model NAME finds it.

    An interrupted download goes on where it stopped. The file's checksum is recorded, and verified ever after.

    \b
    Example:
      glip-label weights pull glip-t
    """
    store = _store()
    model = store.model(name)
    folder = store.folder(model)
    if not store.is_installed(model):
        file = store.fetch(model)
        from glip_model import GlipConfig

        _convert(file, folder, GlipConfig.named(model.variant), tokenizer or _tokenizer_at_hand(store, folder))
    elif not _has_tokenizer(folder):
        found = tokenizer or _tokenizer_at_hand(store, folder)
        if found is not None:
            _add_tokenizer(folder, found)
    how = f"; use it with --model {name} or GLIP_LABEL_MODEL={name}" if _has_tokenizer(folder) else ""
    click.echo(f"{name} is in {folder}{how}")


@command.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--variant", type=click.Choice(_VARIANTS), help="Which published layout the checkpoint has.")
@click.option("--config", type=click.Path(path_type=Path), help="JSON file with the fields of a GlipConfig instead.")
@_TOKENIZER_OPTION
def convert(file: Path, out: Path, variant: str | None, config: Path | None, tokenizer: Path | None) -> None:
    """Convert the official checkpoint FILE (.pth) to the new model folder OUT.

    GLIP-T (B) and (C) have the layout glip-t. Code inside the checkpoint is never run.

    \b
    Example:
      glip-label weights convert glip_tiny_model_o365_goldg.pth models/mine --variant glip-t
    """
    if (variant is None) == (config is None):
        raise UsageError(f"give either --variant ({', '.join(_VARIANTS)}) or --config FILE.json")
    from glip_model import GlipConfig

    chosen = GlipConfig.named(variant) if variant else _read_config(config or Path())
    _convert(file, out, chosen, tokenizer or _tokenizer_at_hand(_store(), out))
    click.echo(f"converted to {out}" + (f"; use it with --model {out}" if _has_tokenizer(out) else ""))


def _store() -> "ModelStore":
    from backend.hub import HuggingFaceHub
    from backend.model_store import ModelStore
    from backend.settings import Settings

    return ModelStore(Settings.from_env().home, HuggingFaceHub())


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


def _tokenizer_at_hand(store: "ModelStore", out: Path) -> Path | None:
    """Find the tokenizer, or say which files to put where."""
    try:
        return store.tokenizer()
    except GlipLabelError as error:
        click.echo(
            f"glip-label: no tokenizer: {error}; put vocab.txt of the Hugging Face repository "
            f"google-bert/bert-base-uncased into {out}",
            err=True,
        )
        return None


def _convert(file: Path, out: Path, config: "GlipConfig", tokenizer: Path | None) -> None:
    from glip_model.convert_glip_checkpoint import CheckpointError
    from glip_model.weights_files import convert_checkpoint

    try:
        convert_checkpoint(file, out, config, tokenizer)
    except CheckpointError as error:
        raise ModelError(str(error)) from error
    except OSError as error:
        raise GlipLabelError(f"cannot write {out}: {error.strerror or error}") from error


def _add_tokenizer(folder: Path, tokenizer: Path) -> None:
    from glip_model.convert_glip_checkpoint import CheckpointError
    from glip_model.weights_files import add_tokenizer

    try:
        add_tokenizer(folder, tokenizer)
    except CheckpointError as error:
        raise ModelError(str(error)) from error
    except OSError as error:
        raise ModelError(f"cannot put the tokenizer into {folder}: {error.strerror or error}") from error


def _read_config(file: Path) -> "GlipConfig":
    from huggingface_hub.errors import StrictDataclassError

    from glip_model import GlipConfig

    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(fields, dict):
            raise TypeError("it must be an object with the fields of a GlipConfig")
        if fields.get("model_type", GlipConfig.model_type) != GlipConfig.model_type:
            raise TypeError(f"it is of a {fields['model_type']!r} model")
        return GlipConfig(**fields)
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror or error}") from error
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, StrictDataclassError) as error:
        raise UsageError(f"{file} is no GLIP configuration: {error}") from error
