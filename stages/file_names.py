"""File names derived from data: from image ids, class names and whatever else people name things by.

Ids and class names are kept as data, whatever they contain. Where a file is to be named after one, its name comes from
here: it never leaves its folder, is short enough for every file system, differs from the other names of its set also on
disks that ignore case, and is the text itself where that is a sound name already.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

MOST_BYTES = 160
"""At most this many bytes of UTF-8: file systems allow 255, and extensions, prefixes and temporary names need some."""
HASH_DIGITS = 8
UNSAFE = re.compile(r'[/\\<>:"|?*]')
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # devices on Windows, whatever the ending


def file_name(text: str, most: int = MOST_BYTES) -> str:
    """A file name (no path, no ending added) for `text`, of at most `most` bytes (24 or more) in UTF-8.

    It is `text` itself, in Unicode's composed form, where that can be a file name. Otherwise characters that cannot
    stand in one become "-", what is too long is cut, and a hash of the whole text keeps different texts apart.
    """
    name = unicodedata.normalize("NFC", "".join("-" if is_unsafe(letter) else letter for letter in text))
    name = re.sub(r"^[.\-\s]+|[.\s]+$", "", name)
    sound = unicodedata.normalize("NFC", text)
    if name == sound and name and not RESERVED.fullmatch(name) and len(name.encode()) <= most:
        return name
    return with_hash(name, text, most)


def file_names(texts: Iterable[str], most: int = MOST_BYTES) -> dict[str, str]:
    """The file name of each of the `texts`, all different, also where a disk ignores case.

    As `file_name`, and a hash besides for texts whose names would be taken for one another. The result depends on the
    set of texts alone, not on their order.
    """
    names = {text: file_name(text, most) for text in texts}
    digits = HASH_DIGITS
    while clashes := [name for name, count in Counter(map(str.casefold, names.values())).items() if count > 1]:
        digits += HASH_DIGITS
        names |= {
            text: with_hash(name, text, most, digits) for text, name in names.items() if name.casefold() in clashes
        }
    return names


def is_unsafe(letter: str) -> bool:
    """Whether a character cannot stand in a file name everywhere: separators, controls, surrogates, invisible marks."""
    return bool(UNSAFE.match(letter)) or unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def with_hash(name: str, text: str, most: int, digits: int = HASH_DIGITS) -> str:
    """`name`, cut to leave room, and the first `digits` of a hash of `text`."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:digits]
    start = name.encode()[: max(0, most - digits - 1)].decode(errors="ignore").rstrip("-. ")
    return f"{start}-{digest}" if start else digest
