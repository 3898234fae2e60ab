"""What is looked at only twice, at both ends of training: slopes, dead units, and how alike units are.

N rows of a weight matrix, one for each unit (of an embedding: each token), F columns.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dlexp import parameters
from dlexp.record.layers import Call, Listener, is_activation, units_last
from dlexp.record.probes import NO_ACTIVATION, NO_WEIGHTS, NOT_RUN
from dlexp.record.recorder import ALL_ZERO

LOOKS = (
    "slope_mean",  # mean over samples and units of the activation's derivative, where it is taken
    "row_difference",  # largest distance between two rows of [W, b] / largest norm of a row
    "distinct_rows",  # share of rows that are not (nearly) equal to a row above them
    "effective_rank",  # of W, Roy and Vetterli 2007: exp of the entropy of its singular values
    "jacobian_factor",  # delta_rms of the layer / delta_rms of the next one, if all of it came from there
    "dead_units",  # share of units behind whose z the mean |slope| over all samples is below `DEAD`
    "displacement",  # ||W at the end - W at the start|| / ||W at the start||, weight and bias together
)
Found = float | str  # a number, or why there is none

SAME = 1e-4  # rows this near to each other, in largest norms of a row, are equal
DEAD = 0.01  # of a ReLU: above 0 for less than a hundredth of the samples; z < -3 for GELU
LARGEST = 512  # rows compared with each other, of more so many; the smaller side where a rank is taken

NOT_FINITE = "weights that are not finite"
ONE_ROW = "a single row"
UNEVEN = "weight matrices with different numbers of rows"
TOO_LARGE_FOR_RANK = f"more than {LARGEST} rows and columns"
UNEVEN_RUNS = "runs with different numbers of units"
NOT_BY_ITSELF = "the activation does not take each unit by itself"
NOT_REACHED = "training did not come to its end"
LAST = "the last layer"
AT_THE_END = "known at the end"
NO_DELTA = "no delta_rms of this layer or of the next one"
NEXT_IS_ZERO = "delta_rms of the next layer is 0"
NOT_FROM_NEXT = "the next row is not fed by this layer, or not all of its error comes from there"


class Look:
    """Looks at a network as it started and as training left it, on the same samples.

    Nothing is computed before training: the start is copied, and put back for a moment at the end.
    """

    def __init__(self, model: nn.Module, order: Sequence[str] = ()) -> None:
        """Layers are numbered as in `Listener`."""
        self._model, self._listener = model, Listener(model, order)
        self._start = self._state()
        self.first: list[Mapping[str, Found]] | None = None  # for each layer, name in `LOOKS` -> number
        self.last: list[Mapping[str, Found]] | None = None

        self.activations: list[str | None] = [None] * len(self._listener.modules)  # their classes

    def __call__(self, inputs: Tensor) -> None:
        """Look twice, in the mode the network is in; leaves weights, buffers and random numbers alone."""
        left, cuda = self._state(), inputs.device.type == "cuda"
        with torch.random.fork_rng([inputs.device] if cuda else [], device_type="cuda"):
            try:
                last, moved = self._numbers(inputs), self._moved()
                self._put(self._start)
                first = [own | {"displacement": AT_THE_END} for own in self._numbers(inputs)]
            finally:
                self._put(left)
        self.first = [*first]
        self.last = [own | {"displacement": x} for own, x in zip(last, moved, strict=True)]

    def state_dict(self) -> dict[str, list[Tensor]]:
        """The network as it started."""
        return {"start": self._start}

    def load_state_dict(self, state: dict[str, list[Tensor]]) -> None:
        for t, kept in zip(self._start, state["start"], strict=True):
            t.copy_(kept)

    def _state(self) -> list[Tensor]:
        return [t.detach().clone() for t in self._tensors()]

    @torch.no_grad()
    def _put(self, state: list[Tensor]) -> None:
        for t, kept in zip(self._tensors(), state, strict=True):
            t.copy_(kept)

    def _tensors(self) -> list[Tensor]:
        return [*self._model.parameters(), *self._model.buffers()]

    def _numbers(self, inputs: Tensor) -> list[dict[str, Found]]:
        found = pass_through(self._model, self._listener, inputs)
        self.activations = found.activations
        missing: dict[bool, dict[str, Found]] = {True: {}, False: {"jacobian_factor": NOT_FROM_NEXT}}
        return [
            {"slope_mean": slope, **rows(_tensors(module), like=module), "dead_units": dead, **missing[alone]}
            for slope, dead, alone, module in zip(
                *(found.slopes, found.dead, found.chained, self._listener.modules), strict=True
            )
        ]

    @torch.no_grad()
    def _moved(self) -> list[Found]:
        """How far the weights of each layer are from where they started."""
        start = {id(t): kept for t, kept in zip(self._tensors(), self._start, strict=True)}
        own = [list(parameters.own(module).values()) for module in self._listener.modules]
        return [displacement(here, [start[id(t)] for t in here]) for here in own]


def _tensors(module: nn.Module) -> list[Tensor]:
    """Weights and biases as forward uses them; of a weight that a parametrization makes, what it makes."""
    own: dict[str, Tensor] = dict(parameters.weights(module))
    if parametrize.is_parametrized(module):
        assert isinstance(module.parametrizations, nn.ModuleDict)
        own = {name: p for name, p in own.items() if name in module._parameters}
        own |= {name: getattr(module, name) for name in module.parametrizations}
    vectors = [p for p in module.parameters(recurse=False) if p.dim() < 2]
    return [*own.values(), *vectors]


def displacement(now: Sequence[Tensor], start: Sequence[Tensor]) -> Found:
    """||now - start|| / ||start||, of all tensors of a layer together."""
    if not now:
        return NO_WEIGHTS
    norm = torch.cat([t.flatten() for t in start]).double().norm()
    moved = torch.cat([(t - kept).flatten() for t, kept in zip(now, start, strict=True)]).double().norm()
    return (moved / norm).item() if norm > 0 else ALL_ZERO


class Passed(NamedTuple):
    """What one forward pass tells of each layer."""

    slopes: list[Found]  # mean slope
    chained: list[bool]  # see the function of that name
    dead: list[Found]  # share of dead units
    activations: list[str | None]  # the class of what stands behind it


def pass_through(model: nn.Module, listener: Listener, inputs: Tensor) -> Passed:
    """One forward pass.

    The slope is what backward multiplies with, taken from the activation alone, at what goes into it; the
    mean is over all runs of a layer that runs several times.
    """
    latest: dict[nn.Module, Tensor | None] = {}  # of the last run of each activation
    of: dict[Call, tuple[Tensor, Tensor | None]] = {}  # the activation that was heard, and its slope

    def before(activation: nn.Module, args: tuple[Any, ...], more: dict[str, Any]) -> None:
        latest[activation] = _slope(activation, args, more)  # now: it may work in place

    def after(activation: nn.Module, *_: object) -> None:  # the listener has just heard it
        for call in reversed(listener.calls):
            if call.activation is activation and (call not in of or of[call][0] is not call.a):
                of[call] = call.a, latest[activation]
                return

    listener.attach()
    handles = []
    for module in filter(is_activation, model.modules()):
        handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        handles.append(module.register_forward_hook(after))
    try:
        with torch.enable_grad():
            outputs = model(inputs)
        links = chained(outputs, listener.calls, len(listener.modules))
        runs: list[list[Tensor | None]] = [[] for _ in listener.modules]
        kinds: list[str | None] = [None] * len(listener.modules)
        reasons: list[Found] = [NOT_RUN for _ in listener.modules]
        for call in listener.calls:
            if call.activation is None:
                reasons[call.layer] = NO_ACTIVATION
            else:  # one that feeds the next layer runs once, and the listener hears it there
                runs[call.layer].append(of[call][1] if call in of else latest.get(call.activation))
                kinds[call.layer] = type(call.activation).__name__
    finally:
        for handle in handles:
            handle.remove()
        listener.detach()
    slopes = [_mean(own) if own else why for own, why in zip(runs, reasons, strict=True)]
    dead: list[Found] = [
        slope if isinstance(slope, str) else _dead(own, module)
        for slope, own, module in zip(slopes, runs, listener.modules, strict=True)
    ]
    return Passed(slopes, links, dead, kinds)


def chained(outputs: object, calls: Sequence[Call], layers: int) -> list[bool]:
    """For each layer: is the error that reaches it a function of the error at the next layer alone?

    So it is if backward from the outputs comes to it by way of the next layer only, and if it feeds every
    run of that one. Then their quotient is a factor of the Jacobian; otherwise, as for heads side by side
    or where a skip connection leads past, of nothing. Outputs that are no tensor tell nothing.
    """
    layer_of: dict[Any, int] = {}  # node that made a z -> its layer
    for call in calls:
        if call.node is not None:
            layer_of.setdefault(call.node, call.layer)
    start = outputs.grad_fn if isinstance(outputs, Tensor) else None
    fed = {node: _first_behind(node, layer_of) for node in layer_of}
    feeders: list[set[int]] = [set() for _ in range(layers)]
    for node, feeds in fed.items():
        feeders[layer_of[node]] |= feeds
    end = {layer_of[start]} if start in layer_of else _first_behind(start, layer_of)

    def chains(layer: int) -> bool:
        following = [feeds for node, feeds in fed.items() if layer_of[node] == layer + 1]
        if not following or not all(layer in feeds for feeds in following):
            return False
        reached, waiting = {layer + 1}, [*end]  # all that backward comes to around the next layer
        while waiting:
            if (at := waiting.pop()) not in reached:
                reached.add(at)
                waiting += feeders[at]
        return bool(end) and layer not in reached

    return [chains(layer) for layer in range(layers)]


def _first_behind(start: Any, layer_of: Mapping[Any, int]) -> set[int]:
    """The layers that backward comes to first from a node, without those behind them."""
    found, seen, waiting = set(), set(), [start] if start else []
    while waiting:
        for node, _ in waiting.pop().next_functions:
            if node in layer_of:
                found.add(layer_of[node])
            elif node is not None and node not in seen:
                seen.add(node)
                waiting.append(node)
    return found


def _slope(activation: nn.Module, args: tuple[Any, ...], more: dict[str, Any]) -> Tensor | None:
    """The derivative of each entry; None where entries depend on one another, as behind a softmax."""
    if not args or not isinstance(args[0], Tensor) or not args[0].is_floating_point():
        return None
    with torch.enable_grad():
        z = args[0].detach().clone().requires_grad_()
        a = activation.forward(z * 1, *args[1:], **more)  # a leaf must not be changed in place
    if not isinstance(a, Tensor) or a.shape != z.shape:
        return None
    if not a.requires_grad:
        return torch.zeros_like(z)
    # Weighted sums of the entries: where each depends on its own z alone, the weights come out again.
    weights = (1 + torch.arange(z.numel(), device=z.device) % 2).to(z.dtype).view(z.shape)
    (slope,) = torch.autograd.grad(a, z, torch.ones_like(a), retain_graph=True)
    (weighted,) = torch.autograd.grad(a, z, weights)
    alike = torch.allclose(weighted, weights * slope, rtol=1e-4, atol=1e-30, equal_nan=True)
    return slope if alike else None


def _mean(runs: Sequence[Tensor | None]) -> Found:
    known = [slope.flatten() for slope in runs if slope is not None]
    return torch.cat(known).mean().item() if len(known) == len(runs) else NOT_BY_ITSELF


def _dead(runs: Sequence[Tensor | None], module: nn.Module) -> Found:
    """The share of units whose slope is next to 0 for all samples, at all places and times."""
    sizes = [units_last(slope.abs(), module) for slope in runs if slope is not None]  # (S, U) each
    if len({size.shape[1] for size in sizes}) > 1:
        return UNEVEN_RUNS
    return (torch.cat(sizes).mean(dim=0) < DEAD).float().mean().item()


def rows(parameters: Sequence[Tensor], like: nn.Module | None = None) -> dict[str, Found]:
    """How alike the rows of a layer's weights are: `row_difference`, `distinct_rows`, `effective_rank`.

    Weight matrices of one layer stand side by side, as those of a recurrent cell; a kernel is a row.

    Args:
        parameters: those of the layer itself.
        like: the layer; a transposed convolution keeps its units in the second dimension.
    """
    matrices = [p.detach() for p in parameters if p.dim() >= 2]
    if isinstance(like, nn.modules.conv._ConvTransposeNd):
        matrices = [m.transpose(0, 1) for m in matrices]
    if not matrices or len({len(m) for m in matrices}) > 1:
        return dict.fromkeys(LOOKS[1:4], UNEVEN if matrices else NO_WEIGHTS)
    weight = torch.cat([m.flatten(1) for m in matrices], dim=1).cpu().double()  # (N, F)
    columns = [p.detach().cpu().double().unsqueeze(1) for p in parameters if p.shape == (len(weight),)]
    whole = torch.cat([weight, *columns], dim=1)  # (N, F + 1) with one bias
    if not bool(whole.isfinite().all()):
        return dict.fromkeys(LOOKS[1:4], NOT_FINITE)
    difference, distinct = differences(whole)
    return dict(zip(LOOKS[1:4], (difference, distinct, effective_rank(weight)), strict=True))


def differences(rows: Tensor) -> tuple[Found, Found]:
    """`row_difference` and `distinct_rows` of (N, F) float64; rows of zeros are equal.

    Of many rows `LARGEST`, from the first to the last.
    """
    if len(rows) == 1:
        return ONE_ROW, ONE_ROW
    if len(rows) > LARGEST:
        rows = rows[torch.linspace(0, len(rows) - 1, LARGEST).round().long()]
    moved = rows - rows[0]  # rows that are equal become exact zeros, which the products below keep
    squares = moved.square().sum(dim=1)
    distances = (squares.unsqueeze(1) + squares - 2 * moved @ moved.T).clamp(min=0).sqrt()  # (N, N)
    norm = torch.linalg.vector_norm(rows, dim=1).max()
    repeats = (distances <= SAME * norm).tril(diagonal=-1).any(dim=1)
    difference = (distances.max() / norm).item() if norm > 0 else 0.0
    return difference, int((~repeats).sum()) / len(rows)


def effective_rank(matrix: Tensor) -> Found:
    """Of (N, F) float64, Roy and Vetterli 2007: 1 if all rows are multiples of one, at most min(N, F)."""
    if min(matrix.shape) > LARGEST:
        return TOO_LARGE_FOR_RANK
    wide = matrix if len(matrix) <= matrix.shape[1] else matrix.T
    squares = torch.linalg.eigvalsh(wide @ wide.T)  # of the singular values: a tenth of the time
    rounding = len(wide) * torch.finfo(squares.dtype).eps * squares.max()
    values = torch.where(squares > rounding, squares, 0.0).sqrt()
    if not values.any():
        return ALL_ZERO
    shares = values / values.sum()
    return torch.exp(-torch.special.xlogy(shares, shares).sum()).item()


def jacobian_factors(deltas: Sequence[Found]) -> list[Found]:
    """By which factor `delta_rms` changes on its way back from the next layer, for each layer."""

    def factor(own: Found, following: Found) -> Found:
        if isinstance(own, str) or isinstance(following, str):
            return NO_DELTA
        return own / following if following else NEXT_IS_ZERO

    return [*itertools.starmap(factor, itertools.pairwise(deltas)), LAST][: len(deltas)]
