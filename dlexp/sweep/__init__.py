"""A sweep: one command, many runs. Hydra's multirun plans and launches them; here is what is around it.

The words of the command (command.py) and the folder (place.py) come first, then the jobs are launched
(launch.py), each of which leaves a summary whatever happens (job.py); study.py is about searches by Optuna.
"""

from dlexp.sweep.launch import Begin  # as configs/config.yaml names it

__all__ = ["Begin"]
