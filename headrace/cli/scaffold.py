"""The files that `init` writes: a commented pipeline, settings, what git ignores, containers."""

from __future__ import annotations

import json
import math
from importlib import resources
from string import Template
from textwrap import indent

from headrace.cli.infer import Column, LabelColumn

IMAGE_OF_THE_CLONE = "build: {context: ., dockerfile: infra/Dockerfile}"
IMAGE_OF_THE_PACKAGE = """\
build:
  context: .
  dockerfile_inline: |
    FROM python:3.11-slim
    RUN useradd --uid 10001 --create-home headrace && install -d -o headrace -g headrace -m 750 /var/lib/headrace
    RUN pip install --no-cache-dir "headrace[services]==VERSION"
    ENV PYTHONUNBUFFERED=1 HEADRACE_HOME=/var/lib/headrace HEADRACE_LOG_FORMAT=json
    USER 10001:10001
    WORKDIR /home/headrace
    ENTRYPOINT ["headrace"]"""
# A version that is on no index yet: its image comes from the clone that this command was installed from.
IMAGE_BUILT_BEFORE = "# make it once, in the clone: docker build -t headrace:local -f infra/Dockerfile ."
MODELS = {
    "bool": "linear_model.LogisticRegression()",
    "classes": "linear_model.SoftmaxRegression()",
    "str": "linear_model.SoftmaxRegression()",
    "float": "preprocessing.TargetStandardScaler(linear_model.LinearRegression())",
}
BALANCED_FROM = 0.75  # where one class is this common, plain accuracy says little


def template(name: str) -> str:
    """The text of a template."""
    return resources.files("headrace.templates").joinpath(name).read_text(encoding="utf-8")


def compose_file(version: str) -> str:
    """The clone's compose file, its image made from the installed package instead of the clone."""
    image = IMAGE_BUILT_BEFORE if ".dev" in version else IMAGE_OF_THE_PACKAGE.replace("VERSION", version)
    image = indent(image, "    ").strip()
    return template("docker-compose.yml").replace(IMAGE_OF_THE_CLONE, image)


def pipeline_file(
    name: str, file: str, rows: int, columns: list[Column], label: LabelColumn, entity: bool, try_command: str
) -> str:
    """The source of `pipelines/NAME.py`."""
    contract = "".join(part.capitalize() for part in name.split("-")) + "Row"
    success, simplest = success_of(label)
    return Template(template("pipeline.py.txt")).substitute(
        title=f"{label.given} of {name}, learned from a stream.",
        file=file,
        rows=f"{rows:,}",
        try_command=try_command,
        path=f"pipelines/{name}.py",
        imports=imports_of(columns, label),
        contract=contract,
        features="\n".join(feature_line(column) for column in columns),
        recipe=recipe_of(columns, label),
        name=name,
        label=label_of(label),
        entity="\n    entity=True," if entity else "",
        success=success,
        simplest=simplest,
    )


def feature_line(column: Column) -> str:
    """One field of the contract."""
    kind: str = column.kind
    if column.values:
        kind = f"Literal[{', '.join(map(quoted, column.values))}]"
    if column.optional:
        kind += " | None"
    arguments = []
    if column.low is not None and column.high is not None:
        arguments += [f"ge={column.low:.12g}", f"le={column.high:.12g}"]
    if column.longest:
        arguments.append(f"max_length={column.longest}")
    if column.given != column.name:
        arguments.append(f"alias={quoted(column.given)}")
    return f"    {column.name}: {kind}" + (f" = feature({', '.join(arguments)})" if arguments else "")


def label_of(label: LabelColumn) -> str:
    """The label as an annotation."""
    return f"Literal[{', '.join(map(quoted, label.values))}]" if label.kind == "classes" else label.kind


def success_of(label: LabelColumn) -> tuple[str, str]:
    """The limit that the first model must meet, a little above the simplest answer, and a comment that says so."""
    if label.kind == "float":
        limit = _digits(label.simplest * 0.9)
        told = (
            f"; always the mean of the file is off by {label.simplest:.4g}, the row's before by {label.no_change:.4g}"
        )
        return f'Success("mae", at_most={limit:g})', told
    if label.simplest >= BALANCED_FROM:
        chance = 1 / max(2, len(label.values))
        told = f"; {label.simplest:.0%} of the file is one class, so plain accuracy would say little"
        return f'Success("balanced_accuracy", at_least={math.ceil(chance * 110) / 100:g})', told
    limit = min(0.99, math.ceil((label.simplest + 0.01) * 100) / 100)
    told = f"; always the most common class is right {label.simplest:.1%}, the row's before {label.no_change:.1%}"
    return f'Success("accuracy", at_least={limit:g})', told


def recipe_of(columns: list[Column], label: LabelColumn) -> str:
    """The body of the recipe: a linear model on scaled numbers and one-hot texts of the listed kind.

    Open text is left out where there is anything else: one-hot, its columns would never end. Columns are chosen by
    type, as `compose.Select` raises for one that a row has not got.
    """
    numbers = any(column.kind != "str" for column in columns)
    listed = any(column.values for column in columns)
    open_text = [column.name for column in columns if column.longest]
    lines, parts = [], []
    if numbers:
        parts.append("numbers")
        lines.append("    numbers = compose.SelectType(int, float) | preprocessing.StandardScaler()")
    if listed:
        parts.append("texts")
        listed_only = f"compose.Discard({', '.join(map(quoted, open_text))}) | " if open_text else ""
        lines.append(f"    texts = {listed_only}compose.SelectType(str) | preprocessing.OneHotEncoder()")
    if len(parts) + bool(open_text) == 1:
        lines, parts = [], ["preprocessing.StandardScaler()" if numbers else "preprocessing.OneHotEncoder()"]
    elif open_text:
        lines.append(f"    # not used: {', '.join(open_text)} (open text)")
    prepare = f"({' + '.join(parts)})" if len(parts) > 1 else parts[0]
    return "\n".join([*lines, f"    return {prepare} | {MODELS[label.kind]}"])


def imports_of(columns: list[Column], label: LabelColumn) -> str:
    """The imports that the file needs, sorted."""
    body = recipe_of(columns, label)
    fields = "\n".join(feature_line(column) for column in columns)
    river = ", ".join(module for module in ("compose", "linear_model", "preprocessing") if f"{module}." in body)
    names = ", ".join(["Contract", "Pipeline", "Success", *(["feature"] if "feature(" in fields else [])])
    lines = [f"from river import {river}", "", f"from headrace import {names}"]
    if "Literal[" in fields or label.kind == "classes":
        lines = ["from typing import Literal", "", *lines]
    return "\n".join(lines)


def quoted(text: str) -> str:
    """A text as Python source, in double quotes."""
    return json.dumps(text, ensure_ascii=False)


def _digits(value: float) -> float:
    """Three significant digits."""
    return float(f"{value:.3g}")
