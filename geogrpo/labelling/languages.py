"""Names of countries and states in other languages.

Countries are CLDR's, through Babel. States are those of ISO 3166-2 as translated in pycountry's catalogs, where it is
sure which division is meant: one of the first level, of a name that no other country's division has. The catalogs are
volunteers' work: some hold a few states only, some have a name wrong ("Encamp" is no camp in Portuguese). Cities have
no translations: the alternate names of GeoNames that are to be had offline do not say of which language they are.
"""

import gettext
from collections.abc import Sequence
from difflib import get_close_matches
from functools import cache, lru_cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from geogrpo.regions.names import same_place
from geogrpo.regions.names.matching import Region, meanings
from geogrpo.regions.names.sources import Subdivision, subdivisions

INDEX_LANGUAGE = "en"
"""The language of the region index itself, so of no translation."""
_ASIDE = "()[]/*,"
"""In a name such as "Madrid, Comunidad de" or "Altopiani (Congo)", which nobody would write."""
_CATALOG = {"bn": "bn_BD", "nb": "nb_NO", "no": "nb_NO", "zh_Hans": "zh_CN", "zh_Hant": "zh_TW", "sr_Latn": "sr@latin"}
"""CLDR's code -> the folder of iso-codes, where they are written differently."""


class LocalNames:
    """Names of regions in one language.

    Args:
        language: a CLDR locale code such as "de", "pt_BR" or "zh-Hant".
    Raises:
        ValueError: naming similar codes when CLDR has no such language, or when a library is missing.
    """

    def __init__(self, language: str) -> None:
        self.language = language
        self._territories: dict[str, str] = {}
        self._states: gettext.NullTranslations = _Nothing()
        if language != INDEX_LANGUAGE:
            self._locale = _locale(language)
            self._territories = dict(self._locale.territories)
            self._states = _state_catalog(self._locale)

    def country(self, code: str | None, name: str) -> str:
        """The name of a country, `name` where the language has none for its ISO 3166-1 code."""
        local = self._territories.get(code or "", "")
        return local if local and same_place(name, local, level="country") else name

    def state(self, country_code: str | None, code: str | None, name: str) -> str:
        """The name of a country's state, `name` where none is sure.

        Args:
            code: ISO 3166-2, None where it is to be found by the name.
        """
        if self.language == INDEX_LANGUAGE or not country_code:
            return name
        division = _division(country_code, code, name)
        local = self._states.gettext(division) if division else ""
        if not local or any(mark in local for mark in _ASIDE):
            return name
        # The same in both: "Bayern" is German for it, but "Wien" in the Spanish catalog was only left as it is.
        if local == division and self._locale.language not in _official_languages(country_code):
            return name
        # Rewards compare names: a translation they take for another place would teach what is then punished.
        return local if same_place(name, local, level="state", parent=country_code) else name


def check_languages(languages: Sequence[str]) -> None:
    """Raise ValueError, naming similar ones, at the first that is no CLDR locale code."""
    for language in languages:
        if language != INDEX_LANGUAGE:
            _locale(language)


class _Nothing(gettext.NullTranslations):
    """Says "" where there is no translation, which gettext itself answers with the text."""

    def gettext(self, message: str) -> str:
        return ""


def _locale(language: str) -> Any:
    babel = _module("babel.core")
    near = ", ".join(_similar(language)) or "de, fr, ja, pt_BR, zh_Hant"
    problem = f"--language: CLDR has no locale {language!r}. Did you mean one of: {near}?"
    try:
        locale = babel.Locale.parse(language.replace("-", "_"))
    except (ValueError, babel.UnknownLocaleError) as error:
        raise ValueError(problem) from error
    # Babel passes over a script or country it does not know where it knows the language.
    if set(language.lower().replace("-", "_").split("_")[1:]) - set(str(locale).lower().split("_")):
        raise ValueError(problem)
    return locale


def _similar(language: str) -> list[str]:
    """Codes like the text, and those of languages that are called so in English ("german" is de)."""
    code_of = {name.lower(): code for code, name in _module("babel.core").Locale("en").languages.items()}
    known = set(_module("babel.localedata").locale_identifiers())
    words = get_close_matches(language.lower(), code_of, n=3, cutoff=0.75)
    near = get_close_matches(language.replace("-", "_"), sorted(known), n=4, cutoff=0.5)
    return list(dict.fromkeys([code_of[word] for word in words if code_of[word] in known] + near))


def _state_catalog(locale: Any) -> gettext.NullTranslations:
    """Translations of ISO 3166-2's names; of nothing where iso-codes lacks the language."""
    folder = Path(str(_module("pycountry").__file__)).parent / "locales"
    written = [locale.language, locale.script, locale.territory]
    full, with_script = "_".join(filter(None, written)), "_".join(filter(None, written[:2]))
    with_territory = "_".join(filter(None, written[::2]))
    # Another script than the language's usual one is another text: no falling back from it.
    names = [full, with_script] if locale.script else [with_territory, locale.language]
    if locale.language == "zh" and not locale.script:
        names.append("zh_Hans")
    for name in names:
        file = folder / _CATALOG.get(name, name) / "LC_MESSAGES" / "iso3166-2.mo"
        if file.is_file():
            with file.open("rb") as stream:
                catalog = gettext.GNUTranslations(stream)
            catalog.add_fallback(_Nothing())
            return catalog
    return _Nothing()


@cache
def _official_languages(country_code: str) -> frozenset[str]:
    """Language codes, regional ones included."""
    return frozenset(_module("babel.languages").get_official_languages(country_code, regional=True))


@lru_cache(maxsize=2**14)
def _division(country_code: str, code: str | None, name: str) -> str | None:
    """The name that ISO 3166-2 has for a state, None where it is not sure which that is."""
    rows, own_names = _iso_divisions()
    numbers = [number for number, row in enumerate(rows) if row.code == code] if code else []
    if not numbers:
        found = meanings(name, "state", Region(frozenset({country_code}), frozenset()))
        # States beyond ISO's own are GeoNames'.
        numbers = [int(number) for number in found if int(number) < len(rows)] if len(found) == 1 else []
    if not numbers or rows[numbers[0]].parent is not None:
        return None
    division = own_names[rows[numbers[0]].code]
    is_shared = any(own == division and other[:2] != country_code for other, own in own_names.items())
    return None if is_shared else division


@cache
def _iso_divisions() -> tuple[list[Subdivision], dict[str, str]]:
    """All divisions in the order of the names package's numbers, and ISO's own name of each code."""
    return subdivisions(), {row.code: row.name for row in _module("pycountry").subdivisions}


def _module(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        library = name.split(".")[0]
        raise ValueError(f"--language: {library} is missing. Install it: pip install 'geogrpo[names]'") from error
