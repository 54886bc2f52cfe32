"""Pipeline files: a user's file, or its stored source, as a module with the pipeline in it.

The module's name is made from the source's digest, `headrace_pipeline_<digest>`: two releases live side by side in
one process, and a pickled model whose classes the file defines finds them again wherever that source was loaded.
"""

from __future__ import annotations

import hashlib
import linecache
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Protocol

from headrace.contract import InvalidDefinition, digest
from headrace.pipeline import Pipeline, check_schedule
from headrace.recipe_digest import challenger_digest, recipe_digest
from headrace.schemas.control import ChallengerSpec, ReleaseDefinition


class PipelineFileError(ValueError):
    """A pipeline file that cannot be used; the message names the file, the line where there is one, and the reason."""


class Sources(Protocol):
    """Where released sources are kept (`infra.artifacts.Artifacts`)."""

    def get_source(self, uri: str) -> bytes:
        """A pipeline's source by its URI."""


def load_file(path: Path | str) -> Pipeline:
    """The one pipeline that a file defines. Raises PipelineFileError."""
    path = Path(path)
    try:
        source = path.read_bytes()
    except OSError as error:
        raise PipelineFileError(f"{path}: {error.strerror or error}") from error
    return pipeline_of(source, str(path))


def definition(pipeline: Pipeline, source: bytes, uri: str) -> ReleaseDefinition:
    """Everything the file says, as data; tries each recipe. Raises InvalidDefinition where it cannot be released."""
    from headrace.recipes import check_challengers, check_recipe

    policies = pipeline.policies()
    check_schedule(policies.triggers.schedule)
    report = check_recipe(pipeline)
    challengers = check_challengers(pipeline, report)
    module = sys.modules.get(module_name(hashlib.sha256(source).hexdigest()))
    return ReleaseDefinition(
        contract=pipeline.spec,
        policies=policies,
        contract_digest=digest(pipeline.spec),
        policies_digest=hashlib.sha256(policies.model_dump_json().encode()).hexdigest(),
        recipe_digest=recipe_digest(source),
        source_digest=hashlib.sha256(source).hexdigest(),
        source_uri=uri,
        recipe_stable=report.stable,
        has_probabilities=report.has_probabilities,
        challengers=tuple(
            ChallengerSpec(name=name, recipe_digest=challenger_digest(source, name), stable=one.stable)
            for name, one in challengers.items()
        ),
        description=(module.__doc__ or "").strip() or None if module is not None else None,
    )


def load_stored(sources: Sources, released: ReleaseDefinition) -> Pipeline:
    """The pipeline of a release, from its stored source, which is read once in a process.

    Raises PipelineFileError where the source is another one.
    """
    shown = f"<source {released.source_digest[:16]}>"
    module = sys.modules.get(module_name(released.source_digest))
    if module is not None:
        return _pipeline_in(module, shown)
    source = sources.get_source(released.source_uri)
    if hashlib.sha256(source).hexdigest() != released.source_digest:
        raise PipelineFileError(
            f"source {released.source_digest[:16]}: {released.source_uri} holds another source; release the pipeline "
            "again"
        )
    return pipeline_of(source, shown)


def pipeline_of(source: bytes, shown: str) -> Pipeline:
    """The one pipeline that a source defines; `shown` is its name in messages. Raises PipelineFileError."""
    name = module_name(hashlib.sha256(source).hexdigest())
    return _pipeline_in(sys.modules.get(name) or _run(source, name, shown), shown)


def module_name(source_digest: str) -> str:
    """The module that the classes of a source belong to, by its sha256."""
    return f"headrace_pipeline_{source_digest[:16]}"


def _pipeline_in(module: ModuleType, shown: str) -> Pipeline:
    found = {id(value): (name, value) for name, value in vars(module).items() if isinstance(value, Pipeline)}
    if not found:
        raise PipelineFileError(f"{shown}: defines no pipeline; end it with `pipeline = Pipeline(name=…, …)`")
    if len(found) > 1:
        names = ", ".join(name for name, _ in found.values())
        raise PipelineFileError(f"{shown}: defines {len(found)} pipelines ({names}); a file holds one")
    ((_, pipeline),) = found.values()
    return pipeline


def _run(source: bytes, name: str, shown: str) -> ModuleType:
    """The module, registered before it runs, so that its classes can be found and pickled. Forgotten where it fails."""
    module = ModuleType(name)
    module.__file__ = shown
    sys.modules[module.__name__] = module
    try:
        code = compile(source, shown, "exec", dont_inherit=True)
        text = source.decode("utf-8", "replace")
        linecache.cache[shown] = (len(text), None, text.splitlines(True), shown)
        exec(code, module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        raise PipelineFileError(_told(error, shown)) from error
    return module


def _told(error: BaseException, shown: str) -> str:
    if isinstance(error, SyntaxError) and error.filename == shown:
        return f"{shown}, line {error.lineno}: not Python: {error.msg}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == shown]
    place = f"{shown}, line {lines[-1]}" if lines else shown
    if isinstance(error, InvalidDefinition):
        return f"{place}: {error}"
    hint = ""
    if isinstance(error, ModuleNotFoundError):
        hint = ". A pipeline is one file: it may import installed packages only"
    return f"{place}: {type(error).__name__}: {error}{hint}"
