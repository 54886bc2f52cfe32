"""Settings: where they come from, in which order, and what is refused with the variable's name."""

import fcntl
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from dotenv import dotenv_values

from headrace.infra import settings as settings_module
from headrace.infra.settings import Settings, SettingsError, make_key


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)


def test_without_anything_the_broker_is_local_and_state_lies_below_the_home(tmp_path):
    settings = Settings()
    assert settings.bootstrap_servers == "127.0.0.1:9092"
    assert settings.state_dir == tmp_path / ".headrace" / "state"
    assert settings.artifact_url == str(tmp_path / ".headrace" / "artifacts")
    assert settings.store_path == tmp_path / ".headrace" / "store" / "headrace.duckdb"


def test_paths_follow_the_home_and_stay_absolute_when_the_process_changes_its_folder(tmp_path, monkeypatch):
    settings = Settings(home="here", artifact_url="models")
    monkeypatch.chdir("/")
    assert settings.state_dir == tmp_path / "here" / "state"
    assert settings.artifact_url == str(tmp_path / "models")


def test_a_url_of_artifacts_is_left_as_it_is():
    assert Settings(artifact_url="s3://bucket/models").artifact_url == "s3://bucket/models"


def test_the_environment_goes_before_the_env_file_and_that_before_defaults(tmp_path, monkeypatch):
    (tmp_path / ".env").write_text("HEADRACE_NAMESPACE=file-\nHEADRACE_COMMIT_S=3\nKAFKA_BOOTSTRAP_SERVERS=k:1\n")
    monkeypatch.setenv("HEADRACE_NAMESPACE", "env-")
    settings = Settings()
    assert (settings.namespace, settings.commit_s, settings.bootstrap_servers) == ("env-", 3.0, "k:1")
    assert settings.commit_records == 20_000


def test_an_empty_variable_counts_as_not_set(monkeypatch):
    monkeypatch.setenv("HEADRACE_COMMIT_S", "")
    assert Settings().commit_s == 5.0


def test_an_unknown_variable_is_refused_with_the_nearest_known_one(tmp_path, monkeypatch):
    monkeypatch.setenv("HEADRACE_COMIT_S", "2")
    with pytest.raises(SettingsError, match=r"HEADRACE_COMIT_S in the environment.*did you mean HEADRACE_COMMIT_S"):
        Settings()
    monkeypatch.delenv("HEADRACE_COMIT_S")
    (tmp_path / ".env").write_text("HEADRACE_NAMESPACES=a\n")
    with pytest.raises(SettingsError, match=r"HEADRACE_NAMESPACES in \.env.*did you mean HEADRACE_NAMESPACE"):
        Settings()


def test_the_broker_has_one_name_only(monkeypatch):
    monkeypatch.setenv("HEADRACE_BOOTSTRAP_SERVERS", "k:1")
    with pytest.raises(SettingsError, match="HEADRACE_BOOTSTRAP_SERVERS"):
        Settings()


def test_every_wrong_value_is_named_by_its_variable(monkeypatch):
    monkeypatch.setenv("HEADRACE_COMMIT_S", "-1")
    monkeypatch.setenv("HEADRACE_COMMIT_RECORDS", "many")
    monkeypatch.setenv("HEADRACE_INSTANCE", "../elsewhere")
    with pytest.raises(SettingsError) as refusal:
        Settings()
    assert "HEADRACE_COMMIT_S: " in str(refusal.value)
    assert "HEADRACE_COMMIT_RECORDS: " in str(refusal.value)
    assert "got 'many'" in str(refusal.value)
    assert "HEADRACE_INSTANCE: " in str(refusal.value)
    assert "STATE_DIR" not in str(refusal.value)


def test_a_value_given_by_a_wrong_name_is_refused():
    with pytest.raises(SettingsError, match="commit_ms is no setting"):
        Settings(commit_ms=3)


def test_a_secret_may_stand_in_a_file(tmp_path, monkeypatch):
    (tmp_path / "key").write_text("k1\n")
    monkeypatch.setenv("HEADRACE_ARTIFACT_KEY_FILE", str(tmp_path / "key"))
    assert Settings().key() == b"k1"
    monkeypatch.setenv("HEADRACE_ARTIFACT_KEY", "k2")
    with pytest.raises(SettingsError, match="HEADRACE_ARTIFACT_KEY and HEADRACE_ARTIFACT_KEY_FILE are both set"):
        Settings()


def test_a_secrets_file_in_the_environment_goes_before_the_secret_in_the_env_file(tmp_path, monkeypatch):
    (tmp_path / ".env").write_text("HEADRACE_ARTIFACT_KEY=from-env-file\n")
    (tmp_path / "key").write_text("from-secret")
    assert Settings().key() == b"from-env-file"
    monkeypatch.setenv("HEADRACE_ARTIFACT_KEY_FILE", str(tmp_path / "key"))
    assert Settings().key() == b"from-secret"


def test_the_env_file_may_name_a_secrets_file_and_the_environment_goes_before_it(tmp_path, monkeypatch):
    (tmp_path / "key").write_text("from-secret")
    (tmp_path / ".env").write_text(f"HEADRACE_ARTIFACT_KEY_FILE={tmp_path / 'key'}\n")
    assert Settings().key() == b"from-secret"
    monkeypatch.setenv("HEADRACE_ARTIFACT_KEY", "from-environment")
    assert Settings().key() == b"from-environment"


@pytest.mark.parametrize("text", [None, " \n"])
def test_a_secrets_file_that_is_missing_or_empty_is_refused(tmp_path, monkeypatch, text):
    if text is not None:
        (tmp_path / "key").write_text(text)
    monkeypatch.setenv("HEADRACE_SASL_PASSWORD_FILE", str(tmp_path / "key"))
    with pytest.raises(SettingsError, match="HEADRACE_SASL_PASSWORD_FILE"):
        Settings()


def test_no_key_is_refused_with_the_commands_that_make_one():
    with pytest.raises(SettingsError, match=r"HEADRACE_ARTIFACT_KEY is not set.*headrace init"):
        Settings().key()


def test_secrets_never_show():
    settings = Settings(
        artifact_key="hush-1",
        security_protocol="SASL_SSL",
        sasl_mechanism="PLAIN",
        sasl_username="u",
        sasl_password="hush-2",
    )
    assert "hush" not in f"{settings!r} {settings} {settings.model_dump_json()}"
    for wrong in (
        {"commit_s": -1},
        {"security_protocol": "SASL_SSL"},
        {"query_host": "0.0.0.0"},
        {"query_token": 4711},
    ):
        with pytest.raises(SettingsError) as refusal:
            Settings(artifact_key="hush-1", **wrong)
        assert "hush" not in str(refusal.value)
        assert "4711" not in str(refusal.value)
        assert refusal.value.__cause__ is None  # pydantic's own error, which a traceback would show, has the input


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"security_protocol": "SASL_SSL", "sasl_username": "u"}, "HEADRACE_SASL_PASSWORD"),
        ({"sasl_username": "u"}, "HEADRACE_SECURITY_PROTOCOL=SASL_SSL"),
        ({"security_protocol": "SSL", "sasl_password": "p"}, "HEADRACE_SECURITY_PROTOCOL=SASL_SSL"),
        ({"ssl_ca": __file__}, "HEADRACE_SECURITY_PROTOCOL=SSL"),
        ({"security_protocol": "SSL", "ssl_ca": "/no/such/file"}, "HEADRACE_SSL_CA"),
        ({"security_protocol": "SSL", "ssl_cert": __file__}, "HEADRACE_SSL_KEY"),
        ({"query_host": "0.0.0.0"}, "HEADRACE_QUERY_HOST=0.0.0.0"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(wrong, says):
    with pytest.raises(SettingsError, match=says):
        Settings(**wrong)


def test_an_open_address_starts_with_a_token():
    assert Settings(query_host="0.0.0.0", query_token="t").query_host == "0.0.0.0"


def test_one_security_setting_becomes_each_clients_own_names():
    assert Settings().confluent_security() == {"security.protocol": "PLAINTEXT"}
    assert Settings().kafka_python_security() == {"security_protocol": "PLAINTEXT"}
    settings = Settings(
        security_protocol="SASL_SSL",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username="u",
        sasl_password="p",
        ssl_ca=__file__,
        ssl_cert=__file__,
        ssl_key=__file__,
        ssl_key_password="q",
    )
    assert settings.confluent_security() == {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "u",
        "sasl.password": "p",
        "ssl.ca.location": __file__,
        "ssl.certificate.location": __file__,
        "ssl.key.location": __file__,
        "ssl.key.password": "q",
    }
    assert settings.kafka_python_security() == {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "u",
        "sasl_plain_password": "p",
        "ssl_cafile": __file__,
        "ssl_certfile": __file__,
        "ssl_keyfile": __file__,
        "ssl_password": "q",
    }


def test_both_clients_know_the_names():
    import confluent_kafka
    from kafka import KafkaConsumer

    settings = Settings(security_protocol="SASL_SSL", sasl_mechanism="PLAIN", sasl_username="u", sasl_password="p")
    confluent_kafka.Producer(settings.confluent_security())  # raises KafkaException for a name it does not know
    assert set(
        Settings(
            security_protocol="SASL_SSL",
            sasl_mechanism="PLAIN",
            sasl_username="u",
            sasl_password="p",
            ssl_ca=__file__,
            ssl_cert=__file__,
            ssl_key=__file__,
            ssl_key_password="q",
        ).kafka_python_security()
    ) <= set(KafkaConsumer.DEFAULT_CONFIG)


def test_the_key_is_made_once_for_the_owner_only_and_read_as_a_setting(tmp_path):
    (tmp_path / ".env").write_text("# mine\nHEADRACE_NAMESPACE=a-")  # no newline at its end
    (tmp_path / ".env").chmod(0o644)
    key = make_key(tmp_path)
    assert len(key) == 64
    assert make_key(tmp_path) == key == Settings().key().decode()
    assert Settings().namespace == "a-"
    assert stat.S_IMODE(os.stat(tmp_path / ".env").st_mode) == 0o600
    assert (tmp_path / ".env").read_text() == f"# mine\nHEADRACE_NAMESPACE=a-\nHEADRACE_ARTIFACT_KEY={key}\n"


def test_a_key_that_stands_in_the_file_is_kept_in_whatever_form(tmp_path):
    (tmp_path / ".env").write_text('export HEADRACE_ARTIFACT_KEY="mine"\n')
    assert make_key(tmp_path) == "mine"
    assert (tmp_path / ".env").read_text() == 'export HEADRACE_ARTIFACT_KEY="mine"\n'


def test_an_empty_key_is_replaced(tmp_path):
    (tmp_path / ".env").write_text("HEADRACE_ARTIFACT_KEY=\n")
    assert make_key(tmp_path) == Settings().key().decode() != ""


def test_of_two_that_start_at_once_the_second_takes_the_firsts_key(tmp_path, monkeypatch):
    looked = threading.Event()

    def look(path):
        looked.set()
        return dotenv_values(path)

    monkeypatch.setattr(settings_module, "dotenv_values", look)
    with open(tmp_path / ".env", "w") as first, ThreadPoolExecutor(1) as pool:
        fcntl.flock(first, fcntl.LOCK_EX)
        second = pool.submit(make_key, tmp_path)
        assert not looked.wait(0.3)  # it waits for the first to be done
        first.write("HEADRACE_ARTIFACT_KEY=firsts\n")
        first.flush()
        fcntl.flock(first, fcntl.LOCK_UN)
        assert second.result(20) == "firsts"


def test_one_set_of_variables_gives_each_service_its_own_credentials(tmp_path, monkeypatch):
    for who in ("validator", "users"):
        (tmp_path / f"{who}.password").write_text(f"{who}-secret")
        (tmp_path / f"{who}.pem").write_text("")
    for name, value in {
        "SECURITY_PROTOCOL": "SASL_SSL",
        "SASL_MECHANISM": "SCRAM-SHA-512",
        "SASL_USERNAME": "headrace-{principal}",
        "SASL_PASSWORD_FILE": str(tmp_path / "{principal}.password"),
        "SSL_CERT": str(tmp_path / "{principal}.pem"),
        "SSL_KEY": str(tmp_path / "{principal}.pem"),
    }.items():
        monkeypatch.setenv(f"HEADRACE_{name}", value)
    for settings, who in ((Settings(), "users"), (Settings(principal="validator"), "validator")):
        security = settings.confluent_security()
        assert security["sasl.username"] == settings.who == f"headrace-{who}"
        assert security["sasl.password"] == f"{who}-secret"
        assert security["ssl.certificate.location"] == security["ssl.key.location"] == str(tmp_path / f"{who}.pem")
    monkeypatch.setenv("HEADRACE_PRINCIPAL", "operators")
    with pytest.raises(SettingsError, match=r"operators\.password cannot be read"):
        Settings()
