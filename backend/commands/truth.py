"""COCO files whose boxes count as true."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from backend.errors import UsageError

if TYPE_CHECKING:
    from integrations.coco import CocoDataset


def read_truth(path: Path, purpose: str) -> "CocoDataset":
    """Read a COCO file, and tell on stderr how many images are left out because nobody reviewed them.

    Args:
        path: the file.
        purpose: a verb, for the complaint that there is nothing to do.

    Raises:
        UsageError: it is no COCO data set, or nothing is in it.
    """
    from integrations.coco import read_coco

    dataset = read_coco(path)
    if dataset.unreviewed:
        click.echo(f"glip-label: left out {dataset.unreviewed} images of {path} that nobody reviewed", err=True)
    if not dataset.images or not dataset.categories:
        raise UsageError(f"{path} has no {'categories' if dataset.images else 'images'}: nothing to {purpose}")
    return dataset
