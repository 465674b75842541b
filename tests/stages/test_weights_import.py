"""Importing weights: what comes out is what went in, and a file of another network is told in one sentence."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from stages.contract.errors import BadSetting, ChangedInput, StageError
from stages.networks import CAFFE, NETWORKS, TORCHVISION, NetworkSettings, NetworkSource, architectures
from stages.networks.architectures import build
from stages.networks.caffemodel import read_caffemodel
from stages.networks.importer import import_weights
from stages.networks.weights_file import WeightsRecord, read_record, tensors_digest, write_weights
from tests.in_process import caller
from tests.stages.caffe_files import caffemodel, field
from tests.stages.test_networks import one_sentence

WIDTH = 16


def record_of(path: Path) -> WeightsRecord:
    """What a file of imported weights says of itself."""
    record = read_record(path)
    assert record is not None, f"{path}: no record"
    return record


@pytest.fixture(autouse=True)
def narrow_networks(monkeypatch):
    """fc6 and fc7 of 16 units, so that files are small."""
    for name in ("tnet", "onet", "zf"):
        monkeypatch.setitem(architectures.OURS, name, partial(getattr(architectures, name), width=WIDTH))


@pytest.fixture(scope="module")
def layers():
    """A narrow T-Net of 1,000 classes as Caffe has it: every layer in order, with weights and biases or without."""
    torch.manual_seed(1)
    module = architectures.tnet(1000, width=WIDTH)
    return {name: [one.detach().numpy() for one in part.parameters()] for name, part in module.named_children()}


@pytest.fixture
def model_file(tmp_path):
    """model_file(layers, version=2, name="net.caffemodel"): a .caffemodel of them."""

    def write(layers, version=2, name="net.caffemodel"):
        path = tmp_path / name
        path.write_bytes(caffemodel(layers, version))
        return path

    return write


def state_of(layers):
    """The state dict of a network with these layers."""
    pairs = {name: blobs for name, blobs in layers.items() if blobs}
    return {
        f"{name}.{one}": torch.from_numpy(blob)
        for name, blobs in pairs.items()
        for one, blob in zip(("weight", "bias"), blobs, strict=True)
    }


def assert_equal_states(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("version", [0, 1, 2])
def test_caffemodel_comes_through_whole(layers, model_file, tmp_path, version):
    """All three formats of Caffe, from the file to the network that a recipe loads; the file tells what it is."""
    path = model_file(layers, version)
    imported = import_weights(str(path), "tnet")
    assert_equal_states(imported.state, state_of(layers))
    assert imported.notes == ()
    record = imported.record
    assert (record.network, record.classes, record.preprocessing) == ("tnet", 1000, CAFFE)
    assert (record.source_file, record.source_format) == ("net.caffemodel", "caffemodel")
    assert record.source_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    output = tmp_path / "tnet.safetensors"
    write_weights(output, imported.state, record)
    assert read_record(output) == record
    source = NetworkSource.from_settings(NetworkSettings("tnet", str(output)))
    assert source.identity()["weights"] == f"tensors:{tensors_digest(state_of(layers))}"
    assert_equal_states(source.load().module.state_dict(), state_of(layers))


@pytest.mark.parametrize("version", [1, 2])
def test_opencv_reads_the_same_numbers(layers, model_file, tmp_path, version):
    """The files of these tests are Caffe's: OpenCV's importer finds what ours finds."""
    import cv2

    from tests.stages import caffe_files

    definition = tmp_path / "net.prototxt"
    definition.write_bytes(caffe_files.tnet(227, WIDTH, 1000))
    path = model_file(layers, version)
    net = cv2.dnn.readNetFromCaffe(str(definition), str(path))
    for name, blobs in read_caffemodel(path).layers.items():
        for position, blob in enumerate(blobs):
            assert np.array_equal(net.getParam(name, position).reshape(blob.shape), blob), name


def test_the_same_import_gives_the_same_bytes(layers, model_file, tmp_path):
    """So the key of everything that is made with it stays; another source of the same numbers has that key too."""
    outputs = [tmp_path / f"{position}.safetensors" for position in range(3)]
    for output, version in zip(outputs, (2, 2, 1), strict=True):
        imported = import_weights(str(model_file(layers, version)), "tnet")
        write_weights(output, imported.state, imported.record)
    assert outputs[0].read_bytes() == outputs[1].read_bytes() != outputs[2].read_bytes()
    identities = [NetworkSource.from_settings(NetworkSettings("tnet", str(one))).identity() for one in outputs]
    assert identities[0] == identities[1] == identities[2]


def renamed(layers, new, classes=21):
    """The layers with class scores of another name and number, as fine-tuning gives them."""
    kept = {name: blobs for name, blobs in layers.items() if name != "fc8"}
    return {**kept, new: [np.ones((classes, WIDTH), np.float32), np.zeros(classes, np.float32)]}


def test_fine_tuned_networks_have_other_classes(layers, model_file):
    """R-CNN's release calls the layer fc8_pascal; the only further layer on fc7 is taken for it, aloud."""
    imported = import_weights(str(model_file(renamed(layers, "fc8_pascal"), version=0)), "tnet")
    assert imported.record.classes == 21
    assert imported.state["fc8.weight"].shape == (21, WIDTH)
    assert imported.notes == ("class scores are taken from layer 'fc8_pascal'",)
    assert import_weights(str(model_file(renamed(layers, "fc8"))), "tnet").notes == ()


def test_several_layers_on_fc7_need_a_choice(layers, model_file):
    """Fast R-CNN's files are imported as detectors unless one is chosen."""
    boxes = {"bbox_pred": [np.ones((84, WIDTH), np.float32), np.zeros(84, np.float32)]}
    path = model_file({**renamed(layers, "fc8_pascal"), **boxes})
    with pytest.raises(
        StageError, match=r"no layer 'fc8' of class scores; choose one of fc8_pascal, bbox_pred"
    ) as error:
        import_weights(str(path), "tnet")
    one_sentence(error)
    path = model_file({**renamed(layers, "cls_score"), **boxes})
    imported = import_weights(str(path), "tnet", scores="cls_score")
    assert imported.record.classes == 21
    assert imported.notes == ("class scores are taken from layer 'cls_score'", "left out: bbox_pred")
    with pytest.raises(StageError, match=r"--scores cls_scores: .* did you mean 'cls_score'\?"):
        import_weights(str(path), "tnet", scores="cls_scores")


def without(layers, *names):
    return {name: blobs for name, blobs in layers.items() if name not in names}


def reordered(layers):
    """AlexNet as its paper has it: norm1 before pool1."""
    names = list(layers)
    first, second = names.index("pool1"), names.index("norm1")
    names[first], names[second] = names[second], names[first]
    return {name: layers[name] for name in names}


def changed(layers, name, *blobs):
    return {**layers, name: [np.asarray(blob, np.float32) for blob in blobs]}


BROKEN = {
    "a layer is missing": (lambda layers: without(layers, "conv4"), r"has no weights for tnet's layer 'conv4'"),
    "no class scores": (lambda layers: without(layers, "fc8"), r"has no layer 'fc8' of class scores"),
    "a layer too many": (
        lambda layers: changed(layers, "conv3_4", np.zeros((4, 4, 3, 3)), np.zeros(4)),
        r"has weights for a layer that tnet does not have, 'conv3_4'",
    ),
    "no groups": (
        lambda layers: changed(layers, "conv2", np.zeros((256, 96, 5, 5)), np.zeros(256)),
        r"'conv2.weight' should be \[256, 48, 5, 5\] but is \[256, 96, 5, 5\]",
    ),
    "no biases": (lambda layers: changed(layers, "conv1", layers["conv1"][0]), r"layer 'conv1' has 1 blobs"),
    "AlexNet's order": (reordered, r"layer 'norm1' comes before 'pool1', but in tnet it comes after"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_caffemodels_of_another_network(layers, model_file, case):
    change, message = BROKEN[case]
    with pytest.raises(StageError, match=message) as error:
        import_weights(str(model_file(change(layers))), "tnet")
    assert "net.caffemodel: " in one_sentence(error)


def test_caffe_names_are_those_of_three_networks(layers, model_file):
    with pytest.raises(StageError, match=r"cannot be imported as vgg16; choose --network from tnet, onet, zf") as error:
        import_weights(str(model_file(layers)), "vgg16")
    one_sentence(error)
    with pytest.raises(StageError, match=r"has no weights for onet's layer 'conv1_1'"):
        import_weights(str(model_file(layers)), "onet")


DAMAGED = {
    "truncated": (lambda content: content[: len(content) // 2], "or is incomplete; fetch it again"),
    "text": (lambda content: b'name: "net"\nlayer { type: "Input" }\n', "neither a .caffemodel nor a state dict"),
    "empty": (lambda content: b"", "contains no weights"),
    "without weights": (lambda content: field(1, "net") + field(100, field(1, "conv1")), "contains no weights"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_files_that_are_no_caffemodels(layers, model_file, case):
    change, message = DAMAGED[case]
    path = model_file(layers)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(StageError, match=message) as error:
        import_weights(str(path), "tnet")
    assert "net.caffemodel: " in one_sentence(error)


def test_a_blob_whose_shape_is_not_its_length(layers, model_file):
    """The shape says 96 filters, there are numbers for 95."""
    path = model_file({"conv1": [np.zeros((95, 3, 11, 11), np.float32)]})
    content = path.read_bytes().replace(bytes([95, 3, 11, 11]), bytes([96, 3, 11, 11]))
    path.write_bytes(content)
    with pytest.raises(StageError, match=r"layer 'conv1' has 34485 weights but shape \[96, 3, 11, 11\]") as error:
        import_weights(str(path), "tnet")
    one_sentence(error)


@pytest.mark.parametrize("version", [0, 1, 2])
def test_damage_anywhere_ends_in_a_sentence(tmp_path, layers, version):
    """A small file, cut after every third byte and with 300 changed bytes: never a traceback."""
    content = caffemodel({name: [blob.reshape(-1)[:1] for blob in blobs] for name, blobs in layers.items()}, version)
    generator = np.random.default_rng(version)
    damaged = [content[:end] for end in range(0, len(content), 3)]
    for place, value in zip(generator.integers(len(content), size=300), generator.integers(256, size=300), strict=True):
        damaged.append(content[:place] + bytes([value]) + content[place + 1 :])
    path = tmp_path / "damaged.caffemodel"
    for one in damaged:
        path.write_bytes(one)
        with pytest.raises(StageError) as error:
            import_weights(str(path), "tnet")
        one_sentence(error)


def test_state_dicts_need_their_preprocessing(layers, tmp_path):
    """PyTorch's and safetensors' files; nothing in them tells it, so it has to be said."""
    torch.save(state_of(layers), tmp_path / "tnet.pth")
    save_file(state_of(layers), tmp_path / "plain.safetensors")
    torch.save(state_of(layers), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for name in ("tnet.pth", "plain.safetensors", "old.pth"):
        path = str(tmp_path / name)
        with pytest.raises(StageError, match="does not record its preprocessing") as error:
            import_weights(path, "tnet")
        one_sentence(error)
        imported = import_weights(path, "tnet", preprocessing="caffe", mean=(1.0, 2.0, 3.0))
        assert_equal_states(imported.state, state_of(layers))
        assert imported.record.preprocessing == replace(CAFFE, mean=(1.0, 2.0, 3.0))
        assert imported.record.source_format == "state dict"
    with pytest.raises(StageError, match=r"not weights of zf with 1000 classes \('conv1.weight'"):
        import_weights(path, "zf", preprocessing="caffe")
    with pytest.raises(StageError, match=r"--scores fc8: only a \.caffemodel"):
        import_weights(path, "tnet", preprocessing="caffe", scores="fc8")


def test_plain_safetensors_work_as_a_state_dict(tmp_path):
    """Named by a recipe without being imported, as a .pth file may be."""
    torch.manual_seed(2)
    state = build(NETWORKS["shapenet"], 10).state_dict()
    save_file(state, tmp_path / "plain.safetensors")
    path = str(tmp_path / "plain.safetensors")
    source = NetworkSource.from_settings(NetworkSettings("shapenet", path, preprocessing="plain"))
    assert source.identity()["weights"].startswith("sha256:")
    assert all(torch.equal(value, state[name]) for name, value in source.load().module.state_dict().items())


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """torch.hub's folder with a file of torchvision's VGG-16, two classes, fc6 and fc7 of 16 units."""
    import torchvision

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    with torch.device("meta"):
        module = torchvision.models.vgg16(weights=None, num_classes=2)
    for position, inputs, outputs in ((0, 25088, WIDTH), (3, WIDTH, WIDTH), (6, WIDTH, 2)):
        module.classifier[position] = torch.nn.Linear(inputs, outputs)
    for parameter in module.features.to_empty(device="cpu").parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    torch.save(module.state_dict(), folder / "vgg16.pth")
    digest = hashlib.sha256((folder / "vgg16.pth").read_bytes()).hexdigest()
    (folder / "vgg16.pth").rename(folder / f"vgg16-{digest[:8]}.pth")
    monkeypatch.setitem(NETWORKS, "vgg16", replace(NETWORKS["vgg16"], torchvision_file=f"vgg16-{digest[:8]}.pth"))
    return module


def test_torchvisions_weights_under_caffes_names(hub, tmp_path):
    """O-Net is torchvision's VGG-16: the same scores, but red first and 0 to 1, which the file records."""
    imported = import_weights("torchvision:vgg16", "onet")
    assert imported.record.preprocessing == TORCHVISION
    assert (imported.record.classes, imported.record.source_format) == (2, "torchvision")
    output = tmp_path / "onet.safetensors"
    write_weights(output, imported.state, imported.record)
    source = NetworkSource.from_settings(NetworkSettings("onet", str(output)))
    assert source.preprocessing == TORCHVISION
    batch = torch.randn((1, 3, 224, 224))
    with torch.inference_mode():
        scores = source.load().forward(batch, ["fc8"])["fc8"]
        torch.testing.assert_close(scores, hub.eval()(batch), rtol=1e-5, atol=1e-4)  # sums of 25,088 products


def test_torchvision_models_that_are_not_the_network():
    """Whether they are known or not, before anything is downloaded."""
    with pytest.raises(StageError, match=r"alexnet: is a different network from tnet; .* --network alexnet") as error:
        import_weights("torchvision:alexnet", "tnet")
    one_sentence(error)
    with pytest.raises(StageError, match=r"torchvision:vgg61: is not a known model, did you mean 'vgg16'\?"):
        import_weights("torchvision:vgg61", "onet")


@pytest.fixture
def shapenet_file(tmp_path):
    """A ShapeNet of 4 classes, imported."""
    torch.manual_seed(5)
    torch.save(build(NETWORKS["shapenet"], 4).state_dict(), tmp_path / "state.pth")
    imported = import_weights(str(tmp_path / "state.pth"), "shapenet", preprocessing="plain", mean=(0.4, 0.5, 0.6))
    write_weights(tmp_path / "shapenet.safetensors", imported.state, imported.record)
    return tmp_path / "shapenet.safetensors"


def test_recipes_take_classes_and_preprocessing_from_the_file(shapenet_file):
    """Saying the same again is allowed, saying something else is an error that names the setting and the file."""
    source = NetworkSource.from_settings(NetworkSettings("shapenet", str(shapenet_file)))
    assert (source.classes, source.preprocessing.mean) == (4, (0.4, 0.5, 0.6))
    same = NetworkSettings("shapenet", str(shapenet_file), "plain", (0.4, 0.5, 0.6), 4)
    assert NetworkSource.from_settings(same).identity() == source.identity()
    for changed_setting, message in (
        ({"name": "tnet"}, "network.name = 'tnet', but .* records 'shapenet' for its weights"),
        ({"preprocessing": "caffe"}, "network.preprocessing = 'caffe', but .* records 'plain' for its weights"),
        ({"mean": (1.0, 2.0, 3.0)}, r"network.mean = \(1.0, 2.0, 3.0\), but .* records \(0.4, 0.5, 0.6\)"),
        ({"classes": 20}, "network.classes = 20, but .* records 4 for its weights"),
    ):
        with pytest.raises(BadSetting, match=message) as error:
            NetworkSource.from_settings(replace(same, **changed_setting))
        one_sentence(error)


def test_preprocessing_is_part_of_the_key(shapenet_file, tmp_path):
    """The same tensors with another mean are other features."""
    imported = import_weights(str(tmp_path / "state.pth"), "shapenet", preprocessing="plain")
    write_weights(tmp_path / "other.safetensors", imported.state, imported.record)
    first, second = (
        NetworkSource.from_settings(NetworkSettings("shapenet", str(path))).identity()
        for path in (shapenet_file, tmp_path / "other.safetensors")
    )
    assert first["weights"] == second["weights"]
    assert first != second


@pytest.mark.parametrize("position", ["header", "record", "tensors", "end"])
def test_damage_to_imported_weights_is_told(shapenet_file, position):
    """A changed byte or a lost end, in the recipe's first look or when the network is loaded."""
    content = bytearray(shapenet_file.read_bytes())
    length = int.from_bytes(content[:8], "little")
    if position == "end":
        del content[-100:]
    else:
        place = {"header": content.index(b"data_offsets") - 2, "tensors": 8 + length + 1000}
        place["record"] = content.index(b"preprocessing")
        content[place[position]] ^= 0x20
    shapenet_file.write_bytes(content)
    with pytest.raises(StageError, match=r"shapenet\.safetensors: ") as error:
        NetworkSource.from_settings(NetworkSettings("shapenet", str(shapenet_file))).load()
    one_sentence(error)


def test_imported_weights_that_were_replaced_are_not_loaded(shapenet_file, tmp_path):
    """The new file is sound in itself, and yet not the one that the key was made from."""
    source = NetworkSource.from_settings(NetworkSettings("shapenet", str(shapenet_file)))
    record = record_of(shapenet_file)
    state = {name: -tensor for name, tensor in source.load().module.state_dict().items()}
    write_weights(shapenet_file, state, replace(record, tensors=tensors_digest(state)))
    with pytest.raises(ChangedInput, match=r"shapenet\.safetensors: changed while"):
        source.load()


def test_a_newer_record_is_told(shapenet_file):
    """A file that a later version wrote."""
    content = shapenet_file.read_bytes()
    shapenet_file.write_bytes(content.replace(b'\\"version\\": 1', b'\\"version\\": 9'))
    with pytest.raises(StageError, match=r"from a newer version \(version 9\)") as error:
        read_record(shapenet_file)
    one_sentence(error)


# The commands


@pytest.fixture
def call(capsys):
    """Calls `rcnn` in this process: (exit code, standard output, standard error)."""
    return caller(capsys)


def test_import_and_show(call, layers, model_file, tmp_path):
    """From a .caffemodel to a file, and what `show` says of both and of a state dict."""
    path = model_file(renamed(layers, "fc8_pascal"), version=0)
    output = tmp_path / "tnet.safetensors"
    code, printed, _ = call("weights", "import", path, "--network", "tnet", "-o", output, "--mean", "1,2,3.5")
    assert code == 0
    assert "weights of tnet with 21 classes" in printed
    assert "class scores are taken from layer 'fc8_pascal'" in printed
    assert record_of(output).preprocessing.mean == (1.0, 2.0, 3.5)
    code, printed, _ = call("weights", "show", output)
    assert code == 0
    assert f"from net.caffemodel, a caffemodel, SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}" in printed
    assert "BGR, x 1, minus (1.0, 2.0, 3.5), divided by (1.0, 1.0, 1.0)" in printed
    assert "  conv2.weight  256 x 48 x 5 x 5\n" in printed
    numbers = sum(tensor.numel() for tensor in state_of(renamed(layers, "fc8")).values())
    assert f"{numbers:,} numbers" in printed
    code, printed, _ = call("weights", "show", path)
    assert (code, "conv1 relu1 pool1 norm1" in printed, "fc8_pascal[0]  1 x 1 x 21 x 16" in printed) == (0, True, True)
    torch.save(state_of(layers), tmp_path / "state.pth")
    code, printed, _ = call("weights", "show", tmp_path / "state.pth")
    assert (code, "state.pth: a state dict" in printed) == (0, True)


def test_commands_answer_bad_input_in_a_sentence(call, layers, model_file, tmp_path):
    """Exit code 2, one line, nothing written."""
    path = model_file(layers)
    output = tmp_path / "out.safetensors"
    for arguments, message in (
        ((tmp_path / "absent.caffemodel", "--network", "tnet"), "absent.caffemodel: cannot be read (No such file"),
        ((tmp_path, "--network", "tnet"), "cannot be read (Is a directory)"),
        ((path, "--network", "tnet", "--mean", "1,2"), "--mean has 2 values; it needs 3, in BGR order"),
        ((path, "--network", "tnet", "--mean", "grey"), "--mean grey: must be three numbers"),
        ((path, "--network", "zf"), "but in zf it comes after"),
    ):
        code, printed, said = call("weights", "import", *arguments, "-o", output)
        assert (code, printed) == (2, "")
        assert message in said
        assert said.count("\n") == 1
    code, _, said = call("weights", "import", path, "--network", "tnet", "-o", path)
    assert (code, "is read by this command" in said) == (2, True)
    code, _, said = call("weights", "import", path, "--network", "tnet", "-o", tmp_path / "no" / "out.safetensors")
    assert (code, "cannot be written" in said) == (2, True)
    assert not output.exists()


def test_imported_weights_are_not_imported_again(call, shapenet_file, tmp_path):
    options = ("--network", "shapenet", "-o", tmp_path / "again.safetensors")
    code, _, said = call("weights", "import", shapenet_file, *options)
    assert (code, "has already been imported; set network.weights to it" in said) == (2, True)


def test_a_recipe_with_imported_weights_runs(call, shapenet_file, tmp_path, monkeypatch):
    """propose and extract with the real commands, on generated shapes; its preprocessing is in the manifest."""
    monkeypatch.setenv("RCNN_WORK", str(tmp_path / "work"))
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        '[datasets.train]\nsource = "shapes:train"\nimages = 2\n'
        f'[network]\nname = "shapenet"\nweights = "{shapenet_file}"\n'
        '[propose]\nmethod = "sliding-window"\nmax_boxes = 10\n[extract]\nlayers = ["fc6"]\npadding = 4\n'
    )
    for stage in ("propose", "extract"):
        code, printed, said = call(stage, recipe, "--split", "train", "--jobs", "1", "--device", "cpu")
        assert code == 0, (printed, said)
    (manifest,) = (tmp_path / "work" / "caches" / "extract").glob("*/manifest.json")
    network = json.loads(Path(manifest).read_text())["summary"]["network"]
    assert network["preprocessing"]["mean"] == [0.4, 0.5, 0.6]
    assert network["weights"] == f"tensors:{record_of(shapenet_file).tensors}"
    assert network["classes"] == 4
