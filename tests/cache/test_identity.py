import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache import Identity, differences
from cache.identity import canonical_json, key_of

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_the_key_does_not_depend_on_the_order_of_names(value):
    assert key_of(value) == key_of(dict(reversed(list(value.items()))))


def test_the_key_is_twelve_hex_digits_and_stays_what_it_was():
    key = Identity("extract", 1, {"padding": 16, "mode": "warp"}, {"proposals": "0123456789ab"}).key
    assert key == "2846242c4327"


@pytest.mark.parametrize(
    "other",
    [
        Identity("detect", 1, {"padding": 16}, {"proposals": "a"}, {"opencv": "4.13"}),
        Identity("extract", 2, {"padding": 16}, {"proposals": "a"}, {"opencv": "4.13"}),
        Identity("extract", 1, {"padding": 0}, {"proposals": "a"}, {"opencv": "4.13"}),
        Identity("extract", 1, {"padding": 16}, {"proposals": "b"}, {"opencv": "4.13"}),
        Identity("extract", 1, {"padding": 16}, {"proposals": "a"}, {"opencv": "4.14"}),
    ],
)
def test_everything_in_an_identity_changes_the_key(other):
    assert other.key != Identity("extract", 1, {"padding": 16}, {"proposals": "a"}, {"opencv": "4.13"}).key


def test_numbers_that_are_not_numbers_are_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))


def test_differences_are_told_in_words():
    old = Identity("extract", 1, {"padding": 16, "mode": "warp"}, {"proposals": "a"}, {"opencv": "4.13"})
    new = Identity("extract", 1, {"padding": 0, "mode": "warp"}, {"proposals": "b"}, {"opencv": "4.14"})
    assert differences(old, new) == ["extract.padding 16 -> 0", "proposals changed upstream", "opencv 4.13 -> 4.14"]
    assert differences(old, old) == []
