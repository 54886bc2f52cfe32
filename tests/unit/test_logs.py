"""Logs: a JSON object a line in containers, for people on a terminal, whoever writes them."""

import io
import json
import logging

import pytest
import structlog

from headrace.infra.logs import configure_logs
from headrace.infra.settings import Settings


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def _as_before():
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    structlog.reset_defaults()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_a_json_object_with_time_level_and_facts():
    out = io.StringIO()
    configure_logs("auto", out)
    structlog.get_logger(service="joiner").info("started", offset=3, about={"a": [1]})
    (line,) = lines(out)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "started", "level": "info", "service": "joiner", "offset": 3, "about": {"a": [1]}}


def test_an_exception_stays_on_its_line():
    out = io.StringIO()
    configure_logs("json", out)
    try:
        raise ValueError("two\nlines")
    except ValueError:
        structlog.get_logger().exception("failed")
    (line,) = lines(out)
    assert line["event"] == "failed"
    assert "ValueError: two\nlines" in line["exception"]


def test_what_libraries_log_has_the_same_form_from_warnings_on():
    out = io.StringIO()
    configure_logs("json", out)
    logging.getLogger("kafka.conn").info("chatter")
    logging.getLogger("kafka.conn").warning("lost %s", "node 1")
    (line,) = lines(out)
    assert (line["event"], line["level"], line["logger"]) == ("lost node 1", "warning", "kafka.conn")


def test_secrets_are_masked():
    out = io.StringIO()
    configure_logs("json", out)
    structlog.get_logger().info("settings", settings=Settings(artifact_key="hush"))
    assert "hush" not in out.getvalue()
    assert "artifact_key" in out.getvalue()


@pytest.mark.parametrize(("format", "stream"), [("auto", Terminal()), ("pretty", io.StringIO())])
def test_people_read_plain_lines(format, stream):
    configure_logs(format, stream)
    structlog.get_logger().warning("lagging", records=7)
    logging.getLogger("faust").error("gone")
    first, second = stream.getvalue().splitlines()
    assert "lagging" in first
    assert not first.startswith("{")
    assert "gone" in second
