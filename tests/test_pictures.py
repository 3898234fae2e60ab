"""What TensorBoard's own reader finds of pictures, charts and texts in a run's event file."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2

import dlexp
from dlexp import pictures
from dlexp.record.probes import QUANTITIES

pytestmark = pytest.mark.usefixtures("drawn")
DRAWN = ["record.images=true", "train.max_steps=12", "record.every=5", "model.width=16"]


def events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"images": 0, "tensors": 0}).Reload()


def images(folder: Path, tag: str) -> dict[int, np.ndarray]:
    """Step -> (H, W, 4)."""
    found = events(folder)
    shown = found.Images(tag) if tag in found.Tags()["images"] else []
    return {one.step: imread(io.BytesIO(one.encoded_image_string)) for one in shown}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return dlexp.run([*DRAWN, "record.graph=true", f"outputs={tmp_path_factory.mktemp('o')}"], quiet=True)


def test_the_signature_is_shown_at_a_few_steps(run: Any) -> None:
    """Recorded are 0, 5, 10 and 11."""
    found = images(run.folder, "layers/signature")
    assert sorted(found) == [0, 5, 11]
    assert len({image.tobytes() for image in found.values()}) == 3
    height, width, _ = found[11].shape
    (event, *_) = events(run.folder).Images("layers/signature")
    assert (event.width, event.height) == (width, height) and width > 2 * height


def test_mistakes_are_shown(run: Any) -> None:
    assert list(images(run.folder, "mistakes/confusion_test")) == [11]
    assert list(images(run.folder, "mistakes/most_wrong_test")) == [11]
    counts = np.array(run.summary["confusion"])
    accuracy = run.summary["metrics"]["accuracy/test"]
    assert counts.sum() == 270 and np.trace(counts) / 270 == pytest.approx(accuracy)


def test_one_event_file_holds_it_all(run: Any) -> None:
    assert len(list(run.folder.glob("events*"))) == 1
    tags = events(run.folder).Tags()
    assert tags["graph"] is True
    assert "how_to_read" in tags["tensors"]


def test_all_layers_of_a_quantity_share_a_chart(run: Any) -> None:
    """The layout names a chart for each quantity, whose pattern finds every layer and nothing else."""
    found = events(run.folder)
    (tensor,) = found.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(tensor.tensor_proto.string_val[0])
    charts = {chart.title: chart for category in layout.category for chart in category.chart}
    assert list(charts) == [*QUANTITIES, "loss"]
    tags = found.Tags()["scalars"]
    for name in QUANTITIES:
        (pattern,) = charts[name].multiline.tag
        drawn = [tag for tag in tags if re.search(pattern, tag)]
        guides = ["update_ratio/guide"] if name == "update_ratio" else []
        assert drawn == [tag for tag in tags if tag.startswith(f"{name}/")]
        assert [tag for tag in drawn if "linear" not in tag] == guides
    assert {scalar.value for scalar in found.Scalars("update_ratio/guide")} == {np.float32(1e-3)}


def test_where_nobody_waits_pictures_take_a_fifth_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ["train.max_steps=2", "record.images=auto", f"outputs={tmp_path}"]
    monkeypatch.setattr(pictures, "SECONDS", 1e9)
    quick = dlexp.run(few, quiet=True)
    assert not images(quick.folder, "layers/signature")
    waited = dlexp.run(few)
    assert sorted(images(waited.folder, "layers/signature")) == [0, 1]
    monkeypatch.undo()
    monkeypatch.setattr("dlexp.pictures.SPARE", 1e6)
    longer = ["train.max_steps=20", *few[1:]]
    assert len(images(dlexp.run(longer, quiet=True).folder, "layers/signature")) == 3
    off = dlexp.run([*few, "record.images=false"])
    assert not events(off.folder).Tags()["images"]


def test_other_tasks_have_no_mistakes_to_show(tmp_path: Path) -> None:
    words = ["data=line", "train.max_steps=2", "record.images=true", f"outputs={tmp_path}"]
    assert events(dlexp.run(words, quiet=True).folder).Tags()["images"] == ["layers/signature"]
    table = dlexp.run(["data=wine", *words[1:]], quiet=True)
    assert "mistakes/most_wrong_test" not in events(table.folder).Tags()["images"]
    assert pictures.class_names(table.summary, 3) == ["class_0", "class_1", "class_2"]


def test_a_diverged_run_has_pictures(tmp_path: Path) -> None:
    words = ["optimizer.lr=1e30", "train.max_steps=9", "record.images=true", f"outputs={tmp_path}"]
    result = dlexp.run(words, quiet=True)
    assert result.summary["status"] == "diverged"
    assert len(images(result.folder, "layers/signature")) >= 2
    assert status_in_hparams(result.folder) == api_pb2.STATUS_FAILURE


def status_in_hparams(folder: Path) -> int:
    content = events(folder).summary_metadata["_hparams_/session_end_info"].plugin_data.content
    return int(plugin_data_pb2.HParamsPluginData.FromString(content).session_end_info.status)


def test_a_run_that_fails_has_pictures_of_what_was_recorded(
    tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But not of mistakes of a network that is half trained; HParams show that it failed."""

    def broken(*_: object) -> None:
        raise ValueError("the disk")

    monkeypatch.setattr("dlexp.runner._look_back", broken)
    with pytest.raises(ValueError, match="the disk"):
        dlexp.run([*DRAWN, f"outputs={tmp_path}"], quiet=True)
    (folder,) = tmp_path.glob("*/*")
    assert sorted(images(folder, "layers/signature")) == [0, 5, 11]
    assert events(folder).Tags()["images"] == ["layers/signature"]
    assert status_in_hparams(folder) == api_pb2.STATUS_FAILURE
    assert status_in_hparams(run.folder) == api_pb2.STATUS_SUCCESS


def test_a_network_that_cannot_be_traced_trains_without_a_graph(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> bytes:
        raise RuntimeError("a loop\nmore")

    monkeypatch.setattr("dlexp.runner.network_graph", refuse)
    result = dlexp.run(["record.graph=true", "train.max_steps=2", f"outputs={tmp_path}"])
    assert result.summary["status"] == "finished"
    assert "graph       cannot be drawn: RuntimeError: a loop" in capsys.readouterr().out


def test_watching_pictures_and_graphs_change_nothing(tmp_path: Path) -> None:
    words = ["train.max_steps=5", "dropout=standard", "normalization=batch", "train.keep_weights=true"]
    outputs = [f"outputs={tmp_path}"]
    with_all = dlexp.run([*words, *outputs, "record.graph=true", "record.images=true"], quiet=True)
    without = dlexp.run([*words, *outputs, "record.images=false"], quiet=True)
    assert with_all.summary["metrics"] == without.summary["metrics"]
    assert (with_all.folder / "records.jsonl").read_bytes() == (without.folder / "records.jsonl").read_bytes()
