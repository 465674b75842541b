"""Random views of whole images, framed as loosely as proposals are, and the class each of them shows.

A window is (x, y, half width, half height) in units where its image covers [-1, 1] x [-1, 1]; N is the batch size.
"""

from __future__ import annotations

import torch

from stages.pretrain import Settings

UNUSED = -100  # the label that PyTorch's cross entropy ignores
WHOLE = (0.0, 0.0, 1.0, 1.0)


def random_windows(count: int, settings: Settings, generator: torch.Generator) -> torch.Tensor:
    """Windows float32 [N, 4]: most roughly cover their image; a share of `settings.background` lies anywhere."""
    drawn = torch.rand((count, 5), generator=generator)
    missing = drawn[:, 4] < settings.background
    size = torch.where(missing, -1.2 + 1.7 * drawn[:, 0], -0.3 + 0.45 * drawn[:, 0])
    aspect = torch.where(missing, 1.0, 0.4) * (drawn[:, 1] - 0.5)
    reach = torch.where(missing, 1.1, 0.18)[:, None]
    centre = reach * (2 * drawn[:, 2:4] - 1)
    sides = torch.stack([torch.exp(size + aspect), torch.exp(size - aspect)], dim=1)
    return torch.cat([centre, sides], dim=1)


def overlap_with_image(windows: torch.Tensor) -> torch.Tensor:
    """IoU of each window [N, 4] with its whole image, float32 [N]."""
    centre, half = windows[:, :2], windows[:, 2:]
    low, high = (centre - half).clamp(min=-1), (centre + half).clamp(max=1)
    common = (high - low).clamp(min=0).prod(dim=1)
    return common / (4 + (2 * half).prod(dim=1) - common)


def view_labels(labels: torch.Tensor, windows: torch.Tensor, background: int, settings: Settings) -> torch.Tensor:
    """Labels int64 [N]: the image's class where the window covers it, `background` where it misses, else UNUSED."""
    overlap = overlap_with_image(windows)
    between = torch.where(overlap < settings.background_iou, background, UNUSED)
    return torch.where(overlap >= settings.object_iou, labels, between)


def random_flips(count: int, generator: torch.Generator) -> torch.Tensor:
    """+1 or -1 (mirrored) per view: float32 [count]."""
    return 1.0 - 2.0 * torch.randint(2, (count,), generator=generator)


def cut_views(images: torch.Tensor, windows: torch.Tensor, flips: torch.Tensor, *, mirror_border: bool) -> torch.Tensor:
    """Crops the `windows` [N, 4] from preprocessed `images` [N, 3, S, S], resized to S x S: float32 [N, 3, S, S].

    A view is mirrored where `flips` [N] is -1. Beyond its border an image is reflected (`mirror_border`) or filled with
    the mean colour, zero.
    """
    transform = torch.zeros((len(images), 2, 3))
    transform[:, 0, 0] = windows[:, 2] * flips
    transform[:, 1, 1] = windows[:, 3]
    transform[:, :, 2] = windows[:, :2]
    grid = torch.nn.functional.affine_grid(transform.to(images.device), list(images.shape), align_corners=False)
    border = "reflection" if mirror_border else "zeros"
    return torch.nn.functional.grid_sample(images, grid, "bilinear", border, align_corners=False)


def jitter_colours(views: torch.Tensor, strength: float, generator: torch.Generator) -> torch.Tensor:
    """Views [N, 3, S, S] whose channels are each scaled by 1 ± `strength` and shifted by ± `strength`, at random."""
    drawn = torch.rand((2, len(views), 3, 1, 1), generator=generator).to(views.device)
    gain, shift = strength * (2 * drawn - 1)
    return views * (1 + gain) + shift


def occlude(views: torch.Tensor, share: float, generator: torch.Generator) -> torch.Tensor:
    """The views [N, 3, S, S], a `share` of them covered by a plain rectangle of up to half of each side."""
    count, _, side, _ = views.shape
    drawn = torch.rand((count, 8), generator=generator)
    half = (0.08 + 0.17 * drawn[:, 0:2]) * (drawn[:, 2:3] < share)
    offset = (torch.arange(side) + 0.5) / side
    inside_x, inside_y = ((offset - drawn[:, 3 + axis, None]).abs() < half[:, axis, None] for axis in (0, 1))
    covered = (inside_y[:, None, :, None] & inside_x[:, None, None, :]).to(views.device)
    colour = (4 * drawn[:, 5:8, None, None] - 2).to(views.device)
    return torch.where(covered, colour, views)


def random_views(
    images: torch.Tensor, labels: torch.Tensor, background: int, settings: Settings, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Views [N, 3, S, S] of preprocessed `images` [N, 3, S, S], and their labels int64 [N]."""
    windows = random_windows(len(images), settings, generator)
    flips = random_flips(len(images), generator)
    mirror_border = bool(torch.randint(2, (1,), generator=generator))
    views = cut_views(images, windows, flips, mirror_border=mirror_border)
    views = occlude(jitter_colours(views, settings.colour_jitter, generator), settings.occlusion, generator)
    return views.contiguous(memory_format=torch.channels_last), view_labels(labels, windows, background, settings)
