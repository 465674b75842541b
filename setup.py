"""The packages of a wheel (setup.cfg has the rest): in it, the folder recipes/ is the package rcnn_recipes."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["cache*", "stages*", "rcnn*"]), "rcnn_recipes"],
    package_dir={"rcnn_recipes": "recipes"},
)
