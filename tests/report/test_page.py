"""The page's file: everything in it, nothing of it executable but its own script, however hostile the answers."""

import base64
import hashlib
import io
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from geogrpo.metrics import Estimate
from geogrpo.report.page.content import Calibration, Groups, PageExample
from geogrpo.report.page.page import write_page
from geogrpo.report.page.pieces import MAX_TEXT_BYTES, THUMBNAIL_BYTES
from geogrpo.report.tables import MetricRow, TextTable

SUMMARY = [MetricRow("greedy", {"geoscore": Estimate(3000.0, 2900.0, 3100.0)})]
HOSTILE = "</script><script>alert(1)</script><!-- \" ' & {{script}} \x00 🌍 \ud83d <img src=x onerror=alert(1)>"
CLEANED = HOSTILE.replace("\x00", "�").replace("\ud83d", "�")


class Page(HTMLParser):
    """A written page: its elements with attributes, and the text in each kind of element."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(self.source)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        self._open.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self._open[-1] if self._open else "", []).append(data)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    @property
    def data(self) -> dict[str, Any]:
        return json.loads(self.texts["script"][1], parse_constant=pytest.fail)


def example(**changes: Any) -> PageExample:
    values = {"id": "a", "true_latlon_deg": (1.0, 2.0), "predicted_latlon_deg": (1.0, 3.0), "distance_km": 111.2}
    return PageExample(**(values | changes))


def written(folder: Path, examples: list[PageExample], **changes: Any) -> Page:
    arguments = {"title": "run", "summary": SUMMARY, "config": {"seed": 0}} | changes
    write_page(folder / "page.html", examples=examples, **arguments)
    return Page(folder / "page.html")


def hostile_page(folder: Path) -> Page:
    answer = example(
        id=HOSTILE,
        country=HOSTILE,
        continent=HOSTILE,
        text=HOSTILE,
        thinking=HOSTILE,
        problem=HOSTILE,
        names={HOSTILE: (HOSTILE, HOSTILE)},
        rewards={HOSTILE: 1.0},
        facts={HOSTILE: HOSTILE},
    )
    row = MetricRow(HOSTILE, SUMMARY[0].values)
    ones = np.ones(1)
    return written(
        folder,
        [answer],
        title=HOSTILE,
        summary=[row],
        config={HOSTILE: HOSTILE},
        calibration=Calibration(ones, ones, ones, ones, ones, HOSTILE),
        summary_note=HOSTILE,
        tables=[TextTable(HOSTILE, (HOSTILE, HOSTILE), [[HOSTILE, HOSTILE]], HOSTILE)],
        groups=[Groups(HOSTILE, [row])],
    )


def test_hostile_text_adds_no_element_and_no_attribute(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    hostile, plain = hostile_page(tmp_path), written(tmp_path / "plain", [example()])
    count = lambda page, tag: sum(name == tag for name, _ in page.elements)  # noqa: E731
    for tag in ("script", "img", "style", "link", "meta", "iframe", "canvas"):
        assert count(hostile, tag) == count(plain, tag), tag
    assert not [key for _, attributes in hostile.elements for key in attributes if key.startswith("on")]


def test_hostile_text_is_read_back_as_it_was_but_for_what_cannot_be_written(tmp_path: Path) -> None:
    page = hostile_page(tmp_path)
    (record,) = page.data["examples"]
    for key in ("id", "country", "continent", "text", "thinking", "problem"):
        assert record[key] == CLEANED
    assert record["names"] == [[CLEANED, CLEANED, CLEANED]]
    assert record["rewards"] == [[CLEANED, 1.0]]
    assert page.texts["h1"] == [CLEANED]
    assert CLEANED in page.texts["h2"]
    assert yaml.safe_load(page.texts["pre"][0]) == {HOSTILE: HOSTILE}


def test_no_address_and_no_inline_handler_is_in_the_page(tmp_path: Path) -> None:
    page = written(tmp_path, [example()])
    for tag, attributes in page.elements:
        for key, value in attributes.items():
            assert not key.startswith("on"), (tag, key)
            assert key != "style", tag
            if key in ("src", "href", "action", "srcset"):
                assert value == "data:,", (tag, key, value)


def test_the_policy_admits_exactly_the_script_and_the_style_of_the_page(tmp_path: Path) -> None:
    page = written(tmp_path, [example()])
    (policy,) = [a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))

    def source(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    assert directives == {
        "default-src": "'none'",
        "script-src": source(page.texts["script"][2]),
        "style-src": source(page.texts["style"][0]),
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_a_page_without_examples_or_without_a_summary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="examples must hold at least one example, got none"):
        written(tmp_path, [])
    with pytest.raises(ValueError, match="rows must hold at least one row, got none"):
        written(tmp_path, [example()], summary=[])
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"true_latlon_deg": (100.0, 0.0)}, "latitude must be a number"),
        ({"predicted_latlon_deg": (0.0, math.nan)}, "prediction for 'a': longitude must be a number"),
        ({"distance_km": None}, "go together"),
        ({"predicted_latlon_deg": None}, "go together"),
        ({"distance_km": math.nan}, "distance_km must be a finite number of at least 0, got nan"),
        ({"radius_90_km": -1.0}, "radius_90_km must be a finite number of at least 0, got -1.0"),
    ],
)
def test_an_example_with_impossible_numbers_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        example(**changes)


def test_arrays_of_calibration_must_fit() -> None:
    ones = np.ones(2)
    with pytest.raises(ValueError, match="stated, observed, counts must be 1-D and of one length"):
        Calibration(ones, ones, np.ones(3), ones, ones)
    with pytest.raises(ValueError, match="coverage, risk must be 1-D and of one length"):
        Calibration(ones, ones, ones, ones, np.ones(1))


def test_what_an_example_lacks_is_null(tmp_path: Path) -> None:
    page = written(tmp_path, [PageExample("a", (1.0, 2.0), rewards={"visual": math.nan})])
    (record,) = page.data["examples"]
    absent = {"image", "image_problem", "predicted", "distance_km", "country", "continent", "problem"}
    absent |= {"radius_50_km", "radius_90_km"}
    assert {key for key, value in record.items() if value is None} == absent
    assert record["rewards"] == [["visual", None]]


def test_the_lede_counts_an_answer_without_coordinates_as_half_the_earth_away(tmp_path: Path) -> None:
    nowhere = PageExample("b", (1.0, 2.0))
    page = written(tmp_path, [example(), nowhere, nowhere])
    assert "3 images · median error 20,015 km · 2 without coordinates" in page.source


def test_a_thumbnail_keeps_the_shape_and_stays_small_even_of_noise(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (600, 1200, 3), dtype=np.uint8)
    page = written(tmp_path, [example(image=Image.fromarray(noise)), example(image=Image.new("RGB", (1200, 600)))])
    files = [base64.b64decode(record["image"]) for record in page.data["examples"]]
    noisy, flat = (Image.open(io.BytesIO(file)) for file in files)
    assert max(map(len, files)) <= THUMBNAIL_BYTES
    assert noisy.width == 2 * noisy.height
    assert flat.size == (160, 80)


def test_a_missing_picture_is_named_and_does_not_stop_the_report(tmp_path: Path) -> None:
    page = written(tmp_path, [example(image=tmp_path / "gone<b>.jpg")])
    (record,) = page.data["examples"]
    assert record["image"] is None
    assert "gone<b>.jpg" in record["image_problem"]


def test_a_long_text_is_cut_and_says_so(tmp_path: Path) -> None:
    page = written(tmp_path, [example(text="x" * (MAX_TEXT_BYTES + 1234), thinking="y" * MAX_TEXT_BYTES)])
    (record,) = page.data["examples"]
    assert record["text"] == "x" * MAX_TEXT_BYTES + "… (1,234 more characters)"
    assert record["thinking"] == "y" * MAX_TEXT_BYTES


def test_a_long_text_is_cut_between_characters(tmp_path: Path) -> None:
    page = written(tmp_path, [example(id="山" * MAX_TEXT_BYTES)])
    (record,) = page.data["examples"]
    kept = MAX_TEXT_BYTES // 3
    assert record["id"] == "山" * kept + f"… ({MAX_TEXT_BYTES - kept:,} more characters)"


def test_1000_examples_of_noise_and_of_the_longest_texts_stay_under_15_mb(tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (160, 160, 3), dtype=np.uint8))
    largest = example(image=noise, text="x" * 9999, thinking="y" * 9999, names={"city": ("Paris", "Lyon")})
    one, eleven = (len(written(tmp_path, [largest] * count).source.encode()) for count in (1, 11))
    assert one + 999 * (eleven - one) / 10 < 15e6


def test_the_config_is_shown_as_yaml(tmp_path: Path) -> None:
    config = {"model": {"path": Path("a/b"), "sizes": (1, 2)}, "beta": 0.1, "seed": None}
    (shown,) = written(tmp_path, [example()], config=config).texts["pre"]
    assert yaml.safe_load(shown) == {"model": {"path": "a/b", "sizes": [1, 2]}, "beta": 0.1, "seed": None}


def test_the_summary_shows_values_with_intervals_and_dashes(tmp_path: Path) -> None:
    unknown = Estimate(7.0, math.nan, math.nan)
    rows = [
        MetricRow("no interval", {"geoscore": unknown}),
        *SUMMARY,
        MetricRow("median only", {"median_km": Estimate(12.0, 10.0, 14.0)}),
    ]
    page = written(tmp_path, [example()], summary=rows)
    cells = re.findall(r'<td class="number">(.*?)</td>', page.source)
    assert cells == ["–", "7", "–", "3,000<small>2,900 – 3,100</small>", "12<small>10 – 14</small>", "–"]


def test_the_satellite_picture_is_in_the_page_only_when_given(tmp_path: Path) -> None:
    assert written(tmp_path, [example()]).data["world"] is None
    page = written(tmp_path, [example()], world=Image.new("RGB", (20, 10), "navy"))
    assert Image.open(io.BytesIO(base64.b64decode(page.data["world"]))).size == (2048, 1024)
