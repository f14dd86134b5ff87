"""Damage in a JPEG that libjpeg only warns about, and Pillow not at all: the rest would be scored as grey.

Checked on the bytes, because a second decoder costs as much as the first: an end marker, restart markers in
order, and no hole of zeros where zero bits cannot be part of a picture.  Unnoticed: a hole filled with other
picture data, and zeros that could be a flat area (in some optimised files; in the first scan of a progressive
file and in those that refine it).
"""

import re

from common import BadImage

FILL, SCAN, TABLES, RESTARTS, END = b"\xff", b"\xda", b"\xc4", b"\xdd", b"\xff\xd9"
PROGRESSIVE = (b"\xc2", b"\xc6", b"\xca", b"\xce")
SCAN_END = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
RESTART = re.compile(rb"\xff([\xd0-\xd7])")
RESTART_CYCLE = bytes(range(0xD0, 0xD8))
# The longest run that counts in a whole file was 9 bytes (photographs of 15 cameras; flat pictures).
HOLE = bytes(64)
# Symbols of a flat block: no difference to the block before, nothing but zeros after it.
SAME, END_OF_BLOCK = 0, 0


def check_jpeg(content):
    """BadImage where the bytes of a JPEG are truncated or have a hole in the middle."""
    headers = list(_headers(content, 2))
    first = headers[-1][2] if headers else len(content)
    if content.rfind(END, first) < 0:
        raise BadImage("truncated: the JPEG has no end marker")
    if any(marker == RESTARTS for marker, _, _ in headers) or content.find(HOLE, first) >= 0:
        _check_scans(content, headers)


def _headers(content, position):
    """Yields (marker, content, position behind it) of each segment up to a scan's header or the end."""
    while content[position : position + 1] == FILL and content[position : position + 2] != END:
        marker = content[position + 1 : position + 2]
        if marker == FILL:
            position += 1
            continue
        start = position + 4
        position = min(position + 2 + int.from_bytes(content[start - 2 : start], "big"), len(content))
        yield marker, content[start:position], position
        if marker == SCAN:
            return


def _check_scans(content, headers):
    zero_codes, progressive, restarts = {}, False, False
    while headers:
        for marker, segment, _ in headers:
            progressive |= marker in PROGRESSIVE
            restarts |= marker == RESTARTS and any(segment)
            if marker == TABLES:
                zero_codes.update(_zero_codes(segment))
        marker, segment, start = headers[-1]
        if marker != SCAN or (end := SCAN_END.search(content, start)) is None:
            return
        if restarts:
            _check_restarts(content[start : end.start()])
        if not _may_be_zeros(segment, zero_codes, progressive):
            hole = content.find(HOLE, start, end.start())
            if hole >= 0:
                raise BadImage(f"damaged: a hole of zeros at byte {hole:,} of the JPEG")
        headers = list(_headers(content, end.start()))


def _check_restarts(scan):
    restarts = b"".join(RESTART.findall(scan))
    if restarts != (RESTART_CYCLE * (len(restarts) // 8 + 1))[: len(restarts)]:
        raise BadImage("damaged: a part of the JPEG is missing (its restart markers are out of order)")


def _zero_codes(segment):
    """{class and number of a Huffman table: the symbol whose code has zero bits only}."""
    position, symbols = 0, {}
    while position + 17 < len(segment):
        symbols[segment[position]] = segment[position + 17]
        position += 17 + sum(segment[position + 1 : position + 17])
    return symbols


def _may_be_zeros(header, zero_codes, progressive):
    """Whether zero bits may be a part of this scan: a flat part of the picture."""
    count = header[0]
    # One byte per component: its tables of the differences << 4 | of the other coefficients.
    tables = header[2 : 2 + 2 * count : 2]
    first_coefficient, refined = header[1 + 2 * count], header[3 + 2 * count] >> 4
    if progressive and first_coefficient:
        return refined > 0  # equal blocks are counted, not repeated; the bits of a refinement may be zeros
    flat = all(zero_codes.get(table >> 4) == SAME for table in tables)
    if progressive:
        return refined > 0 or flat
    return flat and all(zero_codes.get(16 | table & 15) == END_OF_BLOCK for table in tables)
