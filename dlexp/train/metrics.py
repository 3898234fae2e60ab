"""How well a network does, from its outputs and the targets: each a function to a scalar tensor.

They are passive: taken in evaluation mode, without gradients, and nothing is learned from them. Those that
early stopping or a plateau schedule listens to steer training all the same: `metrics_monitored` of the
summary names them. A number that does not exist, such as the recall of a class that is not there, is NaN
or left out of a mean.
N samples, T time steps, K outputs, I items of a list, L symbols of a text, M modes, D numbers of a sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

BINS = 15  # of confidence, as in Guo et al. 2017
PORTION = 1024  # samples whose distances to all others are held at a time


def decisions(outputs: Tensor, targets: Tensor, threshold: float = 0.0) -> tuple[Tensor, Tensor]:
    """What the network decides and what is right, (decisions,) each; unknown targets are left out.

    Args:
        outputs, targets: (..., K) scores and (...) indices, negative if unknown; or (N, K) answers of
            yes or no and (N, K) of 1 or 0, NaN if unknown.
        threshold: an output above it is a yes.
    """
    if targets.is_floating_point():
        known = targets.isfinite()
        return (outputs > threshold)[known], (targets > 0.5)[known]
    decided, targets = outputs.argmax(dim=-1).flatten(), targets.flatten()
    known = targets >= 0
    return decided[known], targets[known]


def accuracy(outputs: Tensor, targets: Tensor, threshold: float = 0.0) -> Tensor:
    """Share of decisions that are right; of many answers each counts by itself."""
    if not targets.is_floating_point() and targets.dim() == 1:  # the common case, without a mask
        return (outputs.argmax(dim=1) == targets).float().mean()
    decided, right = decisions(outputs, targets, threshold)
    return (decided == right).float().mean()


def error_rate(outputs: Tensor, targets: Tensor, threshold: float = 0.0) -> Tensor:
    """Share of decisions that are wrong."""
    return 1 - accuracy(outputs, targets, threshold)


def zero_one(outputs: Tensor, targets: Tensor, threshold: float = 0.0) -> Tensor:
    """Number of decisions that are wrong."""
    decided, right = decisions(outputs, targets, threshold)
    return (decided != right).sum()


def precision(outputs: Tensor, targets: Tensor, threshold: float = 0.0) -> Tensor:
    """Share of the decisions for a class that are right, mean over classes."""
    return _over_classes(lambda hits, decided, _: hits / decided.clamp(min=1), outputs, targets, threshold)


def recall(outputs: Tensor, targets: Tensor, threshold: float = 0.0) -> Tensor:
    """Share of a class that is found, mean over classes."""
    return _over_classes(lambda hits, _, right: hits / right.clamp(min=1), outputs, targets, threshold)


def f1(outputs: Tensor, targets: Tensor, threshold: float = 0.0) -> Tensor:
    """Harmonic mean of precision and recall of a class, mean over classes."""
    return _over_classes(
        lambda hits, decided, right: 2 * hits / (decided + right).clamp(min=1), outputs, targets, threshold
    )


def auc(outputs: Tensor, targets: Tensor, threshold: float = 0.0) -> Tensor:
    """Probability that a sample of a class scores above one of another, mean over classes.

    The area under the ROC curve; ties count half. The score is the probability of the class.
    """
    scores, members = _scores(outputs, targets, threshold)
    return torch.stack([_auc(s, m) for s, m in zip(scores.T, members.T, strict=True)]).nanmean()


def ece(outputs: Tensor, targets: Tensor, threshold: float = 0.0) -> Tensor:
    """Expected calibration error: how far confidence and accuracy are apart, mean over decisions.

    |accuracy - mean confidence| in each of 15 equal bins of the confidence, weighted by its share of the
    decisions (Guo et al. 2017). Confidence is the probability of what was decided.
    """
    scores, members = _scores(outputs, targets, threshold)
    if targets.is_floating_point():
        known = members.isfinite()
        scores, right = scores[known], members[known] == (scores[known] > 0.5)
        confidence = torch.maximum(scores, 1 - scores)
    else:
        confidence, decided = scores.max(dim=1)
        right = members.gather(1, decided.unsqueeze(1)).squeeze(1) == 1
    bins = (confidence.nan_to_num() * BINS).ceil().long().clamp(1, BINS) - 1  # (low, high]
    gaps = functional.one_hot(bins, BINS).to(confidence.dtype).T @ (right.to(confidence.dtype) - confidence)
    return gaps.abs().sum() / len(confidence) if len(confidence) else gaps.sum() * math.nan


def mse(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error."""
    _refuse_other_shapes(outputs, targets)
    return (outputs - targets).square().mean()


def rmse(outputs: Tensor, targets: Tensor) -> Tensor:
    """Root of the mean squared error."""
    return mse(outputs, targets).sqrt()


def mae(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean absolute error."""
    _refuse_other_shapes(outputs, targets)
    return (outputs - targets).abs().mean()


def rounded_accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Share of right classes where one number stands for the index of the class, rounded: (N, 1) each."""
    _refuse_other_shapes(outputs, targets)
    return (outputs.round() == targets).float().mean()


def bits_per_character(outputs: Tensor, targets: Tensor, threshold: float = 0.0) -> Tensor:
    """Cross-entropy to the base 2: (N, T, K), (N, T) tokens."""
    if _are_probabilities(threshold):
        outputs = outputs.clamp(min=torch.finfo(outputs.dtype).tiny).log()
    return functional.cross_entropy(outputs.flatten(0, -2), targets.flatten()) / math.log(2)


def exact_match(outputs: Tensor, targets: Tensor) -> Tensor:
    """Share of texts read without any mistake, by greedy CTC decoding.

    The best symbol of each time step, repetitions once, blanks (0) left out: (N, T, K) scores,
    (N, L) symbols, 0 behind the end.
    """
    best = outputs.argmax(dim=-1)  # (N, T)
    before = functional.pad(best, (1, 0))[:, :-1]
    read = (best != 0) & (best != before)
    place = (read.cumsum(dim=1) - 1).clamp(0, targets.shape[1] - 1)  # where in the text it would stand
    wrong = (read & (best != targets.gather(1, place))).any(dim=1)
    complete = read.sum(dim=1) == (targets != 0).sum(dim=1)
    return (complete & ~wrong).float().mean()


def sequence_accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Share of sequences with every time step right: (N, T, K), (N, T) indices, negative if unknown."""
    return ((outputs.argmax(dim=-1) == targets) | (targets < 0)).all(dim=1).float().mean()


def ndcg(outputs: Tensor, targets: Tensor) -> Tensor:
    """Normalized discounted cumulative gain, Järvelin and Kekäläinen 2002: (N, I) scores, (N, I) relevance.

    Relevance / log2(place + 1), summed over the list in the order of the scores, divided by the largest
    possible. Items with equal scores share their places. Lists where nothing is relevant are left out.
    """
    _refuse_other_shapes(outputs, targets)
    items = outputs.shape[1]
    discount = 1 / torch.arange(2, items + 2, device=outputs.device, dtype=outputs.dtype).log2()
    before = functional.pad(discount.cumsum(dim=0), (1, 0))  # (I + 1,) sum of the first 0, 1, ... places
    ascending = outputs.sort(dim=1).values
    first = items - torch.searchsorted(ascending, outputs, right=True)  # (N, I) items with higher scores
    last = items - torch.searchsorted(ascending, outputs)  # those and the ones with equal scores
    # scores that are NaN are equal to none
    shared = (before[last] - before[first]) / (last - first).clamp(min=1)
    gain = (shared * targets).sum(dim=1)
    ideal = (targets.sort(dim=1, descending=True).values * discount).sum(dim=1)
    return (gain / ideal).nanmean()


def nearest_neighbour(outputs: Tensor, targets: Tensor) -> Tensor:
    """Share of samples whose nearest other one is of their class: (N, K) embeddings, (N,) classes."""
    if len(targets) < 2:
        return outputs.new_tensor(math.nan)
    nearest: list[Tensor] = []
    for start in range(0, len(outputs), PORTION):
        distance = torch.cdist(outputs[start : start + PORTION], outputs)  # (portion, N)
        distance.diagonal(offset=start).fill_(torch.inf)
        nearest.append(distance.argmin(dim=1))
    return (targets[torch.cat(nearest)] == targets).float().mean()


def fooled(outputs: Tensor, targets: Tensor) -> Tensor:
    """Share of fakes that the discriminator takes for real: (N, 3 + D), column 1 is its logit of them."""
    return (outputs[:, 1] > 0).float().mean()


def modes_covered(outputs: Tensor, targets: Tensor, facts: Mapping[str, Any]) -> Tensor:
    """Share of the modes with a fake less than three deviations from their centre: (N, 3 + D).

    Args:
        facts: of the data: centres (M, D), and spread, the deviation around each.
    """
    if not {"centres", "spread"} <= facts.keys():
        raise ValueError("the data has no facts.centres and facts.spread, as data=ring has")
    centres = torch.as_tensor(facts["centres"], dtype=outputs.dtype, device=outputs.device)
    distance = torch.cdist(outputs[:, 3:], centres)  # (N, M)
    near: Tensor = distance < 3 * facts["spread"]
    return near.any(dim=0).float().mean()


def two_sample(outputs: Tensor, targets: Tensor) -> Tensor:
    """How often the nearest other sample tells a real one from a fake: 1/2 where they are alike.

    The classifier two-sample test of Lopez-Paz and Oquab 2017: (N, 3 + D), (N, D) real samples.
    """
    samples = torch.cat([outputs[:, 3:], targets])
    return nearest_neighbour(samples, torch.arange(len(samples), device=samples.device) // len(targets))


def _are_probabilities(threshold: float) -> bool:
    """The head says where yes begins: at 1/2 behind a sigmoid or softmax, otherwise at a logit of 0."""
    return threshold == 0.5


def _scores(outputs: Tensor, targets: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """The probability of each class and who belongs to it, 1 or 0, NaN if unknown: (samples, K) each."""
    if targets.is_floating_point():
        return outputs if _are_probabilities(threshold) else outputs.sigmoid(), targets
    outputs, targets = outputs.flatten(0, -2), targets.flatten()
    known = targets >= 0
    outputs = outputs if _are_probabilities(threshold) else outputs.softmax(dim=-1)
    return outputs[known], functional.one_hot(targets[known], outputs.shape[-1]).to(outputs.dtype)


def _over_classes(
    share: Callable[[Tensor, Tensor, Tensor], Tensor], outputs: Tensor, targets: Tensor, threshold: float
) -> Tensor:
    """Mean of a share over the classes that occur or are decided for; yes is the one class of (N, 1).

    Args:
        share: of the numbers of hits, decisions for a class, and members of a class, (K,) each.
    """
    if targets.is_floating_point():
        yes = (outputs > threshold) & targets.isfinite()
        right = targets > 0.5
        counts = [c.sum(dim=0) for c in (yes & right, yes, right)]
    else:
        decided, members = decisions(outputs, targets)
        of_class = (members[decided == members], decided, members)
        counts = [torch.bincount(c, minlength=outputs.shape[-1]) for c in of_class]
    occurs = (counts[1] + counts[2]) > 0
    return share(*counts)[occurs].float().mean()


def _auc(scores: Tensor, members: Tensor) -> Tensor:
    """Of one class, (N,) each; NaN if all or none belong to it."""
    inside, outside = scores[members == 1], scores[members == 0].sort().values
    below = torch.searchsorted(outside, inside) + torch.searchsorted(outside, inside, right=True)
    return below.sum() / (2 * len(inside) * len(outside) or math.nan)


def _refuse_other_shapes(outputs: Tensor, targets: Tensor) -> None:
    """A difference of other shapes would be taken of every pair."""
    if outputs.shape != targets.shape:
        raise ValueError(f"outputs {tuple(outputs.shape)} against targets {tuple(targets.shape)}")


ALL = {
    metric.__name__: metric
    for metric in (
        *(accuracy, error_rate, zero_one, precision, recall, f1, auc, ece),
        *(mse, rmse, mae, rounded_accuracy),
        *(bits_per_character, exact_match, sequence_accuracy, ndcg),
        *(nearest_neighbour, fooled, modes_covered, two_sample),
    )
}
