"""Rules that all formats share: which files count, what is left out, and what parts are called."""

from __future__ import annotations

import os
import re
import stat
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from vitrail.core.errors import DataError
from vitrail.core.files import check_regular, open_regular
from vitrail.core.paths import user_path
from vitrail.data.check.problems import MOST_NAMED, LeftOut, Problems
from vitrail.data.formats.own_folders import is_own_folder
from vitrail.data.pixels.decode import IMAGE_SUFFIXES

PART_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
    "holdout": "test",
    "heldout": "test",
}
"""What people call a part -> what we call it."""

INSIDE = {"train": "train", "val": "val", "test": "test", "holdout": "test"}
"""Words that count inside of longer ones, where whole words are not wanted."""

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages", "inputs", "input")
MASK_FOLDERS = ("masks", "mask", "segmentations", "segmentation", "segmentationclass", "groundtruth", "gt")
LABEL_FOLDERS = ("labels", "label", "annotations", "annotation")
"""What people call folders of images and of their annotations, beside each other; the usual name first."""

OTHER_SUFFIXES = frozenset(
    (  # noqa: SIM905 (a table)
        ".heic .heics .heif .hif .jp2 .j2k .j2c .jpc .jpf .jpx .jxl .jxr .wdp .tga .mpo .psd .exr .hdr .pfm .qoi .pcx "
        ".dds .ico .icns .svg .eps .dcm .nii .fits .fit .apng .avifs .raw .dng .cr2 .cr3 .crw .nef .nrw .arw .sr2 .srf "
        ".srw .orf .rw2 .raf .pef .3fr .iiq"
    ).split()
)
"""Images elsewhere, which are not read here."""

IMAGE_STARTS = re.compile(
    rb"\xff\xd8\xff|\x89PNG|GIF8|RIFF....WEBP|II\*\0|MM\0\*|....ftyp(?:hei|hev|mif|avi)|\xff\x0a"
    rb"|\0\0\0\x0c(?:JXL |jP  )|8BPS",
    re.DOTALL,
)
"""First bytes of images, whatever the file is called."""

START_BYTES = 12
UNUSED = "belongs to no part, class or annotation"
HIDDEN = (".", "__MACOSX")
RESOURCE_FORK = "._"
"""What macOS writes beside every file on a foreign disk and into every zip; it is no image."""


def data_folder(path: str, remedy: str) -> Path:
    """The folder with the data, absolute.

    Raises:
        DataError: there is none; the message ends with ``remedy``.
    """
    root = user_path(path)
    if not root.exists():
        raise DataError(f"data folder {path} does not exist; {remedy}")
    if not root.is_dir():
        listed = root.suffix.lower() in (".yaml", ".yml", ".json", ".csv", ".txt", ".data")
        first = f"give its folder, {root.parent}" if listed else f"unpack archives first, then {remedy}"
        raise DataError(f"data {path} is not a folder; {first}")
    return root.resolve()


def find_table(root: Path, name: str) -> Path | None:
    """The file of that name in a folder; None where nothing is called so.

    Raises:
        DataError: what is called so is a folder, a pipe, a device, or a link to nothing.
    """
    table = root / name
    if not os.path.lexists(table):
        return None
    try:
        check_regular(table)
    except OSError as error:
        reason = "a folder" if table.is_dir() else (error.strerror or "no file").removeprefix("it is ")
        raise DataError(f"{table} is no table: {reason}; give it another name, or save the table under it") from error
    return table


def inner_folder(folder: Path, known: Collection[str] = ()) -> Path:
    """The folder that an archive has wrapped: the way down while a folder has one visible folder, and that one has the
    same name (``photos/photos``), or has folders and no images of its own.

    Args:
        folder: where to begin.
        known: names of folders that are what they seem to be; names of parts are always.
    """
    while True:
        folders = visible_folders(folder)
        if len(folders) != 1 or folders[0].name in known or folders[0].name.lower() in PART_NAMES:
            return folder
        if folders[0].is_symlink():  # it may lead back
            return folder
        filled = _has_data_files(folders[0]) or not visible_folders(folders[0])
        if _has_data_files(folder) or (filled and folders[0].name != folder.name):
            return folder
        folder = folders[0]


def _has_data_files(folder: Path) -> bool:
    """Images, tables or annotations right in the folder."""
    suffixes = IMAGE_SUFFIXES | {".csv", ".json", ".yaml", ".yml"}
    return any(one.suffix.lower() in suffixes or one.name == "AVA.txt" for one in folder.iterdir())


def part_of(name: str, *, whole_words: bool = True) -> str:
    """The part that a name says, as a whole or in a word: "train" for ``train2017`` and ``seg_train``.

    Args:
        name: name of a file or folder, without its suffix.
        whole_words: whether ``trainset`` names no part.

    Returns:
        "train", "val" or "test"; "" where no word or several say it.
    """
    found = {PART_NAMES[word] for word in _words(name) if word in PART_NAMES}
    if not found and not whole_words:
        found = {part for word, part in INSIDE.items() if word in name.lower()}
    return found.pop() if len(found) == 1 else ""


def rest_of(name: str) -> str:
    """What the name of a folder says beside the part: "seg" for ``seg_train``."""
    return " ".join(word for word in _words(name) if word not in PART_NAMES)


def _words(name: str) -> list[str]:
    """Words in lower case, without numbers: "train" and "set" for ``trainset`` too, and one word for "hold-out"."""
    whole = re.sub("[^a-z]", "", name.lower())
    attached = re.fullmatch(f"({'|'.join(PART_NAMES)})(set|data|split|images?|imgs?)?", whole)
    if attached:
        return [word for word in attached.groups() if word]
    return [word.lower() for word in re.findall("[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def image_files(folder: Path, root: Path) -> list[Path]:
    """All visible image files below ``folder``, sorted.

    Links to files and folders are followed, wherever they lead; a folder is entered once, and ``root`` and what is
    above it never, nor folders that Vitrail wrote, such as runs. Only regular files count.
    """
    return sorted(path for path, reason in _walk(folder, root) if not reason)


def find_images(folder: Path) -> list[Path]:
    """All image files of a folder at any depth, by the same rules as for training data."""
    return image_files(folder, folder)


def has_images(folder: Path, root: Path) -> bool:
    """Whether :func:`image_files` finds any."""
    return any(not reason for _, reason in _walk(folder, root))


def left_out(folder: Path, used: Collection[Path] | None = None) -> list[LeftOut]:
    """What looks like an image at any depth and is not used: hidden, of a kind that is not read, no regular file, a
    link that leads nowhere or back, or (if ``used`` is given) an image that belongs to no sample.

    Files of one folder that are left out for one reason are named one by one, or counted if they are many.
    """
    groups: dict[tuple[Path, str], list[Path]] = {}
    for path, reason in _walk(folder, folder, sniff=True):
        if reason or (used is not None and path not in used):
            groups.setdefault((path.parent, reason or UNUSED), []).append(path)
    found = []
    for (parent, reason), paths in groups.items():
        if len(paths) <= MOST_NAMED:
            found += [LeftOut(path.relative_to(folder).as_posix(), reason) for path in paths]
        else:
            where, text = parent.relative_to(folder).as_posix(), f"{len(paths)} files, such as {min(paths).name}"
            found.append(LeftOut(where, f"{text}: each {reason}", len(paths)))
    return sorted(found)


def leave_out_rest(root: Path, names: Iterable[str], problems: Problems) -> None:
    """Add everything in the data folder that looks like an image and is neither among ``names`` nor known to be wrong.

    Wrong annotations that are known by a line or an id stand for as many images.
    """
    found = left_out(root, {root / name for name in (*names, *problems.names)})
    unused = sum(one.count for one in found if one.reason.endswith(UNUSED))
    explained = sum(not os.path.exists(root / name) for name in problems.names)  # of any length, unlike Path.exists
    problems.leave_out(one for one in found if unused > explained or not one.reason.endswith(UNUSED))


def _walk(folder: Path, root: Path, *, sniff: bool = False) -> Iterator[tuple[Path, str]]:
    """Every file below ``folder`` that looks like an image, and why it cannot be used ("" if it can).

    Folders that are linked come after all others, so that an image has its own path rather than a link's.

    Args:
        folder: where to begin.
        root: the data folder.
        sniff: look into files with foreign names too.
    """
    start = folder.resolve()
    above = {_identity(one) for one in (*start.parents, root, *root.resolve().parents) if one != folder}
    entered = above | {_identity(folder)}
    real, linked = deque([folder]), deque[Path]()
    while real or linked:
        try:
            entries = sorted(os.scandir((real or linked).popleft()), key=lambda one: one.name)
        except OSError as error:
            yield Path(error.filename), f"cannot be read: {error.strerror}"
            continue
        for entry in entries:
            path = Path(entry.path)
            if entry.name.startswith(HIDDEN):
                yield from _hidden(path)
            elif (identity := _identity(entry)) is None:
                yield from _file(path, sniff=sniff)
            elif identity not in entered:
                entered.add(identity)
                if is_own_folder(path):
                    continue
                (linked if entry.is_symlink() else real).append(path)
            elif identity in above:
                yield path, "is a link that leads back to a folder above it"


def _file(path: Path, *, sniff: bool) -> Iterator[tuple[Path, str]]:
    suffix = path.suffix.lower()
    if suffix in OTHER_SUFFIXES:
        yield path, f"is a {suffix} file, a kind that is not read; convert it to JPEG or PNG"
    elif suffix in IMAGE_SUFFIXES:
        regular = "" if path.is_file() else "is no regular file"
        yield path, "is a link that leads to nothing" if path.is_symlink() and not path.exists() else regular
    elif sniff and path.is_file() and _starts_like_an_image(path):
        yield path, "is an image by its contents, but not by its name; give it the suffix of its kind, such as .jpg"


def _hidden(path: Path) -> Iterator[tuple[Path, str]]:
    """Hidden files that are called as images are, also with a suffix more. Hidden links to folders are not followed."""
    if path.is_symlink() and path.is_dir():
        return
    files = (
        (Path(where, name) for where, _, names in os.walk(path) for name in names) if path.is_dir() else iter([path])
    )
    for file in files:
        suffixes = {suffix.lower() for suffix in file.suffixes}
        if suffixes & (IMAGE_SUFFIXES | OTHER_SUFFIXES) and not file.name.startswith(RESOURCE_FORK):
            yield file, "is hidden"


def _starts_like_an_image(path: Path) -> bool:
    try:
        with open_regular(path) as file:
            return IMAGE_STARTS.match(file.read(START_BYTES)) is not None
    except OSError:
        return False


def _identity(entry: Path | os.DirEntry[str]) -> tuple[int, int] | None:
    """Device and number of a folder, the same for all its names; None for what is no folder, or cannot be reached."""
    try:
        if isinstance(entry, os.DirEntry) and entry.is_file(follow_symlinks=False):
            return None  # most entries, without another call of the system
        status = entry.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISDIR(status.st_mode) else None


def leads_inside(path: Path, root: Path) -> bool:
    """The name is that of a regular file in ``root``; links in it are followed."""
    try:
        inside = Path(os.path.normpath(path)).is_relative_to(root) or path.resolve().is_relative_to(root)
        return inside and path.is_file()
    except (OSError, RuntimeError, ValueError):  # links in a circle, names with NUL
        return False


def one_called(folders: Iterable[Path], names: Sequence[str]) -> Path | None:
    """The folder with the first of ``names``, whatever its case and hyphens; None without any."""
    known = {re.sub("[^a-z]", "", folder.name.lower()): folder for folder in folders}
    return next((known[name] for name in names if name in known), None)


def visible_folders(folder: Path) -> list[Path]:
    """Folders right in a folder, sorted; links to folders count, hidden ones do not."""
    return sorted(entry for entry in folder.iterdir() if is_visible_folder(entry))


def is_visible_folder(entry: Path) -> bool:
    """A folder, or a link to one, that is not hidden, and that Vitrail did not write."""
    return entry.is_dir() and not entry.name.startswith(HIDDEN) and not is_own_folder(entry)
