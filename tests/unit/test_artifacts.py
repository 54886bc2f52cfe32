"""Artifacts: written once, durable, checked before a byte of them is used, refused by name."""

import os
import pickle
import re
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from headrace.infra import artifact_files, artifacts
from headrace.infra.artifacts import (
    ArtifactForeignKey,
    ArtifactMissing,
    ArtifactOtherVersion,
    ArtifactRefused,
    Artifacts,
    ArtifactTampered,
    Manifest,
)

KEY = b"k" * 32
MODEL = Manifest(
    kind="model", pipeline="rainfall", release=3, run="r1", seed=7, parent="model/00/x", learned=((0, 10), (12, 20)),
    skipped=(10, 11), sequences={"/joiner/rainfall/1f3a9c2e/0": 655_360}, offset=20, n_learned=18,
    structural_digest="ab" * 32, metrics={"accuracy": 0.75, "roc_auc": None},
)  # fmt: skip


@pytest.fixture(params=["folder", "memory"])
def store(request, tmp_path):
    """The store on both kinds of places."""
    return Artifacts(str(tmp_path / "a") if request.param == "folder" else f"memory://{tmp_path}", KEY)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "a"


@pytest.fixture
def local(folder):
    return Artifacts(str(folder), KEY)


def test_what_was_put_is_got_back_with_its_manifest(store):
    uri = store.put(b"bytes \n of a model", MODEL)
    data, manifest = store.get(uri)
    assert data == b"bytes \n of a model"
    filled = msgspec.structs.replace(
        MODEL, sha256=manifest.sha256, python=manifest.python, river=manifest.river, key_id=manifest.key_id
    )
    assert manifest == filled == store.manifest(uri) == store.verify(uri)
    assert manifest.python == f"3.{sys.version_info[1]}"
    assert re.fullmatch(r"0\.\d+", manifest.river)


def test_empty_bytes_are_bytes(store):
    assert store.get(store.put(b"", MODEL))[0] == b""


def test_the_name_is_the_sha256_of_the_bytes_below_its_kind_and_a_shard(local):
    import hashlib

    sha256 = hashlib.sha256(b"model").hexdigest()
    uri = local.put(b"model", MODEL)
    assert uri.startswith(f"model/{sha256[:2]}/{sha256}-")
    assert artifacts.URI.fullmatch(uri)


def test_manifest_and_bytes_can_be_read_with_what_every_machine_has(local, folder):
    uri = local.put(b"line 1\nline 2", MODEL)
    first, _, rest = (folder / uri).read_bytes().partition(b"\n")
    assert msgspec.json.decode(first)["pipeline"] == "rainfall"
    assert rest == b"line 1\nline 2"


def test_the_same_again_is_not_written_again(local, folder, monkeypatch):
    uri = local.put(b"model", MODEL)
    before = (folder / uri).stat()
    monkeypatch.setattr(artifact_files.os, "fsync", lambda descriptor: pytest.fail("written again"))
    assert Artifacts(str(folder), KEY).put(b"model", MODEL) == uri
    assert (folder / uri).stat() == before


def test_other_bytes_another_manifest_or_another_key_is_another_artifact(local, folder):
    uris = {
        local.put(b"model", MODEL), local.put(b"other", MODEL),
        local.put(b"model", msgspec.structs.replace(MODEL, offset=21)),
        Artifacts(str(folder), b"another key").put(b"model", MODEL),
    }  # fmt: skip
    assert len(uris) == 4


def test_a_put_repairs_what_is_damaged(local, folder):
    uri = local.put(b"model", MODEL)
    (folder / uri).write_bytes(b"")
    assert local.put(b"model", MODEL) == uri
    assert local.get(uri)[0] == b"model"


def test_a_source_is_kept_by_its_digest_whatever_version_wrote_it(store, monkeypatch):
    digest, uri = store.put_source(b"pipeline = 1\n")
    assert digest in uri
    monkeypatch.setattr(store, "_river", "9.9")
    assert store.get_source(uri) == b"pipeline = 1\n"


def test_exists_and_delete(store):
    uri = store.put(b"model", MODEL)
    assert store.exists(uri)
    store.delete(uri)
    store.delete(uri)
    assert not store.exists(uri)
    with pytest.raises(ArtifactMissing, match=re.escape(uri)):
        store.get(uri)


def test_a_file_url_is_a_folder_written_durably(tmp_path):
    uri = Artifacts(f"file://{tmp_path}/a", KEY).put(b"model", MODEL)
    assert Artifacts(str(tmp_path / "a"), KEY).get(uri)[0] == b"model"
    assert stat.S_IMODE((tmp_path / "a" / uri).stat().st_mode) == 0o640


@pytest.mark.parametrize("kind", ["", "Model", "../model", "model/x", "m" * 50])
def test_a_kind_that_is_no_word_is_refused(local, kind):
    with pytest.raises(ValueError, match="kind"):
        local.put(b"", Manifest(kind=kind))


@pytest.mark.parametrize("uri", ["", "../secret", "/etc/hostname", "model/00/../../../secret", "model/aa/" + "a" * 64])
def test_a_uri_that_leads_elsewhere_is_no_artifact(local, folder, uri):
    folder.mkdir()
    secret = folder.parent / "secret"
    secret.write_text("x")
    assert not local.exists(uri)
    local.delete(uri)
    with pytest.raises(ArtifactMissing):
        local.get(uri)
    assert secret.exists()


def test_another_key_is_refused_with_what_to_set(local, folder):
    uri = local.put(b"model", MODEL)
    with pytest.raises(ArtifactForeignKey, match=f"{re.escape(uri)}.*HEADRACE_ARTIFACT_KEY"):
        Artifacts(str(folder), b"another key").get(uri)


@pytest.mark.parametrize(("attribute", "version"), [("_river", "0.27"), ("_python", "3.99")])
def test_another_minor_version_is_refused_with_the_way_to_rebuild(local, monkeypatch, attribute, version):
    uri = local.put(b"model", MODEL)
    monkeypatch.setattr(local, attribute, version)
    with pytest.raises(ArtifactOtherVersion, match=f"{re.escape(uri)}.*{version}.*headrace reproduce"):
        local.get(uri)
    assert local.get(uri, any_version=True)[0] == b"model"
    assert local.verify(uri).offset == 20


def flipped(content):
    for at in range(len(content)):
        yield content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def cut(content):
    for at in range(len(content)):
        yield content[:at]


def zeroed(content):
    for at in range(0, len(content), 16):
        yield content[:at] + bytes(16) + content[at + 16 :]


@pytest.mark.parametrize("damage", [flipped, cut, zeroed], ids=lambda damage: damage.__name__)
def test_damage_anywhere_is_refused_and_the_artifact_named(local, folder, damage):
    uri = local.put(bytes(range(100)), MODEL)
    content = (folder / uri).read_bytes()
    tried = 0
    for damaged in damage(content):
        tried += 1
        (folder / uri).write_bytes(damaged)
        with pytest.raises((ArtifactTampered, ArtifactForeignKey), match=re.escape(uri)) as refusal:
            local.get(uri)
        assert re.search("headrace reproduce|HEADRACE_ARTIFACT_KEY", str(refusal.value))
    assert tried > 20


def test_bytes_appended_are_refused(local, folder):
    uri = local.put(b"model", MODEL)
    with (folder / uri).open("ab") as file:
        file.write(b"!")
    with pytest.raises(ArtifactTampered):
        local.get(uri)


def test_an_artifact_in_the_place_of_another_is_refused(local, folder):
    old, new = local.put(b"model", MODEL), local.put(b"model", msgspec.structs.replace(MODEL, offset=99))
    os.replace(folder / old, folder / new)
    with pytest.raises(ArtifactTampered, match="another"):
        local.get(new)


class Touches:
    """A pickle with a side effect."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_signed_with_another_key_has_no_effect(local, folder, tmp_path):
    uri = Artifacts(str(folder), b"an attacker's key").put(pickle.dumps(Touches(tmp_path / "owned")), MODEL)
    with pytest.raises(ArtifactRefused):
        pickle.loads(local.get(uri)[0])
    assert not (tmp_path / "owned").exists()
    good = local.put(pickle.dumps(Touches(tmp_path / "owned")), MODEL)
    pickle.loads(local.get(good)[0])
    assert (tmp_path / "owned").exists()  # so the check above could have failed


def test_a_manifest_with_fields_of_a_later_version_is_read(local, folder):
    class Later(Manifest, frozen=True, kw_only=True, omit_defaults=True):
        mood: str = "fine"

    uri = local.put(b"model", Later(kind="model", offset=4, mood="great"))
    assert b'"mood":"great"' in (folder / uri).read_bytes()
    assert local.get(uri)[1].offset == 4


def test_a_writer_killed_at_any_moment_leaves_the_artifact_whole_or_absent(folder):
    program = (
        "import sys; from headrace.infra.artifacts import Artifacts, Manifest; a = Artifacts(sys.argv[1], b'k' * 32)\n"
        "for n in range(10_000): print(a.put(bytes(200_000) + b'%d' % n, Manifest(kind='model')), flush=True)"
    )
    writer = subprocess.Popen([sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, text=True)
    told = [writer.stdout.readline().strip() for _ in range(3)]
    writer.kill()
    told += writer.communicate()[0].split()
    store = Artifacts(str(folder), KEY)
    found = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    whole = [name for name in found if not name.endswith(".tmp")]
    assert set(told) <= set(whole)
    for name in whole:
        assert len(store.get(name)[0]) > 200_000


def test_many_writers_of_the_same_content_agree(folder):
    with ThreadPoolExecutor(8) as pool:
        uris = set(pool.map(lambda n: Artifacts(str(folder), KEY).put(b"x" * 10_000, MODEL), range(40)))
    assert len(uris) == 1
    assert len([path for path in folder.rglob("*") if path.is_file()]) == 1


def test_file_and_folders_are_synced_before_put_returns(local, folder, monkeypatch):
    synced, fsync, replace = [], os.fsync, os.replace

    def record(descriptor):
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}") if sys.platform == "linux" else descriptor)
        fsync(descriptor)

    def rename(source, target):
        synced.append(f"rename {target}")
        replace(source, target)

    monkeypatch.setattr(artifact_files.os, "fsync", record)
    monkeypatch.setattr(artifact_files.os, "replace", rename)
    uri = local.put(b"model", MODEL)
    if sys.platform != "linux":
        assert len(synced) == 6
        return
    shard = (folder / uri).parent
    assert synced[:3] == [str(folder.parent), str(folder), str(shard.parent)]  # the new folders' own entries
    assert synced[3].startswith(f"{folder / uri}.")
    assert synced[4:] == [f"rename {folder / uri}", str(shard)]


def test_a_full_disk_is_an_error_that_names_the_file_and_leaves_nothing(local, folder, monkeypatch):
    def full(descriptor, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(artifact_files.os, "write", full)
    with pytest.raises(OSError, match=rf"not stored.*{folder}/model") as error:
        local.put(b"model", MODEL)
    assert error.value.errno == 28
    assert [path for path in folder.rglob("*") if path.is_file()] == []
    monkeypatch.undo()
    assert local.get(local.put(b"model", MODEL))[0] == b"model"


def test_bytes_are_written_whole_though_the_system_takes_them_in_parts(local, monkeypatch):
    write = os.write
    monkeypatch.setattr(artifact_files.os, "write", lambda descriptor, data: write(descriptor, data[:1000]))
    assert local.get(local.put(bytes(10_500), MODEL))[0] == bytes(10_500)
