"""Full-size GLIP-T against the official code's numbers: ``python -m benchmarks.golden_full --golden FOLDER``.

FOLDER holds glipt_p3.json, glipt_p12.json and glipt_train_p3.json, which are too large for the repository. The weights
are made by formula, written as an official checkpoint, and come in through the converter. Needs some 6 GB of memory.
Prints the largest deviation of every kind of tensor beside what is allowed, and fails if one is larger.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from glip_model.configuration_glip import GlipConfig
from glip_model.convert_glip_checkpoint import convert_state_dict
from glip_model.modeling_glip import GlipForDetection
from glip_model.weights_files import convert_checkpoint, read_checkpoint
from tests.glip_model.stages import run_with_stages
from tests.golden.cases import (
    Case,
    deviation,
    official_gradients,
    official_shapes,
    pixel_values,
    targets,
    without_dropout,
    write_official_checkpoint,
)

VARIANT = "glip-t"
ALLOWED = {
    "swin": 2e-5,
    "fpn": 2e-5,
    "lang": 2e-5,
    "tower": 3e-4,
    "head.bbox_reg": 4e-4,
    "head.centerness": 4e-4,
    "head.dot_product_logits": 5e-4,
    "boxes (pixels)": 1e-2,
    "scores": 3e-5,
    "losses (relative)": 1e-4,
    "gradient norms (relative)": 1e-3,
    "gradient norms of AttnConv (relative)": 5e-3,
}


@dataclass(frozen=True)
class Finding:
    """How far one number is from the official one; ``kind`` is a key of ALLOWED."""

    kind: str
    name: str
    difference: float


def read(folder: Path, name: str) -> Case:
    """A case as the official run wrote it, samples inside."""
    data = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    tensors = data["tensors"].items()
    return Case(data, {key: np.array(t["first64"] + t["sample256"], np.float32) for key, t in tensors})


def check_features(model: GlipForDetection, case: Case) -> Iterator[Finding]:
    """Every stage, then the detections."""
    with torch.no_grad():
        output, stages = run_with_stages(model, pixel_values(case), case.input_ids, case.attention_mask)
    for name, tensor in stages.items():
        kind = next(kind for kind in ALLOWED if name.startswith(kind))
        yield Finding(kind, name, deviation(case, name, tensor))
    found = model.postprocess(output, case.label_tokens, case.data["image_sizes_hw"])
    for image, (ours, theirs) in enumerate(zip(found, case.data["detections"], strict=True)):
        if (ours.labels + 1).tolist() != theirs["labels"]:
            yield Finding("scores", f"labels of image {image}", float("inf"))
            continue
        yield Finding("scores", f"image {image}", _largest(ours.scores, theirs["scores"]))
        yield Finding("boxes (pixels)", f"image {image}", _largest(ours.boxes_xyxy, theirs["boxes"]))


def check_training(model: GlipForDetection, base: Case, training: dict[str, Any]) -> Iterator[Finding]:
    """Losses, then the norms of the gradients."""
    output = model.train()(
        pixel_values=pixel_values(base),
        input_ids=base.input_ids,
        attention_mask=base.attention_mask,
        targets=targets(base, training),
    )
    official = {"token": "loss_dot_product_token", "centerness": "loss_centerness", "box": "loss_reg"}
    for ours, theirs in official.items():
        expected = training["losses"][theirs]
        yield Finding("losses (relative)", ours, abs(output.losses[ours].item() - expected) / expected)
    output.loss.backward()
    gradients = official_gradients(model, VARIANT)
    for name, gradient in training["grads"].items():
        expected = gradient["norm"]
        if expected > 1e-6:
            of_attention = " of AttnConv" if ".AttnConv." in name else ""
            relative = abs(float(gradients[name].norm()) - expected) / expected
            yield Finding(f"gradient norms{of_attention} (relative)", name, relative)


def _largest(found: Tensor, expected: list[Any]) -> float:
    return float((found - torch.tensor(expected)).abs().max())


def run(folder: Path) -> Iterator[Finding]:
    """All checks, one model at a time in memory."""
    training = json.loads((folder / "glipt_train_p3.json").read_text(encoding="utf-8"))
    config = GlipConfig.named(VARIANT)
    with tempfile.TemporaryDirectory() as temporary:
        file, converted = Path(temporary) / "official.pth", Path(temporary) / "converted"
        write_official_checkpoint(file, official_shapes(VARIANT), training["weight_tag"])
        convert_checkpoint(file, converted, config, tokenizer=None)
        model: GlipForDetection = GlipForDetection.from_pretrained(converted)
        for name in ("glipt_p3", "glipt_p12"):
            yield from check_features(model, read(folder, name))
        del model
        trained = GlipForDetection(without_dropout(config))
        trained.load_state_dict(convert_state_dict(read_checkpoint(file), config))
        yield from check_training(trained, read(folder, "glipt_p3"), training)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--golden", type=Path, required=True, help="folder with the JSON files of the official run")
    parser.add_argument("--out", type=Path, default=Path("golden_full.json"), help="where the JSON goes")
    arguments = parser.parse_args()
    findings = list(run(arguments.golden))
    report: dict[str, dict[str, Any]] = {}
    for kind, allowed in ALLOWED.items():
        worst = max((f for f in findings if f.kind == kind), key=lambda f: f.difference)
        report[kind] = {"largest": worst.difference, "at": worst.name, "allowed": allowed}
        print(f"{kind:40}{worst.difference:10.1e}   allowed {allowed:.0e}   at {worst.name}")
    arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if any(row["largest"] > row["allowed"] for row in report.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
