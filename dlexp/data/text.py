"""English that every CPython carries: the help texts of `pydoc_data.topics`, character by character.

N windows, T characters in a window.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dlexp.data.dataset import Dataset, Split
from dlexp.errors import UserError


def load(length: int, characters: int | None, validation: float, test: float, train_dev: float) -> Dataset:
    """Windows of the text: tokens (N, T), targets (N, T) the tokens one character later.

    The text is cut into train, train_dev, validation and test in this order, and each piece into
    windows side by side, so no window reaches into another split. Nothing is random.

    Args:
        length: T.
        characters: how much of the text is used, from its beginning; None: all of it.
        validation, test, train_dev: shares of the text; no `train_dev` at 0.

    Facts: alphabet, the characters that occur; token i is its i-th character.

    Raises:
        UserError: a split would be empty, or this Python has come without the text.
    """
    text = read()[:characters]
    alphabet = "".join(sorted(set(text)))
    number = {character: token for token, character in enumerate(alphabet)}
    tokens = torch.tensor([number[character] for character in text])
    shares = ({"train_dev": train_dev} if train_dev else {}) | {"validation": validation, "test": test}
    sizes = [round(share * len(tokens)) for share in shares.values()]
    sizes.insert(0, len(tokens) - sum(sizes))
    if min(sizes) <= length:
        named = ", ".join(f"data.{name}={share:g}" for name, share in shares.items())
        raise UserError(
            f"{named}: leave a split of the {len(tokens)} characters without a window of"
            f" data.length={length}; allowed: more than {length} characters each"
        )
    pieces = dict(zip(("train", *shares), tokens.split(sizes), strict=True))
    return Dataset(
        **{name: windows(piece, length) for name, piece in pieces.items()},
        outputs=len(alphabet),
        task="language_modelling",
        vocabulary=len(alphabet),
        facts={"alphabet": alphabet},
    )


def windows(tokens: Tensor, length: int) -> Split:
    """Tokens in a row (M,) to windows side by side (N, T); a last one that is too short is left out."""
    count = (len(tokens) - 1) // length  # the last window needs one character more, as its last target
    inputs, targets = tokens[: count * length], tokens[1 : count * length + 1]
    return Split(inputs.view(count, length), targets.view(count, length))


def read() -> str:
    """The help texts in the order of their names. They differ a little between versions of Python.

    Raises:
        UserError: they are not there.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:  # some systems pack them apart
        raise UserError("data=text: this Python has come without pydoc_data, the text to learn") from error
    return "\n\n".join(topics[name].strip() for name in sorted(topics))
