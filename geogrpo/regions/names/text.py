"""Place names as text: the key that is compared, the parts of a qualified name, and administrative words.

A key is what is left of a name when case, diacritics, punctuation, invisible characters and spacing are gone. Vowel
signs of Indic scripts, which Unicode counts as marks too, stay: they are letters to their readers.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

MAX_NAME_CHARS = 300
"""A longer text is no name. The longest in our sources is the ceremonial name of Bangkok, 176 characters."""
MAX_PARTS = 6
"""A text of more parts ("a, b, c, ...") is a list, no name."""

_MARKS = (
    "\u0300-\u036f\u0483-\u0489\u0591-\u05bd\u05bf-\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06ed"
    "\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"
)
_APOSTROPHES = "'`\u2018\u2019\u201b\u2032\u02b9-\u02bf\u02c8\u02ee\u055a\ua78b\ua78c\uff07"
_INVISIBLE = "\u00ad\u034f\u061c\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff"
_VOWEL_SIGNS = (
    "\u0900-\u0963\u0966-\u0df3\u0e00-\u0f03\u0f18-\u1049\u1050-\u109f\u1780-\u17d3\u1a20-\u1aad\u1b00-\u1b59"
)
_APOSTROPHE = re.compile(f"[{_APOSTROPHES}]")
_NOTHING = re.compile(f"[{_MARKS}{_INVISIBLE}{_APOSTROPHES}]")
# Patterns begin with the character they look for: one that begins with a look-behind is tried at every position
_ACRONYM_DOT = re.compile(r"\.(?<=\b[^\W\d_]\.)(?=[^\W\d_]\b)")
_SEPARATOR = re.compile(rf"[^\w\n {_VOWEL_SIGNS}]+|_+")
_SPACES = re.compile(r" {2,}")
# Letters that Unicode does not take apart, and Persian ones that Arabic writes with another code
_LETTERS = (
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "ħ": "h", "ı": "i", "ŧ": "t", "ŋ": "n", "ə": "e", "æ": "ae", "œ": "oe"}
    | {"þ": "th", "ɓ": "b", "ɗ": "d", "ƙ": "k", "ɲ": "n", "ɛ": "e", "ɔ": "o", "ʉ": "u", "ⱡ": "l"}
    | {"ی": "ي", "ى": "ي", "ک": "ك", "ہ": "ه", "ھ": "ه", "ە": "ه"}
)
_LETTER = re.compile(f"[{''.join(_LETTERS)}]")
_WORDS = {"st": "saint", "ste": "sainte", "mt": "mount", "ft": "fort"}
_WORD = re.compile(r"[smf]t\b(?<=\b..)|ste\b(?<=\b...)")
_PART = re.compile(r"[,;/()\[\]|\u060c\u3001]")

_STATE_PREFIXES = (
    "(?:autonomous |special |national )?(?:state|province|prefecture|region|oblast|krai|republic|canton|governorate|"
    "department|county|district|territory|emirate|voivodeship|municipality|community|city state) of|"
    "(?:federal )?state|free state of|freistaat|bundesland|free hanseatic city of|commonwealth of|principality of|"
    "(?:estado|provincia|departamento|departement|province|region|comunidad|comunidade|comarca|distrito|district|"
    "canton|cantone|prefecture|regione|regiao|comunitat|principado|land|kanton|republica|republique|gobierno) "
    "(?:autonoma |foral |autonome )?(?:del|de los|de las|de la|des|du|della|delle|dello|degli|dei|da|do|dos|das|di|de)"
    "|land|kanton|canton|wilayat|wilaya|muhafazat|muhafazah|ostan|changwat|tinh|provinsi|propinsi|negeri|judetul|"
    "wojewodztwo|республика|область|провинция|штат|محافظه|محافظة|ولايه|ولاية|استان|منطقة|امارة"
)
_STATE_SUFFIXES = (
    "(?:autonomous |special |capital |federal |metropolitan )?(?:state|province|prefecture|region|oblast|okrug|republic"
    "|county|governorate|department|district|canton|voivodeship|territory|division|emirate|municipality|community)|"
    "krai|kray|parish|borough|county borough|oblysy|oblasty|viloyati|viloyat|velayaty|welayaty|marz|"
    "special city|metropolitan city|metropolis|metropolitan autonomous city|special autonomous city|"
    "special self governing (?:city|province)|do|si|ken|fu|to|dao|sheng|shi|diqu|zizhizhou|zizhiqu|ili|bolgesi|lan|"
    "fylke|megye|maakunta|zupanija|apskritis|maakond|judet|kraj|rayon|raion|gun|gu|"
    "область|край|республика|автономный округ|обл|провинция"
)
_CITY_PREFIXES = (
    "city of|town of|village of|municipality of|metropolitan city of|greater|cidade de|cidade do|ciudad de|ville de|"
    "citta di|comune di|municipio de|municipio do|municipality|gemeente|stadt|lungsod ng|kota|thanh pho|krung|г|город|"
    "місто|مدينة|شهر"
)
_CITY_SUFFIXES = (
    "city|town|village|municipality|municipio|metropolis|metropolitan area|metro area|urban area|metropolitan city|"
    "special city|city center|city centre|cbd|downtown|shi|to|si|ku|gu|cho|machi|mura|son|stad|kommun|kommune|sehri"
)
_STATE_AFFIX = re.compile(f"^(?:{_STATE_PREFIXES}) (?=.)|(?<=.) (?:{_STATE_SUFFIXES})$")
_CITY_AFFIX = re.compile(f"^(?:{_CITY_PREFIXES}) (?=.)|(?<=.) (?:{_CITY_SUFFIXES})$")
_COUNTRY_AFFIX = re.compile("^(?:republic of|kingdom of|state of israel|nation of|country of) (?:the )?(?=.)")
# Written without a space; at least two characters must be left: 京都 is not the capital (都) called 京
_STATE_CJK = re.compile(
    "(?<=..)(?:壮族自治区|壯族自治區|维吾尔自治区|維吾爾自治區|回族自治区|回族自治區|自治区|自治區|自治州|特别行政区|特別行政區|"
    "特别市|直辖市|直轄市|省|市|州|县|縣|県|府|都|道|特別自治市|특별자치도|특별자치시|특별시|광역시|자치도|도|시)$"
)
_CITY_CJK = re.compile("(?<=..)(?:特别市|直辖市|直轄市|市|区|區|县|縣|町|村|镇|鎮|특별자치시|특별시|광역시|시|군|구)$")

_STATE_HINTS = (
    "state, us state, u s state, american state, province, canadian province, region, prefecture, county, "
    "autonomous community, department, oblast, canton, district, governorate"
)
_HINTS = {
    "country": "country, nation, sovereign state, independent country",
    "state": _STATE_HINTS,
    "city": "city, town, village, capital, capital city, municipality",
}
_LEVEL_OF_HINT = {word: level for level, words in _HINTS.items() for word in words.split(", ")}
_PARTS_OF_WORLD = (
    "world, earth, eurasia, europe, asia, africa, oceania, north america, south america, central america, "
    "latin america, middle east, southeast asia, east asia, western europe, eastern europe"
)
_WORLD = frozenset(_PARTS_OF_WORLD.split(", "))


@dataclass(frozen=True)
class Name:
    """A name taken apart. "Paris (city), Texas" has the head "paris", the qualifier "texas" and the level "city"."""

    key: str
    """All of it; "" when it is no name."""
    head: str
    """The first part; the same as the key where there is one part."""
    qualifiers: tuple[str, ...]
    """Keys of the other parts, levels and parts of the world left out."""
    level: str | None
    """What a part like "(state)" says it is."""


def keys_of(names: Iterable[str]) -> list[str]:
    """The key of each name, at the price of one pass over all of them. Names without a letter or digit have the key "".

    Unicode canonical caseless matching (NFKD, casefold, NFKD), then what is no letter goes.
    """
    names = list(names)
    if not names:
        return []
    text = "\n".join(names)
    if text.count("\n") >= len(names):
        text = "\n".join(name.replace("\n", " ") for name in names)
    if not text.isascii():
        text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
        text = unicodedata.normalize("NFC", _NOTHING.sub("", text))
        text = _LETTER.sub(lambda match: _LETTERS[match.group()], text)
    else:
        text = _APOSTROPHE.sub("", text.casefold())
    text = _ACRONYM_DOT.sub("", text.replace("&", " and "))
    text = f"\n{_SPACES.sub(' ', _SEPARATOR.sub(' ', text))}\n".replace(" \n", "\n").replace("\n ", "\n")
    text = _WORD.sub(lambda match: _WORDS[match.group()], text).replace("\nthe ", "\n")
    return text[1:-1].split("\n")


def key_of(name: str) -> str:
    """The key of one name; "" for what is longer than MAX_NAME_CHARS or has no letter and no digit."""
    return keys_of([name])[0] if len(name) <= MAX_NAME_CHARS else ""


@lru_cache(maxsize=2**17)
def parse_name(name: str) -> Name:
    """A name of at most MAX_NAME_CHARS taken apart."""
    key = key_of(name)
    texts = _PART.split(unicodedata.normalize("NFKD", name))
    parts = [part for part in (key_of(text) for text in texts) if part] if len(texts) > 1 else [key]
    if not key or len(parts) < 2 or len(parts) > MAX_PARTS:
        return Name(key, key, (), None)
    levels = {_LEVEL_OF_HINT[part] for part in parts[1:] if part in _LEVEL_OF_HINT}
    qualifiers = tuple(part for part in parts[1:] if part not in _LEVEL_OF_HINT and part not in _WORLD)
    level = levels.pop() if len(levels) == 1 else None
    return Name(key, parts[0], qualifiers, level)


def without_affix(key: str, level: str) -> str:
    """The key without administrative words of a level: "state of bahia" -> "bahia"; the key itself without any."""
    if level == "country":
        return _COUNTRY_AFFIX.sub("", key)
    affix, cjk = (_STATE_AFFIX, _STATE_CJK) if level == "state" else (_CITY_AFFIX, _CITY_CJK)
    return affix.sub("", cjk.sub("", key), count=1)
