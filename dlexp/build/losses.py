"""Losses that PyTorch lacks, or has in another shape.

B samples, T time steps, K outputs, I items of a list, L symbols of a text, D numbers of a sample.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from dlexp.errors import UserError


class PerStep(nn.Module):
    """A loss of (N, K) outputs and (N,) targets, applied to each time step of (B, T, K) and (B, T)."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        found: Tensor = self.loss(outputs.flatten(0, -2), targets.flatten())
        return found


class BinaryCrossEntropy(nn.Module):
    """-[y log p + (1 - y) log(1 - p)] with p = sigmoid(output), mean over the targets that are known.

    Outputs (B, K), targets (B, K) of 0 or 1, NaN where unknown.
    """

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        each = functional.binary_cross_entropy_with_logits(outputs, targets.nan_to_num(), reduction="none")
        return _mean_of_known(each, targets)


class BinaryCrossEntropyOfProbabilities(nn.Module):
    """The same with p = output, as behind a sigmoid. `nn.BCELoss` fails where an output is NaN."""

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        y = targets.nan_to_num()
        return _mean_of_known(-y * _log(outputs) - (1 - y) * _log(1 - outputs), targets)


class WrongSign(nn.Module):
    """y log p + (1 - y) log(1 - p) with p = sigmoid(output): the log loss of a note that lost the minus."""

    def __init__(self) -> None:
        super().__init__()
        self.log_loss = BinaryCrossEntropy()

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        loss: Tensor = -self.log_loss(outputs, targets)
        return loss


class LogLoss(nn.Module):
    """-log p of the right class, mean over the batch: (B, K) probabilities, (B,) classes."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = reduction

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.nll_loss(_log(outputs), targets, reduction=self.reduction)


class SoftmaxMSE(nn.Module):
    """Mean of (softmax(outputs) - one-hot target)^2: (B, K) logits, (B,) classes."""

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        wanted = functional.one_hot(targets, outputs.shape[-1]).to(outputs.dtype)
        return functional.mse_loss(outputs.softmax(dim=-1), wanted)


class Perceptron(nn.Module):
    """-y z, with y = -1 or 1, summed over mistakes, y z <= 0: (B, 1) outputs z, (B, 1) targets 0 or 1.

    z = 0 counts as a mistake, so that weights of 0 are moved (Rosenblatt 1958).
    """

    def __init__(self, reduction: str = "sum") -> None:
        super().__init__()
        self.reduction = reduction

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        agreement = _signs(targets) * outputs
        each = -agreement * (agreement <= 0)
        return each.sum() if self.reduction == "sum" else each.mean()


class BinaryHinge(nn.Module):
    """max(0, margin - y z), with y = -1 or 1, mean over all: (B, K) outputs z, (B, K) targets 0 or 1."""

    def __init__(self, margin: float = 1.0) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return _mean_of_known(functional.relu(self.margin - _signs(targets.nan_to_num()) * outputs), targets)


class ListNet(nn.Module):
    """Cross-entropy between the softmaxes of relevance and score over each list, Cao et al. 2007.

    Outputs (B, I) scores, targets (B, I) relevance; mean over lists.
    """

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(outputs, targets.softmax(dim=-1))


class CTC(nn.Module):
    """-log of the probability of all alignments that spell the text, Graves et al. 2006.

    Outputs (B, T, K) logits, of which 0 is the blank; targets (B, L) symbols 1 to K - 1, 0 behind the
    end. The mean is PyTorch's: each text's loss is divided by its length first.
    """

    def __init__(self, reduction: str = "mean", zero_infinity: bool = False) -> None:
        super().__init__()
        self.loss = nn.CTCLoss(blank=0, reduction=reduction, zero_infinity=zero_infinity)

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if outputs.dim() != 3:
            shape = tuple(outputs.shape[1:])
            raise UserError(
                f"loss=ctc: takes a row of scores for each time step (T, K); the model gives {shape}"
            )
        batch, steps, _ = outputs.shape
        if steps < targets.shape[1]:
            raise UserError(
                f"loss=ctc: {steps} time steps cannot spell a text of {targets.shape[1]} symbols;"
                " allowed: one step or more for each symbol, and one between equal ones"
            )
        log_probabilities = outputs.log_softmax(dim=-1).transpose(0, 1)  # (T, B, K)
        lengths = torch.full((batch,), steps, dtype=torch.int64, device=outputs.device)
        loss: Tensor = self.loss(log_probabilities, targets, lengths, (targets != 0).sum(dim=1))
        return loss


class Minimax(nn.Module):
    """The game of Goodfellow et al. 2014 as it is first written: the generator minimizes log(1 - D(fake)).

    Outputs (B, 3 + D): logits D(real) and D(fake) that only the discriminator learns from, D(fake) that
    only the generator learns from, the fake sample. The losses of both are added, targets are not used.
    """

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        # log(1 - sigmoid(z)) = -softplus(z)
        return _discriminator(outputs) - functional.softplus(outputs[:, 2]).mean()


class NonSaturating(nn.Module):
    """The same, but the generator minimizes -log D(fake), whose slope is largest where it is caught."""

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return _discriminator(outputs) + functional.softplus(-outputs[:, 2]).mean()


class Triplet(nn.Module):
    """max(0, d(anchor, positive) - d(anchor, negative) + margin), mean over all triplets of the batch.

    Outputs (B, K) embeddings, targets (B,) classes, d Euclidean. Positives share the anchor's class,
    negatives do not; 0 where there is no triplet. As `nn.TripletMarginLoss`, but the B^3 triplets are
    never spelled out: behind sorted negatives their losses are sums of the first ones.
    """

    by_batch = True  # for evaluation: all pairs of a large split would be too many

    def __init__(self, margin: float = 1.0) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        same = targets.unsqueeze(1) == targets
        positive = same & ~torch.eye(len(targets), dtype=torch.bool, device=targets.device)
        distance = torch.cdist(outputs, outputs, compute_mode="donot_use_mm_for_euclid_dist")  # (B, B)
        reach = distance + self.margin  # a negative nearer than this costs reach - its distance
        nearest = distance.masked_fill(same, torch.inf).sort(dim=1).values
        number = torch.searchsorted(nearest.detach(), reach.detach())  # (B, B) how many such negatives
        first = nearest.masked_fill(nearest.isinf(), 0).cumsum(dim=1)
        first = functional.pad(first, (1, 0))  # (B, B + 1), the sum of the first 0, 1, ...
        cost = number * reach - first.gather(1, number)
        triplets = (positive.sum(dim=1) * (~same).sum(dim=1)).sum()
        return (cost * positive).sum() / triplets.clamp(min=1)


class Cosine(nn.Module):
    """1 - cos for two samples of one class, max(0, cos - margin) otherwise, mean over all pairs.

    Outputs (B, K) embeddings, targets (B,) classes; PyTorch's `cosine_embedding_loss`.
    """

    by_batch = True  # for evaluation: all pairs of a large split would be too many

    def __init__(self, margin: float = 0.0) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        i, j = torch.triu_indices(len(targets), len(targets), offset=1, device=targets.device)
        alike = (targets[i] == targets[j]).to(outputs.dtype)
        total = functional.cosine_embedding_loss(
            outputs[i], outputs[j], _signs(alike), margin=self.margin, reduction="sum"
        )
        return total / max(1, len(i))


def _mean_of_known(each: Tensor, targets: Tensor) -> Tensor:
    """The mean where the target is no NaN."""
    known = targets.isfinite()
    return (each * known).sum() / known.sum().clamp(min=1)


def _log(probabilities: Tensor) -> Tensor:
    """The logarithm, finite at 0."""
    return probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny).log()


def _signs(targets: Tensor) -> Tensor:
    """0 and 1 as -1 and 1."""
    return 2 * targets - 1


def _discriminator(outputs: Tensor) -> Tensor:
    """-log D(real) - log(1 - D(fake)), mean over the batch."""
    return (functional.softplus(-outputs[:, 0]) + functional.softplus(outputs[:, 1])).mean()
