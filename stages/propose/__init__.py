"""Stage `propose`: category-independent region proposals for every image.

R-CNN section 2.1: selective search in fast mode, "around 2000" regions per image. The implementation is ours; OpenCV's,
which takes ten times as long, is there to compare it with. EdgeBoxes ranks its boxes. Constrained parametric min-cuts
are regions with masks, for segmentation (section 5). The sliding-window pyramid is a cheap baseline; proposals of any
other method can be read from a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.contract.card import Input, Stage
from stages.contract.errors import BadSetting
from stages.contract.settings import Condition, setting
from stages.networks import PlannedNetwork
from stages.propose.endings import BOX_FILES, names_masks
from stages.propose.methods import METHODS

COMPUTED: Condition = ("method", *(name for name, method in METHODS.items() if not method.listed))
UNRANKED: Condition = ("method", *(name for name, method in METHODS.items() if not (method.ranks or method.in_order)))
COMPILED = ("method", "selective-search")
SEARCH = ("method", "selective-search", "selective-search-opencv")
MEASURES = ("colour", "texture", "size", "fill")
EDGES = ("method", "edge-boxes")
CUTS = ("method", "min-cut")
WINDOWS = ("method", "sliding-window")
DENSE = ("method", "dense")
RPN = ("method", "rpn")
FILE = ("method", "file")
MOST_K = 100_000_000  # five of them fit into OpenCV's whole numbers


@dataclass(frozen=True)
class Settings:
    """What determines the boxes. Lengths "as searched" are in pixels of the resized image.

    A setting that belongs to a method other than `method` is refused.
    """

    method: str = setting(
        "selective-search",
        "The method that proposes regions; settings of the other methods are refused.",
        choices=tuple(METHODS),
        source="R-CNN section 2.1",
    )
    max_boxes: int = setting(
        0,
        "How many proposals to keep per image at most, the first in order of score or priority; 0 keeps all.",
        at_least=0,
        source="R-CNN section 2.1: all, around 2000",
    )
    seed: int = setting(
        0,
        "Seed of the random order of an image's proposals.",
        at_least=0,
        source="ours; the original's random order is unseeded",
        only_with=UNRANKED,
    )
    cache: bool = setting(
        True,
        "Whether to keep the proposals; if false, those that only extract reads are found as it reads them.",
        identity=False,
        only_with=COMPUTED,
        source="ours",
    )

    only_exhaustive: bool = setting(
        False,
        "Whether only images that are annotated exhaustively get proposals; of the others only the objects are used.",
        later=True,
        source="R-CNN section 4.2: none on images in ILSVRC's train",
    )

    mode: str = setting(
        "fast",
        "Selective search: fast, or quality, which takes longer and finds several times as many boxes.",
        choices=("fast", "quality"),
        source="R-CNN section 2.1",
        only_with=SEARCH,
    )
    base_k: int = setting(
        50,
        "Selective search: k of the first segmentation; a larger k gives larger regions.",
        at_least=1,
        at_most=MOST_K,
        source="selective_search_boxes.m: k = 50, 100; OpenCV adds 150",
        only_with=SEARCH,
    )
    inc_k: int = setting(
        50,
        "Selective search: the difference in k from one segmentation to the next.",
        at_least=1,
        at_most=MOST_K,
        source="selective_search_boxes.m: k = 50, 100; OpenCV adds 150",
        only_with=SEARCH,
    )
    sigma: float = setting(
        0.8,
        "Selective search: standard deviation of the Gaussian blur before segmentation, in pixels.",
        at_least=0.01,
        at_most=100,
        source="selective_search_boxes.m",
        only_with=SEARCH,
    )
    resize_width: int = setting(
        500,
        "Selective search: the width to resize images to before they are searched; 0 leaves them as they are.",
        at_least=0,
        source="rcnn_detect.m",
        only_with=SEARCH,
    )
    max_side: int = setting(
        2000,
        "Selective search: the longest side as searched, in pixels; larger images are scaled down.",
        at_least=1,
        at_most=32_000,
        source="ours",
        only_with=SEARCH,
    )
    min_side: int = setting(
        20,
        "Selective search: the shortest side of a box, in pixels of the image as searched; smaller boxes are dropped.",
        at_least=0,
        source="selective_search_boxes.m",
        only_with=SEARCH,
    )

    segmentation: str = setting(
        "opencv",
        "Selective search: how it segments. opencv: k = base_k, base_k + inc_k and base_k + 2 inc_k, segments of at "
        "least 100 pixels, 4 neighbours; original: k = base_k and base_k + inc_k, segments of at least k pixels, 8 "
        "neighbours.",
        choices=("opencv", "original"),
        source="OpenCV; original: selective_search_boxes.m, Felzenszwalb's code",
        only_with=COMPILED,
        later=True,
    )
    colour_spaces: tuple[str, ...] = setting(
        (),
        "Selective search: the colour spaces searched; if none is named, those of the mode: hsv and lab (fast), or all "
        "(quality).",
        choices=("hsv", "lab", "intensity", "hue", "rgi"),
        distinct=True,
        source="selective_search_boxes.m: hsv and lab",
        only_with=COMPILED,
        later=True,
    )
    strategies: tuple[str, ...] = setting(
        (),
        "Selective search: the similarities that regions are grouped by, each the mean of some of colour, texture, "
        "size and fill, in this order, as in colour+fill; if none is named, those of the mode: "
        "colour+texture+size+fill and texture+size+fill (fast), and also fill and size (quality).",
        distinct=True,
        source="selective_search_boxes.m: two similarities",
        only_with=COMPILED,
        later=True,
    )
    masks: bool = setting(
        False,
        "Selective search: whether to keep the region of each proposal too, as run lengths of the image as searched.",
        source="Uijlings et al. 2013; COCO's run lengths",
        only_with=COMPILED,
        later=True,
    )

    alpha: float = setting(
        0.65,
        "EdgeBoxes: IoU of neighbouring windows; closer windows take longer and fit better.",
        at_least=0.5,
        at_most=0.9,
        source="edgeBoxes.m; EdgeBoxes section 3.4",
        only_with=EDGES,
        later=True,
    )
    beta: float = setting(
        0.75,
        "EdgeBoxes: IoU with a better box above which a box is suppressed; 1 keeps all.",
        above=0,
        at_most=1,
        source="edgeBoxes.m; EdgeBoxes section 3.4",
        only_with=EDGES,
        later=True,
    )
    eta: float = setting(
        1.0,
        "EdgeBoxes: factor on beta after every box that is kept, down to 0.5; 1 leaves beta as it is.",
        above=0,
        at_most=1,
        source="edgeBoxes.cpp: 1",
        only_with=EDGES,
        later=True,
    )
    min_score: float = setting(
        0.01,
        "EdgeBoxes: the lowest score of a box.",
        at_least=0,
        at_most=1000,
        source="edgeBoxes.m",
        only_with=EDGES,
        later=True,
    )
    edge_min_mag: float = setting(
        0.1,
        "EdgeBoxes: the strength above which an edge counts.",
        at_least=0,
        at_most=1,
        source="edgeBoxes.m; EdgeBoxes section 3.1",
        only_with=EDGES,
        later=True,
    )
    edge_merge_thr: float = setting(
        0.5,
        "EdgeBoxes: the total turn, as a share of pi, at which a group of edges ends.",
        above=0,
        at_most=10,
        source="edgeBoxes.m; EdgeBoxes section 3.1: pi / 2",
        only_with=EDGES,
        later=True,
    )
    cluster_min_mag: float = setting(
        0.5,
        "EdgeBoxes: the total strength below which a group of edges is merged with a neighbour.",
        at_least=0,
        at_most=1000,
        source="edgeBoxes.m",
        only_with=EDGES,
        later=True,
    )
    max_aspect_ratio: float = setting(
        3.0,
        "EdgeBoxes: the most extreme shape of a window, longer side over shorter.",
        at_least=1,
        at_most=10,
        source="edgeBoxes.m; EdgeBoxes section 3.4",
        only_with=EDGES,
        later=True,
    )
    min_box_area: float = setting(
        1000.0,
        "EdgeBoxes: the area of the smallest windows, in pixels of the image as searched.",
        at_least=100,
        at_most=1_000_000,
        source="edgeBoxes.m; EdgeBoxes section 3.4",
        only_with=EDGES,
        later=True,
    )
    gamma: float = setting(
        2.0,
        "EdgeBoxes: how fast the affinity of two groups of edges falls with the angle between them.",
        at_least=0,
        at_most=20,
        source="edgeBoxes.m; EdgeBoxes equation 1",
        only_with=EDGES,
        later=True,
    )
    kappa: float = setting(
        1.5,
        "EdgeBoxes: exponent of the perimeter that a score is divided by; larger values favour small boxes.",
        at_least=0,
        at_most=10,
        source="edgeBoxes.m; EdgeBoxes equation 3",
        only_with=EDGES,
        later=True,
    )
    edge_max_side: int = setting(
        1000,
        "EdgeBoxes: the longest side as searched, in pixels; larger images are scaled down.",
        at_least=1,
        at_most=9_999,  # OpenCV has a table of 10,000 half perimeters, and would read past its end
        source="ours; the paper's images have at most 500",
        only_with=EDGES,
        later=True,
    )
    model: str = setting(
        "",
        "EdgeBoxes: the file of a structured forest that finds the edges, opencv_extra's model.yml.gz; without it, "
        "edges are image gradients.",
        identity=False,
        by_content=True,
        source="EdgeBoxes section 3.1: structured edges",
        only_with=EDGES,
    )
    gradient_sigma: float = setting(
        3.0,
        "EdgeBoxes without a model: standard deviation of the Gaussian blur before gradients, in pixels.",
        at_least=0.3,
        at_most=50,
        source="ours",
        only_with=EDGES,
        later=True,
    )

    superpixel_side: int = setting(
        16,
        "Min-cut: the side of a superpixel, in pixels of the image as searched.",
        at_least=4,
        at_most=256,
        source="ours; CPMC cuts pixels",
        only_with=CUTS,
        later=True,
    )
    cut_max_side: int = setting(
        500,
        "Min-cut: the longest side as searched, in pixels; larger images are scaled down.",
        at_least=1,
        at_most=4_000,
        source="ours; VOC's images have at most 500",
        only_with=CUTS,
        later=True,
    )
    seeds: int = setting(
        8,
        "Min-cut: how many foreground seeds lie along each side of the image.",
        at_least=1,
        at_most=50,
        source="ours; CPMC: a grid",
        only_with=CUTS,
        later=True,
    )
    cuts: int = setting(
        7,
        "Min-cut: how many cuts are computed for each seed and unary.",
        at_least=1,
        at_most=100,
        source="ours; CPMC: all breakpoints of lambda",
        only_with=CUTS,
        later=True,
    )
    unaries: tuple[str, ...] = setting(
        ("uniform", "colour"),
        "Min-cut: what superpixels say of the foreground. uniform: nothing; colour: how much likelier their colour is "
        "in the seed than in the frame.",
        choices=("uniform", "colour"),
        distinct=True,
        source="CPMC",
        only_with=CUTS,
        later=True,
    )
    contrast: float = setting(
        1.5,
        "Min-cut: the difference of colours, in medians of the image, at which the cost of a border falls to 1 / e.",
        above=0,
        at_most=1000,
        source="ours; CPMC takes edges instead",
        only_with=CUTS,
        later=True,
    )
    smoothness: float = setting(
        0.02,
        "Min-cut: the cost of a pixel of border that does not depend on contrast.",
        at_least=0,
        at_most=100,
        source="ours",
        only_with=CUTS,
        later=True,
    )
    frame_cost: float = setting(
        0.3,
        "Min-cut: the cost of a pixel of the image's frame in the region, against a pixel of border without contrast.",
        at_least=0,
        at_most=100,
        source="ours; CPMC: the frame, or parts of it, is background",
        only_with=CUTS,
        later=True,
    )
    colour_weight: float = setting(
        0.02,
        "Min-cut: the weight of a pixel's colour, against the cost of a pixel of border.",
        at_least=0,
        at_most=100,
        source="ours",
        only_with=CUTS,
        later=True,
    )
    colour_bandwidth: float = setting(
        8.0,
        "Min-cut: standard deviation of the Gaussian by which colours are alike, in units of Lab.",
        at_least=0.1,
        at_most=1000,
        source="ours",
        only_with=CUTS,
        later=True,
    )
    least_area: float = setting(
        0.002,
        "Min-cut: the area of the smallest regions, as a share of the image's.",
        at_least=0,
        at_most=1,
        source="ours",
        only_with=CUTS,
        later=True,
    )
    most_area: float = setting(
        0.95,
        "Min-cut: the area of the largest regions, as a share of the image's.",
        above=0,
        at_most=1,
        source="ours",
        only_with=CUTS,
        later=True,
    )
    same_overlap: float = setting(
        0.95,
        "Min-cut: IoU of two regions above which only the better is kept; 1 keeps all distinct ones.",
        above=0,
        at_most=1,
        source="CPMC",
        only_with=CUTS,
        later=True,
    )
    diversity: float = setting(
        1.0,
        "Min-cut: how much the overlap with regions before it counts against a region, in the order of regions.",
        at_least=0,
        at_most=1000,
        source="ours; CPMC: 0.75, with a learnt score",
        only_with=CUTS,
        later=True,
    )

    scales: tuple[float, ...] = setting(
        (0.1, 0.15, 0.22, 0.33, 0.5, 0.75),
        "Sliding windows: their sizes, as the square root of their share of the image's area.",
        at_least=0.01,
        distinct=True,
        source="ours",
        only_with=WINDOWS,
    )
    aspects: tuple[float, ...] = setting(
        (0.5, 1.0, 2.0),
        "Sliding windows: their shapes, width over height.",
        at_least=0.01,
        at_most=100,
        distinct=True,
        source="ours",
        only_with=WINDOWS,
    )
    stride: float = setting(
        0.5,
        "Sliding windows: the longest step, as a multiple of the window's side.",
        at_least=0.01,
        source="ours",
        only_with=WINDOWS,
    )

    anchor_scales: tuple[float, ...] = setting(
        (8.0, 16.0, 32.0),
        "Dense windows: the sides of the square anchors, in strides.",
        at_least=0.1,
        distinct=True,
        source="Faster R-CNN section 3.3: 128, 256 and 512 pixels",
        only_with=DENSE,
        later=True,
    )
    anchor_ratios: tuple[float, ...] = setting(
        (0.5, 1.0, 2.0),
        "Dense windows: the shapes of the anchors, height over width.",
        at_least=0.01,
        at_most=100,
        distinct=True,
        source="Faster R-CNN section 3.3",
        only_with=DENSE,
        later=True,
    )
    anchor_stride: int = setting(
        16,
        "Dense windows: the step from one position to the next, in pixels of the scaled image.",
        at_least=1,
        source="Faster R-CNN section 3.3: the stride of ZF and VGG-16",
        only_with=DENSE,
        later=True,
    )
    anchor_side: int = setting(
        600,
        "Dense windows: the shorter side of the scaled image, in pixels.",
        at_least=1,
        source="Faster R-CNN section 3.3",
        only_with=DENSE,
        later=True,
    )
    anchor_longest: int = setting(
        1000,
        "Dense windows: the longer side of the scaled image at most, in pixels.",
        at_least=1,
        source="py-faster-rcnn, lib/fast_rcnn/config.py",
        only_with=DENSE,
        later=True,
    )

    before_suppression: int = setting(
        6000,
        "RPN: how many of the best-scored boxes go into suppression; 0: all.",
        at_least=0,
        source="py-faster-rcnn, lib/rpn/proposal_layer.py; 0 for the training of the second network",
        only_with=RPN,
        later=True,
    )
    suppression_iou: float = setting(
        0.7,
        "RPN: IoU with a better-scored box above which a box is suppressed; 1 keeps all.",
        above=0,
        at_most=1,
        source="Faster R-CNN section 3.3",
        only_with=RPN,
        later=True,
    )
    least_side: float = setting(
        16.0,
        "RPN: the shortest side of a box, in pixels of the original image; smaller boxes are dropped.",
        at_least=0,
        source="py-faster-rcnn, lib/fast_rcnn/config.py: RPN_MIN_SIZE",
        only_with=RPN,
        later=True,
    )
    ranking: str = setting(
        "score",
        "RPN: the order of the boxes. score: the network's; random: drawn from `ranking_seed`, as without its "
        "scores (suppress none then: suppression_iou = 1).",
        choices=("score", "random"),
        source="Faster R-CNN section 4.1, Table 2: no cls",
        only_with=RPN,
        later=True,
    )
    ranking_seed: int = setting(
        0,
        "RPN: seed of a random ranking.",
        at_least=0,
        source="ours",
        only_with=("ranking", "random"),
        later=True,
    )
    refinement: bool = setting(
        True,
        "RPN: whether boxes are refined by the network's deltas; if false, they are the anchors.",
        source="Faster R-CNN section 4.1, Table 2: no reg",
        only_with=RPN,
        later=True,
    )

    file: str = setting(
        "",
        "Method file: the file of boxes, .h5, .npz or .mat; or a folder of masks, one .mat file per image (CPMC).",
        identity=False,
        by_content=True,
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

    @property
    def keeps_masks(self) -> bool:
        """Whether the cache has the regions' masks."""
        return self.masks or METHODS[self.method].masks or (self.method == FILE[1] and names_masks(self.file))

    def __post_init__(self) -> None:
        if self.least_area > self.most_area:
            raise BadSetting(f"least_area = {self.least_area} is more than most_area = {self.most_area}; lower it")
        if names_masks(self.file) and self.box_format != "auto":
            raise BadSetting(
                f"box_format = '{self.box_format}' is for files of boxes, which end in {', '.join(BOX_FILES)}, and "
                f"file = '{self.file}' is a folder of masks; leave it out"
            )
        if self.method == RPN[1] and self.only_exhaustive:
            raise BadSetting(
                "only_exhaustive = true is not for method = 'rpn', whose network is trained on sets that are "
                "exhaustive altogether; leave it out"
            )
        if self.model and self.gradient_sigma != Settings.gradient_sigma:
            raise BadSetting("gradient_sigma is for edges without a model; leave out gradient_sigma or model")
        for strategy in self.strategies:
            measures = strategy.split("+")
            if len({*measures}) < len(measures) or not {*measures} <= {*MEASURES}:
                raise BadSetting(
                    f"strategies = '{strategy}' must be some of {', '.join(MEASURES)}, each once, joined by '+'"
                )
            in_order = "+".join(measure for measure in MEASURES if measure in measures)
            if strategy != in_order:  # one spelling, so one key
                raise BadSetting(f"strategies = '{strategy}' must be written '{in_order}'")


def check(settings: Settings, network: PlannedNetwork | None, sources: Mapping[str, Any]) -> None:
    """Raises BadSetting for the method rpn with a network that has no region proposal network, or with maps at several
    scales."""
    if settings.method != RPN[1]:
        return
    assert network is not None
    network.card.check_proposals()
    if len(sources["maps"].sides) > 1:
        raise BadSetting(
            f"method = 'rpn' takes maps at one scale, but [maps] has sides = {list(sources['maps'].sides)}; "
            "name a table of maps with one side in its inputs"
        )


STAGE = Stage(
    name="propose",
    summary="Propose regions: selective search, EdgeBoxes, min-cuts, windows, a file.",
    schema_version=1,
    settings=Settings,
    makes="proposals",
    inputs=(
        Input("images", kinds=("dataset",), annotations=False),
        Input("rpn", kinds=("network",), default=("train-joint", "train-rpn"), only_if=RPN),
        Input("maps", kinds=("maps",), default=("maps",), only_if=RPN, once=True, of_trunk=True),
    ),
    module="stages.propose.stage",
    follows_split=True,
    reads_files=True,
    part_size=16,
    by_item=True,
    check=check,
)
