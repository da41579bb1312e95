"""`outlast env`: what it prints is read by real shells, and does what it says."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from outlast import setup
from outlast.errors import OutlastError

# Home is held to 1 MB, so that the offered volume is the roomier one: on one disk, without a mount.
ROOMY = ("--volume", "big", "--budget", "home=1MB")
ODD = 'sp ace\'s "q" new\nline $HOME `id` $(id) back\\slash; # \u00fc\udcff'


def run(folder: Path, *words: object, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command in a folder with a home and a volume of its own."""
    for name in ("home", "big"):
        (folder / name).mkdir(exist_ok=True)
    values = {"PATH": os.environ["PATH"], "HOME": str(folder / "home"), "container": "docker", **environment}
    return subprocess.run(
        [sys.executable, "-m", "outlast", "env", *map(str, words)], capture_output=True, env=values, cwd=folder
    )


def facts(folder: Path, *words: object, **environment: str) -> dict[str, object]:
    done = run(folder, *words, "--shell", "json", **environment)
    assert done.returncode in (0, 3), done.stderr
    return dict(json.loads(done.stdout))


def evaluated(shell: list[str], text: bytes, folder: Path, *names: str) -> list[bytes]:
    """The values of variables after a real shell has read the text as the manual says."""
    script = folder / "printed"
    script.write_bytes(text)
    show = f"import os, sys; sys.stdout.buffer.write(b'\\0'.join(os.environb.get(n.encode(), b'-') for n in {names!r}))"
    if shell[0].endswith("fish"):
        code = "cat $argv[1] | source; exec $argv[2] -c $argv[3]"
        command = [*shell, "-c", code, str(script), sys.executable, show]
    else:
        command = [*shell, "-c", 'eval "$(cat "$1")"; exec "$2" -c "$3"', "sh", str(script), sys.executable, show]
    done = subprocess.run(command, capture_output=True, env={"PATH": os.environ["PATH"], "HOME": str(folder)})
    assert done.stderr == b""
    return done.stdout.split(b"\0")


def found(name: str) -> str:
    """A shell that must be there: a test that did not run would prove nothing."""
    path = shutil.which(name)
    assert path, f"apt-get install {name}"
    return path


@pytest.mark.parametrize("shell", ["dash", "bash", "zsh", "fish"])
def test_any_path_survives_the_quoting_of_a_real_shell(tmp_path: Path, shell: str) -> None:
    folder = tmp_path / ODD
    folder.mkdir()
    done = run(folder, *ROOMY, "--shell", "fish" if shell == "fish" else "sh")
    assert (done.returncode, done.stderr) == (0, b"")
    command = [found(shell), "--no-config"] if shell == "fish" else [found(shell)]
    hub, torch = evaluated(command, done.stdout, tmp_path, "HF_HUB_CACHE", "TORCH_HOME")
    assert hub == os.fsencode(folder / "big/.cache/huggingface/hub")
    assert torch == os.fsencode(folder / "big/.cache/torch")
    assert (folder / "big/.cache/torch").is_dir(), "the folders are made"


def test_forgotten_quotes_around_it_do_no_harm(tmp_path: Path) -> None:
    text = run(tmp_path, *ROOMY).stdout.replace(b"\n", b" ")
    assert evaluated(["sh"], text, tmp_path, "HF_HUB_CACHE") == [os.fsencode(tmp_path / "big/.cache/huggingface/hub")]


def test_each_variable_comes_with_the_reason(tmp_path: Path) -> None:
    text = run(tmp_path, *ROOMY).stdout.decode()
    assert re.search(rf"# HF_HUB_CACHE: 99\d.\d kB free at {tmp_path}/home, [\d.]+ GB at {tmp_path}/big", text)
    assert "for hf-hub" in text


def test_evaluated_twice_nothing_changes(tmp_path: Path) -> None:
    first = facts(tmp_path, *ROOMY)
    before = sorted(tmp_path.rglob("*"))
    second = facts(tmp_path, *ROOMY, **first["environment"])  # type: ignore[arg-type]
    assert first["environment"] and second["environment"] == {}
    assert sorted(tmp_path.rglob("*")) == before


def test_without_create_no_folder_is_made(tmp_path: Path) -> None:
    assert facts(tmp_path, *ROOMY, "--no-create")["environment"]
    assert list((tmp_path / "big").iterdir()) == []


def test_where_home_is_roomy_there_is_nothing_to_set(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 0
    assert all(line.startswith(b"#") for line in done.stdout.splitlines())
    assert list((tmp_path / "home").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_an_error_with_a_hint_and_no_half_output(tmp_path: Path) -> None:
    (tmp_path / "big").mkdir()
    (tmp_path / "big/.cache").mkdir()
    (tmp_path / "big/.cache/torch").write_text("in the way")
    done = run(tmp_path, *ROOMY)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"torch cannot be made" in done.stderr and b"hint: " in done.stderr
    assert sorted(os.listdir(tmp_path / "big/.cache")) == ["torch"], "what was made before is gone again"


def test_a_folder_that_somebody_else_put_there_first_is_not_used(tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.mkdir()
    big.chmod(0o1777)
    (tmp_path / "elsewhere").mkdir()
    os.symlink(tmp_path / "elsewhere", big / f"outlast-{os.getuid()}")
    if os.getuid() == 0:
        os.lchown(big / f"outlast-{os.getuid()}", 12345, 12345)
        done = run(tmp_path, *ROOMY)
        assert (done.returncode, done.stdout) == (1, b"") and b"belongs to another user" in done.stderr
        assert list((tmp_path / "elsewhere").iterdir()) == []
    (big / f"outlast-{os.getuid()}").unlink()
    assert run(tmp_path, *ROOMY).returncode == 0
    assert stat.S_IMODE(os.stat(big / f"outlast-{os.getuid()}").st_mode) == 0o700


def test_a_dockerfile_sets_and_makes_the_same_folders(tmp_path: Path) -> None:
    folder = tmp_path / 'a "b" $c'
    folder.mkdir()
    lines = run(folder, *ROOMY, "--shell", "docker").stdout.decode().splitlines()
    quoted = str(folder).replace('"', '\\"').replace("$", "\\$")
    assert f'ENV HF_HUB_CACHE="{quoted}/big/.cache/huggingface/hub"' in lines
    made = json.loads(next(line for line in lines if line.startswith("RUN ")).removeprefix("RUN "))
    assert made[:2] == ["mkdir", "-p"] and f"{folder}/big/.cache/torch" in made
    assert list((folder / "big").iterdir()) == [], "they are made in the image"
    assert all(line.startswith(("#", "ENV ", "RUN ")) for line in lines)


def test_a_dockerfile_that_cannot_hold_a_path_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "new\nline"
    folder.mkdir()
    done = run(folder, *ROOMY, "--shell", "docker")
    assert (done.returncode, done.stdout) == (2, b"") and b"a Dockerfile cannot hold" in done.stderr


def test_a_volume_that_is_no_folder_is_bad_input(tmp_path: Path) -> None:
    done = run(tmp_path, "--volume", "nowhere")
    assert done.returncode == 2 and b"is no folder" in done.stderr


def test_an_undecodable_value_of_the_users_is_printed_as_it_is(tmp_path: Path) -> None:
    done = run(tmp_path, HF_HUB_CACHE="rel\udcff")
    assert b"export HF_HUB_CACHE='" + os.fsencode(tmp_path) + b"/rel\xff';" in done.stdout


# --check


def test_check_shows_what_is_declared_effective_and_used_and_finds_what_is_wrong(tmp_path: Path) -> None:
    hub = tmp_path / "hub/models--a--b"
    hub.mkdir(parents=True)
    (hub / "weights").write_bytes(bytes(300_000))
    report = facts(
        tmp_path, "--check", "--python", sys.executable,
        HF_HUB_CACHE=str(tmp_path / "hub"), HF_HOME="$HOME/x", TRANSFORMERS_CACHE="/old",
    )  # fmt: skip
    (seen,) = [one for one in report["caches"] if one["cache"] == "hf-hub"]  # type: ignore[attr-defined]
    assert seen["declared"] == seen["path"] == str(tmp_path / "hub")
    assert seen["used_bytes"] >= 300_000 and not seen["partial"] and time.time() - seen["newest"] < 60
    fixes = {finding["subject"]: finding["fix"] for finding in report["findings"]}  # type: ignore[attr-defined]
    assert fixes["HF_HOME"] == f"export HF_HOME={tmp_path}/home/x"
    assert fixes["TRANSFORMERS_CACHE"].startswith("unset TRANSFORMERS_CACHE")
    assert report["interpreter"]["version"] == "{}.{}.{}".format(*sys.version_info[:3])  # type: ignore[index]


def test_check_is_code_3_when_something_is_wrong_and_0_when_nothing_is(tmp_path: Path) -> None:
    wrong = run(tmp_path, "--check", "--python", sys.executable, HF_HUB_CACHE="rel")
    assert wrong.returncode == 3 and b"fix: export HF_HUB_CACHE=" in wrong.stdout
    right = run(tmp_path, "--check", "--python", sys.executable)
    assert right.returncode == 0 and b"Nothing is wrong." in right.stdout
    assert list((tmp_path / "home").iterdir()) == [], "a check makes nothing"


def test_check_tells_that_files_still_go_to_the_default_place(tmp_path: Path) -> None:
    old = tmp_path / "home/.cache/huggingface/hub/models--a--b"
    old.mkdir(parents=True)
    (old / "weights").write_bytes(bytes(9000))
    (tmp_path / "new").mkdir()
    values = {"HF_HUB_CACHE": str(tmp_path / "new")}
    text = run(tmp_path, "--check", "--python", sys.executable, **values).stdout.decode()
    assert f"the newest of its files are in {old.parent}" in text and "before the library is imported" in text
    (tmp_path / "new/models--a--b").mkdir()
    (tmp_path / "new/models--a--b/weights").write_bytes(bytes(9000))
    os.utime(old / "weights", (1e9, 1e9))
    for folder in (old, old.parent):
        os.utime(folder, (1e9, 1e9))
    text = run(tmp_path, "--check", "--python", sys.executable, **values).stdout.decode()
    assert "at its default place too, which nobody reads now" in text


def test_check_goes_on_when_the_interpreter_says_nothing(tmp_path: Path) -> None:
    done = run(tmp_path, "--check", "--python", "/bin/false")
    assert done.returncode == 0 and b"gave no answer: it ended with exit code 1" in done.stdout


# outlast.setup()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small home and a roomy volume beside it."""
    for name in [name for name in os.environ if name.startswith(("HF_", "TORCH", "XDG_", "WANDB", "TRITON"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    for name in ("home", "big"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OUTLAST_BUDGETS", f"{tmp_path}/home=1000000")
    return tmp_path


def test_setup_sets_this_process_makes_the_folders_and_says_so(
    machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = dict(os.environ)
    done = setup(volumes=["big"], environment=values)
    assert values["HF_DATASETS_CACHE"] == str(machine / "big/.cache/huggingface/datasets")
    assert (machine / "big/.cache/huggingface/datasets").is_dir()
    assert f"HF_DATASETS_CACHE={machine}/big" in capsys.readouterr().out
    again = setup(volumes=["big"], environment=values, quiet=True)
    assert done.layout.settings and again.layout.settings == ()
    assert capsys.readouterr().out == ""


def test_setup_without_check_looks_at_no_cache(machine: Path) -> None:
    assert setup(check=False, quiet=True, volumes=["big"], environment=dict(os.environ)).report is None


def test_setup_that_cannot_make_a_folder_sets_nothing(machine: Path) -> None:
    (machine / "big/.cache").write_text("in the way")
    values = dict(os.environ)
    with pytest.raises(OutlastError, match="cannot be made"):
        setup(volumes=["big"], environment=values)
    assert values == dict(os.environ)


def test_setup_says_which_library_was_imported_too_early(machine: Path) -> None:
    code = (
        "import huggingface_hub.constants, sys; import outlast; done = outlast.setup(volumes=['big']); "
        "assert 'torch' not in sys.modules; print(*[r.subject for r in done.too_late])"
    )
    late = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert late.stdout.splitlines()[-1].split() == ["hf-hub", "hf-xet", "hf-assets"], late.stderr
    assert "huggingface_hub.constants was imported too early" in late.stdout
    assert "restart the kernel" in late.stdout
    early = subprocess.run(
        [sys.executable, "-c", "import outlast; print(outlast.setup(volumes=['big'], quiet=True).too_late)"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert early.stdout.strip() == "()", early.stderr
