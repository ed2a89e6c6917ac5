"""Samples as records of the containers that DALI, TensorFlow, MXNet and WebDataset read, with DALI's index beside them.

An index is a text file with one line per sample, so a smaller subset of the same container is a choice of its lines.
"""

import struct
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from prunekd.store.format.crc import masked_crc32c

MAGIC = struct.pack("<I", 0xCED7230A)  # of RecordIO
TAR_BLOCK = 512


class Exported(NamedTuple):
    """One sample on its way out: `label` is what stands where a reader looks for it, class or id; `payload` a file."""

    id: int
    label: int
    key: str
    payload: bytes
    extension: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A kind of container.

    Attributes:
        suffix: of its files; their indices end in `.idx`.
        add: append a sample to an open file; returns its line of the index.
        head: first line of an index of so many samples.
        end: what closes a file.
        several: whether one export may be several files; DALI's MXNet reader takes one index.
    """

    suffix: str
    add: Callable[[BinaryIO, Exported], str]
    head: Callable[[int], str] = lambda count: ""
    end: bytes = b""
    several: bool = True


def add_tfrecord(file: BinaryIO, sample: Exported) -> str:
    """A tf.train.Example with image/encoded, image/class/label, image/id and image/filename; index: offset, size."""
    features = {
        "image/encoded": _bytes_feature(sample.payload),
        "image/class/label": _int_feature(sample.label),
        "image/id": _int_feature(sample.id),
        "image/filename": _bytes_feature(sample.key.encode()),
    }
    entries = (_field(1, name.encode()) + _field(2, value) for name, value in features.items())
    example = _field(1, b"".join(_field(1, entry) for entry in entries))
    start = file.tell()
    length = struct.pack("<Q", len(example))
    file.write(length + struct.pack("<I", masked_crc32c(length)))
    file.write(example + struct.pack("<I", masked_crc32c(example)))
    return f"{start} {file.tell() - start}\n"


def add_recordio(file: BinaryIO, sample: Exported) -> str:
    """MXNet's image record; index: id, offset.

    Where the magic number stands at a multiple of 4 bytes in the data, the record is cut there and the number left
    out, so that it marks beginnings alone; readers put it back.
    """
    start = file.tell()
    data = struct.pack("<IfQQ", 0, sample.label, sample.id, 0) + sample.payload
    parts, begin = [], 0
    found = data.find(MAGIC)
    while found >= 0:
        if found % 4 == 0:
            parts.append(data[begin:found])
            begin = found + 4
        found = data.find(MAGIC, found + (4 if found % 4 == 0 else 1))
    parts.append(data[begin:])
    for k, part in enumerate(parts):
        position = 0 if len(parts) == 1 else 1 if k == 0 else 3 if k == len(parts) - 1 else 2
        file.write(MAGIC + struct.pack("<I", position << 29 | len(part)) + part + bytes(-len(part) % 4))
    return f"{sample.id}\t{start}\n"


def add_webdataset(file: BinaryIO, sample: Exported) -> str:
    """Members ID.jpg or ID.png, ID.cls and ID.id of a tar file; index: extension, offset, size and name of each."""
    members = {
        sample.extension: sample.payload,
        "cls": str(sample.label).encode(),
        "id": str(sample.id).encode(),
    }
    line = []
    for extension, data in members.items():
        info = tarfile.TarInfo(f"{sample.id:09}.{extension}")
        info.size = len(data)
        file.write(info.tobuf(tarfile.USTAR_FORMAT))
        line.append(f"{extension} {file.tell()} {len(data)} {info.name}")
        file.write(data + bytes(-len(data) % TAR_BLOCK))
    return " ".join(line) + "\n"


CONTAINERS = {
    "tfrecord": Container(suffix=".tfrecord", add=add_tfrecord),
    "recordio": Container(suffix=".rec", add=add_recordio, several=False),
    "webdataset": Container(
        suffix=".tar", add=add_webdataset, head=lambda count: f"v1.2 {count}\n", end=bytes(2 * TAR_BLOCK)
    ),
}


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _field(number: int, data: bytes) -> bytes:
    """A length-delimited field of a protocol buffer."""
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _bytes_feature(value: bytes) -> bytes:
    return _field(1, _field(1, value))


def _int_feature(value: int) -> bytes:
    return _field(3, _field(1, _varint(value)))
