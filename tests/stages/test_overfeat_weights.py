"""Importing OverFeat's release: the numbers in their places, and a sentence for every other file."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from stages.contract.errors import BadSetting, StageError
from stages.networks import NETWORKS, NetworkSettings, NetworkSource, architectures
from stages.networks.importer import import_weights
from stages.networks.overfeat_weights import file_size, layout, released_network, split_floats
from stages.networks.weights_file import read_record, write_weights
from tests.in_process import caller
from tests.stages.test_networks import one_sentence

CHANNELS = {"overfeat-fast": (4, 5, 6, 7, 8), "overfeat-accurate": (4, 5, 6, 6, 7, 8)}
FUNCTIONS = {"overfeat-fast": architectures.overfeat_fast, "overfeat-accurate": architectures.overfeat_accurate}


@pytest.fixture
def narrow(monkeypatch):
    """Both networks with a few channels and units, so that files are small."""
    for name, function in FUNCTIONS.items():
        narrower = partial(function, channels=CHANNELS[name], widths=(9, 10))
        monkeypatch.setitem(architectures.OURS, name, narrower)


@pytest.fixture
def released(tmp_path, narrow):
    """released(name, changed={}): a file of numbers for the narrow network `name`, and the numbers by layer."""

    def write(name, changed=None):
        generator = np.random.default_rng(len(name))
        numbers = {}
        for tensor, shape in layout(NETWORKS[name]).items():
            scale = np.sqrt(2 / np.prod(shape[1:])) if tensor.endswith("weight") else 0.1
            numbers[tensor] = generator.normal(scale=scale, size=shape).astype("<f4")
        numbers |= changed or {}
        path = tmp_path / NETWORKS[name].released_file
        path.write_bytes(b"".join(values.tobytes() for values in numbers.values()))
        return path, numbers

    return write


@pytest.mark.parametrize(("name", "size"), [("overfeat-fast", 583_683_488), ("overfeat-accurate", 578_625_952)])
def test_the_size_of_the_release_s_files(name, size):
    """Weights before biases, layer by layer; a fully connected layer follows the pooled map."""
    shapes = layout(NETWORKS[name])
    assert file_size(shapes) == size
    assert list(shapes)[:4] == ["conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias"]
    first = NETWORKS[name].fully_connected[0]
    cells = NETWORKS[name].head.side ** 2
    assert shapes[f"{first}.weight"][1] == 1024 * cells


def test_numbers_are_split_in_order():
    content = np.arange(11, dtype="<f4").tobytes()
    shapes = {"weight": (2, 1, 2, 2), "bias": (3,)}
    parts = split_floats(content, shapes, Path("file"), "net")
    assert parts["weight"].tolist() == [[[[0, 1], [2, 3]]], [[[4, 5], [6, 7]]]]
    assert parts["bias"].tolist() == [8, 9, 10]
    for wrong in (content[:-1], content + b"\0", b""):
        with pytest.raises(StageError, match=rf"^file: is {len(wrong)} bytes long, but net has 44; fetch it again"):
            split_floats(wrong, shapes, Path("file"), "net")


def by_hand(name, numbers, batch):
    """The class scores [N, 1000] of the release's layers, as plain convolutions: a fully connected layer is one over
    the whole map."""
    kernels = iter(numbers.values())

    def layer(values, **options):
        weights, biases = torch.from_numpy(next(kernels)), torch.from_numpy(next(kernels))
        side = 1 if weights.dim() == 2 else weights.shape[-1]
        if weights.dim() == 2 and values.shape[-1] > 1:
            side = values.shape[-1]
        weights = weights.reshape(len(weights), -1, side, side)
        return functional.conv2d(values, weights, biases, **options)

    accurate = name == "overfeat-accurate"
    values = functional.max_pool2d(torch.relu(layer(batch, stride=2 if accurate else 4)), 3 if accurate else 2)
    values = functional.max_pool2d(torch.relu(layer(values)), 2)
    for _ in range(4 if accurate else 3):
        values = torch.relu(layer(functional.pad(values, (1, 1, 1, 1))))
    values = functional.max_pool2d(values, 3 if accurate else 2)
    for _ in range(2):
        values = torch.relu(layer(values))
    return layer(values).flatten(1)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_imported_network_computes_the_release_s_scores(released, tmp_path, name):
    """From the file to the network that a recipe loads; the record tells where it comes from."""
    path, numbers = released(name)
    imported = import_weights(str(path), name)
    record = imported.record
    assert (record.network, record.classes, record.preprocessing) == (name, 1000, NETWORKS[name].preprocessing)
    assert (record.source_file, record.source_format) == (path.name, "float32 file without a header")
    assert record.source_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert imported.notes == ()
    output = tmp_path / "out.safetensors"
    write_weights(output, imported.state, record)
    assert read_record(output) == record
    network = NetworkSource.from_settings(NetworkSettings(name, str(output))).load()
    scores = NETWORKS[name].check_classifier()
    batch = torch.randn((2, 3, network.input_size, network.input_size), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = by_hand(name, numbers, batch)
        assert (expected[0] - expected[1]).abs().max() > 0.01
        values = network.forward(batch, [scores])[scores]
    torch.testing.assert_close(values, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_other_files_are_told_in_a_sentence(released, tmp_path):
    path, _ = released("overfeat-fast")
    content = path.read_bytes()
    for wrong in (content[:-4], content[1:], content + b"\0\0\0\0", b"", b"text"):
        path.write_bytes(wrong)
        size = f"{len(content):,}"
        with pytest.raises(StageError, match=f"but overfeat-fast's net_weight_0 has {size}; fetch it again") as error:
            import_weights(str(path), "overfeat-fast")
        assert "net_weight_0: is " in one_sentence(error)
    accurate, _ = released("overfeat-accurate")
    for network in ("overfeat-fast", "tnet"):
        with pytest.raises(StageError, match=f"not those of {network}; import it with --network overfeat-accurate"):
            import_weights(str(accurate), network)
    with pytest.raises(StageError, match="cannot be read"):
        import_weights(str(tmp_path / "absent"), "overfeat-fast")
    with pytest.raises(StageError, match="cannot be read"):
        import_weights(str(tmp_path), "overfeat-fast")
    assert released_network(tmp_path / "name\0") is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite(released, value):
    biases = np.zeros(6, "<f4")
    biases[3] = value
    path, _ = released("overfeat-accurate", {"conv3.bias": biases})
    with pytest.raises(StageError, match=r"'conv3\.bias' has numbers that are not finite; fetch the file") as error:
        import_weights(str(path), "overfeat-accurate")
    one_sentence(error)


def test_options_of_other_formats_are_refused(released):
    path, _ = released("overfeat-fast")
    for option in ({"scores": "fc8"}, {"dropout": "scaled"}, {"class_names": ["cat"]}):
        with pytest.raises(StageError, match=r"\.caffemodel"):
            import_weights(str(path), "overfeat-fast", **option)
    other = import_weights(str(path), "overfeat-fast", preprocessing="torchvision")
    assert other.record.preprocessing.name == "torchvision"


def test_a_state_dict_of_the_network(released, tmp_path):
    """Its preprocessing has to be named, as any other's."""
    path, _ = released("overfeat-fast")
    state = import_weights(str(path), "overfeat-fast").state
    torch.save(state, tmp_path / "state.pth")
    with pytest.raises(StageError, match="add --preprocessing overfeat or --preprocessing torchvision"):
        import_weights(str(tmp_path / "state.pth"), "overfeat-fast")
    again = import_weights(str(tmp_path / "state.pth"), "overfeat-fast", preprocessing="overfeat")
    assert all(torch.equal(again.state[name], tensor) for name, tensor in state.items())


def test_torchvision_has_no_weights_of_it():
    with pytest.raises(BadSetting, match="no weights for overfeat-fast; import some with `rcnn weights import`"):
        NetworkSource.from_settings(NetworkSettings("overfeat-fast", "torchvision"))


def test_the_commands(released, tmp_path, capsys):
    """Import and show, as one types them; exit status 2 and one line for a file of another size."""
    call = caller(capsys)
    path, numbers = released("overfeat-accurate")
    output = tmp_path / "accurate.safetensors"
    count = f"{sum(values.size for values in numbers.values()):,} numbers"
    code, printed, _ = call("weights", "show", path)
    assert code == 0
    assert "net_weight_1: as large as the weights of overfeat-accurate, which have no header" in printed
    assert "  conv2.weight  5 x 4 x 7 x 7\n" in printed
    assert count in printed
    code, printed, _ = call("weights", "import", path, "--network", "overfeat-accurate", "-o", output)
    assert code == 0
    assert "from net_weight_1, a float32 file without a header, SHA-256" in printed
    assert "preprocessing overfeat: RGB, x 1, minus (118.380948, 118.380948, 118.380948)" in printed
    assert count in printed
    output.unlink()
    path.write_bytes(b"\0" * 100)
    code, printed, said = call("weights", "import", path, "--network", "overfeat-accurate", "-o", output)
    assert (code, printed, said.count("\n")) == (2, "", 1)
    assert not output.exists()
