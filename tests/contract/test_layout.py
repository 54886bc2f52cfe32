"""The rooms keep their walls: folds import nothing of the world, every import says `headrace.…`, tables agree."""

import ast
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import headrace
from headrace.schemas.topics import DLQ, TOPICS
from headrace.services import FOLDS, SERVICES

ROOT = Path(__file__).parents[2]
WORLD = ("headrace.infra", "confluent_kafka", "kafka", "lmdb", "duckdb", "pyarrow", "faust", "fastapi", "fsspec")
ROOMS = ("schemas", "services", "infra")
SOURCES = [
    p
    for room in (*ROOMS, "headrace", "tests", "benchmarks")
    for p in sorted((ROOT / room).rglob("*.py"))
    if not any(part in ROOMS for part in p.relative_to(ROOT).parts[1:2]) or room != "headrace"
]
MODULES = sorted({fold.module: fold for fold in FOLDS}.items())


@pytest.fixture(scope="module")
def imported():
    """What the import of each fold's module brings that was not there, in one process: first of those without River."""
    in_turn = sorted(dict(MODULES), key=lambda module: dict(MODULES)[module].needs_river)
    program = """
import importlib, json, sys
there = {}
for module in sys.argv[1:]:
    before = set() if not there else set(sys.modules)
    importlib.import_module(module)
    there[module] = sorted(sys.modules.keys() - before)
print(json.dumps(there))
"""
    done = subprocess.run([sys.executable, "-c", program, *in_turn], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize(("module", "fold"), MODULES, ids=[module for module, _ in MODULES])
def test_a_fold_imports_nothing_of_the_world_and_river_only_where_the_table_says(module, fold, imported):
    listing = imported[module]
    worldly = [name for name in listing if any(name == w or name.startswith(w + ".") for w in WORLD)]
    assert worldly == []
    if not fold.needs_river:
        assert not [name for name in listing if name.split(".")[0] in ("river", "scipy", "numpy", "pandas")]


def test_the_processes_of_services_that_need_no_river_import_neither_it_nor_scipy():
    with_river = {fold.service for fold in FOLDS if fold.needs_river}
    light = [service for service in SERVICES if service not in with_river]
    assert len(light) == 7
    program = """
import importlib, sys
for service in sys.argv[1:]:
    importlib.import_module(f"headrace.services.{service}.__main__")
    found = {"river", "scipy"} & {name.split(".")[0] for name in sys.modules}
    assert not found, f"{service} imports {found}"
"""
    done = subprocess.run([sys.executable, "-c", program, *light], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_import_says_headrace(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            names = [node.module or ""]
        bare = [name for name in names if name.split(".")[0] in ROOMS]
        assert not bare, f"{path}:{node.lineno} imports {bare} without headrace."


@pytest.mark.parametrize("fold", FOLDS, ids=lambda fold: f"{fold.id}:{fold.input}")
def test_the_table_of_folds_and_the_table_of_topics_agree(fold):
    assert fold.service in SERVICES
    assert fold.service in TOPICS[fold.input].consumers
    for output in fold.outputs:
        assert fold.service in TOPICS[output].producers, f"{fold.id} writes {output}, topics.py does not know"
    for table in fold.tables:
        assert fold.service in TOPICS[table].consumers


def test_no_topic_is_its_own_dead_letter_topic():
    assert not [name for name in TOPICS if name.endswith(DLQ)]


def test_importing_the_package_loads_neither_a_client_nor_river():
    listing = subprocess.run(
        [
            sys.executable,
            "-c",
            "import headrace, headrace.pipeline, headrace.contract, sys; print('\\n'.join(sys.modules))",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert not {"kafka", "confluent_kafka", "river", "lmdb", "duckdb"} & {name.split(".")[0] for name in listing}


def test_a_star_imports_what_the_package_offers_by_name():
    names: dict[str, object] = {}
    exec("from headrace import *", names)
    assert set(dir(headrace)) == set(headrace.__all__) == names.keys() - {"__builtins__"}
    assert all(names[name] is getattr(headrace, name) for name in headrace.__all__)


def test_importing_the_sdk_needs_only_its_own_libraries():
    listing = subprocess.run(
        [sys.executable, "-c", "import headrace; headrace.Client; import sys; print('\\n'.join(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert not {"confluent_kafka", "river", "lmdb", "duckdb", "pyarrow"} & {name.split(".")[0] for name in listing}


def test_the_sdk_needs_no_fcntl_which_windows_has_not():
    program = """
import sys
sys.modules["fcntl"] = None
import headrace
from headrace.infra import sdk, settings, subscription
assert subscription.broker_address(settings.Settings()) == "127.0.0.1:9092"
try:
    headrace.Client("127.0.0.1:1", timeout_s=1)
except headrace.errors.Unreachable as error:
    print("no broker:", error)
key = settings.make_key(settings.Path("keys"))
assert settings.make_key(settings.Path("keys")) == key
import headrace.cli
"""
    with tempfile.TemporaryDirectory() as empty:
        environ = {**os.environ, "HEADRACE_HOME": empty, "KAFKA_BOOTSTRAP_SERVERS": ""}
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=empty, env=environ)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("no broker: no broker answers at 127.0.0.1:1")


def test_every_check_of_a_gate_names_where_its_rule_is_from():
    unnamed, named = [], 0
    for path in sorted((ROOT / "services" / "evaluator").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Check":
                named += 1
                if "source" not in {keyword.arg for keyword in node.keywords}:
                    unnamed.append(f"{path.name}:{node.lineno}")
    assert unnamed == []
    assert named > 20
