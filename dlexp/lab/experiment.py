"""An experiment: a question, what is run to answer it, the claims that are judged by it, a picture."""

from __future__ import annotations

import inspect
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlexp.code import CODE
from dlexp.compose import CONFIGS, group_names
from dlexp.errors import UserError
from dlexp.lab import jobs
from dlexp.lab.jobs import Task
from dlexp.lab.runs import SEED, Runs, SeveralArmsError
from dlexp.lab.verdict import INCONCLUSIVE, Verdict
from dlexp.words import ARM, folder_name, key_of, refuse_what_arms_say, unquoted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLACE = re.compile(r"[0-4]:\d+[a-z]?(-\d+[a-z]?)?(,\d+[a-z]?)*")  # in the notes: 3:337a is note 3, line 337
Judge = Callable[[Runs], Verdict]


@dataclass(frozen=True)
class Claim:
    """A sentence of the notes, what is measured for it, and what is asked of the measurement."""

    places: tuple[str, ...]
    says: str
    measures: str
    criterion: str
    judge: Judge

    @property
    def name(self) -> str:
        return self.judge.__name__.replace("_", "-")

    @property
    def found(self) -> str:
        """What is to be said of it beside the numbers: the docstring of the lines that judge it."""
        return inspect.getdoc(self.judge) or ""

    @property
    def notes(self) -> list[str]:
        return sorted({place[0] for place in self.places})


@dataclass(frozen=True)
class Result:
    """An experiment whose runs are there, and what becomes of its claims."""

    experiment: Experiment
    words: tuple[str, ...]
    outputs: Path
    runs: Runs
    verdicts: tuple[tuple[Claim, Verdict], ...]
    done: int  # jobs that had still to be done
    seconds: float

    @property
    def folder(self) -> Path:
        """Of its page and picture."""
        return self.outputs / "lab" / folder_name([self.experiment.slug, *self.words])

    @property
    def seeds(self) -> int:
        return len({run.seed for run in self.runs})

    @property
    def lost(self) -> str:
        """How many runs did not come to their end, and how: "3 diverged"; diverging is a result, too."""
        counts = Counter(run.job.status for run in self.runs if run.folder and not run.job.ended)
        return ", ".join(f"{count} {status}" for status, count in counts.items())

    @property
    def outdated(self) -> int:
        """How many runs another state of dlexp's code has made."""
        return sum(run.made and run.code != CODE for run in self.runs)

    @property
    def failed(self) -> list[str]:
        """Why runs failed; equal reasons once."""
        reasons = [str(run.job.error) for run in self.runs if run.job.status == "failed"]
        return list(dict.fromkeys(reasons))


class Experiment:
    """A page of the notebook.

    Args:
        page: its `__file__`; the name of the file is that of the experiment.
        doc: its `__doc__`: the question in the first line, then the theory.
        sweeps: files of configs/experiment/ that are run; that of its own name if none is given.
        quick: words that make it small, for tests.
    """

    def __init__(self, page: str, doc: str | None, *, sweeps: Sequence[str] | None = None, quick: str = ""):
        self.page = Path(page).resolve()
        self.slug = self.page.stem
        self.question, _, theory = inspect.cleandoc(doc or "").partition("\n")
        self.theory = theory.strip()
        own = [self.slug] if (CONFIGS / "experiment" / f"{self.slug}.yaml").is_file() else []
        self.sweeps = list(own if sweeps is None else sweeps)
        self.quick = re.findall(r"(?:'[^']*'|\S)+", quick)  # words, with the blanks that are in quotes
        self.measures: dict[str, dict[str, list[Any]]] = {}
        self.claims: list[Claim] = []
        self.draw: Callable[[Runs], Figure] | None = None
        self.caption = ""

    def measure(self, **settings: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """The function below is called for every combination of the settings, and what it returns is kept.

        It returns a dict of numbers. A list is swept; `seeds=5` stands for `seed=[0, 1, 2, 3, 4]`. It is
        called again once its source or the settings change.
        """
        own = {key: value if isinstance(value, list) else [value] for key, value in settings.items()}
        if "seeds" in own:
            own[SEED] = list(range(own.pop("seeds")[0]))

        def keep(function: Callable[..., Any]) -> Callable[..., Any]:
            self.measures[function.__name__] = own
            return function

        return keep

    def claim(self, places: str, says: str, *, measures: str, criterion: str) -> Callable[[Judge], Judge]:
        """The function below judges this claim; its docstring says what was found beside the numbers.

        Args:
            places: where the notes say so, e.g. "1:57 3:144a".
        """
        named = tuple(places.split())
        if wrong := [place for place in named if not PLACE.fullmatch(place)]:
            raise ValueError(f"{self.slug}: {wrong[0]!r} is no place in the notes; write 3:337 or 1:183-184")

        def keep(judge: Judge) -> Judge:
            self.claims.append(Claim(named, says, measures, criterion, judge))
            return judge

        return keep

    def picture(self, caption: str) -> Callable[[Callable[[Runs], Figure]], Callable[[Runs], Figure]]:
        """The function below draws the picture."""

        def keep(draw: Callable[[Runs], Figure]) -> Callable[[Runs], Figure]:
            self.draw, self.caption = draw, caption
            return draw

        return keep

    def tasks(self, words: Sequence[str], outputs: Path) -> list[Task]:
        """All that is to be run, done or not.

        Raises:
            UserError: a word cannot be used.
        """
        found: list[Task] = []
        settings = {key for own in self.measures.values() for key in own}
        for sweep in self.sweeps:
            theirs = [w for w in words if key_of(w) not in settings or _is_config_key(key_of(w))]
            found += jobs.of_sweep(sweep, theirs, outputs)
        if self.sweeps:
            every = [jobs.swept(sweep, words) for sweep in self.sweeps]
            others = [word for word in words if not any(key_of(word) in swept for swept in every)]
            refuse_what_arms_say(others, [arm for swept in every for arm in swept.get(ARM, ())])
        for word in words if not self.sweeps else ():
            if (key := _setting(word)) not in settings:
                known = ", ".join(sorted(settings - {SEED} | {"seeds"}))
                raise UserError(f"{word}: {self.slug} has no setting {key}; allowed: {known}, outputs")
        for name, own in self.measures.items():
            swept = {key: self._values(key, values, words) for key, values in own.items()}
            found += jobs.of_measure(self.page, name, swept, outputs)
        return found

    def _values(self, key: str, own: Sequence[Any], words: Sequence[str]) -> list[str]:
        """What a measuring function is called with; of names only those that it knows."""
        known = [str(value) for value in own]
        word = next((word for word in words if _setting(word) == key), None)
        if word is None:
            return known
        typed = unquoted(word.partition("=")[2]).split(",")
        if not all(isinstance(value, str) for value in own):
            return typed
        if not self.sweeps and not set(typed) <= set(known):
            raise UserError(f"{word}: {self.slug} measures {', '.join(known)}")
        return [value for value in typed if value in known]

    def judge(self, runs: Runs) -> tuple[tuple[Claim, Verdict], ...]:
        """The verdict on each claim."""
        return tuple((claim, _judged(claim, runs)) for claim in self.claims)

    def result(
        self, words: Sequence[str], tasks: Sequence[Task], outputs: Path, done: int, begun: float
    ) -> Result:
        """What the runs say, as far as they are there."""
        runs = Runs([task.read() for task in tasks])
        verdicts = self.judge(runs)
        return Result(self, tuple(words), outputs, runs, verdicts, done, time.monotonic() - begun)

    def main(self) -> None:
        """Run or resume, judge and draw, as the command line says."""
        from dlexp.lab.command import of_page

        of_page(self)


CANNOT = "cannot be judged by these runs"


def _judged(claim: Claim, runs: Runs) -> Verdict:
    """Runs of somebody's own choice may lack what a claim asks for, or have too much of it."""
    try:
        return claim.judge(runs)
    except SeveralArmsError as error:
        return Verdict(INCONCLUSIVE, f"{CANNOT}: {str(error).partition(';')[0]}, where one is meant")
    except (LookupError, statistics.StatisticsError) as error:
        return Verdict(INCONCLUSIVE, f"{CANNOT}: some are not there ({type(error).__name__}: {error})")


def asked(words: Iterable[str], *, quick: Sequence[str] = ()) -> tuple[list[str], Path]:
    """The words of a command, `seeds=3` written out, and the folder for what comes of them.

    Raises:
        UserError: `seeds` is no number.
    """
    by_key: Mapping[str, str] = {key_of(_seeds(word)): _seeds(word) for word in (*quick, *words)}
    found = dict(by_key)
    outputs = found.pop("outputs", "outputs=outputs").partition("=")[2]
    return list(found.values()), Path(unquoted(outputs)).expanduser()


def _seeds(word: str) -> str:
    key, equals, value = word.partition("=")
    if not equals or not key:
        raise UserError(f"{word}: not understood; write key=value, for example seeds=10")
    if key != "seeds":
        return word
    if not value.isdecimal() or int(value) < 1:
        raise UserError(f"{word}: allowed: a whole number, 1 or more")
    return f"{SEED}={','.join(map(str, range(int(value))))}"


def _setting(word: str) -> str:
    """What a word sets of a measuring function: model.width its width."""
    return key_of(word).rpartition(".")[2]


def _is_config_key(key: str) -> bool:
    return "." in key or key == SEED or key in group_names()
