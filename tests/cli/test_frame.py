"""The frame of the command line, in processes of its own: how commands are found, and end."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from securelink.cli import main
from securelink.cli.app import COMMANDS, program

PROBE = str(Path(__file__).with_name("probe.py"))
USAGE = "securelink: error: {}\nhint: {}\n"


@pytest.fixture
def environ(tmp_path):
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    return kept | {"SECURELINK_HOME": str(tmp_path / "home"), "TERM": "xterm", "LANG": "C.UTF-8"}


@pytest.fixture
def run(environ):
    def run(*words: str, **options) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *(["-m", "securelink"] if words[:1] != (PROBE,) else []), *words]
        options = {"env": environ, "stdin": subprocess.DEVNULL, "timeout": 30} | options
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        return subprocess.run(command, text=True, **options)

    return run


def on_terminal(command, environ, *, answer=b"", columns=80):
    """Return what *command* writes to a terminal of its own, and its exit status."""
    import fcntl
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environ, start_new_session=True
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # EIO: everything that had it open is gone
            break
        if not chunk:
            break
        seen += chunk
        if answer and b": " in seen:
            os.write(ours, answer)
            answer = b""
    os.close(ours)
    return seen.decode().replace("\r\n", "\n"), process.wait(30)


def test_the_version(run):
    from securelink import __version__

    done = run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"securelink {__version__}\n", "")


@pytest.mark.parametrize("words", [["--version"], ["send", "--help"], ["config", "path"]])
def test_nothing_is_imported_that_is_not_needed(words, environ):
    code = (
        "import sys; from securelink.cli import main; main(sys.argv[1:]);"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    )
    modules = set(done.stderr.split())
    slow = {"asyncio", "cryptography", "rich", "segno", "sqlite3", "ssl"}
    assert modules.isdisjoint(slow | {"securelink.config.loading"})
    commands = {f"securelink.cli.{name}" for name in COMMANDS}
    assert modules & commands == commands & {f"securelink.cli.{words[0]}"}


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_the_help_lists_all_commands_in_their_order(option, run):
    done = run(option, env={"COLUMNS": "80", "PATH": os.environ["PATH"]})
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 80
    section = done.stdout.partition("Commands:\n")[2].partition("\n\n")[0]
    rows = [line.split(maxsplit=1) for line in section.splitlines() if line[2] != " "]
    assert [row[0] for row in rows] == list(COMMANDS)
    assert all(len(row) == 2 for row in rows)
    assert "    securelink send hello  " in done.stdout


def test_the_help_of_every_command_fits_and_has_its_lines(run):
    for name in COMMANDS:
        done = run(name, "--help", env={"COLUMNS": "80", "PATH": os.environ["PATH"]})
        assert done.returncode == 0
        assert max(map(len, done.stdout.splitlines())) <= 80, name
        for option in ("--json", "--debug", "--help"):
            assert option in done.stdout, name


def test_without_a_command_there_is_help_and_no_success(run):
    done = run()
    assert (done.returncode, done.stdout) == (2, "")
    assert "Commands:" in done.stderr


@pytest.mark.parametrize("command", [[], ["peers"], ["inbox"], ["config"]])
def test_the_help_cuts_no_sentence(command, run):
    """The list of commands is the first that a newcomer reads."""
    done = run(*command, "--help")
    listed = done.stdout.partition("Commands:\n")[2].partition("\n\n")[0]
    assert listed.rstrip().endswith(".")
    assert "..." not in listed
    assert max(map(len, listed.splitlines())) <= 80


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        (["cofnig"], "no command 'cofnig'; did you mean 'config'?", "try: securelink --help"),
        (["xyzzy"], "no command 'xyzzy'", "try: securelink --help"),
        (
            ["help"],
            "no command 'help'; did you mean 'securelink --help'?",
            "try: securelink --help",
        ),
        (
            ["peers", "list"],
            "no command 'peers list'; did you mean 'securelink peers'?",
            "try: securelink peers --help",
        ),
        (
            ["inbox", "ls"],
            "no command 'inbox ls'; did you mean 'securelink inbox'?",
            "try: securelink inbox --help",
        ),
        (
            ["config", "pth"],
            "no command 'config pth'; did you mean 'config path'?",
            "try: securelink config --help",
        ),
        (
            ["config", "--jso"],
            "no option '--jso'; did you mean '--json'?",
            "try: securelink config --help",
        ),
        (
            ["receive", "--one"],
            "no option '--one'; did you mean '--once'?",
            "try: securelink receive --help",
        ),
        (
            ["send", "--tp", "alice"],
            "no option '--tp'; did you mean '--to'?",
            "try: securelink send --help",
        ),
        (
            ["send", "--timeout", "soon", "x"],
            "--timeout: expected a number, not 'soon'",
            "try: securelink send --help",
        ),
        (["config", "-x"], "no option '-x'", "try: securelink config --help"),
        (["config", "-qx"], "no option '-x'", "try: securelink config --help"),
        (["send", "--json=no"], "--json takes no value", "try: securelink send --help"),
        (["peers", "--toml=1"], "--toml takes no value", "try: securelink peers --help"),
        (["--debug=1", "send"], "--debug takes no value", "try: securelink --help"),
        (
            ["invite", "--uses", "many"],
            "--uses: expected a whole number, not 'many'",
            "try: securelink invite --help",
        ),
        (
            ["forward-port", "70000"],
            "PORT: expected 1 to 65535, not 70000",
            "try: securelink forward-port --help",
        ),
        (
            ["forward-port", "http"],
            "PORT: expected a whole number, not 'http'",
            "try: securelink forward-port --help",
        ),
        (
            ["forward-port", "--protocol", "sctp"],
            "--protocol: expected one of 'tcp', 'udp', not 'sctp'",
            "try: securelink forward-port --help",
        ),
        (["receive", "a", "b", "c"], "too many arguments: 'b c'", "try: securelink receive --help"),
        (["peers", "rename", "a"], "missing argument 'NEW'", "try: securelink peers rename --help"),
        (["--xyzzy"], "no option '--xyzzy'", "try: securelink --help"),
        (
            ["config", "-q", "path"],
            "options of 'path' stand after it",
            "try: securelink config --help",
        ),
        (
            ["config", "path", "x"],
            "too many arguments: 'x'",
            "try: securelink config path --help",
        ),
    ],
)
def test_wrong_usage(words, error, hint, capsys):
    assert main(words) == 2
    assert capsys.readouterr() == ("", USAGE.format(error, hint))
    assert main([*words, "--json"]) == 2
    told, prose = capsys.readouterr()
    assert prose == ""
    assert json.loads(told) == {
        "status": "failed",
        "code": "usage",
        "error": error,
        "hint": hint,
        "exit": 2,
    }


OURS = (
    "no option '-.+'(; did you mean '--.+'[?])?",
    "too many arguments: 'one two'",
    "missing argument '[A-Z.]+'",
    "--?[a-z-]+ (needs a value|takes no value)",
    "--[a-z-]+: expected .+, not 'x'",
)
"""What may be said of wrong usage."""


def every_command():
    """Every command, with the words that call it."""

    def below(command, words):
        yield words, command
        for name, inner in getattr(command, "commands", {}).items():
            yield from below(inner, [*words, name])

    root = program()
    for name in COMMANDS:
        yield from below(root.get_command(None, name), [name])


def wrong_usages():
    """Every way to call a command that its options and arguments do not allow."""
    for called, command in every_command():
        arguments = [each for each in command.params if each.param_type_name == "argument"]
        yield called, ["--xyzzy"]
        yield called, ["-Z"]
        if not hasattr(command, "commands") and all(each.nargs == 1 for each in arguments):
            yield called, [*(["1"] * len(arguments)), "one", "two"]
        if any(each.required for each in arguments):
            yield called, []
        for option in command.params:
            if option.param_type_name == "argument":
                continue
            for name in option.opts:
                if option.is_flag or option.count:
                    yield called, [f"{name}=1" if name.startswith("--") else f"{name}Z"]
                    continue
                yield called, [name]
                if option.type.name != "str":
                    yield called, [name, "x"]


@pytest.mark.parametrize(("called", "words"), list(wrong_usages()))
def test_every_wrong_usage_is_one_line_of_ours(called, words, capsys):
    assert main([*called, *words]) == 2
    out, err = capsys.readouterr()
    error, hint = err.splitlines()
    assert out == ""
    assert re.fullmatch(f"securelink: error: (?:{'|'.join(OURS)})", error)
    assert hint == f"hint: try: securelink {' '.join(called)} --help"


def test_wrong_usage_of_a_process(run):
    done = run(PROBE, "probe")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == USAGE.format("missing argument 'what'", "try: securelink probe --help")


def test_json_as_a_text_is_not_the_option(capsys):
    assert main(["cofnig", "--", "--json"]) == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("what", "status"), [("code", 6), ("exit", 5), ("none", 0)])
def test_a_command_chooses_its_exit_status(what, status, run):
    done = run(PROBE, "probe", what)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")


FAILURES = {
    "known": (
        1,
        "unsafe-key-file",
        "error: the key file is open to others\nhint: chmod 600 it",
    ),
    "bug": (
        1,
        "internal",
        "internal error: RuntimeError: two lines (this is a bug; run again with --debug)",
    ),
    "silent-bug": (
        1,
        "internal",
        "internal error: AssertionError (this is a bug; run again with --debug)",
    ),
    "full": (1, "disk-full", "error: no space left on device: /a/file"),
    "denied": (1, "permission-denied", "error: permission denied: /a/file"),
    "read-only": (1, "read-only", "error: read-only file system"),
    "odd-name": (1, "system-failure", r"error: no such file or directory: /odd\udcff"),
    "no-number": (1, "system-failure", "error: something odd"),
}


@pytest.mark.parametrize("what", FAILURES)
def test_every_failure_is_one_clear_line(what, run):
    status, code, said = FAILURES[what]
    done = run(PROBE, "probe", what)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", f"securelink: {said}\n")
    done = run(PROBE, "probe", what, "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (status, "")
    assert (told["status"], told["code"], told["exit"]) == ("failed", code, status)
    assert told["error"] in said


@pytest.mark.parametrize("what", ["known", "bug", "full"])
def test_a_traceback_with_debug_only(what, run):
    done = run(PROBE, "probe", what, "--debug")
    assert done.returncode == FAILURES[what][0]
    assert done.stderr.startswith("Traceback (most recent call last):\n")
    assert done.stderr.endswith(f"securelink: {FAILURES[what][2]}\n")
    assert run(PROBE, "--debug", "probe", what).stderr.startswith("Traceback")


def test_a_full_disk_behind_standard_output(run):
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with Path("/dev/full").open("w") as full:
        for words in (["config"], ["config", "--json"]):
            done = run(*words, stdout=full)
            assert done.returncode == 1
            assert done.stderr.endswith("securelink: error: no space left on device\n")


def test_a_reader_that_has_had_enough(environ):
    python = shlex.quote(sys.executable)
    script = f"{python} {shlex.quote(PROBE)} probe many | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], env=environ, capture_output=True, text=True)
    assert (done.stdout, done.stderr, done.returncode) == ('{"number":0}\n', "", 141)


def test_closed_standard_streams(environ):
    script = f"{shlex.quote(sys.executable)} -m securelink config >&- 2>&-"
    assert subprocess.run(["bash", "-c", script], env=environ).returncode == 0


@pytest.mark.parametrize(
    ("words", "error"),
    [("send", "nothing to send"), ("send -", "nothing to send"), ("join", "no terminal to ask on")],
)
def test_closed_standard_input(words, error, environ):
    script = f"{shlex.quote(sys.executable)} -m securelink {words} <&-"
    done = subprocess.run(["bash", "-c", script], env=environ, capture_output=True, text=True)
    assert done.returncode == 2
    assert error in done.stderr


@pytest.mark.parametrize(
    ("number", "status", "code"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
@pytest.mark.parametrize("in_json", [False, True])
def test_signals_end_a_command_that_cleans_up(number, status, code, in_json, environ):
    words = [sys.executable, PROBE, "probe", "wait", *(["--json"] if in_json else [])]
    process = subprocess.Popen(
        words, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stderr) == (status, "cleaned up\n")
    if in_json:
        told = json.loads(stdout)
        assert (told["code"], told["exit"]) == (code, status)
    else:
        assert stdout == ""


def test_an_ignored_sigterm_stays_ignored(environ):
    script = f"trap '' TERM; exec {shlex.quote(sys.executable)} {shlex.quote(PROBE)} probe wait"
    process = subprocess.Popen(
        ["bash", "-c", script], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130


def test_main_leaves_the_caller_s_signals_alone(capsys):
    before = signal.getsignal(signal.SIGTERM)
    assert main(["--version"]) == 0
    assert main(["xyzzy", "--json"]) == 2
    assert signal.getsignal(signal.SIGTERM) == before
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["code"] == "usage"


def test_a_terminal_is_safe_from_what_a_peer_writes(environ):
    seen, status = on_terminal([sys.executable, PROBE, "probe", "print", "-v"], environ)
    assert status == 0
    assert seen == (
        "from \x1b[1mbob\x1b[0m \\x1b[2J\\u202eevil\\u200b\na note\na detail\n"
        "securelink: \x1b[33mwarning:\x1b[0m a warning\n"
    )


def test_no_color(environ):
    words = [sys.executable, PROBE, "probe", "known"]
    assert "\x1b[31merror:\x1b[0m" in on_terminal(words, environ)[0]
    seen, status = on_terminal(words, environ | {"NO_COLOR": "1"})
    assert (seen, status) == (f"securelink: {FAILURES['known'][2]}\n", 1)


@pytest.mark.parametrize("columns", [80, 60])
def test_a_table_fits_the_terminal(columns, environ):
    words = [sys.executable, PROBE, "probe", "table"]
    seen, _ = on_terminal(words, environ | {"NO_COLOR": "1"}, columns=columns)
    first, second = seen.splitlines()
    assert len(first) == columns
    assert second == "alice  \\x1b[2J\\u202eevil\\u200b\\x0a"


def test_questions_are_asked_on_a_terminal_only(environ, run):
    words = [PROBE, "probe", "ask"]
    seen, status = on_terminal([sys.executable, *words], environ, answer=b" slinv1abc \n")
    assert (seen, status) == ("the invite:  slinv1abc \nslinv1abc\n", 0)
    seen, status = on_terminal([sys.executable, *words], environ, answer=b"\x04")
    assert status == 2
    assert "no answer: the invite" in seen
    done = run(*words)
    assert (done.returncode, done.stderr) == (
        2,
        USAGE.format("no terminal to ask on: the invite", "give INVITE"),
    )


def test_a_secret_answer_is_not_shown(environ):
    words = [sys.executable, PROBE, "probe", "ask-unseen"]
    seen, status = on_terminal(words, environ, answer=b"slinv1abc\n")
    assert (seen, status) == ("the invite: \nslinv1abc\n", 0)
    assert on_terminal(words, environ, answer=b"\x04")[1] == 2


@pytest.fixture
def shell(environ, tmp_path):
    """A shell in which `securelink` is a command, and a home of its own."""
    program = tmp_path / "bin" / "securelink"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m securelink "$@"\n')
    program.chmod(0o755)
    environ = environ | {"HOME": str(tmp_path), "PATH": f"{program.parent}:{environ['PATH']}"}

    def shell(script: str, name: str = "bash", **variables: str) -> str:
        done = subprocess.run(
            [name, *(["--norc"] if name == "bash" else []), "-c", script],
            env=environ | variables,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return shell


COMPLETE = """
COMP_WORDS=(securelink {words}); COMP_CWORD={count}
eval "$(complete -p securelink | sed 's/.*-F \\([^ ]*\\) .*/\\1 securelink/')"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def test_completion_in_bash(shell):
    show = 'eval "$(securelink --show-completion)"\n'
    assert shell(show + COMPLETE.format(words="confi", count=1)) == "config\n"
    assert shell(show + COMPLETE.format(words="''", count=1)).split() == list(COMMANDS)
    assert shell(show + COMPLETE.format(words="config i", count=2)) == "init\n"
    assert "--json" in shell(show + COMPLETE.format(words="config --", count=2)).split()


def test_completion_installed_in_bash(shell):
    assert "bash completion installed" in shell("securelink --install-completion")
    assert shell("source ~/.bashrc\n" + COMPLETE.format(words="confi", count=1)) == "config\n"


@pytest.mark.parametrize(
    ("name", "words"),
    [("zsh", "#compdef securelink"), ("fish", "complete --command securelink")],
)
def test_completion_for_zsh_and_fish(name, words, shell):
    assert words in shell("securelink", _SECURELINK_COMPLETE=f"source_{name}")
    offered = shell(
        "securelink",
        _SECURELINK_COMPLETE=f"complete_{name}",
        _TYPER_COMPLETE_ARGS="securelink confi",
        _TYPER_COMPLETE_FISH_ACTION="get-args",
    )
    assert "config" in offered


def test_completion_in_fish(shell):
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")
    script = "securelink --show-completion | source; complete -C 'securelink confi'"
    assert shell(script, "fish").startswith("config\t")


def test_a_variable_that_lacks_its_table_is_told_of(run):
    env = {"SECURELINK_PORT": "4000", "SECURELINK_INVITE": "x", "SECURELINK_LOG_LEVEL": "info"}
    done = run("config", "--json", env=env)
    assert done.returncode == 0
    assert json.loads(done.stdout)["values"]["server.port"]["value"] == 24819
    assert done.stderr == (
        "securelink: warning: SECURELINK_PORT is ignored; did you mean SECURELINK_SERVER_PORT?\n"
    )


def test_the_commands_of_config(run, tmp_path):
    file = tmp_path / "home" / "config.toml"
    assert run("config", "path").stdout == f"{file}\n"
    assert json.loads(run("config", "path", "--json").stdout) == {
        "file": str(file),
        "exists": False,
    }
    before = run("config")
    assert before.stderr == f"# {file} does not exist\n"
    assert not file.parent.exists()

    done = run("config", "init")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", f"wrote {file}\n")
    assert file.stat().st_mode & 0o777 == 0o600
    assert run("config").stdout == before.stdout.replace("# default", "# config.toml").replace(
        "# config.toml", "# default", 1
    )
    file.write_text("[server]\nport = 1\n")
    again = run("config", "init")
    assert (again.returncode, again.stderr) == (
        1,
        USAGE.format(
            f"{file} exists, and is left as it is", "`securelink config` shows what it sets"
        ),
    )
    assert file.read_text() == "[server]\nport = 1\n"
    assert json.loads(run("config", "init", "--json").stdout)["code"] == "file-exists"


def test_what_config_init_can_not_write(run, tmp_path, environ):
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "config.toml").symlink_to(tmp_path / "elsewhere")
    assert "exists, and is left as it is" in run("config", "init").stderr
    environ["SECURELINK_HOME"] = "/proc/nothing"
    done = run("config", "init", "--json")
    assert (done.returncode, json.loads(done.stdout)["code"]) == (2, "config")


def test_config_shows_what_is_in_force_and_from_where(run, environ, tmp_path):
    import tomllib

    from securelink.identity import Identity

    peer_id = Identity.generate().public.peer_id
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "config.toml").write_text(
        "[server]\nport = 1\nhost = '::1'\n"
        f"[peers.alice]\nid = '{peer_id}'\nlan = ['10.0.0.1', '10.0.0.2:3']\n"
    )
    environ["SECURELINK_CLIENT_TIMEOUT"] = "7"
    done = run("config")
    assert done.stderr == f"# {folder}/config.toml\n"
    shown = tomllib.loads(done.stdout)
    assert shown["server"] == {
        "host": ["::1"],
        "port": 1,
        "public": "",
        "announce": True,
        "upnp": False,
    }
    assert shown["peers"] == {
        "alice": {"id": peer_id, "lan": ["10.0.0.1:24819", "10.0.0.2:3"]},
    }
    assert any(
        line.startswith("timeout = 7.0 ") and line.endswith("  # SECURELINK_CLIENT_TIMEOUT")
        for line in done.stdout.splitlines()
    )
    values = json.loads(run("config", "--json").stdout)["values"]
    assert values["server.port"] == {"value": 1, "origin": "config.toml"}
    assert values["client.timeout"] == {"value": 7.0, "origin": "SECURELINK_CLIENT_TIMEOUT"}
    assert values["log.level"] == {"value": "warning", "origin": "default"}
    assert values["peers.alice.id"] == {"value": peer_id, "origin": "config.toml"}

    (folder / "config.toml").write_text("[server]\nprot = 1\n")
    done = run("config")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"securelink: error: {folder}/config.toml, line 2: server.prot: unknown key; "
        "did you mean port?\n"
    )
