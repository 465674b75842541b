"""What of a recipe is wrong by itself is said in one sentence before anything runs, whatever the command."""

import shutil
import tomllib

import pytest

from rcnn_cli.recipes.graph import Graph
from rcnn_cli.recipes.recipe import RecipeError, build_recipe
from rcnn_cli.running.splits import training_splits, warn_of_shared_images
from stages.datasets.shapes import ShapesSettings, draw_shapes
from stages.networks import NETWORKS
from tests.in_process import caller

CHAIN = """
[datasets.train]
source = "shapes:train"
images = 4
[datasets.test]
source = "shapes:test"
images = 4
[network]
name = "{network}"
weights = "random"
[propose]
[extract]
{extract}
[train-svm]
[train-bbox]
[detect]
[eval]
"""
FINETUNED = CHAIN + "[finetune]\n"
COMMANDS = [("run",), ("status",), ("plan",), ("submit", "--dry-run"), ("run", "--only", "eval"), ("eval",)]


@pytest.fixture
def call(tmp_path, capsys, monkeypatch):
    """Calls `rcnn` in this process: (exit code, standard output, standard error)."""
    monkeypatch.setenv("RCNN_WORK", str(tmp_path / "work"))
    return caller(capsys)


def chain(tmp_path, network="alexnet", extract="", text=CHAIN):
    """The usual chain on `network`, as a recipe."""
    path = tmp_path / "r.toml"
    path.write_text(text.format(network=network, extract=extract))
    return path


def tables(text):
    """A recipe's tables, as TOML gives them."""
    return tomllib.loads(text)


@pytest.mark.parametrize(
    ("network", "layers", "svm", "bbox"),
    [
        ("alexnet", ("fc7", "pool5"), "fc7", "pool5"),
        ("vgg16", ("fc7", "pool5"), "fc7", "pool5"),
        ("tnet", ("fc7", "pool5"), "fc7", "pool5"),
        ("shapenet", ("pool4",), "pool4", "pool4"),
        ("squeezenet1_0", ("fire9_2x2",), "fire9_2x2", "fire9_2x2"),
        ("resnet50", ("avgpool",), "avgpool", "avgpool"),
        ("overfeat-accurate", ("fc8", "pool6"), "fc8", "pool6"),
    ],
)
def test_bare_tables_take_the_networks_own_layers(tmp_path, network, layers, svm, bbox):
    graph = Graph(build_recipe(tmp_path / "r.toml", tables(CHAIN.format(network=network, extract=""))), tmp_path)
    for split in ("train", "test"):
        assert graph.nodes[f"extract@{split}"].settings.layers == layers
    assert graph.nodes["train-svm"].settings.layer == svm
    assert graph.nodes["train-bbox"].settings.layer == bbox
    assert graph.recipe.as_json()["extract"]["layers"] == list(layers)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_bare_chain_fits_every_network(tmp_path, network):
    Graph(build_recipe(tmp_path / "r.toml", tables(FINETUNED.format(network=network, extract=""))), tmp_path).check()


def test_a_network_that_a_stage_trains_has_its_own_layers_too(tmp_path):
    text = CHAIN.format(network="alexnet", extract="") + '[datasets.pretraining]\nsource = "folder:x"\n[pretrain]\n'
    graph = Graph(build_recipe(tmp_path / "r.toml", tables(text)), tmp_path)
    assert graph.nodes["extract@train"].settings.layers == ("pool4",)
    assert graph.nodes["train-bbox"].settings.layer == "pool4"


TWO = (
    CHAIN
    + """
[networks.deep]
name = "squeezenet1_0"
weights = "random"
[extract-deep]
stage = "extract"
inputs = {{ network = "deep" }}
[train-svm-deep]
stage = "train-svm"
inputs = {{ features = "extract-deep" }}
"""
)


def test_each_table_of_a_recipe_with_two_networks_knows_its_own(tmp_path):
    recipe = build_recipe(tmp_path / "r.toml", tables(TWO.format(network="alexnet", extract="")))
    uses = recipe.uses
    networks = {name: network.card.name for name, use in uses.items() if (network := recipe.network_of(use))}
    assert "propose" not in networks
    assert {networks[name] for name in ("extract", "train-svm", "detect")} == {"alexnet"}
    assert {networks[name] for name in ("extract-deep", "train-svm-deep")} == {"squeezenet1_0"}
    assert [recipe.has(name) for name in ("network", "deep", "extract-deep", "networks", "pretrain")] == [
        True,
        True,
        True,
        False,
        False,
    ]
    role = next(wanted for wanted in uses["extract"].stage.inputs if wanted.role == "network")
    assert recipe.provider(uses["extract"], role) == "network"
    assert recipe.provider(uses["extract-deep"], role) == "deep"
    graph = Graph(recipe, tmp_path)
    assert graph.nodes["extract-deep@train"].settings.layers == ("fire9_2x2",)
    assert graph.nodes["train-svm-deep"].settings.layer == "fire9_2x2"
    keys = {graph.identity(graph.nodes[f"{name}@train"]).key for name in ("extract", "extract-deep")}
    assert len(keys) == 2


WRONG = {
    "a layer that the network lacks": (
        ("extract.layers=['fc77']",),
        "[extract] alexnet has no layer 'fc77', did you mean 'fc7'?",
    ),
    "a layer named twice": (
        ("extract.layers=['fc7','fc7']",),
        "[extract] layers = ['fc7', 'fc7'] must name one or more",
    ),
    "no layer": (("extract.layers=[]",), "[extract]: layers = [] is empty; name some, or leave the setting out"),
    "an svm's layer that the network lacks": (
        ("train-svm.layer=fc9",),
        "[train-svm] layer = 'fc9': alexnet has no layer 'fc9', did you mean 'fc",
    ),
    "a layer that is not extracted": (
        ("train-bbox.layer=conv5",),
        "[train-bbox] layer = 'conv5' is not among the extracted layers (fc7, pool5); add it there or choose another",
    ),
    "a layer that is not extracted for the test set": (
        ("extract.test.layers=['fc7']",),
        "[detect] the box regressors' layer 'pool5' is not among the extracted layers (fc7); add it",
    ),
    "softmax of a network with ImageNet's classes": (
        ("detect.score=softmax", "extract.layers=['fc7','pool5','softmax']"),
        "[detect] score = 'softmax' needs the features of a network that was trained with a background class",
    ),
    "padding": (
        ("extract.padding=112",),
        "[extract] padding = 112 leaves no room for the region in alexnet's input of 224 pixels; set it to 111 or less",
    ),
    "padding of one split": (("extract.test.padding=500",), "[extract.test] padding = 500 leaves no room"),
    "overlaps of the SVMs": (
        ("train-svm.positive_overlap=0.4", "train-svm.negative_overlap=0.5"),
        "[train-svm]: positive_overlap = 0.4 is less than negative_overlap = 0.5; a region cannot be both",
    ),
    "thresholds of the SVMs": (
        ("train-svm.evict_threshold=-1.0",),
        "[train-svm]: evict_threshold = -1.0 is greater than hard_threshold = -1.0001; hard negatives would be evicted",
    ),
    "an overlap that no proposal exceeds": (("train-bbox.min_overlap=1",), "[train-bbox]: min_overlap = 1.0 leaves no"),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_settings_that_do_not_fit(call, tmp_path, wrong, command):
    changes, sentence = WRONG[wrong]
    recipe = chain(tmp_path)
    code, _, errors = call(*command, recipe, *(one for change in changes for one in ("--set", change)))
    assert code == 2
    assert f"{recipe}: {sentence}" in errors.strip().splitlines()[-1]
    assert not (tmp_path / "work" / "caches").exists()
    assert "drawing" not in errors


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("finetune.padding=120", "[finetune] padding = 120 leaves no room for the region"),
        (
            "finetune.background_overlap=0.6",
            "[finetune]: background_overlap = 0.6 is greater than positive_overlap = 0.5",
        ),
        ("finetune.batch_size=2", "[finetune]: positive_fraction = 0.25 of batch_size = 2 leaves no positive window"),
        ("detect.score=softmax", "[detect] score = 'softmax': its layer 'softmax' is not among the extracted layers"),
        ("finetune.frozen=['conv1']", "[finetune] frozen: the network has no weights in 'conv1'; it has "),
        ("finetune.frozen=['classifier']", "[finetune] frozen: 'classifier' contains the new classification layer"),
    ],
)
def test_settings_of_a_finetuned_network_that_do_not_fit(call, tmp_path, change, sentence):
    code, _, errors = call("status", chain(tmp_path, text=FINETUNED), "--set", change)
    assert (code, f"r.toml: {sentence}" in errors) == (2, True), errors


@pytest.mark.parametrize(
    ("stage", "change", "sentence"),
    [
        ("pretrain", "background_iou=0.7", "[pretrain]: background_iou = 0.7 is greater than object_iou = 0.5"),
    ],
)
def test_overlaps_of_other_stages(call, tmp_path, stage, change, sentence):
    recipe = chain(tmp_path, text=CHAIN + f"[{stage}]\n")
    code, _, errors = call("status", recipe, "--set", f"{stage}.{change}")
    assert (code, f"r.toml: {sentence}" in errors) == (2, True), errors


def test_a_stage_alone_needs_no_sound_stages_after_it(tmp_path):
    """`rcnn extract --layers` for other layers than the SVMs'."""
    graph = Graph(
        build_recipe(tmp_path / "r.toml", tables(CHAIN.format(network="tnet", extract="layers = ['fc6']"))), tmp_path
    )
    graph.check(graph.select("extract"))
    with pytest.raises(RecipeError, match=r"\[train-svm\] layer = 'fc7' is not among the extracted layers \(fc6\)"):
        graph.check()


def test_arithmetic_that_the_device_lacks(call, tmp_path):
    """Said before proposals are made for it."""
    recipe = chain(tmp_path, "shapenet", 'precision = "tf32"', CHAIN.replace("[propose]", "[propose]\nmax_boxes = 3"))
    code, _, errors = call("run", recipe, "--device", "cpu", "--set", "datasets.train.images=2")
    assert code == 2
    assert "[extract] precision = 'tf32' needs --device cuda; on a CPU use 'float32' or 'bfloat16'" in errors
    assert not list((tmp_path / "work").glob("caches/*/*/part-*.h5"))


def test_a_recipe_is_shown_with_its_networks_layers(call, tmp_path):
    code, printed, _ = call("inspect", chain(tmp_path, "squeezenet1_0"))
    assert code == 0
    assert "fire9_2x2" in printed


@pytest.fixture
def shared(tmp_path):
    """A recipe that is tested on two images of its training set, one of them under another id."""
    folder = tmp_path / "voc"
    draw_shapes(folder, ShapesSettings(train=4, val=1, test=2))
    train, test = ((folder / f"ImageSets/Main/{split}.txt").read_text().split() for split in ("train", "test"))
    for kind, suffix in (("JPEGImages", "jpg"), ("Annotations", "xml")):
        shutil.copy(folder / kind / f"{train[3]}.{suffix}", folder / kind / f"copied.{suffix}")
    (folder / "ImageSets/Main/test.txt").write_text("\n".join([*test, train[1], "copied"]))
    recipe = chain(tmp_path, "shapenet", text=CHAIN.replace("shapes:", "voc:voc:").replace("images = 4\n", ""))
    return recipe, train


@pytest.mark.parametrize("command", [("status",), ("eval",)], ids=" ".join)
def test_images_that_are_trained_and_tested_on_are_named(call, shared, tmp_path, monkeypatch, command):
    """By their content, whatever their ids; without an evaluation on them nothing is said."""
    monkeypatch.chdir(tmp_path)
    recipe, train = shared
    _, _, errors = call(*command, recipe)
    assert "[datasets.test] is used for evaluation, but 2 of its 4 images are also in [datasets.train]: " in errors
    assert f": {train[1]}, copied (there {train[3]}); remove them from one" in errors
    partly = ("--set", "datasets.train.exhaustive=false")  # copies are copies, however their objects are annotated
    assert f": {train[1]}, copied (there {train[3]}); remove them from one" in call("status", recipe, *partly)[2]
    recipe.write_text(recipe.read_text().replace("voc:voc:test", "voc:voc:val"))
    assert "is used for evaluation" not in call(*command, recipe)[2]
    quick = ("--method", "sliding-window", "--jobs", 1)
    assert "is used for evaluation" not in call("propose", recipe, "--split", "train", *quick)[2]


def test_a_training_that_is_validated_on_the_evaluated_images_is_named(tmp_path, caplog):
    """A validation set is not one that is trained on."""
    text = FINETUNED.format(network="shapenet", extract="")
    text += 'inputs = {{ validation = "{split}" }}\n[datasets.val]\nsource = "shapes:val"\nimages = 4\n'

    def graph_with(split):
        return Graph(build_recipe(tmp_path / "r.toml", tables(text.format(split=split))), tmp_path / "work")

    graph = graph_with("test")
    warn_of_shared_images(graph, graph.caches())
    assert "[finetune] is validated on [datasets.test], on which results are measured" in caplog.text
    caplog.clear()
    graph = graph_with("val")
    warn_of_shared_images(graph, graph.caches())
    assert "is validated on" not in caplog.text
    assert training_splits(graph, graph.nodes["eval"]) == ["train"]
