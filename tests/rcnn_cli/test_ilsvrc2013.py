"""The papers' numbers on ILSVRC2013 detection agree with each other."""

from __future__ import annotations

import numpy as np

from rcnn_cli.looking.ilsvrc2013 import FIGURE_3, TABLE_4, TABLE_8, is_ilsvrc2013, published_aps


def test_table_8_has_the_mean_and_the_median_that_are_printed() -> None:
    aps = np.array(list(TABLE_8.values()))
    assert len(aps) == 200
    assert abs(aps.mean() - 31.4) <= 0.05 + 1e-9  # 31.45 is printed as 31.4
    assert abs(np.median(aps) - 30.3) <= 0.05 + 1e-9
    assert (min(TABLE_8, key=TABLE_8.__getitem__), max(TABLE_8, key=TABLE_8.__getitem__)) == (
        "rubber eraser",
        "butterfly",
    )
    assert dict(FIGURE_3)["R-CNN BB"] == 31.4
    assert [mean for _, mean, _ in TABLE_4] == sorted(mean for _, mean, _ in TABLE_4)


def test_the_classes_are_known_by_any_spelling() -> None:
    names = [name.replace(" ", "_").upper() for name in TABLE_8]
    assert is_ilsvrc2013(names)
    assert not is_ilsvrc2013(names[1:])
    assert published_aps(["PING-PONG_BALL", "dog"]) == {"PING-PONG_BALL": 0.21, "dog": 0.768}
