"""What kafka-python's errors mean to a user of the client."""

from __future__ import annotations

from collections.abc import Iterable

from headrace.errors import HeadraceError, InvalidInput, NotReleased, Refused, Unreachable
from headrace.infra.subscription import NO_BROKER


def told(error: Exception, address: str) -> HeadraceError:
    """The error of a record that was not acknowledged."""
    from kafka.errors import AuthorizationError, MessageSizeTooLargeError, RecordListTooLargeError

    if isinstance(error, MessageSizeTooLargeError | RecordListTooLargeError):
        return InvalidInput(f"the record is larger than the broker takes: {error}")
    if isinstance(error, AuthorizationError):
        return Refused(f"the broker does not let this user write: {error}", "headrace acls")
    return Unreachable(f"the broker at {address} did not take a record: {error}", NO_BROKER)


def not_released(pipeline: str, released: Iterable[str]) -> NotReleased:
    """The error for a name that was never released, or was retired."""
    known = ", ".join(sorted(released))
    others = f"; released are {known}" if known else ": nothing is"
    return NotReleased(f"no pipeline {pipeline!r} is released{others}", f"headrace release pipelines/{pipeline}.py")
