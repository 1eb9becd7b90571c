"""Errors for users, each with its exit code on the command line. They never contain a secret's value."""

from __future__ import annotations

from typing import ClassVar


class Problem(Exception):
    """Base of all errors for users. The message says what was found and what to do.

    :cvar exit_code: exit code of the process if nothing catches the error.
    """

    exit_code: ClassVar[int] = 1


class RunFailed(Problem):
    """A run did not succeed."""


class Usage(Problem):
    """A command line or call is wrong."""

    exit_code = 2


class NotFound(Problem):
    """The named object does not exist."""

    exit_code = 3


class Denied(Problem):
    """A right is missing, or a key is not trusted."""

    exit_code = 4


class Invalid(Problem):
    """A manifest or a value is not valid."""

    exit_code = 5


class Conflict(Invalid):
    """The object exists already, or has changed since it was read."""


class Unreachable(Problem):
    """The cluster, or the operator in it, does not answer."""

    exit_code = 6


class TimedOut(Problem):
    """The time limit was reached."""

    exit_code = 7


class NotReleased(Problem):
    """A run has finished, but one of its Secrets may still exist."""

    exit_code = 8
