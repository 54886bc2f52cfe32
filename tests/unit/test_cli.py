"""The command line: help, exit statuses, errors as messages."""

import errno
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from headrace.cli import app
from headrace.cli.errors import FAILED, REFUSED, USAGE, tell
from headrace.cli.starting import last_words, wait_for_services
from headrace.contract import InvalidDefinition
from headrace.errors import HeadraceError, Refused, TopicsWrong, Unreachable
from headrace.infra.bus import TopicMissing, Unavailable
from headrace.infra.processes import write_run_file
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


ALL = (
    "init try demo release retire publish predict watch models runs alerts train query promote rollback pin unpin "
    "pause resume reproduce why show diff decisions triggers up down status doctor reset topics acls"
)


def test_the_command_line_starts_without_the_libraries_that_only_some_commands_need():
    heavy = {"pydantic", "msgspec", "kafka", "confluent_kafka", "river", "numpy", "duckdb"}
    program = f"import sys, headrace.cli; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


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


def test_topics_are_completed(run):
    words = {"_HEADRACE_COMPLETE": "complete_bash", "COMP_WORDS": "headrace watch rain --topic pre", "COMP_CWORD": "4"}
    assert CliRunner().invoke(app, [], env=words, prog_name="headrace").stdout.split() == ["predictions"]


def test_the_version_is_printed(run):
    assert run("--version").stdout.startswith("headrace 0.")


@pytest.mark.parametrize(
    "arguments",
    [
        ("publish",),
        ("init", "x"),
        ("nonsense",),
        ("release", "no.py"),
        ("topics", "--no"),
        ("publish", "x", "--rate", "fast"),
    ],
)
def test_wrong_usage_exits_with_2(run, arguments):
    assert run(*arguments).exit_code == USAGE


EARLY, LATE = "2026-01-31T11:00Z", "2026-01-31T12:00Z"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--from", EARLY), "one of them is missing"),
        (("--to", LATE), "one of them is missing"),
        (("--from", EARLY, "--to", LATE, "--version", "1"), "--version is found by itself"),
        (("--from", LATE, "--to", EARLY), "is not before"),
        (("--from", EARLY, "--to", EARLY), "is not before"),
        (("--from", "yesterday", "--to", LATE), "--from"),
    ],
)
def test_a_bad_range_that_is_none_is_wrong_usage_before_any_broker_is_asked(run, arguments, says):
    refused = run("rollback", "rain", *arguments, "--json")
    assert refused.exit_code == USAGE
    assert says in refused.stderr + refused.stdout


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
    importlib.import_module("faust")  # once imported it has no spec, which must not trouble the check
    result = run("doctor", "--json")
    assert result.exit_code == FAILED
    lines = json.loads(result.stdout)
    assert {line["what"].split()[0] for line in lines if line["level"] == "ok"} >= {"Python", "settings:"}
    (broker,) = [line for line in lines if NOBODY in line["what"] and line["level"] == "fail"]
    assert broker["next"] == "start it or unset the variable"


def test_doctor_looks_whether_models_can_be_kept(run, monkeypatch):
    monkeypatch.setenv("HEADRACE_ARTIFACT_URL", "/proc/nope")
    lines = json.loads(run("doctor", "--json").stdout)
    (line,) = [line for line in lines if line["what"].startswith("/proc") and line["level"] == "fail"]
    assert line["next"] == "set HEADRACE_ARTIFACT_URL to a folder that can be written"


def test_up_makes_no_new_key_beside_state_of_another(run, tmp_path):
    kept = tmp_path / ".headrace" / "state" / "local" / "joiner"
    kept.mkdir(parents=True)
    (kept / "data.mdb").touch()
    result = run("up")
    assert result.exit_code == REFUSED
    assert "no key is set" in result.stderr
    assert not (tmp_path / ".env").exists()


def test_doctor_says_which_setting_is_none_and_checks_what_needs_no_settings(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HEADRACE_HOMME", "elsewhere")
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "rain.py").write_text("raise ValueError('no such sensor')\n")
    result = run("doctor", "--json")
    assert result.exit_code == FAILED
    failed = [line["what"] for line in json.loads(result.stdout) if line["level"] == "fail"]
    assert [("HEADRACE_HOMME" in what, "no such sensor" in what) for what in failed] == [(True, False), (False, True)]


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
        (TopicsWrong("x: retention", "mend it"), REFUSED, "x: retention", "mend it"),
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


def test_the_reference_in_the_docs_is_what_the_commands_say():
    from headrace.cli.reference import reference

    assert (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8") == reference(), (
        "run: python -m headrace.cli.reference > docs/cli.md"
    )


def test_without_java_docker_and_a_broker_up_names_the_three_ways(run, monkeypatch, tmp_path):
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS")
    monkeypatch.setenv("PATH", str(tmp_path))
    result = run("up")
    assert result.exit_code == FAILED
    assert "Three ways: set KAFKA_BOOTSTRAP_SERVERS" in result.stderr
    assert "Traceback" not in result.output


def test_a_contract_and_a_recipe_that_contradict_each_other_are_named(run, tmp_path):
    (tmp_path / "rain.py").write_text(
        "from headrace import Contract, Pipeline, Success\nfrom river import linear_model\n\n"
        "class Row(Contract):\n    a: float\n\n"
        "pipeline = Pipeline(name='rain', contract=Row, label=bool, success=Success('accuracy', at_least=0.6),\n"
        "                    recipe=lambda seed: linear_model.LinearRegression())\n"
    )
    (tmp_path / "rows.csv").write_text("a,b\n" + "1,0\n2,1\n" * 5)
    result = run("try", "rain.py", "rows.csv")
    assert result.exit_code == FAILED
    assert "error: recipe: " in result.stderr


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ('{"event": "failed", "reason": "port 8810 is taken"}\n{"event": "stopped"}\n', "port 8810 is taken"),
        ('Traceback (most recent call last):\n  File "x.py"\n    call()\nOSError: disk\n', "OSError: disk"),
        ('{"event": "started"}\n', "it is still starting"),
        (None, "it wrote no log"),
    ],
)
def test_why_a_service_did_not_start_comes_from_its_log(tmp_path, monkeypatch, log, reason):
    monkeypatch.chdir(tmp_path)
    if log is not None:
        (tmp_path / "logs").mkdir()
        (tmp_path / "logs" / "recorder.log").write_text(log)
    assert last_words(tmp_path, "recorder") == (reason, Path("logs/recorder.log"))


def test_a_service_that_keeps_ending_is_given_up_before_the_time_is_over(tmp_path):
    write_run_file(tmp_path, "recorder.supervised", {"pid": 0, "restarts": 3, "refused": False})
    with pytest.raises(HeadraceError, match="recorder did not start: it wrote no log"):
        wait_for_services(tmp_path, ("recorder",), timeout_s=60)
    write_run_file(tmp_path, "recorder.supervised", {"pid": 0, "restarts": 1, "refused": True})
    with pytest.raises(Refused, match="recorder refused to start"):
        wait_for_services(tmp_path, ("recorder",), timeout_s=60)


def test_a_state_that_was_refused_can_be_forgotten_and_nothing_else(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HEADRACE_INSTANCE", "me")
    fold = tmp_path / ".headrace" / "state" / "me" / "joiner" / "joiner-core"
    other = tmp_path / ".headrace" / "state" / "me" / "registry"
    for folder in (fold, other):
        folder.mkdir(parents=True)
    assert run("reset", str(fold), "--yes").exit_code == 0
    assert not fold.exists()
    assert run("reset", "joiner", "--yes").exit_code == 0
    assert not fold.parent.exists()
    assert other.exists()
    assert "'joyner' is neither a service nor a folder; services are validator" in run("reset", "joyner").stderr
    elsewhere = run("reset", str(tmp_path), "--yes")
    assert elsewhere.exit_code == REFUSED
    assert "where services keep their state" in elsewhere.stderr
    assert run("reset", "joiner", "--yes").exit_code == FAILED
    assert run("reset", "registry").exit_code == FAILED  # nobody answers the question
    assert other.exists()


def test_who_resets_the_recorder_is_told_that_its_snapshots_go_too(run, tmp_path):
    snapshot = tmp_path / ".headrace" / "store" / "snapshots" / "one"
    snapshot.mkdir(parents=True)
    asked = run("reset", "recorder")
    assert (asked.exit_code, "Parquet snapshots" in " ".join(asked.stderr.split())) == (FAILED, True)
    assert snapshot.exists()
    done = run("reset", "recorder", "--yes", "--json")
    assert "rows whose records are deleted" in json.loads(done.stdout)["notes"][0]
    assert not snapshot.exists()


def test_every_command_that_a_message_names_exists():
    words = {"state", "key", "is", "command"}  # of sentences
    root = Path(__file__).parents[2]
    named = {}
    for room in ("headrace/cli", "headrace/demo", "infra", "services", "schemas"):
        for path in (root / room).rglob("*.py"):
            for text in re.findall(r"headrace ((?!import\b)[a-z]+)(?=[ `\"';,.)]|$)", path.read_text()):
                named.setdefault(text, str(path))
    assert {name: path for name, path in named.items() if name not in {*COMMANDS, *words}} == {}
