"""The errors that people meet: each says what happened, to what, and which command helps."""

from __future__ import annotations


class HeadraceError(Exception):
    """Something a person can act upon; `next` is the command, or the change, that helps."""

    def __init__(self, message: str, next: str | None = None) -> None:
        super().__init__(message)
        self.next = next


class Unreachable(HeadraceError):
    """No broker answers, or it stopped to."""


class NotReleased(HeadraceError):
    """Nothing of this name was released, or it was retired."""


class NoAnswer(HeadraceError):
    """Nobody answered in time: are the services up?"""


class Missing(HeadraceError):
    """A file, a model or a library that is needed is not there."""


class InvalidInput(HeadraceError):
    """A file or a value given cannot be used as it is."""


class Refused(HeadraceError):
    """The system understood and said no. `kind` "unchanged": what was asked for is so already."""

    def __init__(self, message: str, next: str | None = None, kind: str = "") -> None:
        super().__init__(message, next)
        self.kind = kind


class TopicsWrong(Refused):
    """Topics that exist are not as they must be; the message names the first setting."""


class NotAuthorized(Refused):
    """The broker's authorizer refuses; the message names the topic and the right that is missing."""


class NotAuthenticated(Refused):
    """The broker does not know this user or its password, or this machine does not trust the broker's certificate."""


class Rejected(Refused):
    """The validator rejected a record; the message holds every reason."""
