"""Cyclic redundancy checks, reflected and of 32 bits, at about 1.5 GB/s.

TFRecord files carry CRC-32C, which Python has not and without which TensorFlow refuses records. CRC-32 is zlib's; code
that Numba compiles cannot call that.
"""

from functools import cache

import numba
import numpy as np

CRC32 = 0xEDB88320  # reflected polynomials; ITU-T V.42
CRC32C = 0x82F63B78  # RFC 3720, appendix B.4


def crc32c(data: bytes) -> int:
    """CRC-32C of `data`."""
    return int(crc(np.frombuffer(data, np.uint8), crc_tables(CRC32C)))


def masked_crc32c(data: bytes) -> int:
    """CRC-32C as TFRecord stores it: rotated by 15 bits, plus a constant."""
    value = crc32c(data)
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF


@cache
def crc_tables(polynomial: int) -> np.ndarray:
    """uint32 (8, 256): what a byte contributes that is followed by 0 to 7 bytes."""
    tables = np.zeros((8, 256), np.uint32)
    tables[0] = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        tables[0] = np.where(tables[0] & 1, tables[0] >> 1 ^ polynomial, tables[0] >> 1)
    for k in range(1, 8):
        tables[k] = tables[k - 1] >> 8 ^ tables[0][tables[k - 1] & 0xFF]
    return tables


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def crc(data: np.ndarray, tables: np.ndarray) -> int:
    """The check of `data`, uint8 (n,), by `crc_tables` of its polynomial."""
    rest = np.uint32(0xFFFFFFFF)
    whole = len(data) // 8 * 8
    for k in range(0, whole, 8):
        a = rest ^ (
            np.uint32(data[k])
            | np.uint32(data[k + 1]) << np.uint32(8)
            | np.uint32(data[k + 2]) << np.uint32(16)
            | np.uint32(data[k + 3]) << np.uint32(24)
        )
        rest = (
            tables[7, a & np.uint32(0xFF)]
            ^ tables[6, a >> np.uint32(8) & np.uint32(0xFF)]
            ^ tables[5, a >> np.uint32(16) & np.uint32(0xFF)]
            ^ tables[4, a >> np.uint32(24)]
            ^ tables[3, data[k + 4]]
            ^ tables[2, data[k + 5]]
            ^ tables[1, data[k + 6]]
            ^ tables[0, data[k + 7]]
        )
    for k in range(whole, len(data)):
        rest = rest >> np.uint32(8) ^ tables[0, (rest ^ np.uint32(data[k])) & np.uint32(0xFF)]
    return rest ^ np.uint32(0xFFFFFFFF)
