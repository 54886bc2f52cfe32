"""All settings of a process, read once in its `__main__`: environment variables, then `.env`, then defaults."""

from __future__ import annotations

import difflib
import os
import secrets
import socket
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "HEADRACE_"
KEY_NAME = "HEADRACE_ARTIFACT_KEY"
OTHERS = {"HEADRACE_DEBUG", "HEADRACE_TEST_CONTAINERS"}
SECRETS = ("artifact_key", "query_token", "sasl_password", "ssl_key_password")


class SettingsError(ValueError):
    """A setting is unknown, missing or contradicts another; the message names it and what to do."""


class Settings(BaseSettings):
    """Where the broker is, where state lives, how often to commit, which key signs artifacts."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=".env", env_file_encoding="utf-8", extra="ignore", populate_by_name=True, frozen=True
    )

    bootstrap_servers: str = Field(
        "127.0.0.1:9092", validation_alias=AliasChoices("KAFKA_BOOTSTRAP_SERVERS", "bootstrap_servers")
    )
    namespace: str = Field("", pattern=r"[a-z0-9-]{0,40}")
    instance: str = Field(default_factory=lambda: socket.gethostname() or "local")
    home: Path = Path(".headrace")
    state_dir: Path = Path()
    artifact_url: str = ""
    artifact_key: SecretStr | None = None
    create_topics: bool = True
    commit_s: float = Field(1.0, ge=0)
    commit_records: int = Field(5_000, ge=1)
    linger_ms: float = Field(1, ge=0)
    session_timeout_s: float = Field(45, ge=1)
    log_format: Literal["auto", "pretty", "json"] = "auto"
    health_host: str = "127.0.0.1"
    health_port: int = Field(0, ge=0, le=65_535)
    query_host: str = "127.0.0.1"
    query_port: int = Field(8810, ge=0, le=65_535)
    query_token: SecretStr | None = None
    tick_s: float = Field(60, gt=0)

    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_SSL", "SASL_PLAINTEXT"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ssl_ca: Path | None = None
    ssl_cert: Path | None = None
    ssl_key: Path | None = None
    ssl_key_password: SecretStr | None = None

    def __init__(self, **values: Any) -> None:
        refuse_unknown_variables()
        for name in SECRETS:
            file = os.environ.get(f"{PREFIX}{name.upper()}_FILE")
            if file and name not in values:
                values[name] = _read_secret(f"{PREFIX}{name.upper()}_FILE", file)
        try:
            super().__init__(**values)
        except ValidationError as error:
            problem = error.errors()[0]
            name = ".".join(str(part) for part in problem["loc"]) or "settings"
            raise SettingsError(f"{name}: {problem['msg']} (got {problem.get('input')!r})") from error

    @field_validator("home", "ssl_ca", "ssl_cert", "ssl_key")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        return path.expanduser().absolute() if path is not None else None

    @model_validator(mode="after")
    def _complete(self) -> Settings:
        if self.state_dir == Path():
            object.__setattr__(self, "state_dir", self.home / "state")
        if not self.artifact_url:
            object.__setattr__(self, "artifact_url", str(self.home / "artifacts"))
        if self.security_protocol.startswith("SASL") and not (self.sasl_mechanism and self.sasl_username):
            raise ValueError(f"{self.security_protocol} needs HEADRACE_SASL_MECHANISM, _SASL_USERNAME and _SASL_PASSWORD")
        for host in ("health_host", "query_host"):
            if not is_loopback(getattr(self, host)) and self.query_token is None:
                raise ValueError(
                    f"{PREFIX}{host.upper()}={getattr(self, host)} is no loopback address; it needs HEADRACE_QUERY_TOKEN"
                )
        return self

    @property
    def store_path(self) -> Path:
        """The recorder's DuckDB file."""
        return self.home / "store" / "headrace.duckdb"

    def key(self) -> bytes:
        """The key that signs artifacts and state. Raises SettingsError where there is none."""
        if self.artifact_key is None or not self.artifact_key.get_secret_value():
            raise SettingsError(
                f"{KEY_NAME} is not set, so no artifact could be trusted; `headrace init` and `headrace up` write one to .env"
            )
        return self.artifact_key.get_secret_value().encode()

    def confluent_security(self) -> dict[str, Any]:
        """The security settings by librdkafka's names."""
        named = {
            "security.protocol": self.security_protocol,
            "sasl.mechanism": self.sasl_mechanism, "sasl.username": self.sasl_username,
            "sasl.password": _plain(self.sasl_password), "ssl.ca.location": _text(self.ssl_ca),
            "ssl.certificate.location": _text(self.ssl_cert), "ssl.key.location": _text(self.ssl_key),
            "ssl.key.password": _plain(self.ssl_key_password),
        }
        return {name: value for name, value in named.items() if value is not None}

    def kafka_python_security(self) -> dict[str, Any]:
        """The security settings by kafka-python's names."""
        named = {
            "security_protocol": self.security_protocol,
            "sasl_mechanism": self.sasl_mechanism, "sasl_plain_username": self.sasl_username,
            "sasl_plain_password": _plain(self.sasl_password), "ssl_cafile": _text(self.ssl_ca),
            "ssl_certfile": _text(self.ssl_cert), "ssl_keyfile": _text(self.ssl_key),
            "ssl_password": _plain(self.ssl_key_password),
        }
        return {name: value for name, value in named.items() if value is not None}


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    return host in ("localhost", "::1") or host.startswith("127.")


def refuse_unknown_variables() -> None:
    """Raise SettingsError for a HEADRACE_ variable that names no setting, with the nearest that does."""
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields} | OTHERS
    known |= {f"{PREFIX}{name.upper()}_FILE" for name in SECRETS}
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise SettingsError(f"{name} is no setting{f'; did you mean {near[0]}?' if near else ''}")


def make_key(folder: Path) -> str:
    """The key in `folder/.env`, made (file mode 0600) where there is none."""
    path = folder / ".env"
    lines = path.read_text().splitlines() if path.exists() else []
    for line in lines:
        name, _, value = line.partition("=")
        if name.strip() == KEY_NAME and value.strip():
            return value.strip()
    key = secrets.token_hex(32)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write("\n".join([*lines, f"{KEY_NAME}={key}"]) + "\n")
    path.chmod(0o600)
    return key


def _read_secret(name: str, file: str) -> str:
    try:
        return Path(file).read_text().strip()
    except OSError as error:
        raise SettingsError(f"{name}={file} cannot be read: {error.strerror}") from error


def _plain(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret is not None else None


def _text(path: Path | None) -> str | None:
    return str(path) if path is not None else None
