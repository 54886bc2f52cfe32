"""Asking the store over HTTP: only reading, always JSON, never a 5xx, and never in the writer's way."""

import json
import math
import socket
import threading
import time
from types import SimpleNamespace

import httpx
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.infra.query_client import QueryFailed, StoreUnreachable, ask, query
from headrace.services.recorder import http
from headrace.services.recorder.arrow import arrow_rows
from headrace.services.recorder.http import QueryServer
from headrace.services.recorder.queries import Queries
from headrace.services.recorder.store import Store
from headrace.services.recorder.tables import TABLES

METRICS = TABLES["metrics"]


def score(n, value=0.5):
    return ("rainfall", 1_000, "champion", 1, "run-1", "windowed", None, "accuracy", value, n, 0.9, None, None, 0, n)


def new_store(path):
    store = Store(path, memory_limit="300MB")
    store.commit([("metrics", arrow_rows(METRICS, [score(n) for n in range(1_000)]))], {})
    return store


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = new_store(tmp_path_factory.mktemp("store") / "s.duckdb")
    yield store
    store.close()


@pytest.fixture(scope="module")
def serve(store):
    servers = {}

    def start(token=None, timeout_s=20.0):
        if (token, timeout_s) not in servers:
            queries = Queries(store, timeout_s)
            servers[token, timeout_s] = QueryServer(
                queries, "127.0.0.1", 0, token, lambda: {"status": "ok", "topics": {}}
            )
        return servers[token, timeout_s].url

    yield start
    for server in servers.values():
        server.close()


CLIENT = httpx.Client(timeout=60)


def post(url, sql, **headers):
    return CLIENT.post(f"{url}/query", json={"sql": sql}, headers=headers)


def test_rows_come_with_their_columns_and_say_when_there_are_more(serve):
    answer = ask(serve(), "SELECT n, metric, value, known_at FROM metrics ORDER BY n", limit=2)
    assert answer.columns == ["n", "metric", "value", "known_at"]
    assert answer.types[0] == "int64"
    assert answer.rows == [[0, "accuracy", 0.5, "1970-01-01T00:00:01Z"], [1, "accuracy", 0.5, "1970-01-01T00:00:01Z"]]
    assert answer.truncated
    assert not ask(serve(), "SELECT n FROM metrics", limit=1_000).truncated
    assert ask(serve(), "FROM metrics WHERE false").rows == []
    assert ask(serve(), "SELECT sum(n), avg(n), count(*)::HUGEINT FROM metrics").rows == [[499_500, 499.5, 1_000]]


def test_settings_name_the_store_and_the_token(serve):
    host, port = serve(token="secret").removeprefix("http://").split(":")
    chosen = SimpleNamespace(
        query_host=host, query_port=int(port), query_token=SimpleNamespace(get_secret_value=lambda: "secret")
    )
    assert query(chosen, "SELECT 1").rows == [[1]]
    chosen.query_token = None
    with pytest.raises(QueryFailed, match="HEADRACE_QUERY_TOKEN"):
        query(chosen, "SELECT 1")


def test_nobody_there_is_told_with_the_address():
    with pytest.raises(StoreUnreachable, match=r"no recorder answers at http://127.0.0.1:1 "):
        ask("http://127.0.0.1:1", "SELECT 1")


def test_every_type_of_the_engine_can_be_shown(serve):
    url = serve()
    columns = [row[0] for row in ask(url, "DESCRIBE FROM test_all_types()").rows]
    assert len(columns) > 40
    for column in columns:
        answer = post(url, f'SELECT "{column}" FROM test_all_types()')
        assert answer.status_code in (200, 400), column
        assert (
            answer.status_code == 200
            or "VARCHAR" in answer.json()["error"]
            or "Not implemented" in answer.json()["error"]
        ), column
    shown = ask(
        url,
        "SELECT {'a': [1, NULL]}, MAP {'k': 1.5}, 'nan'::DOUBLE, '\\xFF'::BLOB, DATE '2026-11-24', 1.25",
    ).rows[0]
    assert shown == [{"a": [1, None]}, {"k": 1.5}, None, "/w==", "2026-11-24", 1.25]


def test_arrow_is_given_to_those_who_ask_for_it(serve):
    answer = post(serve(), "SELECT n FROM metrics", Accept="application/vnd.apache.arrow.stream")
    table = pa.ipc.open_stream(answer.content).read_all()
    assert table.num_rows == 1_000


WRITES = """\
INSERT INTO metrics(n) VALUES (1)
DELETE FROM metrics
UPDATE metrics SET n = 1
DROP TABLE metrics
CREATE TABLE t(a INT)
CREATE TEMP TABLE t(a INT)
CREATE VIEW v AS SELECT 1
CREATE MACRO m() AS 1
ALTER TABLE metrics ADD COLUMN x INT
TRUNCATE metrics
COPY metrics TO '{out}'
COPY metrics FROM '/etc/passwd'
EXPORT DATABASE '{out}'
ATTACH '{out}'
INSTALL httpfs
LOAD httpfs
SET memory_limit = '1TB'
RESET memory_limit
PRAGMA enable_profiling
CHECKPOINT
FORCE CHECKPOINT
VACUUM
BEGIN
COMMIT
ROLLBACK
PREPARE p AS SELECT 1
EXECUTE p
CALL pragma_version()
USE main
SELECT 1; DROP TABLE metrics
WITH x AS (INSERT INTO metrics(n) VALUES (1) RETURNING n) FROM x
WITH x AS (DELETE FROM metrics RETURNING n) FROM x
EXPLAIN ANALYZE INSERT INTO metrics(n) VALUES (1)
EXPLAIN ANALYZE DELETE FROM metrics
FROM force_checkpoint()
FROM checkpoint()
FROM query('DROP TABLE metrics')
FROM json_execute_serialized_sql('{}')
MERGE INTO metrics USING metrics m ON true WHEN MATCHED THEN DELETE
COMMENT ON TABLE metrics IS 'x'
DETACH s
GRANT ALL
""".splitlines()
WRITES += ["explain  analyze\n-- x\ndelete from metrics", ""]
READS_ELSEWHERE = """\
FROM '/etc/passwd'
FROM read_text('/etc/passwd')
FROM read_csv('/etc/passwd')
FROM read_blob('{here}')
FROM glob('/etc/*')
FROM '{here}'
FROM parquet_metadata('{here}')
FROM read_json('http://127.0.0.1/')
FROM sniff_csv('/etc/passwd')
SELECT (SELECT content FROM read_text('/etc/passwd'))
FROM sqlite_scan('a', 'b')
SELECT getenv('PATH')
FROM duckdb_secrets()
FROM duckdb_logs()
FROM sql
FROM cursor
FROM body
FROM relation
FROM pandas_scan(1)
FROM metrics, LATERAL (FROM read_text(slice))
""".splitlines()


@pytest.mark.parametrize("sql", WRITES)
def test_nothing_can_be_written(serve, store, sql):
    answer = post(serve(), sql)
    assert answer.status_code in (400, 422), answer.text
    assert answer.json()["error"]
    with store.reading() as cursor:
        assert cursor.execute("SELECT count(*), sum(n) FROM metrics").fetchone() == (1_000, 499_500)


def test_the_engine_itself_holds_what_the_check_lets_through(serve, monkeypatch, tmp_path):
    monkeypatch.setattr("headrace.services.recorder.guard.Guard.check", lambda self, sql: None)
    url = serve()
    there = ask(url, "SHOW ALL TABLES").rows
    for sql in [*WRITES, "DELETE FROM metrics; COMMIT", "UPDATE metrics SET n = 0; COMMIT; SELECT 1"]:
        post(url, sql.replace("{out}", str(tmp_path / "out")))
    assert ask(url, "SELECT count(*), sum(n) FROM metrics").rows == [[1_000, 499_500]]
    assert ask(url, "SHOW ALL TABLES").rows == there
    for sql in [sql for sql in READS_ELSEWHERE if sql != "FROM duckdb_logs()"]:
        answer = post(url, sql.replace("{here}", __file__))
        assert answer.status_code == 400, (sql, answer.text)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sql", READS_ELSEWHERE)
def test_nothing_but_the_store_can_be_read(serve, sql):
    answer = post(serve(), sql.replace("{here}", __file__))
    assert answer.status_code == 400, answer.text


def test_errors_are_the_engines_own(serve):
    with pytest.raises(QueryFailed, match='Referenced column "nothing" not found'):
        ask(serve(), "SELECT nothing FROM metrics")
    with pytest.raises(QueryFailed, match="syntax error"):
        ask(serve(), "SELEC 1")
    with pytest.raises(QueryFailed, match="one statement"):
        ask(serve(), "SELECT 1; SELECT 2")
    with pytest.raises(QueryFailed, match="read_text may not be used"):
        ask(serve(), "FROM read_text('x')")


def test_explain_show_describe_and_summarize_read(serve):
    url = serve()
    assert "metrics" in [row[0] for row in ask(url, "SHOW TABLES").rows]
    assert ask(url, "EXPLAIN SELECT count(*) FROM metrics").rows
    assert ask(url, "EXPLAIN ANALYZE SELECT count(*) FROM metrics").rows
    assert ask(url, "DESCRIBE metrics").rows[0][0] == "pipeline"
    assert ask(url, "SUMMARIZE metrics").rows
    comment = ask(
        url, "SELECT comment FROM duckdb_columns() WHERE table_name = 'metrics' AND column_name = 'coverage'"
    ).rows
    assert comment == [["share of the predictions whose label came"]]


WORDS = (
    "SELECT FROM metrics n ( ) , * ' \" 1 / 0 UNION GROUP BY ALL OVER "
    "LATERAL [ ] { } : :: INT CASE NULL \ud800 LIMIT -1 $1 ?"
)
SQL = st.one_of(
    st.text(max_size=60),
    st.text("SELECTFROM ()'\";,*-1/\\\0\n", max_size=40),
    st.lists(st.sampled_from(WORDS.split(" ")), max_size=12).map(" ".join),
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SQL)
def test_no_text_whatever_makes_a_5xx(serve, sql):
    body = json.dumps({"sql": sql})
    answer = CLIENT.post(f"{serve(timeout_s=2)}/query", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (200, 400, 422)
    assert answer.headers["content-type"] == "application/json"
    assert answer.status_code == 200 or answer.json()["error"]


BODIES = [
    b"",
    b"{",
    b"null",
    b"[]",
    b"\xff\xfe",
    b"[" * 100_000,
    b"x" * 3_000_000,
    b'{"sql": 1}',
    b'{"sql": "SELECT 1", "limit": NaN}',
    b'{"sql": "SELECT 1", "limit": -1}',
    b'{"sql": "SELECT 1", "limit": 1e400}',
    b'{"sql": "SELECT 1", "more": 1}',
    b'{"sql": "\\ud800"}',
    json.dumps({"sql": "SELECT " + "(" * 5_000 + "1" + ")" * 5_000}).encode(),
    json.dumps({"sql": "x" * 200_000}).encode(),
]


@pytest.mark.parametrize("body", BODIES)
def test_no_body_whatever_makes_a_5xx(serve, body):
    answer = CLIENT.post(f"{serve()}/query", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 413, 422)
    assert answer.json()["error"]


def test_a_body_that_is_too_large_is_refused_while_it_is_read(serve):
    parts = iter([b'{"sql": "', *[b"x" * 100_000] * 20])  # without a length told before
    answer = CLIENT.post(f"{serve()}/query", content=parts, headers={"Content-Type": "application/json"})
    assert (answer.status_code, "bytes" in answer.json()["error"]) == (413, True)


def test_other_routes_and_methods_are_refused_as_json(serve):
    url = serve()
    assert CLIENT.get(f"{url}/health").json() == {"status": "ok", "topics": {}}
    not_allowed, unknown = (
        (("GET", "/query"), ("POST", "/health"), ("DELETE", "/query")),
        ("/", "/docs", "/../../etc/passwd"),
    )
    asked = [(*one, 405) for one in not_allowed] + [("GET", path, 404) for path in unknown]
    for method, path, code in asked:
        answer = CLIENT.request(method, url + path)
        assert (answer.status_code, bool(answer.json()["error"])) == (code, True), (method, path)


# --- who may ask ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer wrong", "secret", "bearer secret", "Basic secret", "Bearer secret2", "Bearer sécret"],
)
def test_without_the_right_token_nothing_is_read(serve, header):
    headers = {} if header is None else {"Authorization": header.encode()}
    url = serve(token="secret")
    for method, path in (("POST", "/query"), ("GET", "/query"), ("GET", "/openapi.json"), ("GET", "/nothing")):
        body = {"sql": "SELECT 1"} if method == "POST" else None
        answer = CLIENT.request(method, url + path, headers=headers, json=body)
        assert (answer.status_code, "HEADRACE_QUERY_TOKEN" in answer.json()["error"]) == (401, True), path


def test_the_right_token_reads(serve):
    assert ask(serve(token="secret"), "SELECT 1", token="secret").rows == [[1]]
    health = serve(token="secret") + "/health"
    assert CLIENT.get(health).json() == {"status": "ok"}
    assert CLIENT.get(health, headers={"Authorization": "Bearer secret"}).json() == {"status": "ok", "topics": {}}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_an_address_that_others_reach_needs_a_token(store, host):
    with pytest.raises(ValueError, match="HEADRACE_QUERY_TOKEN"):
        QueryServer(Queries(store), host, 0, None, dict)


def test_a_port_that_is_taken_is_named_with_the_setting_for_another(store):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"in use: 127.0.0.1:{port}; HEADRACE_QUERY_PORT names another"):
            QueryServer(Queries(store), "127.0.0.1", port, None, dict)


# --- limits -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql",
    ["SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range * b.range % 7 = 3",
     "WITH RECURSIVE a AS (SELECT 1 x UNION ALL SELECT x + 1 FROM a) SELECT count(*) FROM a", "SELECT sleep_ms(60000)"],
)  # fmt: skip
def test_a_statement_that_would_run_for_ever_is_stopped(serve, sql):
    began = time.monotonic()
    answer = post(serve(timeout_s=0.5), sql)
    assert (answer.status_code, "stopped after" in answer.json()["error"]) == (400, True)
    assert time.monotonic() - began < 10


def test_rows_are_streamed_so_a_limit_bounds_the_memory(serve):
    answer = ask(serve(), "SELECT range, repeat('x', 1000) FROM range(1000000000)", limit=10)
    assert (len(answer.rows), answer.truncated) == (10, True)


def test_commits_go_on_beside_queries_that_take_all_they_can(tmp_path):
    store = new_store(tmp_path / "s.duckdb")
    server = QueryServer(Queries(store, 3.0), "127.0.0.1", 0, None, dict)
    url = server.url
    hungry = "SELECT a.n, b.n, count(*) FROM metrics a, metrics b, range(100) GROUP BY ALL ORDER BY 3 LIMIT 1"
    threads = [threading.Thread(target=post, args=(url, hungry)) for _ in range(3)]
    for thread in threads:
        thread.start()
    slowest = 0.0
    for n in range(1_000, 1_030):
        began = time.monotonic()
        store.commit([("metrics", arrow_rows(METRICS, [score(n)]))], {})
        slowest = max(slowest, time.monotonic() - began)
    for thread in threads:
        thread.join()
    assert ask(url, "SELECT count(*) FROM metrics").rows == [[1_030]]
    assert slowest < 3
    server.close()
    store.close()


def test_more_queries_than_slots_are_told_to_come_again(serve, until):
    url = serve(timeout_s=2)
    codes = []
    slow = "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range * b.range % 7 = 3"
    threads = [
        threading.Thread(target=lambda: codes.append(post(url, slow).status_code)) for _ in range(http.SLOTS + 2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [400] * http.SLOTS + [429] * 2
    until(lambda: post(url, "SELECT 1").status_code == 200, says="a free slot")


def test_nan_in_a_result_is_null_and_the_answer_stays_json(serve):
    assert ask(serve(), "SELECT 'inf'::DOUBLE, 'nan'::FLOAT, [1.0, 'nan'::DOUBLE]").rows == [[None, None, [1.0, None]]]
    assert math.isclose(ask(serve(), "SELECT pi()").rows[0][0], math.pi)
