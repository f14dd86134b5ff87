"""common.py: folders that belong to one process at a time."""

import argparse
import os
import subprocess
import sys

import pytest
from conftest import ROOT

import common
from common import UserError, folder_to_write, owned

HOLD = "import sys, common\nwith common.owned(sys.argv[1]): print('held', flush=True); sys.stdin.read()"


def test_a_folder_to_write_is_not_a_file_and_not_below_one(tmp_path):
    file = tmp_path / "x"
    file.touch()
    assert folder_to_write(f"{tmp_path}/y/z") == tmp_path / "y" / "z"
    for path in (file, file / "y"):
        with pytest.raises(argparse.ArgumentTypeError, match=str(file)):
            folder_to_write(str(path))


def test_a_second_process_is_refused_by_name_and_a_killed_owner_leaves_nothing(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout.readline() == b"held\n"
    with (
        pytest.raises(UserError, match=str(holder.pid)),
        owned(tmp_path / "run"),
    ):
        pass
    holder.kill()
    holder.communicate()
    assert (tmp_path / "run" / ".lock").exists()
    with owned(tmp_path / "run"):
        pass
    with owned(tmp_path / "refused"):
        pass
    assert not (tmp_path / "refused").exists()


def test_a_folder_or_a_file_is_free_again_and_clean_after_its_block(tmp_path):
    for _ in range(2):
        with pytest.raises(KeyError), owned(tmp_path):
            with pytest.raises(UserError, match="in use"), owned(tmp_path):
                pass
            first, second = tmp_path / "a.csv", tmp_path / "b.csv"
            in_use = pytest.raises(UserError, match="in use")
            with owned(first, file=True), owned(second, file=True), in_use, owned(first, file=True):
                pass
            raise KeyError
        assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_loader_process_does_not_keep_the_lock(tmp_path):
    with owned(tmp_path):
        child = os.fork()
        if child == 0:
            os._exit(len(common._locks))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert len(common._locks) == 1


def test_without_file_locks_nothing_is_locked(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(common.fcntl, "flock", refuse)
    with owned(tmp_path), owned(tmp_path):
        pass
    monkeypatch.setattr(common, "fcntl", None)
    with owned(tmp_path), owned(tmp_path):
        pass
