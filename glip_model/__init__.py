"""GLIP on torch and transformers; importable alone, and cheap to import: names are resolved on first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glip_model.configuration_glip import GlipConfig
    from glip_model.modeling_glip import GlipForDetection
    from glip_model.processing_glip import GlipProcessor

__all__ = ["GlipConfig", "GlipForDetection", "GlipProcessor"]

_HOMES = {
    "GlipConfig": "glip_model.configuration_glip",
    "GlipForDetection": "glip_model.modeling_glip",
    "GlipProcessor": "glip_model.processing_glip",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import_module("glip_model.auto").register_auto_classes()
    return getattr(import_module(_HOMES[name]), name)
