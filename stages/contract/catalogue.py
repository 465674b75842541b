"""The list of stages: adding one is one folder and one line here."""

from __future__ import annotations

import importlib

from stages.contract.card import Stage

FOLDERS = (
    "stages.pretrain",
    "stages.classify",
    "stages.propose",
    "stages.finetune",
    "stages.train_rpn",
    "stages.train_fast",
    "stages.train_joint",
    "stages.train_overfeat",
    "stages.maps",
    "stages.extract",
    "stages.train_svm",
    "stages.train_bbox",
    "stages.train_svr",
    "stages.detect",
    "stages.segment",
    "stages.eval",
    "stages.eval_segmentation",
    "stages.diagnose",
    "stages.gist",
)


def catalogue() -> dict[str, Stage]:
    """All stages, by their name in recipes and on the command line, in pipeline order."""
    stages = [importlib.import_module(folder).STAGE for folder in FOLDERS]
    return {stage.name: stage for stage in stages}
