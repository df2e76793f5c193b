"""Where a node's files are."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from securelink.errors import ConfigError
from securelink.home import Home


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_one_folder_for_everything(tmp_path):
    home = Home.find({"SECURELINK_HOME": str(tmp_path / "a")})
    assert home.config_file == tmp_path / "a" / "config.toml"
    assert home.key_file == tmp_path / "a" / "identity.key"
    assert home.store_file == tmp_path / "a" / "securelink.db"
    assert home.locks == tmp_path / "a" / "locks"
    assert not (tmp_path / "a").exists()


def test_a_relative_home_is_taken_from_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Home.find({"SECURELINK_HOME": "b"}).config_folder == tmp_path / "b"


def test_a_tilde_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Home.find({"SECURELINK_HOME": "~/c"}).data_folder == tmp_path / "c"


def test_the_home_of_nobody():
    with pytest.raises(ConfigError, match="SECURELINK_HOME: no home folder for ~nobody-here/x"):
        Home.find({"SECURELINK_HOME": "~nobody-here/x"})


def test_where_received_files_go(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DOWNLOAD_DIR", str(tmp_path / "Got"))
    own = Home.find({"SECURELINK_HOME": str(tmp_path / "a")})
    users = Home.find({})
    assert own.files_folder() == tmp_path / "a" / "files"
    assert users.files_folder("") == tmp_path / "Got" / "securelink"
    for home in (own, users):
        assert home.files_folder("/srv/in") == Path("/srv/in")
        assert home.files_folder("~/in") == tmp_path / "in"
    assert not any(tmp_path.iterdir())


def test_files_in_the_home_of_nobody(tmp_path):
    with pytest.raises(ConfigError, match="folder: no home folder for ~nobody-here/x") as caught:
        Home(tmp_path, tmp_path).files_folder("~nobody-here/x")
    assert caught.value.hint == "give a path that begins with /"


@pytest.mark.parametrize("environ", [{}, {"SECURELINK_HOME": ""}])
def test_without_it_the_platforms_folders(environ, tmp_path, monkeypatch):
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    home = Home.find(environ)
    for folder in (home.config_folder, home.data_folder):
        assert folder.is_relative_to(tmp_path)
        assert folder.name == "securelink"


def test_a_user_without_home(monkeypatch):
    monkeypatch.setattr("platformdirs.user_data_path", lambda name: Path("~") / name)
    with pytest.raises(ConfigError, match="home folder is not known") as caught:
        Home.find({})
    assert "SECURELINK_HOME" in caught.value.hint


def test_windows_gets_one_clear_line():
    with pytest.raises(ConfigError, match="Linux and macOS only") as caught:
        Home.find({"SECURELINK_HOME": "x"}, platform="win32")
    assert caught.value.hint == "on Windows, use WSL"


def test_what_is_made_is_for_this_user_alone(tmp_path):
    before = os.umask(0)
    try:
        home = Home(tmp_path / "x" / "config", tmp_path / "y" / "data")
        home.create()
        home.create()
    finally:
        os.umask(before)
    assert [mode(path) for path in (home.config_folder, home.data_folder, home.locks)] == [
        0o700
    ] * 3


def test_a_folder_that_exists_keeps_its_mode(tmp_path):
    tmp_path.chmod(0o755)
    Home(tmp_path, tmp_path).create()
    assert mode(tmp_path) == 0o755


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file is not a folder"):
        Home(tmp_path / "file", tmp_path).create()
    with pytest.raises(ConfigError, match="/file is not a folder"):
        Home(tmp_path / "file" / "b", tmp_path).create()


def test_a_place_where_nothing_can_be_made():
    # /proc refuses everybody, root too.
    with pytest.raises(ConfigError, match="can't make the folder /proc/securelink: "):
        Home(Path("/proc/securelink"), Path("/proc/securelink")).create()
