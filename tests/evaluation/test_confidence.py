"""What samples say together, by hand on five images; and that each half of the images is blind to the other."""

import json
from dataclasses import replace

import pytest
from evaluation.answering import LIMA, LYON, NAIROBI, PARIS, TOKYO, answer

from geogrpo.evaluation import HeldOutPrediction
from geogrpo.evaluation.confidence import Uncertainty, backed_off_levels, image_records, measure_uncertainty
from geogrpo.evaluation.halves import is_calibrated_on
from geogrpo.metrics import FARTHEST_KM
from geogrpo.regions.index import default_index

FIVE = [
    answer("sure", PARIS, None, PARIS, PARIS, PARIS, PARIS),
    answer("three of four", PARIS, None, PARIS, PARIS, PARIS, LIMA),
    answer("half abroad", LIMA, None, NAIROBI, NAIROBI, None, None),
    answer("wrong city", LYON, None, PARIS, PARIS, PARIS, LYON),
    answer("nothing", TOKYO, None, None, None, None, None),
]


def measured(predictions: list[HeldOutPrediction], **options: float) -> Uncertainty:
    found = measure_uncertainty(predictions, default_index(), bootstrap_samples=100, **options)  # type: ignore[arg-type]
    assert found is not None
    return found


def test_levels_are_those_found_by_hand() -> None:
    country = measured(FIVE).levels["country"]
    # Shares of the samples in the consensus's country 1, 3/4, 1/2 and 1; right, right, wrong, right
    assert (country.num_images, country.accuracy, country.mean_confidence) == (4, 0.75, 0.8125)
    # Bins of 1 (two images, right), 3/4 (right) and 1/2 (wrong)
    assert country.expected_calibration_error == pytest.approx((0.25 + 0.5) / 4)
    # Surest first, two tied, the one without an answer last
    assert country.aurc == pytest.approx((0 + 0 + 0 + 1 / 4 + 2 / 5) / 5)
    city = measured(FIVE).levels["city"]
    assert (city.num_images, city.accuracy, city.mean_confidence) == (4, 0.5, 0.75)


def test_coverage_of_the_samples_radii_is_that_counted_by_hand() -> None:
    found = measured(FIVE)
    # Radii of 50 %: 0, 0, 0, 0, and the whole Earth where nothing is said. The truth is at 0, 0, far, far, anywhere.
    assert found.coverage_50.value == 0.6
    # Of 90 %: 0, Lima, the whole Earth, Lyon, the whole Earth
    assert found.coverage_90.value == 1.0
    # Least expected distance first; only Lima for Nairobi, Paris for Lyon and nothing for Tokyo are wrong
    assert found.aurc_km == pytest.approx(
        (0 + 392 / 2 + 392 / 3 + (392 + 12_588) / 4 + (392 + 12_588 + FARTHEST_KM) / 5) / 5, rel=0.01
    )


def test_records_hold_what_was_found_and_nothing_that_json_has_not() -> None:
    records = list(image_records(measured(FIVE), FIVE, default_index()))
    assert [record["id"] for record in records] == [p.id for p in FIVE]
    json.dumps(records, allow_nan=False)
    sure, three, half, _, nothing = records
    assert sure["consensus_latlon_deg"] == pytest.approx(PARIS, abs=1e-4)
    assert (sure["num_clusters"], sure["clusters"]) == (1, [1.0])
    assert (three["num_clusters"], three["clusters"]) == (2, [0.75, 0.25])
    assert three["confidence"]["country"] == three["confidence"]["city"] == 0.75
    assert three["expected_km"] == pytest.approx(10_250 / 4, rel=0.01)
    # Samples without coordinates are in no cluster
    assert half["clusters"] == [0.5]
    assert (nothing["consensus_latlon_deg"], nothing["num_clusters"], nothing["clusters"]) == (None, 0, [])
    assert nothing["confidence"] == {"country": None, "state": None, "county": None, "city": None}
    assert nothing["radius_50_km"] == round(FARTHEST_KM, 3)
    for record in records:
        assert record["half"] == ("calibration" if is_calibrated_on(record["id"]) else "observed")


def many(num_images: int = 40) -> list[HeldOutPrediction]:
    """Samples of which the first one, two, three or four of four are right."""
    places = [PARIS, LIMA, NAIROBI, TOKYO]
    found = []
    for i in range(num_images):
        truth, other = places[i % 4], places[(i + 1) % 4]
        samples = [truth] * (1 + i // 4 % 4) + [other] * 4
        found.append(answer(f"image-{i}", truth, truth, *samples[:4]))
    return found


def test_the_half_that_is_observed_changes_nothing_that_was_chosen() -> None:
    predictions = many()
    before = measured(predictions)
    assert before.chosen is not None
    is_calibration = [is_calibrated_on(p.id) for p in predictions]
    assert 10 < sum(is_calibration) < 30
    moved = replace(predictions[0], true_latlon_deg=(0.0, 0.0))
    for flag, expected in ((False, True), (True, False)):
        changed = [
            replace(p, true_latlon_deg=moved.true_latlon_deg) if half == flag else p
            for p, half in zip(predictions, is_calibration, strict=True)
        ]
        assert (measured(changed).chosen == before.chosen) == expected
        assert measured(changed).observed != before.observed


def test_the_order_of_the_images_changes_nothing_that_was_chosen() -> None:
    predictions = many()
    assert measured(predictions).chosen == measured(predictions[::-1]).chosen


def test_an_answer_is_backed_off_to_the_level_that_was_sure_enough() -> None:
    # Paris and Lyon: the country is sure, the city is not
    predictions = [answer(f"image-{i}", PARIS, None, PARIS, PARIS, LYON, LYON, PARIS) for i in range(20)]
    found = measured(predictions, target_accuracy=1.0)
    assert found.chosen is not None
    assert found.chosen.target_accuracy == 1.0
    levels = backed_off_levels(found)
    # All of it is right, so the finest level will do
    assert set(levels) == {"city"}
    wrong = [replace(p, true_latlon_deg=LYON) for p in predictions]
    found = measured(wrong, target_accuracy=1.0)
    assert set(backed_off_levels(found)) == {"country"}
    (name,) = {record["backed_off_name"] for record in image_records(found, wrong, default_index())}
    assert name == "France"


def test_without_two_samples_of_every_image_there_is_nothing_to_say() -> None:
    for samples in ([], [PARIS]):
        assert measure_uncertainty([answer("a", PARIS, PARIS, *samples)], default_index()) is None
    uneven = [answer("a", PARIS, PARIS, PARIS, PARIS), answer("b", PARIS, PARIS, PARIS)]
    assert measure_uncertainty(uneven, default_index()) is None


def test_one_half_without_images_leaves_radii_of_the_samples_alone() -> None:
    found = measured([answer("a", PARIS, PARIS, PARIS, PARIS)])
    assert found.chosen is None
    (record,) = image_records(found, [answer("a", PARIS, PARIS, PARIS, PARIS)], default_index())
    assert (record["conformal_radius_km"], record["scaled_conformal_radius_km"], record["backed_off_level"]) == (
        None,
        None,
        None,
    )


def test_samples_that_say_nothing_have_no_levels_and_their_json_is_finite() -> None:
    found = measured([answer(f"image-{i}", PARIS, None, None, None) for i in range(30)])
    assert found.levels == {}
    written = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert written["chosen"]["back_off"]["threshold"] is None
    assert written["observed"]["back_off_counts"]["none"] == written["observed"]["num_images"]
    assert written["chosen"]["radius_km"] == FARTHEST_KM
    assert written["num_calibration"] + written["observed"]["num_images"] == 30
