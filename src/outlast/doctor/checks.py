"""The table of checks, and asking them all. Adding a check is adding a row."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from outlast.doctor import caches, machine, saves, volumes
from outlast.doctor.facts import Facts
from outlast.doctor.findings import Check, Finding, Status, printable

VOLUMES, CACHES, MACHINE, CHECKPOINTS = "volumes", "caches", "GPU and Python", "checkpoints"

CHECKS: tuple[Check, ...] = (
    Check("not-writable", VOLUMES, "the folders of a run can be written to", volumes.not_writable),
    Check("disk-low", VOLUMES, "there is room", volumes.disk_low),
    Check("inodes-low", VOLUMES, "more files can be made", volumes.inodes_low),
    Check(
        "network-volume-without-budget", VOLUMES, "free space is yours, not a cluster's",
        volumes.network_volume_without_budget,
    ),
    Check("shm-small", VOLUMES, "/dev/shm is large enough for DataLoader workers", volumes.shm_small),
    Check("tmp-is-ram", VOLUMES, "compiled code is not kept in memory", volumes.tmp_is_ram),
    Check("hf-home-literal", CACHES, "no path holds a ~ or $ that is not expanded", caches.hf_home_literal),
    Check("split-caches", CACHES, "each cache is in one place", caches.split_caches),
    Check("cache-declared-effective", CACHES, "libraries look where your variables say",
          caches.cache_declared_effective, is_deep=True),
    Check("ignored-variable", CACHES, "every variable is read by somebody", caches.ignored_variable),
    Check("hf-transfer-ignored", CACHES, "the fast downloader is one that exists", caches.hf_transfer_ignored),
    Check("xet-disabled", CACHES, "xet is on", caches.xet_disabled),
    Check("cache-missing", CACHES, "folders that variables name are there", caches.cache_missing),
    Check("cache-not-writable", CACHES, "caches can be written to", caches.cache_not_writable),
    Check("hf-broken-repo", CACHES, "no repository is hidden by a link that leads nowhere", caches.hf_broken_repo),
    Check("hf-partial-downloads", CACHES, "no dead downloads are left", caches.hf_partial_downloads),
    Check("stale-torch-lock", CACHES, "no dead build holds up the next one", caches.stale_torch_lock),
    Check("token-in-cache-you-clean", CACHES, "the token is not where one cleans", caches.token_in_cache_you_clean),
    Check("wandb-unsynced", CACHES, "no run of wandb is on this machine only", caches.wandb_unsynced),
    Check("gpu-driver", MACHINE, "the driver answers", machine.gpu_driver),
    Check("gpu-precision", MACHINE, "the precision is one that the GPU does well", machine.gpu_precision),
    Check("attention", MACHINE, "attention is one that works here", machine.attention),
    Check("venv-on-network", MACHINE, "the Python environment is on a local disk", machine.venv_on_network),
    Check("unsealed-checkpoint", CHECKPOINTS, "every checkpoint is sealed", saves.unsealed_checkpoint),
    Check("damaged-checkpoint", CHECKPOINTS, "no sealed checkpoint is damaged", saves.damaged_checkpoint),
    Check("cut-checkpoint", CHECKPOINTS, "no sealed checkpoint was cut", saves.cut_checkpoint),
    Check("unfinished-deletion", CHECKPOINTS, "deletions were finished", saves.unfinished_deletion),
    Check("next-save-does-not-fit", CHECKPOINTS, "the next save fits", saves.next_save_does_not_fit),
)  # fmt: skip
"""Every check, in the order in which it is shown."""

EXIT_CODES = {Status.OK: 0, Status.SKIPPED: 0, Status.WARNING: 1, Status.ERROR: 2}
"""The worst finding decides."""


def diagnose(facts: Facts) -> tuple[Finding, ...]:
    """Ask every check; one that finds nothing answers with its title."""
    found: list[Finding] = []
    for check in CHECKS:
        answers = check.find(facts) or (Finding(Status.OK, check.title),)
        found += [
            replace(answer, id=check.id, title=check.title, evidence=printable(answer.evidence)) for answer in answers
        ]
    return tuple(found)


def exit_code(findings: Iterable[Finding]) -> int:
    """0 when nothing is wrong, 1 for warnings, 2 for errors."""
    return max((EXIT_CODES[finding.status] for finding in findings), default=0)
