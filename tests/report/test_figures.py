"""Pictures of sweeps: what is drawn, number by number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from sweeps import declare, failed, job, layers, scores, unfinished

from dlexp.errors import UserError
from dlexp.plots import arms, style
from dlexp.plots import colours as swept_colours
from dlexp.plots.style import apart, ink, thinned
from dlexp.plots.swept import MOST_LABELS, MOST_LINES, Values
from dlexp.report.figures import draw, draw_run, picture
from dlexp.report.load import Run
from dlexp.report.sweep import Sweep

PROFILES = {"sigmoid": (1e-6, 1e-4, 1e-2), "relu": (1e-2, 1e-2, 1e-2)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """activation x depth x seed; the deeper networks have a layer more."""
    declare(tmp_path, ["activation=sigmoid,relu", "model.depth=2,3"], ["activation", "model.depth", "seed"])
    for activation, deltas in PROFILES.items():
        for depth in (2, 3):
            for seed in (0, 1):
                own = [x * 4**seed for x in deltas] + [1.0] * (depth - 2)
                words = [f"activation={activation}", f"model.depth={depth}", f"seed={seed}"]
                job(tmp_path, words, metrics=scores(depth / 10 + seed / 100), layers=layers(*own))
    return tmp_path


def panels(sweep: Path, key: str) -> list[Any]:
    """Metric and profile beside each other, or all metrics and then all profiles."""
    return picture(Sweep(sweep), key).axes


def dots(axes: Any) -> list[tuple[float, float]]:
    """Where they are; what has segments is a bar."""
    groups = [drawn for drawn in axes.collections if not hasattr(drawn, "get_segments")]
    return [(float(x), float(y)) for group in groups for x, y in group.get_offsets()]


def texts(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.texts]


def colours(axes: Any) -> dict[str, Any]:
    """Label -> colour of what stands beside lines."""
    return {text.get_text(): matplotlib.colors.to_hex(text.get_color()) for text in axes.texts}


def test_a_picture_for_each_swept_key(folder: Path) -> None:
    """But the seed; whole PNG files of a size for a slide."""
    paths = draw(Sweep(folder))
    assert [path.name for path in paths] == ["by_activation.png", "by_model.depth.png"]
    for path in paths:
        assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and path.stat().st_size > 20_000
    assert not list(folder.glob(".*"))


def test_only_seeds_are_a_picture_as_well(tmp_path: Path) -> None:
    """How much chance does."""
    for seed in range(3):
        job(tmp_path, [f"seed={seed}"])
    assert [path.name for path in draw(Sweep(tmp_path))] == ["by_seed.png"]


def test_other_keys_stand_side_by_side(folder: Path) -> None:
    """A column for each value, named; dots are runs, bars their means."""
    left, right, *_ = panels(folder, "activation")
    assert [left.get_title(), right.get_title()] == ["model.depth=2", "model.depth=3"]
    assert [y for _, y in dots(left)] == pytest.approx([0.2, 0.21] * 2)
    assert [round(x) for x, _ in dots(left)] == [0, 0, 1, 1]
    bars = [collection for collection in left.collections if hasattr(collection, "get_segments")]
    assert [segment[0][1] for bar in bars for segment in bar.get_segments()] == pytest.approx([0.205] * 2)
    assert left.get_ylabel() == "accuracy on validation (higher is better)"
    assert left.get_ylim() == right.get_ylim()


def test_profiles_are_geometric_means(folder: Path) -> None:
    """A line for each value over the layers, on a log scale, as numpy says."""
    *_, shallow, deep = panels(folder, "activation")
    for axes, more in ((shallow, []), (deep, [1.0])):
        assert axes.get_yscale() == "log"
        for line, deltas in zip(axes.lines, PROFILES.values(), strict=True):
            runs = np.log([[x * 4**seed for x in deltas] + more for seed in (0, 1)])
            np.testing.assert_allclose(line.get_ydata(), np.exp(runs.mean(0)))
            assert list(line.get_xdata()) == list(range(1, 4 + len(more)))


def test_profiles_of_different_length(folder: Path) -> None:
    """Depth swept: each line ends at its last layer."""
    *_, sigmoid, _ = panels(folder, "model.depth")
    assert [len(line.get_xdata()) for line in sigmoid.lines] == [3, 4]
    assert {"2", "3"} <= set(texts(sigmoid))


def test_a_value_has_one_colour(folder: Path) -> None:
    """In all panels, and as a heading of others."""
    *above, shallow, deep = panels(folder, "activation")
    own = {"sigmoid": "#0072B2", "relu": "#D55E00"}
    assert colours(shallow) == colours(deep) == {typed: ink(colour) for typed, colour in own.items()}
    for axes in above:
        drawn = [matplotlib.colors.to_hex(rgba) for rgba in axes.collections[0].get_facecolor()[::2]]
        assert drawn == [colour.lower() for colour in own.values()]
    for axes in (shallow, deep):
        assert [line.get_color() for line in axes.lines] == list(own.values())
    headings = panels(folder, "model.depth")[:2]
    assert {axes.get_title(): axes.title.get_color() for axes in headings} == {
        f"activation={typed}": colour for typed, colour in colours(deep).items()
    }


def test_what_was_asked_stands_above(folder: Path) -> None:
    """And below, what all runs have in common."""
    figure = picture(Sweep(folder), "model.depth")
    assert "What does model.depth do to accuracy" in figure.get_suptitle()
    (note,) = figure.texts[1:] if figure.texts[0].get_text() == figure.get_suptitle() else figure.texts
    assert note.get_text().startswith("model=mlp data=digits · dot: a run")


def test_a_learning_rate_has_a_log_axis(tmp_path: Path) -> None:
    """Its ticks are the values, its mean a line; runs without a number are crosses at the foot."""
    for lr, status in (("0.001", "finished"), ("0.1", "finished"), ("10", "diverged")):
        for seed in range(3):
            failing = "finished" if lr == "0.1" and seed else status
            job(tmp_path, [f"optimizer.lr={lr}", f"seed={seed}"], failing, metrics=scores(float(lr)))
    failed(tmp_path, ["optimizer.lr=10", "seed=3"], "RuntimeError: no")
    metric, profile = panels(tmp_path, "optimizer.lr")
    assert metric.get_xscale() == "log" and metric.get_xlabel() == "optimizer.lr, log scale"
    assert [tick.get_text() for tick in metric.get_xticklabels()] == ["0.001", "0.1", "10"]
    assert list(metric.lines[0].get_xydata().ravel()) == pytest.approx([0.001, 0.001, 0.1, 0.1])
    assert texts(metric) == ["3 diverged", "1 failed"]
    assert [list(line.get_xdata()) for line in metric.lines if line.get_marker() == "x"] == [[10, 10]]
    assert min(metric.get_yticks()) >= -0.03  # there is no accuracy of less than nothing
    assert set(texts(profile)) == {"0.001", "0.1", "10 at step 0"}
    assert [line.get_linestyle() for line in profile.lines] == ["-", "-", "--"]


@pytest.mark.parametrize(
    ("typed", "log", "even"),
    [
        (["0.1", "0.001"], True, False),
        (["2", "20", "10"], False, False),
        (["0", "0.001", "0.1"], False, True),
        (["0", "0.5"], False, False),
        (["relu", "tanh"], False, True),
        (["true", "false"], False, True),
        (["1", "null"], False, True),
    ],
)
def test_axes_fit_their_values(typed: list[str], log: bool, even: bool) -> None:
    """Decades are logarithmic; words, and decades with a zero, stand at even distances."""
    values = Values("key", typed)
    assert (values.log, values.even) == (log, even)
    if values.numeric:
        assert [float(text) for text in values.typed] == sorted(map(float, typed))
    else:
        assert values.typed == typed


def test_zeros_are_marked(tmp_path: Path) -> None:
    """A log scale has no place for them: triangles at the foot, and the label there."""
    for lr in (1, 2):
        job(tmp_path, [f"optimizer.lr={lr}"], layers=layers(0.0, None, 1e-3 * lr, 1.0))
    _, profile = panels(tmp_path, "optimizer.lr")
    feet = [line for line in profile.lines if line.get_marker() == "v"]
    assert [list(line.get_xdata()) for line in feet] == [[1], [1]] and set(texts(profile)) == {"1", "2"}
    assert np.isnan(profile.lines[0].get_ydata()[:2]).all()


def test_much_is_folded(tmp_path: Path) -> None:
    """What has too many values for panels of its own is in one, and the picture says so."""
    for n in range(20):
        for model in ("mlp", "cnn"):
            job(tmp_path, [f"optimizer.lr={0.1 + n}", f"model={model}"], metrics=scores(n / 10))
    figure = picture(Sweep(tmp_path), "model")
    metric, profile = figure.axes
    assert len(dots(metric)) == 40 and len(profile.lines) == 2
    assert any("over all values of optimizer.lr" in text.get_text() for text in figure.texts)
    figure = picture(Sweep(tmp_path), "optimizer.lr")
    *_, deltas = figure.axes
    assert len(deltas.lines) == MOST_LINES and len(deltas.texts) == MOST_LABELS
    assert any(f"delta_rms of {MOST_LINES} of 20 values" in text.get_text() for text in figure.texts)


def test_nothing_to_draw(tmp_path: Path) -> None:
    """Jobs without numbers are a picture that says so; no jobs are none."""
    declare(tmp_path, [], ["model.depth"])
    assert draw(Sweep(tmp_path)) == []
    unfinished(tmp_path, ["model.depth=2"])
    failed(tmp_path, ["model.depth=3"], "UserError: no")
    assert len(draw(Sweep(tmp_path))) == 1
    figure = picture(Sweep(tmp_path), "model.depth")
    assert "no delta_rms on record" in texts(figure.axes[1])
    assert "1 of 2 runs have not ended" in figure.texts[-1].get_text()


def test_names_of_files_are_safe(tmp_path: Path) -> None:
    """Whatever a key is called."""
    declare(tmp_path, [], ["model/inner@x"])
    job(tmp_path, ["seed=0"])
    assert [path.name for path in draw(Sweep(tmp_path))] == ["by_model_inner_x.png"]


def test_settings_of_matplotlib_stay(folder: Path) -> None:
    """In a notebook the next plot looks as before."""
    before = dict(matplotlib.rcParams)
    draw(Sweep(folder))
    assert dict(matplotlib.rcParams) == before


def test_pictures_of_a_run(folder: Path) -> None:
    """Whole PNG files, also of a run of which nothing but its summary is left."""
    run = next(path for path in sorted(folder.iterdir()) if path.is_dir())
    paths = draw_run(Run(run))
    assert [path.name for path in paths] == ["layers.png", "curves.png"]
    assert all(path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" for path in paths)


def test_profiles_of_a_sweep(folder: Path) -> None:
    """A row per run and layer, as the summaries have it; streams are no layers."""
    streams = layers(1.0, 2.0)
    streams[0]["parameters"] = 0
    job(folder, ["activation=tanh", "model.depth=2", "seed=0"], layers=streams)
    table = Sweep(folder).profiles
    assert list(table.columns) == [
        "run",
        "activation",
        "model.depth",
        "seed",
        "number",
        "layer",
        "first",
        "last",
    ]
    for run, own in table.groupby("run"):
        written = json.loads((folder / str(run) / "summary.json").read_text())["layers"]
        expected = [layer["last"]["delta_rms"] for layer in written if layer["parameters"]]
        assert list(own["last"]) == expected and list(own["number"]) == list(range(1, len(expected) + 1))


def test_arms_refuses_what_was_not_swept(folder: Path) -> None:
    """One line says what was."""
    sweep = Sweep(folder)
    with pytest.raises(UserError, match=r"arms: key=loss: not swept; allowed: activation, model\.depth"):
        arms(sweep.runs, sweep.profiles, "loss")
    with pytest.raises(UserError, match="arms: runs has no column status; it has run, "):
        arms(sweep.runs.drop(columns="status"), sweep.profiles, "seed")
    with pytest.raises(UserError, match=r"arms: runs=Sweep.*: not a table; allowed: .* sweep\.runs"):
        arms(sweep, sweep.profiles, "seed")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="arms: profiles has no column number, first, last"):
        arms(sweep.runs, sweep.runs, "seed")
    with pytest.raises(UserError, match="colours: table has no column lr; it has run"):
        swept_colours(sweep.runs, "lr")


def test_arms_on_tables_of_a_notebook(folder: Path) -> None:
    """The metric is the first one on validation; filtered rows are drawn alone."""
    sweep = Sweep(folder)
    figure = arms(sweep.runs, sweep.profiles, "activation")
    assert "do to accuracy" in figure.get_suptitle()
    deep = sweep.runs[sweep.runs["model.depth"] == 3]
    metric, deltas = arms(deep, sweep.profiles, "activation").axes
    assert [y for _, y in dots(metric)] == pytest.approx([0.3, 0.31] * 2) and len(deltas.lines) == 2


@pytest.mark.parametrize(
    ("heights", "expected"),
    [
        ([], []),
        ([0.2, 0.8], [0.2, 0.8]),
        ([0.5, 0.5, 0.52], [0.5, 0.6, 0.7]),
        ([0.9, 1.0], [0.85, 0.95]),
    ],
)
def test_labels_do_not_overlap(heights: list[float], expected: list[float]) -> None:
    """They keep their order and a distance, and stay inside."""
    assert apart(heights, 0.1) == pytest.approx(expected)


def test_thinned_keeps_the_ends() -> None:
    """And what is few stays."""
    assert thinned(range(10), 4) == [0, 3, 6, 9] and thinned("abc", 4) == ["a", "b", "c"]


def test_a_value_keeps_its_colour_where_rows_are_left_out(folder: Path, tmp_path: Path) -> None:
    """In tables that a notebook has cut, of runs and of arms; and with only one of them cut, from a file."""
    sweep = Sweep(folder)
    whole = swept_colours(sweep.runs, "activation")
    assert whole == {"sigmoid": "#0072b2", "relu": "#d55e00"}
    assert swept_colours(sweep.arms, "activation") == swept_colours(sweep.profiles, "activation") == whole
    for runs in (sweep.runs[sweep.runs["activation"] == "relu"], sweep.runs.query("activation == 'relu'")):
        assert swept_colours(runs, "activation") == {"relu": "#d55e00"}
        *_, deltas = arms(runs, sweep.profiles, "activation").axes
        assert [line.get_color() for line in deltas.lines] == ["#D55E00"]
    assert swept_colours(sweep.arms[sweep.arms["activation"] == "relu"], "activation") == {"relu": "#d55e00"}
    deep = sweep.runs[sweep.runs["model.depth"] == 3]
    numbers = swept_colours(sweep.runs, "model.depth")
    assert swept_colours(deep, "model.depth") == {"3": numbers["3"]} and numbers["2"] != numbers["3"]
    bare = sweep.runs[sweep.runs["activation"] == "relu"].copy()
    bare.attrs = {}
    profiles = sweep.profiles.copy()
    profiles.attrs = {}
    *_, deltas = arms(bare, profiles, "activation").axes
    assert [line.get_color() for line in deltas.lines] == ["#D55E00"]


def test_crosses_have_a_strip_of_their_own(tmp_path: Path) -> None:
    """Below all ticks, so that none of them reads as a number."""
    for lr, status in (("0.1", "finished"), ("0.2", "finished"), ("10", "diverged")):
        job(tmp_path, [f"optimizer.lr={lr}"], status, metrics=scores(float(lr)))
    metric, _ = panels(tmp_path, "optimizer.lr")
    (strip,) = metric.patches
    (cross,) = [line for line in metric.lines if line.get_marker() == "x"]
    assert cross.get_ydata()[0] < strip.get_height()
    low, high = metric.get_ylim()
    heights = [(y - low) / (high - low) for y in metric.get_yticks()]
    assert min(heights) >= strip.get_height() - 1e-9 and len(heights) > 2
    assert min((y - low) / (high - low) for _, y in dots(metric)) > strip.get_height()


def test_folded_keys_keep_their_lines(tmp_path: Path) -> None:
    """A thin line for each value of what is folded in: a mean alone would hide that they go opposite ways."""
    for n in range(6):
        for size in (16, 64):
            words = [f"optimizer.lr={0.1 * (n + 1):.1f}", f"train.batch_size={size}"]
            job(tmp_path, words, metrics=scores(n / 10 if size == 16 else 1 - n / 10))
    metric, _ = panels(tmp_path, "train.batch_size")
    thin = [line for line in metric.lines if line.get_linewidth() < 1]
    assert [list(line.get_ydata()) for line in thin] == [
        pytest.approx([n / 10, 1 - n / 10]) for n in range(6)
    ]
    figure = picture(Sweep(tmp_path), "train.batch_size")
    assert any("mean over all values of optimizer.lr" in text.get_text() for text in figure.texts)


def test_arms_on_a_phone(folder: Path) -> None:
    """All panels below each other, each with its heading."""
    wide = picture(Sweep(folder), "activation")
    narrow = picture(Sweep(folder), "activation", narrow=True)
    assert narrow.get_size_inches()[0] == style.NARROW
    assert [dots(axes) for axes in narrow.axes] == [dots(axes) for axes in wide.axes]
    assert [axes.get_title() for axes in narrow.axes] == ["model.depth=2", "model.depth=3"] * 2
    assert len({axes.get_position().x0 for axes in narrow.axes}) == 1


def test_heads_are_one_row_of_the_profiles(tmp_path: Path) -> None:
    """In the table of a sweep as in the factor of each of its runs."""
    own = layers(1e-3, 1e-2, 3.0, 4.0)
    for n, layer in enumerate(own):
        layer |= {"path": f"trunk.{n}", "shape": [8, 8]}
    for n, layer in enumerate(own[2:]):
        layer |= {"path": f"heads.{n}", "shape": [1, 8]}
    job(tmp_path, ["seed=0"], layers=own)
    job(tmp_path, ["seed=1"], layers=own)
    table = Sweep(tmp_path).profiles
    assert list(table["layer"])[:3] == ["01_linear", "02_linear", "03_linear to 04_linear"]
    assert list(table["number"]) == [1, 2, 3] * 2
    assert table["last"].iloc[2] == pytest.approx(12.5**0.5)
    assert Sweep(tmp_path).runs["delta_factor_last"].iloc[0] == pytest.approx(0.1)
