"""What is on disk can be read back, by strict readers, and says what was measured."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

import dlexp
from dlexp.record.probes import INDEX, QUANTITIES
from dlexp.record.sinks import MetricLines, RecordLines, Row
from dlexp.record.tensorboard import TensorBoard
from dlexp.report.load import Run

LAYERS = ["01_linear", "02_linear", "03_linear"]
QUICK = ("train.max_steps=12", "model.width=16", "record.every=5", "device=cpu", "threads=1")


def row(step: int = 0, loss: float = 2.25, reasons: dict[tuple[int, int], str] | None = None) -> Row:
    """A step with a different number everywhere."""
    table = np.arange(1.0, 1 + len(QUANTITIES) * len(LAYERS)).reshape(len(QUANTITIES), -1) / 3 + step
    for place in reasons or {}:
        table[place] = math.nan
    return Row(step, {"loss": loss, "accuracy": 0.125}, table, reasons or {})


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def strict(line: str) -> dict[str, Any]:
    """JSON as the standard has it: no NaN, no Infinity, no key twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)

    found = json.loads(line, parse_constant=refuse, object_pairs_hook=unique)
    assert isinstance(found, dict)
    return found


def written(folder: Path, *rows: Row) -> list[dict[str, Any]]:
    """The lines of records.jsonl for these rows, without the header."""
    lines = RecordLines(folder / "records.jsonl", LAYERS, QUANTITIES)
    lines.rows(rows)
    lines.close()
    return [strict(line) for line in (folder / "records.jsonl").read_text().splitlines()][1:]


def test_the_header_names_layers_and_quantities(tmp_path: Path) -> None:
    """It is there before the first step."""
    RecordLines(tmp_path / "r", LAYERS, QUANTITIES).close()
    assert strict((tmp_path / "r").read_text()) == {"layers": LAYERS, "quantities": list(QUANTITIES)}


def test_a_line_has_an_entry_for_each_layer(tmp_path: Path) -> None:
    """step, loss, accuracy, and each quantity with one number a layer, to seven digits."""
    given = row(7)
    (line,) = written(tmp_path, given)
    assert list(line) == ["step", "loss", "accuracy", *QUANTITIES]
    assert (line["step"], line["loss"], line["accuracy"]) == (7, 2.25, 0.125)
    for q, name in enumerate(QUANTITIES):
        assert line[name] == pytest.approx(given.table[q], rel=1e-6)


def test_null_stands_only_beside_a_reason(tmp_path: Path) -> None:
    """A number that is absent is null, and `reasons` says why, layer by layer; others have none."""
    dead = INDEX["dead_fraction"]
    (line,) = written(tmp_path, row(0, 2.25, {(dead, 2): "no activation"}))
    assert line["dead_fraction"][2] is None
    assert line["reasons"] == {"dead_fraction": [None, None, "no activation"]}
    assert None not in [*line["dead_fraction"][:2], *line["grad_norm"]]


@pytest.mark.parametrize(("x", "word"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")])
def test_a_number_that_is_not_finite_is_null_with_its_name(tmp_path: Path, x: float, word: str) -> None:
    """In the table and in the loss; reasons that were there stay."""
    dead, grad = INDEX["dead_fraction"], INDEX["grad_norm"]
    bad = row(3, x, {(dead, 2): "no activation"})
    bad.table[grad, 1] = x
    (line,) = written(tmp_path, bad)
    assert line["loss"] is None
    assert line["grad_norm"][1] is None
    assert line["grad_norm"][0] == pytest.approx(bad.table[grad, 0])
    assert line["reasons"] == {
        "loss": word,
        "grad_norm": [None, word, None],
        "dead_fraction": [None, None, "no activation"],
    }


def test_a_reason_may_hold_any_text(tmp_path: Path) -> None:
    """Percent signs and quotes pass through."""
    (line,) = written(tmp_path, row(0, 2.25, {(0, 0): '100 % "no" \\ é'}))
    assert line["reasons"]["grad_norm"][0] == '100 % "no" \\ é'


def test_rows_with_and_without_gaps_may_alternate(tmp_path: Path) -> None:
    """Each line has its own gaps, not those of the line before."""
    gap = {(0, 1): "no gradient"}
    other = {(2, 0): "the layer did not run, or returned no tensor"}
    rows = [row(0), row(1, 1.0, gap), row(2, 1.0, gap), row(3), row(4, math.nan, other), row(5, 1.0, other)]
    lines = written(tmp_path, *rows)
    assert [line.get("reasons", {}).keys() for line in lines] == [
        set(),
        {"grad_norm"},
        {"grad_norm"},
        set(),
        {"activation_rms", "loss"},
        {"activation_rms"},
    ]
    for line, given in zip(lines, rows, strict=True):
        here = [[x is not None for x in line[name]] for name in QUANTITIES]
        assert here == [[(q, i) not in given.reasons for i in range(3)] for q in range(len(QUANTITIES))]


def test_very_small_and_very_large_numbers_survive(tmp_path: Path) -> None:
    """1e-300 is not 0, 1e300 is a number."""
    extreme = row()
    extreme.table[0] = [1e-300, 1e300, 0.0]
    (line,) = written(tmp_path, extreme)
    assert line["grad_norm"] == pytest.approx([1e-300, 1e300, 0.0], rel=1e-6, abs=0)


def test_a_line_does_not_depend_on_those_written_with_it(tmp_path: Path) -> None:
    """When lines reach the disk is for the clock to say, and what stands in them is not."""
    extreme = row()
    extreme.table[0] = [1e-300, 1e300, 0.1]
    together, alone = (RecordLines(tmp_path / name, LAYERS, QUANTITIES) for name in ("t", "a"))
    together.rows([row(), extreme, row()])
    for one in (row(), extreme, row()):
        alone.rows([one])
    together.close()
    alone.close()
    assert (tmp_path / "t").read_bytes() == (tmp_path / "a").read_bytes()


def test_files_go_on_from_a_length(tmp_path: Path) -> None:
    """What was written behind it, half a line too, is gone; nothing before it is touched."""
    for name in ("whole", "torn"):
        (tmp_path / name).mkdir()

    def sinks(name: str, lengths: dict[str, int]) -> list[RecordLines | MetricLines]:
        paths = [tmp_path / name / file for file in ("r", "m")]
        return [
            RecordLines(paths[0], LAYERS, QUANTITIES, lengths.get("r")),
            MetricLines(paths[1], lengths.get("m")),
        ]

    whole, torn = sinks("whole", {}), sinks("torn", {})
    for written in (whole, torn):
        for sink in written:
            sink.rows([row()])
            sink.scalars(4, {"loss/validation": 0.5})
    lengths = {sink.name: sink.length() for sink in torn}
    for sink in torn:
        sink.rows([row()])
        sink.scalars(5, {"loss/validation": 0.25})
        sink.close()
    with (tmp_path / "torn" / "r").open("ab") as file:
        file.write(b'{"step": ')
    for sink in [*sinks("torn", lengths), *whole]:
        sink.rows([row()])
        sink.scalars(6, {"loss/validation": 0.125})
        sink.close()
    for file_name in ("r", "m"):
        found = [(tmp_path / name / file_name).read_bytes() for name in ("whole", "torn")]
        assert found[0] == found[1] and len(found[0].splitlines()) >= 2


def test_lines_are_on_disk_at_once(tmp_path: Path) -> None:
    """A run that is killed keeps what it recorded."""
    lines = RecordLines(tmp_path / "r", LAYERS, QUANTITIES)
    metrics = MetricLines(tmp_path / "m")
    lines.rows([row()])
    metrics.scalars(4, {"loss/validation": 0.5})
    assert len((tmp_path / "r").read_text().splitlines()) == 2
    assert strict((tmp_path / "m").read_text()) == {"step": 4, "loss/validation": 0.5}
    lines.close()
    metrics.close()


def test_metrics_that_are_not_finite_are_null(tmp_path: Path) -> None:
    """metrics.jsonl is strict JSON too."""
    metrics = MetricLines(tmp_path / "m")
    metrics.scalars(4, {"loss/validation": math.nan, "accuracy/validation": 0.5})
    metrics.close()
    assert strict((tmp_path / "m").read_text()) == {
        "step": 4,
        "loss/validation": None,
        "accuracy/validation": 0.5,
        "reasons": {"loss/validation": "nan"},
    }


def test_a_record_is_never_overwritten(tmp_path: Path) -> None:
    """A second sink on the same file is refused."""
    RecordLines(tmp_path / "r", LAYERS, QUANTITIES).close()
    with pytest.raises(FileExistsError):
        RecordLines(tmp_path / "r", LAYERS, QUANTITIES)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A real run of 12 steps, recorded at 0, 5, 10 and 11."""
    return dlexp.run([*QUICK, f"outputs={tmp_path_factory.mktemp('outputs')}"], quiet=True)


def event_file(folder: Path) -> Path:
    (found,) = folder.rglob("*tfevents*")
    return found


def raw_events(path: Path) -> list[bytes]:
    """The events of a TFRecord file; lengths and checksums as TensorBoard's own code has them."""
    data, events = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        event, rest = data[12 : 12 + length], data[12 + length :]
        assert struct.unpack("<I", data[8:12])[0] == masked_crc32c(data[:8])
        assert struct.unpack("<I", rest[:4])[0] == masked_crc32c(event)
        events.append(event)
        data = rest[4:]
    return events


def summaries(path: Path) -> list[Event]:
    """The events that hold scalars."""
    events = [Event.FromString(data) for data in raw_events(path)]
    return [e for e in events if any(v.HasField("simple_value") for v in e.summary.value)]


def recorded_lines(run: Run) -> list[dict[str, Any]]:
    return [strict(line) for line in (run.folder / "records.jsonl").read_text().splitlines()][1:]


def test_a_run_records_the_scheduled_steps_as_strict_json(run: Run) -> None:
    """One line a scheduled step; every null has its reason and no reason stands beside a number."""
    header = strict((run.folder / "records.jsonl").read_text().splitlines()[0])
    lines = recorded_lines(run)
    assert [line["step"] for line in lines] == [0, 5, 10, 11]
    for line in lines:
        for name in header["quantities"]:
            reasons = line.get("reasons", {}).get(name, [None] * len(header["layers"]))
            assert len(line[name]) == len(header["layers"])
            assert [x is None for x in line[name]] == [why is not None for why in reasons]


def test_checksums_and_first_event_are_as_tensorboard_wants_them(run: Run) -> None:
    """A TFRecord file of version 2, with valid checksums throughout."""
    events = raw_events(event_file(run.folder))
    assert Event.FromString(events[0]).file_version == "brain.Event:2"
    assert len(events) > 5


def test_all_scalars_of_a_step_are_in_one_event_and_equal_the_lines(run: Run) -> None:
    """grad_norm/01_linear and so on, in the order of quantities and layers, as in records.jsonl."""
    header = strict((run.folder / "records.jsonl").read_text().splitlines()[0])
    lines = recorded_lines(run)
    events = [e for e in summaries(event_file(run.folder)) if e.summary.value[0].tag == "loss/train"]
    assert [e.step for e in events] == [line["step"] for line in lines]
    evaluated = run.metrics.set_index("step").T.to_dict()
    for event, line in zip(events, lines, strict=True):
        wanted = {"loss/train": line["loss"], "accuracy/train": line["accuracy"]}
        for name in header["quantities"]:
            named = zip(header["layers"], line[name], strict=True)
            wanted |= {f"{name}/{layer}": x for layer, x in named if x is not None}
        wanted["update_ratio/guide"] = 1e-3
        wanted |= {tag: x for tag, x in evaluated.pop(line["step"], {}).items() if x == x}
        assert [v.tag for v in event.summary.value] == list(wanted)
        assert {v.tag: v.simple_value for v in event.summary.value} == pytest.approx(wanted, rel=1e-6)
    assert "grad_norm/01_linear" in wanted and "loss/validation" in wanted and "loss/test" in wanted
    alone = [e for e in summaries(event_file(run.folder)) if e.summary.value[0].tag == "loss/validation"]
    assert [e.step for e in alone] == list(evaluated)


def test_tensorboard_finds_scalars_text_and_hyperparameters_in_one_file(run: Run) -> None:
    """Its own reader shows the learning curve, the config and the HParams; no second run beside it."""
    folders = {path for path in run.folder.rglob("*") if path.is_dir()}
    assert folders == {run.folder / ".hydra"}
    reader = event_accumulator.EventAccumulator(str(run.folder), size_guidance={"scalars": 0, "tensors": 0})
    reader.Reload()
    tags = reader.Tags()
    whole = {"loss/train", "loss/validation", "loss/test", "accuracy/validation", "accuracy/test"}
    assert whole <= set(tags["scalars"])
    assert [event.step for event in reader.Scalars("delta_rms/04_linear")] == [0, 5, 10, 11]
    assert reader.Scalars("loss/test")[-1].value == pytest.approx(run.summary["metrics"]["loss/test"])
    (text,) = reader.Tensors("config")
    assert "train.max_steps=12" in text.tensor_proto.string_val[0].decode()
    assert reader.PluginTagToContent("text").keys() == {"config", "diagnosis", "how_to_read"}
    assert reader.PluginTagToContent("hparams").keys() == {
        "_hparams_/experiment",
        "_hparams_/session_start_info",
        "_hparams_/session_end_info",
    }


def test_hyperparameters_are_the_words_of_the_command_line(run: Run) -> None:
    """The HParams of the run hold its choices and values, and name metrics that exist."""
    from tensorboard.plugins.hparams import metadata

    reader = event_accumulator.EventAccumulator(str(run.folder))
    reader.Reload()
    contents = reader.PluginTagToContent("hparams")
    start = metadata.parse_session_start_info_plugin_data(contents["_hparams_/session_start_info"])
    assert start.hparams["activation"].string_value == run.summary["choices"]["activation"]
    assert start.hparams["model.width"].number_value == 16
    assert not {"outputs", "device"} & set(start.hparams)
    experiment = metadata.parse_experiment_plugin_data(contents["_hparams_/experiment"])
    assert {info.name.tag for info in experiment.metric_infos} <= set(reader.Tags()["scalars"])


def test_tensorboard_shows_numbers_that_are_not_finite(tmp_path: Path) -> None:
    """NaN and infinity stay what they are in an event; absent numbers have no value in it."""
    board = TensorBoard(tmp_path, LAYERS, QUANTITIES)
    bad = row(2, math.nan, {(1, 0): "no gradient"})
    bad.table[0, 0], bad.table[0, 1] = math.inf, 1e300
    board.rows([bad, row(3)])
    board.close()
    first, second = summaries(event_file(tmp_path))
    values = {v.tag: v.simple_value for v in first.summary.value}
    assert math.isnan(values["loss/train"])
    assert values["grad_norm/01_linear"] == math.inf
    assert "delta_rms/01_linear" not in values
    assert len(second.summary.value) == len(first.summary.value) + 1


def test_without_tensorboard_there_is_no_event_file(tmp_path: Path) -> None:
    """record.tensorboard=false writes the records alone."""
    found = dlexp.run([*QUICK, "record.tensorboard=false", f"outputs={tmp_path}"], quiet=True)
    assert not list(found.folder.rglob("*tfevents*"))
    assert len(recorded_lines(found)) == 4
