"""Records and rows: reading, checking, holding out, encoding."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from squadron.core.errors import InputError
from squadron.core.folder import Folder, relative
from squadron.core.panels import Table
from squadron.core.profile import WorkerResources
from squadron.core.rows import map_rows
from squadron.core.run import Stage
from squadron.data.records import Label, Record, read_records
from squadron.data.rows import ArrowRows, store_rows, write_rows
from squadron.methods.finetune.config import DataConfig, ObjectiveName, RecordsConfig
from squadron.methods.finetune.encoding import ROW_TYPES, Encode, encoder
from squadron.methods.finetune.examples import EXAMPLE_TYPES, Example, read_example, to_row
from squadron.methods.finetune.records import Dataset, Rows
from squadron.train.models.artifact import ModelArtifact
from squadron.train.objectives.layout import IGNORED
from squadron.train.text.fitting import Fitting, tokens

CHUNK = 4096
"""Records that one task encodes."""


def read_data(stage: Stage, objective: ObjectiveName, data: RecordsConfig) -> Dataset:
    """Read and check every record, and hold some out.

    Nothing is trained before every record was checked. Those held out stand in a file of their own.

    Raises InputError for an empty file, a record that the objective cannot be learned from, and labels of one class or
    of two types.
    """
    found = [(record.where, read_example(objective, data, record)) for record in find_records(data)]
    records = [example for _, example in found]
    if len(records) < 2:
        what = "there are no records" if not records else "there is one record; one more is needed to hold out"
        raise InputError(what, where=data.path or "data.arithmetic", fix="give a file with more records")
    count = min(data.held_out_most, int(data.held_out * len(records)) or int(data.held_out > 0))
    held_out = set(random.Random(data.seed).sample(range(len(records)), count))
    rows = [to_row(example, number, where) for number, (where, example) in enumerate(found)]
    classes = _classes(data, found) if objective == "classification" else ()
    stage.headline("records, and held out", f"{len(rows) - count:,} + {count:,}")
    return Dataset(
        train=store_rows(stage, "train.arrow", (row for row in rows if row["record"] not in held_out), EXAMPLE_TYPES),
        held_out=store_rows(stage, "held_out.arrow", [rows[number] for number in sorted(held_out)], EXAMPLE_TYPES),
        classes=classes,
        chats=any("messages" in record for record in records),
    )


def encode(
    stage: Stage,
    data: Dataset,
    model: ModelArtifact,
    objective: ObjectiveName,
    settings: DataConfig,
    max_length: int | None,
    packing: bool,
) -> Rows:
    """Turn records into token ids, and count what is too long, and what has nothing to learn and is left out.

    Raises InputError if rows are longer than `max_length` and `settings.too_long` is "refuse", and if no row is left
    to train on, or to measure the held-out loss with.
    """
    tasks: list[dict[str, Any]] = [
        {"id": f"{kind}-{start:09d}", "file": file, "start": start, "stop": min(start + CHUNK, count)}
        for kind, file, count in (
            ("train", data.train.path, data.train.count),
            ("held_out", data.held_out.path, data.held_out.count),
        )
        for start in range(0, count, CHUNK)
    ]
    run, limit = stage.run.folder, max_length or model.context
    arguments: dict[str, Any] = {
        "run": run, "folder": stage.folder, "model": model, "objective": objective, "settings": settings,
        "limit": limit, "packing": packing, "classes": data.classes,
    }  # fmt: skip
    answers = map_rows(stage, tasks, encode_chunk, unit="chunk", resources=WorkerResources(), **arguments)
    if failures := stage.failures():
        # An error of ours names the record and what to do; the lines behind it are those of this one.
        said = failures[0]["error"]
        where, fix = ("", "") if "\n  fix:" in said else (str(stage.folder), "give the same command, which tries again")
        raise InputError(
            f"{len(failures)} of {len(tasks)} chunks of records cannot be encoded: {said}", where=where, fix=fix
        )
    fitting = Fitting(limit, settings.too_long, packing)
    for answer in answers:
        fitting.add(answer)
    stage.show(_lengths(answers, fitting))
    if fitting.long and settings.too_long == "refuse":
        raise InputError(
            f"{fitting.long:,} of {fitting.seen:,} rows have more than {limit:,} tokens; "
            f"the longest has {fitting.longest:,}",
            where="training.max_length",
            fix=f"set training.max_length={fitting.longest}, or data.too_long to cut or leave_out",
        )
    place = relative(stage.folder, run)
    named = [(task["id"], answer) for task, answer in zip(tasks, answers, strict=True) if answer["rows"]]
    train = [answer for name, answer in named if name.startswith("train")]
    if not train:
        raise fitting.none_left("to train on", "training.max_length")
    if data.held_out.count and len(train) == len(named):
        raise fitting.none_left("to measure the held-out loss with", "training.max_length", "set data.held_out=0")
    for name, count in fitting.counts().items():
        stage.headline(name, count)
    return Rows(
        train=tuple(f"{place}/{name}.arrow" for name, _ in named if name.startswith("train")),
        held_out=tuple(f"{place}/{name}.arrow" for name, _ in named if name.startswith("held_out")),
        train_rows=sum(answer["rows"] for answer in train),
        held_out_rows=sum(answer["rows"] for name, answer in named if name.startswith("held_out")),
        tokens=sum(answer["tokens"] for answer in train),
        targets=sum(answer["targets"] for answer in train),
        longest=min(fitting.longest, limit),
        too_long=fitting.long,
        nothing_to_learn=fitting.empty,
    )


def encode_chunk(
    task: Mapping[str, Any],
    run: Folder,
    folder: Folder,
    model: ModelArtifact,
    objective: ObjectiveName,
    settings: DataConfig,
    limit: int,
    packing: bool,
    classes: Sequence[Any],
) -> dict[str, Any]:
    """Encode a chunk of records into an Arrow file of its own, and say how long they are. Runs on a worker."""
    fitting = Fitting(limit, settings.too_long, packing, causal=objective != "process_reward")
    encode_record = encoder(objective, settings, model.load_tokenizer(run), classes)
    records = ArrowRows(run, [task["file"]])
    rows, lengths = [], []
    for number in range(task["start"], task["stop"]):
        for row in encode_row(encode_record, records[number]):
            lengths.append(tokens(row, packing))
            if (fitted := fitting.fit(row)) is not None:
                rows.append(fitted)
    write_rows(folder, f"{task['id']}.arrow", rows, ROW_TYPES[objective] | {"number": "int64"})
    return {
        "rows": len(rows),
        "seen": fitting.seen,
        "tokens": sum(row.get("packed_length", row["length"]) for row in rows),
        "targets": sum(_targets(row) for row in rows),
        "long": fitting.long,
        "empty": fitting.empty,
        "longest": fitting.longest,
        "histogram": _histogram(lengths),
    }


def encode_row(encode_record: Encode, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of one record, numbered as it is. Raises InputError, with its place, if it cannot be encoded."""
    try:
        return [encoded | {"number": row["record"]} for encoded in encode_record(row["example"])]
    except InputError as error:
        where = ", ".join(part for part in (row["where"], error.where) if part)
        raise InputError(error.what, where=where, fix=error.fix) from error


def find_records(data: RecordsConfig) -> Iterator[Record]:
    """The records of a file or data set, or word problems by rule where none is named."""
    if data.path is not None:
        yield from read_records(data.path, data.split, data.subset)
        return
    from squadron.data.arithmetic import problems

    world = data.arithmetic
    drawn = problems(world.problems, world.seed, world.fewest_steps, world.most_steps, world.largest)
    for number, problem in enumerate(drawn):
        values = {data.columns.prompt or "prompt": f"{problem.question}\n", data.columns.completion: problem.solution}
        yield Record(f"arithmetic, problem {number}", values)


def _classes(data: RecordsConfig, found: Sequence[tuple[str, Example]]) -> tuple[Label, ...]:
    """The labels, in order. All are texts, numbers, or true and false: `1`, `"1"` and `true` may be three classes, or
    one, which nobody but their author knows."""
    first = found[0][1]["label"]
    for where, example in found:
        if _kind(label := example["label"]) != _kind(first):
            what = f"the label {label!r:.60} is {_kind(label)}, that of the first record, {first!r:.60}, {_kind(first)}"
            raise InputError(what, where=where, fix="write all labels as texts, or all as numbers")
    labels = sorted({example["label"] for _, example in found})
    if len(labels) < 2:
        fix = "set data.columns.label"
        raise InputError(f"all records have the same label, {first!r:.60}", where=data.path or "", fix=fix)
    return tuple(labels)


def _kind(label: Label) -> str:
    return "a text" if isinstance(label, str) else "true or false" if isinstance(label, bool) else "a number"


def _targets(row: Mapping[str, Any]) -> int:
    if "labels" in row:
        return sum(label != IGNORED for label in row["labels"])
    return sum(len(row[name]) for name in ("chosen_ids", "rejected_ids") if name in row) or 1


def _histogram(lengths: Sequence[int]) -> dict[str, int]:
    """Rows by the power of two that their length reaches."""
    counts: dict[str, int] = {}
    for length in lengths:
        bound = str(1 << max(0, length - 1).bit_length())
        counts[bound] = counts.get(bound, 0) + 1
    return counts


def _lengths(answers: Sequence[Mapping[str, Any]], fitting: Fitting) -> Table:
    counts: dict[int, int] = {}
    for answer in answers:
        for bound, count in answer["histogram"].items():
            counts[int(bound)] = counts.get(int(bound), 0) + count
    rows: list[list[Any]] = [
        [f"up to {bound:,}", counts[bound], f"{counts[bound] / fitting.seen:.1%}"] for bound in sorted(counts)
    ]
    note = "; ".join(f"{name}: {count}" for name, count in fitting.counts().items())
    return Table(title="Rows by length", columns=["tokens", "rows", "share"], rows=rows, note=note)
