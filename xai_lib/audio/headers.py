"""Sound files whose header leaves the length open, or gets it wrong: the same file with a header that is right.

A recorder that was cut off, a stream that was written to a pipe, and a file that was cut by its bytes all have such
headers, and a decoder that believes them loses sound without a word. What is corrected here is the header alone; the
sound itself is handed on as it is.

Sources: RFC 9639 (FLAC), the RIFF specification of Microsoft and IBM (WAVE), ISO 11172-3 and 13818-3 (MPEG audio),
and the layout of Xing's first frame as LAME writes it.
"""

import io
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path

ID3_HEADER = 10  # bytes


def corrected(source) -> io.BufferedIOBase | None:
    """Return the file's content with a header that gives its whole length, or None where it can be read as it is.

    Parameters
    ----------
    source : Path or bytes
        A file, or what is in one.
    """
    start = _beginning(source)
    if start[:3] == b"ID3":
        content = _whole(source)
        content = content[_after_id3(content) :]
        if content[:4] == b"fLaC":
            return io.BytesIO(_flac_of_open_length(content))
        if content[:4] == b"RIFF":  # a decoder that passes over the tag reads less by its length
            return _wave(content, len(content)) or io.BytesIO(content)
    if start[:4] == b"fLaC":
        return io.BytesIO(_flac_of_open_length(_whole(source)))
    if start[:4] == b"RIFF" and start[8:12] == b"WAVE":
        size = source.stat().st_size if isinstance(source, Path) else len(source)
        return _wave(source, size)
    if start[:4] == b"OggS":
        _warn_of_further_streams(source)
        return None
    if _begins_as_mpeg(start):
        return _mpeg(_whole(source))
    return None


def begins_as_sound(source) -> bool:
    """Whether a file begins as sound files do: WAV, FLAC, Ogg or MP3."""
    start = _beginning(source)
    return start[:4] in (b"RIFF", b"RIFX", b"fLaC", b"OggS") or _begins_as_mpeg(start)


def _warn(source, text):
    """Warn of what is in a file and cannot be read."""
    name = source if isinstance(source, Path) else "a sound file in memory"
    warnings.warn(f"{name}: {text}", stacklevel=2)


def _beginning(source) -> bytes:
    """The first bytes of a file."""
    if isinstance(source, bytes):
        return source[:4096]
    with open(source, "rb") as file:
        return file.read(4096)


def _whole(source) -> bytes:
    """All bytes of a file."""
    return source if isinstance(source, bytes) else source.read_bytes()


# ---------- FLAC


def _flac_of_open_length(content: bytes) -> bytes:
    """FLAC whose header leaves the number of samples open, so that it is read to its end.

    The number is the last 36 bits of bytes 18 to 25; 0 means that it is not known. The checksum of all samples, 16
    bytes after it, goes too.
    """
    if len(content) < 42:
        return content
    header = bytearray(content[:42])
    header[21] &= 0xF0
    header[22:42] = bytes(20)
    return bytes(header) + content[42:]


# ---------- WAVE


def _wave(source, size: int) -> io.BytesIO | None:
    """WAVE that its recorder did not finish, which leaves sizes open: all that follows is sound.

    Where the size of the whole file is given, what lies beyond the samples is something else, such as a tag.
    """
    data = _data_chunk(source, size)
    if data is None:
        return None
    start, declared = data
    rest = size - start
    if rest == 0 or declared >= rest:  # cut off: the decoder reads what there is
        return None
    is_open = _bytes_at(source, 4, 4) in (bytes(4), b"\xff" * 4)
    if declared == 0:
        is_open = not _chunk_begins(source, start, size)
    end = start + declared + declared % 2
    if _chunk_begins(source, end, size):
        return None
    if not is_open:
        if not _is_tag(_bytes_at(source, end, 8)):
            _warn(source, f"{size - end} bytes lie behind the sound that its header tells of, and were not read")
        return None
    content = bytearray(_whole(source))
    content[4:8] = struct.pack("<I", min(size - 8, 0xFFFFFFFF))
    content[start - 4 : start] = struct.pack("<I", min(rest, 0xFFFFFFFF))
    return io.BytesIO(bytes(content))


def _data_chunk(source, size: int) -> tuple[int, int] | None:
    """Where the samples begin, and how many bytes of them there are by the header."""
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
    """Whether a chunk begins there, or the file ends: four printable letters, and a size that fits."""
    if position >= size:
        return True
    head = _bytes_at(source, position, 8)
    if len(head) < 8:
        return not head.strip(b"\0")
    return _is_printable(head[:4]) and position + 8 + struct.unpack("<I", head[4:])[0] <= size + 1


def _is_tag(head: bytes) -> bool:
    """Whether a tag of another format begins there, or padding."""
    return head.startswith((b"TAG", b"APETAGEX", b"ID3", b"3DI")) or not head.strip(b"\0")


def _is_printable(name: bytes) -> bool:
    """Whether these bytes can be the name of a chunk."""
    return all(32 <= letter < 127 for letter in name)


def _bytes_at(source, position: int, count: int) -> bytes:
    """Some bytes of a file."""
    if isinstance(source, bytes):
        return source[position : position + count]
    with open(source, "rb") as file:
        file.seek(position)
        return file.read(count)


# ---------- Ogg


def _warn_of_further_streams(source):
    """Warn where streams follow one another in a file of Ogg: decoders read the first of them alone."""
    content = _whole(source)
    position = 0
    streams = 0
    was_first_page = False
    while content[position : position + 4] == b"OggS" and position + 27 <= len(content):
        is_first_page = bool(content[position + 5] & 2)
        if is_first_page and not was_first_page:  # streams that lie side by side begin together
            streams += 1
        was_first_page = is_first_page
        segments = content[position + 26]
        position += 27 + segments + sum(content[position + 27 : position + 27 + segments])
    if streams > 1:
        _warn(source, f"{streams} streams follow one another in it, and the first alone is read: take it apart")


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
    """What the four bytes at the beginning of a frame of MPEG audio say."""

    version: int  # 1, or 2 (2.5 has its tables)
    layer: int
    bit_rate: int  # bit/s
    sample_rate: int  # Hz
    mono: bool
    size: int  # bytes, the header among them
    samples: int
    stream: bytes  # what all frames of one stream have in common


def _frame(header: bytes) -> Frame | None:
    """Read a frame's header, or None where there is none."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version_bits, layer_bits = header[1] >> 3 & 3, header[1] >> 1 & 3
    rate_bits, sample_rate_bits = header[2] >> 4, header[2] >> 2 & 3
    if version_bits == 1 or layer_bits == 0 or rate_bits in (0, 15) or sample_rate_bits == 3:
        return None
    version = 1 if version_bits == 3 else 2
    layer = 4 - layer_bits
    bit_rate = 1000 * BIT_RATES[version, layer][rate_bits]
    sample_rate = SAMPLE_RATES[version_bits][sample_rate_bits]
    padding = header[2] >> 1 & 1
    if layer == 1:
        size, samples = (12 * bit_rate // sample_rate + padding) * 4, 384
    else:
        samples = 576 if layer == 3 and version == 2 else 1152
        size = samples // 8 * bit_rate // sample_rate + padding
    stream = bytes([header[1] & 0xFE, header[2] & 0x0C])
    return Frame(version, layer, bit_rate, sample_rate, header[3] >> 6 == 3, size, samples, stream)


def _after_id3(content: bytes) -> int:
    """Where the sound begins: after ID3 tags, if the file begins with some."""
    position = 0
    while content[position : position + 3] == b"ID3" and len(content) >= position + ID3_HEADER:
        digits = content[position + 6 : position + ID3_HEADER]
        size = sum((digit & 0x7F) << 7 * place for place, digit in enumerate(reversed(digits)))
        position += ID3_HEADER + size
    return position


def _begins_as_mpeg(start: bytes) -> bool:
    """Whether these are the first bytes of MPEG audio: an ID3 tag, or a frame's header."""
    return start[:3] == b"ID3" or _frame(start) is not None


def _mpeg(content: bytes) -> io.BytesIO | None:
    """MPEG audio whose first frame counts the frames that there are, or None where what it has is right."""
    frames = _mpeg_frames(content)
    if not frames:
        return None
    first = content[frames[0][0] : frames[0][0] + frames[0][1].size]
    tag = _tag(first)
    if tag is None:
        if len({frame.bit_rate for _, frame in frames}) == 1:  # the length follows from the number of bytes
            return None
        header = _counting_frame(frames[0][1], first[:4], len(frames))
        sound = frames
    else:
        sound = frames[1:]
        if abs(tag - len(sound)) <= 1:  # some encoders count that frame as well
            return None
        header = _with_count(first, len(sound)) if tag >= 0 else _counting_frame(frames[0][1], first[:4], len(sound))
    return io.BytesIO(header + b"".join(content[at : at + frame.size] for at, frame in sound))


def _mpeg_frames(content: bytes) -> list[tuple[int, Frame]]:
    """Where each frame begins, and what it says; what lies between frames is passed over."""
    frames = []
    stream = None
    position = _after_id3(content)
    while position + 4 <= len(content):
        frame = _frame(content[position : position + 4])
        belongs = frame is not None and (stream is None or frame.stream == stream)
        if belongs and (
            frames and frames[-1][0] + frames[-1][1].size == position or _followed(content, position, frame)
        ):
            stream = frame.stream
            if position + frame.size <= len(content):
                frames.append((position, frame))
            position += frame.size
        else:
            position = content.find(b"\xff", position + 1)
            if position < 0:
                break
    return frames


def _followed(content: bytes, position: int, frame: Frame) -> bool:
    """Whether another frame of the same stream, or the end, follows: four bytes alone can look like a header."""
    after = position + frame.size
    following = _frame(content[after : after + 4])
    return after == len(content) or (following is not None and following.stream == frame.stream)


def _side_information(frame: Frame) -> int:
    """Bytes of a frame of layer 3 before its sound, the header among them."""
    sizes = {(1, False): 32, (1, True): 17, (2, False): 17, (2, True): 9}
    return 4 + sizes[frame.version, frame.mono]


def _tag(first: bytes) -> int | None:
    """How many frames the first one counts, which then holds no sound; -1 where it does not say; None of a usual frame."""
    frame = _frame(first)
    place = _side_information(frame)
    if first[36:40] == b"VBRI":
        return int.from_bytes(first[50:54], "big")
    if first[place : place + 4] not in (b"Xing", b"Info"):
        return None
    counts = int.from_bytes(first[place + 4 : place + 8], "big") & 1
    return int.from_bytes(first[place + 8 : place + 12], "big") if counts else -1


def _with_count(first: bytes, count: int) -> bytes:
    """The first frame, with another number of frames in it."""
    if first[36:40] == b"VBRI":
        return first[:50] + count.to_bytes(4, "big") + first[54:]
    place = _side_information(_frame(first)) + 8
    return first[:place] + count.to_bytes(4, "big") + first[place + 4 :]


def _counting_frame(like: Frame, header: bytes, count: int) -> bytes:
    """A frame without sound that counts those after it, as Xing's encoder puts it first."""
    header = bytes([header[0], header[1] | 1, header[2], header[3]])  # without a checksum
    size = _frame(header).size
    tag = b"Xing" + (1).to_bytes(4, "big") + count.to_bytes(4, "big")
    return (header + bytes(_side_information(like) - 4) + tag).ljust(size, b"\0")
