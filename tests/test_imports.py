"""Who may import whom: the plan of the house as a table, held against every import statement in the tree."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = "backend.domain backend.ports backend.errors"
HUGGING_FACE = "torch torchvision transformers tokenizers safetensors huggingface_hub"

# Module or package -> what it may import, of ours and of others. The longest name that covers a module rules it.
TABLE = {
    "backend.domain": "backend.domain",
    "backend.errors": "backend.domain",
    "backend.ports": "backend.domain backend.ports",
    "backend.services": f"{CORE} backend.services backend.analysis",
    "backend.analysis": "backend.domain backend.errors backend.analysis numpy scipy sklearn",
    "backend.settings": "backend.domain backend.errors platformdirs",
    "backend.db": f"{CORE} backend.db sqlalchemy alembic",
    "backend.detector": f"{CORE} backend.device backend.model_folders glip_model torch numpy",
    "backend.device": "backend.errors torch",
    "backend.kept_trainings": f"{CORE} backend.services filelock",
    "backend.trainer": f"{CORE} backend.device glip_model torch numpy",
    "backend.simulation_output": f"{CORE} backend.analysis matplotlib",
    "backend.web": f"{CORE} backend.web backend.services backend.bootstrap integrations.label_studio flask werkzeug",
    "backend": "backend integrations glip_model PIL numpy huggingface_hub requests click tqdm",
    "backend.commands": "backend integrations glip_model huggingface_hub label_studio_sdk click tqdm waitress",
    "glip_model": f"glip_model {HUGGING_FACE} PIL numpy pycocotools",
    "glip_model.pretraining": f"glip_model {HUGGING_FACE} PIL numpy tqdm",
    "integrations": f"{CORE} integrations PIL numpy requests",
    "integrations.label_studio": f"{CORE} integrations requests urllib3 certifi defusedxml",
    "integrations.label_studio.api": f"{CORE} label_studio_sdk httpx",
    "integrations.label_studio.connect": f"{CORE} integrations.label_studio label_studio_sdk",
    "integrations.label_studio.sample_project": f"{CORE} integrations.label_studio label_studio_sdk",
    "integrations.label_studio.views": f"{CORE} label_studio_sdk",
    "migrations": "backend.db.tables backend.settings alembic sqlalchemy",
}


def modules() -> list[str]:
    tops = {name.partition(".")[0] for name in TABLE}
    files = [file for top in tops for file in (ROOT / top).rglob("*.py")]
    return sorted(".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files)


def covers(name: str, module: str) -> bool:
    return module == name or module.startswith(f"{name}.")


def imported(module: str) -> Iterator[str]:
    path = ROOT.joinpath(*module.split("."))
    source = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            # `from backend import cli` imports backend.cli
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("module", modules())
def test_a_module_imports_only_what_the_plan_allows(module: str) -> None:
    rule = max((name for name in TABLE if covers(name, module)), key=len)
    allowed = (*TABLE[rule].split(), *sys.stdlib_module_names)
    assert [name for name in imported(module) if not any(covers(each, name) for each in allowed)] == []
