"""Counts in words."""

import pytest

from stages.plurals import number_of, plural


@pytest.mark.parametrize(
    ("count", "word", "expected"),
    [(0, "image", "0 images"), (1, "box", "1 box"), (2, "box", "2 boxes"), (1, "class", "1 class"),
     (3, "class", "3 classes"), (1234, "proposal", "1,234 proposals"),
     (2, "softmax probability", "2 softmax probabilities"), (2, "array", "2 arrays")],
)  # fmt: skip
def test_counts(count: int, word: str, expected: str) -> None:
    assert number_of(count, word) == expected
    assert expected.endswith(f" {plural(word, count)}")
