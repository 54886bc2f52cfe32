"""Structured logs on standard error: pretty on a terminal, one JSON object a line elsewhere."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import structlog


def configure_logs(format: str = "auto", stream: TextIO | None = None) -> None:
    """Set logging up once per process; `auto` is `pretty` where the stream is a terminal, else `json`.

    What libraries log with the standard library comes out in the same form, from WARNING on.
    """
    out = sys.stderr if stream is None else stream
    facts: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    form: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(colors=out.isatty())]
        if format == "pretty" or (format == "auto" and out.isatty())
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*facts, *form],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*facts, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *form],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
