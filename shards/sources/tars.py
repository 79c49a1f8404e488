"""Tars of images: WebDatasets, tars of class folders, and tars of such tars.

Here members of tars become what a source lists; how a tar is read is in ``archives``, what a sample
is in ``tar_samples``, and what its label is in ``tar_labels``.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from shards.errors import ShardError
from shards.images import SUFFIXES
from shards.kinds import reason_without_image
from shards.rejects import Reject, Rejection
from shards.sources.archives import Archive, read_archives
from shards.sources.candidates import Candidate, Listing, suffix
from shards.sources.junk import is_junk
from shards.sources.layouts import read_layout
from shards.sources.tar_labels import choose_label, note_of_label
from shards.sources.tar_samples import TarContent, TarSample, read_samples

_COMPRESSED = re.compile(r".*\.(tar\.(gz|bz2|xz|zst|lz4|Z)|tgz|tbz2?|txz|tzst)", re.IGNORECASE)
_WNID = re.compile(r"n\d{8}")
# beside shards there may be a picture of each; more are a folder of images
_FEW = 4
# how much larger than the images beside them shards are, and a copy of these images is not
_FACTOR = 4
_DIGIT = re.compile(r"\d")
_NAMED = 3  # names in a message
# what says that an image has no label
_NO_CLASS = ("", "-1")


def list_tar(path: str) -> Listing:
    """The images in a tar.

    The samples are those of ``read_samples``, their classes those that are said beside them, or
    else the folders that they are in.

    Args:
        path: path or URL of the tar.

    Returns:
        The images; links, unsafe names, and members that belong to no image are rejects.

    Raises:
        ShardError: It is not a whole tar, or a compressed one.
    """
    name = path.rpartition("/")[2]
    return _list_content({name: path}, has_folders=True)


def list_tars(folder: str, sizes: Mapping[str, int]) -> Listing:
    """The images in the tars in a folder, at any depth.

    Args:
        folder: path or URL of the folder.
        sizes: all files in it, see ``storage.listing``.

    Returns:
        The images; files that are no tars are rejects.

    Raises:
        ShardError: One is not a whole tar, or a compressed one.
    """
    refuse_compressed(folder, sizes)
    tars = find_tars(sizes)
    paths = {name: f"{folder}/{name}" for name in tars}
    listing = _list_content(paths, has_folders="index.json" not in sizes)
    others = sizes.keys() - paths.keys()
    reasons = {
        name: Reject.JUNK if is_junk(name) else reason_without_image(suffix(name))
        for name in others
    }
    rejects = [Rejection(reason, name) for name, reason in reasons.items()]
    pictures = sorted(name for name in others if suffix(name) in SUFFIXES and not is_junk(name))
    notes = [*listing.notes]
    if pictures:
        notes.append(
            f"the set has the images in the tars, not those beside them: {_examples(pictures)}"
        )
    folders = {name.rpartition("/")[0] for name in tars}
    if len(folders) > 1:
        named = _examples([place or "the folder itself" for place in sorted(folders)])
        notes.append(f"the tars of several folders are one set: {named}; or name one of them")
    return listing._replace(rejects=listing.rejects + rejects, notes=notes)


def refuse_compressed(folder: str | Path, sizes: Mapping[str, int]) -> None:
    """A ``ShardError`` if there are compressed tars among the files of a folder of tars."""
    compressed = [name for name in sizes if _COMPRESSED.fullmatch(name) and not is_junk(name)]
    if compressed:
        raise ShardError(
            f"wanted tars that are not compressed in {folder}, got {_examples(compressed)}; "
            "unpack them first (gunzip or the like), or move them away"
        )


def find_tars(sizes: Mapping[str, int]) -> list[str]:
    """The tars among some files, sorted."""
    return sorted(name for name in sizes if suffix(name) == ".tar" and not is_junk(name))


def outweigh(tars: Sequence[str], images: Sequence[str], sizes: Mapping[str, int]) -> bool:
    """Whether a folder is one of tars, and the images in it are previews of them.

    Args:
        tars: names of the tars.
        images: names of the images beside them.
        sizes: the bytes of all.
    """
    if not images or not tars:
        return bool(tars)
    folders = {name.rpartition("/")[0] for name in images}
    tar_bytes = sum(sizes[name] for name in tars)
    loose_bytes = sum(sizes[name] for name in images)
    is_few = len(folders) == 1 and len(images) <= max(len(tars), _FEW)
    return is_few and tar_bytes >= _FACTOR * loose_bytes


def note_of_unread(tars: Sequence[str]) -> str:
    """What is to be told of tars beside images that are the source."""
    return f"the set has the images in the folder, not those in its tars: {_examples(tars)}"


def _list_content(paths: Mapping[str, str], *, has_folders: bool) -> Listing:
    """The images in some tars.

    Args:
        paths: path of each tar by its name in the source.
        has_folders: whether folders in tars may be classes.
    """
    archives = list[Archive]()
    for name, path in paths.items():
        archives += read_archives(path, name[: -len(".tar")])
    content = read_samples(archives)
    images = [
        Candidate(
            sample.archive.path,
            f"{sample.archive.name}/{sample.member.name}",
            size=sample.member.size,
            offset=sample.member.offset,
        )
        for sample in content.samples
    ]
    form = "a tar" if len(paths) == 1 else f"{len(paths):,} tars"
    listing = Listing(images, content.rejects, _notes_on_members(content), True, form)
    kind = choose_label([sample.texts for sample in content.samples])
    if kind is not None:
        values = [sample.texts.get(kind, "") for sample in content.samples]
        class_names = [None if value in _NO_CLASS else value for value in values]
        return _with_classes(listing, class_names, note_of_label(kind))
    if has_folders and not content.has_fields:
        return _with_folders(listing, content.samples)
    return listing


def _with_classes(
    listing: Listing, class_names: Sequence[str | None], notes: Sequence[str]
) -> Listing:
    """The same images with classes."""
    images = [
        image._replace(class_name=class_name)
        for image, class_name in zip(listing.images, class_names, strict=True)
    ]
    return listing._replace(images=images, notes=[*listing.notes, *notes])


def _with_folders(listing: Listing, samples: Sequence[TarSample]) -> Listing:
    """The same images with the folders in the tars as their classes, if there are several."""
    files = sorted({sample.archive.file for sample in samples})
    outer = dict(zip(files, _outer_folders(files), strict=True))
    layout = read_layout([_layout_name(sample, outer) for sample in samples])
    class_names = sorted({name for name in layout.class_names if name is not None})
    notes = [*layout.notes]
    if class_names:
        notes.append(
            f"the classes are the folders in the tars, or the tars: {_examples(class_names)}; "
            "if they are none, use --no-classes"
        )
    return _with_classes(listing, layout.class_names, notes)._replace(is_table=False)


def _outer_folders(files: Sequence[str]) -> list[str]:
    """What the names of tars say of the classes in them.

    A tar is a class where all tars are called by WordNet's numbers, or none has a number, as shards
    do; the folder it is in, where all are in some folder.
    """
    stems = {file.rpartition("/")[2] for file in files}
    are_named = all(map(_WNID.fullmatch, stems)) or not any(map(_DIGIT.search, stems))
    if are_named and len(stems) > 1:
        return [*files]
    if all("/" in file for file in files):
        return [file.rpartition("/")[0] for file in files]
    return ["" for _ in files]


def _layout_name(sample: TarSample, outer: Mapping[str, str]) -> str:
    """The path of an image by what its tar says, the folders in that, and its own name."""
    parts = (outer[sample.archive.file], sample.archive.inner, sample.member.name)
    return "/".join(part.removeprefix("./") for part in parts if part)


def _notes_on_members(content: TarContent) -> list[str]:
    """What is to be told of image files that are no samples, and of compressed tars in tars."""
    notes = list[str]()
    if content.maps:
        notes.append(
            f"{len(content.maps):,} image files belong to another one of their key, as label maps "
            f"do, and are no samples: {_examples(content.maps)}"
        )
    compressed = [name for _, name in content.rejects if _COMPRESSED.fullmatch(name)]
    if compressed:
        notes.append(f"compressed tars in tars are not read: {_examples(compressed)}")
    return notes


def _examples(names: Sequence[str]) -> str:
    """Some names for a message."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")
