"""The command line: help, exit statuses, errors as messages."""

import errno
import json

import pytest
from typer.testing import CliRunner

from headrace.cli import app
from headrace.cli.errors import FAILED, REFUSED, USAGE, tell
from headrace.contract import InvalidDefinition
from headrace.errors import Refused, Unreachable
from headrace.infra.bus import TopicMissing, Unavailable
from headrace.infra.settings import SettingsError

NOBODY = "127.0.0.1:1"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a command in an empty folder where no broker answers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", NOBODY)

    def command(*arguments):
        return CliRunner().invoke(app, list(arguments))

    return command


COMMANDS = sorted(command.name or command.callback.__name__.rstrip("_") for command in app.registered_commands)


ALL = "init try demo release retire publish predict watch models runs train query up down status doctor topics acls"


def test_every_command_of_this_version_is_there():
    assert sorted(ALL.split()) == COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example_of_itself(run, name):
    shown = run(name, "--help")
    assert shown.exit_code == 0
    assert f"Example: headrace {name}" in shown.stdout


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"init"}))
def test_what_a_program_would_read_comes_as_json(run, name):
    assert "--json" in run(name, "--help").stdout


def test_the_help_lists_the_first_steps_first(run):
    shown = run("--help").stdout
    places = [shown.index(f" {heading} ") for heading in ("Start", "Pipelines", "Data", "Models", "Running")]
    assert places == sorted(places)


def test_the_version_is_printed(run):
    assert run("--version").stdout.startswith("headrace 0.")


@pytest.mark.parametrize(
    "arguments", [("publish",), ("init", "x"), ("nonsense",), ("release", "no.py"), ("topics", "--no")]
)
def test_wrong_usage_exits_with_2(run, arguments):
    assert run(*arguments).exit_code == USAGE


@pytest.mark.parametrize(
    "arguments",
    [
        ("publish", "rain", "a=1"),
        ("predict", "rain", "a=1"),
        ("watch", "rain"),
        ("models",),
        ("runs",),
        ("train", "rain"),
        ("status",),
        ("topics", "--check"),
        ("retire", "rain", "--yes"),
    ],
)
def test_without_a_broker_each_command_says_so_and_what_to_do(run, arguments):
    result = run(*arguments)
    assert result.exit_code == FAILED
    assert f"error: no broker answers at {NOBODY}" in result.stderr
    assert "next: headrace up" in result.stderr
    assert "Traceback" not in result.output


def test_an_error_is_json_where_the_result_would_be(run):
    result = run("models", "--json")
    assert json.loads(result.stderr)["error"] == f"no broker answers at {NOBODY}"
    assert json.loads(result.stderr)["status"] == result.exit_code == FAILED


def test_an_unknown_setting_is_named_with_the_nearest_that_exists(run, monkeypatch):
    monkeypatch.setenv("HEADRACE_NAMESPASE", "x")
    result = run("models")
    assert result.exit_code == USAGE
    assert "HEADRACE_NAMESPASE" in result.stderr
    assert "HEADRACE_NAMESPACE" in result.stderr


def test_a_traceback_is_shown_only_on_request(run, monkeypatch):
    monkeypatch.setenv("HEADRACE_DEBUG", "1")
    assert isinstance(run("models").exception, Unreachable)


def test_a_pipeline_file_that_raises_is_named_with_its_line(run, tmp_path, monkeypatch):
    (tmp_path / "rain.py").write_text("import headrace\n\nraise ValueError('no such sensor')\n")
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    result = run("try", "rain.py", "rows.csv")
    assert result.exit_code == FAILED
    assert "rain.py, line 3: ValueError: no such sensor" in result.stderr


def test_without_a_broker_doctor_lists_what_is_and_what_is_not(run):
    result = run("doctor", "--json")
    lines = json.loads(result.stdout)
    assert result.exit_code == FAILED
    assert {line["what"].split()[0] for line in lines if line["level"] == "ok"} >= {"Python", "settings:"}
    (broker,) = [line for line in lines if NOBODY in line["what"] and line["level"] == "fail"]
    assert broker["next"] == "start it or unset the variable"


def test_acls_and_topics_need_no_broker(run):
    assert {"principal": "users", "operation": "Write", "topic": "<p>.data-arrived"} in json.loads(
        run("acls", "--json").stdout
    )
    assert {topic["name"] for topic in json.loads(run("topics", "--json").stdout)} >= {"<p>.predictions", "pipelines"}


def test_down_without_anything_running_is_no_error(run):
    result = run("down")
    assert (result.exit_code, result.stdout) == (0, "Nothing of this folder was running.\n")


@pytest.mark.parametrize(
    ("error", "status", "message", "next_command"),
    [
        (Refused("no", "headrace status"), REFUSED, "no", "headrace status"),
        (SettingsError("X is no setting"), USAGE, "X is no setting", "headrace doctor lists what is set"),
        (InvalidDefinition("label", "must be bool"), FAILED, "label: must be bool", None),
        (Unavailable("no broker"), FAILED, "no broker", None),
        (TopicMissing("topic x"), FAILED, "topic x", "headrace doctor"),
        (OSError(errno.ENOSPC, "No space left on device", "/x"), FAILED, "the disk is full: /x", None),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), FAILED, "Permission denied: /x", None),
        (
            ModuleNotFoundError("No module named 'lmdb'", name="lmdb"),
            FAILED,
            "lmdb",
            "pip install 'headrace[services]'",
        ),
        (KeyError("defect"), FAILED, "KeyError: 'defect'", None),
    ],
)
def test_every_typed_error_becomes_a_message_a_status_and_a_next_step(error, status, message, next_command):
    told = tell(error)
    assert told.status == status
    assert message in told.message
    if next_command:
        assert told.next == next_command


def test_errors_of_other_modules_are_known_by_names_that_exist():
    import importlib

    from headrace.cli.errors import EXITS

    for name in EXITS:
        module, _, cls = name.rpartition(".")
        if module != "cimpl":  # what confluent-kafka calls its own module
            assert issubclass(getattr(importlib.import_module(module), cls), Exception), name
