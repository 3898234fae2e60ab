"""Networks of a user's own whose weights are not plain: lazy, parametrized, under other names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import dlexp
from dlexp.build.assemble import assemble
from dlexp.compose import compose
from dlexp.errors import UserError

NETWORKS = """
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

class Lazy(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.drop = nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Dropout(0.5)
        self.out = nn.LazyLinear(10)

    def forward(self, x):
        return self.out(self.drop(self.norm(self.conv(x))).flatten(1))

class Rests(Lazy):
    def __init__(self):
        super().__init__()
        self.rests = nn.LazyLinear(3)

class Unfit(Lazy):
    def forward(self, x):
        return super().forward(x.flatten(1))

def parametrized():
    return nn.Sequential(
        nn.Flatten(), weight_norm(nn.Linear(64, 16)), nn.ReLU(), spectral_norm(nn.Linear(16, 10))
    )
"""
QUIET = ("device=cpu", "threads=1", "record.tensorboard=false", "model=custom")


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    (tmp_path / "own_networks.py").write_text(NETWORKS, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return [*QUIET, f"outputs={tmp_path}"]


def built(*words: str) -> nn.Module:
    torch.manual_seed(3)
    return assemble(compose([*QUIET, *words]), torch.device("cpu")).model


def test_lazy_modules_learn_their_shapes_from_one_sample(words: list[str]) -> None:
    """Before they are drawn; statistics stay, and the same seed gives the same start."""
    named = "model._target_=own_networks.Lazy"
    one, other, drawn = built(named), built(named), built(named, "initializer=constant")
    assert [tuple(p.shape) for p in one.parameters()] == [(4, 1, 3, 3), (4,), (4,), (4,), (10, 144), (10,)]
    for name, t in one.state_dict().items():
        assert torch.equal(t, other.state_dict()[name])
    assert one.training and not one.state_dict()["norm.running_mean"].any()
    assert all((p == 0.05).all() for p in drawn.parameters() if p.dim() >= 2)
    layers = dlexp.run([*words, named, "train.max_steps=2"], quiet=True).summary["layers"]
    assert [(layer["name"], layer["shape"]) for layer in layers] == [
        ("01_conv2d", [4, 1, 3, 3]),
        ("02_linear", [10, 144]),
    ]


def test_lazy_modules_that_get_no_shape_are_refused(words: list[str]) -> None:
    """In one line."""
    with pytest.raises(
        UserError, match=r"rests\.weight has no shape, as its module did not run; allowed: lazy"
    ):
        built("model._target_=own_networks.Rests")
    with pytest.raises(UserError, match=r"own_networks\.Unfit: .*1, 8, 8\).*LazyConv2d") as caught:
        built("model._target_=own_networks.Unfit")
    assert "\n" not in str(caught.value)


def test_a_lazy_network_can_be_learned_from(words: list[str]) -> None:
    """Its weights come back from the folder of its run."""
    more = ["model._target_=own_networks.Lazy", "train.max_steps=2", "train.keep_weights=true"]
    folder = dlexp.run([*words, *more], quiet=True).folder
    words = ["model=transfer", f"model.source={folder}", *words[:3], words[-1], "train.max_steps=1"]
    assert dlexp.run(words, quiet=True).summary["status"] == "finished"


def test_recording_leaves_parametrized_weights_alone(words: list[str]) -> None:
    """To the last bit, also what spectral norm keeps; at the start its weights are what they are used as."""
    words = [
        *words,
        "model._target_=own_networks.parametrized",
        "train.keep_weights=true",
        "train.max_steps=9",
    ]
    words += ["initializer=orthogonal"]
    on, off = (dlexp.run([*words, f"record.every={every}"], quiet=True) for every in (1, "never"))
    one, other = (torch.load(run.folder / "weights.pt") for run in (on, off))
    assert all(torch.equal(t, other[name]) for name, t in one.items())
    first, last = on.summary["layers"]
    assert [first["name"], last["name"]] == ["01_linear", "02_linear"]
    # W is orthogonal: v = W and g = 1 in each of 16 rows; 10 rows, divided by 1
    assert first["first"]["weight_norm"] == pytest.approx(32**0.5, rel=1e-6)
    assert last["first"]["weight_norm"] == pytest.approx(10**0.5, rel=1e-6)
    assert first["first"]["effective_rank"] == pytest.approx(16, rel=1e-6)


def test_the_gradient_check_sees_all_of_a_parametrized_layer(words: list[str]) -> None:
    """Length, direction and bias."""
    words = [*words, "model._target_=own_networks.parametrized", "train.max_steps=1", "gradient_check=true"]
    first, _ = dlexp.run(words, quiet=True).summary["gradient_check"]
    assert first["verdict"] == "great" and first["entries"] >= 3
