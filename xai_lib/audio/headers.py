"""Correction of sound file headers that leave the length open or give a wrong one.

A recorder that was cut off, a stream written to a pipe, and a file cut by bytes all have such headers, and a decoder
that relies on them loses sound silently. Only the header is corrected; the encoded sound is passed on unchanged.

Sources: RFC 9639 (FLAC), the RIFF specification of Microsoft and IBM (WAVE), ISO 11172-3 and 13818-3 (MPEG audio),
and the layout of Xing's first frame as LAME writes it.
"""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

ID3_HEADER = 10  # bytes


def corrected(source: Path | bytes) -> io.BufferedIOBase | None:
    """Return the file's content with a header that gives its whole length, or None if it can be read as it is.

    Parameters
    ----------
    source : Path or bytes
        A file, or the content of one.
    """
    beginning = _first_bytes(source)
    if beginning[:3] == b"ID3":
        content = _all_bytes(source)
        content = content[_after_id3(content) :]
        if content[:4] == b"fLaC":
            return io.BytesIO(_flac_of_open_length(content))
        if content[:4] == b"RIFF":  # a decoder that skips the tag reads less, by the length of the tag
            return _wave(content, len(content)) or io.BytesIO(content)
    if beginning[:4] == b"fLaC":
        return io.BytesIO(_flac_of_open_length(_all_bytes(source)))
    if beginning[:4] == b"RIFF" and beginning[8:12] == b"WAVE":
        size = source.stat().st_size if isinstance(source, Path) else len(source)
        return _wave(source, size)
    if beginning[:4] == b"OggS":
        _warn_of_further_streams(source)
        return None
    if _begins_as_mpeg(beginning):
        return _mpeg(_all_bytes(source))
    return None


def begins_as_sound(source: Path | bytes) -> bool:
    """Return True if the file begins like a WAV, FLAC, Ogg or MP3 file."""
    beginning = _first_bytes(source)
    return beginning[:4] in (b"RIFF", b"RIFX", b"fLaC", b"OggS") or _begins_as_mpeg(beginning)


def _warn(source, text):
    """Warn that a part of the file was not read; the warning names the file."""
    name = source if isinstance(source, Path) else "a sound file in memory"
    warnings.warn(f"{name}: {text}", stacklevel=2)


def _first_bytes(source) -> bytes:
    """Return the first bytes of a file."""
    if isinstance(source, bytes):
        return source[:4096]
    with open(source, "rb") as file:
        return file.read(4096)


def _all_bytes(source) -> bytes:
    """Return all bytes of a file."""
    return source if isinstance(source, bytes) else source.read_bytes()


# ---------- FLAC


def _flac_of_open_length(content: bytes) -> bytes:
    """Return FLAC whose header leaves the number of samples open, so that it is read to its end.

    The number is the last 36 bits of bytes 18 to 25; 0 means that it is not known. The checksum of all samples, the 16
    bytes after it, is set to 0 too.
    """
    if len(content) < 42:
        return content
    header = bytearray(content[:42])
    header[21] &= 0xF0
    header[22:42] = bytes(20)
    return bytes(header) + content[42:]


# ---------- WAVE


def _wave(source, size: int) -> io.BytesIO | None:
    """Return a WAVE file with sizes filled in, if its recorder left them open; None if it can be read as it is.

    In a file with open sizes all bytes after the header are sound. Where the header gives the size of the whole file,
    bytes beyond the samples are something else, such as a tag.
    """
    data = _data_chunk(source, size)
    if data is None:
        return None
    start, declared = data
    available = size - start
    if available == 0 or declared >= available:  # cut off: the decoder reads the bytes that exist
        return None
    size_is_open = _bytes_at(source, 4, 4) in (bytes(4), b"\xff" * 4)
    if declared == 0:
        size_is_open = not _chunk_begins(source, start, size)
    end = start + declared + declared % 2
    if _chunk_begins(source, end, size):
        return None
    if not size_is_open:
        if not _is_tag(_bytes_at(source, end, 8)):
            _warn(source, f"{size - end} bytes follow the samples declared in the header and were not read")
        return None
    content = bytearray(_all_bytes(source))
    content[4:8] = struct.pack("<I", min(size - 8, 0xFFFFFFFF))
    content[start - 4 : start] = struct.pack("<I", min(available, 0xFFFFFFFF))
    return io.BytesIO(bytes(content))


def _data_chunk(source, size: int) -> tuple[int, int] | None:
    """Return where the samples begin and the number of bytes that the header declares; None if no such chunk exists."""
    position = 12
    while position + 8 <= size:
        name, declared = struct.unpack("<4sI", _bytes_at(source, position, 8))
        if name == b"data":
            return position + 8, declared
        if not _is_printable(name):
            return None
        position += 8 + declared + declared % 2
    return None


def _chunk_begins(source, position: int, size: int) -> bool:
    """Return True if a chunk (four printable letters and a size that fits) begins at the position, or the file ends."""
    if position >= size:
        return True
    head = _bytes_at(source, position, 8)
    if len(head) < 8:
        return not head.strip(b"\0")
    return _is_printable(head[:4]) and position + 8 + struct.unpack("<I", head[4:])[0] <= size + 1


def _is_tag(head: bytes) -> bool:
    """Return True if these bytes begin a tag of another format, or padding."""
    return head.startswith((b"TAG", b"APETAGEX", b"ID3", b"3DI")) or not head.strip(b"\0")


def _is_printable(name: bytes) -> bool:
    """Return True if these bytes can be the name of a chunk."""
    return all(32 <= letter < 127 for letter in name)


def _bytes_at(source, position: int, count: int) -> bytes:
    """Return `count` bytes of a file from `position`."""
    if isinstance(source, bytes):
        return source[position : position + count]
    with open(source, "rb") as file:
        file.seek(position)
        return file.read(count)


# ---------- Ogg


def _warn_of_further_streams(source):
    """Warn if an Ogg file has several streams one after the other (chained): decoders read only the first."""
    content = _all_bytes(source)
    position = 0
    streams = 0
    was_first_page = False
    while content[position : position + 4] == b"OggS" and position + 27 <= len(content):
        is_first_page = bool(content[position + 5] & 2)
        if is_first_page and not was_first_page:  # multiplexed streams begin together
            streams += 1
        was_first_page = is_first_page
        segments = content[position + 26]
        position += 27 + segments + sum(content[position + 27 : position + 27 + segments])
    if streams > 1:
        _warn(source, f"{streams} chained Ogg streams, of which only the first is read: split the file")


# ---------- MPEG audio (mp3)

# Bit rates in kbit/s by version (1, or 2 and 2.5), layer and the header's four bits; 0 is not used here.
BIT_RATES = {
    (1, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
SAMPLE_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # by the header's version


@dataclass(frozen=True)
class Frame:
    """The header (four bytes) of a frame of MPEG audio."""

    version: int  # 1 or 2 (2 also for 2.5, which has the same tables)
    layer: int
    bit_rate: int  # bit/s
    sample_rate: int  # Hz
    mono: bool
    size: int  # bytes, including the header
    samples: int
    stream: bytes  # what all frames of one stream have in common


class FrameAt(NamedTuple):
    """A frame of MPEG audio in a file."""

    position: int  # of its first byte
    frame: Frame

    @property
    def end(self) -> int:
        """Return the position after the frame."""
        return self.position + self.frame.size


def _frame(header: bytes) -> Frame | None:
    """Parse a frame's header; return None if it is none."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version_bits = header[1] >> 3 & 3
    layer_bits = header[1] >> 1 & 3
    rate_bits = header[2] >> 4
    sample_rate_bits = header[2] >> 2 & 3
    if version_bits == 1 or layer_bits == 0 or rate_bits in (0, 15) or sample_rate_bits == 3:
        return None
    version = 1 if version_bits == 3 else 2
    layer = 4 - layer_bits
    bit_rate = 1000 * BIT_RATES[version, layer][rate_bits]
    sample_rate = SAMPLE_RATES[version_bits][sample_rate_bits]
    padding = header[2] >> 1 & 1
    if layer == 1:
        samples = 384
        size = (12 * bit_rate // sample_rate + padding) * 4
    else:
        samples = 576 if layer == 3 and version == 2 else 1152
        size = samples // 8 * bit_rate // sample_rate + padding
    stream = bytes([header[1] & 0xFE, header[2] & 0x0C])
    return Frame(version, layer, bit_rate, sample_rate, header[3] >> 6 == 3, size, samples, stream)


def _after_id3(content: bytes) -> int:
    """Return where the sound begins: after the ID3 tags, if the file begins with any."""
    position = 0
    while content[position : position + 3] == b"ID3" and len(content) >= position + ID3_HEADER:
        digits = content[position + 6 : position + ID3_HEADER]
        size = sum((digit & 0x7F) << 7 * index for index, digit in enumerate(reversed(digits)))
        position += ID3_HEADER + size
    return position


def _begins_as_mpeg(beginning: bytes) -> bool:
    """Return True if these are the first bytes of MPEG audio: an ID3 tag, or a frame's header."""
    return beginning[:3] == b"ID3" or _frame(beginning) is not None


def _mpeg(content: bytes) -> io.BytesIO | None:
    """Return MPEG audio whose first frame gives the right number of frames, or None if it is right already."""
    frames = _mpeg_frames(content)
    if not frames:
        return None
    first = frames[0]
    first_bytes = content[first.position : first.end]
    declared = _tag(first_bytes)
    if declared is None:
        if len({frame_at.frame.bit_rate for frame_at in frames}) == 1:  # the length follows from the number of bytes
            return None
        sound = frames
        header = _counting_frame(first.frame, first_bytes[:4], len(sound))
    else:
        sound = frames[1:]
        if abs(declared - len(sound)) <= 1:  # some encoders count the first frame too
            return None
        if declared >= 0:
            header = _with_count(first_bytes, len(sound))
        else:
            header = _counting_frame(first.frame, first_bytes[:4], len(sound))
    return io.BytesIO(header + b"".join(content[frame_at.position : frame_at.end] for frame_at in sound))


def _mpeg_frames(content: bytes) -> list[FrameAt]:
    """Return each frame with its position; bytes between frames are skipped."""
    frames = []
    stream = None
    position = _after_id3(content)
    while 0 <= position <= len(content) - 4:
        frame = _frame(content[position : position + 4])
        belongs = frame is not None and (stream is None or frame.stream == stream)
        follows_another = bool(frames) and frames[-1].end == position
        if belongs and (follows_another or _followed(content, position, frame)):
            stream = frame.stream
            frame_at = FrameAt(position, frame)
            if frame_at.end <= len(content):
                frames.append(frame_at)
            position = frame_at.end
        else:
            position = content.find(b"\xff", position + 1)  # −1 where there is none
    return frames


def _followed(content: bytes, position: int, frame: Frame) -> bool:
    """Return True if another frame of the stream, or the end, follows: four bytes alone can look like a header."""
    after = position + frame.size
    following = _frame(content[after : after + 4])
    return after == len(content) or (following is not None and following.stream == frame.stream)


def _side_information(frame: Frame) -> int:
    """Return the number of bytes before the sound in a frame of layer 3, including the header."""
    sizes = {(1, False): 32, (1, True): 17, (2, False): 17, (2, True): 9}
    return 4 + sizes[frame.version, frame.mono]


def _tag(first: bytes) -> int | None:
    """Return the number of frames given in a first frame that holds a Xing, Info or VBRI tag in place of sound.

    It is -1 if the tag gives no number, and None for a frame of sound.
    """
    frame = _frame(first)
    position = _side_information(frame)
    if first[36:40] == b"VBRI":
        return int.from_bytes(first[50:54], "big")
    if first[position : position + 4] not in (b"Xing", b"Info"):
        return None
    has_count = int.from_bytes(first[position + 4 : position + 8], "big") & 1
    return int.from_bytes(first[position + 8 : position + 12], "big") if has_count else -1


def _with_count(first: bytes, count: int) -> bytes:
    """Return the first frame with `count` as its number of frames."""
    if first[36:40] == b"VBRI":
        return first[:50] + count.to_bytes(4, "big") + first[54:]
    position = _side_information(_frame(first)) + 8
    return first[:position] + count.to_bytes(4, "big") + first[position + 4 :]


def _counting_frame(like: Frame, header: bytes, count: int) -> bytes:
    """Return a frame without sound that gives the number of frames after it, as Xing's encoder writes it first."""
    header = bytes([header[0], header[1] | 1, header[2], header[3]])  # without a checksum
    size = _frame(header).size
    tag = b"Xing" + (1).to_bytes(4, "big") + count.to_bytes(4, "big")
    return (header + bytes(_side_information(like) - 4) + tag).ljust(size, b"\0")
