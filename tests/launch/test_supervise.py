"""`outlast run` with real commands: what a user sees of output, signals, exit codes and restarts."""

from __future__ import annotations

import os
import pty
import shlex
import signal
import subprocess
import sys
from pathlib import Path

from running import LAST_RESORT_SECONDS, clean_environment

from outlast import journal

PYTHON = sys.executable

# Stands in for an integration: seals a step in the journal, as a save does.
SEAL = (
    "import os, sys\nfrom pathlib import Path\nfrom outlast.journal import from_environment\n"
    "book = from_environment(Path('.'))\n"
    "def seal(step): book.write('sealed', name=f'checkpoint-{step}', step=step, kind='full', bytes=10, root='.')\n"
    "attempt = int(os.environ['OUTLAST_ATTEMPT'])\n"
)


def test_output_and_exit_code_are_the_commands_own(guarded):
    done = guarded(PYTHON, "-c", "import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)")
    assert (done.returncode, done.stdout) == (7, "out\n")
    assert done.stderr.startswith("err\n")


def test_stdin_is_the_commands_own(guarded):
    done = guarded("cat", stdin=None, input="typed\n")
    assert done.stdout == "typed\n"


def test_a_signals_end_is_128_and_its_number(guarded):
    assert guarded("sh", "-c", "kill -SEGV $$").returncode == 128 + signal.SIGSEGV


def test_a_command_that_cannot_be_started_is_bad_input_and_is_explained(guarded, events):
    done = guarded("no-such-command")
    assert done.returncode == 2 and "cannot start 'no-such-command'" in done.stderr
    assert events("ended")[-1].get("cause") == "not_started"


def test_the_end_is_in_the_journal_with_its_evidence(guarded, events):
    guarded(PYTHON, "-c", "raise ValueError('boo')")
    ended = events("ended")[-1]
    assert (ended.get("cause"), ended.get("exit_code"), ended.get("hooked")) == ("EXCEPTION", 1, True)
    assert any("ValueError: boo" in line for line in ended.get("evidence"))


def test_a_kill_after_a_seal_is_resumed_and_the_run_finishes(guarded, events, tmp_path: Path):
    script = tmp_path / "train.py"
    script.write_text(
        SEAL + "print(attempt, os.environ.get('OUTLAST_RESUME'), flush=True)\nseal(10 * attempt)\n"
        "if attempt < 3: os.kill(os.getpid(), 9)\n"
    )
    done = guarded(PYTHON, script)
    assert (done.returncode, done.stdout) == (0, "1 None\n2 1\n3 1\n")
    assert "restarts: 2 (KILLED, KILLED)" in done.stderr
    assert [event.get("cause") for event in events("ended")] == ["KILLED", "KILLED", "finished"]


def test_no_progress_between_two_same_ends_stops_the_restarts(guarded, events, tmp_path: Path):
    (tmp_path / "train.py").write_text(SEAL + "seal(10)\nos.kill(os.getpid(), 9)\n")
    done = guarded(PYTHON, tmp_path / "train.py")
    assert done.returncode == 137 and "no progress" in done.stderr
    assert len(events("started")) == 2


def test_restarts_can_be_forbidden(guarded, events, tmp_path: Path):
    (tmp_path / "train.py").write_text(SEAL + "seal(10)\nos.kill(os.getpid(), 9)\n")
    guarded(PYTHON, tmp_path / "train.py", options=("--restarts", 0))
    assert len(events("started")) == 1


def test_orphans_of_a_killed_attempt_are_ended_before_the_next(guarded, events, tmp_path: Path):
    (tmp_path / "train.py").write_text(
        SEAL + "import subprocess\nif attempt == 1:\n"
        "    child = subprocess.Popen(['sleep', '300'], start_new_session=True)\n"
        "    print(child.pid, flush=True); seal(10); os.kill(os.getpid(), 9)\n"
    )
    done = guarded(PYTHON, tmp_path / "train.py")
    assert done.returncode == 0
    assert events("ended_orphans")[0].get("pids") == [int(done.stdout)]
    assert not Path(f"/proc/{int(done.stdout)}").exists()


def test_the_next_run_of_a_command_that_was_cut_short_resumes_by_itself(guarded, tmp_path: Path):
    script = tmp_path / "train.py"
    script.write_text(
        SEAL + "print(os.environ.get('OUTLAST_RESUME'), flush=True)\nseal(10)\n"
        "once = Path(__file__).with_name('once')\n"
        "if not once.exists(): once.touch(); os.kill(os.getpid(), 9)\n"
    )
    said = [guarded(PYTHON, script, options=("--restarts", 0)).stdout for _ in range(3)]
    assert said == ["None\n", "1\n", "None\n"]
    assert guarded(PYTHON, script, options=("--resume", "always")).stdout == "1\n"


def test_who_changes_a_word_of_a_command_that_was_cut_short_is_told_how_to_go_on(guarded, tmp_path: Path):
    script = tmp_path / "train.py"
    script.write_text(SEAL + "if not sys.argv[1:]: seal(10); os.kill(os.getpid(), 9)\n")
    guarded(PYTHON, script, options=("--restarts", 0))
    told = guarded(PYTHON, script, "--lr", "1").stderr
    assert "another command" in told and "step 10" in told and "--resume always" in told
    assert "another command" not in guarded(PYTHON, script, "--lr", "1").stderr, "that one finished"


def test_a_standard_output_that_is_closed_is_no_error(tmp_path: Path):
    words = shlex.join([PYTHON, "-m", "outlast", "run", "--dir", str(tmp_path), "--", "true"])
    done = subprocess.run(["sh", "-c", f"{words} >&-"], capture_output=True, text=True, env=clean_environment())
    assert done.returncode == 0 and "Traceback" not in done.stderr


def test_an_inner_outlast_run_leaves_restarts_to_the_outer_one(guarded, events, tmp_path: Path):
    code = "print(attempt, flush=True)\nseal(10)\nif attempt == 1: os.kill(os.getpid(), 9)\n"
    (tmp_path / "train.py").write_text(SEAL + code)
    done = guarded(PYTHON, "-m", "outlast", "run", "--dir", tmp_path / "other", "--", PYTHON, tmp_path / "train.py")
    assert (done.returncode, done.stdout) == (0, "1\n2\n")
    assert not (tmp_path / "other").exists()
    assert len(journal.runs(tmp_path)) == 1


def started(tmp_path: Path, code: str) -> subprocess.Popen[str]:
    """A guarded Python process that has printed its first line."""
    words = [PYTHON, "-m", "outlast", "run", "--dir", str(tmp_path), "--", PYTHON, "-uc", code]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(words, env=clean_environment(), start_new_session=True, **streams)
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_sigterm_is_passed_on_and_the_users_handler_runs(tmp_path: Path, events):
    code = (
        "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *a: (print('saved'), sys.exit(3)))\n"
        "print('ready')\nwhile True: time.sleep(1)"
    )
    process = started(tmp_path, code)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=LAST_RESORT_SECONDS)
    assert (out, process.returncode) == ("saved\n", 3)
    ended = events("ended")[-1]
    assert ended.get("cause") == "SIGTERM" and f"process {os.getpid()}" in ended.get("evidence")[0]


def test_ctrl_c_reaches_the_command_once_and_outlast_waits_for_its_end(tmp_path: Path, events):
    code = (
        "import time\n"
        "try:\n    print('ready')\n    while True: time.sleep(0.05)\n"
        "except KeyboardInterrupt:\n    print('interrupted')\n    time.sleep(0.2)\n    raise"
    )
    process = started(tmp_path, code)
    os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=LAST_RESORT_SECONDS)
    assert out == "interrupted\n"
    assert process.returncode == 128 + signal.SIGINT
    assert events("ended")[-1].get("cause") == "INTERRUPT"


def test_the_command_starts_with_ordinary_signals(guarded):
    code = "import signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    assert guarded(PYTHON, "-c", code).stdout == "set()\n"
    ignored = int(guarded("sh", "-c", "grep SigIgn /proc/self/status").stdout.split()[1], 16)
    assert not any(ignored >> (number - 1) & 1 for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT))


def test_on_a_terminal_the_command_sees_terminals_and_the_output_is_shown(tmp_path: Path):
    code = "import sys, os; print([os.isatty(n) for n in (0, 1, 2)]); print('err', file=sys.stderr); print(input())"
    control, terminal = pty.openpty()
    process = subprocess.Popen(
        [PYTHON, "-m", "outlast", "run", "--dir", str(tmp_path), "--", PYTHON, "-c", code],
        stdin=terminal, stdout=terminal, stderr=terminal, env=clean_environment(), start_new_session=True,
    )  # fmt: skip
    os.close(terminal)
    shown = b""
    has_typed = False
    while True:
        try:
            chunk = os.read(control, 4096)
        except OSError:
            break
        if not chunk:
            break
        shown += chunk
        if b"err\r\n" in shown and not has_typed:
            # Only now: stderr comes through us, stdout does not, and they would meet in the middle of a line.
            has_typed = os.write(control, b"typed\n") > 0
    assert process.wait(LAST_RESORT_SECONDS) == 0
    os.close(control)
    text = shown.decode().replace("\r\n", "\n")
    assert "[True, True, True]\n" in text and "err\n" in text and "\ntyped\n" in text
    assert "the command finished" in text


def test_one_log_for_both_streams_keeps_the_order_of_its_lines(tmp_path: Path):
    code = "import os\nfor i in range(200): os.write(1, b'o%d\\n' % i); os.write(2, b'e%d\\n' % i)"
    with (tmp_path / "log").open("w") as log:
        words = [PYTHON, "-m", "outlast", "run", "--dir", str(tmp_path), "--", PYTHON, "-c", code]
        subprocess.run(words, stdout=log, stderr=log, env=clean_environment(), timeout=LAST_RESORT_SECONDS)
    expected = [f"{stream}{number}" for number in range(200) for stream in "oe"]
    lines = (tmp_path / "log").read_text().splitlines()
    # On a busy machine one of ours may come between the command's.
    assert [line for line in lines if not line.startswith("outlast: ")] == expected


def test_a_reader_that_goes_away_ends_the_command_as_it_would_without_us(tmp_path: Path):
    words = [PYTHON, "-m", "outlast", "run", "--dir", str(tmp_path), "--", "yes"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=clean_environment())
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(LAST_RESORT_SECONDS) == 128 + signal.SIGPIPE


def test_a_background_grandchild_that_keeps_the_pipe_does_not_keep_us(guarded):
    done = guarded("sh", "-c", "sleep 5 & echo done")
    assert done.stdout == "done\n"
