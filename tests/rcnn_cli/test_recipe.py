import json
import logging
from dataclasses import replace

import numpy as np
import pytest

from rcnn_cli.recipes.graph import Described, Graph
from rcnn_cli.recipes.recipe import RecipeError, build_recipe, load_recipe
from rcnn_cli.report.provenance import changed_settings
from rcnn_cli.running.runner import on_demand, tell_uncached
from stages.contract.card import Input
from stages.contract.errors import BadSetting, StageError
from stages.contract.execution import Execution
from stages.datasets import Photos
from stages.propose import Settings as ProposeSettings

CHAIN = """
[datasets.train]
source = "shapes:train"
images = 4
[datasets.test]
source = "shapes:test"
images = 4
[network]
name = "shapenet"
weights = "random"
[propose]
max_boxes = 40
[propose.test]
max_boxes = 80
[extract]
layers = ["fc5"]
[train-svm]
layer = "fc5"
[train-bbox]
layer = "fc5"
[detect]
[eval]
"""


def recipe(tmp_path, text, *changes):
    path = tmp_path / "r.toml"
    path.write_text(text)
    return load_recipe(path, changes)


def graph(tmp_path, text, *changes):
    return Graph(recipe(tmp_path, text, *changes), tmp_path / "work")


def test_the_usual_chain_needs_no_wiring(tmp_path):
    nodes = graph(tmp_path, CHAIN).nodes
    assert set(nodes) == {
        "propose@train", "extract@train", "train-svm", "train-bbox",
        "propose@test", "extract@test", "detect@test", "eval",
    }  # fmt: skip
    order = list(nodes)
    for name, node in nodes.items():
        assert all(order.index(source.name) < order.index(name) for source in node.upstream())
    assert nodes["detect@test"].sources["svm"] is nodes["train-svm"]
    assert nodes["extract@test"].sources["network"] == Described("networks", "network")


def test_a_split_may_have_its_own_settings(tmp_path):
    nodes = graph(tmp_path, CHAIN).nodes
    assert nodes["propose@train"].settings.max_boxes == 40
    assert nodes["propose@test"].settings.max_boxes == 80


def test_a_stage_may_be_used_twice_and_rewired(tmp_path):
    text = CHAIN + (
        '[propose-windows]\nstage = "propose"\nmethod = "sliding-window"\n'
        '[extract-windows]\nstage = "extract"\nlayers = ["fc5"]\ninputs = { proposals = "propose-windows" }\n'
        '[detect-windows]\nstage = "detect"\ninputs = { features = "extract-windows", regressor = "none" }\n'
        '[eval-windows]\nstage = "eval"\ninputs = { detections = "detect-windows" }\n'
    )
    nodes = graph(tmp_path, text).nodes
    windows = nodes["detect-windows@test"]
    assert windows.sources["features"] is nodes["extract-windows@test"]
    assert windows.sources["svm"] is nodes["train-svm"]
    assert "regressor" not in windows.sources
    assert "extract-windows@train" not in nodes


def test_a_fine_tuned_network_takes_the_place_of_the_one_it_began_with(tmp_path):
    """[finetune] reads [network] and is read by [extract], unless the recipe says otherwise."""
    text = CHAIN + (
        "[finetune]\n"
        '[extract-before]\nstage = "extract"\nlayers = ["fc5"]\ninputs = { network = "network" }\n'
        '[svm-before]\nstage = "train-svm"\nlayer = "fc5"\ninputs = { features = "extract-before" }\n'
    )
    before, after = graph(tmp_path, CHAIN), graph(tmp_path, text)
    nodes = after.nodes
    assert nodes["finetune"].sources["network"] == Described("networks", "network")
    assert nodes["finetune"].sources["proposals"] is nodes["propose@train"]
    assert nodes["extract@train"].sources["network"] is nodes["finetune"]
    assert nodes["extract@test"].sources["network"] is nodes["finetune"]
    assert nodes["extract-before@train"].sources["network"] == Described("networks", "network")
    assert after.identity(nodes["svm-before"]) == before.identity(before.nodes["train-svm"])


TWO_NETWORKS = CHAIN + (
    '[networks.other]\nname = "shapenet"\nweights = "random"\nseed = 1\n'
    '[extract-other]\nstage = "extract"\nlayers = ["fc5"]\ninputs = { network = "other" }\n'
    '[svm-other]\nstage = "train-svm"\nlayer = "fc5"\ninputs = { features = "extract-other" }\n'
)


def test_a_recipe_may_have_several_networks(tmp_path):
    """A stage reads [network] unless its inputs name another; the keys tell them apart by what they are."""
    made = graph(tmp_path, TWO_NETWORKS)
    nodes = made.nodes
    assert nodes["extract@train"].sources["network"] == Described("networks", "network")
    assert nodes["extract-other@train"].sources["network"] == Described("networks", "other")
    assert (made.network().seed, made.network("other").seed) == (0, 1)
    keys = {name: made.identity(node).key for name, node in nodes.items()}
    assert keys["extract@train"] != keys["extract-other@train"]
    assert keys["train-svm"] == (one := graph(tmp_path, CHAIN)).identity(one.nodes["train-svm"]).key
    same = graph(tmp_path, TWO_NETWORKS, "networks.other.seed=0")
    assert same.identity(same.nodes["svm-other"]).key == keys["train-svm"]


def test_a_network_without_its_weights_is_named_by_its_table(tmp_path):
    made = graph(tmp_path, TWO_NETWORKS, "networks.other.weights=missing.pth")
    with pytest.raises(StageError, match=r"^networks.other.weights = 'missing.pth': no such file missing.pth"):
        made.identity(made.nodes["svm-other"])


def test_several_networks_go_through_json(tmp_path):
    made = recipe(tmp_path, TWO_NETWORKS)
    told = json.loads(json.dumps(made.as_json()))
    assert (told["network"]["seed"], told["networks"]["other"]["seed"]) == (0, 1)
    assert build_recipe(made.path, told) == made
    assert "networks" not in recipe(tmp_path, CHAIN).as_json()


def test_settings_of_every_network_that_are_not_the_default_are_reported(tmp_path):
    reported = [row[:3] for row in changed_settings(graph(tmp_path, TWO_NETWORKS)) if row[0].startswith("network")]
    assert reported == [
        ("network", "name", '"shapenet"'),
        ("network", "weights", '"random"'),
        ("networks.other", "name", '"shapenet"'),
        ("networks.other", "weights", '"random"'),
        ("networks.other", "seed", "1"),
    ]


def test_an_input_may_be_of_several_kinds_and_depend_on_several_values(tmp_path):
    """Here what scores regions is SVMs or regressors, and only with some caps."""

    def scored_by(only_if, default="train-bbox", **inputs):
        made = recipe(tmp_path, CHAIN)
        use = made.uses["detect"]
        wanted = Input("svm", kinds=("svm", "regressor"), default=(default,), only_if=only_if)
        stage = replace(use.stage, inputs=(use.stage.inputs[0], wanted))
        uses = {**made.uses, "detect": replace(use, stage=stage, inputs=inputs)}
        return Graph(replace(made, uses=uses), tmp_path / "work").nodes["detect@test"].sources.get("svm")

    assert scored_by(("cap", "set", "image")).name == "train-bbox"
    assert scored_by(("cap", "set", "image"), svm="train-svm").name == "train-svm"
    assert scored_by(("cap", "none", "image")) is None
    with pytest.raises(RecipeError, match=r"inputs.svm = 'propose' makes proposals, not svm or regressor"):
        scored_by(("cap", "set", "image"), "propose")
    with pytest.raises(RecipeError, match=r"not read with cap = 'set'; remove it, or set cap = 'none' or 'image'"):
        scored_by(("cap", "none", "image"), svm="train-svm")


def test_a_detector_by_softmax_reads_no_svms(tmp_path):
    text = CHAIN.replace('["fc5"]', '["fc5", "softmax"]')
    text += '[finetune]\n[detect-softmax]\nstage = "detect"\nscore = "softmax"\n'
    nodes = graph(tmp_path, text).nodes
    assert set(nodes["detect-softmax@test"].sources) == {"features", "regressor"}
    assert set(nodes["detect@test"].sources) == {"features", "regressor", "svm"}
    softmax_alone = text.replace('[train-svm]\nlayer = "fc5"\n', "").replace(
        "[detect]\n", '[detect]\nscore = "softmax"\n'
    )
    assert "svm" not in graph(tmp_path, softmax_alone).nodes["detect@test"].sources


def test_changes_from_the_command_line(tmp_path):
    made = recipe(tmp_path, CHAIN, "extract.padding=0", "propose.mode=quality", "propose.test.max_boxes=7")
    assert made.uses["extract"].settings.padding == 0
    assert made.uses["propose"].settings.mode == "quality"
    assert made.uses["propose"].settings_for("test").max_boxes == 7


def test_advised_commands_repeat_the_changes_quoted_for_a_shell(tmp_path):
    changes = ('extract.layers=["fc6"]', "extract.padding=0")
    made = recipe(tmp_path, CHAIN, *changes)
    assert made.arguments == f"""{tmp_path / "r.toml"} --set 'extract.layers=["fc6"]' --set extract.padding=0"""


def test_only_what_changed_and_what_follows_gets_another_key(tmp_path):
    before, after = graph(tmp_path, CHAIN), graph(tmp_path, CHAIN, "extract.padding=0")
    same = {name for name in before.nodes if before.identity(before.nodes[name]) == after.identity(after.nodes[name])}
    assert same == {"propose@train", "propose@test"}


def test_the_resolved_recipe_has_every_default(tmp_path):
    resolved = recipe(tmp_path, CHAIN).as_json()
    assert resolved["extract"]["padding"] == 16
    assert resolved["propose"]["test"]["max_boxes"] == 80
    assert resolved["train-svm"]["C"] == 1e-3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no dataset"),
        ("[datasets.train]\nsauce = 1\n", "needs source"),
        ("x = ", "is not valid TOML"),
        (CHAIN + "[extrakt]\n", "[extrakt] is not a stage, did you mean 'extract'?"),
        (CHAIN.replace("max_boxes = 40", "max_box = 4"), "unknown setting 'max_box', did you mean 'max_boxes'?"),
        (CHAIN.replace('"shapenet"', '"shapnet"'), "[network]: name = 'shapnet' must be one of"),
        (CHAIN.replace("max_boxes = 40", "max_boxes = -4"), "max_boxes = -4 must be at least 0"),
        (CHAIN.replace("max_boxes = 40", "sigma = 1e300"), "sigma = 1e+300 must be at most 100"),
        (CHAIN.replace("max_boxes = 40", "base_k = 99999999999999999999"), "must be at most 100000000"),
        ("diagnose = 3\n" + CHAIN, "'diagnose' is not a table; write it as [diagnose]"),
        (CHAIN.replace("[propose.test]", "[propose.tset]"), "the recipe has no dataset 'tset', did you mean 'test'?"),
        (CHAIN + "inputs = { detection = 'detect' }\n", "has no input 'detection', did you mean 'detections'?"),
        (CHAIN + "split = 'val'\n", "split = 'val' is not a dataset of this recipe"),
        ("name = 1\n[datasets.train]\nsource = 'shapes:train'\n", "uses no stage"),
        ("networks = 3\n[datasets.train]\nsource = 'shapes:train'\n[propose]\n", "networks must contain tables"),
        (CHAIN + "[networks]\nother = 3\n", "networks.other must be a table, [networks.other]"),
        (CHAIN + "[networks.other]\nnam = 'zf'\n", "[networks.other]: unknown setting 'nam', did you mean 'name'?"),
        (CHAIN + "[networks.extract]\n", "[networks.extract]: [extract] is already a table; give the network"),
        (CHAIN + "[networks.network]\n", "[networks.network]: [network] is already a table; give the network"),
        (CHAIN + "[networks.'../x']\n", "this name is also used for a folder"),
        ("network = 3\n[datasets.train]\nsource = 'shapes:train'\n[propose]\n", "network must be a table"),
    ],
)  # fmt: skip
def test_a_recipe_with_a_mistake_is_a_sentence_that_names_file_and_key(tmp_path, text, message):
    with pytest.raises((RecipeError, BadSetting)) as error:
        recipe(tmp_path, text)
    assert str(tmp_path / "r.toml") in str(error.value)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (CHAIN.replace("[train-svm]\nlayer", "[train-bbox-2]\nstage = 'train-bbox'\nlayer"), "[detect] needs svm; add"),
        (CHAIN + "inputs = { detections = 'extract' }\n", "makes features, not detections"),
        (CHAIN + "inputs = { detections = 'none' }\n", "[eval] inputs.detections = 'none': this input is required;"),
        (CHAIN + "inputs = { detections = 'detector' }\n", "is not a table, did you mean 'detect'?"),
        (CHAIN.replace("datasets.test", "datasets.final").replace("propose.test", "propose.final"),
         "works on the dataset 'test', which the recipe does not have"),
        (CHAIN.replace("[extract]", "[propose-b]\nstage = 'propose'\n[extract]\ninputs = { proposals = 'extract' }"),
         "makes features, not proposals"),
        (TWO_NETWORKS.replace('network = "other"', 'network = "othr"'), "is not a table, did you mean 'other'?"),
        (TWO_NETWORKS.replace("[svm-other]", "[svm-o]").replace('features = "extract-other"', 'features = "other"'),
         "inputs.features = 'other' is not a table"),
        (CHAIN + "[detect-b]\nstage = 'detect'\nscore = 'softmax'\ninputs = { svm = 'train-svm' }\n",
         "inputs.svm = 'train-svm' is not read with score = 'softmax'; remove it"),
    ],
)  # fmt: skip
def test_wiring_that_cannot_be_is_a_sentence(tmp_path, text, message):
    with pytest.raises(RecipeError) as error:
        graph(tmp_path, text)
    assert message in str(error.value)


def test_tables_and_splits_are_each_named_once(tmp_path):
    made = graph(tmp_path, CHAIN + "[propose-b]\nstage = 'propose'\n[propose-c]\nstage = 'propose'\n")
    with pytest.raises(RecipeError, match=r"\[propose\] is not needed on the split 'val'; it is on train, test$"):
        made.select("propose", "val")
    windows = "[a]\nstage = 'propose'\n[b]\nstage = 'propose'\n"
    made = graph(tmp_path, "[datasets.test]\nsource = 'shapes:test'\n" + windows)
    with pytest.raises(RecipeError, match=r"\[a\], \[b\] are not needed on the split 'val'; they are on test$"):
        made.select("propose", "val")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("extract.padding", "must be written section.key=value"),
        ("extrac.padding=0", "the recipe has no table [extrac], did you mean 'extract'?"),
        ("extract.layers.x=0", "'layers' is a value, not a table"),
    ],
)
def test_a_change_that_cannot_be_is_a_sentence(tmp_path, change, message):
    with pytest.raises(RecipeError) as error:
        recipe(tmp_path, CHAIN, change)
    assert message in str(error.value)


def test_a_missing_recipe_and_a_folder(tmp_path):
    with pytest.raises(RecipeError, match="no such recipe"):
        load_recipe(tmp_path / "none.toml")
    with pytest.raises(RecipeError, match="is a folder"):
        load_recipe(tmp_path)


def test_a_byte_order_mark_is_no_mistake(tmp_path):
    """Notepad and PowerShell write one."""
    (tmp_path / "bom.toml").write_text(CHAIN, "utf-8-sig")
    assert list(load_recipe(tmp_path / "bom.toml").datasets) == ["train", "test"]
    (tmp_path / "wide.toml").write_text(CHAIN, "utf-16")
    with pytest.raises(RecipeError, match=r"wide\.toml: is not UTF-8 text .*; save the recipe with that encoding"):
        load_recipe(tmp_path / "wide.toml")


FALSE = "extract.cache=false"
NO_PROPOSALS = "propose.cache=false"
FILE = ("propose.method=file", "propose.file=boxes.npz")
FEW = ("datasets.train.images=3", "datasets.test.images=3")


def uncached(made):
    return {node.name for node in made.nodes.values() if not made.is_cached(node)}


def test_only_what_detect_alone_reads_does_without_a_cache(tmp_path):
    assert uncached(graph(tmp_path, CHAIN)) == set()
    made = graph(tmp_path, CHAIN, FALSE)
    assert uncached(made) == {"extract@test"}
    assert uncached(graph(tmp_path, CHAIN, "extract.test.cache=false")) == {"extract@test"}
    assert uncached(graph(tmp_path, CHAIN, "extract.train.cache=false")) == set()
    assert uncached(graph(tmp_path, CHAIN.replace("[eval]", ""), FALSE)) == {"extract@test"}
    on_train = CHAIN + '[eval-train]\nstage = "eval"\nsplit = "train"\ninputs = { detections = "detect@train" }\n'
    assert uncached(graph(tmp_path, on_train, FALSE)) == {"extract@test"}
    alone = CHAIN.partition("[train-svm]")[0]
    assert uncached(graph(tmp_path, alone, FALSE)) == set()


def test_proposals_that_extract_alone_reads_do_without_a_cache(tmp_path):
    assert uncached(graph(tmp_path, CHAIN, NO_PROPOSALS)) == {"propose@train", "propose@test"}
    tuned = CHAIN + "[finetune]\n"
    assert uncached(graph(tmp_path, tuned, NO_PROPOSALS)) == {"propose@test"}
    assert uncached(graph(tmp_path, CHAIN, NO_PROPOSALS, FALSE)) == {"propose@train", "propose@test", "extract@test"}
    assert uncached(graph(tmp_path, CHAIN.partition("[extract]")[0], NO_PROPOSALS)) == set()
    with pytest.raises(BadSetting, match=r"'cache' is a setting of method = 'selective-search'.* and method is 'file'"):
        graph(tmp_path, CHAIN, NO_PROPOSALS, "propose.method=file", "propose.file=boxes.npz")


def test_from_what_a_node_is_made(tmp_path):
    nodes = graph(tmp_path, CHAIN).nodes
    assert nodes["detect@test"].made_from("features") is nodes["extract@test"]
    assert nodes["detect@test"].made_from("proposals") is nodes["propose@test"]
    assert nodes["train-svm"].made_from("proposals") is nodes["propose@train"]
    assert nodes["detect@test"].made_from("svm") is None  # its SVMs are not of the test split
    assert nodes["propose@test"].made_from("proposals") is None
    assert [node.name for node in nodes["detect@test"].image_path()] == ["detect@test", "extract@test", "propose@test"]


def test_what_computes_on_demand_reads_through(tmp_path):
    made = graph(tmp_path, CHAIN, FALSE)
    detect = made.nodes["detect@test"]
    assert [node.name for node in made.uncached_sources(detect)] == ["extract@test"]
    assert sorted(node.name for node in made.reads(detect)) == ["propose@test", "train-bbox", "train-svm"]
    assert [node.name for node in made.readers(made.nodes["extract@test"])] == ["detect@test"]
    assert "extract@test" not in {node.name for node in made.caches()}
    made = graph(tmp_path, CHAIN, FALSE, NO_PROPOSALS)
    detect = made.nodes["detect@test"]
    assert [node.name for node in made.uncached_sources(detect)] == ["extract@test", "propose@test"]
    assert sorted(node.name for node in made.reads(detect)) == ["train-bbox", "train-svm"]


def test_photos_stop_at_what_works_on_datasets_only(tmp_path, monkeypatch):
    """A file lists the boxes of its own images; and a stage may have no `on_demand`."""
    common = graph(tmp_path, CHAIN.replace("[propose.test]\nmax_boxes = 80\n", ""), *FILE)
    with pytest.raises(StageError, match=r"r\.toml: \[propose\] method = 'file' has boxes only for the images t"):
        on_demand(common, common.nodes["detect@test"], Execution(), Photos())
    listed = graph(tmp_path, CHAIN, "propose.test.method=file", "propose.test.file=boxes.npz")
    with pytest.raises(StageError, match=r"r\.toml: \[propose\.test\] method = 'file' has boxes only for the images t"):
        on_demand(listed, listed.nodes["detect@test"], Execution(), Photos())
    monkeypatch.delattr("stages.propose.stage.on_demand")
    made = graph(tmp_path, CHAIN)
    cannot = r"r\.toml: \[propose\] cannot be computed on demand \(its stage has no `on_demand`\); "
    with pytest.raises(StageError, match=cannot + "choose a detector that does not need it$"):
        on_demand(made, made.nodes["detect@test"], Execution(), Photos())
    with pytest.raises(StageError, match=cannot + "set cache = true$"):
        on_demand(made, made.nodes["propose@test"], Execution())


def test_a_split_with_another_method_does_not_inherit_the_settings_of_the_common_one(tmp_path):
    """Settings that it states itself are refused where they do not apply."""
    searched = graph(tmp_path, CHAIN, *FILE, "propose.seed=3", "propose.test.method=selective-search")
    assert searched.nodes["propose@test"].settings == ProposeSettings(max_boxes=80, seed=3)
    listed = graph(tmp_path, CHAIN, NO_PROPOSALS, "propose.test.method=file", "propose.test.file=b.npz")
    assert listed.nodes["propose@test"].settings == ProposeSettings(method="file", file="b.npz", max_boxes=80)
    assert listed.nodes["propose@train"].settings == ProposeSettings(max_boxes=40, cache=False)
    with pytest.raises(BadSetting, match=r"\[propose\.test\]: 'mode' is a setting of method = 'selective-search'"):
        graph(tmp_path, CHAIN, "propose.test.method=file", "propose.test.mode=fast")
    with pytest.raises(BadSetting, match=r"\[propose\.test\]: 'mode' is a setting of method = 'selective-search'"):
        graph(tmp_path, CHAIN, *FILE, "propose.test.mode=fast")


def test_photos_have_proposals_where_only_the_training_images_are_in_a_file(tmp_path):
    made = graph(tmp_path, CHAIN, *FILE, "propose.test.method=sliding-window")
    photos = Photos()
    photos.show("a", np.zeros((40, 60, 3), np.uint8))
    assert len(on_demand(made, made.nodes["propose@test"], Execution(), photos).read("a")["boxes"])


def test_doing_without_a_cache_changes_no_key(tmp_path):
    before, after = graph(tmp_path, CHAIN, *FEW), graph(tmp_path, CHAIN, *FEW, FALSE, NO_PROPOSALS)
    assert all(
        before.identity(node).key == after.identity(after.nodes[name]).key for name, node in before.nodes.items()
    )


def test_what_is_said_before_the_work(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("rcnn"), "propagate", True)
    monkeypatch.setattr(logging.getLogger("rcnn"), "handlers", [])
    caplog.set_level(logging.INFO, "rcnn")
    tell_uncached(graph(tmp_path, CHAIN, *FEW))
    assert not [record for record in caplog.records if record.name == "rcnn"]
    text = CHAIN + '[detect-without-bbox]\nstage = "detect"\ninputs = { regressor = "none" }\n'
    several = graph(tmp_path, text, *FEW, FALSE)
    tell_uncached(several, [several.nodes["detect@test"]])
    assert not [record for record in caplog.records if record.name == "rcnn"]
    tell_uncached(several)
    assert [record.getMessage() for record in caplog.records if record.name == "rcnn"] == [
        "extract@train: cached despite cache = false, for train-svm and train-bbox",
        "extract@test: is computed 2 times, for detect@test and detect-without-bbox@test; with a cache only once",
    ]


@pytest.mark.parametrize(
    "name", ["eval-x/../../../../escaped", "..", ".hidden", "a" * 101, "猫" * 34, "a\nb", "", "nul"]
)
@pytest.mark.parametrize("place", ["table", "split", "recipe"])
def test_a_name_that_can_be_no_folders_is_a_sentence(tmp_path, name, place):
    told = json.dumps(name)
    text = {
        "table": f'{CHAIN}[{told}]\nstage = "eval"\n',
        "split": f'{CHAIN}[datasets.{told}]\nsource = "shapes:val"\n',
        "recipe": f"name = {told}\n{CHAIN}",
    }[place]
    with pytest.raises(RecipeError, match="this name is also used for a folder") as error:
        recipe(tmp_path, text)
    assert str(error.value).startswith(f"{tmp_path / 'r.toml'}: ")


def test_names_that_can_be_folders_are_kept_and_a_files_name_is_made_one(tmp_path):
    text = f'{CHAIN}["éval, all of it"]\nstage = "eval"\n'
    assert list(recipe(tmp_path, text).uses)[-1] == "éval, all of it"
    path = tmp_path / ("x" * 200 + ".toml")
    path.write_text(CHAIN)
    whole = load_recipe(path)
    assert whole.name.startswith("x" * 90)
    assert len(whole.name) == 100
    nodes = Graph(whole, tmp_path / "work")
    assert len(nodes.label(nodes.nodes["propose@test"]).encode()) <= 160


def test_a_stage_that_reads_masks_needs_a_dataset_that_has_them(tmp_path):
    """No stage of CHAIN reads masks, so one of its nodes is asked as if its input did."""
    wanted = Input("images", kinds=("dataset",), annotations=False, masks=True)
    source = Described("datasets", "train")
    with pytest.raises(RecipeError, match=r"\[datasets\.train\] is read by a stage that needs masks; set masks = true"):
        graph(tmp_path, CHAIN).source_key(wanted, source)
    plain, masked = graph(tmp_path, CHAIN), graph(tmp_path, CHAIN, "datasets.train.masks=true")
    assert masked.source_key(wanted, source) != masked.source_key(replace(wanted, masks=False), source)
    assert masked.source_key(replace(wanted, masks=False), source) == plain.source_key(
        replace(wanted, masks=False), source
    )
