"""train-svr: targets in pixels, examples, the objective, and that nothing but the settings decides the result."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_matrix

from cache import Column, Identity, Reader, Schema, Shard, Writer
from stages.contract.errors import BadSetting, StageError
from stages.contract.execution import Execution
from stages.datasets import Dataset
from stages.features.linear_models import NEVER_DETECTED
from stages.matching.masks import class_targets, mask_overlaps
from stages.segment.scoring import read_regressions
from stages.train_svr import STAGE, Settings
from stages.train_svr.examples import class_examples, folds_of
from stages.train_svr.regression import Regression, fit_svr, svr_objective
from tests.stages.region_caches import disc, region_cache

SIZE = (40, 30)
SETTINGS = Settings(layer="fc6", negatives=4)
VOID = 255


def row(*spans: tuple[int, int], pixels: int = 10) -> NDArray[np.bool_]:
    """A mask [1, pixels] of the pixels in any of the spans [first, end)."""
    columns = np.arange(pixels)
    return np.any([(columns >= first) & (columns < end) for first, end in spans], axis=0)[None]


def test_overlaps_are_counted_in_pixels_without_void_ones():
    """A region of pixels 0 to 3, an object of 2 to 5: 2 of 6; without pixel 5, 2 of 5; an empty union is 0."""
    regions, objects = [row((0, 4)), row((9, 10))], np.stack([row((2, 6)), row((0, 4))])
    everything = np.ones((1, 10), bool)
    np.testing.assert_allclose(mask_overlaps(regions, objects, everything), np.array([[2 / 6, 1], [0, 0]]))
    counted = ~row((5, 6))
    np.testing.assert_allclose(mask_overlaps(regions, objects, counted), np.array([[2 / 5, 1], [0, 0]]))
    assert mask_overlaps(regions, objects, np.zeros((1, 10), bool)).tolist() == [[0, 0], [0, 0]]
    assert mask_overlaps([], objects, everything).shape == (0, 2)
    assert mask_overlaps(regions, objects[:0], everything).shape == (2, 0)


def test_the_target_of_a_class_is_the_overlap_with_its_best_object():
    overlaps = np.array([[0.2, 0.5, 0.4], [0, 0.1, 0]])
    targets = class_targets(overlaps, np.array([2, 0, 2], np.int32), 4)
    np.testing.assert_allclose(targets, [[0.5, 0, 0.4, 0], [0.1, 0, 0, 0]], rtol=1e-6)
    assert targets.dtype == np.float32


def test_examples_are_what_overlaps_and_some_of_the_rest():
    """Of each image at most two others, the same for both classes where they can be."""
    targets = [
        np.array([[0.5, 0], [0, 0], [0, 0], [0, 0.2], [0, 0], [0, 0]], np.float32),
        np.zeros((1, 2), np.float32),
        np.zeros((0, 2), np.float32),
    ]
    examples = class_examples(targets, 0, 2, seed=1)
    assert examples.images.tolist() == [0, 0, 0, 1]
    assert 0 in examples.rows[:3]
    assert (np.diff(examples.rows[:3]) > 0).all()
    np.testing.assert_array_equal(
        examples.targets, [targets[image][row, 0] for image, row in zip(examples.images, examples.rows, strict=True)]
    )
    assert len(class_examples(targets, 0, 0, seed=1)) == 7
    drawn = {tuple(class_examples(targets, 0, 2, seed=seed).rows[:3].tolist()) for seed in range(20)}
    assert len(drawn) > 3
    assert class_examples(targets, 0, 2, seed=1).rows.tolist() == examples.rows.tolist()


def test_folds_are_equally_large():
    folds = folds_of(11, 3, seed=0)
    assert np.bincount(folds).tolist() == [4, 4, 3]
    assert folds.tolist() != folds_of(11, 3, seed=1).tolist()
    assert folds_of(3, 0, seed=0).tolist() == [-1, -1, -1]


@pytest.mark.parametrize("loss", ["epsilon_insensitive", "squared_epsilon_insensitive"])
def test_the_objective_is_minimised(loss):
    """No direction lowers it; for the square, scipy finds the same minimum."""
    random = np.random.default_rng(0)
    rows = np.maximum(0, random.normal(size=(60, 5)))
    targets = (rows @ [0.3, 0, 0.1, 0, 0] + 0.05 * random.normal(size=60)).astype(np.float32)
    settings = Settings(loss=loss, C=0.5, epsilon=0.02, tolerance=1e-8, max_iterations=100_000)
    examples = csr_matrix(rows)
    solution = fit_svr(examples, targets, settings)
    assert solution.converged
    least = svr_objective(examples, targets, solution, settings)

    def objective(values: np.ndarray) -> float:
        return svr_objective(examples, targets, Regression(values[:-1], values[-1]), settings)

    best = np.append(solution.weights, solution.bias)
    for _ in range(100):
        assert objective(best + 0.01 * random.normal(size=6)) >= least - 1e-6
    if loss == "squared_epsilon_insensitive":
        assert minimize(objective, np.zeros(6)).fun == pytest.approx(least, rel=1e-4)


class Discs(Dataset):
    """Six images with a disc of class 0 or 1 on the left and void pixels in the last row; class 2 has no objects."""

    name, classes = "discs", ("round", "circular", "never")
    images_with_crowds = images_not_exhaustive = frozenset()

    def __init__(self) -> None:
        self.image_ids = tuple(f"im{number}" for number in range(6))

    def object_masks(self, image_id: str) -> tuple[np.ndarray, np.ndarray]:
        number = int(image_id[2:])
        return np.array([number % 2], np.int32), disc(10, 15, 5 + number % 3, SIZE)[None]

    def class_mask(self, image_id: str) -> np.ndarray:
        labels, masks = self.object_masks(image_id)
        mask = np.where(masks[0], labels[0] + 1, 0).astype(np.uint8)
        mask[-1] = VOID
        return mask


def proposals_of(image_id: str) -> list[np.ndarray]:
    """The object moved by 0, 2 and 6 pixels, and five other discs."""
    radius = 5 + int(image_id[2:]) % 3
    return [
        *(disc(10 + shift, 15, radius, SIZE) for shift in (0, 2, 6)),
        *(disc(28 + x, 6 + 3 * x, 4, SIZE) for x in range(5)),
    ]


def features_of(folder, dataset: Discs, *, objects: bool = True, dimension: int = 6, seed: int = 0) -> Reader:
    """A features cache whose features show, noisily, which class a region covers and how well."""
    rows = {"boxes": Column("float32", (4,)), "is_object": Column("bool"), "label": Column("int32")}
    schema = Schema("image", {**rows, "fc6": Column("float16", (dimension,))})
    proposals = region_cache(folder / "regions", {name: proposals_of(name) for name in dataset.image_ids}, SIZE)
    random = np.random.default_rng(seed)
    shown = random.normal(size=(3, dimension))
    writer = Writer(folder / "features", Identity("extract", 1), dataset.image_ids, schema, part_size=2)
    for part in writer.claim():
        records = []
        for image_id in part.item_ids:
            labels, masks = dataset.object_masks(image_id)
            masks = masks if objects else masks[:0]
            given = [*masks, *proposals_of(image_id)]
            overlaps = mask_overlaps(given, dataset.object_masks(image_id)[1], np.ones(SIZE[::-1], bool))
            noise = 0.05 * random.normal(size=(len(given), dimension))
            records.append(
                {
                    "boxes": np.concatenate([region_box(masks), proposals.read(image_id)["boxes"]]),
                    "is_object": np.arange(len(given)) < len(masks),
                    "label": np.where(np.arange(len(given)) < len(masks), labels[0], -1).astype(np.int32),
                    "fc6": np.maximum(0, overlaps @ shown[labels] + 0.2 * shown[2] + noise).astype(np.float16),
                }
            )
        writer.write(part, records)
    writer.finish({})
    writer.release()
    return Reader(folder / "features")


def region_box(masks: np.ndarray) -> np.ndarray:
    from stages.masks import mask_boxes

    return mask_boxes(masks)


@pytest.fixture
def inputs(tmp_path) -> dict:
    dataset = Discs()
    features = features_of(tmp_path / "a", dataset)
    return {"masks": dataset, "proposals": Reader(tmp_path / "a" / "regions"), "features": features}


def test_regressions_of_a_scene(inputs, run_stage):
    """Examples counted by hand: 1 object, 3 proposals that overlap it, 4 of 5 others in each of 3 images; in the other
    3 images, 4 of 9. A class without objects never scores."""
    reader = run_stage(STAGE, SETTINGS, inputs)
    summary = reader.manifest["summary"]["classes"]
    assert [summary[name]["examples"] for name in ("round", "circular")] == [3 * 8 + 3 * 4] * 2
    assert [summary[name]["positives"] for name in summary] == [12, 12, 0]
    assert read_regressions(reader).whole.biases[2] == NEVER_DETECTED
    assert summary["round"]["error"] < 0.02


def test_scores_are_the_models_on_features_as_cached(inputs, run_stage):
    reader = run_stage(STAGE, SETTINGS, inputs)
    stored = inputs["features"].read("im0")["fc6"]
    record = reader.read("round")
    expected = float(record["scale"]) * stored.astype(np.float64) @ record["weights"] + float(record["bias"])
    scores = read_regressions(reader).score(stored)[:, 0]
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    assert scores[0] > scores[3] > scores[4:].max() - 0.05


def test_bits_do_not_depend_on_processes_shards_or_parts(inputs, run_stage):
    settings = Settings(layer="fc6", negatives=4, folds=3)
    whole = run_stage(STAGE, settings, inputs, "one")
    shards = run_stage(STAGE, settings, inputs, "shards", shards=[Shard(1, 2), Shard(2, 2)])
    parallel = run_stage(STAGE, settings, inputs, "two", part_size=2, execution=Execution(jobs=2))
    for other in (shards, parallel):
        for name, record in whole.records():
            for column, values in record.items():
                np.testing.assert_array_equal(values, other.read(name)[column])


def test_an_image_of_a_fold_is_scored_by_the_regressions_without_it(inputs, run_stage, tmp_path):
    """They equal those trained on the other images alone, but for the scale of the features."""
    reader = run_stage(STAGE, Settings(layer="fc6", negatives=0, folds=3), inputs)
    folds = reader.manifest["summary"]["fold_of_image"]
    assert sorted(folds.values()) == [0, 0, 1, 1, 2, 2]
    regressions = read_regressions(reader)
    record = reader.read("round")
    stored = inputs["features"].read("im3")["fc6"]
    fold = folds["im3"]
    weights, bias = record["fold_weights"][fold], record["fold_biases"][fold]
    expected = float(record["scale"]) * stored.astype(np.float32) @ weights + bias
    np.testing.assert_allclose(regressions.score_held_out("im3", stored)[:, 0], expected, atol=1e-5)
    assert (regressions.score(stored) != regressions.score_held_out("im3", stored)).any()
    with pytest.raises(StageError, match="the regressions were not trained on image 'another'"):
        regressions.score_held_out("another", stored)


def test_features_of_two_caches_are_concatenated(inputs, run_stage, tmp_path):
    more = features_of(tmp_path / "b", inputs["masks"], dimension=3, seed=1)
    reader = run_stage(STAGE, SETTINGS, {**inputs, "more": more})
    assert reader.read("round")["weights"].shape == (9,)
    other = features_of(tmp_path / "c", inputs["masks"], objects=False)
    with pytest.raises(StageError, match="different regions; both tables of extract need the same proposals"):
        run_stage(STAGE, SETTINGS, {**inputs, "more": other}, "other")


def test_proposals_of_other_regions_are_refused(inputs, run_stage, tmp_path):
    others = region_cache(
        tmp_path / "others", {name: [disc(20, 10, 5, SIZE)] for name in inputs["masks"].image_ids}, SIZE
    )
    with pytest.raises(StageError, match="image 'im0': the features are of other regions than the proposals"):
        run_stage(STAGE, SETTINGS, {**inputs, "proposals": others})


def test_images_that_may_show_objects_without_masks_are_refused(inputs, run_stage):
    masks = Discs()
    vars(masks)["images_not_exhaustive"] = frozenset(["im3"])
    with pytest.raises(
        StageError, match=r"may show objects without an annotation \(exhaustive = false\), which would be"
    ):
        run_stage(STAGE, SETTINGS, {**inputs, "masks": masks})


def test_more_folds_than_images_are_refused(inputs, run_stage):
    with pytest.raises(StageError, match="folds = 7 is more than the 6 images of discs; lower it"):
        run_stage(STAGE, Settings(layer="fc6", folds=7), inputs)


def test_settings_that_do_not_fit():
    with pytest.raises(BadSetting, match="folds = 1 leaves nothing to train on"):
        Settings(folds=1)
