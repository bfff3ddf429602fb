"""Print docs/names.md."""

from geogrpo.config_names import names_as_markdown

print(names_as_markdown(), end="")
