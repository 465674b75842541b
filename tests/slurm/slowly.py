"""`rcnn` that sleeps before each image, so that tests find its jobs at work on any machine."""

import time

from rcnn_cli.main import main
from stages.propose import stage

quickly = stage.propose


def slowly(settings, task):
    time.sleep(0.3)
    return quickly(settings, task)


stage.propose = slowly
main()
