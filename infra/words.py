"""What both Kafka clients say where a broker refuses: one sentence each, with what helps."""

from __future__ import annotations


def not_authorized(right: str, what: str) -> str:
    """The words for a right that is not given."""
    return f"the broker does not let this process {right} {what}; `headrace acls` lists the rights, --apply gives them"


def not_authenticated(who: str, address: str) -> str:
    """The words for a user that the broker does not know, or another password."""
    return (
        f"the broker at {address} does not know user {who}, or the password is another; HEADRACE_SASL_USERNAME, "
        "HEADRACE_SASL_PASSWORD and HEADRACE_SASL_MECHANISM say who asks"
    )


def not_trusted(address: str, why: str) -> str:
    """The words for a TLS connection that did not come about."""
    return f"no TLS with the broker at {address} ({why}); HEADRACE_SSL_CA names the certificates to trust"
