"""File names derived from ids and class names: inside their folder, short, different, and plain where they can be."""

import unicodedata
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from stages.file_names import MOST_BYTES, file_name, file_names

HARD = st.text(st.sampled_from("aAäÄ\u0308ß./\\:*-_ \n\x00\ud800\u202e猫"), max_size=12) | st.text(max_size=400)


def test_sound_names_stay_as_they_are():
    for name in ("000012", "test_00041", "2008.jpg", "Straße (1)", "a b", "diningtable", "猫"):
        assert file_name(name) == name


def test_a_slash_becomes_a_dash_and_a_hash():
    assert file_name("night/0001") == "night-0001-" + file_name("night/0001")[-8:]
    assert file_name("night/0001") != file_name("night-0001")
    assert file_name("../../etc/passwd").startswith("etc-passwd-")
    assert file_name("../x").startswith("x-")


def test_devices_hidden_files_and_nothing_get_names():
    for text in ("", ".", "..", "con", "NUL.txt", ".hidden", "-rf", "a.", " "):
        assert file_name(text) != text
        assert file_name(text)[0] not in ".-"


def test_a_long_name_is_cut_between_letters():
    one, other = file_name("猫" * 80), file_name("猫" * 81)
    assert one != other
    assert one.startswith("猫" * 50)
    assert len(one.encode()) <= MOST_BYTES


def test_names_that_differ_in_case_or_in_composition_are_kept_apart():
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    names = file_names(["Cat", "cat", "dog", composed, decomposed])
    assert names["dog"] == "dog"
    assert len({unicodedata.normalize("NFC", name).casefold() for name in names.values()}) == 5


def test_a_name_that_looks_like_a_derived_one_does_not_clash_with_it():
    derived = file_name("night/0001")
    assert len(set(file_names(["night/0001", derived]).values())) == 2


@given(st.lists(HARD, max_size=8, unique=True))
def test_names_are_plain_short_and_different(texts):
    names = file_names(texts)
    assert set(names) == set(texts)
    assert len({name.casefold() for name in names.values()}) == len(texts)
    assert names == file_names(reversed(texts))
    for name in names.values():
        assert name not in ("", ".", "..")
        assert Path(name).name == name
        assert len(name.encode()) <= MOST_BYTES
        assert not set(name) & set('/\\<>:"|?*\x00\n')
