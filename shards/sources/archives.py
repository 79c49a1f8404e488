"""What is in a tar, in the tars inside of it, and in what was appended to it.

Here a tar becomes members with their places; what they mean to a sample is in ``tar_samples``.
Every member is listed, rejected by name, or the whole tar refused: a damaged header is never taken
for the end.
"""

import tarfile
from collections.abc import Sequence
from typing import IO, NamedTuple
from shards import storage
from shards.errors import ShardError
from shards.images import SUFFIXES
from shards.index import webdataset_key
from shards.rejects import Reject, Rejection
from shards.sources.candidates import suffix
from shards.sources.junk import is_junk
from shards.sources.tar_labels import read_texts

_MAGIC_BYTES = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}
# of tars in tars: ImageNet's has one level
_MAX_DEPTH = 3
_CHUNK_BYTES = 1 << 16


class Member(NamedTuple):
    """A file in a tar.

    Attributes:
        name: its path in the tar.
        offset: where its first byte is, in the file of the outermost tar.
        size: how many bytes it has.
        texts: what may be the label of a sample, see ``read_texts``.
    """

    name: str
    offset: int
    size: int
    texts: dict[str, str]


class Archive(NamedTuple):
    """One tar: a file, or a part of one.

    Attributes:
        path: path or URL of the file.
        file: name of the file in the source, without the suffix.
        name: the name of the tar in the source, without the suffix.
        inner: path of a tar in a tar, without the suffix; "" of any other one.
        members: the files in it.
        rejects: members that are no files of the user's.
    """

    path: str
    file: str
    name: str
    inner: str
    members: list[Member]
    rejects: list[Rejection]


class _Span(NamedTuple):
    """The bytes of a tar in a file, and what the tar is called (see ``Archive``)."""

    start: int
    end: int
    name: str
    inner: str = ""


def read_archives(path: str, name: str) -> list[Archive]:
    """Read the headers of a tar, of those in it, and of those appended to it.

    Args:
        path: path or URL of the tar.
        name: its name in the source, without the suffix.

    Returns:
        The tars; appended ones are called ``name~2`` and so on.

    Raises:
        ShardError: One of them is not a whole tar, or a compressed one.
    """
    try:
        with storage.nearby(path) as local, local.open("rb") as file:
            archives = _read_span(file, _Span(0, local.stat().st_size, name), 0)
    except (tarfile.TarError, OSError, ValueError) as error:
        if isinstance(error, OSError):
            storage.refuse_disk_error(error, path)
        raise ShardError(
            f"{path} is not a whole tar: {error}; copy it again, or leave it out"
        ) from None
    return [archive._replace(path=path, file=name) for archive in archives]


def _read_span(file: IO[bytes], span: _Span, depth: int) -> list[Archive]:
    """The tars in a part of a file, and those inside of them."""
    archives = list[Archive]()
    start: int | None = span.start
    number = 1
    while start is not None:
        name = span.name if number == 1 else f"{span.name}~{number}"
        archive, end = _read_one(file, span._replace(start=start, name=name))
        inside = _tars_among(file, archive.members) if depth < _MAX_DEPTH else []
        places = {member.offset for member in inside}
        rest = [member for member in archive.members if member.offset not in places]
        archives.append(archive._replace(members=rest))
        for member in inside:
            archives += _read_span(file, _span_of(archive, member), depth + 1)
        start = _next_start(file, end, span.end)
        number += 1
    return archives


def _span_of(archive: Archive, member: Member) -> _Span:
    """The bytes of a tar that is a member of another one."""
    stem = member.name[: -len(".tar")]
    inner = f"{archive.inner}/{stem}" if archive.inner else stem
    return _Span(member.offset, member.offset + member.size, f"{archive.name}/{stem}", inner)


def _tars_among(file: IO[bytes], members: Sequence[Member]) -> list[Member]:
    """The members that are tars, and no fields of a sample with an image."""
    tars = [member for member in members if suffix(member.name) == ".tar"]
    if not tars:
        return []
    image_keys = {
        webdataset_key(member.name) for member in members if suffix(member.name) in SUFFIXES
    }
    free = [member for member in tars if webdataset_key(member.name) not in image_keys]
    return [member for member in free if _is_tar(file, member)]


def _is_tar(file: IO[bytes], member: Member) -> bool:
    """Whether a member is meant as a tar, damaged or compressed perhaps; no ``model.pth.tar``."""
    file.seek(member.offset)
    block = file.read(tarfile.BLOCKSIZE)
    if block.startswith((*_MAGIC_BYTES,)) or block[257:262] == b"ustar":
        return True
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _read_one(file: IO[bytes], span: _Span) -> tuple[Archive, int]:
    """The tar at the start of a span, and where its last member ends."""
    _refuse_compressed(file, span)
    file.seek(span.start)
    tar = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 (it ends with the file)
    archive = Archive("", "", span.name, span.inner, [], [])
    for info in tar:
        reason = _reason_against(info)
        if reason is not None:
            archive.rejects.append(Rejection(reason, f"{span.name}/{info.name}"))
        elif not info.isdir():
            texts = read_texts(tar, info)
            archive.members.append(Member(info.name, info.offset_data, info.size, texts))
    _check_end(file, tar.offset, span)
    return archive, tar.offset


def _reason_against(info: tarfile.TarInfo) -> Reject | None:
    """Why a member is none of the user's files, None of files and folders."""
    if info.isdir():
        return None
    if not info.isreg():
        return Reject.NOT_A_FILE
    if info.name.startswith("/") or ".." in info.name.split("/"):
        return Reject.UNSAFE_NAME  # it would lead out of the folder that the tar is unpacked in
    if is_junk(info.name):
        return Reject.JUNK
    if info.issparse():
        return Reject.SPARSE  # its bytes are not the file's
    return None


def _refuse_compressed(file: IO[bytes], span: _Span) -> None:
    """A ``tarfile.ReadError`` if bytes are those of a compressed file."""
    file.seek(span.start)
    first_bytes = file.read(6)
    for magic, program in _MAGIC_BYTES.items():
        if first_bytes.startswith(magic):
            inside = f", {span.inner}.tar in it," if span.inner else ""
            raise tarfile.ReadError(f"it{inside} is compressed by {program}: unpack it first")


def _check_end(file: IO[bytes], end: int, span: _Span) -> None:
    """Refuse a tar without an empty block behind its last member.

    tarfile takes a damaged header for the end.

    Args:
        file: the file.
        end: where the last member that tarfile saw ends.
        span: the bytes of the tar.

    Raises:
        tarfile.ReadError: It is damaged or cut off there.
    """
    file.seek(end)
    block = file.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE or any(block) or end + tarfile.BLOCKSIZE > span.end:
        inside = f"{span.inner}.tar in it is " if span.inner else ""
        raise tarfile.ReadError(f"{inside}damaged or cut off at byte {end}")


def _next_start(file: IO[bytes], position: int, end: int) -> int | None:
    """Where an appended tar begins behind a tar's empty blocks, or None if there is none."""
    file.seek(position)
    while position < end:
        chunk = file.read(min(_CHUNK_BYTES, end - position))
        if not chunk:
            break
        filled = chunk.lstrip(b"\0")
        if filled:
            first = position + len(chunk) - len(filled)
            return first // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
        position += len(chunk)
    return None
