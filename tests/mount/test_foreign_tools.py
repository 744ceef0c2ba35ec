"""Programs and libraries that nobody here wrote read published versions through a real mount."""

import hashlib
import io
import mmap
import os
import sqlite3
import subprocess
from pathlib import Path

import numpy
import pytest
from safetensors import safe_open
from safetensors.numpy import load

pytestmark = pytest.mark.bytes


@pytest.fixture(scope="module")
def version(shared_mount, model_files) -> Path:
    """A published version with a model and a tree of small files."""
    small = {f"shards/{n % 7}/part-{n}.txt": b"%d\n" % n * (n % 50) for n in range(200)}
    array = io.BytesIO()
    numpy.save(array, numpy.arange(1_000_000, dtype="float64").reshape(1000, 1000))
    more = {"embedding.npy": array.getvalue(), "empty": b"", **small}
    return shared_mount.commit("mnist", {**model_files, **more})


@pytest.fixture(scope="module")
def native(version, model_files, tmp_path_factory) -> Path:
    """The same files on the native file system."""
    copy = tmp_path_factory.mktemp("native") / "copy"
    subprocess.run(["cp", "-r", version, copy], check=True)
    for path, data in model_files.items():
        assert data == (copy / path).read_bytes()
    return copy


def test_safetensors_maps_the_weights(version, model_files) -> None:
    """`safe_open` gives every tensor, bit for bit."""
    expected = load(model_files["model.safetensors"])
    with safe_open(version / "model.safetensors", framework="numpy") as weights:
        assert {"format": "np"} == weights.metadata()
        assert sorted(expected) == sorted(weights.keys())
        for name, tensor in expected.items():
            assert numpy.array_equal(tensor, weights.get_tensor(name))
            assert numpy.array_equal(tensor[:3, 5:9], weights.get_slice(name)[:3, 5:9])


def test_numpy_maps_an_array(version) -> None:
    """`numpy.load(mmap_mode="r")` reads single elements of a mapped array."""
    array = numpy.load(version / "embedding.npy", mmap_mode="r")
    assert (1000, 1000) == array.shape
    assert 999_999.0 == array[999, 999]
    assert 499999500000.0 == float(array.sum())


def test_sqlite_opens_a_database_file(shared_mount, tmp_path) -> None:
    """SQLite reads a database inside a version, by library and by program."""
    path = tmp_path / "features.db"
    with sqlite3.connect(path) as database:
        database.execute("create table feature (name text primary key, weight real)")
        rows = [(f"f{n}", n / 7) for n in range(5000)]
        database.executemany("insert into feature values (?, ?)", rows)
    database.close()
    version = shared_mount.commit("features", {"features.db": path.read_bytes()})

    published = sqlite3.connect(f"file:{version}/features.db?mode=ro", uri=True)
    assert [("ok",)] == published.execute("pragma integrity_check").fetchall()
    assert [(5000,)] == published.execute("select count(*) from feature").fetchall()
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        published.execute("delete from feature")
    published.close()
    query = "select weight from feature where name = 'f7'"
    done = shared_mount.run("sqlite3", "-readonly", version / "features.db", query)
    assert "1.0\n" == done.stdout


def test_git_clones_a_bare_repository(shared_mount, tmp_path) -> None:
    """`git clone` from a bare repository inside a version gives its history."""
    git = ["git", "-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "gc.auto=0"]
    source = tmp_path / "source"
    subprocess.run([*git, "init", "-q", "-b", "main", source], check=True)
    for number in range(3):
        (source / "file.txt").write_text(f"line {number}\n" * 100)
        subprocess.run([*git, "-C", source, "add", "."], check=True)
        subprocess.run([*git, "-C", source, "commit", "-q", "-m", f"change {number}"], check=True)
    draft = shared_mount.path / "staging/training-code"
    bare = draft / "code.git"
    draft.mkdir()
    shared_mount.run("git", "clone", "-q", "--bare", "--no-hardlinks", source, bare)
    shared_mount.control("commit training-code training-code")

    published = shared_mount.path / "artifacts/training-code/v0/code.git"
    # Git wants to be told that a repository of somebody else's is to be trusted.
    trusted = {**os.environ, "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory"}
    trusted["GIT_CONFIG_VALUE_0"] = "*"
    clone = ["git", "clone", "-q", "--no-local", published, tmp_path / "clone"]
    subprocess.run(clone, check=True, env=trusted, stdin=subprocess.DEVNULL)
    log = subprocess.run(
        ["git", "-C", tmp_path / "clone", "log", "--format=%s"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "change 2\nchange 1\nchange 0\n" == log.stdout
    assert "line 2\n" * 100 == (tmp_path / "clone/file.txt").read_text()


def test_tar_packs_and_unpacks(shared_mount, version, native, tmp_path) -> None:
    """`tar` reads a version, and unpacks the archive into a draft that becomes the same version."""
    archive = tmp_path / "version.tar"
    shared_mount.run("tar", "-C", version, "-cf", archive, ".")
    shared_mount.run(
        "tar", "-C", native, "--compare", "-f", archive, "--no-same-owner", check=False
    )
    unpacked = shared_mount.path / "staging/unpacked"
    unpacked.mkdir()
    shared_mount.run("tar", "-C", unpacked, "-xf", archive)
    shared_mount.run("diff", "-r", native, unpacked)
    reply = shared_mount.control("commit unpacked mnist")
    assert not reply["results"][0]["created"]
    assert version.name == reply["results"][0]["version"]


def test_rsync_copies_out_and_in(shared_mount, version, native, tmp_path) -> None:
    """`rsync -a` copies a version both ways, and a second run finds nothing to do."""
    out = tmp_path / "out"
    shared_mount.run("rsync", "-a", f"{version}/", f"{out}/")
    shared_mount.run("diff", "-r", native, out)
    draft = shared_mount.path / "staging/synced"
    shared_mount.run("rsync", "-a", f"{out}/", f"{draft}/")
    again = shared_mount.run("rsync", "-ai", "--checksum", f"{out}/", f"{draft}/")
    assert "" == again.stdout
    shared_mount.run("diff", "-r", version, draft)
    shared_mount.run("rm", "-r", draft)


def test_find_sees_every_file(shared_mount, version, native) -> None:
    """`find` prints the same names, kinds and sizes as on the native file system."""

    def listing(top: Path) -> list[str]:
        # Not the sizes of directories: each file system has its own.
        words = ("-type", "f", "-printf", r"f %P %s\n", "-o", "-type", "d", "-printf", r"d %P\n")
        return sorted(shared_mount.run("find", top, *words).stdout.splitlines())

    assert listing(native) == listing(version)


def test_cp_keeps_contents_times_and_modes(shared_mount, version, tmp_path) -> None:
    """`cp -a` copies a version, time stamps included."""
    shared_mount.run("cp", "-a", version, tmp_path / "copy")
    shared_mount.run("diff", "-r", version, tmp_path / "copy")
    for name in ("model.safetensors", "shards/3/part-3.txt"):
        assert (version / name).stat().st_mtime_ns == (tmp_path / "copy" / name).stat().st_mtime_ns
        assert not (tmp_path / "copy" / name).stat().st_mode & 0o222


def test_checksums_are_those_of_the_files(shared_mount, version, native) -> None:
    """`sha256sum` over the mount, by name and by standard input, gives the native digests."""
    names = ["model.safetensors", "config.json", "embedding.npy", "empty"]
    expected = [hashlib.sha256((native / name).read_bytes()).hexdigest() for name in names]
    done = shared_mount.run("sha256sum", *names, cwd=version)
    assert expected == [line.split()[0] for line in done.stdout.splitlines()]
    with (version / "model.safetensors").open("rb") as file:
        piped = shared_mount.run("sha256sum", stdin=file)
    assert expected[0] == piped.stdout.split()[0]


def test_dd_reads_past_the_page_cache(shared_mount, version, native) -> None:
    """O_DIRECT reads, which some loaders use, give the file's bytes."""
    source = version / "embedding.npy"
    done = subprocess.run(
        ["dd", f"if={source}", "iflag=direct", "bs=1M", "status=none"],
        check=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
    )
    assert (native / "embedding.npy").read_bytes() == done.stdout


def test_every_way_of_reading_gives_the_same_bytes(version, native) -> None:
    """Read, pread, preadv, sendfile and mmap agree with the native file."""
    expected = (native / "model.safetensors").read_bytes()
    size = len(expected)
    with (version / "model.safetensors").open("rb", buffering=0) as file:
        descriptor = file.fileno()
        assert size == os.fstat(descriptor).st_size
        assert expected == b"".join(iter(lambda: os.read(descriptor, 77_777), b""))
        for offset in (0, 1, 4095, 4096, 65_537, size - 10, size, size + 4096):
            assert expected[offset : offset + 5000] == os.pread(descriptor, 5000, offset)
        parts = [bytearray(3000), bytearray(70_000)]
        assert 73_000 == os.preadv(descriptor, parts, 12_345)
        assert expected[12_345:85_345] == b"".join(parts)
        reader, writer = os.pipe()
        with open(reader, "rb") as out:
            assert 4000 == os.sendfile(writer, descriptor, 500, 4000)
            os.close(writer)
            assert expected[500:4500] == out.read()
        for flags in (mmap.MAP_SHARED, mmap.MAP_PRIVATE, mmap.MAP_SHARED | mmap.MAP_POPULATE):
            with mmap.mmap(descriptor, 0, flags, mmap.PROT_READ) as mapped:
                mapped.madvise(mmap.MADV_RANDOM)
                for offset in range(size - 1, 0, -99_991):
                    assert expected[offset] == mapped[offset]
                assert expected == mapped[:]
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        assert expected == os.pread(descriptor, size, 0)


def test_what_was_opened_by_descriptor_stays_one_version(shared_mount, model_files) -> None:
    """A directory that was opened stays the same version while the alias moves."""
    first = shared_mount.commit("stays", {"config.json": b"1"}, "--alias production")
    held = os.open(shared_mount.path / "artifacts/stays/production", os.O_RDONLY | os.O_DIRECTORY)
    try:
        shared_mount.commit("stays", {"config.json": b"2"}, "--alias production")
        file = os.open("config.json", os.O_RDONLY, dir_fd=held)
        assert b"1" == os.read(file, 10)
        os.close(file)
        assert first.stat().st_ino == os.fstat(held).st_ino
    finally:
        os.close(held)
    production = shared_mount.path / "artifacts/stays/production/config.json"
    assert b"2" == production.read_bytes()
