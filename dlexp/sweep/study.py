"""Searches by Optuna: a study that is kept, seeded, and taken up again without repeating trials."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, flag_override, open_dict

from dlexp.sweep.place import STUDY
from dlexp.words import quoted

NO_BEST_TRIAL = ("Record does not exist", "No trials are completed yet")  # all failed, as has been told


class Search:
    """How far a search has come."""

    def __init__(self, *, resumed: bool) -> None:
        self._resumed, self._end = resumed, 0

    def prepare(self, config: DictConfig, folder: Path, *, again: bool) -> None:
        """Tell Hydra's sweeper where the study is, and how many trials there are to be.

        What an earlier command left undone is asked for first.

        Args:
            again: this command begins anew, for a job took others with it; those are not tried again.
        """
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        logging.getLogger("hydra_plugins.hydra_optuna_sweeper").setLevel(logging.ERROR)  # we tell what fails
        sweeper = config.hydra.sweeper
        storage = sweeper.storage or f"sqlite:///{(folder / STUDY).resolve()}"
        name = sweeper.study_name or "dlexp"
        done, asked_for = _take_up(name, storage, requeue=not again) if self._resumed or again else (0, 0)
        if not again:
            self._end = asked_for + max(0, sweeper.n_trials - done)
        settings: dict[str, Any] = {
            "storage": storage,
            "study_name": name,
            "n_trials": max(0, self._end - asked_for),
            "max_failure_rate": 1.0,  # a failed job is a finding
        }
        if "seed" in sweeper.sampler and sweeper.sampler.seed is None:
            # Started anew with the same seed a sampler would suggest the same points again.
            settings["sampler.seed"] = int(config.seed) + asked_for
        with flag_override(config.hydra, "readonly", False), open_dict(config.hydra):
            for key, value in settings.items():
                OmegaConf.update(config.hydra, f"sweeper.{key}", value)
                # Each job is composed anew, and has to come to the same sweeper.
                text = quoted(value) if isinstance(value, str) else value
                config.hydra.overrides.hydra.append(f"hydra.sweeper.{key}={text}")


def _take_up(name: str, storage: str, *, requeue: bool) -> tuple[int, int]:
    """End trials that were under way; returns how many are done, and how many there were.

    Args:
        requeue: ask for the same points again.
    """
    import optuna
    from optuna.trial import TrialState

    try:
        study = optuna.load_study(study_name=name, storage=storage)
    except KeyError:  # killed before it was made
        return 0, 0
    asked_for = sum(trial.state != TrialState.WAITING for trial in study.get_trials())
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        if requeue:
            study.enqueue_trial(trial.params)
        study.tell(trial.number, state=TrialState.FAIL)
    return len(study.get_trials(states=(TrialState.COMPLETE,))), asked_for
