"""One owner of a state folder: among processes, and among containers that share a volume."""

import os
import shutil
import subprocess
import sys

import pytest

from headrace.infra.store import StateLocked, lock_folder

OWN = """
import sys
from pathlib import Path
from headrace.infra.store import StateLocked, lock_folder
try:
    lock = lock_folder(Path(sys.argv[1]))
except StateLocked as refusal:
    print(refusal)
    sys.exit(3)
print("owned", flush=True)
sys.stdin.read()
"""


def owner(folder, *before):
    return subprocess.Popen(
        [*before, sys.executable, "-c", OWN, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_second_process_is_refused_until_the_first_one_is_gone(tmp_path):
    first = owner(tmp_path)
    assert first.stdout.readline() == "owned\n"
    said, _ = owner(tmp_path).communicate()
    assert f"belongs to process {first.pid}, which is alive" in said
    first.kill()
    first.communicate()
    lock_folder(tmp_path).release()


def test_a_process_in_namespaces_of_its_own_as_a_containers_is_refused_too(tmp_path):
    """Another process id space, another host name, another path to the same files."""
    own = ["unshare", "--pid", "--fork", "--mount", "--uts", "sh", "-c", 'hostname other && exec "$@"', "sh"]
    if not shutil.which("unshare") or subprocess.run([*own, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to make namespaces")
    first = owner(tmp_path, *own)
    assert first.stdout.readline() == "owned\n"
    with pytest.raises(StateLocked, match="belongs to process 1 on other, which is alive"):
        lock_folder(tmp_path)
    first.communicate("")
    lock = lock_folder(tmp_path)
    try:
        second = owner(tmp_path, *own)
        said, _ = second.communicate()
        assert second.returncode == 3
        assert f"process {os.getpid()} on " in said
    finally:
        lock.release()
