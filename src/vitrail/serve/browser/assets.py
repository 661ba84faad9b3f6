"""onnxruntime-web, which is too large for the repository: fetched once with npm, believed only if its hash is right.

``make web`` puts the files into the package, so that a wheel carries them; else they lie in the user's cache. The
page gets them from this machine, so that a device needs no internet.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import importlib.util
import os
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from vitrail.core.errors import BenchError

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""Of the package's archive, as npm's registry published it."""

FILES = {
    "ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    "ort.webgpu.bundle.min.mjs": "0730816731ce2cdfb06f273da065d4a1c7091eb9d1756a83b2916c8a89d015e2",
    "ort-wasm-simd-threaded.asyncify.wasm": "39f9f0894d478800487ed9f7dbe92618498db320cf55c8e3d89adff8dce658da",
}
"""What the page loads -> its SHA-256; a file that was cut or changed on disk is not served."""

NOTICE_NAMES = ("LICENSE", "ThirdPartyNotices.txt")
"""The archive has no licence file; these are of the same project (MIT), from the onnxruntime that is installed here."""

TIMEOUT_S = 600.0


@dataclass(frozen=True, kw_only=True)
class Assets:
    """The files of onnxruntime-web on this machine, checked.

    Attributes:
        folder: where they lie.
        version: of onnxruntime-web.
    """

    folder: Path
    version: str = VERSION

    @property
    def files(self) -> dict[str, Path]:
        """What may be served: the files of the page, and the licences that go with them."""
        return {name: self.folder / name for name in (*FILES, *NOTICE_NAMES)}


def asset_folders() -> tuple[Path, Path]:
    """Where the files may lie: in the package, and in the user's cache."""
    inside = Path(str(importlib.resources.files("vitrail.serve.browser"))) / PACKAGE
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return inside, cache / "vitrail" / f"{PACKAGE}-{VERSION}"


def find_assets() -> Assets | None:
    """The files, if they are here and whole."""
    whole = (folder for folder in asset_folders() if all(_sha256(folder / name) == sha for name, sha in FILES.items()))
    folder = next(whole, None)
    return Assets(folder=folder) if folder else None


def fetch_assets(folder: Path | None = None) -> Assets:
    """Get the files with ``npm pack``, compare the archive with :data:`INTEGRITY`, and put them into ``folder``.

    The folder appears as a whole or not at all.

    Args:
        folder: the user's cache by default.

    Raises:
        BenchError: npm is missing or fails, or the archive is not the one that was pinned.
    """
    folder = folder or asset_folders()[1]
    npm = shutil.which("npm")
    if npm is None:
        raise BenchError(
            f"{PACKAGE} {VERSION} is not on this machine and npm, which would fetch it, is not installed; install "
            f"Node.js (https://nodejs.org), or copy {folder} from a machine that has it"
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{PACKAGE}-", dir=folder.parent) as temporary:
            archive = _pack(npm, Path(temporary))
            _check(archive)
            new = _extract(archive, Path(temporary) / "new")
            if folder.exists():
                folder.rename(Path(temporary) / "old")  # incomplete, or of another version
            new.rename(folder)
    except OSError as error:
        reason = error.strerror or error
        raise BenchError(f"cannot write {folder}: {reason}; free space or set XDG_CACHE_HOME") from error
    return Assets(folder=folder)


def _pack(npm: str, folder: Path) -> Path:
    command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--ignore-scripts", "--silent", "--pack-destination", str(folder)]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"npm took more than {TIMEOUT_S:.0f} s to fetch {PACKAGE}; look at the network") from error
    archive = folder / f"{PACKAGE}-{VERSION}.tgz"
    if done.returncode != 0 or not archive.is_file():
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise BenchError(f"npm could not fetch {PACKAGE} {VERSION}: {reason}; try: npm pack {PACKAGE}@{VERSION}")
    return archive


def _check(archive: Path) -> None:
    with archive.open("rb") as file:
        found = "sha512-" + base64.b64encode(hashlib.file_digest(file, "sha512").digest()).decode()
    if found != INTEGRITY:
        raise BenchError(
            f"npm gave another {archive.name} than the one that was pinned ({found[:20]}..., wanted "
            f"{INTEGRITY[:20]}...); it was not unpacked. Look at the registry that npm is set to"
        )


def _extract(archive: Path, folder: Path) -> Path:
    """Only the files that are wanted, with their licences; the folder that holds them."""
    with tarfile.open(archive, "r:gz") as tar:
        members = [tar.getmember(f"package/dist/{name}") for name in FILES]
        tar.extractall(folder, members, filter="data")
    unpacked = folder / "package" / "dist"
    native = importlib.util.find_spec("onnxruntime")
    assert native is not None
    assert native.origin is not None
    for name in NOTICE_NAMES:
        shutil.copyfile(Path(native.origin).parent / name, unpacked / name)
    return unpacked


def _sha256(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
