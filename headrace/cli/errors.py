"""The one place where errors become messages: one sentence, the next command, an exit status; no traceback.

Exit status: 0 done, 1 failed, 2 wrong usage, 3 refused. `HEADRACE_DEBUG=1` shows where an error came from.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import typer
from typer.core import TyperGroup

from headrace.cli.output import err

FAILED, USAGE, REFUSED, INTERRUPTED = 1, 2, 3, 130
DEBUG = "HEADRACE_DEBUG"
LIBRARY_SAYS = 300  # characters
SERVICES_EXTRA = "pip install 'headrace[services]'"

# typed errors by their full name, so that no library is imported to tell one; the class's own entry comes first
EXITS: dict[str, tuple[int, str | None]] = {
    "headrace.errors.HeadraceError": (FAILED, None),
    "headrace.errors.InvalidInput": (USAGE, None),
    "headrace.errors.Refused": (REFUSED, None),
    "headrace.contract.InvalidDefinition": (FAILED, "edit the pipeline file; headrace try FILE CSV checks it"),
    "headrace.infra.pipeline_files.PipelineFileError": (FAILED, "edit the file; headrace try FILE CSV checks it"),
    "headrace.infra.settings.SettingsError": (USAGE, "headrace doctor lists what is set"),
    "headrace.infra.system.Refused": (REFUSED, None),
    "headrace.infra.store.StateRefused": (REFUSED, None),
    "headrace.infra.artifacts.ArtifactRefused": (REFUSED, None),
    "headrace.infra.kafka_jars.NoBroker": (FAILED, None),
    "headrace.infra.bus.BusError": (FAILED, "headrace doctor"),
    "headrace.infra.bus.NotAuthorized": (REFUSED, "headrace acls"),
    "headrace.infra.bus.NotAuthenticated": (REFUSED, "headrace doctor"),
    "headrace.infra.bus.WriteForbidden": (REFUSED, "headrace acls"),
    "headrace.infra.bus.Unavailable": (FAILED, "headrace up starts a broker; or set KAFKA_BOOTSTRAP_SERVERS"),
    "headrace.infra.query_client.QueryFailed": (FAILED, 'headrace query "SHOW TABLES" lists what there is'),
    "headrace.infra.query_client.StoreUnreachable": (FAILED, "headrace up"),
    "kafka.errors.KafkaError": (FAILED, "headrace doctor"),
    "cimpl.KafkaException": (FAILED, "headrace doctor"),
    "builtins.OSError": (FAILED, None),
    "builtins.ImportError": (FAILED, None),
    "builtins.TimeoutError": (FAILED, "headrace status"),
}


class Told(NamedTuple):
    """An error as a person reads it."""

    status: int
    message: str
    next: str | None
    known: bool


class Commands(TyperGroup):
    """The commands of `headrace`; what they raise becomes a message and an exit status."""

    arguments: Sequence[str] = ()

    def main(self, args: Sequence[str] | None = None, *rest: Any, **named: Any) -> Any:
        """Run the command that the arguments name."""
        self.arguments = sys.argv[1:] if args is None else list(args)
        return super().main(args, *rest, **named)

    def invoke(self, ctx: Any) -> Any:
        """Run it; errors of typer itself (usage, exit, abort) pass."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # the reader of a pipe has seen enough
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115  - else the interpreter complains at its end
            raise typer.Exit(FAILED) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            if type(error).__module__.split(".")[0] in ("click", "typer") or is_debugging():
                raise
            told = tell(error)
            show(told, as_json="--json" in self.arguments)
            raise typer.Exit(told.status) from None


def is_debugging() -> bool:
    """Whether tracebacks are wanted."""
    return os.environ.get(DEBUG, "0") not in ("", "0")


def tell(error: BaseException) -> Told:
    """The message, the next command and the exit status of an error."""
    for cls in type(error).__mro__:
        found = EXITS.get(f"{cls.__module__}.{cls.__qualname__}")
        if found is not None:
            status, default = found
            message, own = _message(error)
            return Told(status, message, getattr(error, "next", None) or own or default, True)
    return Told(FAILED, f"{type(error).__name__}: {error}", f"{DEBUG}=1 shows where this defect lies", False)


def show(told: Told, as_json: bool) -> None:
    """Print an error to standard error."""
    if as_json:
        document = {"error": told.message, "next": told.next, "status": told.status}
        sys.stderr.write(json.dumps(document, ensure_ascii=False) + "\n")
        return
    console = err()
    console.print("refused: " if told.status == REFUSED else "error: ", style="bold red", end="")
    console.print(told.message)
    if told.next:
        console.print(f"next: {told.next}")


def _message(error: BaseException) -> tuple[str, str | None]:
    if isinstance(error, ModuleNotFoundError):
        return f"this needs the library {error.name}, which is not installed", SERVICES_EXTRA
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"the disk is full{_of(error)}", "free some space, then run the command again"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}{_of(error)}", None
    message = str(error) or type(error).__name__
    if type(error).__module__ == "kafka.errors" and len(message) > LIBRARY_SAYS:  # it quotes whole responses
        message = message[:LIBRARY_SAYS] + "…"
    return message, None


def _of(error: OSError) -> str:
    return f": {error.filename}" if error.filename else ""
