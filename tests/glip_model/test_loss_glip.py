import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from glip_model.anchors import grid_anchors
from glip_model.assignment import assign_anchors
from glip_model.box_ops import encode_boxes
from glip_model.loss_glip import UNDECIDED, centerness_targets, detection_losses, focal_loss

ANCHORS = grid_anchors([(12, 16), (6, 8), (3, 4), (2, 2), (1, 1)])  # a 96 x 128 image
ALL_ANCHORS = torch.cat(ANCHORS)
BOXES = torch.tensor([[10.0, 10.0, 60.0, 60.0], [50.0, 20.0, 110.0, 80.0]])
Losses = dict[str, Tensor]


def target(boxes: Tensor, tokens: int) -> dict[str, Tensor]:
    """Box number i is named by token i + 1."""
    return {"boxes": boxes, "positive_map": F.one_hot(torch.arange(len(boxes)) + 1, tokens).float()}


def predictions(images: int, tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = ((images, len(ALL_ANCHORS), tokens), (images, len(ALL_ANCHORS), 4), (images, len(ALL_ANCHORS)))
    logits, deltas, centerness = (torch.randn(shape, generator=generator) for shape in shapes)
    return logits, deltas, centerness


def losses(
    outputs: tuple[Tensor, Tensor, Tensor], targets: list[dict[str, Tensor]], mask: Tensor | None = None
) -> Losses:
    if mask is None:
        mask = torch.ones(outputs[0].shape[0], outputs[0].shape[2], dtype=torch.int64)
    return detection_losses(*outputs, anchors=ANCHORS, targets=targets, attention_mask=mask)


@settings(deadline=None)
@given(st.floats(-30, 30), st.sampled_from([0.0, 1.0]))
def test_focal_loss_is_the_weighted_cross_entropy(logit: float, wanted: float) -> None:
    x, t = torch.tensor(logit, dtype=torch.float64), torch.tensor(wanted, dtype=torch.float64)
    p = x.sigmoid()
    p_t, alpha_t = (p, 0.25) if wanted else (1 - p, 0.75)
    expected = alpha_t * (1 - p_t) ** 2 * F.binary_cross_entropy_with_logits(x, t)
    torch.testing.assert_close(focal_loss(x, t), expected, atol=1e-9, rtol=1e-6)


def test_focal_loss_of_extreme_logits_is_finite_with_its_gradient() -> None:
    logits = torch.tensor([-5e4, 5e4, -5e4, 5e4], requires_grad=True)
    loss = focal_loss(logits, torch.tensor([0.0, 0.0, 1.0, 1.0]))
    loss.sum().backward()
    assert loss.tolist() == [0.0, 37_500.0, 12_500.0, 0.0]
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_the_centre_of_a_box_is_most_central() -> None:
    anchors = torch.tensor([[10.0, 10.0, 20.0, 20.0], [0.0, 10.0, 10.0, 20.0]])  # centres (15, 15) and (5, 15)
    boxes = torch.tensor([[0.0, 0.0, 30.0, 30.0], [0.0, 0.0, 30.0, 30.0]])
    torch.testing.assert_close(centerness_targets(boxes, anchors), torch.tensor([1.0, (5 / 25) ** 0.5]))


def test_the_token_loss_equals_a_dense_sum_over_all_anchors() -> None:
    outputs = predictions(2, 6)
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]])
    targets = [target(BOXES, 6), target(BOXES[:1], 6)]
    positives = assign_anchors(ANCHORS, torch.cat([BOXES, BOXES[:1]]), torch.tensor([0, 0, 1]), 2)
    dense = torch.zeros_like(outputs[0])
    dense[positives.image, positives.anchor] = torch.cat([t["positive_map"] for t in targets])[positives.box]
    expected = (focal_loss(outputs[0], dense) * mask[:, None]).sum() / len(positives.box)
    torch.testing.assert_close(losses(outputs, targets, mask)["token"], expected)


def test_undecided_tokens_of_a_box_cost_nothing() -> None:
    outputs = predictions(1, 5)
    outputs[0].requires_grad_()
    named = target(BOXES, 5)
    named["positive_map"][:, 3] = UNDECIDED
    losses(outputs, [named])["token"].backward()
    positives = assign_anchors(ANCHORS, BOXES, torch.zeros(2, dtype=torch.int64), 1)
    gradient = outputs[0].grad
    assert gradient is not None
    assert (gradient[0, positives.anchor, 3] == 0).all()
    assert (gradient[0, positives.anchor, 2] != 0).all()
    assert (gradient[0, :, 3] != 0).sum() == len(ALL_ANCHORS) - len(positives.anchor)


def test_padding_tokens_have_no_say() -> None:
    logits, deltas, centerness = predictions(1, 5)
    mask = torch.tensor([[1, 1, 1, 1, 0]])
    before = losses((logits, deltas, centerness), [target(BOXES, 5)], mask)["token"]
    logits[..., 4] = 40.0
    mapped = target(BOXES, 5)
    mapped["positive_map"][:, 4] = 1
    for targets in ([target(BOXES, 5)], [mapped]):
        assert losses((logits, deltas, centerness), targets, mask)["token"] == before


@pytest.mark.parametrize(("tokens", "wanted"), [(256, True), (255, False)])
def test_only_a_text_of_256_tokens_has_a_place_for_no_object(tokens: int, wanted: bool) -> None:
    logits, deltas, centerness = predictions(1, tokens)
    logits[:] = -40.0
    logits[..., -1] = 40.0
    quiet = losses((logits, deltas, centerness), [target(BOXES[:0], tokens)])["token"].item()
    assert quiet == pytest.approx(0 if wanted else 0.75 * 40 * len(ALL_ANCHORS), rel=1e-5)
    padded = torch.ones(1, tokens, dtype=torch.int64)
    padded[:, -1] = 0
    assert losses((logits, deltas, centerness), [target(BOXES[:0], tokens)], padded)["token"].item() < 1e-10


def test_perfect_boxes_cost_nothing() -> None:
    logits, deltas, centerness = predictions(1, 4)
    positives = assign_anchors(ANCHORS, BOXES, torch.tensor([0, 0]), 1)
    deltas[0, positives.anchor] = encode_boxes(BOXES[positives.box], ALL_ANCHORS[positives.anchor])
    found = losses((logits, deltas, centerness), [target(BOXES, 4)])
    assert found["box"].item() == pytest.approx(0, abs=1e-5)
    assert found["centerness"] > 0


@pytest.mark.parametrize("images", [1, 2])
def test_images_without_boxes_train_the_tokens_alone(images: int) -> None:
    outputs = tuple(tensor.requires_grad_() for tensor in predictions(images, 4))
    logits, deltas, centerness = outputs
    found = losses((logits, deltas, centerness), [target(BOXES[:0], 4)] * images)
    assert found["box"] == found["centerness"] == 0
    assert found["token"] > 0
    torch.stack(list(found.values())).sum().backward()
    for tensor in outputs:
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
    assert deltas.grad is not None
    assert not deltas.grad.any()


def test_an_empty_image_beside_a_full_one_is_all_negative() -> None:
    logits, deltas, centerness = predictions(2, 4)
    both = losses((logits, deltas, centerness), [target(BOXES, 4), target(BOXES[:0], 4)])
    alone = losses((logits[:1], deltas[:1], centerness[:1]), [target(BOXES, 4)])
    assert both["box"] == alone["box"]
    assert both["centerness"] == alone["centerness"]
    assert both["token"] > alone["token"]


def test_a_box_of_no_area_is_skipped() -> None:
    found = losses(predictions(1, 4), [target(torch.tensor([[50.0, 50.0, 50.0, 50.0]]), 4)])
    assert all(value.isfinite() for value in found.values())
    assert found["box"] == 0


def test_half_precision_outputs_under_autocast_give_float32_losses() -> None:
    logits, deltas, centerness = predictions(2, 4)
    halves = (logits.bfloat16(), deltas.bfloat16(), centerness.bfloat16())
    targets = [target(BOXES, 4), target(BOXES[:1], 4)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = losses(halves, targets)
    expected = losses((halves[0].float(), halves[1].float(), halves[2].float()), targets)
    for name, value in found.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, expected[name])


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([], "0 targets for 1 images"),
        ([{"boxes": torch.zeros(4), "positive_map": torch.zeros(4, 5)}], r"boxes of image 0 .* not \(N, 4\)"),
        ([target(BOXES, 6)], r"positive_map of image 0 has shape \(2, 6\), not \(2 boxes, 5 tokens\)"),
    ],
)
def test_targets_that_do_not_fit_are_refused(targets: list[dict[str, Tensor]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        losses(predictions(1, 5), targets)


CELLS_OF_P3 = slice(0, 12 * 16)


def gradient(given: dict[str, Tensor]) -> Tensor:
    """How strongly the token loss of one image with two boxes and four tokens moves each logit: ``(A, T)``."""
    logits, deltas, centerness = predictions(1, 4)
    logits.requires_grad_()
    losses((logits, deltas, centerness), [target(BOXES, 4) | given])["token"].backward()
    assert logits.grad is not None
    return logits.grad[0]


def test_anchors_in_unreviewed_regions_teach_nothing_unless_they_have_a_box() -> None:
    left = torch.tensor([[0.0, 0.0, 63.0, 96.0]])
    plain, partly = gradient({}), gradient({"unreviewed": left})
    named = assign_anchors(ANCHORS, BOXES, torch.zeros(2, dtype=torch.int64), 1).anchor
    centres = ALL_ANCHORS[:, :2] / 2 + ALL_ANCHORS[:, 2:] / 2
    silent = centres[:, 0] <= 63
    silent[named] = False
    assert silent[CELLS_OF_P3].any()
    assert not silent.all()
    assert partly[silent].abs().max() < 1e-8
    assert plain[silent].abs().min() > 1e-8
    torch.testing.assert_close(partly[~silent], plain[~silent])


def test_an_image_of_which_nothing_was_reviewed_teaches_its_boxes_only() -> None:
    everything = torch.tensor([[0.0, 0.0, 128.0, 96.0]])
    given = gradient({"unreviewed": everything})
    named = assign_anchors(ANCHORS, BOXES, torch.zeros(2, dtype=torch.int64), 1).anchor
    assert given[named].all()
    inside = torch.ones(12 * 16, dtype=torch.bool)
    inside[named[named < 12 * 16]] = False
    assert given[CELLS_OF_P3][inside].abs().max() < 1e-8


@pytest.mark.parametrize("other", [{}, {"unreviewed": torch.tensor([[0.0, 0.0, 63.0, 96.0]])}])
def test_tokens_of_names_that_nobody_looked_for_teach_nothing_and_the_others_the_same(other: dict[str, Tensor]) -> None:
    plain, given = gradient(other), gradient({**other, "unasked": torch.tensor([0.0, 0.0, 0.0, 1.0])})
    assert plain[:, 3].any()
    assert not given[:, 3].any()
    assert torch.equal(given[:, :3], plain[:, :3])


def test_what_one_image_does_not_teach_another_does() -> None:
    outputs = predictions(2, 4)
    silent = target(BOXES, 4) | {"unasked": torch.ones(4)}
    found, alone = losses(outputs, [target(BOXES, 4), silent]), losses(outputs, [target(BOXES, 4)] * 2)
    first = losses(tuple(part[:1] for part in outputs), [target(BOXES, 4)])  # type: ignore[arg-type]
    torch.testing.assert_close(found["token"], first["token"] / 2)  # averaged over the boxes of both
    assert (found["box"], found["centerness"]) == (alone["box"], alone["centerness"])


def test_a_deleted_box_pushes_its_name_away_twice_as_hard() -> None:
    deleted = torch.tensor([[4.0, 60.0, 40.0, 94.0]])
    names = torch.tensor([[0.0, 0.0, 0.0, 1.0]])
    plain, harder = gradient({}), gradient({"rejected": deleted, "rejected_map": names})
    named = assign_anchors(ANCHORS, BOXES, torch.zeros(2, dtype=torch.int64), 1).anchor
    ruled = assign_anchors(ANCHORS, deleted, torch.zeros(1, dtype=torch.int64), 1).anchor
    ruled = ruled[~torch.isin(ruled, named)]
    assert len(ruled)
    torch.testing.assert_close(harder[ruled, 3], 2 * plain[ruled, 3])
    harder[ruled, 3] = plain[ruled, 3]
    torch.testing.assert_close(harder, plain)


def test_a_deleted_box_counts_in_a_region_that_nobody_reviewed() -> None:
    deleted = torch.tensor([[4.0, 60.0, 40.0, 94.0]])
    names = torch.tensor([[0.0, 0.0, 0.0, 1.0]])
    everything = torch.tensor([[0.0, 0.0, 128.0, 96.0]])
    given = gradient({"unreviewed": everything, "rejected": deleted, "rejected_map": names})
    plain = gradient({})
    ruled = assign_anchors(ANCHORS, deleted, torch.zeros(1, dtype=torch.int64), 1).anchor
    named = assign_anchors(ANCHORS, BOXES, torch.zeros(2, dtype=torch.int64), 1).anchor
    ruled = ruled[~torch.isin(ruled, named)]
    torch.testing.assert_close(given[ruled, 3], plain[ruled, 3])
    assert given[ruled, :3].abs().max() < 1e-8


def test_the_weight_of_an_image_scales_what_it_adds() -> None:
    outputs = predictions(2, 4)
    alone = [losses(tuple(part[i : i + 1] for part in outputs), [target(BOXES, 4)]) for i in range(2)]  # type: ignore[arg-type]
    given = losses(outputs, [target(BOXES, 4), target(BOXES, 4) | {"weight": torch.tensor(0.25)}])
    for name, value in given.items():  # both images have as many positives, over which the losses are averaged
        torch.testing.assert_close(value, (alone[0][name] + 0.25 * alone[1][name]) / 2)


def test_empty_images_teach_that_nothing_is_there() -> None:
    logits, deltas, centerness = predictions(1, 4)
    logits.requires_grad_()
    losses((logits, deltas, centerness), [target(BOXES[:0], 4)])["token"].backward()
    assert logits.grad is not None
    assert (logits.grad > 0).all()
