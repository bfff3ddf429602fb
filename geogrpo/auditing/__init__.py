"""Does a test set leak into a training set: the parts of `python -m geogrpo.audit`."""
