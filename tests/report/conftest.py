"""A report of 1,000 examples, and Chromium with it open.

Needs selenium (`pip install selenium`) and Debian's Chromium (`apt-get install chromium chromium-driver`).
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report.page_browser import FAR_EAST, HOSTILE_ID, HOSTILE_TEXT, all_examples, ready_ms, until

from geogrpo.metrics import Estimate
from geogrpo.report.page.content import Calibration, Groups, SampledCompletion, SampledGroup
from geogrpo.report.page.page import write_page
from geogrpo.report.tables import COLUMNS, MetricRow, TextTable

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of 1,000 examples with all that it can hold but the satellite picture."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    values = {key: Estimate(0.5, 0.4, 0.6) for key in COLUMNS}
    ends = np.linspace(0.05, 1, 20)
    completion = SampledCompletion(HOSTILE_TEXT * 50, FAR_EAST, 0.0, 0.5, {HOSTILE_ID: 0.5}, None)
    picture = all_examples()[0].image
    write_page(
        path,
        title="report",
        summary=[MetricRow("greedy", values)],
        examples=all_examples(),
        config={"seed": 0},
        calibration=Calibration(ends, ends, ends, ends, ends),
        tables=[TextTable(HOSTILE_ID, ("", *"abcdef"), [[HOSTILE_TEXT] * 7], HOSTILE_TEXT)],
        groups=[Groups("Continents", [MetricRow("east", values, 500)])],
        completions=[SampledGroup(step, HOSTILE_ID, FAR_EAST, picture, [completion], 1) for step in (1, 2)],
    )
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install selenium")
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("needs Chromium: apt-get install -y chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in (*FLAGS, "--window-size=1600,1000", f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.chrome.service.Service(shutil.which("chromedriver"))
    browser = webdriver.Chrome(options=options, service=service)
    yield browser
    browser.quit()


@pytest.fixture
def page(browser: Any, report: Path) -> Any:
    """The browser with the report just opened, its logs empty before."""
    browser.get("about:blank")
    browser.get_log("browser")
    browser.get_log("performance")
    browser.set_window_size(1600, 1000)
    browser.get(report.as_uri())
    until(lambda: ready_ms(browser) is not None)
    return browser
