"""A page on this machine: drop a photograph, read the model's reasoning as it comes, see the map. Needs geogrpo[serve].

python -m geogrpo.serve --model runs/demo/model
python -m geogrpo.serve --server http://localhost:8000/v1 --port 7860

The answer, its radii and its alternatives are those of geogrpo.predict. A model's words come token by token, a
server's when they are whole. Photographs are answered one at a time; JPEG, PNG, WebP, TIFF and HEIC, told by their
content. An upload is removed as soon as it is read, and nothing is kept without --keep.

The page is for this machine: it listens on 127.0.0.1 and has no password. Neither it nor the browser asks any other
address for anything; with --server, pictures go to that server.
"""

import argparse
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from geogrpo.distributed import leave_together
from geogrpo.prediction.options import add_options, predictor_of
from geogrpo.prediction.page.app import PageOptions, make_app, require_gradio

LOCAL_HOSTS = ("127.0.0.1", "localhost")
GRACE_S = 2
"""Seconds that a request has to end in once the page is stopped."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. A mistake in the options ends with one line and exit code 2."""
    options = _parser().parse_args(arguments)
    # As Ctrl-C, so that the folder of uploads is removed
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with tempfile.TemporaryDirectory(prefix="geogrpo-serve-") as uploads:
            serve(options, Path(uploads))
    except (ValueError, OSError) as error:
        print(f"geogrpo.serve: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        pass
    finally:
        leave_together()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="geogrpo.serve",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--port", metavar="N", type=int, default=7860, help="0 takes a free one (default: 7860)")
    parser.add_argument(
        "--host",
        metavar="ADDRESS",
        default=LOCAL_HOSTS[0],
        help="another one lets other machines in, without a password (default: 127.0.0.1)",
    )
    parser.add_argument(
        "--max-mb", metavar="MB", type=float, default=20, help="largest file, in millions of bytes (default: 20)"
    )
    parser.add_argument(
        "--keep",
        metavar="FOLDER",
        type=Path,
        help="keep each picture as a JPEG without metadata, and its answer as JSON, without the photograph's own"
        " position and name (default: keep nothing)",
    )
    add_options(parser)
    return parser


def serve(options: argparse.Namespace, uploads: Path) -> None:
    """Serve until interrupted.

    Args:
        options: of the command line.
        uploads: a private folder, which the caller removes.
    Raises:
        ValueError: naming the option at fault, or when Gradio is missing.
    """
    if not 0 < options.max_mb < 1000:
        raise ValueError(f"--max-mb must be above 0 and below 1000, got {options.max_mb:g}.")
    if not 0 <= options.port < 65536:
        raise ValueError(f"--port must be from 0 to 65535, got {options.port}.")
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
    require_gradio(uploads)
    # It comes with Gradio.
    import uvicorn

    is_local = options.host in LOCAL_HOSTS
    # All that may fail comes before the model, which takes its time.
    with socket.create_server((options.host, options.port)) as listener:
        address = f"http://{options.host}:{listener.getsockname()[1]}"
        if not is_local:
            print(
                f"geogrpo.serve: warning: whoever reaches {address} can use this page; it has no password, and"
                " photographs travel unencrypted.",
                file=sys.stderr,
            )
        page = PageOptions(uploads, options.max_mb, options.keep, options.granularity, options.server)
        app = make_app(predictor_of(options), page, hosts=LOCAL_HOSTS if is_local else ["*"])
        print(address, flush=True)
        # Open pages hold connections, which would keep it from ending.
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=GRACE_S)
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
