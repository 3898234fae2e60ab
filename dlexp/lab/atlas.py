"""The atlas: a page for each experiment, an index of every claim, and the table for the repository."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from dlexp.folder import write_whole
from dlexp.lab.draw import stacked
from dlexp.lab.experiment import Claim, Result
from dlexp.lab.verdict import DEPENDS, LISTED, REFUTED, WORDS, Verdict
from dlexp.report.page import Picture, plain, render
from dlexp.report.vector import PIXELS, as_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = ("where in the notes", "claim", "experiment", "verdict", "measured")
CORRECTIONS = (REFUTED, DEPENDS)  # what the notes say and measurement does not, or not always
BROAD = 12.0  # inches of a picture: from here on its words are small where a window is not wide
SPOKEN = 900  # letters of what is said of a picture, at most
VERSIONED = ("torch", "numpy", "scikit-learn")


def write_page(result: Result) -> tuple[Path, Path | None]:
    """The page of an experiment and its picture, into the folder of the result.

    Returns:
        Where they are; None: it draws none.
    """
    result.folder.mkdir(parents=True, exist_ok=True)
    figure = _figure(result)
    png = None
    if figure:
        png = result.folder / f"{result.experiment.slug}.png"
        figure.savefig(png, dpi=PIXELS)
    path = result.folder / f"{result.experiment.slug}.html"
    _write_experiment(path, result, _picture(result, figure) if figure else None, index=None)
    return path, png


def write(results: Sequence[Result], table: Path | None = None, name: str = "atlas") -> list[Path]:
    """The atlas into outputs, and with `table` the table of verdicts there.

    Args:
        name: of its folder; that of a part, or of other choices, is not that of the whole.
    """
    folder = results[0].outputs / name
    folder.mkdir(parents=True, exist_ok=True)
    for result in results:
        figure = _figure(result)
        picture = _picture(result, figure) if figure else None
        _write_experiment(folder / f"{result.experiment.slug}.html", result, picture, "index.html")
        if picture:
            small = as_file(next(iter(picture.kinds.values())))
            (folder / f"{result.experiment.slug}.svg").write_text(small, encoding="utf-8")
    index = folder / "index.html"
    every = [(result, claim, verdict) for result in results for claim, verdict in result.verdicts]
    every.sort(key=lambda one: _order(one[1]))
    counts = Counter(verdict.word for *_, verdict in every)
    content = render(
        "atlas.html",
        results=results,
        every=every,
        corrections=_corrections(every),
        counts={word: counts[word] for word in WORDS},
        notes=sorted({note for _, claim, _ in every for note in claim.notes}),
        spoken=_spoken,
        days=_days(results),
        versions=versions(),
    )
    write_whole(index, lambda draft: draft.write_text(content, encoding="utf-8"))
    written = [index]
    if table:
        text = as_markdown(results)
        write_whole(table, lambda draft: draft.write_text(text, encoding="utf-8"))
        written.append(table)
    return written


def _corrections(
    every: Sequence[tuple[Result, Claim, Verdict]],
) -> list[tuple[Result, list[tuple[Claim, Verdict]]]]:
    """Each experiment with its claims that are not simply so."""
    found: dict[str, tuple[Result, list[tuple[Claim, Verdict]]]] = {}
    for result, claim, verdict in every:
        if verdict.word in CORRECTIONS:
            found.setdefault(result.experiment.slug, (result, []))[1].append((claim, verdict))
    return list(found.values())


def _spoken(claim: Claim) -> str:
    """Its places in words, e.g. "note 1, lines 183-184; note 3, line 337a"."""
    pairs = (place.split(":") for place in claim.places)
    return "; ".join(f"note {n}, line{'s' if {*'-,'} & {*at} else ''} {at}" for n, at in pairs)


def as_markdown(results: Sequence[Result]) -> str:
    """The verdicts as a table for the repository."""
    every = [(result, claim, verdict) for result in results for claim, verdict in result.verdicts]
    counts = Counter(verdict.word for *_, verdict in every)
    said = ", ".join(f"{counts[word]} {word}" for word in WORDS)
    lines = [
        "# Results",
        "",
        f"{len(every)} claims of the notes, judged by {len(results)} experiments: {said}.",
        f"Runs of {_days(results)}, with {versions()}; seeds stand with each number.",
        "Made by `python -m experiments --all`; 3:337 is line 337 of note 3.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|{'---|' * len(COLUMNS)}",
    ]
    for result, claim, verdict in sorted(every, key=lambda one: _order(one[1])):
        cells = (
            " ".join(claim.places),
            claim.says,
            f"[{result.experiment.slug}]({result.experiment.slug}.py)",
            verdict.word,
            f"{claim.measures}: {verdict.measured}",
        )
        escaped = [cell.replace("|", "\\|") for cell in cells]
        lines.append(f"| {' | '.join(escaped)} |")
    return "\n".join(lines) + "\n"


def _days(results: Sequence[Result]) -> str:
    """On which days the runs were made, which may be kept from earlier."""
    started = (run.job.started for result in results for run in result.runs)
    days = sorted({day[:10] for day in started if day[:1].isdigit()})
    return " to ".join(dict.fromkeys((days[0], days[-1]))) if days else "no day"


def versions() -> str:
    """What the numbers were made with."""
    import dlexp

    named = ", ".join(f"{name} {version(name)}" for name in VERSIONED)
    return f"dlexp {dlexp.__version__}, Python {platform.python_version()}, {named}"


def _order(claim: Claim) -> list[tuple[int, int]]:
    """By note and line."""
    found = []
    for place in claim.places[:1]:
        note, _, line = place.partition(":")
        digits = line.partition("-")[0].partition(",")[0].rstrip("abcdefghijklmnopqrstuvwxyz")
        found.append((int(note), int(digits)))
    return found


def _figure(result: Result) -> Figure | None:
    from dlexp.plots.style import drawn

    return drawn(result.experiment.draw)(result.runs) if result.experiment.draw else None


def _picture(result: Result, figure: Figure) -> Picture:
    def draw(*, narrow: bool = False) -> Figure | None:
        return stacked(figure) if narrow else figure

    broad = figure.get_figwidth() > BROAD
    return Picture("picture", _alt(result), result.experiment.caption, draw, broad)


def _write_experiment(path: Path, result: Result, picture: Picture | None, index: str | None) -> None:
    experiment = result.experiment
    content = render(
        "experiment.html",
        result=result,
        experiment=experiment,
        theory=[paragraph.split("\n") for paragraph in experiment.theory.split("\n\n") if paragraph],
        picture=picture,
        index=index,
        spoken=_spoken,
        most=LISTED,
        command=" ".join([f"python experiments/{experiment.slug}.py", *result.words]),
        versions=versions(),
    )
    write_whole(path, lambda draft: draft.write_text(content, encoding="utf-8"))


def _alt(result: Result) -> str:
    """What can be known of the picture without seeing it: what it shows, and the measurements behind it."""
    said = result.experiment.caption
    for claim, verdict in result.verdicts:
        more = f" {claim.says} {verdict.word.capitalize()}: {verdict.measured}."
        if len(said) + len(more) <= SPOKEN:
            said += more
    return plain(said)
