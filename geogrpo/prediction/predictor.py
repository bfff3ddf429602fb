"""A model, or a server, that says where photographs were taken."""

from PIL import Image

from geogrpo.chat_server import ServerOptions
from geogrpo.config import RunConfig
from geogrpo.prediction.answering import Answerer, ModelAnswerer, OnText, Sampling, ServerAnswerer
from geogrpo.prediction.estimate import PlaceEstimate, place_estimate
from geogrpo.regions.index import RegionIndex, default_index


class Predictor:
    """Says where pictures were taken, one at a time.

    Args:
        answerer: who is asked.
        sampling: how.
        index: names the regions of points; None takes the one over all GeoNames places.
    """

    def __init__(self, answerer: Answerer, sampling: Sampling, index: RegionIndex | None = None) -> None:
        self._answerer, self._sampling = answerer, sampling
        self.index = index or default_index()

    @classmethod
    def from_model(cls, config: RunConfig, sampling: Sampling) -> "Predictor":
        """The model of config.model.path, asked config.answer.prompt.

        Raises:
            ValueError: naming the folder, when it holds no model that takes images.
        """
        return cls(ModelAnswerer(config), sampling)

    @classmethod
    def from_server(cls, options: ServerOptions, prompt: str, sampling: Sampling) -> "Predictor":
        """The model behind an OpenAI-compatible server, asked the prompt of that name.

        Raises:
            ValueError: when the server does not answer, or the library to ask it with is missing.
        """
        return cls(ServerAnswerer(options, prompt), sampling)

    def predict(self, picture: Image.Image, *, on_text: OnText | None = None) -> PlaceEstimate:
        """Where a picture was taken.

        Args:
            picture: RGB. Only its pixels are used.
            on_text: called with the greedy answer so far: after each token of a model, once by a server.
        Raises:
            ValueError: when the picture cannot be encoded, the server gives no answer, or the answer has names alone
                and a library of geogrpo[names] is missing.
        """
        text, sampled_texts = self._answerer.answer(picture, self._sampling, on_text)
        return place_estimate(text, sampled_texts, self.index)
