"""`python -m rcnn_cli` is `rcnn`."""

from rcnn_cli.main import main

main()
