"""`outlast plan`: will it fit, when is it full, what would each change do."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from tests.builders import make_vault

from outlast import cli

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "plan" / "vast_h100.yaml"
SEED = (EXAMPLE, "--save-bytes", "3GB", "--volume", "100GB", "--used", "25GB")
SMALL = ("--steps", 100, "--save-every", 10, "--save-bytes", "1MB")


def plan(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    code = cli.main(["plan", *map(str, words)])
    return code, capsys.readouterr().out


def document(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, dict[str, Any]]:
    code, out = plan(capsys, *words, "--json")
    found = json.loads(out)
    assert isinstance(found, dict)
    return code, found


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """What bad input is told on stderr."""
    assert cli.main(["plan", *map(str, words)]) == 2
    return capsys.readouterr().err


def test_the_seeds_run_fits_and_the_verdict_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    code, out = plan(capsys, *SEED)
    lines = out.splitlines()
    assert code == 0
    assert lines[0] == "fits: at most 37.0 GB of 100.0 GB, at step 4,000"
    assert "full at step 26,000" in out
    assert any(line.startswith("every ") and "vast_h100.yaml: training.save_steps" in line for line in lines)


def test_the_documents_example_is_what_the_command_prints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "docs" / "plan.md").read_text()
    command, shown = re.findall(
        r"^    outlast plan (examples/[^\n]*--was-full-at 9000)$.*?```\n(.*?)```", text, re.M | re.S
    )[0]
    monkeypatch.chdir(ROOT)
    assert plan(capsys, *command.split()) == (0, shown)


def test_with_deletions_that_fail_it_is_full_at_step_26000(capsys: pytest.CaptureFixture[str]) -> None:
    code, found = document(capsys, *SEED, "--deletions-fail")
    assert code == 2
    assert found["without"]["full_at"] == 26000
    assert found["fits_under_outlast"] is False
    assert found["settings"]["deletions_fail"] == {"value": True, "source": "--deletions-fail"}


def test_on_a_smaller_volume_only_outlast_ends_well_and_says_what_it_would_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = (EXAMPLE, "--save-bytes", "3GB", "--volume", "36GB", "--used", "25GB")
    code, out = plan(capsys, *words)
    assert code == 1
    assert out.startswith("does not fit: full at step 4,000 (1.0 GB short); needs 37.0 GB, there are 36.0 GB\n")
    assert "step 4,000: rung 5, make step 1000 light" in out
    assert document(capsys, *words)[1]["with"]["deeds"][0]["rung"] == 5


def test_what_must_have_lain_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    _, out = plan(capsys, *SEED, "--was-full-at", 9000)
    assert "if none was deleted: more than 73.0 GB, and at most 76.0 GB before" in out
    assert "if old ones were deleted: more than 88.0 GB, and at most 88.0 GB before: so it grew in between" in out
    assert "no save is due" in refused(capsys, *SEED, "--was-full-at", 9001)


def test_hours_sessions_and_prices(capsys: pytest.CaptureFixture[str]) -> None:
    words = (*SEED, "--seconds-per-step", "1.44", "--session-hours", 9, "--price-gb-month", "0.1")
    _, out = plan(capsys, *words)
    assert "takes 11.2 h: 2 sessions of 9.0 h" in out
    assert "10 GB more" in out
    _, found = document(capsys, *words)
    assert found["sessions"] == 2
    assert found["seconds"] == pytest.approx(28_000 * 1.44)


def test_a_price_by_the_hour_is_the_same_price(capsys: pytest.CaptureFixture[str]) -> None:
    by_month, by_hour = (
        document(capsys, *SEED, *words)[1]["price_gb_month"]
        for words in (("--price-gb-month", "0.73"), ("--price-gb-hour", "0.001"))
    )
    assert by_month == pytest.approx(by_hour)


def test_options_stand_above_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    _, found = document(capsys, *SEED, "--save-every", 2000, "--save-limit", 2)
    assert found["settings"]["every"] == {"value": 2000, "source": "--save-every"}
    assert found["needs_bytes"] == 34 * 10**9
    assert found["saves"] == 14


def test_the_volume_is_measured_where_the_checkpoints_go(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = document(capsys, "--output-dir", tmp_path / "out", "--budget", f"{tmp_path}=50MB", *SMALL)
    assert code == 0
    assert found["volume"]["total_bytes"] == 50_000_000
    assert found["volume"]["source"] == f"budget {tmp_path} of {tmp_path}"
    assert list(tmp_path.iterdir()) == [], "planning writes nothing"


def test_checkpoints_that_lie_there_count_and_say_how_large_one_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (10, 20):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(bytes(100 * 4096))
        (folder / "optimizer.pt").write_bytes(bytes(200 * 4096))
    code, found = document(
        capsys,
        "--output-dir",
        tmp_path,
        "--steps",
        100,
        "--save-every",
        10,
        "--save-limit",
        3,
        "--budget",
        f"{tmp_path}=50MB",
    )
    assert code == 0
    assert found["save"]["source"] == "measured from checkpoint-20"
    assert found["saves"] == 8, "from step 20 on"
    assert found["without"]["points"][0][0] == 0
    assert found["without"]["peak_bytes"] == pytest.approx(4 * 300 * 4096, abs=3 * 4096)


def test_the_pace_of_sealed_ones_gives_the_hours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_vault(tmp_path, [10, 20])
    _, found = document(capsys, "--output-dir", tmp_path, *SMALL, "--budget", f"{tmp_path}=50MB")
    assert found["settings"]["seconds_per_step"]["source"] == "measured between checkpoint-10 and checkpoint-20"
    assert found["seconds"] == pytest.approx(80 * 1.0)


def test_what_else_comes_counts_on_its_own_volume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = document(
        capsys, "--volume", "100MB", *SMALL, "--save-limit", 1,
        "--also", "data=20MB@50", "--also", "logs=10kB/step", "--also", f"cache=1kB:{tmp_path}",
    )  # fmt: skip
    assert code == 0
    assert found["without"]["peak_bytes"] == 20_000_000 + 1_000_000 + 2_000_000
    assert [other["needs_bytes"] for other in found["others"]] == [1000]


def test_another_volume_that_does_not_hold_what_comes_is_a_plan_that_does_not_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = plan(capsys, "--volume", "100MB", *SMALL, "--save-limit", 1, "--also", f"data=900TB:{tmp_path}")
    assert code == 2
    assert f"{tmp_path}: 900.0 TB come, " in out


def test_rules_for_outlast_change_what_it_keeps(capsys: pytest.CaptureFixture[str]) -> None:
    _, found = document(capsys, *SEED, "--keep", "last=1")
    assert found["without"]["peak_bytes"] == 37 * 10**9
    assert found["with"]["peak_bytes"] < 32 * 10**9


def test_the_plot_is_svg_with_the_volume_and_each_course(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan(capsys, *SEED, "--plot", tmp_path / "disk.svg")
    root = ElementTree.parse(tmp_path / "disk.svg").getroot()
    name = "{http://www.w3.org/2000/svg}"
    assert len(root.findall(f"{name}polyline")) == 3
    texts = [text.text for text in root.findall(f"{name}text")]
    assert {"the volume: 100.0 GB", "outlast run", "without Outlast", "nothing is deleted", "28,000"} <= set(texts)
    assert "cannot be written" in refused(capsys, *SEED, "--plot", tmp_path / "none" / "disk.svg")


def test_a_volume_whose_size_is_not_known_is_not_said_to_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """RunPod's network volume: what it shows is the cluster's."""
    from outlast.cli import _plan_volumes
    from outlast.host import Limit, Mount, Room

    mount = Mount(7, (0, 7), "/", "/workspace", "fuse", "mfs#euro:9421")
    here = Room(tmp_path, 7, (Limit("statvfs", 885 * 10**12, 2_300 * 10**12),), None, mount)
    monkeypatch.setattr(_plan_volumes, "room", lambda *args: here)
    code, out = plan(capsys, "--output-dir", tmp_path, *SMALL)
    assert code == 1
    assert out.startswith("at most 10.0 MB, at step 100; how large the volume is is not known")
    assert "say how much is yours with --budget /workspace=100GB" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "which volume"),
        (("--volume", "1GB"), "how large a save is"),
        (("--volume", "1GB", "--save-bytes", "1MB"), "how many steps"),
        (("--volume", "1GB", "--save-bytes", "1MB", "--steps", "0"), "--steps is 0"),
        (("--volume", "much", "--save-bytes", "1MB", "--steps", "10"), "expected a size"),
        (("--volume", "1GB", *SMALL, "--also", "data"), "cannot read --also 'data'"),
        (("--volume", "1GB", *SMALL, "--framework", "keras"), "no framework called 'keras'"),
        (("training_args.bin",), "is a pickle"),
        (("none.yaml",), "cannot be read"),
        (("--", "no-such-program-here"), "cannot start 'no-such-program-here'"),
    ],
)
def test_bad_input_says_what_is_missing(
    words: tuple[object, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    err = refused(capsys, *words)
    assert said in err and "hint:" in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("option", "value"),
    [(option, value)
     for option in ("--seconds-per-step", "--seconds-per-save", "--price-gb-month", "--price-gb-hour",
                    "--session-hours", "--epochs", "--timeout")
     for value in ("nan", "inf", "-5", "1e300")]
    + [("--session-hours", "0"), ("--session-hours", "1e-300"), ("--seconds-per-step", "1e-320"), ("--timeout", "0"),
       ("--samples", "0"), ("--was-full-at", "-1"), ("--steps", "1" + "0" * 400)],
)  # fmt: skip
def test_a_number_that_makes_no_sense_is_bad_input(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    err = refused(capsys, *SEED, option, value)
    assert f"{option} is " in err and "hint: expected" in err


def test_a_save_every_that_no_float_can_hold_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert "cannot save every" in refused(capsys, *SEED, "--seconds-per-step", 1, "--save-every", "9" * 400 + "min")


def test_a_folder_that_can_be_none_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("a\0b", "a\ud800b"):
        assert "is no folder" in refused(capsys, "--output-dir", folder, *SMALL)


def test_it_brings_in_no_torch() -> None:
    from tests.builders import python

    words = [str(word) for word in ("plan", *SEED)]
    done = python(f"import sys; from outlast import cli; cli.main({words!r}); print('torch' in sys.modules)")
    assert done.stdout.splitlines()[-1] == "False", done.stderr
