"""Stage `propose`: category-independent region proposals for every image.

R-CNN section 2.1: selective search in fast mode, "around 2000" regions an image. Beside it the sliding-window pyramid,
a cheap baseline, and proposals from a file, for any other method.
"""

from __future__ import annotations

from dataclasses import dataclass

from stages.contract.card import Input, Stage
from stages.contract.settings import Condition, setting
from stages.propose.methods import METHODS

COMPUTED: Condition = ("method", *(name for name, method in METHODS.items() if not method.listed))
SEARCH = ("method", "selective-search")
WINDOWS = ("method", "sliding-window")
FILE = ("method", "file")


@dataclass(frozen=True)
class Settings:
    """What decides the boxes. Sides and areas named "searched" are pixels after the resize, before mapping back.

    A setting of another method than `method` is refused.
    """

    method: str = setting(
        "selective-search",
        "How regions are proposed; the settings of the other methods are refused.",
        choices=tuple(METHODS),
        source="R-CNN section 2.1",
    )
    max_boxes: int = setting(
        0,
        "Keep at most this many proposals per image, the first in order of priority; 0: all.",
        at_least=0,
        source="R-CNN section 2.1: all, around 2000",
    )
    seed: int = setting(
        0,
        "Seed of the random priorities that order the proposals of an image.",
        at_least=0,
        source="ours; the original's random order is unseeded",
    )
    cache: bool = setting(
        True,
        "Whether proposals are kept; false finds those that only extract reads as it reads them.",
        identity=False,
        only_with=COMPUTED,
        source="ours",
    )

    mode: str = setting(
        "fast",
        "Selective search: fast, or quality, which finds several times as many boxes and takes longer.",
        choices=("fast", "quality"),
        source="R-CNN section 2.1",
        only_with=SEARCH,
    )
    base_k: int = setting(
        50,
        "Selective search: k of its first segmentation; the larger, the coarser.",
        at_least=1,
        source="selective_search_boxes.m: k = 50, 100; OpenCV adds 150",
        only_with=SEARCH,
    )
    inc_k: int = setting(
        50,
        "Selective search: by how much k grows from one segmentation to the next.",
        at_least=1,
        source="selective_search_boxes.m: k = 50, 100; OpenCV adds 150",
        only_with=SEARCH,
    )
    sigma: float = setting(
        0.8,
        "Selective search: standard deviation of the blur before segmentation, in pixels.",
        above=0,
        source="selective_search_boxes.m",
        only_with=SEARCH,
    )
    resize_width: int = setting(
        500,
        "Selective search: the width that an image is resized to before it is searched; 0: not resized.",
        at_least=0,
        source="rcnn_detect.m",
        only_with=SEARCH,
    )
    max_side: int = setting(
        2000,
        "Selective search: the longest side searched, in pixels; larger images are scaled down.",
        at_least=1,
        at_most=32_000,
        source="ours",
        only_with=SEARCH,
    )
    min_side: int = setting(
        20,
        "Selective search: boxes with a side shorter than this are left out, in pixels of the image as searched.",
        at_least=0,
        source="selective_search_boxes.m",
        only_with=SEARCH,
    )

    scales: tuple[float, ...] = setting(
        (0.1, 0.15, 0.22, 0.33, 0.5, 0.75),
        "Sliding windows: their sizes, as the square root of their share of the image's area.",
        above=0,
        source="ours",
        only_with=WINDOWS,
    )
    aspects: tuple[float, ...] = setting(
        (0.5, 1.0, 2.0), "Sliding windows: their shapes, width over height.", above=0, source="ours", only_with=WINDOWS
    )
    stride: float = setting(
        0.5,
        "Sliding windows: the longest step, as a multiple of the window's side.",
        above=0,
        source="ours",
        only_with=WINDOWS,
    )

    file: str = setting(
        "",
        "Method file: the file of boxes, .h5, .npz or .mat; its content, not its name, enters the cache's key.",
        identity=False,
        source="ours",
        only_with=FILE,
    )
    box_format: str = setting(
        "auto",
        "Method file: xyxy is x1 y1 x2 y2, zero-based, half-open; mat-yxyx is y1 x1 y2 x2, one-based, inclusive; auto "
        "is mat-yxyx for a .mat file, else xyxy.",
        choices=("auto", "xyxy", "mat-yxyx"),
        source="ours",
        only_with=FILE,
    )


STAGE = Stage(
    name="propose",
    summary="Propose regions: selective search, sliding windows, a file.",
    schema_version=1,
    settings=Settings,
    makes="proposals",
    inputs=(Input("images", kinds=("dataset",), annotations=False),),
    module="stages.propose.stage",
    follows_split=True,
    reads_files=True,
    part_size=16,
    by_item=True,
)
