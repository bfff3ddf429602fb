"""The tracks of answers, and what is measured on all of them at once."""

import dataclasses
import math

import pytest
from evaluation.answering import LIMA, LYON, PARIS, answer, by_id
from geogrpo_kernels import EARTH_RADIUS_KM

from geogrpo.evaluation.findings import Measures, measure
from geogrpo.evaluation.osv import LABELS
from geogrpo.evaluation.scores import answer_points, score_tracks
from geogrpo.metrics import OSV_LEVELS, Protocol, osv_index
from geogrpo.regions.index import default_index


def test_the_consensus_is_the_answer_that_is_near_most_samples() -> None:
    points = answer_points([answer("a", PARIS, LIMA, PARIS, PARIS, LYON), answer("b", LIMA, None, None, LIMA, LIMA)])
    assert list(points) == ["coordinates", "consensus"]
    assert points["consensus"][0] == pytest.approx(PARIS, abs=1e-3)
    assert points["consensus"][1] == pytest.approx(LIMA, abs=1e-3)


def test_one_sample_or_uneven_ones_have_no_consensus() -> None:
    assert list(answer_points([answer("a", PARIS, PARIS, PARIS)])) == ["coordinates"]
    uneven = [answer("a", PARIS, PARIS, PARIS, PARIS), answer("b", LIMA, LIMA)]
    assert list(answer_points(uneven)) == ["coordinates"]


def test_every_sample_is_measured_by_the_label_of_its_image() -> None:
    pytest.importorskip("reverse_geocoder", reason="reverse_geocoder is not installed")
    predictions = [answer("a", PARIS, PARIS, PARIS, LYON, LIMA), answer("b", LIMA, LIMA, LIMA, LIMA, PARIS)]
    labels = {f"unique_{level}": ["FR", "PE"] for level in OSV_LEVELS}
    scored = score_tracks(predictions, index=default_index(), osv_index=osv_index(), osv_labels=labels, num_samples=10)
    samples = scored["samples"]
    assert (samples.num_images, samples.estimates["osv_country"].value) == (6, pytest.approx(4 / 6))
    # Samples of an image resemble each other
    assert math.isnan(samples.estimates["osv_country"].low)


def test_floors_are_measured_as_the_answers_are() -> None:
    predictions = [answer("a", PARIS, LYON), answer("b", LIMA, LIMA)]
    found = [
        measure(predictions, by_id(predictions), Measures(protocol, 10, seed=0), default_index())
        for protocol in (Protocol(), Protocol(earth_radius_km=6300))
    ]
    ratio = 6300 / EARTH_RADIUS_KM
    for floors in (lambda f: f.floors.random["mean_km"], lambda f: f.floors.constant["mean_km"].value):
        assert floors(found[1]) == pytest.approx(floors(found[0]) * ratio)
    assert found[0].to_json()["osv_labels"] is None


def test_where_the_labels_of_osv5m_are_from_is_said() -> None:
    pytest.importorskip("reverse_geocoder", reason="reverse_geocoder is not installed")
    predictions = [answer("a", PARIS, LYON)]
    measures = Measures(Protocol(), 10, seed=0, use_osv=True)
    columns = dict.fromkeys(LABELS, "FR")
    for examples, expected in ((by_id(predictions), "coordinates"), (by_id(predictions, **columns), "columns")):
        assert measure(predictions, examples, measures, default_index()).osv_labels_from == expected


def test_a_model_that_fails_at_coordinates_keeps_their_track() -> None:
    failed = [answer("a", PARIS, None)]
    named = [dataclasses.replace(failed[0], country="France", city="Paris")]
    assert list(answer_points(named)) == ["coordinates", "names"]
    assert list(answer_points(named, may_be_names_only=True)) == ["names"]
