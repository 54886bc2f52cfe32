"""Artifacts: bytes that are written once, named by their sha256, with a signed manifest as the file's first line.

Nothing is unpickled before the signature over manifest and bytes was checked. One file an artifact, so that it is
there as a whole or not at all, at the price of two fsyncs: `head -1` shows the manifest, `tail -n +2` the bytes.
"""

from __future__ import annotations

import hashlib
import re
import sys
from functools import cache
from importlib import metadata

import msgspec

from headrace.infra.artifact_files import files_at
from headrace.infra.signed_line import key_id, read_line, sign_line

URI = re.compile(r"[a-z][a-z0-9-]{0,40}/[0-9a-f]{2}/[0-9a-f]{64}-[0-9a-f]{8}")
_RESTORE = "restore it from a backup"


class ArtifactRefused(RuntimeError):
    """An artifact cannot be used; the message names it and the next command."""


class ArtifactMissing(ArtifactRefused):
    """There is no such artifact."""


class ArtifactTampered(ArtifactRefused):
    """Bytes or manifest are not what was signed."""


class ArtifactForeignKey(ArtifactRefused):
    """It was signed with another key."""


class ArtifactOtherVersion(ArtifactRefused):
    """Another River or Python minor version made it."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an artifact is and how it came to be: enough to make it again.

    `learned` are the ranges of `<p>.labelled-examples` folded (first inclusive, last exclusive), `skipped` the
    offsets left out because their learn raised, `sequences` the largest sequence of each source at `offset`.
    `recipe` is the challenger's recipe by which its run learns, None for the pipeline's own.
    `sha256`, `python`, `river` and `key_id` are filled in by `Artifacts.put`. `restores` is the address of a lost model
    in whose place this one stands, folded again from the log.
    """

    kind: str
    sha256: str = ""
    pipeline: str = ""
    release: int = 0
    run: str = ""
    recipe: str | None = None
    seed: int = 0
    parent: str | None = None
    learned: tuple[tuple[int, int], ...] = ()
    skipped: tuple[int, ...] = ()
    sequences: dict[str, int] = {}
    offset: int = 0
    n_learned: int = 0
    structural_digest: str | None = None
    metrics: dict[str, float | None] = {}
    python: str = ""
    river: str = ""
    key_id: str = ""
    restores: str = ""


class Artifacts:
    """The artifact store at `url` (a folder, or what fsspec knows). `key` signs and checks."""

    def __init__(self, url: str, key: bytes) -> None:
        self.url = url
        self._key = key
        self.key_id = key_id(key)
        self._python, self._river = versions()
        self._files = files_at(url)

    def put(self, data: bytes, manifest: Manifest) -> str:
        """Store bytes with their manifest, durable when it returns. Returns the URI relative to the store.

        What is there already is not written again, unless it is damaged. Raises OSError naming the file where there
        is no room.
        """
        filled = self._filled(data, manifest)
        body = msgspec.json.encode(filled, order="deterministic")
        uri = _uri(filled, body)
        if not URI.fullmatch(uri):
            raise ValueError(f"an artifact's kind is a word such as model or source, not {manifest.kind!r}")
        content = sign_line(self._key, body) + data
        if self._files.read(uri) != content:
            self._files.write(uri, content)
        return uri

    def restore(self, uri: str, data: bytes, manifest: Manifest) -> None:
        """Store bytes that were made again at the address of those that were lost. Raises OSError.

        Where they, or what made them (another River), are not the same to the bit, the manifest says in whose place
        they stand; it is signed, so nobody without the key can put one artifact in another's place.
        """
        filled = self._filled(data, manifest)
        body = msgspec.json.encode(filled, order="deterministic")
        if _uri(filled, body) != uri:
            body = msgspec.json.encode(msgspec.structs.replace(filled, restores=uri), order="deterministic")
        self._files.write(uri, sign_line(self._key, body) + data)

    def get(self, uri: str, *, any_version: bool = False) -> tuple[bytes, Manifest]:
        """The checked bytes and manifest of an artifact. Raises ArtifactRefused.

        `any_version` is for bytes that are not unpickled: others are refused where another Python or River minor
        version made them.
        """
        manifest, data = self._read(uri)
        if not any_version and (manifest.python, manifest.river) != (self._python, self._river):
            raise ArtifactOtherVersion(
                f"artifact {uri} was made with Python {manifest.python} and River {manifest.river or 'none'}, this is "
                f"Python {self._python} and River {self._river or 'none'}{_again(uri)}"
            )
        if hashlib.sha256(data).hexdigest() != manifest.sha256:
            raise ArtifactTampered(f"artifact {uri}: its bytes are not those that were signed; {_RESTORE}{_again(uri)}")
        return bytes(data), manifest

    def manifest(self, uri: str) -> Manifest:
        """The checked manifest; the bytes are not looked at. Raises ArtifactRefused."""
        return self._read(uri)[0]

    def verify(self, uri: str) -> Manifest:
        """Check manifest and bytes, whatever versions made them; returns the manifest. Raises ArtifactRefused."""
        return self.get(uri, any_version=True)[1]

    def exists(self, uri: str) -> bool:
        """Whether the artifact is complete; says nothing about its signature."""
        return bool(URI.fullmatch(uri)) and self._files.exists(uri)

    def delete(self, uri: str) -> None:
        """Remove an artifact; one that is not there is no error."""
        if URI.fullmatch(uri):
            self._files.delete(uri)

    def put_source(self, source: bytes) -> tuple[str, str]:
        """Store a pipeline's source; returns its digest (sha256) and URI."""
        return hashlib.sha256(source).hexdigest(), self.put(source, Manifest(kind="source"))

    def get_source(self, uri: str) -> bytes:
        """A pipeline's source. Raises ArtifactRefused."""
        return self.get(uri, any_version=True)[0]

    def _read(self, uri: str) -> tuple[Manifest, memoryview]:
        """The checked manifest and the unchecked bytes."""
        # URIs come from events: one that leads out of the store is none of ours.
        content = self._files.read(uri) if URI.fullmatch(uri) else None
        if content is None:
            raise ArtifactMissing(f"there is no artifact {uri} in {self.url}{_again(uri)}")
        signed = read_line(content)
        if signed is None:
            raise ArtifactTampered(f"artifact {uri}: its manifest cannot be read; {_RESTORE}{_again(uri)}")
        try:
            manifest = msgspec.json.decode(signed.body, type=Manifest)
        except msgspec.DecodeError:
            raise ArtifactTampered(f"artifact {uri}: its manifest cannot be read; {_RESTORE}{_again(uri)}") from None
        if manifest.key_id != self.key_id:
            raise ArtifactForeignKey(
                f"artifact {uri} was signed with key {manifest.key_id}, this is {self.key_id}; set "
                "HEADRACE_ARTIFACT_KEY to the key it was made with"
            )
        if not signed.is_authentic(self._key):
            raise ArtifactTampered(f"artifact {uri}: its manifest is not what was signed; {_RESTORE}{_again(uri)}")
        if uri not in (_uri(manifest, signed.body), manifest.restores):
            raise ArtifactTampered(f"artifact {uri}: another one stands in its place; {_RESTORE}{_again(uri)}")
        return manifest, memoryview(content)[signed.end :]

    def _filled(self, data: bytes, manifest: Manifest) -> Manifest:
        return msgspec.structs.replace(
            manifest,
            sha256=hashlib.sha256(data).hexdigest(),
            python=self._python,
            river=self._river,
            key_id=self.key_id,
        )


def _uri(manifest: Manifest, body: bytes) -> str:
    return f"{manifest.kind}/{manifest.sha256[:2]}/{manifest.sha256}-{hashlib.sha256(body).hexdigest()[:8]}"


def _again(uri: str) -> str:
    """The command that makes a model again; nothing else can be."""
    if not (uri.startswith("model/") and URI.fullmatch(uri)):
        return ""
    return f"; `headrace reproduce {uri} --restore` folds it again from the log"


@cache
def versions() -> tuple[str, str]:
    """Python's and River's minor versions, such as ("3.11", "0.26"); River's is "" where it is not installed."""
    try:
        river = ".".join(metadata.version("river").split(".")[:2])
    except metadata.PackageNotFoundError:
        river = ""
    return f"{sys.version_info[0]}.{sys.version_info[1]}", river
