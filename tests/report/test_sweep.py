"""A sweep's folder as tables: numbers by hand and by pandas, whatever state the sweep is in."""

from __future__ import annotations

import io
import os
import statistics
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console
from sweeps import declare, failed, job, layers, scores, summary, unfinished

import dlexp
from dlexp.errors import UserError
from dlexp.report import arms
from dlexp.report.command import command, finish
from dlexp.report.sweep import Sweep, write_whole
from dlexp.words import short, value

ACCURACY = {"sigmoid": (0.1, 0.3, 0.2), "relu": (0.9, 0.8, 1.0)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two activations, three seeds; one of relu diverged."""
    for n, (activation, values) in enumerate(ACCURACY.items()):
        for seed, accuracy in enumerate(values):
            spoiled = activation == "relu" and seed == 2
            job(
                tmp_path / "sweep",
                [f"activation={activation}", f"seed={seed}", "train.epochs=2"],
                "diverged" if spoiled else "finished",
                metrics=scores(accuracy),
                diverged={"step": 7, "layer": "02_linear", "reason": "its delta_rms is not finite"}
                if spoiled
                else None,
                timing={"started": f"2026-11-21T10:00:{3 * n + seed:02d}+00:00", "seconds": 0.5},
                layers=layers(1.0, 2.0, 1.0, first=(1.0, 4.0, 1.0)),
            )
    return tmp_path / "sweep"


def printed(sweep: Sweep, width: int = 80) -> str:
    """The table as it stands on a terminal."""
    console = Console(file=io.StringIO(), width=width)
    arms.show(sweep, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_runs_are_a_row_each(folder: Path) -> None:
    """In the order of start; the words that differ are columns."""
    runs = dlexp.load_sweep(folder).runs
    assert list(runs.columns) == [
        *("run", "activation", "seed", "status", "steps", "loss/validation", "accuracy/validation"),
        *("delta_factor_first", "delta_factor_last", "seconds", "diagnosis", "error"),
    ]
    assert runs["diagnosis"].tolist() == ["healthy"] * 5 + ["non_finite"]
    assert runs["activation"].tolist() == ["sigmoid"] * 3 + ["relu"] * 3
    assert runs["seed"].tolist() == [0, 1, 2] * 2 and runs["steps"].tolist() == [10] * 6
    assert runs["accuracy/validation"].tolist() == [x for values in ACCURACY.values() for x in values]
    assert runs["delta_factor_first"].tolist() == pytest.approx([0.25] * 6)
    assert runs["delta_factor_last"].tolist() == pytest.approx([0.5] * 6)
    assert runs["error"].dropna().tolist() == [
        "loss not finite at step 7; 02_linear: its delta_rms is not finite"
    ]


def test_arms_fold_seeds(folder: Path) -> None:
    """Mean and sample standard deviation of the runs that ended, as pandas has them."""
    sweep = dlexp.load_sweep(folder)
    table = sweep.arms.set_index("activation")
    ended = sweep.runs[sweep.runs["status"] == "finished"].groupby("activation")["accuracy/validation"]
    for name, expected in (("mean", ended.mean()), ("std", ended.std())):
        found = table[f"accuracy/validation_{name}"]
        pd.testing.assert_series_equal(found, expected.loc[found.index], check_names=False)
    assert table.loc["relu", "accuracy/validation_mean"] == pytest.approx(0.85)
    assert table.loc["relu", "accuracy/validation_std"] == pytest.approx(statistics.stdev([0.9, 0.8]))
    assert table["runs"].tolist() == [3, 3]
    assert table["status"].tolist() == ["3 finished", "2 finished, 1 diverged"]


def test_the_start_counts_for_all_runs(tmp_path: Path) -> None:
    """Of an arm where all diverged the start is known, and nothing else."""
    for seed, start in enumerate((0.5, 0.25)):
        values = layers(None, None, None, first=(start, 1.0, 1.0))
        job(tmp_path, [f"seed={seed}", "optimizer.lr=9"], "diverged", layers=values)
    (arm,) = Sweep(tmp_path).arms.to_dict("records")
    assert arm["delta_factor_first_mean"] == pytest.approx(0.375)
    assert pd.isna(arm["accuracy/validation_mean"]) and pd.isna(arm["steps_mean"])


def test_one_run_has_no_spread(tmp_path: Path) -> None:
    """Empty in the table, not 0."""
    job(tmp_path, ["model.depth=2"])
    job(tmp_path, ["model.depth=3"])
    table = Sweep(tmp_path).arms
    assert table["accuracy/validation_std"].isna().all() and table["model.depth"].tolist() == [2, 3]
    assert "±" not in printed(Sweep(tmp_path))


def test_csv_reads_back(folder: Path) -> None:
    """With the same values and types."""
    sweep = Sweep(folder)
    assert [path.name for path in sweep.write()] == ["sweep.csv", "runs.csv"]
    for name, table in (("sweep", sweep.arms), ("runs", sweep.runs)):
        back = pd.read_csv(folder / f"{name}.csv")
        pd.testing.assert_frame_equal(back, table)
    assert {path.name for path in folder.iterdir() if path.is_file()} == {"sweep.csv", "runs.csv"}


def test_values_have_types(tmp_path: Path) -> None:
    """Numbers, flags and texts are columns of their own kind, also read back; nothing is an empty cell."""
    for n, (bias, lr, data) in enumerate((("true", "1e-3", "wine"), ("false", "10", "none"))):
        words = [
            f"model.bias={bias}",
            f"optimizer.lr={lr}",
            f"data={data}",
            f"clip.max_norm={['null', 1][n]}",
        ]
        job(tmp_path, words, timing={"started": f"{n}", "seconds": 1.0})
    sweep = Sweep(tmp_path)
    sweep.write()
    for table in (sweep.arms, pd.read_csv(tmp_path / "sweep.csv")):
        assert table["model.bias"].tolist() == [True, False] and table["model.bias"].dtype == bool
        assert table["optimizer.lr"].tolist() == [0.001, 10.0] and table["data"].tolist() == ["wine", "none"]
        assert pd.isna(table["clip.max_norm"][0]) and table["clip.max_norm"][1] == 1.0


@pytest.mark.parametrize(
    ("text", "meant"),
    [("2", 2), ("1e-3", 0.001), ("true", True), ("null", None), ("relu", "relu"), ("[1,2]", "[1,2]")],
)
def test_typed_values(text: str, meant: object) -> None:
    """As Hydra would read them."""
    assert value(text) == meant and type(value(text)) is type(meant)


def test_short_values() -> None:
    """Long numbers are rounded, long words cut, what was typed short stays."""
    assert [short(x) for x in ("0.08810717770388463", "1e-3", "2", None)] == ["0.0881", "1e-3", "2", "–"]
    assert short("x" * 30, 10) == "x" * 9 + "…"


def test_the_best_arm(folder: Path) -> None:
    """By the first metric on validation, where more is better for accuracy and less for rmse."""
    sweep = Sweep(folder)
    assert sweep.metric == "accuracy" and sweep.best == 1
    marked = [line for line in printed(sweep).splitlines() if line.startswith("★")]
    assert "relu" in marked[0] and "0.850 ± 0.071" in marked[0] and "★ best accuracy" in marked[1]


@pytest.mark.parametrize(("metric", "best"), [("accuracy", 1), ("rmse", 0)])
def test_better_depends_on_the_metric(tmp_path: Path, metric: str, best: int) -> None:
    """The same numbers under another name."""
    for depth, number in ((2, 0.1), (3, 0.9)):
        numbers = {"loss/validation": 1.0, f"{metric}/validation": number}
        job(tmp_path, [f"model.depth={depth}"], metrics=numbers, config={"metrics": [metric]})
    assert Sweep(tmp_path).best == best


def test_equal_arms_are_told_apart_by_loss(tmp_path: Path) -> None:
    """And those that only diverged or failed are never best, whatever numbers they left."""
    job(tmp_path, ["model.depth=2"], metrics=scores(0.5, loss=0.9))
    job(tmp_path, ["model.depth=3"], metrics=scores(0.5, loss=0.8))
    job(tmp_path, ["model.depth=4"], "diverged", metrics=scores(0.99, loss=0.1))
    failed(tmp_path, ["model.depth=5"], "UserError: no")
    assert Sweep(tmp_path).best == 1


def test_arms_with_different_metrics_are_not_compared(tmp_path: Path) -> None:
    """Each shows its own, and that none is best is said."""
    job(tmp_path, ["data=wine"])
    numbers = {"loss/validation": 1.0, "rmse/validation": 0.7}
    job(tmp_path, ["data=diabetes"], metrics=numbers, config={"metrics": ["rmse", "mae"]})
    sweep = Sweep(tmp_path)
    assert sweep.metric is None and sweep.best is None
    text = printed(sweep)
    assert "rmse 0.7" in text and "accuracy 0.5" in text and "none is the best" in text


def test_values_come_in_the_order_typed(tmp_path: Path) -> None:
    """Whichever job started first, as with several workers; a typed 1e-3 is a job's 0.001."""
    typed = ["optimizer.lr=1,1e-3", "model.sizes=[3,2],[1]", "seed=1,0"]
    declare(tmp_path, typed, ["optimizer.lr", "model.sizes", "seed"])
    for n, (lr, sizes) in enumerate((("0.001", "[1]"), ("1", "[1]"), ("0.001", "[3,2]"), ("1", "[3,2]"))):
        words = [f"optimizer.lr={lr}", f"model.sizes={sizes}", "seed=1"]
        job(tmp_path, words, timing={"started": f"{n}", "seconds": 1.0})
    table = Sweep(tmp_path).arms
    assert list(zip(table["optimizer.lr"], table["model.sizes"], strict=True)) == [
        *((1.0, "[3,2]"), (1.0, "[1]"), (0.001, "[3,2]"), (0.001, "[1]")),
    ]


def test_numbered_folders_count(tmp_path: Path) -> None:
    """2 comes before 10 among jobs of the same second."""
    for n in (10, 2, 1):
        job(tmp_path, [f"model.depth={n}"]).rename(tmp_path / str(n))
    assert Sweep(tmp_path).runs["run"].tolist() == ["1", "2", "10"]


def test_a_swept_key_that_is_no_word_is_looked_up(tmp_path: Path) -> None:
    """In the choices and the configuration of the run."""
    declare(tmp_path, [], ["model", "model.depth"])
    job(tmp_path, ["seed=0"])
    assert Sweep(tmp_path).arms.loc[0, ["model", "model.depth"]].tolist() == ["mlp", 3]


def test_half_finished_sweeps(folder: Path) -> None:
    """A job without a summary counts as a run of its arm, without numbers; so does one that is not whole."""
    unfinished(folder, ["activation=relu", "seed=3", "train.epochs=2"])
    broken = unfinished(folder, ["activation=tanh", "seed=0", "train.epochs=2"])
    (broken / "summary.json").write_text('{"status": "fini')
    empty = unfinished(folder, ["activation=elu", "seed=0", "train.epochs=2"])
    (empty / ".hydra" / "overrides.yaml").unlink()  # killed before it was written
    sweep = Sweep(folder)
    table = sweep.arms.set_index("activation")
    assert table.loc["relu", "status"] == "2 finished, 1 diverged, 1 unfinished"
    assert table.loc["tanh", "status"] == "1 unfinished" and table.loc["relu", "runs"] == 4
    assert table.loc["relu", "accuracy/validation_mean"] == pytest.approx(0.85)
    assert sweep.runs["seed"].isna().sum() == 1
    assert "3 jobs without a summary: still going on, or killed (activation=elu" in printed(sweep)
    assert finish(folder, Console(file=io.StringIO())).best is not None


def test_failures_are_told_once(folder: Path) -> None:
    """With their reason; equal ones together."""
    epochs = ["train.epochs=2"]
    for seed in range(7):
        failed(
            folder,
            ["activation=maxout", f"seed={seed}", *epochs],
            "UserError: activation=maxout:\n no such choice",
        )
    failed(folder, ["activation=elu", "seed=0", *epochs], "RuntimeError: out of memory")
    lines = printed(Sweep(folder), width=200).splitlines()
    assert "failed    UserError: activation=maxout: no such choice (7 jobs)" in lines
    assert "failed    RuntimeError: out of memory (activation=elu seed=0)" in lines
    reason = "loss not finite at step 7; 02_linear: its delta_rms is not finite (activation=relu seed=2)"
    assert f"diverged  {reason}" in lines


def test_only_failures(tmp_path: Path) -> None:
    """There is a table, no best arm, and no picture that breaks."""
    for depth in (2, 3):
        failed(tmp_path, [f"model.depth={depth}"], "UserError: no")
    sweep = finish(tmp_path, Console(file=io.StringIO()))
    assert sweep.best is None and sweep.arms["status"].tolist() == ["1 failed"] * 2
    assert pd.read_csv(tmp_path / "runs.csv")["error"].tolist() == ["UserError: no"] * 2


def test_an_empty_sweep(tmp_path: Path) -> None:
    """Before its first job a sweep has tables without rows."""
    declare(tmp_path, ["seed=0,1"], ["seed"])
    sweep = finish(tmp_path, Console(file=(said := io.StringIO()), width=300))
    assert sweep.runs.empty and sweep.arms.empty and "no job has started yet" in said.getvalue()
    assert len(pd.read_csv(tmp_path / "sweep.csv")) == 0


@pytest.mark.parametrize("keys", [1, 3])
def test_eighty_columns_are_enough(tmp_path: Path, keys: int) -> None:
    """For three swept keys with long values, and numbers in full."""
    names = ["activation", "optimizer.lr", "normalization.position"][:keys]
    for n in range(2):
        for seed in range(2):
            values = ("scaled_sigmoid", f"{0.00123 + n}", "before")
            words = [f"{key}={x}" for key, x in zip(names, values, strict=False)]
            job(tmp_path, [*words, f"initializer={n}", f"seed={seed}"], metrics=scores(0.12345 * (seed + 1)))
    declare(tmp_path, [], [*names, "seed"])
    lines = printed(Sweep(tmp_path)).splitlines()
    row = next(line for line in lines if line.lstrip("★ ").startswith("scaled_sig"))
    assert "0.185 ± 0.0" in row and len(row.rstrip()) <= 80
    assert "finished" in row


def test_of_many_arms_the_best_are_shown(tmp_path: Path) -> None:
    """Best first; all are in sweep.csv."""
    for n in range(30):
        job(tmp_path, [f"model.depth={n}"], metrics=scores(n / 100))
    sweep = Sweep(tmp_path)
    lines = printed(sweep, width=300).splitlines()
    depths = [line.split()[-6] for line in lines if line.endswith("finished   ") or "1 finished" in line]
    assert len(depths) == arms.MOST and lines[2].startswith("★  29")
    assert f"the best 20 arms; 10 more in {tmp_path / 'sweep.csv'}" in lines
    assert len(sweep.arms) == 30


@pytest.mark.parametrize(
    ("mean", "std", "shown"),
    [
        (0.9, 0.01149, "0.900 ± 0.011"),
        (0.724, 0.12, "0.72 ± 0.12"),
        (12.34, 2.0, "12.3 ± 2.0"),
        (0.5, 0.0, "0.500 ± 0.000"),
        (0.5, 1e-6, "0.5000 ± 1.0e-6"),
        (-3.0, 250.0, "-3 ± 2.5e+02"),
        (2.5e5, 3.0, "2.5e5 ± 3"),
    ],
)
def test_mean_and_spread_have_the_same_places(mean: float, std: float, shown: str) -> None:
    """Two digits of the spread are enough."""
    assert arms.with_spread(mean, std) == shown


def test_other_files_are_no_jobs(folder: Path) -> None:
    """What Hydra, TensorBoard and others leave beside the jobs."""
    (folder / "multirun.yaml").write_text("")
    (folder / ".submitit").mkdir()
    assert len(Sweep(folder).jobs) == 6


def test_folders_that_are_no_sweep(tmp_path: Path) -> None:
    """Are refused in one line."""
    with pytest.raises(UserError, match=r"neither sweep\.json nor folders of runs$"):
        dlexp.load_sweep(tmp_path)
    with pytest.raises(UserError, match="no folder that can be read: No such file"):
        dlexp.load_sweep(tmp_path / "nowhere")


OPEN_AND_JSON = (
    "report a --json --open: --json prints numbers and writes no page to open; leave one of them out"
)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "report: name the folder of a run or of a sweep, for example dlexp report outputs/sweep/..."),
        (["a", "b"], "report a b: one folder at a time, for example dlexp report outputs/sweep/..."),
        (["--foo", "a"], "report --foo a: no option --foo; allowed: --open, --json"),
        (["a", "--json", "--open"], OPEN_AND_JSON),
        (["nowhere"], "report nowhere: no such folder"),
        (["file"], "report file: not a folder"),
        (["empty"], "report empty: holds neither a run nor a sweep"),
        (["."], "report .: holds neither a run nor a sweep; try outputs/sweep/today"),
    ],
)
def test_wrong_paths(words: list[str], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line says what is wrong and, if anything is near, what to name."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    job(tmp_path / "outputs" / "sweep" / "today", ["seed=0"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        command(words)
    assert caught.value.lines == (line,)


def test_report_of_a_sweep(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The table, and the files beside the jobs; a second time the same."""
    for _ in range(2):
        command([str(folder)])
        assert "★ best accuracy" in capsys.readouterr().out
    assert {path.name for path in folder.iterdir() if path.is_file()} == {
        *("sweep.csv", "runs.csv", "by_activation.png", "report.html"),
    }


def test_report_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A real one: the layer table as after the run, pictures and page; without its summary, too."""
    words = ["model.depth=2", "train.max_steps=3", "device=cpu", f"hydra.run.dir={tmp_path / 'run'}"]
    dlexp.run(words)
    table = capsys.readouterr().out.split("layer  ", 1)[1].partition("train  ")[0]
    command([str(tmp_path / "run")])
    assert table in capsys.readouterr().out
    for name in ("layers.png", "curves.png", "report.html"):
        assert (tmp_path / "run" / name).stat().st_size > 10_000
    (tmp_path / "run" / "summary.json").unlink()
    command([str(tmp_path / "run")])
    said = capsys.readouterr().out
    assert table in said and "no summary: the run still goes on, or was killed" in said


def test_a_run_that_has_not_begun(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is recorded yet: it is said, and nothing breaks."""
    folder = unfinished(tmp_path, ["seed=0"])
    (folder / "records.jsonl").write_text("")
    command([str(folder)])
    assert "no summary" in capsys.readouterr().out


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The table is there all the same."""
    folder.chmod(0o500)
    try:
        with pytest.raises(UserError, match="nothing can be written there: Permission denied"):
            command([str(folder)])
    finally:
        folder.chmod(0o700)
    assert "★ best accuracy" in capsys.readouterr().out


def test_files_are_written_whole(tmp_path: Path) -> None:
    """If writing breaks off, the old file stays and no draft is left."""

    def broken(draft: Path) -> None:
        draft.write_text("hal")
        raise OSError(28, "No space left on device")

    (tmp_path / "x.csv").write_text("old")
    with pytest.raises(OSError, match="No space"):
        write_whole(tmp_path / "x.csv", broken)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_a_hand_written_summary_is_like_a_real_one(tmp_path: Path) -> None:
    """Otherwise these tests would say nothing of real runs."""
    words = ["train.max_steps=2", "seed=1", "device=cpu", f"hydra.run.dir={tmp_path / 'sweep' / '0'}"]
    real = dlexp.run(words, quiet=True).summary
    ours = summary(["seed=1"])
    assert set(ours) <= set(real) and set(ours["timing"]) <= set(real["timing"])
    assert set(ours["layers"][0]) <= set(real["layers"][0]) and real["config"]["metrics"] == ["accuracy"]
    (row,) = dlexp.load_sweep(tmp_path / "sweep").runs.to_dict("records")
    assert row["accuracy/test"] == real["metrics"]["accuracy/test"] and row["steps"] == 2
    deltas = [layer["last"]["delta_rms"] for layer in real["layers"]]
    assert row["delta_factor_last"] == pytest.approx((deltas[0] / deltas[-2]) ** (1 / (len(deltas) - 2)))
