"""Versions and the commit that results come from."""

import shutil
import subprocess

import pytest

from mdsim.evaluation.provenance import commit, versions


def _git(folder, *words: str) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@b.c"]
    done = subprocess.run(["git", "-C", str(folder), *identity, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")
def test_the_commit_of_a_checkout_and_its_changes(tmp_path):
    _git(tmp_path, "init", "-q")
    (tmp_path / "code.py").write_text("x = 1\n")
    _git(tmp_path, "add", "code.py")
    _git(tmp_path, "commit", "-q", "-m", "first")
    commit.cache_clear()
    assert commit(tmp_path) == _git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "results").write_text("untracked files are no changes")
    commit.cache_clear()
    assert commit(tmp_path) == _git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "code.py").write_text("x = 2\n")
    commit.cache_clear()
    assert commit(tmp_path) == _git(tmp_path, "rev-parse", "HEAD") + "+changes"
    inside = tmp_path / "env" / "site-packages"
    inside.mkdir(parents=True)
    assert commit(inside) is None, "an installed wheel, in the environment of another project"


def test_without_git_there_is_no_commit(tmp_path, monkeypatch):
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    commit.cache_clear()
    assert commit(tmp_path) is None


def test_versions_are_those_of_what_does_the_arithmetic():
    assert {"python", "mdsim", "torch", "numpy", "ase"} <= versions().keys()
