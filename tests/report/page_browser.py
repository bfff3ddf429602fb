"""The 1,000 examples of the report that tests open in Chromium, and what they do with the page."""

import json
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from geogrpo_kernels import haversine_km
from torch import from_numpy

from geogrpo.data.blue_marble import BlueMarbleCrop
from geogrpo.metrics import charged_km
from geogrpo.regions.sources.geonames import load_geonames
from geogrpo.report.page.content import PageExample

NUM_EXAMPLES = 1000
HOSTILE_ID = "<img src=x onerror=document.title='owned'>"
HOSTILE_TEXT = "</script><script>document.title='owned'</script> & \"quoted\" 🌍 \ud83d"
FAR_EAST = (-18.0, 178.0)
# 10.7 degrees are 160 pixels: thumbnails as large as those of photographs
CROP_DEG = 10.7


@cache
def all_examples() -> list[PageExample]:
    """Places of the Earth with pictures and synthetic errors of all sizes; the first is hostile, every 40th failed."""
    rng = np.random.default_rng(0)
    places = load_geonames(5000)
    drawn = rng.choice(len(places), NUM_EXAMPLES, replace=False)
    truth = places.latlon_deg[drawn]
    shift = 10 ** rng.normal(0.2, 0.8, (NUM_EXAMPLES, 1)) * rng.normal(size=(NUM_EXAMPLES, 2))
    truth[0] = FAR_EAST
    shift[0] = (4.0, 10.0)
    answer = np.stack([np.clip((truth + shift)[:, 0], -89, 89), ((truth + shift)[:, 1] + 180) % 360 - 180], axis=1)
    distance_km = haversine_km(from_numpy(answer), from_numpy(truth)).tolist()
    thinking = "The light and the vegetation point to a dry place far from the sea; the fields are large. " * 12
    examples = []
    for i, place in enumerate(drawn.tolist()):
        has_failed = i % 40 == 39
        point = (float(truth[i, 0]), float(truth[i, 1]))
        examples.append(
            PageExample(
                id=HOSTILE_ID if i == 0 else f"image-{i}",
                true_latlon_deg=point,
                image=BlueMarbleCrop(point, CROP_DEG),
                predicted_latlon_deg=None if has_failed else (float(answer[i, 0]), float(answer[i, 1])),
                distance_km=None if has_failed else distance_km[i],
                country=places.country[place],
                continent="east" if point[1] > 0 else "west",
                text=HOSTILE_TEXT if i == 0 else f"Country: {places.country[place]}\nCity: answer {i}",
                thinking=thinking,
                names={"country": (places.country[place], None), "city": (places.city[place], None)},
                rewards={"distance": 0.0 if has_failed else 0.5, "format": -0.25},
                radius_50_km=None if has_failed else 100.0,
                radius_90_km=None if has_failed else 400.0,
                facts={HOSTILE_ID: HOSTILE_TEXT} if i == 0 else {"Backed off to": f"country {i}"},
                problem="no coordinates" if has_failed else None,
            )
        )
    return examples


@cache
def distances_km() -> np.ndarray:
    """(N,) of all examples, those without coordinates charged."""
    return charged_km(np.array([np.nan if e.distance_km is None else e.distance_km for e in all_examples()]))


def until(condition: Callable[[], Any], timeout_s: float = 10) -> None:
    """Wait; fails when the condition does not come true."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def ready_ms(browser: Any) -> float | None:
    """From the start of opening until everything is shown."""
    return browser.execute_script("return performance.getEntriesByName('ready')[0]?.startTime ?? null")


def text_of(page: Any, selector: str) -> str:
    return page.execute_script("return document.querySelector(arguments[0]).textContent", selector)


def put(page: Any, selector: str, value: object, *, name: str = "value") -> None:
    """Give a control a value, as a user's input does."""
    page.execute_script(
        "const control = document.querySelector(arguments[0]); control[arguments[1]] = arguments[2];"
        "control.dispatchEvent(new Event('input', { bubbles: true }))",
        selector,
        name,
        value,
    )


def click(page: Any, selector: str) -> None:
    page.execute_script("document.querySelector(arguments[0]).click()", selector)


def status_of(distance_km: np.ndarray) -> str:
    """What the page says when it shows the examples of these errors."""
    median = np.median(distance_km)
    shown = f"{median:.1f}" if median < 10 else f"{median:,.0f}"
    return f"{len(distance_km):,} of 1,000 shown · median error {shown} km"


def map_colors(page: Any) -> dict[str, int]:
    """Colour of the map's pixels -> their number, after the next frames."""
    page.execute_async_script("const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(done))")
    return page.execute_script(
        "const map = document.getElementById('map'), counts = {};"
        "const { data } = map.getContext('2d').getImageData(0, 0, map.width, map.height);"
        "for (let i = 0; i < data.length; i += 4) {"
        "  const color = `${data[i]},${data[i + 1]},${data[i + 2]}`; counts[color] = (counts[color] ?? 0) + 1; }"
        "return counts"
    )


def rgb(page: Any, variable: str) -> str:
    """A colour of the style sheet as map_colors names it."""
    value = page.execute_script(
        "return getComputedStyle(document.documentElement).getPropertyValue(arguments[0]).trim()", variable
    )
    return ",".join(str(int(value[i : i + 2], 16)) for i in (1, 3, 5))


def requests_of(page: Any) -> list[str]:
    """The addresses that the browser asked for since its log was read."""
    messages = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
