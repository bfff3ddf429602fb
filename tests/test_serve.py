"""python -m geogrpo.serve in a process of its own, used through headless Chromium.

Needs Gradio (`pip install 'geogrpo[serve]'`), selenium and Debian's Chromium (chromium, chromium-driver).
"""

import base64
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from chat_stub import ChatStub
from PIL import Image
from prediction.photographs import SECRET, pixels, save_photograph

from geogrpo import serve

# Importing it takes seconds, and only the page's own process needs to.
if find_spec("gradio") is None:
    pytest.skip("needs Gradio: pip install 'geogrpo[serve]'", allow_module_level=True)
webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install selenium")
if not (shutil.which("chromium") and shutil.which("chromedriver")):
    pytest.skip("needs Chromium: apt-get install -y chromium chromium-driver", allow_module_level=True)

pytestmark = pytest.mark.slow
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,1100",
)
HOSTILE = (
    "<think>Red soil</think><img src=x onerror=\"document.title='owned'\">${document.title='owned'}"
    "{{#each this}}<script>document.title='owned'</script>{{/each}}\nCountry: Kenya\n"
    "City: <b onmouseover=alert(1)>Nairobi</b>\nCoordinates: (-1.3, 36.8)"
)


LISTENER = """
import sys
def note(event, arguments):
    if event == "socket.connect":
        with open({log!r}, "a") as file:
            print(arguments[1], file=file)
sys.addaudithook(note)
"""
"""Python runs it first of all: it notes the address of every connection that the process makes."""


class Serving:
    """A page in a process of its own, which sees an empty home, temporary and working folder."""

    def __init__(self, folder: Path, *words: object) -> None:
        self.folders = [folder / name for name in ("home", "tmp", "work")]
        for each in self.folders:
            each.mkdir(parents=True)
        home, tmp, work = self.folders
        self.connections = folder / "connections"
        (folder / "first").mkdir()
        (folder / "first" / "sitecustomize.py").write_text(LISTENER.format(log=str(self.connections)))
        paths = os.pathsep.join(filter(None, (str(folder / "first"), os.environ.get("PYTHONPATH"))))
        environment = os.environ | {"HOME": str(home), "TMPDIR": str(tmp), "PYTHONPATH": paths}
        command = [sys.executable, "-m", "geogrpo.serve", "--port", "0", *map(str, words)]
        self.log = (folder / "log").open("w+")
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self.log, text=True, env=environment, cwd=work
        )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        assert self.address.startswith("http://127.0.0.1:"), (folder / "log").read_text()
        until(lambda: self.get("/")[0] == 200)

    @property
    def port(self) -> int:
        return int(self.address.rsplit(":", 1)[1])

    def get(self, path: str, **headers: str) -> tuple[int, dict[str, str]]:
        """(status, headers)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, dict(response.getheaders())

    def post_file(self, content: bytes) -> int:
        """The status of an upload without the page."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        connection.request("POST", "/gradio_api/upload", body=head + content + b"\r\n--x--\r\n", headers=headers)
        return connection.getresponse().status

    def files(self) -> list[Path]:
        """Every file that lies in one of its folders, but for matplotlib's list of fonts."""
        found = (path for folder in self.folders for path in folder.rglob("*") if path.is_file())
        return [path for path in found if "matplotlib" not in path.parts]

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(30) == 0
        self.log.close()


@pytest.fixture(scope="module")
def by_model(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A random model, whose answers are of no use but come token by token."""
    folder = tmp_path_factory.mktemp("by_model")
    words = ("--prompt", "short", "--max-new-tokens", 24, "--samples", 2, "--max-mb", 0.5)
    serving = Serving(folder, "--model", tiny_folder, *words)
    yield serving
    serving.stop()
    assert not list((folder / "tmp").iterdir())


@pytest.fixture(scope="module")
def by_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Serving, Path]]:
    """A server whose words are hostile, and the folder where answers are kept."""
    folder = tmp_path_factory.mktemp("by_server")
    with ChatStub(lambda number: [HOSTILE] * number) as stub:
        serving = Serving(folder, "--server", stub.url, "--samples", 2, "--keep", folder / "kept")
        yield serving, folder / "kept"
        serving.stop()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.chrome.service.Service(shutil.which("chromedriver")))
    yield browser
    browser.quit()


def until(condition: Callable[[], Any], timeout_s: float = 60) -> None:
    """Wait; fails when the condition does not come true."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def opened(browser: Any, serving: Serving) -> Any:
    """The browser with the page just opened, its logs empty before."""
    browser.get("about:blank")
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(serving.address)
    until(lambda: browser.find_elements("css selector", "input[type=file]"))
    return browser


def ask(page: Any, photograph: Path) -> list[str]:
    """Upload, and wait for the end. Returns the model's words as they grew."""
    page.find_element("css selector", "input[type=file]").send_keys(str(photograph))
    words: list[str] = []

    def is_answered() -> bool:
        said = text_of(page, ".gg-said")
        if said and said not in words[-1:]:
            words.append(said)
        return bool(text_of(page, ".gg-answer") or text_of(page, ".gg-problem"))

    until(is_answered)
    return words


def text_of(page: Any, selector: str) -> str | None:
    return page.execute_script("return document.querySelector(arguments[0])?.textContent ?? null", selector)


def requests_of(page: Any) -> list[str]:
    """The addresses that the browser asked for since its log was read."""
    messages = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


def test_a_models_words_grow_and_nothing_is_kept(browser: Any, by_model: Serving, tmp_path: Path) -> None:
    page = opened(browser, by_model)
    before = by_model.files()
    words = ask(page, save_photograph(tmp_path / "a.jpg"))
    assert len(words) > 1
    assert all(later.startswith(earlier) for earlier, later in pairwise(words))
    assert "Nairobi County, Kenya" in text_of(page, ".gg-answer")
    preview = page.execute_script("return document.querySelector('.gg-preview').src")
    assert SECRET.encode() not in base64.b64decode(preview.split(",")[1])
    assert by_model.files() == before


def test_nothing_leaves_the_page_and_nothing_goes_wrong_in_it(browser: Any, by_model: Serving, tmp_path: Path) -> None:
    page = opened(browser, by_model)
    ask(page, save_photograph(tmp_path / "a.jpg"))
    asked = [url for url in requests_of(page) if not url.startswith(("data:", "blob:", "chrome"))]
    assert any("/gradio_api/upload" in url for url in asked)
    assert [url for url in asked if not url.startswith(f"{by_model.address}/")] == []
    assert [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_the_process_connects_to_nothing_but_the_models_server(
    by_model: Serving, by_server: tuple[Serving, Path]
) -> None:
    assert "127.0.0.1" in by_server[0].connections.read_text()
    logs = [serving.connections for serving in (by_model, by_server[0]) if serving.connections.exists()]
    made = [address for log in logs for address in log.read_text().splitlines()]
    assert [address for address in made if "127.0.0.1" not in address] == []


def test_the_browser_would_let_no_request_out(browser: Any, by_model: Serving) -> None:
    page = opened(browser, by_model)
    with ChatStub(lambda number: [""] * number) as elsewhere:
        address = elsewhere.url
        blocked = page.execute_async_script(
            "const [address, done] = arguments, blocked = [];"
            "document.addEventListener('securitypolicyviolation', (event) => blocked.push(event.effectiveDirective));"
            "fetch(address).catch(() => {}); new Image().src = `${address}/image`;"
            "setTimeout(() => done(blocked), 500)",
            address,
        )
    assert {"connect-src", "img-src"} <= set(blocked)


def test_the_answer_its_map_and_the_comparison_are_shown(
    browser: Any, by_server: tuple[Serving, Path], tmp_path: Path
) -> None:
    page = opened(browser, by_server[0])
    assert "sent to http://127.0.0.1:" in text_of(page, ".gg-head")
    assert "kept by this page without" in text_of(page, ".gg-head")
    ask(page, save_photograph(tmp_path / "a.png", "PNG"))
    answer = text_of(page, ".gg-answer")
    assert "CountryKenya" in answer
    assert "2.9 km from the answer" in answer
    until(lambda: page.find_elements("css selector", ".gg-map svg"))
    drawn = {name: len(page.find_elements("css selector", f"svg {name}")) for name in (".gg-land", "circle", "text")}
    assert drawn == {".gg-land": 1, "circle": 3, "text": 1}
    assert "100%Nairobi, Nairobi County, Kenya the answer-1.3, 36.8" in text_of(page, ".gg-alternatives")


def test_what_a_model_writes_is_text(browser: Any, by_server: tuple[Serving, Path], tmp_path: Path) -> None:
    page = opened(browser, by_server[0])
    ask(page, save_photograph(tmp_path / "a.jpg"))
    until(lambda: text_of(page, ".gg-said") == HOSTILE)
    assert "<b onmouseover=alert(1)>Nairobi</b>" in text_of(page, ".gg-answer")
    time.sleep(0.5)
    assert page.title == "geogrpo"
    assert not page.find_elements("css selector", "img[src=x], .gg-said *, .gg-answer b")


def test_what_is_kept_holds_no_metadata(browser: Any, by_server: tuple[Serving, Path], tmp_path: Path) -> None:
    serving, folder = by_server
    shutil.rmtree(folder)
    folder.mkdir()
    ask(opened(browser, serving), save_photograph(tmp_path / "zorblax.jpg"))
    until(lambda: len(list(folder.iterdir())) == 2)
    picture, answer = (next(folder.glob(f"*{suffix}")) for suffix in (".jpg", ".json"))
    assert dict(Image.open(picture).getexif()) == {}
    everything = picture.read_bytes() + answer.read_bytes()
    assert not [word for word in (SECRET, "zorblax", "36.82", "truth", "Exif") if word.encode() in everything]
    assert json.loads(answer.read_text())["latlon_deg"] == [-1.3, 36.8]
    assert json.loads(answer.read_text())["image"] == picture.name


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_what_is_no_photograph_is_refused_by_its_content(
    browser: Any, by_model: Serving, tmp_path: Path, name: str
) -> None:
    page = opened(browser, by_model)
    before = by_model.files()
    pixels().save(tmp_path / name, "BMP")
    ask(page, tmp_path / name)
    assert text_of(page, ".gg-problem") == f"{name}: not a JPEG, PNG, WebP, TIFF or HEIC image"
    assert by_model.files() == before


def test_too_large_a_file_is_refused(browser: Any, by_model: Serving, tmp_path: Path) -> None:
    page = opened(browser, by_model)
    before = by_model.files()
    noise = Image.frombytes("RGB", (500, 500), os.urandom(750_000))
    noise.save(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 500_000
    page.find_element("css selector", "input[type=file]").send_keys(str(tmp_path / "a.png"))
    until(lambda: "exceed the maximum allowed size" in text_of(page, "body"))
    assert text_of(page, ".gg-answer") is None
    # The browser is asked first; the server refuses by itself.
    assert by_model.post_file((tmp_path / "a.png").read_bytes()) == 413
    assert by_model.files() == before


def test_another_websites_name_for_this_machine_is_refused(by_model: Serving) -> None:
    assert by_model.get("/", Host="evil.example")[0] == 400
    assert by_model.get("/", Host=f"localhost:{by_model.port}")[0] == 200


def test_it_is_to_be_reached_from_this_machine_only(by_model: Serving) -> None:
    listening = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    local = re.findall(rf" ([0-9A-F]+):{by_model.port:04X} [0-9A-F]+:0000 0A", listening)
    assert local == ["0100007F"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "/no/such"], "--model /no/such: no such folder."),
        (["--model", ".", "--port", "70000"], "--port must be from 0 to 65535, got 70000."),
        (["--model", ".", "--max-mb", "0"], "--max-mb must be above 0 and below 1000, got 0."),
        (["--model", ".", "--keep", "/proc/no"], "/proc/no"),
        (["--model", ".", "--samples", "1"], "--samples must be 0 or at least 2, got 1."),
    ],
)
def test_bad_options_end_with_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "leave_together", lambda: None)
    monkeypatch.setattr(serve.signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as stopped:
        serve.main([*words, "--port", "0"] if "--port" not in words else words)
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_port_in_use_is_told_before_a_model_is_loaded(
    by_model: Serving, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "leave_together", lambda: None)
    monkeypatch.setattr(serve.signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit):
        serve.main(["--model", "/no/such", "--port", str(by_model.port)])
    assert "Address already in use" in capsys.readouterr().err
