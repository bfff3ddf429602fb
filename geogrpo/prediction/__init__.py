"""Where one photograph was taken, as a model or a server says, with how sure it is."""

from geogrpo.prediction.answering import Sampling
from geogrpo.prediction.estimate import Alternative, PlaceEstimate, Regions, place_estimate
from geogrpo.prediction.photograph import Photograph, read_photograph
from geogrpo.prediction.predictor import Predictor

__all__ = [
    "Alternative",
    "Photograph",
    "PlaceEstimate",
    "Predictor",
    "Regions",
    "Sampling",
    "place_estimate",
    "read_photograph",
]
