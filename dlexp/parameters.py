"""Which parameters are weights, and which module they belong to: the one answer for all who ask."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils import parametrize

# Their scales have as many dimensions as what they normalize.
_SCALES = (nn.LayerNorm, nn.RMSNorm)


def is_weight(name: str, parameter: Tensor) -> bool:
    """A matrix or a kernel: two dimensions or more, and not called a bias.

    A vector or table that is shaped to be added or multiplied in place is none: a class token (1, 1, E),
    position embeddings (1, T, E), a layer scale (C, 1, 1).
    """
    if parameter.dim() < 2 or "bias" in name:
        return False
    # (1, C, H, W) of a convolution with one channel looks alike; PyTorch's own names tell it apart
    known = name.startswith(("weight", "original"))
    return known or parameter.dim() == 2 or min(parameter.shape[:2]) > 1


def own(module: nn.Module) -> dict[str, nn.Parameter]:
    """What a module learns with by itself, by names, without its children.

    What `torch.nn.utils.parametrizations` makes a weight of belongs to the module that has the weight, and
    the last matrix of `nn.MultiheadAttention`, which PyTorch keeps in a child that never runs, to it.
    """
    found = dict(module.named_parameters(recurse=False))
    for part in _parts(module):
        found |= part.named_parameters(prefix="parts")
    return found


def weights(module: nn.Module) -> dict[str, nn.Parameter]:
    """Those of `own` that are weights; of a normalization none."""
    named = {} if isinstance(module, _SCALES) else own(module)
    return {name: p for name, p in named.items() if is_weight(name.rpartition(".")[2], p)}


def owners(model: nn.Module) -> dict[str, nn.Module]:
    """The modules that own weights, by their paths."""
    parts = {inner for module in model.modules() for part in _parts(module) for inner in part.modules()}
    return {path: m for path, m in model.named_modules() if m not in parts and weights(m)}


def _parts(module: nn.Module) -> list[nn.Module]:
    """Children that never run as layers: `module` uses what they hold as its own."""
    found: list[nn.Module] = []
    if parametrize.is_parametrized(module):
        assert isinstance(module.parametrizations, nn.ModuleDict)
        found.append(module.parametrizations)
    if isinstance(module, nn.MultiheadAttention):
        found.append(module.out_proj)
    return found
