"""A model folded again from the log by its run's own core, and compared with what was kept of it.

`model = f(release, seed, parent with its sequences, ranges learned, offsets skipped)`: the release's stored source
gives the recipe, `<p>.labelled-examples` the examples. Equal is decided by the structural digest; where the bytes
are lost, by the sha256 in their address, else by the run's prequential scores, which every prediction went into.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field, replace
from typing import Any

from headrace import model_bytes
from headrace.errors import Refused
from headrace.infra.artifacts import Artifacts, Manifest, versions
from headrace.infra.bus import Bus
from headrace.ranges import without
from headrace.reproduce.refold import Again, Begin, Kept, Progress, RootMissing
from headrace.reproduce.roots import Roots
from headrace.services.trainer import core


@dataclass
class Reproduced:
    """What came of it. `outcome` is equal, different, or incomparable (nothing is left to compare with)."""

    name: str
    run: str
    version: int | None
    offset: int
    uri: str
    outcome: str
    evidence: str
    digest: str
    expected: str | None
    n_learned: int
    n_kept: int | None
    rows: int
    began: int
    root: str
    skipped: tuple[int, ...]
    python: str
    river: str
    seconds: float
    lost: str = ""
    other_version: str = ""
    restored: bool = False
    first_difference: dict[str, Any] | None = None
    model: Any = field(default=None, repr=False)
    manifest: Manifest | None = field(default=None, repr=False)


def reproduce(
    roots: Roots,
    bus: Bus,
    artifacts: Artifacts,
    namespace: str = "",
    *,
    progress: Progress | None = None,
    any_version: bool = False,
) -> Reproduced:
    """Fold a model again and compare. Raises RootMissing, naming the root.

    Kept bytes of another Python or River minor are such a root, unless `any_version`: what folds otherwise here is
    no error of the log.
    """
    began_s = time.perf_counter()
    again = Again(roots, bus, artifacts, namespace)
    kept = again.kept()
    if kept.other_version and not any_version:
        raise RootMissing(
            f"{roots.name} cannot be compared: {kept.other_version.partition(';')[0]}",
            f"headrace reproduce {roots.name} with those versions, or with --restore to make it anew with these",
        )
    if kept.manifest is not None and (untrue := _untrue(kept.manifest, roots)):
        roots = again.roots = replace(roots, skipped=kept.manifest.skipped)
    else:
        untrue = ""
    begin = again.begin()
    start, root = begin.offset, begin.what
    rows, problem = again.fold(begin, roots.offset, progress)
    state = begin.state
    python, river = versions()
    done = Reproduced(
        name=roots.name,
        run=roots.started.run,
        version=roots.version,
        offset=roots.offset,
        uri=roots.uri,
        outcome="different",
        evidence="structural digest",
        digest=model_bytes.digest(state.model),
        expected=kept.digest,
        n_learned=state.n_learned,
        n_kept=_n_kept(kept, roots),
        rows=rows,
        began=start,
        root=root,
        skipped=roots.skipped,
        python=python,
        river=river,
        seconds=0.0,
        lost=kept.lost,
        other_version=kept.other_version.partition(";")[0],
        model=state.model,
        manifest=_manifest(roots, begin),
    )
    if problem is not None:
        done.first_difference = problem
    elif untrue:
        done.evidence, done.first_difference = "manifest", {"why": untrue}
    else:
        _compare(done, kept, state, roots)
        if done.outcome == "different":
            done.first_difference = again.first_difference()
    done.seconds = round(time.perf_counter() - began_s, 3)
    return done


def restore(done: Reproduced, artifacts: Artifacts) -> bool:
    """Write a model that was folded again to the address of the lost one; False where nothing is lost.

    Raises Refused where nothing shows that it is that model, and OSError.
    """
    if not (done.lost or done.other_version):
        return False
    as_many = done.other_version and done.n_learned == done.n_kept  # another River may well teach otherwise
    if done.manifest is None or not (done.outcome == "equal" or as_many):
        raise Refused(
            f"{done.name} is not written back: the model folded again is {done.outcome} (by {done.evidence})",
            f"headrace reproduce {done.name} --artifact FILE keeps it elsewhere",
        )
    artifacts.restore(done.uri, model_bytes.dumps(done.model), done.manifest)
    done.restored = True
    return True


def _compare(done: Reproduced, kept: Kept, state: core.State, roots: Roots) -> None:
    """The strongest evidence that is left decides."""
    if kept.digest is not None:
        done.outcome = "equal" if done.digest == kept.digest else "different"
        return
    sha256 = roots.uri.split("/")[2].partition("-")[0]
    data = model_bytes.dumps(state.model)
    if sha256 in map(_sha256, (data, model_bytes.dumps(model_bytes.loads(data)))):
        done.outcome, done.evidence, done.expected = "equal", "sha256 of the bytes", sha256
    elif roots.told is not None and not done.root:
        same = (roots.told.n_learned, roots.told.metrics) == (state.n_learned, state.progress.metrics())
        done.outcome, done.evidence = ("equal" if same else "different"), "scores before learning"
    else:
        done.outcome, done.evidence = "incomparable", "nothing"


def _n_kept(kept: Kept, roots: Roots) -> int | None:
    if kept.manifest is not None:
        return kept.manifest.n_learned
    return roots.told.n_learned if roots.told is not None else None


def _untrue(manifest: Manifest, roots: Roots) -> str:
    """Where the manifest and the log do not tell the same."""
    started = roots.started
    learned = without(started.start_offset, roots.offset, started.excluded)
    pairs = {
        "release": (manifest.release, started.release),
        "run": (manifest.run, started.run),
        "seed": (manifest.seed, started.seed),
        "recipe": (manifest.recipe, started.recipe),
        "parent": (manifest.parent, started.parent),
        "ranges learned": (manifest.learned, learned),
        "offsets skipped": (manifest.skipped, roots.skipped),
    }
    frozen = roots.released.definition.policies.learning == "frozen"  # its gate takes what was skipped as excluded
    told = [
        f"{name} {has!r} in the manifest, {log!r} in the log"
        for name, (has, log) in pairs.items()
        if has != log and not (frozen and name in ("ranges learned", "offsets skipped"))
    ]
    return "; ".join(told)


def _manifest(roots: Roots, begin: Begin) -> Manifest:
    """What `trainer.snapshots.take` wrote, as far as the fold gives it again."""
    started, state = roots.started, begin.state
    return Manifest(
        kind="model",
        pipeline=started.pipeline,
        release=started.release,
        run=started.run,
        recipe=started.recipe,
        seed=started.seed,
        parent=started.parent,
        learned=without(started.start_offset, roots.offset, started.excluded),
        skipped=roots.skipped,
        sequences=dict(begin.sequences),
        offset=roots.offset,
        n_learned=state.n_learned,
        structural_digest=model_bytes.digest(state.model),
        metrics=state.progress.metrics() or (roots.told.metrics if roots.told is not None else {}),
    )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
