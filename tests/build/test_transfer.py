"""What an earlier run learned is carried over, kept or learned on, and only its last layer is new."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import dlexp
from dlexp.build.assemble import assemble
from dlexp.compose import compose
from dlexp.errors import UserError


class Mine(nn.Module):
    """Somebody's own network: what runs last is not what was made last, and a matrix lies loose."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.answer = nn.Linear(6, outputs, bias=False)
        self.weight = nn.Parameter(torch.randn(64, 6))
        self.norm = nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(self.norm(x.flatten(1) @ self.weight))  # type: ignore[no-any-return]


def filters(input_shape: tuple[int, ...], outputs: int) -> nn.Sequential:
    """A network without a linear layer: its last one is a convolution with what stands behind it."""
    first = nn.Conv2d(input_shape[0], 4, 3, padding=1)
    last = nn.Conv2d(4, outputs, 3, stride=2, padding=2, dilation=2, padding_mode="circular")
    return nn.Sequential(first, nn.Tanh(), last, nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Twice(nn.Module):
    """Its answer is made of what two layers give."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(64, outputs), nn.Linear(64, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.one(x.flatten(1)) * self.two(x.flatten(1))  # type: ignore[no-any-return]


def ends_in_cells(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    """No linear layer behind the recurrent one."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recurrent = nn.GRU(input_shape[1], outputs, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.recurrent(x)[0][:, -1]  # type: ignore[no-any-return]

    return Net()


def own(target: str) -> str:
    return f"model=custom model._target_={__name__}.{target}"


HEADED = " head=log_softmax loss=nll"

# Words of a source -> those that the run after it shares with it.
SOURCES = {
    "activation=leaky_relu activation.negative_slope=0.3 model.depth=2 model.width=8": "",
    "model=cnn normalization=batch dropout=standard model.width=8": "",
    f"model=resnet model.width=4{HEADED}": "",
    "model=residual_mlp model.width=8": "",
    "model=embedding_net model.width=8 task=embedding": "task=embedding",
    "model=lstm model.width=8": "data=sequential_digits",
    "model=char_lm model.width=8": "data=text data.characters=2000 train.batch_size=8",
    "model=crnn model.width=8 model.channels=2": "data=digit_strings data.samples=100",
    own("Mine") + HEADED: "",
    own("filters"): "",
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Words -> the folder of a run of them with its weights; a run of the same words is made once."""
    made: dict[str, Path] = {}

    def run(words: str) -> Path:
        if words not in made:
            made[words] = tmp_path_factory.mktemp("source") / "run"
            more = ["train.keep_weights=true", "train.max_steps=3", f"hydra.run.dir={made[words]}"]
            dlexp.run([*words.split(), *more], quiet=True)
        return made[words]

    return run


def kept(folder: Path) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = torch.load(folder / "weights.pt", weights_only=True)
    return weights


def built(*words: str) -> nn.Module:
    torch.manual_seed(0)
    return assemble(compose(["model=transfer", *words]), torch.device("cpu")).model


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("words", SOURCES)
def test_all_but_the_last_layer_is_carried_over(
    words: str, frozen: bool, trained: Callable[[str], Path], tmp_path: Path
) -> None:
    """Of any network. Frozen, every bit of it stays, running statistics too, and has no gradient; not a
    gradient of 0. Free, all of it learns.
    """
    shared = SOURCES[words]
    source, folder = trained(f"{words} {shared}"), tmp_path / "run"
    more = ["train.max_steps=3", "train.keep_weights=true", "optimizer.lr=0.5", f"hydra.run.dir={folder}"]
    use = ["model=transfer", f"model.source={source}", f"model.frozen={str(frozen).lower()}"]
    run = dlexp.run([*use, *shared.split(), *more], quiet=True)
    last = run.summary["layers"][-1]
    before, after = kept(source), kept(folder)
    head = {f"{last['path']}.weight", f"{last['path']}.bias"}
    headed = words == own("Mine") + HEADED  # wrapped as a whole, which moved the paths
    names = {name: name.removeprefix("0.") if headed else name for name in before}
    assert set(names.values()) == set(after)
    for name, now in names.items():
        same = torch.equal(before[name], after[now])
        assert same == (frozen and now not in head), name
    layers = [layer for layer in run.summary["layers"] if layer["parameters"]]
    absent = [layer["first"]["grad_norm"] is None for layer in layers]
    assert absent == [frozen] * (len(absent) - 1) + [False]


@pytest.mark.parametrize("words", SOURCES)
def test_frozen_layers_give_what_they_gave(words: str, trained: Callable[[str], Path]) -> None:
    """The source, built by hand of its own words and weights, and the new network agree in front of the
    last layer: activation, its values and normalization are those of the source.
    """
    shared = SOURCES[words].split()
    source = trained(f"{words} {SOURCES[words]}")
    parts = assemble(compose([*words.split(), *shared]), torch.device("cpu"))
    parts.model.load_state_dict(kept(source))
    old, new = parts.model.eval(), built(f"model.source={source}", *shared)
    x = parts.data.train.inputs[:5]
    assert_equal = torch.testing.assert_close
    assert_equal(in_front_of_last(new, x), in_front_of_last(old, x), rtol=0, atol=0)


def in_front_of_last(model: nn.Module, x: Tensor) -> Tensor:
    """What the last linear layer or convolution takes in."""
    seen: list[Tensor] = []
    hooks = [
        module.register_forward_hook(lambda _, args, __: seen.append(args[0]))
        for module in model.modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    ]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return seen[-1]


SMALL = "activation=tanh model.depth=2 model.width=8"


def test_frozen_is_evaluation_mode_but_for_the_new_layer(trained: Callable[[str], Path]) -> None:
    source = f"model.source={trained(SMALL)}"
    frozen, free = built(source), built(source, "model.frozen=false")
    modules = [m for m in frozen.modules() if not list(m.children())]
    assert [m.training for m in modules] == [False] * (len(modules) - 1) + [True]
    assert all(m.training for m in free.modules())


@pytest.mark.parametrize("initializer", ["initializer=zeros", "initializer.bias=0.25"])
def test_the_initializer_draws_the_new_layer_alone(initializer: str, trained: Callable[[str], Path]) -> None:
    source = trained(own("Mine") if "zeros" in initializer else SMALL)
    new, old = built(f"model.source={source}", initializer).state_dict(), kept(source)
    changed = [name for name, value in new.items() if not torch.equal(value, old[name])]
    head = new[changed[-1]]
    if "zeros" in initializer:
        assert changed == ["answer.weight"] and not head.any()  # not the loose matrix
    else:
        assert changed == ["5.weight", "5.bias"] and torch.equal(head, torch.full((10,), 0.25))


def test_the_new_layer_does_not_depend_on_the_source(trained: Callable[[str], Path]) -> None:
    """Frozen, fine-tuned, or another depth in front: the same start, the seed says which."""
    sources = [trained(SMALL), trained(SMALL.replace("depth=2", "depth=1"))]
    heads = [built(f"model.source={source}", "model.frozen=false")[-1].weight for source in sources]  # type: ignore[index]
    assert torch.equal(*heads)
    assert torch.equal(heads[0], built(f"model.source={sources[0]}")[-1].weight)  # type: ignore[index]


def test_the_new_layer_has_the_size_that_the_data_asks_for(trained: Callable[[str], Path]) -> None:
    """Ten classes there, one number here; a convolution keeps all but that."""
    assert built(f"model.source={trained(SMALL)}", "task=regression")[-1].out_features == 1  # type: ignore[index]
    old = filters((1, 8, 8), 10)[2]
    new = built(f"model.source={trained(own('filters'))}", "task=binary")[2]  # type: ignore[index]
    assert new.extra_repr() == old.extra_repr().replace("4, 10,", "4, 1,")


def test_a_run_of_transfer_can_be_a_source(trained: Callable[[str], Path]) -> None:
    """And free after frozen is free all over."""
    first = trained(SMALL)
    second = trained(f"model=transfer model.source={first}")
    third = built(f"model.source={second}", "model.frozen=false")
    assert all(p.requires_grad for p in third.parameters()) and all(m.training for m in third.modules())
    same = [torch.equal(a, b) for a, b in zip(third.state_dict().values(), kept(first).values(), strict=True)]
    assert same == [True] * 4 + [False] * 2


def test_networks_of_torchvision_carry_over(trained: Callable[[str], Path], tmp_path: Path) -> None:
    """Here one that ends in a convolution, an activation and a pool; from 4 classes to 3."""
    draw = np.random.default_rng(0)
    for classes in (4, 3):
        pictures = draw.random((60, 3, 24, 24), dtype=np.float32)
        np.savez(tmp_path / f"{classes}.npz", inputs=pictures, targets=np.arange(60) % classes)
    words = "model=custom model._target_=torchvision.models.squeezenet1_1 +model.num_classes=4"
    source = trained(f"{words} data=npz data.path={tmp_path / '4.npz'} train.batch_size=4")
    new = built(f"model.source={source}", "data=npz", f"data.path={tmp_path / '3.npz'}", "train.batch_size=4")
    learn = [name for name, p in new.named_parameters() if p.requires_grad]
    assert learn == ["classifier.1.weight", "classifier.1.bias"]
    assert new.eval()(torch.zeros(2, 3, 24, 24)).shape == (2, 3)


@pytest.mark.parametrize(
    ("source", "words", "text"),
    [
        (
            SMALL,
            "data=wine",
            r"learned from inputs of shape \(1, 8, 8\); the data has \(13,\); allowed: the same",
        ),
        (
            "model=gru model.width=4 data=copy data.symbols=8",
            "data=copy data.symbols=9",
            r"learned from 10 tokens; the data has 11; allowed: as many",
        ),
        (
            "model=linear",
            "",
            r"its network has one layer, nothing to carry over; allowed: one with more layers",
        ),
        (
            "model=neuron data=moons",
            "data=moons",
            (
                r"its network ends in a layer of kind Neuron; allowed: one that ends in nn\.Linear or a"
                r" convolution"
            ),
        ),
        (
            f"{own('ends_in_cells')} data=sequential_digits",
            "data=sequential_digits",
            r"its network ends in a layer of kind GRU; allowed: .*",
        ),
        (
            own("Twice"),
            "task=multi_label data=iris",
            r"learned from inputs of shape \(1, 8, 8\); .*",
        ),
        (
            own("Twice"),
            "task=binary",
            (
                r"its answers are not those of one last layer alone \(it gives \(2, 10\)\); allowed: a"
                r" network that ends in one"
            ),
        ),
        (
            "model=multi_head model.width=4 task=multi_label",
            "task=multi_label",
            r"its answers are not those of one last layer alone \(it gives \(2, 19\)\); .*",
        ),
    ],
)
def test_a_source_that_does_not_fit_is_refused(
    source: str, words: str, text: str, trained: Callable[[str], Path]
) -> None:
    with pytest.raises(UserError, match=f"^model\\.source=\\S+: {text}$"):
        built(f"model.source={trained(source)}", *words.split())


SOURCE = r"allowed: the folder of a finished run with train\.keep_weights=true"


def no_folder(run: Path) -> None:
    shutil.rmtree(run)


def no_summary(run: Path) -> None:
    (run / "summary.json").unlink()


def no_weights(run: Path) -> None:
    (run / "weights.pt").unlink()


def half_the_weights(run: Path) -> None:
    whole = (run / "weights.pt").read_bytes()
    (run / "weights.pt").write_bytes(whole[: len(whole) // 2])


def says(key: str, value: Any) -> Callable[[Path], None]:
    """Another entry in the summary; None: the entry is not there."""

    def change(run: Path) -> None:
        summary = json.loads((run / "summary.json").read_text())
        *way, end = key.split("/")
        inner = summary
        for step in way:
            inner = inner[step]
        inner[end] = value
        if value is None:
            del inner[end]
        (run / "summary.json").write_text(json.dumps(summary))

    return change


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (no_folder, f"no such folder; {SOURCE}"),
        (no_summary, rf"no run has ended there, it has no summary\.json; {SOURCE}"),
        (says("status", "diverged"), f"its status is diverged; {SOURCE}"),
        (says("status", "failed"), f"its status is failed; {SOURCE}"),
        (
            says("data", None),
            r"an older dlexp did not note the shape of its inputs; allowed: the same run again",
        ),
        (
            no_weights,
            (
                r"its weights were not kept; allowed: dlexp activation=tanh model\.depth=2 model\.width=8"
                r" train\.keep_weights=true train\.max_steps=3 train\.keep_weights=true"
            ),
        ),
        (
            says("config/task", "transcription"),
            (
                r"learned transcription, with answers \(B, T, K\); those of classification are \(B, K\);"
                r" allowed: answers of the same form"
            ),
        ),
        (half_the_weights, r"its weights\.pt cannot be read: .+"),
        (
            says("config/model/_target_", "no_such_module.Net"),
            r"its network cannot be built again: model=mlp: there is no module no_such_module;.*",
        ),
        (
            says("config/model/width", 9),
            r"its network cannot be built again: Error\(s\) in loading state_dict for Sequential: .*",
        ),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused(
    change: Callable[[Path], None], text: str, trained: Callable[[str], Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained(SMALL), run)
    change(run)
    with pytest.raises(UserError, match=f"^model\\.source=\\S+: {text}$"):
        built(f"model.source={run}")


def test_a_run_that_stopped_early_can_be_a_source(trained: Callable[[str], Path], tmp_path: Path) -> None:
    """It has ended, with its best weights."""
    run = tmp_path / "run"
    shutil.copytree(trained(SMALL), run)
    says("status", "stopped_early")(run)
    assert built(f"model.source={run}") is not None


def test_a_source_has_to_be_named() -> None:
    with pytest.raises(UserError, match=f"^model\\.source=null: {SOURCE}$"):
        built()


@pytest.mark.parametrize("word", ["activation=relu", "activation.negative_slope=0.1"])
def test_the_activation_is_that_of_the_source(word: str, trained: Callable[[str], Path]) -> None:
    """A word that would change nothing is refused, as one for normalization or dropout is."""
    words = ["activation=leaky_relu", word] if "slope" in word else [word]
    with pytest.raises(
        UserError, match=r"^activation=\w+: model=transfer has that of its source; allowed: to"
    ):
        built(f"model.source={trained(SMALL)}", *words)
    with pytest.raises(UserError, match=r"^normalization=batch: model=transfer takes none; allowed: none$"):
        built(f"model.source={trained(SMALL)}", "normalization=batch")
    assert (
        assemble(compose(["model=transfer", f"model.source={trained(SMALL)}"]), torch.device("cpu")).used
        == ()
    )
