"""The one exception that is meant for the person at the keyboard."""

TRACE_HINT = " (HYDRA_FULL_ERROR=1 shows the trace)"


class UserError(Exception):
    """Something typed cannot be done. The text names the key, the value and what is allowed.

    `lines` holds one finding each, so that several wrong values are all told at once.
    """

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class BusyError(UserError):
    """Another process runs in this folder."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, so that a run that a scheduler ends is closed as cleanly as one ended by Ctrl-C."""
