"""What a frozen vision tower says of an image, computed once on a rank: for every step and epoch, and the reference.

Kept in memory up to a bound, the least recently used going first, and in files where a folder is given, in which later
runs with the same tower find them, too. A file is safetensors, named by the content of the image, below a folder named
by the tower: other weights, another dtype, library or pixel never meets it.

Shapes: K image tokens, W hidden.
"""

import hashlib
import logging
import uuid
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

FORMAT = "1"
"""Another one whenever our own part of the computation gives other features."""
logger = logging.getLogger(__name__)

Features = list[Tensor]
"""Of one image, on the host: (K, W) what stands in the place of its tokens, then what further layers add (Qwen3-VL)."""


class VisionCache:
    """Features by the key of their image (types.EncodedPrompt.image_key).

    Args:
        max_bytes: in memory.
        folder: for what memory has no room for, and for later runs; None forgets it.
        max_folder_bytes: that this process writes to the folder.
    """

    def __init__(self, max_bytes: int, folder: Path | None = None, max_folder_bytes: int = 0) -> None:
        self._max_bytes, self._folder, self._folder_bytes_left = max_bytes, folder, max_folder_bytes
        self._kept: OrderedDict[str, Features] = OrderedDict()
        self._num_bytes = 0
        self.num_found = 0
        """Images whose features were there."""
        self.num_computed = 0
        """Images whose features were not, and were put in."""

    def get(self, key: str) -> Features | None:
        """The features, or None where they must be computed and `put`."""
        found = self._kept.get(key)
        if found is None:
            found = self._read(key)
            if found is None:
                return None
            self._keep(key, found)
        self._kept.move_to_end(key)
        self.num_found += 1
        return found

    def put(self, key: str, features: Features) -> None:
        """Keep the features of an image."""
        self.num_computed += 1
        self._keep(key, features)
        self._write(key, features)

    def _keep(self, key: str, features: Features) -> None:
        self._num_bytes += _num_bytes(features) - _num_bytes(self._kept.get(key, []))
        self._kept[key] = features
        # What was just put stays, however large: its reader comes next.
        while self._num_bytes > self._max_bytes and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            self._num_bytes -= _num_bytes(oldest)

    def _read(self, key: str) -> Features | None:
        if self._folder is None or not (path := self._folder / f"{key}.safetensors").is_file():
            return None
        try:
            tensors = load_file(path)
            return [tensors[str(i)] for i in range(len(tensors))]
        except (SafetensorError, OSError, KeyError) as error:
            logger.warning("%s: damaged (%s); its image is encoded again.", path, error)
            path.unlink(missing_ok=True)
            return None

    def _write(self, key: str, features: Features) -> None:
        if self._folder is None or (self._folder / f"{key}.safetensors").exists():
            return
        if (num_bytes := _num_bytes(features)) > self._folder_bytes_left:
            return
        # Complete or not at all: other ranks and runs read the same folder.
        temporary = self._folder / f".writing-{key}-{uuid.uuid4().hex}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            save_file({str(i): tensor.contiguous() for i, tensor in enumerate(features)}, temporary)
            temporary.replace(self._folder / f"{key}.safetensors")
            self._folder_bytes_left -= num_bytes
        except (OSError, SafetensorError) as error:
            logger.warning("%s: cannot be written (%s); images are encoded again instead.", self._folder, error)
            self._folder_bytes_left = 0
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def _num_bytes(features: Features) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in features)


def image_key(pixel_values: Tensor, image_grid_thw: Tensor) -> str:
    """Names an image by what the model sees of it."""
    return _digest([pixel_values, image_grid_thw])


def tower_key(parameters: Iterable[Tensor], settings: Iterable[str], dtype: torch.dtype) -> str:
    """Names a vision tower by its weights and by what computes with them: dtype, settings, transformers, us."""
    computes = (str(dtype), *settings, transformers.__version__, FORMAT)
    return _digest([parameter.detach() for parameter in parameters], *computes)


def _digest(tensors: Iterable[Tensor], *words: str) -> str:
    digest = hashlib.blake2b(repr(words).encode(), digest_size=20)
    for tensor in tensors:
        digest.update(repr((tuple(tensor.shape), tensor.dtype)).encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
