"""A disk of a test's own: ext4 in a file, small enough to be filled, and to be lost."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path


class SmallDisk:
    """A mounted file system. `mount` is where."""

    def __init__(self, mount: Path, image: Path, megabytes: int) -> None:
        self.mount = mount
        self._image = image
        self._filler = self.mount / "filler"
        with image.open("wb") as file:
            file.truncate(megabytes << 20)
        # Nothing is kept for root: full is full.
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", self._image], check=True)
        self.mount.mkdir()
        self.attach()

    def attach(self) -> None:
        subprocess.run(["mount", "-o", "loop,errors=remount-ro", self._image, self.mount], check=True)

    def detach(self) -> None:
        subprocess.run(["umount", self.mount], check=True)

    def fill(self) -> None:
        """Leave no block."""
        fd = os.open(self._filler, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            for size in (1 << 20, 4096, 512):
                with contextlib.suppress(OSError):
                    while os.write(fd, bytes(size)) == size:
                        pass
            os.fsync(fd)
        except OSError:
            pass
        finally:
            os.close(fd)
        assert os.statvfs(self.mount).f_bavail < 8

    def make_room(self) -> None:
        self._filler.unlink()

    def fail(self) -> None:
        """As after an error of the device: the kernel lets nobody write any more (ext4(5), errors=remount-ro)."""
        source = subprocess.run(["findmnt", "-no", "SOURCE", self.mount], check=True, capture_output=True, text=True)
        Path("/sys/fs/ext4", Path(source.stdout.strip()).name, "trigger_fs_error").write_text("a test")

    def repair(self) -> None:
        """As an operator does, with nobody there."""
        self.detach()
        done = subprocess.run(["e2fsck", "-fy", self._image], capture_output=True, check=False)
        assert done.returncode < 4, done.stdout
        self.attach()


@contextlib.contextmanager
def small_disk(mount: Path, image: Path, megabytes: int = 64) -> Iterator[SmallDisk]:
    """A disk that is gone when this ends. Both paths are made."""
    disk = SmallDisk(mount, image, megabytes)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", disk.mount], check=False)
