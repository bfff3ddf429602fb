"""What the page shows and removes, without Gradio; tests/test_serve.py drives it in a browser."""

import re
import threading
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image
from prediction.photographs import SECRET, save_photograph

from geogrpo.prediction import Predictor, Sampling, place_estimate
from geogrpo.prediction.page.app import Answers, PageOptions
from geogrpo.prediction.page.content import answer_html, escaped, head_html, map_html
from geogrpo.prediction.page.world_map import world_map
from geogrpo.prediction.record import GRANULARITIES, place_record
from geogrpo.regions.index import default_index

SVG = "{http://www.w3.org/2000/svg}"
SUVA = "Country: Fiji\nCity: Suva\nCoordinates: (-18.1, 178.4)"
APIA = "Coordinates: (-13.8, -171.8)"
OWN = (-17.8, -179.9)
HIDDEN = ("Suva", "Apia", "Samoa", "178", "171.8", "18.1", SECRET, "Mombasa", "Nairobi", "36.82", "km")


class Said:
    """Answers with given words, and notes how many it answers at once."""

    def __init__(self, text: str = SUVA, error: ValueError | None = None) -> None:
        self.text, self.error = text, error
        self.busy, self.most_busy = 0, 0

    def answer(self, picture: Image.Image, sampling: Sampling, on_text: Any) -> tuple[str, list[str]]:
        self.busy += 1
        self.most_busy = max(self.most_busy, self.busy)
        time.sleep(0.05)
        if self.error is not None:
            raise self.error
        if on_text is not None:
            on_text(self.text[:10])
            on_text(self.text)
        self.busy -= 1
        return self.text, [self.text, APIA]


@pytest.fixture
def uploads(tmp_path: Path) -> Path:
    (tmp_path / "uploads").mkdir()
    return tmp_path / "uploads"


def upload(uploads: Path, name: str = "a.jpg") -> dict[str, str]:
    """As Gradio lays it down."""
    (uploads / name).mkdir()
    return {"path": str(save_photograph(uploads / name / name))}


def answers_of(uploads: Path, said: Said, **options: Any) -> Answers:
    return Answers(Predictor(said, Sampling(num_samples=2), default_index()), PageOptions(uploads, **options))


def record_of(granularity: str | None = None) -> dict[str, Any]:
    index = default_index()
    estimate = place_estimate(SUVA, [SUVA, APIA], index)
    return place_record("a.jpg", estimate, index, own_latlon_deg=OWN, granularity=granularity)


def test_an_upload_is_gone_before_the_model_is_asked(uploads: Path) -> None:
    shown = answers_of(uploads, Said()).answer(upload(uploads))
    picture, waiting, *rest = next(shown)
    assert list(uploads.iterdir()) == []
    assert ("data:image/jpeg" in picture, "looks at" in waiting, rest) == (True, True, ["", ""])
    words = [re.sub("<[^>]*>", "", said) for _, said, *_ in shown]
    assert [word.removeprefix("In the model's words") for word in words] == [SUVA[:10], SUVA, SUVA]


def test_only_uploads_are_read_and_removed(uploads: Path, tmp_path: Path) -> None:
    """A browser may name any path: one beside the uploads, or a folder that would be removed with all in it."""
    inside = Path(upload(uploads)["path"])
    (tmp_path / "outside").mkdir()
    other = save_photograph(tmp_path / "outside" / "b.jpg")
    climbing = uploads / "a.jpg" / ".." / ".." / "outside" / "b.jpg"
    answers = answers_of(uploads, Said())
    for path in (other, uploads, uploads / "a.jpg", climbing, "", "/", "a.jpg/a.jpg"):
        assert list(answers.answer({"path": str(path)})) == []
    assert list(answers.answer(None)) == []
    assert inside.exists()
    assert other.exists()


def test_photographs_are_answered_one_at_a_time(uploads: Path) -> None:
    said = Said()
    answers = answers_of(uploads, said)
    files = [upload(uploads, f"{i}.jpg") for i in range(4)]
    asking = [threading.Thread(target=lambda file=file: list(answers.answer(file))) for file in files]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert said.most_busy == 1


@pytest.mark.parametrize("granularity", GRANULARITIES[:1])
def test_a_limit_holds_on_the_page_and_in_what_is_kept(uploads: Path, tmp_path: Path, granularity: str) -> None:
    (tmp_path / "kept").mkdir()
    answers = answers_of(uploads, Said(), granularity=granularity, keep=tmp_path / "kept")
    shown = [html for state in answers.answer(upload(uploads)) for html in state[1:]]
    kept = [path.read_text() for path in (tmp_path / "kept").glob("*.json")]
    assert len(kept) == 1
    assert "Fiji" in "".join(shown)
    assert not [word for word in HIDDEN for text in (*shown, *kept) if word in text]
    failing = answers_of(uploads, Said(error=ValueError("useless: Suva (-18.1, 178.4)")), granularity=granularity)
    assert list(failing.answer(upload(uploads)))[-1][1].endswith("The model gave no answer.</p>")


def test_without_a_limit_an_error_is_told(uploads: Path) -> None:
    failing = answers_of(uploads, Said(error=ValueError("useless <b>")))
    assert "useless &lt;b&gt;" in list(failing.answer(upload(uploads)))[-1][1]


def test_the_page_says_where_a_picture_goes() -> None:
    here, kept = head_html(None, is_kept=False), head_html(None, is_kept=True)
    sent = head_html("http://far.example/v1", is_kept=False)
    assert "answered on the machine that serves this page, and not kept" in here
    assert "kept by this page without its metadata" in kept
    assert "sent to http://far.example/v1, and not kept by this page" in sent
    assert "answered on" not in sent


def test_text_is_neither_html_nor_a_template() -> None:
    assert not re.search(r"[<>{$\"]|\x1b", escaped('<b onclick="x">${x}{{y}}\x1b[0m</b>'))


def test_the_map_around_the_antimeridian_holds_everything_whole() -> None:
    drawing = world_map(record_of())
    assert drawing is not None
    svg = ElementTree.fromstring(drawing.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" '))
    left, top, width, height = map(float, svg.get("viewBox", "").split())
    assert width == pytest.approx(2 * height, abs=0.002)
    assert width < 100
    turns = {float(use.get("x", "0")) for use in svg.iter(f"{SVG}use")}
    for circle in svg.iter(f"{SVG}circle"):
        x, y = float(circle.get("cx", "")), float(circle.get("cy", ""))
        assert any(left < x + turn < left + width for turn in (0, *turns))
        assert top < y < top + height
    # Fiji is on both sides, so the land is drawn twice and the marks with it.
    assert sorted(use.get("href", "") for use in svg.iter(f"{SVG}use")) == ["#gg-ground", "#gg-marks"]


def test_without_a_point_there_is_no_map() -> None:
    for granularity in GRANULARITIES:
        assert map_html(record_of(granularity)) == ""
    index = default_index()
    nowhere = place_record("a.jpg", place_estimate("no idea", ["no idea"] * 2, index), index)
    assert map_html(nowhere) == ""
    assert "no coordinates" in answer_html(nowhere)


def test_an_answer_without_a_point_shows_where_the_samples_lie() -> None:
    index = default_index()
    record = place_record("a.jpg", place_estimate("no idea", [SUVA, SUVA], index), index, own_latlon_deg=OWN)
    assert map_html(record).count("<circle") == 2
    assert "the answer has no point" in answer_html(record)
