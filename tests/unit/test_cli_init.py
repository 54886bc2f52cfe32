"""`init`: what it writes can be released as it is."""

import random
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from headrace.cli import app
from headrace.cli.scaffold import IMAGE_OF_THE_CLONE, compose_file, template
from headrace.infra import pipeline_files
from headrace.infra.settings import Settings

LABELS = {
    "bool": lambda n: n % 3 == 0,
    "classes": lambda n: "abc"[n % 3],
    "rare": lambda n: int(n % 10 == 0),
    "float": lambda n: n / 7,
    "str": lambda n: f"class {n}",
}


@pytest.fixture
def init(tmp_path, monkeypatch):
    """Run `init` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        return CliRunner().invoke(app, ["init", *arguments])

    return run


def write_rows(label, path="rows.csv", numbers=True, texts=True):
    chance = random.Random(1)
    names = ["day", *(["temp (°C)", "wet"] if numbers else []), *(["sky", "note"] if texts else []), "y"]
    lines = [",".join(names)]
    for n in range(300):
        cells = [f"d{n}"]
        if numbers:
            cells += [f"{chance.gauss(10, 5):.2f}" if n % 11 else "", str(n % 2 == 0).lower()]
        if texts:
            cells += [chance.choice(["clear", "cloudy", ""]), f"note {n}"]
        lines.append(",".join([*cells, str(label(n))]))
    Path(path).write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize(("numbers", "texts"), [(True, True), (True, False), (False, True)])
def test_the_pipeline_loads_and_its_recipe_can_be_released(init, kind, numbers, texts):
    write_rows(LABELS[kind], numbers=numbers, texts=texts)
    result = init("weather-2", "--csv", "rows.csv", "--label", "y", "--id", "day")
    assert result.exit_code == 0, result.output
    path = Path("pipelines/weather-2.py")
    pipeline = pipeline_files.load_file(path)
    definition = pipeline_files.definition(pipeline, path.read_bytes(), "")
    assert (pipeline.name, definition.recipe_stable) == ("weather-2", True)
    assert definition.contract.label.type == ("bool" if kind == "rare" else kind)
    assert not {"day", "y"} & {f.alias or f.name for f in definition.contract.features}
    success = definition.policies.success
    assert success.metric == {"rare": "balanced_accuracy", "float": "mae"}.get(kind, "accuracy")


def test_it_says_the_next_three_commands_with_the_columns_they_need(init):
    write_rows(LABELS["bool"])
    lines = init("rain", "--csv", "rows.csv", "--label", "y", "--id", "day").stdout.splitlines()
    assert [line.strip() for line in lines[-3:]] == [
        "headrace try pipelines/rain.py rows.csv --id day --label y",
        "headrace up",
        "headrace release pipelines/rain.py && headrace publish rain rows.csv --id day --label y",
    ]


@pytest.mark.parametrize(("label", "says"), [
    (lambda n: n // 50 % 2 == 0, "right 98.3%, and no model serves before it beats that"),
    (lambda n: n % 2 == 0, None),
    (lambda n: n / 7, "off by 0.1429, and no model"),
    (lambda n: n * 7919 % 100 + 0.5, None),
])  # fmt: skip
def test_a_label_that_mostly_stays_is_pointed_out(init, label, says):
    write_rows(label)
    result = init("rain", "--csv", "rows.csv", "--label", "y", "--id", "day")
    told = " ".join(result.output.split())
    assert (says in told) if says else ("no model serves" not in told)


def test_the_key_is_secret_and_git_ignores_it(init):
    write_rows(LABELS["bool"])
    init("rain", "--csv", "rows.csv", "--label", "y")
    assert stat.S_IMODE(Path(".env").stat().st_mode) == 0o600
    assert ".env" in Path(".gitignore").read_text().splitlines()
    assert len(Settings().key()) == 64


def test_nothing_is_overwritten(init):
    write_rows(LABELS["bool"])
    Path("pipelines").mkdir()
    kept = {".env": "HEADRACE_ARTIFACT_KEY=mine\n", ".gitignore": "*.log\n", "docker-compose.yml": "services: {}\n"}
    for name, text in kept.items():
        Path(name).write_text(text)
    assert init("rain", "--csv", "rows.csv", "--label", "y").exit_code == 0
    assert {name: Path(name).read_text() for name in kept} == kept
    Path("pipelines/rain.py").write_text("# mine\n")
    again = init("rain", "--csv", "rows.csv", "--label", "y")
    assert again.exit_code == 3
    assert "exists already; nothing was written" in again.stderr
    assert Path("pipelines/rain.py").read_text() == "# mine\n"


def test_a_gitignore_without_the_key_file_is_pointed_out(init):
    write_rows(LABELS["bool"])
    Path(".gitignore").write_text("*.log\n")
    assert "Add .env" in init("rain", "--csv", "rows.csv", "--label", "y").stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("Rain", "--csv", "rows.csv", "--label", "y"), "is no name for a pipeline"),
        (("rain", "--csv", "rows.csv", "--label", "snow"), "no column 'snow' (--label)"),
        (("rain", "--csv", "none.csv", "--label", "y"), "there is no file none.csv"),
        (("rain", "--csv", "rows.csv", "--label", "day"), "nothing to learn"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_written(init, arguments, says):
    Path("rows.csv").write_text("day,x,y\n" + "".join(f"monday,{n},{n % 2}\n" for n in range(10)))
    result = init(*arguments)
    assert result.exit_code in (1, 2)
    assert says in result.stderr
    assert {path.name for path in Path().iterdir()} == {"rows.csv"}


def test_the_compose_file_is_the_clones_with_an_image_of_the_package():
    made, clone = compose_file("1.2.3"), template("docker-compose.yml")
    assert clone.count(IMAGE_OF_THE_CLONE) == 1
    before, _, after = clone.partition(IMAGE_OF_THE_CLONE)
    assert made.startswith(before)
    assert made.endswith(after)
    assert 'pip install --no-cache-dir "headrace[services]==1.2.3"' in made
