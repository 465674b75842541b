"""The kinds of arrows: a live table, of what stages make and read and nothing else."""

from __future__ import annotations

from types import SimpleNamespace

from rcnn_cli.looking.results import SHOWN
from rcnn_cli.running.device import runs_network
from stages.contract.card import Input
from stages.contract.catalogue import catalogue
from stages.contract.kinds import DATASETS, KINDS, NETWORKS


def test_stages_make_and_read_these_kinds_and_no_others() -> None:
    stages = catalogue().values()
    assert set().union(*(stage.kinds for stage in stages)) == set(KINDS)
    assert {name for name, kind in KINDS.items() if not kind.described_by} <= {stage.makes for stage in stages}
    assert set(SHOWN) <= {stage.makes for stage in stages}


def test_what_tables_describe_has_a_key() -> None:
    sections = {name: kind.described_by for name, kind in KINDS.items() if kind.described_by}
    assert sections == {"dataset": DATASETS, "classification": DATASETS, "network": NETWORKS}
    assert all((kind.key is not None) == bool(kind.described_by) for kind in KINDS.values())


def test_stages_that_read_or_make_a_network_need_the_device() -> None:
    networks = {name for name, stage in catalogue().items() if runs_network(stage, stage.settings())}
    assert networks == {
        "pretrain",
        "finetune",
        "train-rpn",
        "train-fast",
        "train-joint",
        "train-overfeat",
        "maps",
        "extract",
        "classify",
    }
    propose = catalogue()["propose"]
    assert runs_network(propose, propose.settings(method="rpn"))


def test_a_key_covers_annotations_and_crowds_where_they_matter() -> None:
    key = KINDS["dataset"].key
    plain = SimpleNamespace(images_key="i", annotations_key="a", images_with_crowds=frozenset())
    crowded = SimpleNamespace(images_key="i", annotations_key="a", images_with_crowds=frozenset({"x"}))
    assert key is not None
    boxes, crowds, images = (
        Input("images", ("dataset",), annotations=annotations, crowds=crowds)
        for annotations, crowds in ((True, False), (True, True), (False, False))
    )
    assert key(plain, crowds) == key(plain, boxes) == key(crowded, boxes) != key(crowded, crowds)
    assert key(plain, images) not in (key(plain, boxes), key(crowded, crowds))


def test_a_key_covers_masks_where_they_matter() -> None:
    kind = KINDS["dataset"]
    one, other = (
        SimpleNamespace(
            images_key="i",
            annotations_key="a",
            masks_key=name,
            image_ids=("x", "y"),
            image_digest=lambda image_id: image_id,
            mask_digest=lambda image_id, name=name: name if image_id == "y" else "same",
        )
        for name in ("m", "n")
    )
    masks = Input("masks", ("dataset",), annotations=False, masks=True)
    images = Input("masks", ("dataset",), annotations=False)
    assert kind.key is not None
    assert kind.image_keys is not None
    assert kind.key(one, masks) != kind.key(other, masks)
    assert kind.key(one, images) == kind.key(other, images) not in (kind.key(one, masks), kind.key(other, masks))
    of_one, of_other = kind.image_keys(one, masks), kind.image_keys(other, masks)
    assert of_one["x"] == of_other["x"] != kind.image_keys(one, images)["x"]
    assert of_one["y"] != of_other["y"]
