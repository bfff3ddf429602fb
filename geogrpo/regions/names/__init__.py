"""Place names: whether two mean the same place, and where a named place is. Needs `pip install 'geogrpo[names]'`."""

from geogrpo.regions.names.locating import locate
from geogrpo.regions.names.matching import same_place, same_places
from geogrpo.regions.names.sources import names_version

__all__ = ["locate", "names_version", "same_place", "same_places"]
