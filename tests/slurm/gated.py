"""`rcnn` whose `propose` stops at a gate, so that tests find its jobs at work on any machine.

python gated.py GATE IMAGES ...: the first IMAGES images pass; no other is begun until the file GATE is gone.
"""

import sys
import time
from pathlib import Path

from rcnn_cli.main import main
from stages.propose import stage

gate, images = Path(sys.argv.pop(1)), int(sys.argv.pop(1))
attempt, attempt_alone = stage.attempt, stage.attempt_alone


def pass_gate(task):
    while gate.exists() and int(task.image_id.removeprefix("train_")) >= images:
        time.sleep(0.05)


def gated(settings, task, *options):
    pass_gate(task)
    return attempt(settings, task, *options)


def gated_alone(settings, task, *options):
    pass_gate(task)
    return attempt_alone(settings, task, *options)


stage.attempt, stage.attempt_alone = gated, gated_alone
main()
