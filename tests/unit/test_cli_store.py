"""Commands ask this folder's recorder, and `doctor` tells what nobody could read."""

import pytest

from headrace.cli import checks, connect
from headrace.infra import processes, query_client
from headrace.infra.query_client import Answer, StoreUnreachable

STATES = {"validator": {"alive": True, "pid": 7}, "recorder": {"alive": True, "pid": 8}}


@pytest.fixture
def runs(monkeypatch, tmp_path):
    """Services of this folder, of which the recorder does what is given."""

    def say(**recorder):
        states = STATES | {"recorder": STATES["recorder"] | recorder}
        monkeypatch.setattr(processes, "states", lambda home: states)
        monkeypatch.setattr(processes, "is_running", lambda home: True)

    monkeypatch.chdir(tmp_path)
    return say


def test_where_this_folders_recorder_is_down_the_one_at_its_port_is_not_asked(runs):
    runs()
    assert connect.store().query_port == 8810
    runs(alive=False)
    with pytest.raises(StoreUnreachable, match=r"this folder's recorder does not run; .*recorder\.log says why"):
        connect.store()


def test_without_services_of_this_folder_the_address_decides(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert connect.store().query_port == 8810


@pytest.mark.parametrize(("unread", "levels"), [(0, ["ok"]), (15, ["ok", "note"])])
def test_doctor_counts_what_no_service_could_read(runs, monkeypatch, unread, levels):
    runs()
    monkeypatch.setattr(
        query_client, "query", lambda settings, sql: Answer(["n"], ["BIGINT"], [[unread]], False, 0.004)
    )
    told = list(checks.store())
    assert [one.level for one in told] == levels
    if unread:
        assert (told[1].what, told[1].next) == (
            "15 records could not be read, and nothing was made of them",
            'headrace query "SELECT * FROM dead_letters"',
        )
