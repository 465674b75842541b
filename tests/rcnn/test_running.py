"""A recipe run from Python: what is complete stays, what a change concerns is made, and each is opened."""

from __future__ import annotations

from pathlib import Path

import pytest

import rcnn
from tests.built_once import BuiltOnce
from tests.pipeline import STAGES, contents, run_small


def test_a_run_and_a_change_of_it(built_once: BuiltOnce, tmp_path: Path) -> None:
    folder = built_once.copy("small", run_small, tmp_path)
    recipe, work = folder / "small.toml", folder / "work"
    before = contents(work)
    caches = rcnn.run(recipe, work=work, jobs=1)
    assert contents(work) == before
    assert {rows.provenance.stage for rows in caches.values()} == set(STAGES)
    assert list(caches)[-1] == "eval"
    assert 0 <= caches["eval"].summary["map"] <= 1
    changed = rcnn.run(recipe, work=work, jobs=1, changes={"train-svm.C": 1.0})
    same = {name for name in caches if changed[name].folder == caches[name].folder}
    assert set(caches) - same == {"train-svm", "detect@test", "eval"}
    assert changed["train-svm"].settings["C"] == 1.0
    assert {rows.folder.name for rows in caches.values()} <= set(contents(work))


def test_what_cannot_run_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text('[datasets.test]\nsource = "voc:nowhere:test"\n[propose]\n')
    with pytest.raises(rcnn.Error, match="nowhere"):
        rcnn.run(tmp_path / "r.toml", work=tmp_path / "work")
    (tmp_path / "s.toml").write_text(
        '[datasets.test]\nsource = "shapes:test"\nimages = 2\n[network]\nname = "shapenet"\n'
        'weights = "random"\n[maps]\n'
    )
    with pytest.raises(rcnn.Error, match=r"^device tpu: is unknown; use auto, cpu, cuda or cuda:N$"):
        rcnn.run(tmp_path / "s.toml", work=tmp_path / "work", device="tpu")


def test_recipes_go_by_name(tmp_path: Path) -> None:
    with pytest.raises(rcnn.Error, match=r"recipes/shapes\.toml: has no detector 'none'"):
        rcnn.load("shapes", work=tmp_path, detector="none")
    with pytest.raises(rcnn.Error, match=r"recipes/shapes\.toml: has no table \[none\]"):
        rcnn.open("shapes", "none", work=tmp_path)
