"""python -m geogrpo.evaluate: a model, a server and somebody else's predictions on the same images."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from chat_stub import ChatStub
from small_runs import torchrun

from geogrpo import chat_server, evaluate
from geogrpo.config import RunConfig
from geogrpo.config_files import save_config
from geogrpo.evaluation import read_held_out

SHARED_GROUP = pytest.mark.usefixtures("device", "_shared_group")


@pytest.fixture
def _shared_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process group stays for the other tests."""
    monkeypatch.setattr(evaluate, "leave_together", lambda: None)


@pytest.fixture
def recipe(config: RunConfig, tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    save_config(config, path)
    return path


def run(*words: object) -> None:
    evaluate.main([str(word) for word in words])


def error_of(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    with pytest.raises(SystemExit) as stopped:
        run(*words)
    assert stopped.value.code == 2
    return capsys.readouterr().err


@SHARED_GROUP
def test_a_model_is_answered_and_scored(
    recipe: Path, answering_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    run("--model", answering_folder, "--recipe", recipe, "-o", output)
    predictions = read_held_out(output / "predictions.jsonl")
    assert [p.id for p in predictions] == [f"test-{i}.png" for i in range(4)]
    assert all(len(p.sampled_texts) == len(p.sampled_latlon_deg) == 2 for p in predictions)
    results = json.loads((output / "metrics.json").read_text())
    assert results["num_images"] == 4
    within = sum(p.predicted_latlon_deg is not None for p in predictions) / 4
    assert results["tracks"]["coordinates"]["estimates"]["unparseable"]["value"] == pytest.approx(1 - within)
    assert results["tracks"]["samples"]["num_images"] == 8
    assert results["tracks"]["samples"]["estimates"]["mean_km"]["low"] is None
    assert "4 images" in capsys.readouterr().out
    page = (output / "report.html").read_text(encoding="utf-8")
    assert "test-3.png" in page
    assert "Content-Security-Policy" in page
    assert (output / "metrics.md").read_text().startswith("|")
    assert "tabular" in (output / "metrics.tex").read_text()
    assert (output / "figures" / "reliability.png").exists()


@SHARED_GROUP
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(
    recipe: Path, answering_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--model", answering_folder, "--recipe", recipe, "--evaluation.batch_size", 1)
    run(*words, "-o", tmp_path / "whole")
    append, num_appended = evaluate._append, 0

    def dying(*arguments: object) -> None:
        nonlocal num_appended
        num_appended += 1
        if num_appended == 3:
            raise KeyboardInterrupt
        append(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(evaluate, "_append", dying)
    with pytest.raises(KeyboardInterrupt):
        run(*words, "-o", tmp_path / "killed")
    monkeypatch.setattr(evaluate, "_append", append)
    half = tmp_path / "killed" / "predictions.jsonl"
    assert len(read_held_out(half)) == 2
    with half.open("a") as file:
        file.write('{"id": "half a li')
    # Another batch size: it must not matter
    run(*words[:-1], 3, "-o", tmp_path / "killed")
    for name in ("predictions.jsonl", "metrics.json", "uncertainty.jsonl"):
        whole, killed = ((tmp_path / folder / name).read_text() for folder in ("whole", "killed"))
        assert whole.replace('"batch_size": 1', "") == killed.replace('"batch_size": 3', "")


@pytest.mark.slow
@SHARED_GROUP
def test_two_ranks_answer_like_one_in_the_same_order(recipe: Path, answering_folder: Path, tmp_path: Path) -> None:
    words = ("--model", answering_folder, "--recipe", recipe, "--evaluation.batch_size", 1)
    run(*words, "-o", tmp_path / "one")
    done = torchrun(2, "-m", "geogrpo.evaluate", *(str(word) for word in words), "-o", str(tmp_path / "two"))
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("predictions.jsonl", "metrics.json", "uncertainty.jsonl"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@SHARED_GROUP
def test_other_options_are_refused_where_a_run_goes_on(
    recipe: Path, answering_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--model", answering_folder, "--recipe", recipe, "-o", tmp_path / "out")
    run(*words)
    assert "begun with other options" in error_of(capsys, *words, "--seed", 7)
    run(*words, "--seed", 7, "--overwrite")


@SHARED_GROUP
def test_another_checkpoint_in_the_same_folder_or_another_truth_is_refused_where_a_run_goes_on(
    recipe: Path, config: RunConfig, answering_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    shutil.copytree(answering_folder, model)
    words = ("--model", model, "--recipe", recipe, "-o", tmp_path / "out")
    run(*words)
    (weights,) = model.glob("*.safetensors")
    os.utime(weights, (1, 1))
    assert "weights" in error_of(capsys, *words)
    run(*words, "--overwrite")
    test_file = Path(str(config.data.test_path))
    test_file.write_text(test_file.read_text().replace("48.86", "48.87"))
    assert "examples" in error_of(capsys, *words)


@SHARED_GROUP
def test_a_benchmark_is_scored_whole(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """data.num_test is for evaluation while training; without a recipe or run nobody has chosen it."""
    seen: list[int] = []
    original = evaluate.load_held_out
    monkeypatch.setattr(
        evaluate, "load_held_out", lambda data, seed: (seen.append(data.num_test), original(data, seed))[1]
    )
    theirs = tmp_path / "theirs.csv"
    theirs.write_text("id,lat,lon\n" + "".join(f"test-{i}.png,0,0\n" for i in range(4)))
    words = ("--predictions", theirs, "--data.name", "jsonl", "--data.test_path", config.data.test_path)
    run(*words, "-o", tmp_path / "whole")
    run(*words, "--data.num_test", 2, "-o", tmp_path / "part")
    run(*words, "--data.num_test=2", "-o", tmp_path / "part")
    assert seen == [0, 2, 2]
    results = json.loads((tmp_path / "whole" / "metrics.json").read_text())
    assert results["config"]["answers_from"] == {"predictions": str(theirs)}
    assert "model" not in results["config"]


@SHARED_GROUP
@pytest.mark.parametrize(
    "content",
    [
        "IMG_ID,LAT,LON\ntest-0.png,48.86,2.35\ntest-1.png,0,0\ntest-2.png,,\ntest-3.png,-12.05,-77.04\n",
        "id,pred_country,pred_city\ntest-0.png,France,Paris\ntest-1.png,,\ntest-2.png,,\ntest-3.png,Peru,Lima\n",
    ],
)
def test_predictions_of_others_are_scored_without_a_model(
    recipe: Path, tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = tmp_path / "theirs.csv"
    theirs.write_text(content)
    run("--predictions", theirs, "--recipe", recipe, "-o", tmp_path / "out")
    results = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (results["num_unreadable"], results["num_without_prediction"]) == (0, 0)
    (track,) = results["tracks"].values()
    # Paris and Lima are right, to some kilometres where they are found by name
    assert track["estimates"]["within_25_km"]["value"] == 0.5
    assert track["estimates"]["country_accuracy"]["value"] == 0.5


@SHARED_GROUP
@pytest.mark.parametrize("name", ["jsonl", "table"])
def test_predictions_are_scored_where_the_images_are_not_there(name: str, tmp_path: Path) -> None:
    rows = [{"image": f"gone/{i}.jpg", "lat": 48.86, "lon": 2.35} for i in range(3)]
    truth, theirs = tmp_path / "truth.jsonl", tmp_path / "theirs.csv"
    truth.write_text("".join(json.dumps(row) + "\n" for row in rows))
    theirs.write_text("id,lat,lon\n" + "".join(f"gone/{i}.jpg,48.86,2.35\n" for i in range(3)))
    words = ("--data.name", name, "--data.test_path", truth, "-o", tmp_path / "out")
    run("--predictions", theirs, *words, "--data.images", tmp_path / "nowhere")
    results = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert results["num_images"] == 3
    assert results["tracks"]["coordinates"]["estimates"]["within_1_km"]["value"] == 1.0


@SHARED_GROUP
def test_ids_without_a_prediction_are_refused_or_count_as_misses(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = tmp_path / "theirs.jsonl"
    theirs.write_text(
        '{"id": "test-0.png", "predicted_latlon_deg": [48.86, 2.35]}\n{"id": "else", "lat": 1, "lon": 2}\n'
    )
    words = ("--predictions", theirs, "--recipe", recipe, "-o", tmp_path / "out")
    assert "3 of 4 images have no prediction, such as 'test-1.png'" in error_of(capsys, *words)
    run(*words, "--allow-missing")
    results = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert results["num_without_prediction"] == 3
    estimates = results["tracks"]["coordinates"]["estimates"]
    assert (estimates["within_1_km"]["value"], estimates["unparseable"]["value"]) == (0.25, 0.75)
    printed = " ".join(capsys.readouterr().out.split())
    assert "3 images without a prediction count as misses, such as 'test-1.png'" in printed
    assert "1 ids are not in the data, such as 'else'" in printed


@SHARED_GROUP
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "id,lat,lon\nx,1,2\nx,1,2\n", "line 3: id 'x' is also that of line 2"),
        ("a.csv", "id,lat,lon\nx,95,2\n", "line 2: (95.0, 2.0) is no latitude and longitude in degrees. Are latitude"),
        ("a.csv", "id,lat,lon\nx,one,2\n", "line 2: latitude and longitude must be numbers, got 'one'"),
        ("a.csv", "id,lat,lon\nx,1\n", "line 2: has other fields than the header's 3"),
        ("a.csv", "lat,lon\n1,2\n", "line 2: no id"),
        ("a.csv", "id,notes\nx,1\n", "neither coordinates, names nor an answer among the columns ['id', 'notes']"),
        ("a.csv", "id,lat,lon\n", "holds no predictions"),
        ("a.jsonl", "{\n", "line 1: not valid JSON"),
        ("a.jsonl", "[1]\n", "line 1: expected an object"),
        ("a.jsonl", '{"id": 1, "predicted_latlon_deg": [1]}\n', "must be [latitude, longitude] or null, got [1]"),
        ("a.parquet", "", "the name must end in .csv, .tsv, .jsonl"),
        ("a.csv", "id,lat,lon\nother,1,2\n", "no id is one of the data's, such as 'test-0.png'"),
    ],
)
def test_a_bad_file_of_predictions_is_refused_by_its_row(
    recipe: Path, tmp_path: Path, name: str, content: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = tmp_path / name
    theirs.write_text(content)
    words = ("--predictions", theirs, "--recipe", recipe, "-o", tmp_path / "out", "--allow-missing")
    assert message in error_of(capsys, *words)


@SHARED_GROUP
def test_predictions_in_another_encoding_are_refused(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = tmp_path / "theirs.csv"
    theirs.write_bytes("id,country,city\ntest-0.png,Perú,Lima\n".encode("utf-16"))
    words = ("--predictions", theirs, "--recipe", recipe, "-o", tmp_path / "out")
    assert "not UTF-8 text" in error_of(capsys, *words)


@SHARED_GROUP
def test_an_image_that_cannot_be_read_stops_or_is_counted(
    recipe: Path, dataset: Path, answering_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = dataset / "test-1.png"
    picture.write_bytes(picture.read_bytes()[:60])
    words = ("--model", answering_folder, "--recipe", recipe, "-o", tmp_path / "out")
    message = error_of(capsys, *words)
    assert "test-1.png" in message
    assert "--allow-missing" in message
    run(*words, "--allow-missing", "--overwrite")
    assert len(read_held_out(tmp_path / "out" / "predictions.jsonl")) == 3
    assert "test-1.png" in (tmp_path / "out" / "unreadable.jsonl").read_text()
    printed = " ".join(capsys.readouterr().out.split())
    assert "1 images could not be read and are left out; " in printed


@SHARED_GROUP
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--server", "localhost:8000"], "--server must be an http:// or https:// address"),
        (["--predictions", "x.csv", "--server-model", "m"], "--server-model names a model on a server"),
        (["--predictions", "/no/such.csv"], "/no/such.csv: no such file"),
        (["--model", "/no/such/folder"], "/no/such/folder: no such folder"),
        (["--predictions", "x.csv", "--answer.prompt", "riddle"], "answer.prompt 'riddle' is unknown"),
    ],
)
def test_bad_options_are_named(
    recipe: Path, tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in error_of(capsys, *words, "--recipe", recipe, "-o", tmp_path / "out")
    assert not (tmp_path / "out" / "predictions.jsonl").exists()


@SHARED_GROUP
def test_a_server_is_evaluated_like_a_model(
    recipe: Path, answering_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_server, "FIRST_PAUSE_S", 0.01)
    texts = ["Country: France\nCity: Paris\nCoordinates: (48.86, 2.35)", "no idea", "Coordinates: (0, 0)"]
    with ChatStub(greedy_or_samples(texts)) as server:
        server.failures = 2
        run("--server", server.url, "--recipe", recipe, "-o", tmp_path / "out")
        predictions = read_held_out(tmp_path / "out" / "predictions.jsonl")
        assert [p.text for p in predictions] == [texts[0]] * 4
        assert [p.sampled_texts for p in predictions] == [texts[1:]] * 4
        results = json.loads((tmp_path / "out" / "metrics.json").read_text())
        assert results["config"]["answers_from"] == {"server": server.url, "model": "stub"}
        assert all("GPS" not in request and json.loads(request)["model"] == "stub" for request in server.requests)


@SHARED_GROUP
def test_a_server_that_gives_one_answer_at_a_time_is_asked_for_each(recipe: Path, tmp_path: Path) -> None:
    with ChatStub(lambda number: ["Coordinates: (48.86, 2.35)"]) as server:
        run("--server", server.url, "--recipe", recipe, "-o", tmp_path / "out")
        asked = [json.loads(request) for request in server.requests]
    predictions = read_held_out(tmp_path / "out" / "predictions.jsonl")
    assert all(len(p.sampled_texts) == 2 for p in predictions)
    # For each of four images one greedy request, one for both samples and one for the second
    assert sorted(request["n"] for request in asked) == [1] * 8 + [2] * 4
    seeds = [request["seed"] for request in asked if request["temperature"] > 0]
    assert len(set(seeds)) > 4


@SHARED_GROUP
def test_an_answer_without_content_is_a_miss(recipe: Path, tmp_path: Path) -> None:
    with ChatStub(lambda number: [None] * number) as server:
        run("--server", server.url, "--recipe", recipe, "-o", tmp_path / "out")
    predictions = read_held_out(tmp_path / "out" / "predictions.jsonl")
    assert [(p.text, p.predicted_latlon_deg) for p in predictions] == [("", None)] * 4


@SHARED_GROUP
def test_a_server_that_does_not_answer_stops_by_its_example(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(chat_server, "FIRST_PAUSE_S", 0.01)
    with ChatStub(lambda number: ["x"] * number) as server:
        server.failures = 10_000
        message = error_of(capsys, "--server", server.url, "--recipe", recipe, "-o", tmp_path / "out")
    assert "example 'test-" in message
    assert "did not answer in 6 attempt(s); the last: HTTP 500" in message
    assert not read_held_out(tmp_path / "out" / "predictions.jsonl")


def greedy_or_samples(texts: list[str | None]) -> Callable[[int], list[str | None]]:
    """The first text where one is asked for, or as many of the others as samples are."""
    return lambda number: texts[:1] if number == 1 else texts[1 : 1 + number]
