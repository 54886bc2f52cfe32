"""Artifacts: bytes that are written once, named by their sha256, with a signed manifest beside them.

Nothing is unpickled before the signature over manifest and bytes was checked. A folder on disk is the default and
is written directly (temporary file, fsync, rename, fsync of the folder); any other URL goes through fsspec.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

MANIFEST = ".manifest"


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
    """

    kind: str
    sha256: str = ""
    pipeline: str = ""
    release: int = 0
    run: str = ""
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
    hmac: str = ""


def versions() -> tuple[str, str]:
    """Python's and River's minor versions, such as ("3.11", "0.26"); River's is "" where it is not installed."""
    try:
        river = ".".join(metadata.version("river").split(".")[:2])
    except metadata.PackageNotFoundError:
        river = ""
    return f"{sys.version_info[0]}.{sys.version_info[1]}", river


class Artifacts:
    """The artifact store at `url` (a folder, or what fsspec knows). `key` signs and checks."""

    def __init__(self, url: str, key: bytes) -> None:
        self.url = url
        self._key = key
        self.key_id = hashlib.sha256(b"headrace key id " + key).hexdigest()[:12]
        self._python, self._river = versions()
        self._files: _Folder | _Remote = _Remote(url) if "://" in url else _Folder(Path(url))

    def put(self, data: bytes, manifest: Manifest) -> str:
        """Store bytes with their manifest; durable when it returns. Returns the URI relative to the store."""
        sha256 = hashlib.sha256(data).hexdigest()
        signed = self._sign(
            msgspec.structs.replace(
                manifest, sha256=sha256, python=self._python, river=self._river, key_id=self.key_id, hmac=""
            )
        )
        body = msgspec.json.encode(signed)
        uri = f"{manifest.kind}/{sha256[:2]}/{sha256}-{hashlib.sha256(body).hexdigest()[:8]}"
        if not self._files.exists(uri + MANIFEST):
            self._files.write(uri, data)
            self._files.write(uri + MANIFEST, body)
        return uri

    def get(self, uri: str, *, any_version: bool = False) -> tuple[bytes, Manifest]:
        """The bytes and manifest of an artifact. Raises ArtifactRefused; `any_version` for what is not unpickled."""
        manifest = self.manifest(uri)
        if not any_version and (manifest.python, manifest.river) != (self._python, self._river):
            raise ArtifactOtherVersion(
                f"artifact {uri} was made with Python {manifest.python} and River {manifest.river}, this is Python "
                f"{self._python} and River {self._river}; `headrace reproduce` folds it again from the log"
            )
        data = self._files.read(uri)
        if hashlib.sha256(data).hexdigest() != manifest.sha256:
            raise ArtifactTampered(f"artifact {uri}: its bytes are not those that were signed; restore it from a backup")
        return data, manifest

    def manifest(self, uri: str) -> Manifest:
        """The checked manifest. Raises ArtifactRefused."""
        try:
            manifest = msgspec.json.decode(self._files.read(uri + MANIFEST), type=Manifest)
        except msgspec.DecodeError as error:
            raise ArtifactTampered(f"artifact {uri}: its manifest cannot be read ({error}); restore it from a backup") from error
        if manifest.key_id != self.key_id:
            raise ArtifactForeignKey(
                f"artifact {uri} was signed with key {manifest.key_id}, this is {self.key_id}; set HEADRACE_ARTIFACT_KEY to "
                "the key it was made with"
            )
        if not hmac.compare_digest(manifest.hmac, self._sign(manifest).hmac):
            raise ArtifactTampered(f"artifact {uri}: its manifest is not what was signed; restore it from a backup")
        return manifest

    def exists(self, uri: str) -> bool:
        """Whether the artifact is complete."""
        return self._files.exists(uri + MANIFEST)

    def delete(self, uri: str) -> None:
        """Remove an artifact, manifest first; one that is not there is no error."""
        for name in (uri + MANIFEST, uri):
            self._files.delete(name)

    def put_source(self, source: bytes) -> tuple[str, str]:
        """Store a pipeline's source; returns its digest (sha256) and URI."""
        return hashlib.sha256(source).hexdigest(), self.put(source, Manifest(kind="source"))

    def get_source(self, uri: str) -> bytes:
        """A pipeline's source. Raises ArtifactRefused."""
        return self.get(uri, any_version=True)[0]

    def _sign(self, manifest: Manifest) -> Manifest:
        bare = msgspec.structs.replace(manifest, hmac="")
        return msgspec.structs.replace(
            bare, hmac=hmac.new(self._key, msgspec.json.encode(bare, order="deterministic"), hashlib.sha256).hexdigest()
        )


class _Folder:
    """Files below a folder, each durable once written."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def write(self, name: str, data: bytes) -> None:
        path = self._root / name
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
        temporary = f"{path}.{os.getpid()}.tmp"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
        try:
            os.write(descriptor, data) if len(data) < 1 << 20 else _write_all(descriptor, data)
            os.fsync(descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def read(self, name: str) -> bytes:
        try:
            return (self._root / name).read_bytes()
        except FileNotFoundError:
            raise ArtifactMissing(f"there is no artifact {name} in {self._root}; `headrace doctor` checks the store") from None

    def exists(self, name: str) -> bool:
        return (self._root / name).exists()

    def delete(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            (self._root / name).unlink()


class _Remote:
    """Files below a URL that fsspec knows (S3, GCS, memory, …); a write is durable as far as that store is."""

    def __init__(self, url: str) -> None:
        import fsspec

        self._url = url
        self._system: Any
        self._system, self._root = fsspec.core.url_to_fs(url)

    def write(self, name: str, data: bytes) -> None:
        path = f"{self._root}/{name}"
        self._system.makedirs(path.rpartition("/")[0], exist_ok=True)
        self._system.pipe_file(path, data)

    def read(self, name: str) -> bytes:
        try:
            return bytes(self._system.cat_file(f"{self._root}/{name}"))
        except FileNotFoundError:
            raise ArtifactMissing(f"there is no artifact {name} in {self._url}; `headrace doctor` checks the store") from None

    def exists(self, name: str) -> bool:
        return bool(self._system.exists(f"{self._root}/{name}"))

    def delete(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._system.rm_file(f"{self._root}/{name}")


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
