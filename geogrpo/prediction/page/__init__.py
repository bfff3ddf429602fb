"""The local page of `python -m geogrpo.serve`."""
