"""What docker-compose.yml promises without an engine: every service, its limits, its rights, its ports."""

from pathlib import Path

import pytest
import yaml

from headrace.cli.scaffold import compose_file
from headrace.infra.settings import Settings, variable_of
from headrace.services import SERVICES

FILE = yaml.safe_load((Path(__file__).parents[2] / "docker-compose.yml").read_text())
CONTAINERS = FILE["services"]
MEMORY, UP = 2.75e9, 2.5e9  # bytes: everything together, what stays up


def test_every_service_of_the_table_is_a_container_and_nothing_else_is():
    assert {*CONTAINERS} == {*SERVICES, "kafka", "topics", "cli"}
    for service in SERVICES:
        assert CONTAINERS[service]["entrypoint"] == ["python", "-m", f"headrace.services.{service}"]


def test_the_memory_limits_together_stay_below_what_is_said():
    limits = {name: container["mem_limit"] for name, container in CONTAINERS.items()}
    assert all(limit.endswith("m") for limit in limits.values())
    bytes_of = {name: int(limit[:-1]) << 20 for name, limit in limits.items()}
    assert sum(bytes_of.values()) < MEMORY
    assert sum(bytes_of[name] for name in ("kafka", *SERVICES)) < UP


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_container_has_no_rights_it_does_not_need(name):
    container = CONTAINERS[name]
    assert container["cap_drop"] == ["ALL"]
    assert container["security_opt"] == ["no-new-privileges:true"]
    assert container.get("read_only", False) == (name != "kafka")  # Kafka's image writes its settings at start
    assert "privileged" not in container
    assert "user" not in container  # the images' own, which is not root


@pytest.mark.parametrize("name", CONTAINERS)
def test_ports_are_published_on_loopback_only(name):
    assert all(port.startswith("127.0.0.1:") for port in CONTAINERS[name].get("ports", ()))


def test_every_setting_exists_and_no_secret_stands_in_the_file():
    known = {variable_of(field) for field in Settings.model_fields}
    for name in CONTAINERS.keys() - {"kafka"}:
        environment = CONTAINERS[name]["environment"]
        assert environment.keys() <= known
        assert environment["HEADRACE_ARTIFACT_KEY"].startswith("${HEADRACE_ARTIFACT_KEY:?")
        assert environment["HEADRACE_QUERY_TOKEN"] == "${HEADRACE_QUERY_TOKEN:-}"


def test_the_file_that_init_writes_builds_the_installed_version_or_names_the_image_to_build():
    published = yaml.safe_load(compose_file("1.2.3"))["services"].pop("topics")
    assert '"headrace[services]==1.2.3"' in published["build"]["dockerfile_inline"]
    developed = yaml.safe_load(compose_file("1.2.3.dev0"))["services"].pop("topics")
    assert "build" not in developed
    assert "docker build -t headrace:local" in compose_file("1.2.3.dev0")
