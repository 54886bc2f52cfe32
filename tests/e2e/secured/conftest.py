"""A genuine Kafka with TLS, passwords and an authorizer; all services up, each with a user of its own."""

import os
import random
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from kafka import KafkaAdminClient
from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ConfigResource,
    ConfigResourceType,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from headrace.infra import local_broker, processes
from headrace.infra.acls import PRINCIPALS, Right, rights
from headrace.infra.follow import Follower
from headrace.infra.kafka_bus import KafkaBus
from headrace.infra.settings import Settings

NAMESPACE = "sec-"
SAID = re.compile(r"Principal = User:(?P<who>\S+) is (?P<verdict>\w+) operation = (?P<operation>\w+) from host")
RULE = re.compile(r"resourceName=(?P<name>[^,]+), .*operation=(?P<operation>\w+), permissionType=ALLOW")
ADMIN = "admin-secret"


def certificates(folder: Path, *clients: str) -> None:
    """A root, the broker's certificate for 127.0.0.1 and one for each client's name, as PEM files."""

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "2")
    openssl("req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=headrace test root")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    for name in ("broker", *clients):
        openssl("req", *new, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/O=headrace/CN={name}")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                "-days", "2", "-extfile", "names", "-out", f"{name}.pem")  # fmt: skip
    (folder / "store.pem").write_text((folder / "broker.key").read_text() + (folder / "broker.pem").read_text())


def broker_settings(folder: Path, plain: int, tls: int, mtls: int, controller: int) -> dict[str, str]:
    """Passwords on two listeners, one with TLS; certificates on a third; whom no right names may do nothing."""
    module, here = "org.apache.kafka.common.security", "://127.0.0.1"
    listeners = f"SASL_PLAINTEXT{here}:{plain},SASL_SSL{here}:{tls},SSL{here}:{mtls}"
    settings = {
        "listeners": f"{listeners},CONTROLLER{here}:{controller}",
        "advertised.listeners": listeners,
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,"
        + ",".join(f"{protocol}:{protocol}" for protocol in ("SASL_PLAINTEXT", "SASL_SSL", "SSL")),
        "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller}",
        "inter.broker.listener.name": "SASL_PLAINTEXT",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(folder / "store.pem"),
        "listener.name.ssl.ssl.client.auth": "required",
        "listener.name.ssl.ssl.truststore.type": "PEM",
        "listener.name.ssl.ssl.truststore.location": str(folder / "ca.pem"),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "false",
        "super.users": "User:admin;User:ANONYMOUS",  # the second is the controller's listener alone
    }
    for listener in ("sasl_plaintext", "sasl_ssl"):
        settings |= {
            f"listener.name.{listener}.plain.sasl.jaas.config": f"{module}.plain.PlainLoginModule required "
            f'username="admin" password="{ADMIN}" user_admin="{ADMIN}";',
            f"listener.name.{listener}.scram-sha-512.sasl.jaas.config": f"{module}.scram.ScramLoginModule required;",
        }
    return settings


SOURCE = '''
from headrace import Contract, Pipeline, Success, feature
from river import linear_model, preprocessing


class Weather(Contract):
    """One day."""

    temperature: float = feature(ge=-60, le=60)
    wind: float = feature(ge=0, le=100)


def recipe(seed: int):
    return preprocessing.StandardScaler() | linear_model.LogisticRegression()


pipeline = Pipeline(name="rain", contract=Weather, label=bool, recipe=recipe, success=Success("accuracy", at_least=0.6))
'''


def rows(first: int, count: int):
    chance = random.Random(first)
    for number in range(first, first + count):
        features = {"temperature": chance.uniform(-20, 30), "wind": chance.uniform(0, 60)}
        yield {"id": f"d{number}", "features": features}
        yield {"id": f"d{number}", "label": features["temperature"] + features["wind"] / 10 > 8}


class Secured:
    """A cluster, ten services with a user each, and whoever asks."""

    rows = staticmethod(rows)
    certificates = staticmethod(certificates)

    def __init__(self, folder: Path, broker: str, with_certificates: str) -> None:
        self.folder, self.address = folder, broker
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            query_port = probe.getsockname()[1]
        self.common = {
            "KAFKA_BOOTSTRAP_SERVERS": broker,
            "HEADRACE_NAMESPACE": NAMESPACE,
            "HEADRACE_HOME": str(folder / "home"),
            "HEADRACE_ARTIFACT_KEY": "e2e-test-key",
            "HEADRACE_QUERY_PORT": str(query_port),
            "HEADRACE_INSTANCE": "secured",
            "HEADRACE_SESSION_TIMEOUT_S": "6",
            "HEADRACE_TICK_S": "5",
            "HEADRACE_SECURITY_PROTOCOL": "SASL_SSL",
            "HEADRACE_SSL_CA": str(folder / "ca.pem"),
            "HEADRACE_SASL_MECHANISM": "SCRAM-SHA-512",
            "HEADRACE_SASL_USERNAME": "{principal}",
            "HEADRACE_SASL_PASSWORD_FILE": str(folder / "{principal}.password"),
        }
        self.as_admin = {
            "HEADRACE_SASL_MECHANISM": "PLAIN",
            "HEADRACE_SASL_USERNAME": "admin",
            "HEADRACE_PRINCIPAL": "admin",
        }
        self.by_certificate = {
            "KAFKA_BOOTSTRAP_SERVERS": with_certificates,
            "HEADRACE_SECURITY_PROTOCOL": "SSL",
            "HEADRACE_SSL_CERT": str(folder / "{principal}.pem"),
            "HEADRACE_SSL_KEY": str(folder / "{principal}.key"),
            "HEADRACE_SASL_MECHANISM": "",
            "HEADRACE_SASL_USERNAME": "",
            "HEADRACE_SASL_PASSWORD_FILE": "",
        }
        self.as_operators = {"HEADRACE_PRINCIPAL": "operators"}
        (folder / "admin.password").write_text(ADMIN)
        self.admin = KafkaAdminClient(
            bootstrap_servers=broker,
            security_protocol="SASL_SSL",
            ssl_cafile=str(folder / "ca.pem"),
            sasl_mechanism="PLAIN",
            sasl_plain_username="admin",
            sasl_plain_password=ADMIN,
        )

    def make_users(self) -> None:
        users = {name: f"{name}-secret" for name in PRINCIPALS}
        self.admin.alter_user_scram_credentials(
            [UserScramCredentialUpsertion(n, ScramMechanism.SCRAM_SHA_512, secret) for n, secret in users.items()]
        )
        for name, secret in users.items():
            (self.folder / f"{name}.password").write_text(secret)

    def run(self, *arguments, status=0, **variables) -> subprocess.CompletedProcess:
        outside = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
        environ = outside | self.common | variables
        command = (
            [sys.executable, *arguments] if arguments[0] == "-m" else [sys.executable, "-m", "headrace", *arguments]
        )
        done = subprocess.run(command, cwd=self.folder, env=environ, capture_output=True, text=True, timeout=120)
        assert done.returncode == status, (done.stdout, done.stderr, self.logs())
        return done

    def settings(self, monkeypatch, **variables) -> Settings:
        monkeypatch.chdir(self.folder)
        for name, value in (self.common | variables).items():
            monkeypatch.setenv(name, value)
        return Settings()

    def logs(self) -> str:
        logs = sorted((self.folder / "home" / "logs").glob("*.log"))
        return "\n".join(f"{path.name}: {path.read_text(errors='replace')[-1_500:]}" for path in logs)

    def restarts(self, service: str) -> int:
        return int(str(processes.states(self.folder / "home")[service].get("restarts", 0)))

    def log(self, service: str) -> str:
        return (self.folder / "home" / "logs" / f"{service}.log").read_text(errors="replace")

    def give(self, who: str, operation: str, name: str, kind: str = "topic") -> None:
        self.admin.create_acls([self._acl(ACL, ResourcePattern, who, operation, name, kind)])

    def take(self, who: str, operation: str, name: str, kind: str = "topic") -> None:
        told = self.admin.delete_acls([self._acl(ACLFilter, ResourcePatternFilter, who, operation, name, kind)])
        assert sum(len(matching) for _, matching, _ in told) == 1, told

    @contextmanager
    def without(self, who: str, operation: str, name: str) -> Iterator[None]:
        """A while in which a right on a topic is withdrawn."""
        self.take(who, operation, name)
        try:
            yield
        finally:
            self.give(who, operation, name)

    def is_steady(self, service: str) -> bool:
        now = processes.states(self.folder / "home")[service]
        return bool(now["alive"] and now["ready"])

    @staticmethod
    def records(bus: KafkaBus, topic: str) -> list:
        with closing(Follower(bus, NAMESPACE, [topic])) as follower:
            return follower.read_to_end()

    @staticmethod
    def end(bus: KafkaBus, topic: str) -> int:
        return bus.offsets((topic, 0))[1]

    def committed(self, fold: str, topic: str) -> int:
        group = f"{NAMESPACE}headrace-{fold}"
        offsets = self.admin.list_group_offsets([group])[group]
        return next(at.offset for place, at in offsets.items() if place.topic == topic)

    def what_the_authorizer_said(self) -> tuple[set[Right], list[str]]:
        """The rights that no request needed, and the requests that were denied."""
        used, denied = set(), []
        for line in (self.folder / "broker" / "kafka.log").read_text().splitlines():
            told = SAID.search(line)
            if told is None or told["who"] in ("ANONYMOUS", "admin"):
                continue
            if told["verdict"] == "Denied":
                denied.append(line)
                continue
            rule = RULE.search(line)
            # listing topics asks for Describe, which Read and Write hold: that alone uses neither
            if rule is not None and rule["operation"] in (told["operation"], "DESCRIBE"):
                used.add((told["who"], rule["operation"], rule["name"]))
        return {
            right
            for right in rights(["rain"], NAMESPACE)
            if (right.principal, right.operation.upper().replace("CONFIGS", "_CONFIGS"), right.name) not in used
        }, denied

    @staticmethod
    def _acl(acl, pattern, who, operation, name, kind):
        how = ACLResourcePatternType.PREFIXED if kind == "group" else ACLResourcePatternType.LITERAL
        resource = pattern(ResourceType[kind.upper()], name, how)
        named = {"principal": f"User:{who}", "host": "*", "operation": ACLOperation[operation.upper()]}
        return acl(**named, permission_type=ACLPermissionType.ALLOW, resource_pattern=resource)


@pytest.fixture(scope="module")
def secured(tmp_path_factory):
    """The cluster with its rights given, all services up, the pipeline `rain` released."""
    if not (shutil.which("java") and shutil.which("mvn") and shutil.which("openssl")):
        pytest.skip("needs Java 17, Maven and openssl for a genuine secured Kafka broker")
    folder = tmp_path_factory.mktemp("secured")
    certificates(folder, "users", "validator")
    plain, tls, mtls, controller = (local_broker.free_port() for _ in range(4))
    local_broker.start(folder, plain, print, broker_settings(folder, plain, tls, mtls, controller))
    made = Secured(folder, f"127.0.0.1:{tls}", f"127.0.0.1:{mtls}")
    try:
        made.make_users()
        made.admin.alter_configs(
            [ConfigResource(ConfigResourceType.BROKER_LOGGER, "1", {"kafka.authorizer.logger": "DEBUG"})]
        )
        (folder / "rain.py").write_text(SOURCE)
        made.run("acls", "rain", "--apply", **made.as_admin)
        made.run("up", **made.as_operators)
        made.run("release", "rain.py", **made.as_operators)
        yield made
    finally:
        made.run("down", "--keep-broker", **made.as_operators)
        made.admin.close()
        local_broker.stop_local_broker(folder)
