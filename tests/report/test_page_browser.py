"""The page in headless Chromium: what a reader does, and that nothing leaves the browser."""

import http.server
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from geogrpo_kernels import haversine_km
from PIL import Image
from report.page_browser import (
    FAR_EAST,
    HOSTILE_ID,
    HOSTILE_TEXT,
    NUM_EXAMPLES,
    all_examples,
    click,
    distances_km,
    map_colors,
    put,
    ready_ms,
    requests_of,
    rgb,
    status_of,
    text_of,
    until,
)
from torch import from_numpy

from geogrpo.metrics import THRESHOLDS_KM, Estimate
from geogrpo.report.page.page import write_page
from geogrpo.report.tables import MetricRow

webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install selenium")


def test_a_report_of_1000_examples_is_under_15_mb_and_opens_in_under_2_s(page: Any, report: Path) -> None:
    size_mb, opened_ms = report.stat().st_size / 1e6, ready_ms(page)
    print(f"\n{NUM_EXAMPLES} examples: {size_mb:.1f} MB, open after {opened_ms:.0f} ms")
    assert size_mb < 15
    assert opened_ms < 2000


def test_opening_and_using_it_asks_for_nothing_and_logs_nothing(page: Any, report: Path) -> None:
    click(page, "#zoom-in")
    put(page, "#search", "image")
    click(page, "#page-next")
    map_colors(page)
    assert [url for url in requests_of(page) if not url.startswith(("data:", report.as_uri()))] == []
    assert page.get_log("browser") == []


def test_even_a_script_that_tries_gets_no_request_out(page: Any) -> None:
    """The policy, not our good behaviour: a server next door hears nothing."""
    heard: list[str] = []

    class Ear(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ear)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    blocked = page.execute_async_script(
        "const [address, done] = arguments, blocked = [];"
        "document.addEventListener('securitypolicyviolation', (event) => blocked.push(event.effectiveDirective));"
        "fetch(`${address}/fetch`).catch(() => {}); new Image().src = `${address}/image`;"
        "const script = document.createElement('script'); script.textContent = 'document.title = \"owned\"';"
        "document.body.append(script);"
        "document.body.insertAdjacentHTML('beforeend', '<img src=data:x onerror=\"document.title=1\">');"
        "setTimeout(() => done(blocked), 500)",
        address,
    )
    # The ear does hear what is not forbidden.
    page.get(f"{address}/control")
    server.shutdown()
    assert heard == ["/control"]
    assert {"connect-src", "img-src", "script-src-elem", "script-src-attr"} <= set(blocked)
    assert page.title != "owned"


def test_the_map_draws_land_and_every_class_of_error(page: Any) -> None:
    colors = map_colors(page)
    num_pixels = sum(colors.values())
    assert 0.1 < colors[rgb(page, "--land")] / num_pixels < 0.6
    assert 0.3 < colors[rgb(page, "--sea")] / num_pixels < 0.8
    shown = {int(np.searchsorted(THRESHOLDS_KM, km)) for km in distances_km()}
    for error_class in shown:
        assert colors.get(rgb(page, f"--error-{error_class}"), 0) > 5, error_class


def test_zooming_and_panning_move_the_map_and_it_comes_back(page: Any) -> None:
    land = rgb(page, "--land")
    whole = map_colors(page)[land]
    for key in ("+", "+", "+", "ArrowLeft", "ArrowUp"):
        page.execute_script(
            "document.getElementById('map').dispatchEvent(new KeyboardEvent('keydown', { key: arguments[0] }))", key
        )
    assert abs(map_colors(page)[land] - whole) > 0.05 * whole
    click(page, "#zoom-reset")
    assert map_colors(page)[land] == whole


def test_the_wheel_zooms_and_the_page_stays(page: Any) -> None:
    page.execute_script("document.getElementById('map').scrollIntoView()")
    land, top = rgb(page, "--land"), page.execute_script("return scrollY")
    before = map_colors(page)[land]
    webdriver.ActionChains(page).scroll_from_origin(
        webdriver.common.actions.wheel_input.ScrollOrigin.from_element(page.find_element("id", "map")), 0, -600
    ).perform()
    assert abs(map_colors(page)[land] - before) > 0.05 * before
    assert page.execute_script("return scrollY") == top


def test_at_first_everything_is_shown(page: Any) -> None:
    assert text_of(page, "#status") == status_of(distances_km())
    assert text_of(page, "#page-label") == "1 – 20 of 1,000"
    assert len(page.find_elements("css selector", "#list tr")) == 20


def test_filters_change_what_is_shown_and_reset_brings_it_back(page: Any) -> None:
    west = np.array([example.continent == "west" for example in all_examples()])
    failed = np.array([example.distance_km is None for example in all_examples()])
    put(page, "#continent", "west")
    assert text_of(page, "#status") == status_of(distances_km()[west])
    put(page, "#failures", True, name="checked")
    assert text_of(page, "#status") == status_of(distances_km()[west & failed])
    click(page, "button[type=reset]")
    until(lambda: text_of(page, "#status") == status_of(distances_km()))
    country = all_examples()[1].country
    put(page, "#country", country)
    assert text_of(page, "#status") == status_of(distances_km()[[e.country == country for e in all_examples()]])


def test_the_range_of_the_error_is_logarithmic_and_failures_are_at_its_far_end(page: Any) -> None:
    half = np.sqrt(distances_km().max())
    put(page, "#range-high", 100)
    assert text_of(page, "#status") == status_of(distances_km()[distances_km() <= half])
    assert text_of(page, "#range-label") == "up to 141 km"
    put(page, "#range-high", 200)
    put(page, "#range-low", 100)
    assert text_of(page, "#status") == status_of(distances_km()[distances_km() >= half])


def test_the_search_finds_ids_and_answers(page: Any) -> None:
    put(page, "#search", "IMAGE-77")
    num_shown = sum("image-77" in example.id for example in all_examples())
    assert text_of(page, "#status").startswith(f"{num_shown} of 1,000 shown")
    put(page, "#search", "answer 123")
    assert text_of(page, "#list button") == "image-123"
    put(page, "#search", "no such thing")
    assert text_of(page, "#status") == "0 of 1,000 shown"
    assert text_of(page, "#page-label") == "nothing to show"


def test_a_filter_leaves_only_its_dots_on_the_map(page: Any) -> None:
    far = rgb(page, f"--error-{len(THRESHOLDS_KM)}")
    before = map_colors(page)[far]
    put(page, "#range-high", 100)
    assert map_colors(page).get(far, 0) < before / 20


def test_the_list_is_sorted_by_error_and_turns_pages(page: Any) -> None:
    def shown() -> list[str]:
        return page.execute_script("return [...document.querySelectorAll('#list button')].map((b) => b.textContent)")

    ids = [all_examples()[i].id for i in np.argsort(distances_km(), kind="stable")]
    assert shown() == ids[:20]
    click(page, "#page-next")
    assert shown() == ids[20:40]
    click(page, "[data-sort=error]")
    assert page.execute_script("return document.querySelector('[data-sort=error]').parentElement.ariaSort") == (
        "descending"
    )
    # Failures tie; beyond them the farthest comes first.
    num_failed = sum(example.distance_km is None for example in all_examples())
    assert num_failed == 25
    click(page, "#page-next")
    assert shown()[num_failed - 20] == ids[-num_failed - 1]


def test_a_click_in_the_list_shows_the_example_and_its_text_is_only_text(page: Any) -> None:
    put(page, "#search", HOSTILE_ID)
    click(page, "#list button")
    assert text_of(page, "#detail h3") == HOSTILE_ID
    texts = page.execute_script("return [...document.querySelectorAll('#detail pre')].map((pre) => pre.textContent)")
    assert texts == [all_examples()[0].thinking, HOSTILE_TEXT.replace("\ud83d", "�")]
    assert "distance0.500format-0.250" in text_of(page, "#detail .rewards")
    assert text_of(page, "#detail .facts") == HOSTILE_ID + HOSTILE_TEXT.replace("\ud83d", "�")
    width = page.execute_script("return document.querySelector('#detail img').naturalWidth")
    assert width == 160
    assert page.title == "report"
    assert page.execute_script("return document.querySelectorAll('#detail script, #list script').length") == 0


def test_a_failure_says_why_and_has_no_answer(page: Any) -> None:
    put(page, "#failures", True, name="checked")
    click(page, "#list button")
    assert text_of(page, "#detail .problem") == "no coordinates"
    assert text_of(page, "#detail .error") == "no coordinates"


def test_a_click_on_the_map_selects_the_example_there_also_across_the_antimeridian(page: Any) -> None:
    put(page, "#search", HOSTILE_ID)
    canvas = page.find_element("id", "map")
    page.execute_script("arguments[0].scrollIntoView()", canvas)
    width, height = canvas.size["width"], canvas.size["height"]
    # The world fills the map, whose middle is 8 degrees east at first.
    pixels_per_deg = max(width / 360, height / 180)
    for _ in range(8):
        page.execute_script("arguments[0].dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowLeft' }))", canvas)
    middle_lon_deg = 8 - 8 * 60 / pixels_per_deg
    middle_lat_deg = min(12.0, 90 - height / 2 / pixels_per_deg)
    right = ((FAR_EAST[1] - middle_lon_deg + 180) % 360 - 180) * pixels_per_deg
    # Now left of the middle: its longitude is beyond the antimeridian.
    assert right < 0
    down = (middle_lat_deg - FAR_EAST[0]) * pixels_per_deg
    actions = webdriver.ActionChains(page)
    actions.move_to_element_with_offset(canvas, round(right), round(down)).perform()
    assert "Answer" not in text_of(page, "#tooltip")
    assert "km" in text_of(page, "#tooltip")
    actions.click().perform()
    assert text_of(page, "#detail h3") == HOSTILE_ID


def test_next_and_previous_step_through_what_is_shown(page: Any) -> None:
    put(page, "#search", "image-77")
    click(page, "#list button")
    first = text_of(page, "#detail h3")
    click(page, "#detail .steps button:last-child")
    assert text_of(page, "#detail h3") != first
    click(page, "#detail .steps button:first-child")
    assert text_of(page, "#detail h3") == first
    assert page.execute_script("return document.querySelector('#detail .steps button').disabled")


@pytest.mark.parametrize("width", [400, 1600])
def test_the_page_is_never_wider_than_its_window(page: Any, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        map_colors(page)
        inner, scroll = page.execute_script("return [document.documentElement.clientWidth, document.body.scrollWidth]")
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert scroll <= inner <= width


def test_a_table_of_text_is_text_and_as_wide_as_it_needs(page: Any) -> None:
    cells = "return [...document.querySelectorAll('.tables .wide td')].map((cell) => cell.textContent)"
    assert page.execute_script(cells) == [HOSTILE_TEXT.replace("\ud83d", "�")] * 6
    assert text_of(page, ".tables h2") == HOSTILE_ID


def test_the_steps_of_completions_open_and_show_their_pictures_without_any_script(page: Any) -> None:
    page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        page.refresh()
        assert page.find_element("id", "status").text == ""
        first, last = page.find_elements("css selector", "details:has(.sampled)")
        assert (first.get_dom_attribute("open"), last.get_dom_attribute("open")) == (None, "true")
        first.find_element("css selector", "summary").send_keys(webdriver.Keys.ENTER)
        assert first.get_dom_attribute("open") == "true"
        picture = first.find_element("css selector", "img")
        assert picture.accessible_name == f"Image of {HOSTILE_ID}"
        until(lambda: int(picture.get_property("naturalWidth")) > 0)
        assert first.find_element("css selector", "pre").text.startswith(HOSTILE_TEXT[:20])
    finally:
        page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_the_dark_scheme_redraws_the_map(page: Any) -> None:
    light = rgb(page, "--sea")
    assert light in map_colors(page)
    feature = {"name": "prefers-color-scheme", "value": "dark"}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    try:
        colors = map_colors(page)
        dark = rgb(page, "--sea")
    finally:
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert dark != light
    assert colors[dark] > 0.3 * sum(colors.values())


def test_two_fingers_zoom_the_map(page: Any) -> None:
    canvas = page.find_element("id", "map")
    page.execute_script("arguments[0].scrollIntoView()", canvas)
    left, top = page.execute_script("const r = arguments[0].getBoundingClientRect(); return [r.x, r.y]", canvas)
    land = rgb(page, "--land")
    before = map_colors(page)[land]
    for kind, apart in (("touchStart", 40), ("touchMove", 80), ("touchMove", 160), ("touchEnd", None)):
        fingers = [] if apart is None else [{"x": left + 500 + side * apart, "y": top + 200} for side in (-1, 1)]
        page.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})
    assert abs(map_colors(page)[land] - before) > 0.05 * before


def test_the_keyboard_keeps_its_place_in_the_list_and_in_the_steps(page: Any) -> None:
    enter = webdriver.Keys.ENTER
    row = page.find_elements("css selector", "#list button")[3]
    row.send_keys(enter)
    focused = page.switch_to.active_element
    assert focused.text == all_examples()[int(np.argsort(distances_km(), kind="stable")[3])].id
    for _ in range(2):
        page.execute_script("document.querySelector('.steps :last-child').focus()")
        page.switch_to.active_element.send_keys(enter)
        assert page.switch_to.active_element.text.startswith("Next")


def test_the_satellite_picture_can_be_switched_off(page: Any, tmp_path: Path) -> None:
    summary = [MetricRow("greedy", {"geoscore": Estimate(1.0, 0.5, 1.5)})]
    world = Image.new("RGB", (20, 10), (0, 0, 255))
    write_page(tmp_path / "a.html", title="a", summary=summary, examples=all_examples()[:2], config={}, world=world)
    page.get((tmp_path / "a.html").as_uri())
    until(lambda: map_colors(page).get("0,0,254", 0) > 10_000)
    click(page, "#picture")
    colors = map_colors(page)
    assert "0,0,254" not in colors
    assert colors[rgb(page, "--land")] > 10_000


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((48.4, -4.5), (35.7, 139.7)),
        (FAR_EAST, (-14.0, -172.0)),
        ((80.0, 10.0), (75.0, -160.0)),
        ((1.0, 2.0), (1.0, 2.0)),
    ],
)
def test_an_arc_is_the_shortest_way_and_never_jumps(page: Any, a: tuple, b: tuple) -> None:
    arc = np.array(page.execute_script("return greatCircle(...arguments)", a, b), dtype=float)
    assert np.abs(np.diff(arc[:, 1])).max() < 180
    ends = arc[[0, -1]]
    np.testing.assert_allclose(ends[:, 0], [a[0], b[0]], atol=1e-9)
    np.testing.assert_allclose((ends[:, 1] - [a[1], b[1]] + 180) % 360 - 180, 0, atol=1e-9)
    steps_km = haversine_km(from_numpy(arc[:-1].copy()), from_numpy(arc[1:].copy()))
    shortest_km = haversine_km(from_numpy(np.array(a)), from_numpy(np.array(b)))
    assert float(steps_km.sum()) == pytest.approx(float(shortest_km), abs=0.1)


@pytest.mark.parametrize("center", [(0.0, 0.0), (60.0, 179.0), (-89.0, 20.0)])
def test_the_circle_of_a_radius_lies_at_that_distance(page: Any, center: tuple) -> None:
    circle = np.array(page.execute_script("return circleAround(...arguments)", center, 500), dtype=float)
    distances = haversine_km(from_numpy(circle), from_numpy(np.array(center)).expand(len(circle), 2))
    np.testing.assert_allclose(distances.numpy(), 500, atol=0.1)
