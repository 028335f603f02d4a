"""Result stores: one suite over every kind of store, and what is special about folders."""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dflow.errors import MissingResult, ResultStoreError
from dflow.results import stores
from dflow.results.advice import advice
from dflow.results.stores import checked, shown, store, url_of

# Every kind ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [[], [b""], [b"a"], [b"ab", bytearray(b"c"), memoryview(b"def")]])
def test_what_is_written_is_read(url, parts) -> None:
    """A file consists of its parts in their order, and can be changed in memory once it is read."""
    here = store(url)
    here.write("runs/one/file", parts)
    data = here.read("runs/one/file")
    assert data == b"".join(parts)
    data += b"more"
    assert here.size("runs/one/file") == sum(len(part) for part in parts)


def test_a_file_is_written_anew(url) -> None:
    """A second write takes the place of the first."""
    here = store(url)
    here.write("file", [b"a long one"])
    here.write("file", [b"short"])
    assert here.read("file") == b"short"
    assert here.size("file") == 5


def test_what_is_not_there_is_missing(url) -> None:
    """Reading it says so, with its name and that of the store; it has no size, and can be deleted."""
    here = store(url)
    with pytest.raises(
        MissingResult, match=r"'no/such' is not in the result store .*: somebody has"
    ):
        here.read("no/such")
    assert here.size("no/such") is None
    assert here.sizes("no") == {}
    here.delete("no/such")
    here.delete_folder("no")


def test_a_listing_has_the_files_right_in_a_folder(url) -> None:
    """With their sizes as they are now, and without those in folders below."""
    here = store(url)
    assert here.sizes("runs/a") == {}
    here.write("runs/a/one", [b"1"])
    here.write("runs/a/two", [b"22"])
    here.write("runs/a/below/three", [b"333"])
    here.write("runs/ab/four", [b"4444"])
    assert here.sizes("runs/a") == {"one": 1, "two": 2}
    here.write("runs/a/one", [b"4321"])
    assert here.sizes("runs/a") == {"one": 4, "two": 2}
    assert here.size("runs/a") is None


def test_a_folder_is_deleted_with_all_that_is_in_it(url) -> None:
    """And nothing else."""
    here = store(url)
    for name in ("a/one", "a/below/two", "ab/three"):
        here.write(name, [b"x"])
    here.delete_folder("a")
    assert here.size("a/one") is None
    assert here.size("a/below/two") is None
    assert here.sizes("ab") == {"three": 1}
    here.delete("ab/three")
    assert here.sizes("ab") == {}


def test_of_writers_at_once_one_wins_whole(url) -> None:
    """Whoever reads meanwhile has one of the files, never a mixture."""
    here = store(url)
    contents = [bytes([number]) * 50_000 for number in range(4)]
    here.write("file", [contents[0]])
    writers = [
        threading.Thread(target=here.write, args=("file", [content[:20_000], content[20_000:]]))
        for content in contents
    ]
    for writer in writers:
        writer.start()
    seen = []
    while any(writer.is_alive() for writer in writers):
        seen.append(bytes(here.read("file")))
    seen.append(bytes(here.read("file")))
    assert set(seen) <= set(contents)


def test_the_same_place_is_the_same_store(url) -> None:
    """However its URL is written, and whoever asks."""
    assert store(url) is store(f"{url}/") is store(url)


@pytest.mark.parametrize(
    "name", ["../out", "/etc/passwd", "a/../../out", "", "a//b", "./a", "nul\0"]
)
def test_no_name_leads_out_of_a_store(url, name) -> None:
    """Every method refuses such a name."""
    here = store(url)
    for use in (here.read, here.size, here.sizes, here.delete, here.delete_folder):
        with pytest.raises(ResultStoreError, match="cannot name a file"):
            use(name)
    with pytest.raises(ResultStoreError, match="cannot name a file"):
        here.write(name, [b"x"])


def test_where_files_do_not_appear_whole_they_are_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is no object store gets each file under another name first."""
    monkeypatch.setattr(stores, "_WRITE_WHOLE", frozenset())
    here = store("memory://moved")
    here.write("a/file", [b"one"])
    here.write("a/file", [b"t", b"wo"])
    assert (bytes(here.read("a/file")), here.sizes("a")) == (b"two", {"file": 3})
    system, _ = here._system  # type: ignore[attr-defined]  # of those by fsspec

    def fails(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(system, "mv", fails)
    with pytest.raises(ResultStoreError, match="Make room there"):
        here.write("a/file", [b"three"])
    assert (bytes(here.read("a/file")), system.ls("/moved/a", detail=False)) == (
        b"two",
        ["/moved/a/file"],
    )


# Names and URLs ------------------------------------------------------------------------------------


@given(st.text(max_size=60))
def test_a_name_that_is_accepted_stays_in_its_folder(name) -> None:
    """Whatever text it is."""
    try:
        checked(name)
    except ResultStoreError:
        return
    place = os.path.normpath(os.path.join("/store", name))
    assert place.startswith("/store/")
    assert place == f"/store/{name}"


def test_places_are_absolute_urls(tmp_path: Path, monkeypatch) -> None:
    """A path that was given, plain or as a URL, is one from the folder in which that was."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert url_of("kept") == url_of(tmp_path / "kept") == f"file://{tmp_path}/kept"
    assert url_of(f"file://{tmp_path}/kept/") == f"file://{tmp_path}/kept"
    assert url_of("~/kept") == f"file://{tmp_path}/me/kept"
    assert url_of("S3://Bucket/Kept/") == "s3://Bucket/Kept"


@pytest.mark.parametrize("given", ["", " ", "a\0b", "simplecache::s3://bucket"])
def test_what_is_no_place_is_refused(given) -> None:
    """With an error of ours."""
    with pytest.raises(ResultStoreError):
        url_of(given)


def test_passwords_are_not_shown() -> None:
    """Neither in messages nor elsewhere."""
    assert shown("sftp://me:secret@host/kept") == "sftp://me:***@host/kept"
    assert shown("s3://bucket/a:b@c") == "s3://bucket/a:b@c"


# What can go wrong ---------------------------------------------------------------------------------


def test_a_protocol_whose_package_is_missing_says_which() -> None:
    """And a protocol that nobody knows says that."""
    pytest.importorskip("fsspec")
    code = (
        "import sys; sys.modules['gcsfs'] = None\n"
        "from dflow.results.stores import store\n"
        "for url in ('gs://bucket/kept', 'nonsense://kept'):\n"
        "    try: store(url).write('a', [b'1'])\n"
        "    except Exception as error: print(type(error).__name__, error)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    first, second = ran.stdout.splitlines()
    assert first.startswith("ResultStoreError 'a' could not be written, in the result store 'gs://")
    assert "install gcsfs" in first
    assert "Protocol not known: nonsense" in second


def test_a_bucket_that_is_not_there_says_so(url) -> None:
    """Its name is in the error."""
    if not url.startswith("s3"):
        pytest.skip("only buckets must be there before")
    with pytest.raises(ResultStoreError, match=r"'s3://nobodys/kept'.*bucket does not exist"):
        store("s3://nobodys/kept").write("file", [b"x"])


def test_a_full_disk_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    """The write fails with the name of the store; the file of before is still there, and no half one."""
    here = store(tmp_path)
    here.write("a/file", [b"before"])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))  # what is longer fails: EFBIG
    try:
        with pytest.raises(ResultStoreError, match=f"'file://{tmp_path}'.* Make room there"):
            here.write("a/file", [b"x" * 5_000, b"y" * 50_000])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert here.read("a/file") == b"before"
    assert os.listdir(tmp_path / "a") == ["file"]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_missing_permission_says_what_to_do(number) -> None:
    """The advice fits the error."""
    assert "Ask for the permission" in advice(OSError(number, os.strerror(number)))


def test_a_file_in_the_place_of_the_folder_says_so(tmp_path: Path) -> None:
    """The error is ours, and what is read or listed there is not there."""
    (tmp_path / "kept").write_text("a file")
    here = store(tmp_path / "kept")
    with pytest.raises(ResultStoreError, match="could not be written"):
        here.write("a/b", [b"x"])
    assert here.size("a/b") is None
    assert here.sizes("a") == {}


# Folders ---------------------------------------------------------------------------------------------


def test_a_writer_that_is_killed_leaves_no_half_file(tmp_path: Path) -> None:
    """What it has begun is not listed, and goes with its folder."""
    code = (
        "import os, sys\n"
        "from dflow.results import stores\n"
        "stores.os.replace = lambda *a: os.kill(os.getpid(), 9)\n"
        "stores.store(sys.argv[1]).write('a/file', [b'x' * 1000])\n"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=60, check=False)
    assert ran.returncode == -9
    here = store(tmp_path)
    assert len(os.listdir(tmp_path / "a")) == 1
    assert here.sizes("a") == {}
    assert here.size("a/file") is None
    here.delete_folder("a")
    assert not (tmp_path / "a").exists()


def test_a_folder_is_deleted_without_following_links(tmp_path: Path) -> None:
    """What a link points to is left alone."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "precious").write_text("mine")
    here = store(tmp_path / "kept")
    here.write("a/file", [b"x"])
    (tmp_path / "kept" / "a" / "link").symlink_to(other)
    here.delete_folder("a")
    assert (other / "precious").read_text() == "mine"


def test_syncing_changes_nothing_else(tmp_path: Path) -> None:
    """A file that survives power cuts reads like any other."""
    store(tmp_path).write("a/file", [b"x", b"y"], sync=True)
    assert store(tmp_path).read("a/file") == b"xy"


def _in_fork(url: str, answers) -> None:
    store(url).write("from/fork", [b"x"])
    answers.put(store(url).sizes("from"))


def test_a_fork_has_stores_of_its_own(url) -> None:
    """The connections of its parent are left alone."""
    if url.startswith("memory"):
        pytest.skip("a fork has a memory of its own")
    here = store(url)
    here.write("from/parent", [b"xy"])
    fork = multiprocessing.get_context("fork")
    answers = fork.Queue()
    child = fork.Process(target=_in_fork, args=(url, answers))
    child.start()
    assert answers.get(timeout=60) == {"fork": 1, "parent": 2}
    child.join()
    assert store(url) is here


def test_fsspec_is_loaded_where_it_is_needed() -> None:
    """A folder of this machine does without it."""
    code = (
        "import sys, tempfile\n"
        "from dflow.results.stores import store\n"
        "store(tempfile.mkdtemp()).write('a', [b'1'])\n"
        "assert 'fsspec' not in sys.modules\n"
        "store('memory://x').write('a', [b'1'])\n"
        "assert 'fsspec' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)
