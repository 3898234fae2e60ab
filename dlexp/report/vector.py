"""Figures as SVG inside a page: they take the colours of its theme, and need no file of their own."""

from __future__ import annotations

import io
import re
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PIXELS = 88  # for an inch of a figure, at most: words are equally large in all of them
DARK = "#14171b"  # the paper of the dark theme; style.css has the same
COLOUR = re.compile(r"((?:fill|stroke|stop-color): )#([0-9a-f]{6})")
SAME = "000000"  # words on pale cells, and what is exactly 0: data, not ink
GREYEST = 30  # of 255, between the channels of what is called grey
VARIABLE = re.compile(r"var\(--c([0-9a-f]{6}),")


def inline(figure: Figure, name: str, alt: str, kind: str) -> str:
    """An `<svg>` of a figure, as markup.

    Args:
        name: unique in the page; ids inside begin with it.
        alt: what it shows, for those who cannot see it.
        kind: its class.
    """
    from matplotlib import rc_context

    file = io.StringIO()
    with rc_context({"svg.hashsalt": name}):  # the same page from the same files
        figure.savefig(file, format="svg", transparent=True, dpi=150, metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    used = set(re.findall(r'(?:url\(|href=")#([\w-]+)', text))
    text = re.sub(r' id="([\w.-]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", text)
    text = re.sub(r'(url\(|href=")#', rf"\1#{name}-", text)
    text = COLOUR.sub(lambda m: m[0] if m[2] == SAME else f"{m[1]}{themed('#' + m[2])}", text)
    text = re.sub(r"\n\s*", "\n", text)
    width, height = figure.get_size_inches()
    head = (
        f'<svg class="{kind}" role="img" aria-label="{escape(alt)}"'
        f' viewBox="0 0 {72 * width:g} {72 * height:g}" style="max-width:{round(PIXELS * float(width))}px"'
        ' xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    return head + text[text.index(">") + 1 :].rstrip()


def as_file(markup: str) -> str:
    """An `<svg>` of a page as a file of its own."""
    head, _, rest = markup.partition(">")
    return f'{head} xmlns="http://www.w3.org/2000/svg"><style>{dark_rules(markup)}</style>{rest}'


def themed(colour: str) -> str:
    """A colour as CSS: as it is on white paper, and its counterpart where the page is dark."""
    return f"var(--c{colour[1:].lower()},{colour.lower()})"


def dark_rules(text: str) -> str:
    """The counterparts of all colours in a page, as CSS; on paper there is no dark theme."""
    found = sorted(set(VARIABLE.findall(text)))
    rules = "".join(f"--c{colour}:{on_dark('#' + colour)};" for colour in found)
    return f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {rules} }} }}" if found else ""


def on_dark(colour: str) -> str:
    """The colour of the same hue that stands out from dark paper as this one does from white.

    As much contrast, as WCAG 2 defines it; so what is pale stays in the background, and words can be read.
    Greys keep all of it; other colours get at least 3, with less of which lines are hard to see, and at most
    7, with more of which they are nearly white.
    """
    if colour.lower() == "#ffffff":
        return DARK
    rgb = [_linear(int(colour[i : i + 2], 16) / 255) for i in (1, 3, 5)]
    own, paper = _luminance(rgb), _luminance([_linear(int(DARK[i : i + 2], 16) / 255) for i in (1, 3, 5)])
    contrast = 1.05 / (own + 0.05)
    channels = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    if max(channels) - min(channels) > GREYEST:
        contrast = min(max(contrast, 3.0), 7.0)
    wanted = min(1.0, contrast * (paper + 0.05) - 0.05)
    brighter = min(wanted / own, 1 / max(rgb)) if own else 1.0  # the hue stays, and what is missing is white
    rgb, own = [x * brighter for x in rgb], own * brighter
    rgb = [x + (1 - x) * max(0.0, wanted - own) / (1 - own) if own < 1 else x for x in rgb]
    return "#" + "".join(f"{round(255 * _encoded(x)):02x}" for x in rgb)


def _luminance(rgb: list[float]) -> float:
    return 0.2126 * rgb[0] + 0.7152 * rgb[1] + 0.0722 * rgb[2]


def _linear(x: float) -> float:
    return x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4


def _encoded(x: float) -> float:
    return 12.92 * x if x <= 0.0031308 else 1.055 * x ** (1 / 2.4) - 0.055
