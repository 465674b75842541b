"""Safe file names derived from data such as image ids and class names.

Ids and class names may contain anything. A file named after one gets its name from here: it never leaves its folder, is
short enough for every file system, is distinct within its set even on case-insensitive disks, and is the text itself if
that is already a valid name.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

MOST_BYTES = 160
"""The most bytes of UTF-8 in a name: file systems allow 255, and extensions, prefixes and temporary names need some."""
HASH_DIGITS = 8
UNSAFE = re.compile(r'[/\\<>:"|?*]')
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # Windows devices, with any extension


def file_name(text: str, most: int = MOST_BYTES) -> str:
    """A file name (without path or extension) for `text`, of at most `most` bytes (24 or more) in UTF-8.

    It is `text` itself, in Unicode's composed form, if that is a valid file name. Otherwise invalid characters become
    "-", long names are truncated, and a hash of the whole text keeps different texts apart.
    """
    name = unicodedata.normalize("NFC", "".join("-" if is_unsafe(letter) else letter for letter in text))
    name = re.sub(r"^[.\-\s]+|[.\s]+$", "", name)
    sound = unicodedata.normalize("NFC", text)
    if name == sound and name and not RESERVED.fullmatch(name) and len(name.encode()) <= most:
        return name
    return with_hash(name, text, most)


def file_names(texts: Iterable[str], most: int = MOST_BYTES) -> dict[str, str]:
    """Distinct file names for `texts`, even on case-insensitive disks.

    As `file_name`, with a hash added where names would clash. The result depends on the set of texts, not their order.
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
    """Whether a character is unsafe in file names somewhere: separators, controls, surrogates, invisible marks."""
    return bool(UNSAFE.match(letter)) or unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def with_hash(name: str, text: str, most: int, digits: int = HASH_DIGITS) -> str:
    """`name`, truncated to leave room, followed by the first `digits` of a hash of `text`."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:digits]
    start = name.encode()[: max(0, most - digits - 1)].decode(errors="ignore").rstrip("-. ")
    return f"{start}-{digest}" if start else digest
