"""How many items a part gets if nobody says."""

import pytest

from rcnn_cli.running.runner import grown_part_size


@pytest.mark.parametrize(
    ("usual", "count", "expected"),
    [
        (4, 12, 4),
        (4, 2000, 4),
        (4, 2001, 5),
        (4, 3500, 7),
        (4, 100_000, 8),
        (16, 5011, 16),
        (16, 16_551, 32),
        (1, 1, 1),
    ],
)
def test_many_items_get_parts_of_up_to_twice_the_usual_size(usual, count, expected):
    """500 parts of the usual size at first; then larger parts; then more."""
    assert grown_part_size(usual, count) == expected
