"""Recurrent networks of PyTorch's cells, unrolled over time in a loop, so that every time step is seen.

A cell is one layer that runs T times; its z is the hidden state h_t, so dL/dz is what comes from the
loss at time t and from all later times; of an LSTM dL/dc_t of its cell state is recorded beside it.
B batch, T time steps, F features, H units, K outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dlexp.data.dataset import Dataset
from dlexp.errors import UserError

CELLS: dict[str, type[nn.RNNCellBase]] = {"rnn": nn.RNNCell, "lstm": nn.LSTMCell, "gru": nn.GRUCell}
EVERY_STEP = ("sequence_labelling", "language_modelling", "transcription")  # tasks that ask at every time


class Recurrent(nn.Module):
    """A stack of cells, each run over all time steps, and a linear layer on what the last one remembers.

    Args:
        inputs: F, or the number of different tokens.
        cell: a name in `CELLS`.
        width: H, of every cell.
        embedding: numbers that stand for a token; None where inputs are no tokens.
        every_step: answer at each time step, not only at the last one.
        gate_bias: where the bias of the gate that keeps the old state starts: the forget gate f of an
            LSTM, the update gate z of a GRU. None leaves it.
        recurrent: where the matrices from h_(t-1) to h_t start: "default" as all weights do,
            "orthogonal" or "identity".
        truncate: no gradient passes back over the border between one stretch of so many time steps and
            the next (truncated backpropagation through time). None: all the way.
        nonlinearity: of a plain rnn, "tanh" or "relu".
        normalization, dropout: of the hidden states (N, H) that a cell hands on, to the next cell or to
            the readout. The state that it keeps for the next time step passes neither. Each time step
            has a mask of its own, as in `nn.LSTM`.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        cell: str,
        layers: int,
        width: int,
        embedding: int | None,
        every_step: bool,
        gate_bias: float | None = None,
        recurrent: str = "default",
        truncate: int | None = None,
        nonlinearity: str | None = None,
        normalization: Callable[[int], nn.Module] | None = None,
        dropout: Callable[[], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.embedding = None if embedding is None else nn.Embedding(inputs, embedding)
        sizes = [embedding or inputs, *[width] * (layers - 1)]
        options: dict[str, Any] = {"nonlinearity": nonlinearity} if nonlinearity else {}
        self.cells = nn.ModuleList(CELLS[cell](size, width, **options) for size in sizes)
        self.between = nn.ModuleList()  # what each cell's states pass on their way on
        for _ in sizes:
            normal, drop = normalization and normalization(width), dropout and dropout()
            self.between.append(nn.Sequential(*(module for module in (normal, drop) if module)))
        self.readout = nn.Linear(width, outputs)
        self._every_step, self._truncate = every_step, truncate
        self._gate_bias, self._recurrent = gate_bias, recurrent

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, T, F), or tokens (B, T) -> (B, T, K) or, from the last state, (B, K)."""
        signal = inputs if self.embedding is None else self.embedding(inputs)  # (B, T, F)
        for cell, between in zip(self.cells, self.between, strict=True):
            states = unroll(cell, signal, self._truncate)  # (B, T, H)
            signal = between(states.flatten(0, 1)).view_as(states)
        answer: Tensor = self.readout(signal if self._every_step else signal[:, -1])
        return answer

    @torch.no_grad()
    def adjust_start(self) -> None:
        """Recurrent matrices and gate biases, once all other weights are drawn.

        PyTorch keeps one (H, H) block for each gate, in the order i f g o of an LSTM and r z n of a GRU,
        so both gates that keep the old state lie in rows H to 2H. It has two biases that only ever are
        added: the one gets the value, the other 0.
        """
        draw = {"orthogonal": nn.init.orthogonal_, "identity": nn.init.eye_}.get(self._recurrent)
        for cell in self.cells:
            assert isinstance(cell, nn.RNNCellBase)
            gate = slice(cell.hidden_size, 2 * cell.hidden_size)
            if draw is not None:
                for block in cell.weight_hh.split(cell.hidden_size):
                    draw(block)
            if self._gate_bias is not None:
                cell.bias_ih[gate] = self._gate_bias
                cell.bias_hh[gate] = 0.0


def unroll(cell: nn.Module, inputs: Tensor, truncate: int | None = None) -> Tensor:
    """(B, T, F) -> all hidden states (B, T, H), from a state of zeros; `truncate` as in `Recurrent`."""
    state: Any = None  # h, or (h, c) of an LSTM
    states = []
    for t, x in enumerate(inputs.unbind(dim=1)):
        if truncate and t and t % truncate == 0:
            state = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
        state = cell(x, state)
        states.append(state[0] if isinstance(state, tuple) else state)
    return torch.stack(states, dim=1)


def recurrent(
    input_shape: Sequence[int],
    outputs: int,
    data: Dataset,
    vocabulary: int | None = None,
    *,
    cell: str,
    layers: int,
    width: int,
    embedding: int,
    gate_bias: float | None = None,
    recurrent: str = "default",
    truncate: int | None = None,
    nonlinearity: str | None = None,
    normalization: Callable[[int], nn.Module] | None = None,
    position: str = "before",
    dropout: Callable[[], nn.Module] | None = None,
) -> Recurrent:
    """A recurrent network for sequences (T, F) or tokens (T,), that answers as often as the task asks.

    Raises:
        UserError: the data is of another kind, or a choice has no place in such a network.
    """
    if len(input_shape) != (2 if vocabulary is None else 1):
        raise UserError(
            f"model={cell}: takes sequences (T, F) or tokens (T,); the data has {tuple(input_shape)};"
            " allowed: data=sequential_digits, text ..."
        )
    if cell == "rnn" and gate_bias is not None:
        raise UserError(f"model.gate_bias={gate_bias:g}: a plain rnn has no gates; allowed: null")
    if normalization and position == "after":
        raise UserError(
            "normalization.position=after: the activation is inside the cell, and what the cell hands on"
            " has one place to be normalized; allowed: before"
        )
    if normalization and isinstance(normalization(width), nn.modules.batchnorm._BatchNorm):
        raise UserError(
            "normalization=batch: would mix the time steps of a recurrent net; allowed: none, layer, rms,"
            " group"
        )
    return Recurrent(
        vocabulary or input_shape[-1],
        outputs,
        cell=cell,
        layers=layers,
        width=width,
        embedding=embedding if vocabulary else None,
        every_step=data.task in EVERY_STEP,
        gate_bias=gate_bias,
        recurrent=recurrent,
        truncate=truncate,
        nonlinearity=nonlinearity,
        normalization=normalization,
        dropout=dropout,
    )


def character_model(
    input_shape: Sequence[int],
    outputs: int,
    data: Dataset,
    vocabulary: int | None = None,
    normalization: Callable[[int], nn.Module] | None = None,
    position: str = "before",
    dropout: Callable[[], nn.Module] | None = None,
    **values: Any,
) -> Recurrent:
    """The same, given characters, guessing the next one at every time step; `values` as there."""
    if vocabulary is None or data.task != "language_modelling":
        raise UserError(
            f"model=char_lm: takes tokens (T,) and task=language_modelling; the data has"
            f" {tuple(input_shape)} and asks for {data.task}; allowed: data=text"
        )
    return recurrent(
        input_shape,
        outputs,
        data,
        vocabulary,
        normalization=normalization,
        position=position,
        dropout=dropout,
        **values,
    )
