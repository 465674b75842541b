import dataclasses
from dataclasses import dataclass

import pytest

from stages.contract.catalogue import catalogue
from stages.contract.errors import BadSetting
from stages.contract.settings import all_of, build_settings, condition_words, identity_of, is_open, setting
from stages.propose import Settings as ProposeSettings


@dataclass(frozen=True)
class Example:
    padding: int = setting(16, "A setting.", at_least=0)
    mode: str = setting("warp", "A setting.", choices=("warp", "square"))
    C: float = setting(1e-3, "A setting.", above=0)
    layers: tuple[str, ...] = setting(("fc7",), "A setting.")
    scales: tuple[float, ...] = setting((), "A setting.", distinct=True)
    groups: tuple[tuple[str, ...], ...] = setting((), "A setting.", distinct=True)
    flip: bool = setting(False, "A setting.")
    limit: int | None = setting(None, "A setting.", at_least=1)
    seconds: float = setting(60.0, "A setting.", identity=False)


def test_defaults_and_given_values():
    assert build_settings(Example, {}) == Example()
    made = build_settings(Example, {"C": 1, "layers": ["pool5", "fc7"], "limit": 3})
    assert (made.C, made.layers, made.limit) == (1.0, ("pool5", "fc7"), 3)
    assert build_settings(Example, {"limit": "none"}).limit is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"paddings": 3}, "unknown setting 'paddings', did you mean 'padding'?"),
        ({"padding": -1}, "padding = -1 must be at least 0"),
        ({"padding": 1.5}, "padding = 1.5 must be a whole number"),
        ({"padding": True}, "padding = True must be a whole number"),
        ({"mode": "wrap"}, "mode = 'wrap' must be one of warp, square"),
        ({"C": 0}, "C = 0.0 must be more than 0"),
        ({"C": float("inf")}, "C = inf must be a finite number"),
        ({"C": float("nan")}, "C = nan must be a finite number"),
        ({"C": "a lot"}, "C = 'a lot' must be a number"),
        (
            {"layers": "fc7"},
            """layers = 'fc7' must be a list, as in ["fc7"] (--set 'extract.layers=["fc7"]')""",
        ),
        ({"scales": "1,2"}, "scales = '1,2' must be a list, as in [1, 2] (--set 'extract.scales=[1, 2]')"),
        ({"scales": 1.5}, "scales = 1.5 must be a list, as in [1.5] (--set 'extract.scales=[1.5]')"),
        ({"groups": ["a", "b"]}, "groups = 'a' must be a list"),
        ({"mode": "squares"}, "mode = 'squares' must be one of warp, square; did you mean 'square'?"),
        ({"layers": [7]}, "layers = 7 must be a string"),
        ({"scales": [1, 2, 1.0]}, "scales = [1.0, 2.0, 1.0] has 1.0 more than once; leave out the repetition"),
        ({"groups": [["a", "b"], ["c", "c"]]}, "groups = ['c', 'c'] has 'c' more than once"),
        ({"groups": [["a"], ["a"]]}, "groups = [['a'], ['a']] has ['a'] more than once"),
        ({"flip": 1}, "flip = 1 must be true or false"),
        ({"limit": 0}, "limit = 0 must be at least 1"),
    ],
)
def test_what_cannot_be_is_a_sentence_that_names_the_place(values, message):
    with pytest.raises(BadSetting) as error:
        build_settings(Example, values, "r.toml: [extract]")
    assert str(error.value).startswith("r.toml: [extract]: ")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("propose", "colour_spaces", ["hsv", "hsv"]),
        ("propose", "strategies", ["fill", "size", "fill"]),
        ("propose", "strategies", ["colour+fill", "fill+colour"]),
        ("propose", "scales", [0.5, 0.5]),
        ("propose", "aspects", [1, 1.0]),
        ("maps", "sides", [600, 600]),
        ("finetune", "frozen", ["features.0", "features.0"]),
        ("diagnose", "similar", [["cat", "dog", "cat"]]),
    ],
)
def test_a_repetition_that_would_only_change_the_key_is_refused(name, setting, value):
    windows = {"method": "sliding-window"} if setting in ("scales", "aspects") else {}
    with pytest.raises(BadSetting, match=r"more than once|must be written"):
        build_settings(catalogue()[name].settings, {**windows, setting: value})


def test_identity_leaves_out_what_cannot_change_a_result():
    assert "seconds" not in identity_of(Example())
    assert all_of(Example())["seconds"] == 60.0
    assert identity_of(Example())["layers"] == ["fc7"]


def test_a_setting_that_came_later_is_part_of_the_identity_only_where_it_is_changed():
    @dataclass(frozen=True)
    class Grown:
        first: int = setting(1, "A setting.")
        second: str = setting("as ever", "A setting.", later=True)

    assert identity_of(Grown()) == {"first": 1}
    assert identity_of(Grown(second="new")) == {"first": 1, "second": "new"}
    assert all_of(Grown()) == {"first": 1, "second": "as ever"}


IDENTITY = {
    "pretrain": {
        "network", "epochs", "batch_size", "learning_rate", "steps", "momentum", "weight_decay", "object_iou",
        "background_iou", "background", "colour_jitter", "occlusion", "held_out", "seed", "threads",
    },
    "classify": {"method", "sides", "longest", "fine", "side", "flips", "outputs", "precision"},
    "propose": {
        "method", "max_boxes", "seed", "mode", "base_k", "inc_k", "sigma", "resize_width", "max_side", "min_side",
        "scales", "aspects", "stride", "box_format", "segmentation", "colour_spaces", "strategies", "masks",
    },
    "finetune": {
        "iterations", "batch_size", "positive_fraction", "positive_overlap", "background_overlap", "learning_rate",
        "step", "momentum", "weight_decay", "bias_rate", "new_layer_rate", "new_layer_std", "new_layer_bias", "dropout",
        "mirror", "mode", "padding", "precision", "seed", "threads",
    },
    "maps": {"sides", "longest", "precision", "dtype"},
    "extract": {"layers", "mode", "padding", "precision", "dtype"},
    "train-svm": {
        "layer", "C", "loss", "positive_weight", "bias_multiplier", "tolerance", "max_iterations", "negative_overlap",
        "hard_threshold", "evict_threshold", "retrain_after", "max_negatives", "target_norm", "norm_seed", "seed",
    },
    "train-rpn": {
        *("iterations", "images_per_batch", "optimiser", "learning_rate", "schedule", "step", "warm_up", "momentum"),
        *("weight_decay", "bias_rate", "new_layer_rate", "most_gradient", "frozen", "sides", "longest", "mirror"),
        *("difficult", "precision", "seed", "threads", "positive_overlap", "negative_overlap", "best_of_object"),
        *("border", "anchors_per_image", "positive_anchors", "normalisation", "balance", "scales", "ratios", "hidden"),
        "new_layer_std",
    },
    "train-fast": {
        *("iterations", "images_per_batch", "optimiser", "learning_rate", "schedule", "step", "warm_up", "momentum"),
        *("weight_decay", "bias_rate", "new_layer_rate", "most_gradient", "frozen", "sides", "longest", "mirror"),
        *("difficult", "precision", "seed", "threads", "side", "hidden", "cells_scale", "dropout", "regions_per_image"),
        *("foreground_fraction", "foreground_overlap", "background_overlap", "background_least"),
        *("delta_normalisation", "box_weight", "new_classes_std", "new_boxes_std", "pooling", "outputs"),
    },
    "train-joint": {
        *("iterations", "images_per_batch", "optimiser", "learning_rate", "schedule", "step", "warm_up", "momentum"),
        *("weight_decay", "bias_rate", "new_layer_rate", "most_gradient", "frozen", "sides", "longest", "mirror"),
        *("difficult", "precision", "seed", "threads", "positive_overlap", "negative_overlap", "best_of_object"),
        *("border", "anchors_per_image", "positive_anchors", "normalisation", "balance", "scales", "ratios"),
        *("new_layer_std", "proposal_hidden", "proposal_cells_scale", "side", "hidden", "cells_scale", "dropout"),
        *("regions_per_image", "foreground_fraction", "foreground_overlap", "background_overlap", "background_least"),
        *("box_weight", "new_classes_std", "new_boxes_std", "gradient", "pooling", "before_suppression"),
        *("suppression_iou", "max_boxes", "least_side"),
    },
    "train-overfeat": {
        *("iterations", "images_per_batch", "optimiser", "learning_rate", "schedule", "step", "warm_up", "momentum"),
        *("weight_decay", "bias_rate", "new_layer_rate", "most_gradient", "frozen", "sides", "longest", "mirror"),
        *("difficult", "precision", "seed", "threads", "border", "box_hidden", "per_class", "hidden", "pool", "side"),
        *("cells_scale", "dropout", "windows_per_image", "positive_fraction", "positive_overlap"),
        *("background_overlap", "offending", "candidates", "box_windows", "box_overlap", "overlap_of", "box_weight"),
        *("new_classes_std", "new_boxes_std"),
    },
    "train-bbox": {"layer", "min_overlap", "regularisation", "target_norm", "norm_seed"},
    "train-svr": {
        *("layer", "C", "epsilon", "loss", "bias_multiplier", "tolerance", "max_iterations", "negatives", "folds"),
        *("target_norm", "norm_seed", "seed"),
    },
    "segment": {"held_out", "threshold", "max_segments", "most_taken"},
    "eval-segmentation": {"bootstrap", "bootstrap_seed"},
    "detect": {"max_per_image", "average_per_image", "nms_iou", "bbox_regression"},
    "eval": {"iou", "metric", "use_difficult"},
    "diagnose": {"iou", "poor_iou", "similar", "objects_per_image"},
    "gist": {"side", "prefilter", "orientations", "blocks"},
}  # fmt: skip
NOT_IDENTITY = {
    "classify": {"class_file"},
    "pretrain": {"image_memory"},
    "maps": {"cache"},
    "train-rpn": {"checkpoint_seconds", "image_memory"},
    "train-fast": {"checkpoint_seconds", "image_memory"},
    "train-joint": {"checkpoint_seconds", "image_memory"},
    "train-overfeat": {"checkpoint_seconds", "image_memory"},
    "extract": {"cache"},
    "propose": {"cache", "file", "model"},
    "finetune": {"checkpoint_seconds", "image_memory"},
    "train-svm": {"checkpoint_seconds", "memory"},
    "eval": {"confusion_threshold"},
}
AUGMENTATION = {"scale_jitter", "crop_jitter", "least_visible", "colour_jitter"}
VALIDATION = {"validate_every", "patience", "stop_on"}
LATER = {
    "classify": {"longer_sides"},
    "pretrain": {
        *("step_epochs", "step_factor", "initial_std", "views", "side", "optimiser", "schedule", "warm_up"),
        *("crop_area", "crop_colour_jitter"),
    },
    "maps": {"mirrored", "border"},
    "train-rpn": {"cells_scale"} | AUGMENTATION | VALIDATION,
    "train-fast": AUGMENTATION | VALIDATION,
    "train-joint": AUGMENTATION | VALIDATION,
    "train-overfeat": {"context"} | AUGMENTATION | VALIDATION,
    "extract": {"method", "pooling", "truncated_svd", "fine", "fill", "objects"},
    "propose": {
        "only_exhaustive",
        *("before_suppression", "suppression_iou", "least_side", "ranking", "ranking_seed", "refinement"),
        *("alpha", "beta", "eta", "min_score", "edge_min_mag", "edge_merge_thr", "cluster_min_mag"),
        *("max_aspect_ratio", "min_box_area", "gamma", "kappa", "edge_max_side", "gradient_sigma"),
        *("anchor_scales", "anchor_ratios", "anchor_stride", "anchor_side", "anchor_longest"),
        *("superpixel_side", "cut_max_side", "seeds", "cuts", "unaries", "contrast", "smoothness", "colour_weight"),
        *("colour_bandwidth", "least_area", "most_area", "same_overlap", "diversity", "frame_cost"),
    },
    "train-svm": {"positive_overlap", "difficult", "mining_images", "mining_seed"},
    "train-bbox": {"difficult", "only_exhaustive"},
    "finetune": {
        *("difficult", "frozen", "optimiser", "schedule", "warm_up", "window_jitter", "colour_jitter"),
        *VALIDATION,
    },
    "detect": {
        *("score", "cap", "least_score", "all_classes_at_most", "suppression", "regression", "classes"),
        *("max_per_class", "suppress_first", "least_candidate_score", "class_agnostic"),
        *("merge_threshold", "match_score", "merge_weights", "merge_scores", "classes_per_scale"),
    },
    "eval": {"coco", "localisation", "bootstrap", "bootstrap_seed"},
}  # in the key where not the default


@pytest.mark.parametrize("name", list(catalogue()))
def test_which_settings_are_part_of_a_caches_key(name):
    """Device, batch size, jobs and shard are no settings at all; the rest is listed here, so that a change is seen."""
    settings = catalogue()[name].settings()
    assert set(identity_of(settings)) == IDENTITY[name]
    assert {field.name for field in dataclasses.fields(settings)} - set(identity_of(settings)) == NOT_IDENTITY.get(
        name, set()
    ) | LATER.get(name, set())


@pytest.mark.parametrize("name", list(catalogue()))
def test_every_default_passes_its_own_bounds_and_names_its_source(name):
    settings = catalogue()[name].settings
    given = {one: list(value) if isinstance(value, tuple) else value for one, value in all_of(settings()).items()}
    built = build_settings(settings, given)
    of_network = {field.name: field.default for field in dataclasses.fields(settings) if is_open(built, field)}
    assert dataclasses.replace(built, **of_network) == settings()
    for field in dataclasses.fields(settings):
        assert field.metadata["source"] or not field.metadata["identity"], field.name


def test_the_settings_of_another_method_are_refused():
    """They could have no effect; and they stay at their defaults, so that they do not tell keys apart."""
    with pytest.raises(
        BadSetting,
        match=r"^\[propose\]: 'mode' is a setting of method = 'selective-search' or 'selective-search-opencv', and "
        r"method is 'file'; leave it out$",
    ):
        build_settings(ProposeSettings, {"method": "file", "file": "boxes.h5", "mode": "fast"}, "[propose]")
    windows = build_settings(ProposeSettings, {"method": "sliding-window", "stride": 0.25})
    assert set(all_of(windows)) == {
        "cache",
        "method",
        "max_boxes",
        "seed",
        "scales",
        "aspects",
        "stride",
        "only_exhaustive",
    }
    assert identity_of(windows)["sigma"] == 0.8


@dataclasses.dataclass(frozen=True)
class Ranked:
    """Settings with those of a method that came later."""

    method: str = setting("old", "The method.", choices=("old", "new"))
    alpha: float = setting(0.65, "Of the new method.", only_with=("method", "new"), later=True)


@dataclasses.dataclass(frozen=True)
class Shared:
    """A setting of two methods of three."""

    method: str = setting("a", "The method.", choices=("a", "b", "c"))
    beta: int = setting(1, "Of two of them.", only_with=("method", "a", "b"))


def test_a_setting_may_be_of_several_methods():
    assert build_settings(Shared, {"method": "b", "beta": 2}).beta == 2
    assert set(all_of(Shared("c"))) == {"method"}
    with pytest.raises(
        BadSetting, match=r"'beta' is a setting of method = 'a' or 'b', and method is 'c'; leave it out"
    ):
        build_settings(Shared, {"method": "c", "beta": 2})


def test_conditions_in_words():
    assert condition_words(("method", "a")) == "method = 'a'"
    assert condition_words(("method", "a", "b", "c")) == "method = 'a', 'b' or 'c'"


def test_a_later_method_leaves_the_keys_of_the_others_alone():
    assert identity_of(Ranked()) == {"method": "old"}
    assert identity_of(Ranked("new")) == {"method": "new", "alpha": 0.65}
    assert identity_of(build_settings(Ranked, {"method": "new", "alpha": 0.5})) == {"method": "new", "alpha": 0.5}
    with pytest.raises(BadSetting, match=r"'alpha' is a setting of method = 'new'"):
        build_settings(Ranked, {"alpha": 0.65})
