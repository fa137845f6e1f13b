"""Makes ``transformers``' Auto classes and pipelines know GLIP."""

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForZeroShotObjectDetection,
    AutoProcessor,
    AutoTokenizer,
    BertTokenizer,
)

from glip_model.configuration_glip import GlipConfig
from glip_model.modeling_glip import GlipForDetection
from glip_model.processing_glip import GlipImageProcessor, GlipProcessor


def register_auto_classes() -> None:
    """Register configuration, network and processors under the model type ``glip``; twice does no harm."""
    AutoConfig.register(GlipConfig.model_type, GlipConfig, exist_ok=True)
    AutoModelForZeroShotObjectDetection.register(GlipConfig, GlipForDetection, exist_ok=True)
    # One class for both backends: it is as fast without torchvision, and no fallback is announced.
    backends: dict[str, type] = {"torchvision": GlipImageProcessor, "pil": GlipImageProcessor}
    AutoImageProcessor.register(GlipConfig, image_processor_classes=backends, exist_ok=True)
    AutoTokenizer.register(GlipConfig, fast_tokenizer_class=BertTokenizer, exist_ok=True)
    AutoProcessor.register(GlipConfig, GlipProcessor, exist_ok=True)
