"""All settings of a process, read once in its `__main__`: environment variables, then `.env`, then defaults."""

from __future__ import annotations

import contextlib
import difflib
import os
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "HEADRACE_"
BOOTSTRAP = "KAFKA_BOOTSTRAP_SERVERS"  # the name that other Kafka tools use
KEY_NAME = "HEADRACE_ARTIFACT_KEY"
ENV_FILE = ".env"
SECRETS = ("artifact_key", "query_token", "sasl_password", "ssl_key_password")
WHO = "{principal}"  # stands for who asks: a service by its name, else `users`
OTHERS = ("HEADRACE_DEBUG", "HEADRACE_TEST_CONTAINERS")  # read where they are used; no settings of a service


class SettingsError(ValueError):
    """A setting is unknown, missing or contradicts another; the message names it and what to do."""


class Settings(BaseSettings):
    """Where the broker is, where state lives, how often to commit, which key signs artifacts.

    Each field is the variable `HEADRACE_<FIELD>`; a secret may also stand in the file that `HEADRACE_<FIELD>_FILE`
    names. `{principal}` in the user's name, the certificate and the files of secrets is who asks: each service has
    its own credentials with one set of variables. Raises SettingsError naming the variable.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=ENV_FILE,
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        populate_by_name=True,
        frozen=True,
    )

    bootstrap_servers: str = Field("127.0.0.1:9092", validation_alias=BOOTSTRAP)
    namespace: str = Field("", pattern=r"^[a-z0-9-]{0,40}$")
    instance: str = Field(
        default_factory=lambda: socket.gethostname() or "local", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
    )
    home: Path = Field(Path(".headrace"), validate_default=True)
    state_dir: Path = Field(default_factory=lambda known: known.get("home", Path()) / "state")
    artifact_url: str = Field(default_factory=lambda known: str(known.get("home", Path()) / "artifacts"))
    artifact_key: SecretStr | None = None
    create_topics: bool = True
    commit_s: float = Field(5.0, ge=0)  # as Kafka's own consumers; a commit waits for the disk and holds rows up
    record_s: float = Field(1.0, ge=0)  # how old the rows in DuckDB may be
    commit_records: int = Field(20_000, ge=1)
    checkpoint_s: float = Field(600, gt=0)
    linger_ms: float = Field(10, ge=0)
    session_timeout_s: float = Field(45, ge=1)
    log_format: Literal["auto", "pretty", "json"] = "auto"
    health_host: str = "127.0.0.1"
    health_port: int = Field(0, ge=0, le=65_535)
    query_host: str = "127.0.0.1"
    query_port: int = Field(8810, ge=0, le=65_535)
    query_token: SecretStr | None = None
    store_memory: str = Field("1GB", pattern=r"^[1-9][0-9]*(MB|GB)$")
    tick_s: float = Field(60, gt=0)

    principal: str = Field("users", pattern=r"^[a-z][a-z0-9-]{0,40}$")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ssl_ca: Path | None = None
    ssl_cert: Path | None = None
    ssl_key: Path | None = None
    ssl_key_password: SecretStr | None = None

    def __init__(self, **values: Any) -> None:
        unknown = set(values) - set(type(self).model_fields)
        if unknown:
            raise SettingsError(f"{min(unknown)} is no setting")
        in_file = _read_env_file()
        for variables, place in ((os.environ, "the environment"), (in_file, ENV_FILE)):
            refuse_unknown_variables(variables, place)
        for name in SECRETS:
            if name not in values:
                who = values.get("principal") or _nearest("HEADRACE_PRINCIPAL", in_file) or "users"
                values |= _secret_from_file(name, in_file, str(who))
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise SettingsError("; ".join(map(_says, _first_causes(error)))) from None

    @field_validator("sasl_username", "ssl_cert", "ssl_key", mode="before")
    @classmethod
    def _of_principal(cls, value: Any, known: ValidationInfo) -> Any:
        return str(value).replace(WHO, known.data["principal"]) if value and "principal" in known.data else value

    @field_validator("home", "state_dir", "ssl_ca", "ssl_cert", "ssl_key")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        return path.expanduser().absolute() if path is not None else None

    @field_validator("artifact_url")
    @classmethod
    def _absolute_folder(cls, url: str) -> str:
        return url if "://" in url else str(Path(url).expanduser().absolute())

    @model_validator(mode="after")
    def _agree(self) -> Settings:
        sasl = [self.sasl_mechanism, self.sasl_username, self.sasl_password]
        tls = [self.ssl_ca, self.ssl_cert, self.ssl_key, self.ssl_key_password]
        if self.security_protocol == "SASL_SSL" and None in sasl:
            raise ValueError(
                "HEADRACE_SECURITY_PROTOCOL=SASL_SSL needs HEADRACE_SASL_MECHANISM, HEADRACE_SASL_USERNAME and "
                "HEADRACE_SASL_PASSWORD"
            )
        if self.security_protocol != "SASL_SSL" and any(part is not None for part in sasl):
            raise ValueError("HEADRACE_SASL_… settings need HEADRACE_SECURITY_PROTOCOL=SASL_SSL")
        if self.security_protocol == "PLAINTEXT" and any(part is not None for part in tls):
            raise ValueError("HEADRACE_SSL_… settings need HEADRACE_SECURITY_PROTOCOL=SSL or SASL_SSL")
        if (self.ssl_cert is None) != (self.ssl_key is None):
            raise ValueError("HEADRACE_SSL_CERT and HEADRACE_SSL_KEY go together: set both (mTLS) or neither")
        for name in ("ssl_ca", "ssl_cert", "ssl_key"):
            file = getattr(self, name)
            if file is not None and not file.is_file():
                raise ValueError(f"{PREFIX}{name.upper()}: there is no file {file}")
        for name in ("health_host", "query_host"):
            host = getattr(self, name)
            if not is_loopback(host) and self.query_token is None:
                raise ValueError(f"{PREFIX}{name.upper()}={host} is no loopback address; it needs HEADRACE_QUERY_TOKEN")
        return self

    @property
    def who(self) -> str:
        """How the broker knows this process, for messages."""
        return self.sasl_username or (str(self.ssl_cert) if self.ssl_cert else "this client")

    @property
    def store_path(self) -> Path:
        """The recorder's DuckDB file."""
        return self.home / "store" / "headrace.duckdb"

    def key(self) -> bytes:
        """The key that signs artifacts and state. Raises SettingsError where there is none."""
        if self.artifact_key is None or not self.artifact_key.get_secret_value():
            raise SettingsError(
                f"{KEY_NAME} is not set, so no artifact could be trusted; "
                "`headrace init` and `headrace up` write one to .env"
            )
        return self.artifact_key.get_secret_value().encode()

    def confluent_security(self) -> dict[str, Any]:
        """The security settings by librdkafka's names."""
        return _given(
            {
                "security.protocol": self.security_protocol,
                "sasl.mechanism": self.sasl_mechanism,
                "sasl.username": self.sasl_username,
                "sasl.password": self.sasl_password,
                "ssl.ca.location": self.ssl_ca,
                "ssl.certificate.location": self.ssl_cert,
                "ssl.key.location": self.ssl_key,
                "ssl.key.password": self.ssl_key_password,
            }
        )

    def kafka_python_security(self) -> dict[str, Any]:
        """The security settings by kafka-python's names."""
        return _given(
            {
                "security_protocol": self.security_protocol,
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.sasl_username,
                "sasl_plain_password": self.sasl_password,
                "ssl_cafile": self.ssl_ca,
                "ssl_certfile": self.ssl_cert,
                "ssl_keyfile": self.ssl_key,
                "ssl_password": self.ssl_key_password,
            }
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    return host in ("localhost", "::1") or host.startswith("127.")


def refuse_unknown_variables(variables: Mapping[str, Any] = os.environ, place: str = "the environment") -> None:
    """Raise SettingsError for a HEADRACE_ variable that names no setting, with the nearest that does."""
    known = {variable_of(name): None for name in Settings.model_fields}
    known |= {f"{variable_of(name)}_FILE": None for name in SECRETS} | dict.fromkeys(OTHERS)
    for name in sorted(variables):
        if name.startswith(PREFIX) and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise SettingsError(f"{name} in {place} is no setting" + (f"; did you mean {near[0]}?" if near else ""))


def variable_of(field: str) -> str:
    """The environment variable of a field."""
    return BOOTSTRAP if field == "bootstrap_servers" else PREFIX + field.upper()


def make_key(folder: Path) -> str:
    """The key in `folder/.env`; where there is none a new one is appended, and the file's mode becomes 0600."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ENV_FILE
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+", encoding="utf-8") as file:
        with contextlib.suppress(ImportError):  # on Windows
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)  # of two that start at once, the second reads the first one's key
        key = dotenv_values(path).get(KEY_NAME)
        if key:
            return key
        key = secrets.token_hex(32)
        path.chmod(0o600)
        text = file.read()
        file.write(("\n" if text and not text.endswith("\n") else "") + f"{KEY_NAME}={key}\n")
        file.flush()
        os.fsync(file.fileno())
    return key


def _read_env_file() -> dict[str, str]:
    return {name: value for name, value in dotenv_values(ENV_FILE).items() if value}


def _nearest(variable: str, in_file: Mapping[str, str]) -> str | None:
    return os.environ.get(variable) or in_file.get(variable)


def _secret_from_file(name: str, in_file: Mapping[str, str], principal: str) -> dict[str, str]:
    """{name: secret} where the nearest place that names the secret at all names a file that holds it."""
    variable = variable_of(name)
    for variables in (os.environ, in_file):
        path = variables.get(f"{variable}_FILE")
        if path and variables.get(variable):
            raise SettingsError(f"{variable} and {variable}_FILE are both set; keep one of them")
        if path:
            path = path.replace(WHO, principal)
            try:
                secret = Path(path).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise SettingsError(f"{variable}_FILE={path} cannot be read: {error}") from None
            if not secret:
                raise SettingsError(f"{variable}_FILE={path} is empty")
            return {name: secret}
        if variables.get(variable):
            return {}
    return {}


def _first_causes(error: ValidationError) -> list[Any]:
    return [problem for problem in error.errors() if problem["type"] != "default_factory_not_called"]


def _says(problem: Any) -> str:
    """One problem as a sentence. Never shows a secret: neither its value nor all values together."""
    if not problem["loc"]:
        return str(problem["msg"]).removeprefix("Value error, ")
    field = str(problem["loc"][0])
    hidden = field in SECRETS or not isinstance(problem["input"], str | int | float)
    shown = "" if hidden else f" (got {problem['input']!r})"
    return f"{field if field == BOOTSTRAP else variable_of(field)}: {problem['msg']}{shown}"


def _given(named: dict[str, str | SecretStr | Path | None]) -> dict[str, str]:
    return {
        name: value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        for name, value in named.items()
        if value is not None
    }
