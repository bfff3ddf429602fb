"""A folder of photographs or a table -> a JSONL file of Chain of Region labels.

The output depends on the input and the options only: not on the number of workers, nor on how often the run was killed
and started again.
"""

import json
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from importlib import metadata
from itertools import islice
from pathlib import Path

from geogrpo.labelling.labeller import MIXED, ChainStyle, Labeller
from geogrpo.labelling.languages import INDEX_LANGUAGE, check_languages
from geogrpo.labelling.photographs import Photographs, find_photographs
from geogrpo.labelling.rows import BATCH_ROWS, Batch, Problem, Source
from geogrpo.labelling.solved import DROP_WITHIN_KM, SOLVED_WITHIN_KM, SolvedPlaces, read_solved
from geogrpo.labelling.tables import Table, file_identity
from geogrpo.labelling.workers import Workers
from geogrpo.regions.chain import CHAIN_TEMPLATES
from geogrpo.regions.index import RegionIndex, default_index
from geogrpo.regions.names import names_version
from geogrpo.resumable import NUM_EXAMPLES, Record, ResumableFiles, record_path

MAX_DECIMALS = 10
_ENCODE = json.JSONEncoder(ensure_ascii=False).encode


@dataclass(frozen=True)
class LabelJob:
    """What to label, and how.

    Raises:
        ValueError: naming the option at fault.
    """

    input: Path
    """A folder of photographs, or a table: .csv, .tsv, .jsonl (each also .gz), .parquet."""
    output: Path
    """.jsonl, as `--data.name jsonl` reads it."""
    style: ChainStyle = field(default_factory=ChainStyle)
    index: Path | None = None
    """A file of `python -m geogrpo.regions build`; None for GeoNames' nearest places."""
    lat: str | None = None
    """Columns of a table; None for those whose names say so."""
    lon: str | None = None
    image: str | None = None
    images: Path | None = None
    """What a table's relative image paths are relative to; None for its own folder."""
    check_images: bool = False
    """Whether every image is read to its end."""
    solved: Path | None = None
    """Predictions or a table of places that a model solves; None keeps all rows."""
    solved_within_km: float = SOLVED_WITHIN_KM
    drop_within_km: float = DROP_WITHIN_KM
    skipped: Path | None = None
    """A JSONL file of the rows that became no example; None for none."""
    num_workers: int = 1
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.output.suffix.lower() != ".jsonl":
            raise ValueError(f"{self.output}: the name of the output must end in .jsonl.")
        if self.style.template not in (*CHAIN_TEMPLATES, MIXED):
            raise ValueError(
                f"--template must be one of {', '.join((*CHAIN_TEMPLATES, MIXED))}, got {self.style.template!r}."
            )
        if not self.style.languages or len(set(self.style.languages)) < len(self.style.languages):
            raise ValueError(f"--language must be different codes, got {','.join(self.style.languages)!r}.")
        if not 0 <= self.style.decimals <= MAX_DECIMALS:
            raise ValueError(f"--decimals must be from 0 to {MAX_DECIMALS}, got {self.style.decimals}.")
        for option, distance_km in (("solved", self.solved_within_km), ("drop", self.drop_within_km)):
            if not 0 <= distance_km < float("inf"):
                raise ValueError(f"--{option}-within-km must be a distance from 0, got {distance_km}.")
        if self.num_workers < 1:
            raise ValueError(f"--workers must be at least 1, got {self.num_workers}.")
        check_languages(self.style.languages)
        self._check_files()

    def _check_files(self) -> None:
        if not self.input.exists():
            raise ValueError(f"{self.input}: no such file or folder.")
        if self.input.is_dir():
            given = [name for name in ("lat", "lon", "image", "images") if getattr(self, name) is not None]
            if given:
                raise ValueError(f"--{given[0]} is of tables, and {self.input} is a folder of photographs.")
        written = [self.output, record_path(self.output), *([self.skipped] if self.skipped else [])]
        read = [path for path in (self.input, self.index, self.solved) if path is not None]
        places = [path.resolve() for path in written + read]
        for i, path in enumerate(written):
            if places[i] in places[i + 1 :]:
                raise ValueError(f"{path}: one file cannot be written and read, or written twice.")


@dataclass(frozen=True)
class LabelReport:
    """What became of the rows, earlier runs' included."""

    record: Record
    num_rows_before: int
    """Of the rows, done by earlier runs."""
    num_solved_places: int | None
    attributions: list[str]


def write_labels(
    job: LabelJob, on_progress: Callable[[int, int, int], None] = lambda num_rows, done, size: None
) -> LabelReport:
    """Label all rows, or those that an earlier run with the same options has left.

    Args:
        on_progress: called after each batch with the rows done, and how much of the input that is (bytes or files).
    Raises:
        ValueError: naming the file, and the row where there is one. What is written by then stays, to go on from.
    """
    with ExitStack() as stack:
        workers, source = _opened_source(job)
        stack.callback(workers.close)
        stack.enter_context(closing(source))
        index = RegionIndex.load(job.index) if job.index else default_index()
        # Before the output is begun: a mistake there must leave no files of other options.
        solved = SolvedPlaces(read_solved(job.solved, job.solved_within_km)) if job.solved else None
        files = ResumableFiles(job.output, job.skipped, _options(job, source, index), overwrite=job.overwrite)
        stack.enter_context(closing(files))
        labeller = Labeller(
            index,
            job.style,
            workers=workers,
            solved=solved,
            drop_within_km=job.drop_within_km,
            image_folder=job.output.parent if job.check_images else None,
        )
        num_rows_before = files.record.num_rows
        if not files.record.is_complete:
            _know_written_ids(labeller, files)
            _label_batches(source, labeller, files, on_progress)
        num_places = solved.num_places if solved else None
        return LabelReport(files.record, num_rows_before, num_places, index.info.attributions)


def _opened_source(job: LabelJob) -> tuple[Workers, Source]:
    if not job.input.is_dir():
        table = Table(
            job.input, job.images or job.input.parent, job.output.parent, lat=job.lat, lon=job.lon, image=job.image
        )
        return Workers(job.num_workers if job.check_images else 1, None), table
    workers = Workers(job.num_workers, len(find_photographs(job.input)))
    return workers, Photographs(job.input, job.output.parent, workers)


def _options(job: LabelJob, source: Source, index: RegionIndex) -> dict[str, object]:
    """All that the output depends on, JSON-ready, under the names that an error shows."""
    is_translated = any(language != INDEX_LANGUAGE for language in job.style.languages)
    return {
        "input": str(job.input.resolve()),
        "content": source.identity,
        "columns": [job.lat, job.lon, job.image],
        "--images": str(job.images.resolve()) if job.images else None,
        "--template": job.style.template,
        "--language": ",".join(job.style.languages),
        "--decimals": job.style.decimals,
        "--index": index.sha256,
        "--check-images": job.check_images,
        "--skipped": str(job.skipped.resolve()) if job.skipped else None,
        "--solved": file_identity(job.solved) if job.solved and job.solved.is_file() else None,
        "--solved-within-km": job.solved_within_km if job.solved else None,
        "--drop-within-km": job.drop_within_km if job.solved else None,
        "names": names_version() if is_translated else None,
        "geogrpo": metadata.version("geogrpo"),
        "batch rows": BATCH_ROWS,
    }


def _know_written_ids(labeller: Labeller, files: ResumableFiles) -> None:
    lines = files.written_lines()
    while some := list(islice(lines, BATCH_ROWS)):
        labeller.know([json.loads(line)["id"] for line in some])


def _label_batches(
    source: Source, labeller: Labeller, files: ResumableFiles, on_progress: Callable[[int, int, int], None]
) -> None:
    record = files.record
    for batch in source.batches(record.num_rows):
        labels = labeller.label(batch)
        skipped = sorted(labels.problems.items())
        files.append(labels.lines, [_skipped_line(batch, row, problem) for row, problem in skipped])
        record.num_rows += len(batch)
        record.num_written += len(labels.lines)
        for row, problem in skipped:
            record.skipped[problem.reason] = record.skipped.get(problem.reason, 0) + 1
            examples = record.examples.setdefault(problem.reason, [])
            if len(examples) < NUM_EXAMPLES:
                examples.append(_in_words(batch, row, problem))
        assert record.num_rows == record.num_written + record.num_skipped, "a row was lost or counted twice"
        files.commit()
        on_progress(record.num_rows, source.done, source.size)
    record.is_complete = True
    files.commit()


def _skipped_line(batch: Batch, row: int, problem: Problem) -> str:
    where = batch.where(row)
    record = {"row": where, "id": batch.ids[row], "reason": problem.reason, "detail": problem.detail}
    # A file's name that is not UTF-8 comes as half surrogate pairs.
    return _ENCODE(record).encode("utf-8", "backslashreplace").decode() + "\n"


def _in_words(batch: Batch, row: int, problem: Problem) -> str:
    where = batch.where(row)
    # Of a photograph the row is the file, which most details name already.
    text = problem.detail if problem.detail.startswith(where) else f"{where}: {problem.detail}".removesuffix(": ")
    return f"{text:.200}".encode("utf-8", "backslashreplace").decode()
