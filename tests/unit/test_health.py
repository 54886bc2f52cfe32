"""What a service says of itself, over HTTP."""

import json
import urllib.error
import urllib.request

import pytest

from headrace.infra import health
from headrace.infra.settings import Settings


class Part:
    def counts(self):
        return {"rain.predictions-0": {"offset": 7, "repeats": 2}, "note": "text"}


@pytest.fixture
def server():
    made = health.HealthServer("joiner", Settings(artifact_key="k"), [Part()])
    yield made
    made.close()


def ask(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_a_port_that_is_taken_is_named_with_its_setting(server):
    port = int(server.url.split(":")[2].split("/")[0])
    with pytest.raises(OSError, match=rf"HEADRACE_HEALTH_PORT: nothing can listen on 127.0.0.1:{port}"):
        health.HealthServer("trainer", Settings(artifact_key="k", health_port=port), [])


def test_a_service_whose_loop_turns_is_healthy(server):
    status, body = ask(server.url)
    assert (status, json.loads(body)["status"]) == (200, "ok")
    assert json.loads(body)["parts"] == [Part().counts()]


def test_a_service_whose_loop_stands_still_is_not(server, monkeypatch):
    monkeypatch.setattr(health, "STALE_S", 0.0)
    status, body = ask(server.url)
    assert status == 503
    assert "has not turned" in json.loads(body)["status"]


def test_a_turn_makes_it_healthy_again(server, monkeypatch):
    server._turned -= 2 * health.STALE_S
    assert ask(server.url)[0] == 503
    server.beat()
    assert ask(server.url)[0] == 200


def test_metrics_are_prometheus_text(server):
    status, body = ask(server.url.replace("/health", "/metrics"))
    assert status == 200
    assert 'headrace_fold{service="joiner",place="rain.predictions-0",number="offset"} 7' in body.splitlines()


@pytest.mark.parametrize("page", ["health", "metrics"])
def test_a_table_that_grows_while_it_is_read_is_read_again(server, monkeypatch, page):
    tables = {"a": {"offset": 7}}

    def counts(self):
        told = {}
        for place, numbers in tables.items():
            tables.setdefault("c", {"offset": 8})  # what the loop does meanwhile
            told[place] = numbers
        return told

    monkeypatch.setattr(Part, "counts", counts)
    status, body = ask(server.url.replace("/health", f"/{page}"))
    assert status == 200
    assert body.count("offset") >= 2


def test_other_paths_do_not_exist(server):
    assert ask(server.url + "/else")[0] == 404
