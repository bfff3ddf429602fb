"""Chain of Region labels for photographs and tables: the parts of `python -m geogrpo.label`."""
