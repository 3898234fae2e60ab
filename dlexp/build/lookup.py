"""A table of all training samples: it learns by heart and understands nothing.

B batch, N training samples, F numbers of a sample, K outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from dlexp.data.dataset import Dataset
from dlexp.errors import UserError

TASKS = ("classification", "binary", "multi_label", "regression")


class Lookup(nn.Module):
    """Answers with the target of the training sample that is nearest (Euclidean distance).

    Args:
        data: its training split is what is remembered.
        exact: answer only for samples that are in the table; any other gets 0 for every output, which
            says nothing of its class and reads as the first one.
    """

    def __init__(self, data: Dataset, *, exact: bool) -> None:
        super().__init__()
        if data.task not in TASKS:
            raise UserError(f"model=lookup: has no answer to task={data.task}; allowed: {', '.join(TASKS)}")
        targets = data.train.targets
        if data.task == "classification":
            targets = functional.one_hot(targets, data.outputs)
        self.memory = nn.Parameter(
            data.train.inputs.flatten(1).float().clone(), requires_grad=False
        )  # (N, F)
        self.answers = nn.Parameter(targets.float().nan_to_num(), requires_grad=False)  # (N, K)
        self._exact = exact

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, ...) -> (B, K): for classes 1 for the one remembered and 0 for all others."""
        # differences, not products: of equal samples they are exactly 0
        distances = torch.cdist(
            inputs.flatten(1).to(self.memory), self.memory, compute_mode="donot_use_mm_for_euclid_dist"
        )
        distance, nearest = distances.min(dim=1)
        answers = self.answers[nearest]
        return answers * (distance == 0).unsqueeze(1) if self._exact else answers
