"""The page in Gradio: a photograph is dropped, the model's words stream, then the answer and its map appear.

Nothing is kept, and nothing is sent but to the model's server, where it is behind one. An upload lies in a private
folder until it is read, which is first of all, and is removed then. The Content-Security-Policy forbids the browser
every address but the page's own.
"""

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from PIL import Image

from geogrpo.prediction.page.content import (
    answer_html,
    head_html,
    map_html,
    preview_html,
    problem_html,
    said_html,
    waiting_html,
)
from geogrpo.prediction.photograph import Photograph, read_photograph
from geogrpo.prediction.predictor import Predictor
from geogrpo.prediction.record import place_record

JPEG_QUALITY = 95
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".heic", ".heif")
"""What the browser offers; the content decides."""
MAX_WAITING = 8
"""Photographs in the queue. The model answers one at a time."""
FORGET_AFTER_S = 600
"""Age at which uploads are removed that nobody read, such as those that a full queue turned away."""
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline';"
    " img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:;"
    " object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
"""Gradio needs inline scripts and eval, but no address besides its own."""
HEADERS = {"Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff"}

Shown = tuple[str, str, str, str]
"""HTML of the picture, the model's words, the answer and the map."""


@dataclass(frozen=True)
class PageOptions:
    """How the page serves."""

    uploads: Path
    """A private folder for uploads, until they are read."""
    max_mb: float = 20
    """Largest upload, in millions of bytes."""
    keep: Path | None = None
    """Where pictures without metadata and their answers are kept; None keeps nothing."""
    granularity: str | None = None
    """One of record.GRANULARITIES; None reveals everything."""
    sent_to: str | None = None
    """Address of the model's server, which the page names; None where the model is in this process."""


class Answers:
    """Answers photographs one at a time, all in one thread, whoever asks."""

    def __init__(self, predictor: Predictor, options: PageOptions) -> None:
        self._predictor, self._options = predictor, options
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")

    def answer(self, upload: Mapping[str, Any] | None) -> Iterator[Shown]:
        """What the page shows, again and again as the answer comes.

        Args:
            upload: the browser's word for a file, with its `path`. It is removed as soon as it is read.
        """
        path = Path(str((upload or {}).get("path"))).resolve()
        # Gradio makes a folder for each upload. Whatever else a browser names is not read, and above all not removed.
        if path.parent.parent != self._options.uploads.resolve():
            return
        try:
            photograph = read_photograph(path)
        except ValueError as error:
            # The name is the visitor's; the folder is nobody's business.
            yield "", problem_html(str(error).replace(str(path), path.name)), "", ""
            return
        finally:
            shutil.rmtree(path.parent, ignore_errors=True)
        preview = preview_html(photograph.picture)
        yield preview, waiting_html("The model looks at the photograph…"), "", ""
        texts: SimpleQueue[str | None] = SimpleQueue()
        pending = self._thread.submit(self._record, photograph, path.name, texts.put)
        pending.add_done_callback(lambda _: texts.put(None))
        text = ""
        while (latest := texts.get()) is not None:
            text = latest
            yield preview, said_html(text, is_whole=False), "", ""
        yield from self._end(pending, preview, text)

    def _end(self, pending: Future[dict[str, Any]], preview: str, text: str) -> Iterator[Shown]:
        try:
            record = pending.result()
        except ValueError as error:
            hidden = self._options.granularity is not None
            yield preview, problem_html("The model gave no answer." if hidden else str(error)), "", ""
            return
        yield preview, said_html(text, is_whole=True) if text else "", answer_html(record), map_html(record)

    def _record(self, photograph: Photograph, name: str, on_text: Callable[[str], None]) -> dict[str, Any]:
        granularity = self._options.granularity
        # What streams is not limited.
        estimate = self._predictor.predict(photograph.picture, on_text=on_text if granularity is None else None)
        record = place_record(
            name,
            estimate,
            self._predictor.index,
            own_latlon_deg=photograph.own_latlon_deg,
            gps_problem=photograph.gps_problem,
            granularity=granularity,
        )
        if self._options.keep is not None:
            keep_answer(self._options.keep, photograph.picture, record)
        return record


def keep_answer(folder: Path, picture: Image.Image, record: dict[str, Any]) -> None:
    """Write the picture as JPEG without metadata, and the record without what the file's name and metadata said."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=JPEG_QUALITY)
    name = hashlib.sha256(file.getvalue()).hexdigest()[:16]
    (folder / f"{name}.jpg").write_bytes(file.getvalue())
    kept = {key: value for key, value in record.items() if key not in ("truth", "gps_problem")}
    kept["image"] = f"{name}.jpg"
    (folder / f"{name}.json").write_text(json.dumps(kept, ensure_ascii=False) + "\n", encoding="utf-8")


def require_gradio(uploads: Path) -> Any:
    """The library, told to send nothing and to put uploads into a folder.

    Raises:
        ValueError: when it is missing.
    """
    # Read when it is imported
    os.environ |= {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_TEMP_DIR": str(uploads),
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    try:
        # Here, because it takes seconds and only this page needs it.
        import gradio
    except ModuleNotFoundError as error:
        raise ValueError("the page needs Gradio. Install it: pip install 'geogrpo[serve]'") from error
    return gradio


def make_app(predictor: Predictor, options: PageOptions, *, hosts: Sequence[str]) -> Any:
    """The ASGI application.

    Args:
        hosts: names it may be called by; others are refused, so that no website can pass for it.
    Raises:
        ValueError: when Gradio is missing.
    """
    gradio = require_gradio(options.uploads)
    # They come with it
    import fastapi
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))

    @app.middleware("http")
    async def add_headers(request: fastapi.Request, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers.update(HEADERS)
        return response

    return gradio.mount_gradio_app(
        app,
        _blocks(gradio, Answers(predictor, options), options),
        path="",
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=int(options.max_mb * 1e6),
        allowed_paths=[],
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        css_paths=[Path(__file__).with_name("page.css")],
    )


def _blocks(gradio: Any, answers: Answers, options: PageOptions) -> Any:
    with gradio.Blocks(title="geogrpo", analytics_enabled=False, delete_cache=(60, FORGET_AFTER_S)) as blocks:
        gradio.HTML(head_html(options.sent_to, is_kept=options.keep is not None))
        with gradio.Row():
            with gradio.Column(scale=2, min_width=320):
                upload = gradio.File(label="Photograph", file_types=list(SUFFIXES), type="filepath", height=140)
                picture = gradio.HTML()
            with gradio.Column(scale=3, min_width=320):
                answer = gradio.HTML()
                said = gradio.HTML()
        world = gradio.HTML()
        upload.upload(
            answers.answer,
            inputs=upload,
            outputs=[picture, said, answer, world],
            # Gradio's own would leave an empty file behind for each upload.
            preprocess=False,
            show_progress="hidden",
            concurrency_limit=1,
            api_visibility="private",
        ).then(lambda: None, outputs=upload, queue=False, api_visibility="private")
    blocks.queue(max_size=MAX_WAITING, api_open=False)
    return blocks
