"""The checkpoints that the authors of GLIP published (SPEC 1), under the names this project calls them by."""

from dataclasses import dataclass

REPOSITORY = "GLIPModel/GLIP"  # on Hugging Face
TEXT_ENCODER = "google-bert/bert-base-uncased"  # there too; the tokenizer of all of them is its
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt")  # one of them is enough


@dataclass(frozen=True, slots=True)
class PublishedModel:
    """One published checkpoint.

    Attributes:
        name: what it is called here.
        file: its name in the repository.
        variant: the configuration it belongs to, for ``GlipConfig.named``.
        trained_on: the data sets it has seen.
        coco_ap: zero-shot average precision on COCO that its authors report, in percent.
    """

    name: str
    file: str
    variant: str
    trained_on: str
    coco_ap: float


PUBLISHED = {
    model.name: model
    for model in (
        PublishedModel("glip-t-a", "glip_a_tiny_o365.pth", "glip-t-a", "O365, without fusion", 42.9),
        PublishedModel("glip-t-b", "glip_tiny_model_o365.pth", "glip-t", "O365", 44.9),
        PublishedModel("glip-t-c", "glip_tiny_model_o365_goldg.pth", "glip-t", "O365, GoldG", 46.7),
        PublishedModel("glip-t", "glip_tiny_model_o365_goldg_cc_sbu.pth", "glip-t", "O365, GoldG, CC3M, SBU", 46.6),
        PublishedModel("glip-l", "glip_large_model.pth", "glip-l", "FourODs, GoldG, CC3M+12M, SBU", 51.4),
    )
}
