"""What a JPEG file says of itself before it is decoded (ITU-T T.81, annex B)."""

from dataclasses import dataclass

SOI = b"\xff\xd8"
_STANDALONE = frozenset((0x01, *range(0xD0, 0xD8)))  # TEM, RST0-7: markers without a length
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0-15 without DHT, JPG, DAC
_PASSED = frozenset((0xC0, 0xC1, 0xC2))  # baseline, extended sequential, progressive: Huffman-coded, lossy
_EOI, _SOS, _APP1 = 0xD9, 0xDA, 0xE1
JPEG_MAX_SIDE = 65500  # what libjpeg encodes; also below the 65535 a metadata row can say
PILLOW_MAX_PIXELS = 178_956_970  # Pillow refuses larger images whatever we allow


@dataclass(frozen=True, slots=True, kw_only=True)
class JpegHeader:
    """Frame header of a JPEG file.

    Attributes:
        width, height: pixels; height may be 0 where the file states it only after the first scan.
        common: baseline, extended sequential or progressive with 8 bits per channel and 1 or 3 channels.
        app1: there is an APP1 segment, so there may be EXIF or XMP with an orientation.
    """

    width: int
    height: int
    common: bool
    app1: bool


def read_jpeg_header(data: bytes) -> JpegHeader | None:
    """Scan the markers up to the frame and the first scan; None if `data` is no JPEG file or ends before them."""
    if not data.startswith(SOI):
        return None
    position, frame, app1 = 2, None, False
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            return None
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker in _STANDALONE:
            position += 2
            continue
        if marker in (_SOS, _EOI):
            break
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        if marker in _FRAMES:
            frame = (marker, data[position + 4 : position + 10])
        app1 = app1 or marker == _APP1
        position += 2 + length
    if frame is None or len(frame[1]) < 6:
        return None
    marker, body = frame
    return JpegHeader(
        width=int.from_bytes(body[3:5], "big"),
        height=int.from_bytes(body[1:3], "big"),
        common=marker in _PASSED and body[0] == 8 and body[5] in (1, 3),
        app1=app1,
    )
