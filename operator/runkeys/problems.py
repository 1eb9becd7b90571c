"""What can be in the way of a user, each with the exit code that the command line gives it. Never holds a value."""

from __future__ import annotations

from typing import ClassVar


class Problem(Exception):
    """Something does not work; the message says what was found and what to do.

    :cvar exit_code: of the process, if nothing catches it.
    """

    exit_code: ClassVar[int] = 1


class RunFailed(Problem):
    """A run did not succeed."""


class Usage(Problem):
    """A command or call was written in a way that cannot be meant."""

    exit_code = 2


class NotFound(Problem):
    """What was named does not exist."""

    exit_code = 3


class Denied(Problem):
    """The right to it is missing, or trust in a key."""

    exit_code = 4


class Invalid(Problem):
    """A manifest or a value cannot work as it is."""

    exit_code = 5


class Conflict(Invalid):
    """It exists already, or has changed since it was read."""


class Unreachable(Problem):
    """The cluster, or the operator in it, does not answer."""

    exit_code = 6


class TimedOut(Problem):
    """It did not happen in the time that was given."""

    exit_code = 7


class NotReleased(Problem):
    """A run is over, and a Secret of it may still exist."""

    exit_code = 8
