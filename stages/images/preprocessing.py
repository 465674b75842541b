"""What networks expect of their input: the order of the colours, and their range."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Preprocessing:
    """From RGB pixels 0..255 to the network's input: (channels in `order` x `scale` - `mean`) / `std`.

    `mean` and `std` are in the network's channel order and in scaled units.
    """

    name: str
    order: str
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def apply(self, image: torch.Tensor) -> torch.Tensor:
        """uint8 or float32 [..., 3, H, W], RGB, 0..255, to float32 of the same shape; the mean colour becomes 0."""
        import torch

        channels = image.flip(-3) if self.order == "bgr" else image
        mean = torch.tensor(self.mean, device=image.device)[:, None, None]
        std = torch.tensor(self.std, device=image.device)[:, None, None]
        return (channels.to(torch.float32) * self.scale - mean) / std

    def colours(self, prepared: torch.Tensor) -> torch.Tensor:
        """The inverse of `apply`, not rounded: float32 [..., 3, H, W], RGB, clipped to 0..1."""
        import torch

        mean = torch.tensor(self.mean, device=prepared.device)[:, None, None]
        std = torch.tensor(self.std, device=prepared.device)[:, None, None]
        channels = (prepared * std + mean) / (self.scale * 255)
        image = channels.flip(-3) if self.order == "bgr" else channels
        return image.clamp(0, 1)

    def pixels(self, prepared: torch.Tensor) -> torch.Tensor:
        """The inverse of `apply`, rounded: uint8 [..., 3, H, W], RGB; 0 becomes the mean colour."""
        import torch

        mean = torch.tensor(self.mean, device=prepared.device)[:, None, None]
        std = torch.tensor(self.std, device=prepared.device)[:, None, None]
        channels = (prepared * std + mean) / self.scale
        image = channels.flip(-3) if self.order == "bgr" else channels
        return image.round().clamp(0, 255).to(torch.uint8)

    def as_json(self) -> dict[str, Any]:
        """What a network's identity includes of its preprocessing."""
        return {"order": self.order, "scale": self.scale, "mean": list(self.mean), "std": list(self.std)}

    @staticmethod
    def from_json(name: str, value: Mapping[str, Any]) -> Preprocessing:
        """The inverse of `as_json`. Raises KeyError, TypeError or ValueError for any other value."""
        (a, b, c), (d, e, f) = (tuple(map(float, value[key])) for key in ("mean", "std"))
        return Preprocessing(name, str(value["order"]), float(value["scale"]), (a, b, c), (d, e, f))


TORCHVISION = Preprocessing("torchvision", "rgb", 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CAFFE = Preprocessing("caffe", "bgr", 1.0, (104.0, 117.0, 123.0), (1.0, 1.0, 1.0))
PLAIN = Preprocessing("plain", "rgb", 1 / 255, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
EFFICIENTNET_LITE = Preprocessing("efficientnet-lite", "rgb", 1.0, (127.0, 127.0, 127.0), (128.0, 128.0, 128.0))
OVERFEAT = Preprocessing("overfeat", "rgb", 1.0, (118.380948,) * 3, (61.896913,) * 3)
PREPROCESSINGS = {known.name: known for known in (TORCHVISION, CAFFE, PLAIN, EFFICIENTNET_LITE, OVERFEAT)}
CAFFE_VGG = replace(CAFFE, mean=(103.939, 116.779, 123.68))  # the mean colour VGG-16 was trained with
CAFFE_FAST = replace(CAFFE, mean=(102.9801, 115.9465, 122.7717))  # used for all networks of Fast R-CNN, config.py
