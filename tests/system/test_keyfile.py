from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from securelink import keyfile
from securelink.errors import ExitCode, IdentityError, UnsafeKeyFile
from securelink.identity import Identity

NOBODY = 65534

# Waits for a line, so that several of these start at the same moment.
START = """
import sys
from pathlib import Path
from securelink import identity, keyfile
print("ready", flush=True)
sys.stdin.readline()
print(keyfile.load_or_create(Path(sys.argv[1])).public)
"""

# Dies in the middle, as if the power went: at the first call of the named function of os.
DIE = """
import os, signal, sys
from pathlib import Path
from securelink import keyfile
def die(*args, **options):
    os.kill(os.getpid(), signal.SIGKILL)
setattr(os, sys.argv[2], die)
keyfile.load_or_create(Path(sys.argv[1]))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "identity.key"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def refused(path: Path) -> IdentityError:
    with pytest.raises(IdentityError) as raised:
        keyfile.load_or_create(path)
    error = raised.value
    assert error.exit_code == ExitCode.ERROR
    assert error.hint
    assert "\n" not in error.message + error.hint
    return error


def test_the_first_use_makes_a_key_and_the_next_finds_it(path: Path) -> None:
    assert keyfile.load(path) is None
    assert not path.parent.exists()
    made = keyfile.load_or_create(path)
    assert names(path.parent) == ["identity.key"]
    assert mode(path) == 0o600
    assert mode(path.parent) == 0o700
    for found in (keyfile.load_or_create(path), keyfile.load(path)):
        assert found is not None
        assert found.private_bytes() == made.private_bytes()


def test_the_file_says_what_it_is(path: Path) -> None:
    made = keyfile.load_or_create(path)
    comment, key = path.read_text().splitlines()
    assert comment.startswith("# The private key")
    assert key.startswith("slkey1")
    assert len(key) == 6 + 58
    assert made.public.peer_id not in path.read_text()


def test_a_file_written_by_an_earlier_version_is_still_read(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("# old\n\nslkey1aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dypwgdonfe\r\n")
    path.chmod(0o600)
    identity = keyfile.load(path)
    assert identity is not None
    assert identity.private_bytes() == bytes(range(32))


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_whatever_the_umask_only_the_owner_has_access(path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        keyfile.load_or_create(path)
    finally:
        os.umask(before)
    assert mode(path) == 0o600
    assert mode(path.parent) == 0o700


def test_an_empty_folder_becomes_private_and_one_in_use_is_left(tmp_path: Path) -> None:
    empty, used = tmp_path / "empty", tmp_path / "used"
    for folder in (empty, used):
        folder.mkdir()
        folder.chmod(0o755)
    (used / "something").touch()
    for folder in (empty, used):
        keyfile.load_or_create(folder / "identity.key")
    assert (mode(empty), mode(used)) == (0o700, 0o755)


def test_a_new_folder_is_private_from_its_first_moment(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "chmod", lambda self, mode: None)
    keyfile.load_or_create(path)
    assert mode(path.parent) == 0o700


def test_the_key_is_on_the_disk_before_its_name_and_both_before_its_use(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, link = os.fsync, os.link

    def record_fsync(fd: int) -> None:
        steps.append("fsync folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "fsync file")
        fsync(fd)

    def record_link(source: Path, target: Path) -> None:
        steps.append("link")
        link(source, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "link", record_link)
    keyfile.load_or_create(path)
    assert steps == ["fsync file", "link", "fsync folder"]


def test_of_many_processes_at_once_all_get_the_same_key(path: Path) -> None:
    for _ in range(2):
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", START, path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(6)
        ]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        answers = {process.communicate()[0] for process in processes}
        assert answers == {f"{keyfile.load_or_create(path).public}\n"}
        assert names(path.parent) == ["identity.key"]
        path.unlink()


def test_who_comes_second_takes_the_key_of_the_first(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process makes the key file just before we would."""
    winner = Identity.generate()
    link = os.link

    def too_late(source: Path, target: Path) -> None:
        path.write_bytes(keyfile._encode(winner.private_bytes()))
        path.chmod(0o600)
        link(source, target)

    monkeypatch.setattr(os, "link", too_late)
    assert keyfile.load_or_create(path).private_bytes() == winner.private_bytes()
    assert names(path.parent) == ["identity.key"]


def test_who_comes_second_may_lose_its_unfinished_file_too(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As above, and the other one also deletes what it takes for a leftover."""
    winner = Identity.generate()
    link = os.link

    def too_late(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "link", link)
        path.write_bytes(keyfile._encode(winner.private_bytes()))
        path.chmod(0o600)
        keyfile.load_or_create(path)
        assert names(path.parent) == ["identity.key"]
        link(source, target)

    monkeypatch.setattr(os, "link", too_late)
    assert keyfile.load_or_create(path).private_bytes() == winner.private_bytes()


@pytest.mark.parametrize("step", ["fdopen", "fsync", "link", "unlink"])
def test_killed_at_any_step_the_next_start_finds_a_key_or_makes_one(path: Path, step: str) -> None:
    died = subprocess.run([sys.executable, "-c", DIE, path, step], check=False)
    assert died.returncode == -signal.SIGKILL
    assert len(names(path.parent)) == (2 if step == "unlink" else 1)
    assert path.exists() == (step == "unlink")
    for file in path.parent.iterdir():
        assert mode(file) == 0o600
    before = keyfile.load(path)
    after = keyfile.load_or_create(path)
    if before is not None:
        assert after.private_bytes() == before.private_bytes()
    assert names(path.parent) == ["identity.key"]


def test_only_our_own_leftovers_are_deleted(path: Path) -> None:
    path.parent.mkdir()
    for name in ("identity.key.tmp", ".identity.key.swp", "notes.tmp", ".identity.key.12.tmp"):
        (path.parent / name).touch()
    keyfile.load_or_create(path)
    assert names(path.parent) == [
        ".identity.key.swp",
        "identity.key",
        "identity.key.tmp",
        "notes.tmp",
    ]


@pytest.mark.parametrize("open_to", [0o640, 0o604, 0o620, 0o602, 0o610, 0o666, 0o644])
def test_a_key_that_others_have_access_to_is_refused(path: Path, open_to: int) -> None:
    keyfile.load_or_create(path)
    path.chmod(open_to)
    error = refused(path)
    assert type(error) is UnsafeKeyFile
    assert error.message == f"the key file {path} is open to other users of this machine"
    assert error.hint == f"chmod 600 {path}"


def test_the_hint_can_be_pasted_for_any_path(tmp_path: Path) -> None:
    path = tmp_path / "my home" / "identity.key"
    made = keyfile.load_or_create(path)
    path.chmod(0o644)
    hint = refused(path).hint
    assert hint is not None
    subprocess.run(hint, shell=True, check=True)
    found = keyfile.load(path)
    assert found is not None
    assert found.private_bytes() == made.private_bytes()


def test_an_empty_file(path: Path) -> None:
    path.parent.mkdir()
    for content in ("", "\n \n"):
        path.write_text(content)
        path.chmod(0o600)
        error = refused(path)
        assert error.message == f"the key file {path} is empty"
        assert "restore it" in str(error.hint)


def test_every_damage_is_noticed(path: Path) -> None:
    keyfile.load_or_create(path)
    text = path.read_text()
    start = text.index("slkey1")
    key = text[start:].strip()
    damaged = ["# only a comment\n", "slkey1\n", f"{text}{key}\n", text + "x" * 5000, "\x80" + text]
    damaged += [text[:length] for length in range(start + 1, len(text) - 1)]
    damaged += [
        text[:place] + ("q" if text[place] != "q" else "r") + text[place + 1 :]
        for place in range(start, len(text) - 1)
    ]
    for content in damaged:
        path.write_text(content)
        path.chmod(0o600)
        assert refused(path).message == f"the key file {path} is damaged"
        assert path.read_text() == content, "a damaged key is never overwritten"
    path.write_bytes(os.urandom(100))
    assert refused(path).message == f"the key file {path} is damaged"


def test_something_else_in_its_place(path: Path) -> None:
    path.mkdir(parents=True)
    assert refused(path).message == f"{path} is not a file"
    path.rmdir()
    os.mkfifo(path, 0o600)
    assert refused(path).message == f"{path} is not a file"


def test_a_file_in_the_place_of_the_folder(path: Path) -> None:
    path.parent.touch()
    error = refused(path)
    assert error.message == f"{path.parent} is not a folder"
    assert "SECURELINK_HOME" in str(error.hint)
    assert refused(path.parent / "deeper" / "identity.key").message.endswith("is not a folder")


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder of a user for whom file modes count, whom this process is for the while."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if os.geteuid() != 0:
            yield folder
            folder.chmod(0o700)
            return
        os.chown(folder, NOBODY, NOBODY)
        os.seteuid(NOBODY)
        try:
            yield folder
        finally:
            os.seteuid(0)


def test_a_read_only_folder(unprivileged: Path) -> None:
    unprivileged.chmod(0o500)
    error = refused(unprivileged / "identity.key")
    assert error.message == (
        f"cannot make the key file {unprivileged}/identity.key: Permission denied"
    )
    assert error.hint == (
        f"make {unprivileged} writable, or choose another folder with SECURELINK_HOME"
    )


def test_a_read_only_folder_with_a_key_will_do(unprivileged: Path) -> None:
    path = unprivileged / "identity.key"
    made = keyfile.load_or_create(path)
    (unprivileged / ".identity.key.1.tmp").touch()
    unprivileged.chmod(0o500)
    assert keyfile.load_or_create(path).private_bytes() == made.private_bytes()


def test_a_key_that_we_may_not_read(unprivileged: Path) -> None:
    path = unprivileged / "identity.key"
    keyfile.load_or_create(path)
    path.chmod(0o000)
    error = refused(path)
    assert error.message == f"cannot read the key file {path}: Permission denied"
    assert error.hint == f"as its owner: chmod 600 {path}"


@pytest.mark.parametrize(
    ("function", "number", "hint"),
    [
        ("fsync", errno.ENOSPC, "free some space, and try again"),
        ("fsync", errno.EDQUOT, "free some space, and try again"),
        ("open", errno.EROFS, "writable"),
        ("link", errno.EOPNOTSUPP, "on a file system with hard links"),
        ("link", errno.EPERM, "on a file system with hard links"),
        ("fsync", errno.EIO, "SECURELINK_HOME"),
    ],
)
def test_what_a_disk_may_answer(
    path: Path, function: str, number: int, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = getattr(os, function)

    def fail(*args: object) -> object:
        if function == "open" and not str(args[0]).endswith(".tmp"):
            return real(*args)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, function, fail)
    error = refused(path)
    assert error.message == f"cannot make the key file {path}: {os.strerror(number)}"
    assert hint in str(error.hint)
    assert names(path.parent) == [], "a failed attempt leaves nothing behind"


def test_a_disk_that_cannot_be_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    keyfile.load_or_create(path)
    monkeypatch.setattr(os, "read", fail)
    assert refused(path).message.startswith(f"cannot read the key file {path}: ")


def test_a_key_that_vanishes_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", lambda source, target: None)
    with pytest.raises(IdentityError, match="vanished as soon as it was made"):
        keyfile.load_or_create(path)


def test_no_message_shows_the_key(path: Path) -> None:
    keyfile.load_or_create(path)
    key = path.read_text().split("slkey1")[1].strip()
    path.write_text(path.read_text()[:-3])
    path.chmod(0o600)
    error = refused(path)
    assert key[:12] not in f"{error.message}{error.hint}{error!r}"
