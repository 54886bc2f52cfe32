"""What kafka-python's errors mean to a user of the client."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from headrace.errors import HeadraceError, InvalidInput, NotAuthenticated, NotAuthorized, NotReleased, Unreachable
from headrace.infra import words

if TYPE_CHECKING:
    from headrace.infra.settings import Settings

NO_BROKER = "headrace up starts one; or set KAFKA_BOOTSTRAP_SERVERS to the one to use"
ACLS = "headrace acls"


def told(error: Exception, address: str, topic: str) -> HeadraceError:
    """The error of a record that was not acknowledged."""
    from kafka.errors import AuthorizationError, MessageSizeTooLargeError, RecordListTooLargeError

    if isinstance(error, MessageSizeTooLargeError | RecordListTooLargeError):
        return InvalidInput(f"the record is larger than the broker takes: {error}")
    # who may write no topic at all is refused before a record is sent, and kafka-python wraps that in words
    if isinstance(error, AuthorizationError) or "ClusterAuthorizationFailedError" in str(error):
        return forbidden("Write", f"topic {topic}")
    return Unreachable(f"the broker at {address} did not take a record: {error}", NO_BROKER)


@contextmanager
def asking(right: str, what: str) -> Iterator[None]:
    """Raise NotAuthorized where the broker refuses what is asked inside; `what` names it: `topic rain.snapshots`.

    Unreachable where it answers and serves nothing: kafka-python's own message is its whole list of topics.
    """
    from kafka.errors import AuthorizationError, MetadataEmptyBrokerList

    try:
        yield
    except AuthorizationError as error:
        raise forbidden(right, what) from error
    except MetadataEmptyBrokerList as error:
        said = f"the broker answers, but serves nothing now ({what}): it is starting, or too busy"
        raise Unreachable(said, "headrace status, in a moment") from error


def forbidden(right: str, what: str) -> NotAuthorized:
    """The error for a right that is not given."""
    return NotAuthorized(words.not_authorized(right, what), ACLS)


def unconnected(error: Exception, said: Iterable[BaseException], settings: Settings, address: str) -> HeadraceError:
    """The error of a client that did not come about; `said` is what its connections failed with."""
    from kafka.errors import SaslAuthenticationFailedError

    said = [cause for cause in said if not isinstance(cause, type(error))]  # its own end is among them
    # a broker answers and then hangs up; kafka-python may see the second before the first, at every attempt
    hung_up = bool(said) and all("socket disconnected" in str(cause) for cause in said)
    if hung_up and settings.security_protocol == "SASL_SSL":
        return NotAuthenticated(words.not_authenticated(settings.who, address), "headrace doctor")
    for cause in (error, *said):
        if isinstance(cause, SaslAuthenticationFailedError):
            return NotAuthenticated(words.not_authenticated(settings.who, address), "headrace doctor")
        if "CERTIFICATE_VERIFY_FAILED" in str(cause):
            return NotAuthenticated(words.not_trusted(address, "its certificate is not trusted"), "headrace doctor")
    return Unreachable(f"no broker answers at {address} ({error})", NO_BROKER)


def check_released(pipeline: str | None, released: Iterable[str], retired: Collection[str] = ()) -> None:
    """Raises NotReleased for a name that was never released, or was retired; None stands for all."""
    if pipeline is not None and pipeline not in released:
        raise not_released(pipeline, released, retired=pipeline in retired)


def not_released(pipeline: str, released: Iterable[str], *, retired: bool = False) -> NotReleased:
    """The error for a name that was never released, or was retired."""
    known = ", ".join(sorted(released))
    others = f"; released are {known}" if known else ": nothing is"
    if retired:
        said = f"pipeline {pipeline!r} was retired, and a retired name is never used again{others}"
        return NotReleased(said, "headrace release pipelines/NEW_NAME.py")
    return NotReleased(f"no pipeline {pipeline!r} is released{others}", f"headrace release pipelines/{pipeline}.py")
