"""Stage `propose`: category-independent region proposals for every image.

R-CNN section 2.1: selective search in fast mode, "around 2000" regions an image. Beside it the sliding-window pyramid,
a cheap baseline, and proposals from a file, for any other method.
"""

from __future__ import annotations

from dataclasses import dataclass

from stages.settings import setting
from stages.stage import Input, Stage


@dataclass(frozen=True)
class Settings:
    """What decides the boxes. Sides and areas named "searched" are pixels after the resize, before mapping back.

    A setting of another method than `method` is ignored.
    """

    method: str = setting(
        "selective-search",
        choices=("selective-search", "sliding-window", "file"),
        source="R-CNN section 2.1",
    )
    max_boxes: int = setting(0, at_least=0, source="0: all, as R-CNN section 2.1; else the first so many by priority")
    seed: int = setting(0, at_least=0, source="decides the priorities; the original's random order is unseeded")

    mode: str = setting("fast", choices=("fast", "quality"), source="R-CNN section 2.1: fast mode")
    base_k: int = setting(50, at_least=1, source="selective_search_boxes.m: k = 50, 100 (OpenCV adds 150)")
    inc_k: int = setting(50, at_least=1, source="selective_search_boxes.m: k = 50, 100 (OpenCV adds 150)")
    sigma: float = setting(0.8, above=0, source="selective_search_boxes.m: sigma = 0.8")
    resize_width: int = setting(500, at_least=0, source="rcnn_detect.m: width 500, boxes mapped back; 0: as it is")
    max_side: int = setting(2000, at_least=1, at_most=32_000, source="ours: no side is searched longer, resize or not")
    min_side: int = setting(20, at_least=0, source="selective_search_boxes.m: 20 searched pixels, before mapping back")

    scales: tuple[float, ...] = setting(
        (0.1, 0.15, 0.22, 0.33, 0.5, 0.75),
        above=0,
        source="sliding windows, ours: window side (root of its area) over the root of the image's area",
    )
    aspects: tuple[float, ...] = setting((0.5, 1.0, 2.0), above=0, source="sliding windows, ours: width / height")
    stride: float = setting(0.5, above=0, source="sliding windows, ours: step over the window's own side")

    file: str = setting("", identity=False, source="file: .h5, .npz or .mat; its content is part of the cache's key")
    box_format: str = setting(
        "auto",
        choices=("auto", "xyxy", "mat-yxyx"),
        source="file: xyxy zero-based half-open; mat-yxyx [y1 x1 y2 x2] one-based inclusive; auto: mat-yxyx for .mat",
    )


STAGE = Stage(
    name="propose",
    summary="Propose regions: selective search, sliding windows, a file.",
    schema_version=1,
    settings=Settings,
    makes="proposals",
    inputs=(Input("images", kind="dataset", annotations=False),),
    module="stages.propose.stage",
    follows_split=True,
    reads_files=True,
    part_size=16,
)
