"""Watching never changes the run: not its weights, not the process, not its memory."""

from __future__ import annotations

import copy
import gc
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import pytest
import torch
from second_opinion import Memory, OptimizerFactory, adam, random_batches, sgd
from torch import Tensor, nn

import dlexp
from dlexp.build.mlp import mlp
from dlexp.data.batches import Batches
from dlexp.data.dataset import Split
from dlexp.record.probes import QUANTITIES
from dlexp.record.recorder import LONGEST_PENDING, Recorder
from dlexp.record.schedule import schedule
from dlexp.record.sinks import RecordLines
from dlexp.train.loop import Ending, fit
from dlexp.train.step import Batch

pytestmark = pytest.mark.usefixtures("drawn")
STEPS = 23
NETWORKS = {
    "plain": {},
    "dropout": {"dropout": partial(nn.Dropout, 0.5)},
    "batch": {"normalization": nn.BatchNorm1d},
    "both": {"normalization": nn.BatchNorm1d, "dropout": partial(nn.Dropout, 0.5)},
}
OPTIMIZERS = {"sgd": sgd(0.1), "momentum": sgd(0.03, 0.9), "adam": adam(0.01)}
QUICK = ("train.max_steps=12", "model.width=16", "device=cpu", "threads=1")


def network(kind: str = "plain", *, width: int = 16) -> nn.Sequential:
    torch.manual_seed(0)
    return mlp((8,), 4, depth=3, width=width, bias=True, activation=nn.ReLU, **NETWORKS[kind])


def trained(
    every: int | str,
    kind: str,
    optimizer: OptimizerFactory,
    batches: Iterable[Batch],
    *,
    width: int = 16,
) -> tuple[dict[str, Tensor], Tensor, Ending]:
    """The state of a network after training, PyTorch's random state, and the first bad step."""
    model = network(kind, width=width)
    recorder = Recorder(model, schedule(every, STEPS), [Memory()])
    torch.manual_seed(1)
    bad = fit(
        model,
        nn.functional.cross_entropy,
        optimizer(model.parameters()),
        iter(batches),
        range(STEPS),
        recorder=recorder,
    )
    recorder.close()
    return model.state_dict(), torch.get_rng_state(), bad


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    """Bit by bit, NaN equal to NaN."""
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.numpy().tobytes() == other[name].numpy().tobytes(), name


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kind", NETWORKS)
def test_weights_are_bitwise_equal_however_often_one_looks(kind: str, optimizer: str) -> None:
    """Recording never, now and then or at every step: same weights, same statistics, same random state."""
    batches = random_batches(STEPS, 16, 8, classes=4, dtype=torch.float32)
    never, state, _ = trained("never", kind, OPTIMIZERS[optimizer], batches)
    start = network(kind).state_dict()
    assert not any(torch.equal(tensor, start[name]) for name, tensor in never.items() if "weight" in name)
    for every in (1, 5, "auto"):
        watched, watched_state, bad = trained(every, kind, OPTIMIZERS[optimizer], batches)
        assert_equal(never, watched)
        assert torch.equal(state, watched_state)
        assert bad == Ending("finished", STEPS - 1)


def test_weights_of_large_layers_are_bitwise_equal() -> None:
    """The same for layers that are measured where they lie."""
    batches = random_batches(STEPS, 128, 8, classes=4, dtype=torch.float32)
    never, *_ = trained("never", "plain", OPTIMIZERS["momentum"], batches, width=300)
    watched, *_ = trained(1, "plain", OPTIMIZERS["momentum"], batches, width=300)
    assert_equal(never, watched)


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("bad_step", [0, 7, 10])
def test_a_diverging_run_ends_alike_however_often_one_looks(kind: str, bad_step: int) -> None:
    """First bad step, weights, running statistics and random state do not depend on the schedule."""
    batches = random_batches(STEPS, 16, 8, classes=4, dtype=torch.float32)
    batches[bad_step][0][3, 2] = torch.inf
    never, state, bad = trained("never", kind, OPTIMIZERS["sgd"], batches)
    assert bad == Ending("diverged", bad_step)
    for every in (1, 5, "auto"):
        watched, watched_state, watched_bad = trained(every, kind, OPTIMIZERS["sgd"], batches)
        assert watched_bad == Ending("diverged", bad_step)
        assert_equal(never, watched)
        assert torch.equal(state, watched_state)


def test_a_learning_rate_that_is_too_large_diverges_at_the_same_step() -> None:
    """A network that diverges by itself does so at the same step, with the same weights."""
    batches = random_batches(STEPS, 16, 8, classes=4, dtype=torch.float32)
    found = [trained(every, "plain", sgd(1e9), batches) for every in ("never", 1, "auto")]
    assert found[0][2] is not None
    for other in found[1:]:
        assert other[2] == found[0][2]
        assert_equal(found[0][0], other[0])


def records(folder: Path, *words: str) -> str:
    """The text of records.jsonl of a run with these words."""
    run = dlexp.run([*QUICK, *words, f"outputs={folder}"], quiet=True)
    return (run.folder / "records.jsonl").read_text()


@pytest.mark.parametrize("words", [(), ("dropout=standard", "normalization=batch", "optimizer=adam")])
def test_two_equal_runs_leave_equal_records(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Same words, same seed: the same text, byte for byte; another seed: another text."""
    one = records(tmp_path, "record.every=1", *words)
    assert one == records(tmp_path, "record.every=1", *words)
    assert one != records(tmp_path, "record.every=1", "seed=5", *words)


def test_recording_changes_no_result_of_a_run(tmp_path: Path) -> None:
    """Final metrics are the same number for number with recording off."""
    words = [*QUICK, f"outputs={tmp_path}", "dropout=standard"]
    off = dlexp.run([*words, "record=off"], quiet=True).summary["metrics"]
    on = dlexp.run([*words, "record.every=1"], quiet=True).summary["metrics"]
    tested = ("loss/test", "accuracy/test", "loss/validation", "accuracy/validation")
    assert {key: off[key] for key in tested} == {key: on[key] for key in tested}


def test_runs_do_not_disturb_each_other(tmp_path: Path) -> None:
    """A run of another config in between leaves no trace."""
    first = records(tmp_path, "activation=sigmoid")
    between = records(tmp_path, "model.depth=5", "optimizer=adam", "seed=9")
    assert first == records(tmp_path, "activation=sigmoid")
    assert between != first


def test_runs_on_two_threads_do_not_disturb_each_other(tmp_path: Path) -> None:
    """Two runs started at once leave what they leave one after the other."""
    words = {"one": ["activation=sigmoid", "dropout=standard"], "two": ["model.depth=5", "seed=9"]}
    alone = {name: records(tmp_path, *own) for name, own in words.items()}
    together: dict[str, str] = {}

    def start(name: str) -> None:
        together[name] = records(tmp_path, *words[name])

    threads = [threading.Thread(target=start, args=[name]) for name in words]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


@pytest.mark.parametrize("threads", [1, 2])
def test_a_run_leaves_the_process_as_it_was(tmp_path: Path, threads: int) -> None:
    """Random state, number of threads, gradient mode and anomaly mode of a notebook stay."""
    torch.set_num_threads(threads)
    torch.manual_seed(77)
    before = torch.get_rng_state()
    words = [*QUICK[:-1], "threads=2", "anomaly=true", "dropout=standard", f"outputs={tmp_path}"]
    dlexp.run(words, quiet=True)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    assert torch.is_grad_enabled()
    assert not torch.is_anomaly_enabled()


def test_a_run_does_not_depend_on_the_process_before_it(tmp_path: Path) -> None:
    """What a notebook drew before does not matter."""
    torch.manual_seed(1)
    one = records(tmp_path, "dropout=standard")
    torch.manual_seed(2)
    torch.rand(17)
    assert one == records(tmp_path, "dropout=standard")


def hooks(model: nn.Module) -> list[str]:
    """Every hook that hangs on a module of the model."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [f"{name}.{kind}" for name, m in model.named_modules() for kind in kinds if getattr(m, kind)]


class HooksWhenAsked:
    """A model's hooks at each step, seen through the schedule."""

    def __init__(self, model: nn.Module, due: Callable[[int], bool]) -> None:
        self.model, self.due, self.seen = model, due, {}
        model.register_forward_pre_hook(self._look)
        self.step = -1

    def _look(self, *_: object) -> None:
        self.step += 1
        self.seen[self.step] = len(hooks(self.model)) > 1  # its own hook is the one


def test_hooks_hang_on_the_model_only_while_a_step_is_watched() -> None:
    """A step that is not due runs a model without hooks; after the run there are none."""
    model = network()
    due = schedule(4, 11)
    look = HooksWhenAsked(model, due)
    recorder = Recorder(model, due, [Memory()])
    batches = random_batches(11, 16, 8, classes=4, dtype=torch.float32)
    fit(
        model,
        nn.functional.cross_entropy,
        sgd()(model.parameters()),
        iter(batches),
        range(11),
        recorder=recorder,
    )
    assert look.seen == {step: due(step) for step in range(11)}
    assert hooks(model) == ["._forward_pre_hooks"]
    recorder.close()


@pytest.mark.parametrize("every", [1, 4, "auto"])
def test_no_hook_is_left_behind(every: int | str) -> None:
    """Neither after a run that went to its end, nor after one that broke off and was closed."""
    batches = random_batches(9, 16, 8, classes=4, dtype=torch.float32)
    for available in (9, 5):  # with 5 batches for 9 steps training breaks off
        model = network()
        recorder = Recorder(model, schedule(every, 9), [Memory()])
        arguments = (model, nn.functional.cross_entropy, sgd()(model.parameters()), iter(batches[:available]))
        if available == 9:
            fit(*arguments, range(9), recorder=recorder)
        else:
            with pytest.raises(StopIteration):
                fit(*arguments, range(9), recorder=recorder)
        recorder.close()
        assert hooks(model) == []


def test_a_watched_model_can_still_be_copied() -> None:
    """Nothing that cannot be copied or pickled stays in the model."""
    model = network()
    recorder = Recorder(model, schedule(1, 3), [Memory()])
    batches = random_batches(3, 16, 8, classes=4, dtype=torch.float32)
    optimizer = sgd()(model.parameters())
    fit(model, nn.functional.cross_entropy, optimizer, iter(batches), range(3), recorder=recorder)
    recorder.close()
    assert_equal(copy.deepcopy(model).state_dict(), model.state_dict())


def live_tensors() -> int:
    """How many tensors Python knows of. Without a collection: what only a cycle holds is alive."""
    return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())


@pytest.fixture
def only_new() -> Iterator[None]:
    """What there is already is not counted, which would take longer than the steps; nothing is collected."""
    gc.collect()
    gc.freeze()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("only_new")
@pytest.mark.parametrize("kind", ["plain", "both"])
def test_memory_does_not_grow_with_the_number_of_steps(kind: str) -> None:
    """With the garbage collector off, 1500 watched steps leave no more tensors alive than 300."""
    torch.manual_seed(0)
    model = network(kind)
    recorder = Recorder(model, lambda _: True, [])
    batches = cycle(random_batches(2, 16, 8, classes=4, dtype=torch.float32))
    optimizer = sgd()(model.parameters())
    counts = []

    def go_on(steps: Iterable[int]) -> None:
        fit(model, nn.functional.cross_entropy, optimizer, batches, steps, recorder=recorder)
        recorder.flush()
        counts.append(live_tensors())

    go_on(range(300))
    go_on(range(300, 1800))
    recorder.close()
    assert counts[1] <= counts[0]


@pytest.mark.usefixtures("only_new")
def test_tensors_of_a_step_are_let_go_when_it_is_over() -> None:
    """The graph of a watched step does not outlive it: no cycle holds it until the next collection."""
    model = network()
    recorder = Recorder(model, lambda step: step in (0, 3), [])
    batches = random_batches(6, 16, 8, classes=4, dtype=torch.float32)
    alive = []

    def steps() -> Iterable[int]:
        for step in range(6):
            recorder.flush()  # so that no numbers are pending
            alive.append(live_tensors())  # after the step before
            yield step

    optimizer = sgd()(model.parameters())
    fit(model, nn.functional.cross_entropy, optimizer, iter(batches), steps(), recorder=recorder)
    recorder.close()
    assert alive[5] <= alive[2]  # after the second watched step and after the first


def test_the_order_of_batches_does_not_depend_on_watching() -> None:
    """Batches come from a generator of their own, which nothing else draws from."""
    data = Split(torch.arange(50.0)[:, None], torch.arange(50))
    order = [y.tolist() for _, y in islice(Batches(data, 8, 3), 12)]
    torch.manual_seed(123)
    again = []
    for _, y in islice(Batches(data, 8, 3), 12):
        torch.rand(5)
        again.append(y.tolist())
    assert order == again


def test_a_diverging_run_has_the_same_status_however_it_is_watched(tmp_path: Path) -> None:
    """Status and step of dlexp.run agree for every schedule, and the bad step is on record."""
    words = [*QUICK, f"outputs={tmp_path}", "optimizer.lr=1e9", "model.depth=6", "record.tensorboard=false"]
    runs = [dlexp.run([*words, f"record.every={every}"], quiet=True) for every in (1, "auto", "never", 5)]
    summaries = [run.summary for run in runs]
    assert [s["status"] for s in summaries] == ["diverged"] * 4
    assert len({json.dumps(s["diverged"]) for s in summaries}) == 1
    last = [json.loads((run.folder / "records.jsonl").read_text().splitlines()[-1]) for run in runs]
    assert all(line == last[0] for line in last)
    assert last[0]["step"] == summaries[0]["diverged"]["step"]


def test_rows_reach_the_disk_in_time(tmp_path: Path) -> None:
    """A record is written within a quarter of a second, not when the run ends."""
    model = nn.Sequential(nn.Linear(4, 3))
    path = tmp_path / "records.jsonl"
    lines = RecordLines(path, ["01_linear"], QUANTITIES)
    recorder = Recorder(model, lambda step: step == 0, [lines])
    batch = torch.randn(8, 4), torch.randint(3, (8,))
    written = []

    def steps() -> Iterator[int]:
        yield 0
        yield 1
        written.append(path.read_text().count("\n"))
        time.sleep(LONGEST_PENDING * 1.5)
        yield 2
        written.append(path.read_text().count("\n"))

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    fit(model, nn.functional.cross_entropy, optimizer, cycle([batch]), steps(), recorder=recorder)
    lines.close()
    assert written == [1, 2]
