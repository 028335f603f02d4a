"""Telling file systems apart, by what the system says of its mounts."""

from __future__ import annotations

from pathlib import Path

import pytest

from dflow.journal.sqlite.file_systems import _longest, file_system, is_network

MOUNTS = r"""
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
22 21 0:20 / /proc rw - proc proc rw
30 21 0:40 / /home rw,relatime shared:5 master:2 - nfs4 server:/home rw,vers=4.2
31 30 0:41 / /home/ada/scratch rw - lustre 10.0.0.1@tcp:/scratch rw
32 30 0:42 / /home/with\040space rw - fuse.sshfs ada@host: rw
33 21 0:43 / /mnt rw - nfs server:/old rw
34 21 0:44 / /mnt rw - tmpfs tmpfs rw
""".strip().splitlines()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/var/lib", "ext4"),
        ("/homes", "ext4"),
        ("/home/ada/.dflow", "nfs4"),
        ("/home/ada/scratch/x", "lustre"),
        ("/home/with space/x", "fuse.sshfs"),
        ("/mnt/x", "tmpfs"),
    ],
)
def test_the_nearest_mount_counts(path: str, kind: str) -> None:
    """Of the mounts above a path the longest counts, and of two at one place the later."""
    assert _longest(MOUNTS, Path(path)) == kind


@pytest.mark.parametrize(
    "kind",
    "nfs nfs4 cifs smb3 smbfs lustre gpfs beegfs ceph fuse.sshfs fuse.glusterfs 9p virtiofs afs".split(),
)
def test_networks_are_recognised(kind: str) -> None:
    """File systems that several machines share."""
    assert is_network(kind)


@pytest.mark.parametrize("kind", "ext4 xfs btrfs zfs tmpfs overlay apfs fuseblk unknown".split())
def test_local_disks_are_recognised(kind: str) -> None:
    """File systems of one machine, and whatever is not known."""
    assert not is_network(kind)


def test_the_real_one_is_found(tmp_path: Path) -> None:
    """A folder that is not there yet has the file system of the one above it."""
    assert file_system(tmp_path / "not" / "there") == file_system(tmp_path)
