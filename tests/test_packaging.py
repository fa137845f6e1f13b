"""What is installed where the working tree is not at hand."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = ("backend", "glip_model", "integrations", "migrations")


def test_every_folder_of_modules_is_part_of_the_distribution() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = {file.parent.relative_to(ROOT) for source in SOURCES for file in (ROOT / source).rglob("*.py")}
    moved = {folder: name for name, folder in settings["package-dir"].items()}
    packages = {str(folder).replace("/", ".") for folder in folders}
    packages = {
        next((name + each[len(folder) :] for folder, name in moved.items() if each.startswith(folder)), each)
        for each in packages
    }
    assert sorted(settings["packages"]) == sorted(packages)
