"""Floors, comparison and uncertainty as a reader sees them."""

import math
from dataclasses import replace

import numpy as np
import pytest
from evaluation.answering import LIMA, LYON, PARIS, answer
from rich.console import Console

from geogrpo.evaluation.comparison import Comparison
from geogrpo.evaluation.confidence import Uncertainty, measure_uncertainty
from geogrpo.evaluation.floors import Floors
from geogrpo.metrics import ConstantFloor, Difference, Estimate
from geogrpo.regions.index import default_index
from geogrpo.report.finding_tables import (
    answers_table,
    comparison_tables,
    console_table,
    floor_note,
    floor_rows,
    region_table,
    uncertainty_tables,
)
from geogrpo.report.tables import MetricRow

FLOORS = Floors(100, 30, {"geoscore": ConstantFloor(900.0, (1.0, 2.0))}, {"geoscore": 300.0})


def printed(table: object, width: int = 80) -> str:
    console = Console(width=width, record=True, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table)
    return console.export_text()


def test_floors_are_called_floors_and_say_that_they_flatter() -> None:
    assert [row.name for row in floor_rows(FLOORS)] == ["floor: best constant", "floor: random place"]
    note = floor_note(FLOORS, 100)
    assert "best of 30 of the true places" in note
    assert "chosen on these very images: that flatters it" in note
    assert "drawn at random" not in note
    assert floor_note(FLOORS, 101).endswith("Both are of 100 of the images, drawn at random.")


def test_a_difference_is_shown_in_points_or_km_with_its_sign() -> None:
    share = Difference(0.5, 0.75, 0.25, -0.012, 0.5, 0.0004)
    km = Difference(2000.0, 850.4, -1149.6, -2000.0, 12.0, 0.25)
    comparison = Comparison("runs/x", 40, 2, 1, {"coordinates": {"mean_km": km, "within_25_km": share}, "names": {}})
    first, second = comparison_tables(comparison, "<")
    assert first.rows == [
        ["<25 km", "50.0%", "75.0%", "+25.0 points", "-1.2 to +50.0", "<\N{NO-BREAK SPACE}0.001"],
        ["mean km", "2,000", "850", "-1,150", "-2,000 to +12", "0.250"],
    ]
    assert first.title == "Compared with runs/x: coordinates as emitted"
    assert first.note.startswith("On the 40 images that both have a row for; 2 that the other lacks are left out. ")
    assert (second.title, second.note) == ("Compared with runs/x: names, found offline", "")


def test_regions_are_a_table_of_the_levels_that_there_are() -> None:
    values = {"country_accuracy": Estimate(0.5, 0.404, 0.61), "osv_sub_region": Estimate(0.25, math.nan, math.nan)}
    table = region_table([MetricRow("a", values), MetricRow("b", {})])
    assert table.header == ("", "country", "OSV sub-region")
    assert table.rows == [["a", "50.0% (40.4–61.0)", "25.0%"], ["b", "–", "–"]]
    assert "OSV-5M" in table.note
    assert "OSV-5M" not in region_table([MetricRow("a", {"city_accuracy": values["country_accuracy"]})]).note


def uncertain(num_images: int) -> Uncertainty:
    predictions = [answer(f"image-{i}", PARIS, None, PARIS, PARIS, LYON, LIMA) for i in range(num_images)]
    found = measure_uncertainty(predictions, default_index(), bootstrap_samples=100)
    assert found is not None
    return found


def test_confidence_and_radii_are_shown_as_they_were_measured() -> None:
    found = uncertain(20)
    assert found.observed is not None
    confidence, radii = uncertainty_tables(found)
    assert confidence.title == "Confidence of the consensus of 4 samples"
    assert confidence.rows[0] == ["country", "100.0%", "75.0%", "0.250", "0.000", "20"]
    rows = {row[0]: row[1:] for row in radii.rows}
    assert rows["samples' 50 % radius"] == ["50%", "100.0% (100.0–100.0)", "all 20 images", "median 0 km"]
    others = f"{found.observed.num_images} images"
    assert rows["conformal radius, one for all"][:3] == ["90%", "100.0% (100.0–100.0)", others]
    assert rows["right at the level backed off to"][0] == "80%"
    assert rows["answered at some level"][1:3] == ["100.0% (100.0–100.0)", others]
    assert rows["answered at some level"][3].startswith("country 0, state ")


def test_where_nothing_could_be_calibrated_it_is_said() -> None:
    _, radii = uncertainty_tables(uncertain(1))
    assert len(radii.rows) == 2
    assert radii.note.startswith("Too few images")


def test_a_threshold_that_no_confidence_reaches_is_said() -> None:
    found = uncertain(20)
    wrong = replace(found, outcomes=replace(found.outcomes, is_right=np.zeros((20, 4), bool)))
    assert wrong.chosen is not None
    chosen = replace(wrong.chosen, back_off=replace(wrong.chosen.back_off, threshold=math.inf))
    _, radii = uncertainty_tables(replace(wrong, chosen=chosen))
    assert "no threshold reaches the aim" in [row[-1] for row in radii.rows]


def test_six_columns_of_answers_fit_eighty_characters_uncut() -> None:
    values = {
        "within_200_km": Estimate(0.5, 0.404, 0.61),
        "geoscore": Estimate(3900.0, 3800.0, 4000.0),
        "mean_km": Estimate(1234.0, 1100.0, 1300.0),
    }
    tracks = dict.fromkeys(("coordinates", "names", "consensus"), values)
    bare = {"geoscore": Estimate(1000.0, math.nan, math.nan)}
    text = printed(answers_table({**tracks, "samples": bare, "constant": bare, "random": bare}, 1000, "<="))
    assert text.count("40.4–61.0") == text.count("3,800–4,000") == text.count("1,100–1,300") == 3
    assert "≤200 km" in text
    assert "coordinates" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("text", ["[red]x[/red]", "[/]"])
def test_no_text_is_read_as_markup_by_the_console(text: str) -> None:
    comparison = Comparison(text, 4, 0, 0, {"coordinates": {"mean_km": Difference(1, 2, 1, 0, 2, 0.5)}})
    assert f"Compared with {text}" in printed(console_table(comparison_tables(comparison, "<=")[0]), 100)
