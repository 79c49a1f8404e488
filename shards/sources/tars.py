"""WebDatasets that others have made."""

import tarfile
from pathlib import PurePosixPath
from typing import Any
from shards import storage
from shards.errors import ShardError
from shards.images import SUFFIXES
from shards.index import stem
from shards.rejects import Reject
from shards.sources.candidates import Candidate, suffix


def list_tar(path: str, rejects: list[Any]) -> list[Candidate]:
    above, images, labels, others = (
        PurePosixPath(path).stem,
        list[tuple[str, Candidate]](),
        dict[str, str](),
        list[tuple[str, str]](),
    )
    try:
        with storage.nearby(path) as near, near.open("rb") as file:
            if file.peek(2)[:2] == b"\x1f\x8b":
                raise tarfile.ReadError("it is compressed by gzip: unpack it first")
            tar = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 (it ends with the file)
            for info in (member for member in tar if not member.isdir()):
                name, key = f"{above}/{info.name}", stem(info.name)
                if not info.isreg():
                    rejects.append((Reject.NOT_A_FILE, name))
                elif info.name.startswith("/") or ".." in PurePosixPath(info.name).parts:
                    rejects.append((Reject.UNSAFE_NAME, name))
                elif info.name == f"{key}.cls" and key not in labels:
                    labels[key] = tar.extractfile(info).read(1000).decode(errors="replace").strip()  # type: ignore[union-attr]
                elif suffix(info.name) in SUFFIXES:
                    images.append(
                        (key, Candidate(path, name, size=info.size, offset=info.offset_data))
                    )
                else:
                    others.append((key, name))
            file.seek(tar.offset)  # tarfile takes a damaged header for the end
            if len(end := file.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE or any(end):
                raise tarfile.ReadError(f"damaged or cut off at byte {tar.offset}")
    except (tarfile.TarError, OSError, ValueError) as error:
        raise ShardError(
            f"{path} is not a whole tar: {error}; copy it again, or leave it out"
        ) from None
    keys = {key for key, _ in images}
    rejects += [(Reject.OTHER_FILE, name) for key, name in others if key not in keys]
    return [image._replace(text=labels.get(key)) for key, image in images]
