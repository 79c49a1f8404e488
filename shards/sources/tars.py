"""Tars of images: WebDatasets of webdataset, of img2dataset, or of this package."""

import tarfile
from pathlib import PurePosixPath
from typing import IO, NamedTuple
from shards import storage
from shards.errors import ShardError
from shards.images import SUFFIXES
from shards.index import webdataset_key
from shards.rejects import Reject, Rejection
from shards.sources.candidates import Candidate, Listing, suffix

_GZIP_MAGIC = b"\x1f\x8b"
_MAX_CLASS_BYTES = 1000


class _Member(NamedTuple):
    """A member of a tar.

    Attributes:
        info: its name, kind, size and place.
        class_name: the text of a ``.cls``, None of any other member.
    """

    info: tarfile.TarInfo
    class_name: str | None


def list_tar(path: str) -> Listing:
    """The images in a tar.

    Every image member is a sample; its class is the text of the ``.cls`` beside it. Other members
    of its key are not looked at.

    Args:
        path: path or URL of the tar.

    Returns:
        The images; links, unsafe names, and members that belong to no image are rejects.

    Raises:
        ShardError: It is not a whole tar, or a compressed one.
    """
    tar_name = PurePosixPath(path).stem
    images = list[tuple[str, Candidate]]()
    others = list[tuple[str, str]]()
    class_names = dict[str, str]()
    rejects = list[Rejection]()
    for info, class_name in _read_members(path):
        name = f"{tar_name}/{info.name}"
        key = webdataset_key(info.name)
        if not info.isreg():
            rejects.append(Rejection(Reject.NOT_A_FILE, name))
        elif _is_unsafe(info.name):
            rejects.append(Rejection(Reject.UNSAFE_NAME, name))
        elif class_name is not None and key not in class_names:
            class_names[key] = class_name
        elif suffix(info.name) in SUFFIXES:
            image = Candidate(path, name, size=info.size, offset=info.offset_data)
            images.append((key, image))
        else:
            others.append((key, name))
    image_keys = {key for key, _ in images}
    rejects += [Rejection(Reject.OTHER_FILE, name) for key, name in others if key not in image_keys]
    classified = [image._replace(class_name=class_names.get(key)) for key, image in images]
    return Listing(classified, rejects)


def _read_members(path: str) -> list[_Member]:
    """The members of a tar that are no folders, with the texts of its classes."""
    try:
        with storage.nearby(path) as local, local.open("rb") as file:
            if file.peek(2)[:2] == _GZIP_MAGIC:
                raise tarfile.ReadError("it is compressed by gzip: unpack it first")
            tar = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 (it ends with the file)
            members = [
                _Member(info, _read_class_name(tar, info)) for info in tar if not info.isdir()
            ]
            _check_end(file, tar.offset)
    except (tarfile.TarError, OSError, ValueError) as error:
        raise ShardError(
            f"{path} is not a whole tar: {error}; copy it again, or leave it out"
        ) from None
    return members


def _read_class_name(tar: tarfile.TarFile, info: tarfile.TarInfo) -> str | None:
    """The text of a ``.cls`` member, None of any other one."""
    if not info.isreg() or _is_unsafe(info.name):
        return None
    if info.name != f"{webdataset_key(info.name)}.cls":
        return None
    file = tar.extractfile(info)
    if file is None:
        return None
    return file.read(_MAX_CLASS_BYTES).decode(errors="replace").strip()


def _check_end(file: IO[bytes], end: int) -> None:
    """Refuse a tar without an empty block behind its last member.

    tarfile takes a damaged header for the end.

    Args:
        file: the tar.
        end: where the last member that tarfile saw ends.

    Raises:
        tarfile.ReadError: It is damaged or cut off there.
    """
    file.seek(end)
    block = file.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE or any(block):
        raise tarfile.ReadError(f"damaged or cut off at byte {end}")


def _is_unsafe(name: str) -> bool:
    """Whether a member's name would lead out of the folder that the tar is unpacked in."""
    return name.startswith("/") or ".." in PurePosixPath(name).parts
