"""T-Net, O-Net and ZF: shapes and parameters layer by layer, and the same numbers as OpenCV's Caffe importer gives."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from stages.networks import NETWORKS, SOFTMAX, NetworkSettings, NetworkSource, architectures
from stages.networks.architectures import empty_module
from stages.networks.caffe_layers import CrossChannelNormalisation, WithinChannelNormalisation
from stages.networks.network import Network
from tests.stages import caffe_files

LAST = {"fc7": ((4096,), 16_781_312), "fc8": ((1000,), 4_097_000)}

# layer: the shape of its output for one region, and its number of parameters
TNET = {
    "conv1": ((96, 55, 55), 34_944),
    "pool1": ((96, 27, 27), 0),
    "norm1": ((96, 27, 27), 0),
    "conv2": ((256, 27, 27), 307_456),  # in two groups: 48 channels a filter
    "pool2": ((256, 13, 13), 0),
    "norm2": ((256, 13, 13), 0),
    "conv3": ((384, 13, 13), 885_120),
    "conv4": ((384, 13, 13), 663_936),
    "conv5": ((256, 13, 13), 442_624),
    "pool5": ((256, 6, 6), 0),
    "fc6": ((4096,), 37_752_832),
    **LAST,
}
ONET = {
    "conv1_1": ((64, 224, 224), 1_792),
    "conv1_2": ((64, 224, 224), 36_928),
    "pool1": ((64, 112, 112), 0),
    "conv2_1": ((128, 112, 112), 73_856),
    "conv2_2": ((128, 112, 112), 147_584),
    "pool2": ((128, 56, 56), 0),
    "conv3_1": ((256, 56, 56), 295_168),
    "conv3_2": ((256, 56, 56), 590_080),
    "conv3_3": ((256, 56, 56), 590_080),
    "pool3": ((256, 28, 28), 0),
    "conv4_1": ((512, 28, 28), 1_180_160),
    "conv4_2": ((512, 28, 28), 2_359_808),
    "conv4_3": ((512, 28, 28), 2_359_808),
    "pool4": ((512, 14, 14), 0),
    "conv5_1": ((512, 14, 14), 2_359_808),
    "conv5_2": ((512, 14, 14), 2_359_808),
    "conv5_3": ((512, 14, 14), 2_359_808),
    "pool5": ((512, 7, 7), 0),
    "fc6": ((4096,), 102_764_544),
    **LAST,
}
ZF = {
    "conv1": ((96, 112, 112), 14_208),
    "norm1": ((96, 112, 112), 0),
    "pool1": ((96, 57, 57), 0),  # 56 if the number of windows were rounded down
    "conv2": ((256, 29, 29), 614_656),
    "norm2": ((256, 29, 29), 0),
    "pool2": ((256, 15, 15), 0),
    "conv3": ((384, 15, 15), 885_120),
    "conv4": ((384, 15, 15), 1_327_488),
    "conv5": ((256, 15, 15), 884_992),
    "pool5": ((256, 6, 6), 0),
    "fc6": ((4096,), 37_752_832),
    **LAST,
}
PARAMETERS = {"tnet": 60_965_224, "onet": 138_357_544, "zf": 62_357_608}


@pytest.mark.parametrize(("name", "table"), [("tnet", TNET), ("onet", ONET), ("zf", ZF)])
def test_shapes_and_parameters_layer_by_layer(name, table):
    """Every layer of the papers' networks with 1,000 classes, without memory for weights."""
    card = NETWORKS[name]
    module = empty_module(card, 1000)
    found = {}

    def note(layer):
        return lambda part, _, output: found.update(
            {layer: (tuple(output.shape[1:]), sum(one.numel() for one in part.parameters()))}
        )

    for layer, part in module.named_children():
        part.register_forward_hook(note(layer))
    module(torch.empty((2, 3, card.input_size, card.input_size), device="meta"))
    plain = {layer: value for layer, value in found.items() if not layer.startswith(("relu", "drop", "flatten"))}
    assert plain == table
    assert list(plain) == list(table)
    assert sum(count for _, count in table.values()) == PARAMETERS[name]


def test_section_3_2_counts_fc7():
    """R-CNN section 3.2: fc7's 16.8 million are 29 % of the parameters, those of the 1,000 class scores not counted."""
    fc7 = sum(weight.numel() for weight in empty_module(NETWORKS["tnet"], 1000).get_submodule("fc7").parameters())
    assert round(fc7 / 1e6, 1) == 16.8
    assert int(100 * fc7 / (PARAMETERS["tnet"] - TNET["fc8"][1])) == 29


def narrow(name: str, seed: int = 0) -> nn.Sequential:
    """The network with 16 units in fc6 and fc7, 7 classes, and weights that keep activations in range."""
    torch.manual_seed(seed)
    module = getattr(architectures, name)(7, width=16)
    for parameter in module.parameters():
        if parameter.dim() > 1:
            nn.init.kaiming_normal_(parameter)
    return module.eval()


def run_by_opencv(name: str, module: nn.Sequential, batch: np.ndarray, layers: list[str]) -> list[np.ndarray]:
    """The outputs of the layers, after their rectifiers, as OpenCV's Caffe importer computes them."""
    import cv2

    weights = {layer: [one.detach().numpy() for one in part.parameters()] for layer, part in module.named_children()}
    text = getattr(caffe_files, name)(batch.shape[2], 16, 7)
    net = cv2.dnn.readNetFromCaffe(
        np.frombuffer(text, np.uint8), np.frombuffer(caffe_files.caffemodel(weights), np.uint8)
    )
    net.enableFusion(False)
    net.setInput(batch, "data")
    if name == "zf":
        net.setInput(np.array([[0, 0, 0, 223, 223]], np.float32), "rois")  # the whole image
    rectified = [caffe_files.rectifier(one) if one.startswith(("conv", "fc6", "fc7")) else one for one in layers]
    return [output.reshape(1, -1) for output in net.forward(rectified)]


@pytest.mark.parametrize(("name", "size"), [("tnet", 227), ("tnet", 224), ("zf", 224), ("onet", 224)])
def test_forward_pass_is_caffes(name, size):
    """Every layer's numbers, from a definition written as in Caffe's release; at 224 T-Net's pools must round up."""
    card = NETWORKS[name]
    module = narrow(name)
    batch = (np.random.default_rng(0).random((1, 3, size, size), np.float32) - 0.45) * 255
    layers = [name for name in card.layers if name != SOFTMAX]
    expected = run_by_opencv(name, module, batch, layers)
    with torch.inference_mode():
        found = Network(card, module, 7, card.preprocessing).forward(torch.from_numpy(batch), layers)
    for layer, values in zip(layers, expected, strict=True):
        scale = float(np.abs(values).max())
        np.testing.assert_allclose(found[layer].numpy(), values, atol=1e-4 * scale, rtol=0, err_msg=layer)


def test_normalisation_across_channels_by_hand():
    """Seven channels of one pixel, three neighbours, alpha 3 (1 for each square), beta 1."""
    values = torch.tensor([1.0, 2, 0, 3, 0, 0, 1])
    found = CrossChannelNormalisation(size=3, alpha=3.0, beta=1.0)(values[None, :, None, None]).flatten()
    squares = [5, 5, 13, 9, 9, 1, 1]
    torch.testing.assert_close(found, values / (1 + torch.tensor(squares)))


def test_normalisation_within_a_channel_by_hand():
    """Three places in a row: the mean is over nine places, six of them outside the map or zero."""
    values = torch.tensor([3.0, 0, 6])
    found = WithinChannelNormalisation(size=3, alpha=1.0, beta=1.0)(values[None, None, None, :]).flatten()
    torch.testing.assert_close(found, values / (1 + torch.tensor([9.0, 45, 36]) / 9))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_normalisation_is_pytorchs_in_every_arithmetic(dtype, layout):
    """Activations of Caffe's networks reach thousands, whose squares float16 has not."""
    maps = (torch.randn((2, 96, 5, 4), generator=torch.Generator().manual_seed(0)).relu() * 1000).to(dtype)
    maps = maps.contiguous(memory_format=layout)
    found = CrossChannelNormalisation()(maps)
    expected = nn.LocalResponseNorm(5, 1e-4, 0.75, 1.0)(maps.double())
    assert found.dtype == dtype
    assert found.is_contiguous(memory_format=layout)
    torch.testing.assert_close(found.double(), expected, rtol=4 * torch.finfo(dtype).eps, atol=0)


def test_normalisation_can_be_trained_through():
    """Its gradient, which fine-tuning needs, is right."""
    maps = torch.randn((1, 7, 2, 3), dtype=torch.float64, requires_grad=True) * 3
    assert torch.autograd.gradcheck(CrossChannelNormalisation(alpha=0.1), (maps,))
    assert torch.autograd.gradcheck(WithinChannelNormalisation(alpha=0.1), (maps,))


@pytest.mark.parametrize("name", ["tnet", "onet", "zf"])
def test_dropout_acts_in_training_only(name):
    """Half of fc6 and fc7 is dropped in training, nothing afterwards."""
    rates = {
        one: part.p for one, part in empty_module(NETWORKS[name], 3).named_children() if isinstance(part, nn.Dropout)
    }
    assert rates == {"drop6": 0.5, "drop7": 0.5}
    if name != "onet":  # slower, and the same
        module = narrow(name)
        batch = torch.randn((1, 3, NETWORKS[name].input_size, NETWORKS[name].input_size))
        with torch.inference_mode():
            assert torch.equal(module(batch), module(batch))
            assert not torch.equal(module.train()(batch), module(batch))


def test_maps_that_nobody_asked_for_are_not_kept():
    """O-Net's maps are 54 MB a region: conv1 is gone when conv3 is there."""
    network = Network(NETWORKS["tnet"], narrow("tnet"), 7, NETWORKS["tnet"].preprocessing)
    maps: list[Any] = []
    network.module.conv1.register_forward_hook(lambda _, __, output: maps.append(weakref.ref(output)))
    network.module.conv3.register_forward_hook(lambda *_: maps.append(maps[0]()))
    with torch.inference_mode():
        found = network.forward(torch.zeros((1, 3, 227, 227)), ["conv5", "fc6"])
    assert maps[1] is None
    assert {name: value.shape for name, value in found.items()} == {"conv5": (1, 43264), "fc6": (1, 16)}


def test_preprocessing_of_the_papers_networks():
    """Blue first, 0 to 255, minus the mean colour of the training images; the recipe's `mean` replaces it."""
    means = {name: NETWORKS[name].preprocessing.mean for name in ("tnet", "onet", "zf")}
    assert means == {
        "tnet": (104.0, 117.0, 123.0),
        "onet": (103.939, 116.779, 123.68),
        "zf": (102.9801, 115.9465, 122.7717),
    }
    pixel = torch.tensor([200, 100, 50], dtype=torch.uint8)[:, None, None]
    source = NetworkSource.from_settings(NetworkSettings("onet", "random"))
    found = source.preprocessing.apply(pixel).flatten().tolist()
    assert found == pytest.approx([50 - 103.939, 100 - 116.779, 200 - 123.68])
    named = NetworkSource.from_settings(NetworkSettings("onet", "random", "caffe", (1.0, 2.0, 3.0)))
    assert (named.preprocessing.order, named.preprocessing.mean) == ("bgr", (1.0, 2.0, 3.0))
    assert NetworkSource.from_settings(NetworkSettings("onet", "random", "caffe")) == source


def test_keys_of_the_older_networks_are_what_they_were():
    """Caches that were made before these networks came stay theirs."""
    from cache.identity import key_of

    keys = {
        ("alexnet", "torchvision", None): "2fe5c0f945a5",
        ("vgg16", "torchvision", None): "dd7d6b39dc37",
        ("vgg16", "random", "caffe"): "9d4f467802cd",
        ("squeezenet1_0", "torchvision", None): "653cbd75b9db",
        ("shapenet", "random", None): "7887a4b177e7",
    }
    assert {one: key_of(NetworkSource.from_settings(NetworkSettings(*one)).identity()) for one in keys} == keys
