"""Caches that go to the roomy volume under outlast run without being asked."""

from pathlib import Path

from outlast.caches import Here, Layout, Setting, places
from outlast.host import recognise
from outlast.launch.cache_places import placed


def here(*settings: Setting) -> Here:
    return Here(recognise({}), (), Layout(settings))


def test_an_empty_cache_that_nobody_placed_goes_and_the_user_is_told(tmp_path: Path):
    hub = Setting("HF_HUB_CACHE", str(tmp_path / "roomy/hub"), ("hf-hub",), "more room")
    values, told = placed({"HOME": str(tmp_path / "home")}, seen=here(hub))
    assert values["HF_HUB_CACHE"] == str(tmp_path / "roomy/hub") and (tmp_path / "roomy/hub").is_dir()
    assert len(told) == 1 and "HF_HUB_CACHE" in told[0]


def test_what_holds_something_or_was_set_by_the_user_stays(tmp_path: Path):
    environment = {"HOME": str(tmp_path), "TORCH_HOME": "/mine"}
    (tmp_path / ".cache/huggingface/hub/models--a--b").mkdir(parents=True)
    assert places(environment)["hf-hub"].path == tmp_path / ".cache/huggingface/hub"
    seen = here(
        Setting("HF_HUB_CACHE", str(tmp_path / "roomy"), ("hf-hub",), "more room"),
        Setting("TORCH_HOME", str(tmp_path / "roomy"), ("torch",), "it was not absolute"),
        Setting("HF_HOME", None, ("hf-home",), "it was empty"),
    )
    assert placed(environment, seen=seen) == (environment, [])
    assert not (tmp_path / "roomy").exists()


def test_a_folder_that_cannot_be_made_leaves_all_as_it_was(tmp_path: Path):
    (tmp_path / "file").touch()
    seen = here(Setting("HF_HUB_CACHE", str(tmp_path / "file/hub"), ("hf-hub",), "more room"))
    values, told = placed({"HOME": str(tmp_path)}, seen=seen)
    assert values == {"HOME": str(tmp_path)} and "stay where they are" in told[0]
