"""Which file system a folder is on, and whether other machines share it.

On a file system of a network SQLite's write-ahead log does not work: it needs memory that all its
readers share.
"""

from __future__ import annotations

import re
from pathlib import Path

UNKNOWN = "unknown"

_MOUNTS = Path("/proc/self/mountinfo")
_NETWORK = re.compile(
    r"(nfs\d*|cifs|smb\w*|smbfs|lustre|gpfs|mmfs|beegfs\w*|fhgfs|ceph|afs|openafs|auristorfs|gfs2?|ocfs2|"
    r"glusterfs|pvfs2|orangefs|panfs|wekafs|coda|ncpfs|afpfs|webdav|davfs2?|9p|virtiofs|vboxsf|prl_fs|"
    r"vmhgfs|fuse\..*|fuse|macfuse|osxfuse)"
)
_LOCAL_FUSE = {
    "fuse.mergerfs",
    "fuse.fuse-overlayfs",
    "fuse.ecryptfs",
    "fuse.gocryptfs",
    "fuse.encfs",
}


def file_system(path: Path) -> str:
    """Return the type of the file system that `path` is on or will be on, such as ``ext4`` or ``nfs4``.

    ``unknown`` where the system does not tell.
    """
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return UNKNOWN
    return _longest(lines, path.absolute().resolve())


def _longest(lines: list[str], path: Path) -> str:
    """Return the type of the mount that holds `path`; of two at one place the later hides the earlier."""
    depth, found = -1, UNKNOWN
    for line in lines:
        before, _, after = line.partition(" - ")
        mount = Path(_unescape(before.split(" ")[4]))
        if len(mount.parts) >= depth and path.is_relative_to(mount):
            depth, found = len(mount.parts), after.split(" ")[0]
    return found


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def is_network(kind: str) -> bool:
    """Tell whether a type of file system is one that machines share; an unknown one counts as local."""
    return bool(_NETWORK.fullmatch(kind)) and kind not in _LOCAL_FUSE
