"""The folder with all of the reader's files, and safe replacement of files in it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from readtrack.errors import ReadtrackError

if TYPE_CHECKING:
    from filelock import FileLock


class Home:
    """Paths of the files under READTRACK_HOME (default: the platform's user-data folder).

    Constructing a `Home` touches nothing on disk; `ensure` creates folders.
    """

    def __init__(self, root: Path | str | None = None) -> None:
        if root is None:
            root = os.environ.get("READTRACK_HOME") or _default_root()
        self.root = Path(root).expanduser().absolute()
        self.papers_yaml = self.root / "papers.yaml"
        self.keys_yaml = self.root / "keys.yaml"
        self.journal = self.root / "journal.jsonl"
        self.notes = self.root / "notes"
        self.metadata = self.root / "metadata"
        self.pdfs = self.root / "pdfs"
        self.runs = self.root / "runs"
        self.plugins = self.root / "plugins"
        self.data = self.root / "data"
        self.practice = self.root / "practice"
        self.cache = self.root / "cache"
        self.locks = self.root / "locks"

    def ensure(self, folder: Path | None = None) -> Path:
        """Make `folder` (default: the home itself). Raises ReadtrackError if it cannot be made."""
        folder = folder or self.root
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ReadtrackError(
                f"Could not make the folder {folder}: {error.strerror}. "
                "Set READTRACK_HOME to a writable folder."
            ) from error
        return folder

    def set_aside(self, path: Path) -> Path:
        """Move a file or folder of the home to `set-aside/` without overwriting; return its new path."""
        folder = self.ensure(self.root / "set-aside" / path.relative_to(self.root).parent)
        target, number = folder / path.name, 2
        while target.exists():
            target, number = folder / f"{path.stem}-{number}{path.suffix}", number + 1
        path.rename(target)
        return target

    def lock(self, name: str, *, timeout: float = 10.0) -> FileLock:
        """An OS lock `locks/<name>.lock`, held by an open descriptor. The lock file is never deleted."""
        from filelock import FileLock

        self.ensure(self.locks)
        # Polls often enough that no writer starves, even when there are many.
        return FileLock(self.locks / f"{name}.lock", timeout=timeout, poll_interval=0.005)

    @contextmanager
    def holding(self, name: str) -> Iterator[None]:
        """Hold `lock(name)`. Raises ReadtrackError if it cannot be acquired."""
        lock = self.lock(name)
        with ExitStack() as stack:
            try:
                stack.enter_context(lock)
            except TimeoutError as error:
                text = f"Another program has held the lock on {lock.lock_file} for too long. Try again."
                raise ReadtrackError(text) from error
            except OSError as error:
                raise ReadtrackError(f"Could not lock {lock.lock_file}: {error.strerror}.") from error
            yield


def _default_root() -> Path:
    from platformdirs import user_data_path

    return user_data_path("readtrack", appauthor=False)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file next to `path`; if the block succeeds, fsync it and rename it to `path`.

    Readers see either the old or the new file, never a partial one. The new file keeps the old file's mode.
    On an error the temporary file is deleted.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}.part")
    mode = _mode(path)
    try:
        if mode is not None:
            os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            part.chmod(mode | stat.S_IWUSR)
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        if mode is not None:
            part.chmod(mode)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    _fsync_folder(path.parent)


def _mode(path: Path) -> int | None:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return None  # it does not exist, or is a dangling link


def write_text(path: Path, text: str) -> None:
    """Atomically replace `path` with `text` (UTF-8). If `path` is a link, replace its target."""
    with replacing(path.resolve() if path.is_symlink() else path) as part:
        part.write_text(text, encoding="utf-8")


def _fsync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def modified(path: Path) -> int:
    """Modification time of a file or folder in nanoseconds; 0 if it does not exist."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
