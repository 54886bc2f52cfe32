"""The wheel: built, installed nowhere, imported from outside the clone; every module in it stands once."""

import os
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)],
        check=True,
        capture_output=True,
        text=True,
    )
    (found,) = out.glob("*.whl")
    return found


def test_every_module_stands_in_the_wheel_once(wheel):
    names = [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".py")]
    assert all(name.startswith("headrace/") for name in names)
    sources = [
        path
        for room in ("schemas", "services", "infra", "headrace")
        for path in (ROOT / room).rglob("*.py")
        if "__pycache__" not in path.parts
    ]
    real = {path.resolve() for path in sources}
    assert Counter(names).most_common(1)[0][1] == 1
    assert len(names) == len(real)


def test_the_wheel_is_imported_outside_the_clone(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path / "site")
    code = (
        "import headrace, headrace.schemas.stream, headrace.services.joiner.core, headrace.infra.memory_bus;"
        "from headrace.demo.stories import rainfall_rows;"
        "print(headrace.__file__, sum(1 for _ in rainfall_rows()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
    )
    file, rows = done.stdout.split()
    assert Path(file).is_relative_to(tmp_path)
    assert rows == "18159"


def test_what_is_no_code_is_in_the_wheel_too(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for needed in (
        "headrace/examples/rainfall.csv.xz",
        "headrace/infra/kafka/pom.xml",
        "headrace/infra/kafka/log4j2.yaml",
    ):
        assert needed in names
