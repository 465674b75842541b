"""RoI warping: values and gradients worked out by hand, gradcheck, and RoIAlign's samples before pooling."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torchvision.ops import roi_align

from stages.networks.roi_warping import roi_warp


def random_case(seed: int, boxes: int, outside: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """A float64 map and boxes on it, which may lie up to `outside` cells outside."""
    generator = torch.Generator().manual_seed(seed)
    height, width = torch.randint(3, 12, (2,), generator=generator).tolist()
    cells = torch.randn((1, 3, height, width), generator=generator, dtype=torch.float64)
    shares = torch.rand((boxes, 4), generator=generator, dtype=torch.float64).reshape(boxes, 2, 2).sort(dim=1).values
    extent = torch.tensor([width, height]) + 2 * outside
    return cells, (shares * extent - outside).reshape(boxes, 4)


def test_a_ramp_by_hand():
    """Cell i holds i. The box from 1 to 5 is sampled at 1.5, 2.5, 3.5 and 4.5, the middles of cells 1 to 4; the larger
    of each two are 2 and 4. They lie at 3/8 and 7/8 of the way from x1 to x2."""
    ramp = torch.arange(6.0).expand(1, 1, 6, 6)
    boxes = torch.tensor([[1.0, 1.0, 5.0, 5.0]], requires_grad=True)
    regions = roi_warp(ramp, boxes, 2)
    torch.testing.assert_close(regions, torch.tensor([[[[2.0, 4.0], [2.0, 4.0]]]]))
    (gradient,) = torch.autograd.grad(regions[0, 0, 0, 0], boxes, retain_graph=True)
    torch.testing.assert_close(gradient, torch.tensor([[5 / 8, 0.0, 3 / 8, 0.0]]))
    (gradient,) = torch.autograd.grad(regions[0, 0, 1, 1], boxes)
    torch.testing.assert_close(gradient, torch.tensor([[1 / 8, 0.0, 7 / 8, 0.0]]))


@pytest.mark.parametrize("seed", range(3))
def test_gradients_reach_the_map_and_the_boxes(seed):
    cells, boxes = random_case(seed, 4)
    inputs = (cells.requires_grad_(), boxes.requires_grad_())
    assert gradcheck(lambda cells, boxes: roi_warp(cells, boxes, 3), inputs)


@given(seed=st.integers(0, 2**32 - 1), size=st.sampled_from([1, 2, 7]))
def test_its_samples_are_those_of_roi_align(seed, size):
    """Also of boxes that reach outside the map, where RoIAlign's samples become 0."""
    cells, boxes = random_case(seed, 5, outside=3.0)
    samples = roi_align(cells, [boxes], 2 * size, sampling_ratio=1, aligned=True)
    expected = torch.nn.functional.max_pool2d(samples, 2)
    torch.testing.assert_close(roi_warp(cells, boxes, size), expected, rtol=0, atol=1e-12)


def test_no_boxes():
    assert roi_warp(torch.zeros((1, 5, 4, 4)), torch.zeros((0, 4)), 7).shape == (0, 5, 7, 7)
