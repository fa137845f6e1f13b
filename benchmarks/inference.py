"""How fast GLIP-T answers, beside what else there is: ``python -m benchmarks.inference``.

One 800 x 1066 picture, 12 names, random weights, float32 on two threads; repeats are interleaved, so that a busy
machine slows all sides alike, and medians are compared. Each contender is a process of its own, as in use: in one
process the gigabytes that one frees are what the next has page-faulted anew.

* ours: network and post-processing; the caption was encoded before, once, as for the pictures of a project (the time
  for a new caption is printed as well)
* plain: the plain reference path of the tests, which computes as the official code does, and the same post-processing
* mm-grounding-dino: transformers' MM-Grounding-DINO-T, network alone, without compiled operations
* floor: transformers' Swin-T, the feature pyramid, and plain 3 x 3 convolutions of the tower's sizes; no text, no head
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoBackbone, MMGroundingDinoConfig, MMGroundingDinoForObjectDetection, SwinConfig

from glip_model.backbone import FeaturePyramid
from glip_model.configuration_glip import GlipConfig
from glip_model.image import padded_size, resized_size
from glip_model.modeling_glip import GlipForDetection, GlipOutput
from tests.glip_model import reference
from tests.glip_model.random_weights import random_pixels, randomise

THREADS = 2
PICTURE = (480, 640)  # is enlarged to 800 x 1066
SIZES = ((864, 640), (640, 480), (512, 384))
NUM_CLASSES = (1, 12, 40, 80)
TARGETS = {"plain": 6.0, "mm-grounding-dino": 3.0, "floor": 1 / 1.1}
PEAK_TARGET_GB = 1.7
CLS, SEP, FULL_STOP, FIRST_WORD = 101, 102, 1012, 2000  # as BERT numbers them

Contender = Callable[[], object]


def network_input(size_hw: tuple[int, int]) -> Tensor:
    """Random pixels ``(1, 3, H, W)`` with the padding that pictures of this size get."""
    height, width = size_hw
    rows, columns = padded_size([size_hw], 32)
    return F.pad(random_pixels(1, height, width), (0, columns - width, 0, rows - height))


def glip_t() -> GlipForDetection:
    """GLIP-T whose random offsets scatter as trained ones do."""
    model = GlipForDetection(GlipConfig.named("glip-t"))
    randomise(model)
    model.head.prior_bias.fill_(-4.6)  # as initialised: few anchors see anything, which post-processing is spared
    model.train(False)
    return model


def caption_of(num_names: int) -> tuple[Tensor, list[list[int]]]:
    """Token ids ``(1, T)`` and label tokens of that many names, every third of two words, as in COCO."""
    ids, label_tokens = [CLS], list[list[int]]()
    for name in range(num_names):
        ids += [FULL_STOP] if name else []
        label_tokens.append(list(range(len(ids), len(ids) + 1 + (name % 3 == 2))))
        ids += [FIRST_WORD + 2 * name + word for word in range(len(label_tokens[-1]))]
    return torch.tensor([[*ids, SEP]]), label_tokens


def ours(model: GlipForDetection, size_hw: tuple[int, int], num_names: int) -> Callable[[], GlipOutput]:
    pixels, (ids, label_tokens) = network_input(size_hw), caption_of(num_names)
    text = model.encode_text(ids, torch.ones_like(ids))

    def run() -> GlipOutput:
        output: GlipOutput = model(pixel_values=pixels, text_states=text)
        model.postprocess(output, label_tokens, [size_hw])
        return output

    return run


def new_caption(model: GlipForDetection, num_names: int) -> Contender:
    ids, _ = caption_of(num_names)
    return lambda: model.encode_text(ids, torch.ones_like(ids))


def plain(model: GlipForDetection, size_hw: tuple[int, int], num_names: int) -> Callable[[], GlipOutput]:
    pixels, (ids, label_tokens) = network_input(size_hw), caption_of(num_names)
    sizes = torch.tensor([[[-(-pixels.shape[2] // s), -(-pixels.shape[3] // s)] for s in (8, 16, 32, 64, 128)]])

    def run() -> GlipOutput:
        logits, deltas, centerness = reference.forward(model, pixels, ids, torch.ones_like(ids))
        output = GlipOutput(None, logits, deltas, centerness, sizes, border=torch.ones(1))
        model.postprocess(output, label_tokens, [size_hw])
        return output

    return run


def mm_grounding_dino(size_hw: tuple[int, int], num_names: int) -> Contender:
    model: nn.Module = MMGroundingDinoForObjectDetection(MMGroundingDinoConfig())  # the defaults are those of -T
    model.train(False)
    pixels, ids = network_input(size_hw), caption_of(num_names)[0]
    return lambda: model(pixel_values=pixels, input_ids=ids, attention_mask=torch.ones_like(ids))


class Floor(nn.Module):
    """What no implementation of this network can do without: its encoder, its pyramid, and products of its sizes."""

    def __init__(self, num_blocks: int = 6, channels: int = 256) -> None:
        super().__init__()
        swin = SwinConfig(
            embed_dim=96,
            depths=[2, 2, 6, 2],
            num_heads=[3, 6, 12, 24],
            window_size=7,
        )
        swin.out_features = ["stage2", "stage3", "stage4"]
        self.swin: Any = AutoBackbone.from_config(swin)
        self.pyramid = FeaturePyramid(list(self.swin.channels), channels, drop_block_rate=0.0)
        names = ("same", "finer", "coarser")
        self.blocks = nn.ModuleList(
            nn.ModuleDict({name: nn.Conv2d(channels, channels, 3, padding=1) for name in names})
            for _ in range(num_blocks)
        )
        self.offsets = nn.ModuleList(nn.Conv2d(channels, 27, 3, padding=1) for _ in range(num_blocks))

    def forward(self, pixel_values: Tensor) -> list[Tensor]:
        levels: list[Tensor] = self.pyramid(list(self.swin(pixel_values).feature_maps))
        for block, offset in zip(self.blocks, self.offsets, strict=True):
            parts: Any = block
            for i, level in enumerate(levels):
                offset(level)
                if i > 0:
                    F.conv2d(levels[i - 1], parts["finer"].weight, parts["finer"].bias, stride=2, padding=1)
                    parts["coarser"](level)
            levels = [parts["same"](level) for level in levels]
        return levels


def floor(size_hw: tuple[int, int]) -> Contender:
    model = Floor()
    model.train(False)
    pixels = network_input(size_hw)
    return lambda: model(pixels)


def contender(name: str, size_hw: tuple[int, int]) -> Contender:
    """One side of the comparison, ready to run."""
    if name == "mm-grounding-dino":
        return mm_grounding_dino(size_hw, 12)
    if name == "floor":
        return floor(size_hw)
    return (ours if name == "ours" else plain)(glip_t(), size_hw, 12)


def interleaved(contenders: Mapping[str, Contender], repeats: int) -> dict[str, list[float]]:
    """Seconds of each run, round by round; each turn begins with a run that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, run in contenders.items():
            run()  # after the turns of the others a process finds its memory cold
            start = time.perf_counter()
            run()
            took = time.perf_counter() - start
            print(f"{name}: {took:.2f} s", file=sys.stderr, flush=True)
            seconds[name].append(took)
    return seconds


class ContenderProcess:
    """A contender in a process of its own, which runs once per call and waits in between."""

    def __init__(self, name: str, size_hw: tuple[int, int]) -> None:
        command = [sys.executable, "-m", "benchmarks.inference", "--contender", name, "--picture", *map(str, size_hw)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self) -> None:
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("a contender without pipes")
        print(file=self._process.stdin, flush=True)
        if self._process.stdout.readline() != "done\n":
            raise RuntimeError(f"a contender ended with {self._process.wait()}: see above")

    def peak_gb(self) -> float:
        """End it; its peak memory in GB."""
        return float(self._process.communicate()[0])


def serve_contender(name: str, size_hw: tuple[int, int]) -> None:
    """Be a contender: one run per line of input, then the peak memory."""
    run = contender(name, size_hw)
    for _ in sys.stdin:
        run()
        print("done", flush=True)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)


def compare(size_hw: tuple[int, int], repeats: int) -> dict[str, Any]:
    """Time and memory of all four, and how far ours and the plain path are apart."""
    # Started before this process grows: what it holds then would count in their peaks.
    contenders = {name: ContenderProcess(name, size_hw) for name in ("ours", *TARGETS)}
    seconds = interleaved(contenders, repeats)
    peaks = {name: contender.peak_gb() for name, contender in contenders.items()}
    medians = {name: statistics.median(runs) for name, runs in seconds.items()}
    model = glip_t()
    found, expected = ours(model, size_hw, 12)().token_logits, plain(model, size_hw, 12)().token_logits
    if found is None or expected is None:
        raise RuntimeError("a network without logits")
    difference = (found - expected[..., : found.shape[-1]]).abs().max()
    return {
        "seconds": seconds,
        "median_seconds": medians,
        "times_faster_than": {name: medians[name] / medians["ours"] for name in TARGETS},
        "peak_gb": peaks,
        "largest_logit_difference": float(difference),
    }


def costs(repeats: int, size_hw: tuple[int, int], sizes: tuple[tuple[int, int], ...]) -> dict[str, Any]:
    """Medians of ours by number of names and by size of picture."""
    model = glip_t()
    by_names = interleaved({str(n): ours(model, size_hw, n) for n in NUM_CLASSES}, repeats)
    captions = interleaved({str(n): new_caption(model, n) for n in NUM_CLASSES}, repeats)
    by_size = interleaved({f"{h}x{w}": ours(model, (h, w), 12) for h, w in (size_hw, *sizes)}, repeats)
    return {
        "median_seconds_by_names": {n: statistics.median(runs) for n, runs in by_names.items()},
        "median_seconds_of_new_caption": {n: statistics.median(runs) for n, runs in captions.items()},
        "tokens_by_names": {str(n): caption_of(n)[0].shape[1] for n in NUM_CLASSES},
        "median_seconds_by_size": {size: statistics.median(runs) for size, runs in by_size.items()},
    }


def print_report(report: dict[str, Any]) -> None:
    size, comparison = report["picture_hw"], report["comparison"]
    print(f"\nGLIP-T, {size[0]} x {size[1]}, 12 names, {THREADS} threads, medians of {report['repeats']}")
    print(f"{'':20}{'seconds':>9}{'peak GB':>9}{'ours is':>10}{'target':>10}")
    for name, seconds in comparison["median_seconds"].items():
        line = f"{name:20}{seconds:9.2f}{comparison['peak_gb'][name]:9.2f}"
        if name in TARGETS:
            line += f"{comparison['times_faster_than'][name]:9.2f}x{TARGETS[name]:9.2f}x"
        print(line)
    times_floor = 1 / comparison["times_faster_than"]["floor"]
    print(f"ours takes {times_floor:.2f} of the floor (at most 1.1); peak at most {PEAK_TARGET_GB} GB")
    print(f"largest difference to the plain path's logits: {comparison['largest_logit_difference']:.1e}")
    cost = report["costs"]
    for names, seconds in cost["median_seconds_by_names"].items():
        caption = cost["median_seconds_of_new_caption"][names]
        tokens = cost["tokens_by_names"][names]
        print(f"{names:>4} names, {tokens:>3} tokens: {seconds:6.2f} s, and {caption:.2f} s once for the caption")
    for picture, seconds in cost["median_seconds_by_size"].items():
        print(f"{picture:>10}: {seconds:6.2f} s")


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="counted runs of each contender (3)")
    parser.add_argument("--quick", action="store_true", help="one repeat on a small picture: does it run?")
    parser.add_argument("--out", type=Path, default=Path("inference.json"), help="where the JSON goes")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--picture", type=int, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    if arguments.contender:
        serve_contender(arguments.contender, tuple(arguments.picture))
        return
    size_hw = (240, 320) if arguments.quick else resized_size(PICTURE)
    repeats = 1 if arguments.quick else arguments.repeats
    report = {
        "picture_hw": size_hw,
        "repeats": repeats,
        "threads": THREADS,
        "comparison": compare(size_hw, repeats),
        "costs": costs(repeats, size_hw, () if arguments.quick else SIZES),
    }
    arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print_report(report)


if __name__ == "__main__":
    main()
