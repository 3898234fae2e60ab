"""Batches: each sample at most once per epoch, in an order that the seed alone decides."""

from __future__ import annotations

from itertools import chain, islice

import pytest
import torch

from dlexp.data.batches import Batches
from dlexp.data.dataset import Split


def numbered(n: int) -> Split:
    """Sample i holds the number i, and so does its target."""
    return Split(torch.arange(n, dtype=torch.float32).view(n, 1), torch.arange(n))


def epochs(n: int, size: int, seed: int, count: int) -> list[list[int]]:
    """The sample numbers of each of the first epochs."""
    drawn = [targets.tolist() for _, targets in islice(Batches(numbered(n), size, seed), count * (n // size))]
    per = n // size
    return [list(chain(*drawn[i * per : (i + 1) * per])) for i in range(count)]


@pytest.mark.parametrize(("n", "size"), [(12, 4), (13, 4), (15, 4), (7, 7), (5, 1)])
def test_an_epoch_shows_each_sample_at_most_once(n: int, size: int) -> None:
    """No sample comes twice in an epoch; those of the incomplete last batch are left out."""
    for epoch in epochs(n, size, seed=0, count=3):
        assert len(set(epoch)) == len(epoch) == n // size * size


def test_batches_have_the_asked_size() -> None:
    """A last portion that is too small is dropped, never given."""
    for inputs, targets in islice(Batches(numbered(10), 3, 0), 20):
        assert inputs.shape == (3, 1) and targets.shape == (3,)
        assert inputs.flatten().tolist() == targets.tolist()


def test_every_epoch_is_shuffled_anew() -> None:
    """Epochs of one run come in different orders, and none in the order of the data set."""
    drawn = epochs(40, 4, seed=0, count=4)
    assert len({tuple(epoch) for epoch in drawn}) == 4
    assert list(range(40)) not in drawn


def test_samples_left_out_differ_between_epochs() -> None:
    """Dropping the incomplete batch does not hide the same samples for ever."""
    assert set().union(*epochs(11, 10, seed=0, count=30)) == set(range(11))


def test_order_depends_on_the_seed_alone() -> None:
    """The same seed gives the same order whatever PyTorch's own generator did; another gives another."""
    torch.manual_seed(1)
    first = epochs(40, 4, seed=0, count=2)
    torch.manual_seed(2)
    assert epochs(40, 4, seed=0, count=2) == first
    assert epochs(40, 4, seed=1, count=2) != first


def test_drawing_leaves_the_global_generator_alone() -> None:
    """A network with dropout draws the same masks however many batches were taken."""
    before = torch.get_rng_state()
    list(islice(Batches(numbered(10), 2, 0), 12))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("taken", [0, 1, 2, 3, 4, 6, 7])  # an epoch has 3
def test_batches_go_on_where_they_were(taken: int, fixed: bool) -> None:
    """At the start, within an epoch and at its end; what was asked for is not changed by asking."""
    first, second = (Batches(numbered(10), 3, 0, fixed=fixed) for _ in range(2))
    list(islice(first, taken))
    second.load_state_dict(first.state_dict())
    expected = [
        targets.tolist() for _, targets in islice(Batches(numbered(10), 3, 0, fixed=fixed), taken + 8)
    ]
    for batches in (second, first):
        assert [targets.tolist() for _, targets in islice(batches, 8)] == expected[taken:]


def test_fixed_gives_the_first_batch_for_ever() -> None:
    """fixed=True repeats what would have come first."""
    first = next(Batches(numbered(40), 4, 7))[1]
    for inputs, targets in islice(Batches(numbered(40), 4, 7, fixed=True), 25):
        assert torch.equal(targets, first) and inputs.flatten().tolist() == first.tolist()


@pytest.mark.parametrize(
    "inputs",
    [
        torch.randn(11, 3),
        torch.randn(11, 2, 4, 5),
        torch.randn(11, 4, 5, 2).permute(0, 3, 1, 2),
        torch.randint(9, (11, 6)),  # tokens
        torch.randn(22, 3, dtype=torch.float64)[::2],
    ],
    ids=["features", "pictures", "channels last", "tokens", "strided"],
)
def test_batches_are_what_indexing_gives(inputs: torch.Tensor) -> None:
    """Rows of inputs and targets of any kind, of sequences too; what is done to a batch stays there."""
    targets = torch.randint(5, (11, 6))
    split, before = Split(inputs, targets), inputs.clone()
    order = torch.randperm(11, generator=torch.Generator().manual_seed(0))
    for rows, (x, y) in zip(order[:8].view(2, 4), Batches(split, 4, 0), strict=False):
        assert torch.equal(x, inputs[rows]) and torch.equal(y, targets[rows]) and x.dtype == inputs.dtype
        x.zero_()
    assert torch.equal(inputs, before)
