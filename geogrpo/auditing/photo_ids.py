"""What a file name or an address says about a Flickr photograph: its number, and its author's number (NSID)."""

import re
from urllib.parse import unquote

MIN_DIGITS = 6
"""A shorter number is taken for a row number. Im2GPS3k's photographs are of 2004 and later, with eight digits or so."""
MAX_DIGITS = 18
"""What 64 bits hold; Mapillary's numbers, which OSV-5M uses, have up to 17."""
_PAGE = re.compile(r"flickr\.com/photos/[^/]+/(\d{6,18})(?!\d)")
# 7e_c3_8163912402.jpg of G3's copy of MP-16; 8163912402; 8163912402_7410c654ba_19_87947631@N00.jpg. A secret has ten
# hex digits: with fewer, the time in a camera's 20190503_123456.jpg would pass for one, and its day for a photograph.
_NAME = re.compile(r"(?:[0-9a-f]{2}_[0-9a-f]{2}_)?(\d{6,18})(?:_[0-9a-f]{10,16}(?:_.*)?)?(?:\.0|\.[a-z]{3,4})?")
_NSID = re.compile(r"(?<!\d)\d{3,}@N\d\d(?!\d)")
_NOBODY = frozenset({"", "unknown", "none", "null", "nan", "n/a", "anonymous"})


def photo_id(text: str) -> int | None:
    """The Flickr number in an IMG_ID, a path, an address or a plain number; None where there is none.

    Any plain number of MIN_DIGITS or more is one, also Mapillary's. Whether such numbers mean the same photograph in
    both tables shows in how far apart they are.
    """
    page = _PAGE.search(text)
    if page is not None:
        return int(page[1])
    name = _NAME.fullmatch(text.strip().rsplit("/", 1)[-1].split("?", 1)[0].lower())
    return int(name[1]) if name is not None else None


def nsid(text: str) -> str | None:
    """The NSID, such as 87947631@N00, in an IMG_ID or an address; None where there is none."""
    if "@" not in text and "%40" not in text:
        return None
    found = _NSID.search(unquote(text))
    return found[0] if found is not None else None


def author_key(text: str) -> str | None:
    """An author as it is compared: an NSID, else the name in lower case; None for words that name nobody."""
    name = text.strip()
    return nsid(name) or (None if name.lower() in _NOBODY else name.lower())
