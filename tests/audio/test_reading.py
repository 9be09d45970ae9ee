"""One place reads sound: whole, whatever its header says, or refused by name."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from xai_lib.audio import headers, reading

RATE = 16000


def noise(seconds=2.0, seed=0):
    return (0.2 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).astype(np.float32)


def encoded(samples, format, **options) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, RATE, format=format, **options)
    return buffer.getvalue()


def mp3(samples) -> bytes:
    """MP3 of a variable bit rate, whose first frame counts the others."""
    buffer = io.BytesIO()
    options = {"format": "MP3", "subtype": "MPEG_LAYER_III", "bitrate_mode": "VARIABLE", "compression_level": 0.5}
    with soundfile.SoundFile(buffer, "w", RATE, 1, **options) as file:
        file.write(samples)
    return buffer.getvalue()


def uneven(seconds=20):
    """Sound whose bit rate varies: noise, then next to nothing."""
    half = noise(seconds / 2)
    return np.concatenate([half, 1e-4 * half])


def read(content, rate=RATE):
    return reading.read(reading.Encoded(content, "clip"), rate)


# ---------- lengths that a header leaves open, or gets wrong


@pytest.mark.parametrize("count", [0, 1000, 2**36 - 1, 31_999])
def test_read_ignores_flac_sample_count(count):
    """FLAC is read to its end, whatever number of samples its header declares."""
    content = bytearray(encoded(noise(), "FLAC"))
    right = read(bytes(content))
    content[21] = content[21] & 0xF0 | count >> 32
    content[22:26] = (count & 0xFFFFFFFF).to_bytes(4, "big")
    np.testing.assert_array_equal(read(bytes(content)), right)
    assert len(right) == 2 * RATE


def test_read_accepts_flac_with_trailing_tag():
    """FLAC with a tag after it gives the same samples as without."""
    content = encoded(noise(), "FLAC")
    np.testing.assert_array_equal(read(content + b"TAG" + bytes(125)), read(content))


@pytest.mark.parametrize("said", [0, 2, 1000, 0xFFFFFFFF, 63_998])
def test_read_recovers_wav_of_interrupted_recorder(said):
    """A WAV whose file size was left open is read to its end, whatever size of the samples it declares."""
    content = bytearray(encoded(noise(), "WAV", subtype="PCM_16"))
    place = content.find(b"data")
    content[4:8] = struct.pack("<I", 0)
    content[place + 4 : place + 8] = struct.pack("<I", said)
    np.testing.assert_array_equal(read(bytes(content)), read(encoded(noise(), "WAV", subtype="PCM_16")))


def test_read_ignores_trailing_riff_chunks():
    """A chunk after the samples of a WAV calls for no correction and adds no sound."""
    content = encoded(noise(), "WAV", subtype="PCM_16")
    chunk = b"LIST" + struct.pack("<I", 64) + b"INFOICMT" + bytes(56)
    assert headers.corrected(content + chunk) is None
    np.testing.assert_array_equal(read(content + chunk), read(content))


@pytest.mark.parametrize(
    "tail", [b"TAG" + bytes(125), bytes(4000), b"LIST\xff\x00\x00\x00INFO", b"\0LIST\x04\0\0\0INFO"]
)
def test_read_ignores_bytes_after_finished_wav(tail):
    """Tags, zeros and malformed chunks after a finished WAV add no sound."""
    content = encoded(noise(), "WAV", subtype="PCM_16")
    np.testing.assert_array_equal(read(content + tail), read(content))


def test_read_warns_of_bytes_after_wav_samples(tmp_path):
    """Sound beyond the declared size, as left by Python's `wave` when killed, is not read, with a warning."""
    content = encoded(noise(), "WAV", subtype="PCM_16")
    path = tmp_path / "killed.wav"
    path.write_bytes(content + bytes(range(1, 250)) * 20)
    with pytest.warns(UserWarning, match="killed.wav: 4980 bytes follow the samples declared in the header"):
        assert len(reading.read(path)) == 2 * RATE


def test_read_does_not_warn_of_trailing_tags(recwarn):
    """Tags and zeros after a WAV cause no warning."""
    content = encoded(noise(), "WAV", subtype="PCM_16")
    for tail in (b"TAG" + b"x" * 125, b"APETAGEX" + b"x" * 40, b"ID3" + b"x" * 40, bytes(100)):
        assert len(reading.read(reading.Encoded(content + tail))) == 2 * RATE
    assert not recwarn


def test_read_accepts_wav_after_id3_tag():
    """A WAV after an ID3 tag is read to its end."""
    tag = b"ID3\x04\0\0" + bytes([0, 0, 1, 0]) + bytes(128)
    content = encoded(noise(), "WAV", subtype="PCM_16")
    assert len(reading.read(reading.Encoded(tag + content))) == 2 * RATE


def test_read_warns_of_chained_ogg_streams(recwarn):
    """Chained Ogg streams cause a warning that only the first is read, as it is; a single stream causes none."""
    content, longer = (encoded(noise(seconds), "OGG", subtype="VORBIS") for seconds in (2, 3))
    first = reading.read(reading.Encoded(content))
    assert len(first) == 2 * RATE
    assert not recwarn
    with pytest.warns(UserWarning, match="2 chained Ogg streams, of which only the first is read"):
        np.testing.assert_array_equal(reading.read(reading.Encoded(content + longer)), first)


def test_read_distinguishes_damaged_from_unknown_files():
    """The error advises a new copy of a damaged sound file, and conversion of what is no sound file."""
    whole = encoded(noise(), "FLAC")
    for content in (whole[:60], b"RIFF" + bytes(60)):
        with pytest.raises(reading.BadClip, match="it may be cut off or damaged: copy or download it again"):
            read(content)
    with pytest.raises(reading.BadClip, match="convert it to wav, flac, ogg or mp3"):
        read(b"this is a text, and no sound at all" * 9)


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_usable_refuses_constant_at_any_rate(rate):
    """A constant is refused as silent at any rate, although resampling rings at both of its ends."""
    for value in (0.0, 0.25):
        with pytest.raises(reading.BadClip, match="silent, all samples are"):
            reading.usable(reading.Waveform(np.full(rate, value, np.float32), rate))


def test_read_refuses_unscaled_floats(tmp_path):
    """Float samples in the tens of thousands are refused, and those that reach 4 cause a warning."""
    soundfile.write(tmp_path / "raw.wav", 15000 * noise(), 16000, subtype="FLOAT")
    with pytest.raises(reading.BadClip, match="raw.wav: its samples reach .*, and full scale of floats is 1"):
        reading.read(tmp_path / "raw.wav")
    soundfile.write(tmp_path / "loud.wav", 4 * noise() / np.abs(noise()).max(), 16000, subtype="FLOAT")
    with pytest.warns(UserWarning, match="loud.wav: its samples reach 4"):
        reading.read(tmp_path / "loud.wav")


def test_read_refuses_wav_without_samples():
    """A WAV that has a further chunk but no samples is refused as empty."""
    content = encoded(noise(0), "WAV", subtype="PCM_16") + b"LIST" + struct.pack("<I", 1000) + bytes(1000)
    with pytest.raises(reading.BadClip, match="holds no samples"):
        read(content)


def test_read_accepts_flac_after_id3_tag():
    """FLAC after an ID3 tag is read to its end, even if its header declares fewer samples."""
    content = bytearray(encoded(noise(), "FLAC"))
    right = read(bytes(content))
    content[21] &= 0xF0
    content[22:26] = (1000).to_bytes(4, "big")
    tag = b"ID3\x04\x00\x00" + bytes([0, 0, 7, 0x68]) + bytes(1000)
    np.testing.assert_array_equal(read(tag + bytes(content)), right)


def test_read_accepts_truncated_wav():
    """A WAV cut off in the middle gives the samples that are left."""
    content = encoded(noise(), "WAV", subtype="PCM_16")
    assert len(read(content[: 44 + 2 * RATE])) == RATE


@pytest.mark.parametrize("count", [0, 10, 500, 2**32 - 1])
def test_read_corrects_mp3_frame_count(count):
    """A variable-rate MP3 is read whole, whatever number of frames its first frame declares."""
    content = bytearray(mp3(uneven()))
    right = read(bytes(content))
    assert len(right) == 20 * RATE
    place = max(content.find(b"Xing"), content.find(b"Info"))
    content[place + 8 : place + 12] = count.to_bytes(4, "big")
    np.testing.assert_array_equal(read(bytes(content)), right)


def without_first_frame(content: bytes) -> bytes:
    (start, first), *_ = headers._mpeg_frames(content)
    return content[start + first.size :]


def test_read_accepts_mp3_without_frame_count():
    """A variable-rate MP3 without a frame count is read whole, though the decoder misjudges its length."""
    content = without_first_frame(mp3(uneven()))
    with soundfile.SoundFile(io.BytesIO(content)) as file:
        assert not 19 * RATE < file.frames < 21 * RATE  # what the decoder guesses
    assert 20 * RATE <= len(read(content)) <= 20 * RATE + 3 * 576  # padding at both ends is no longer known


def test_read_accepts_mp3_with_tags_and_junk():
    """Tags at both ends and junk inside an MP3 change its length by two frames at most."""
    content = without_first_frame(mp3(uneven()))
    size = 1000
    tag = b"ID3\x04\x00\x00" + bytes([0, 0, size >> 7, size & 0x7F]) + bytes(size)
    frames = headers._mpeg_frames(content)
    middle, _ = frames[len(frames) // 2]
    broken = tag + content[:middle] + bytes(100) + content[middle:] + b"TAG" + bytes(125)
    assert abs(len(read(broken)) - len(read(content))) <= 2 * 576


def test_corrected_leaves_constant_rate_mp3():
    """An MP3 of constant bit rate is left as it is, with or without its first frame."""
    buffer = io.BytesIO()
    options = {"format": "MP3", "subtype": "MPEG_LAYER_III", "bitrate_mode": "CONSTANT", "compression_level": 0.5}
    with soundfile.SoundFile(buffer, "w", RATE, 1, **options) as file:
        file.write(noise(5))
    content = buffer.getvalue()
    assert headers.corrected(content) is None
    assert headers.corrected(without_first_frame(content)) is None
    assert abs(len(read(without_first_frame(content))) - 5 * RATE) < 3 * 576


def test_frame_parses_mpeg_headers():
    """Size, duration and rates of an MPEG frame follow from its header, and invalid headers give None."""
    # 128 kbit/s at 44.1 kHz: 144 · 128000 / 44100 = 417 bytes and 1152 samples; with padding one byte more
    frame = headers._frame(bytes([0xFF, 0xFB, 0x90, 0x00]))
    assert (frame.size, frame.samples, frame.bit_rate, frame.sample_rate, frame.mono) == (
        417,
        1152,
        128_000,
        44_100,
        False,
    )
    assert headers._frame(bytes([0xFF, 0xFB, 0x92, 0xC0])).size == 418
    # version 2, layer III, 64 kbit/s at 16 kHz: 72 · 64000 / 16000 = 288 bytes and 576 samples
    frame = headers._frame(bytes([0xFF, 0xF3, 0x88, 0xC0]))
    assert (frame.size, frame.samples, frame.sample_rate, frame.mono) == (288, 576, 16_000, True)
    for wrong in (b"\xff\xfb\xf0\x00", b"\xff\xfb\x9c\x00", b"\xff\xe9\x90\x00", b"\xff\xf9\x90", b"\x00\xfb\x90\x00"):
        assert headers._frame(wrong) is None


# ---------- what is read


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_read_is_independent_of_block_size(rate, tmp_path, monkeypatch):
    """Reading in blocks of any size equals averaging and resampling the whole file at once."""
    samples = noise(3, seed=1)
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([samples, 0.5 * samples], axis=1), rate, subtype="FLOAT")
    whole = soxr.resample(0.75 * samples, rate, RATE, quality="HQ")
    for block in (100, 1777, 2**18):
        monkeypatch.setattr(reading, "BLOCK", block)
        np.testing.assert_allclose(reading.read(path), whole, atol=1e-7)


def test_read_warns_of_channels_out_of_phase(tmp_path):
    """Channels that nearly cancel out in their mean cause a warning."""
    samples = noise()
    path = tmp_path / "anti.wav"
    soundfile.write(path, np.stack([samples, -0.98 * samples], axis=1), RATE)
    with pytest.warns(UserWarning, match="anti.wav: its 2 channels are out of phase"):
        reading.read(path)


def test_read_warns_of_cancelling_channels(tmp_path):
    """Channels that cancel out completely give zeros, with a warning."""
    soundfile.write(tmp_path / "anti.wav", np.stack([noise(), -noise()], axis=1), RATE, subtype="FLOAT")
    with pytest.warns(UserWarning, match="anti.wav: its 2 channels are out of phase"):
        assert not reading.read(tmp_path / "anti.wav").any()


def test_read_does_not_warn_of_independent_channels(tmp_path, recwarn):
    """Independent channels, or a silent one beside another, cause no warning."""
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([noise(seed=place) for place in range(4)], axis=1), RATE)
    reading.read(path)
    soundfile.write(path, np.stack([noise(), 0 * noise()], axis=1), RATE)
    reading.read(path)
    assert not recwarn.list


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty, 0 bytes"),
        (b"this is no sound at all", "cannot be read as sound"),
        (bytes(5000), "cannot be read as sound"),
        (encoded(noise(0), "WAV"), "holds no samples"),
        (encoded(noise(), "FLAC")[:20_000], "cannot be read as sound"),
        (encoded(noise(), "OGG")[:60], "cannot be read as sound"),
    ],
    ids=["nothing", "text", "zeros", "no samples", "half a FLAC", "a piece of an OGG"],
)
def test_read_refuses_undecodable_content(content, reason):
    """Content that is empty, no sound, without samples or cut off is refused with its name and a reason."""
    with pytest.raises(reading.BadClip, match=f"^clip: .*({reason})"):
        read(content)


def test_read_refuses_unusable_paths(tmp_path):
    """A file of raw samples, a broken link and a name that is too long are refused with a reason."""
    (tmp_path / "take.raw").write_bytes(noise().tobytes())
    (tmp_path / "link.wav").symlink_to(tmp_path / "nowhere.wav")
    for name, reason in (
        ("take.raw", "cannot be read as sound"),
        ("link.wav", "a broken link"),
        ("a" * 300 + ".wav", "name too long|File name"),
    ):
        with pytest.raises(reading.BadClip, match=f"{name}: .*({reason})"):
            reading.read(tmp_path / name)


def test_read_converts_decoder_errors(tmp_path, monkeypatch):
    """Any exception of a decoder becomes a `BadClip` that names the file and the exception."""
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(), RATE)

    def broken(*arguments, **options):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(reading._Sequential, "read", broken)
    with pytest.raises(reading.BadClip, match="a.wav: cannot be read as sound .RuntimeError: out of luck"):
        reading.read(path)


FORMATS = [
    ("WAV", "PCM_16"),
    ("WAV", "PCM_U8"),
    ("WAV", "FLOAT"),
    ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"),
    ("AIFF", "PCM_16"),
]
FORMATS += [("AU", "PCM_16"), ("CAF", "PCM_16"), ("W64", "PCM_16"), ("MP3", "MPEG_LAYER_III"), ("RF64", "PCM_16")]
FILES = [encoded(noise(0.5), format, subtype=subtype) for format, subtype in FORMATS]


@st.composite
def damaged(draw):
    """A sound file with some bytes changed, most of them in its header, or cut off, or with more behind it."""
    content = bytearray(draw(st.sampled_from(FILES)))
    for _ in range(draw(st.integers(0, 6))):
        place = draw(st.one_of(st.integers(0, 100), st.integers(0, len(content) - 1)))
        content[min(place, len(content) - 1)] = draw(st.integers(0, 255))
    cut = draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    return bytes(content[:cut]) + draw(st.one_of(st.just(b""), st.binary(max_size=200)))


@pytest.mark.parametrize("content", FILES, ids=[format for format, _ in FORMATS])
def test_read_decodes_undamaged_files(content):
    """Undamaged files of every format are read whole."""
    assert 8000 <= len(read(content)) <= 8000 + 1152  # MPEG audio pads its last frame


def check_damaged(content):
    try:
        waveform = read(content)
    except reading.BadClip as error:
        assert str(error).startswith("clip: ")
    else:
        assert waveform.dtype == np.float32 and waveform.ndim == 1 and len(waveform)
        assert np.isfinite(waveform).all()


@settings(max_examples=150)
@given(content=damaged())
def test_read_withstands_damaged_files(content):
    """Damaged content gives finite mono float32 samples or a `BadClip` that names it."""
    check_damaged(content)


@pytest.mark.full
@settings(max_examples=8000)
@given(content=damaged())
def test_read_withstands_thousands_of_damaged_files(content):
    """Thousands of damaged contents give finite mono float32 samples or a `BadClip` that names each."""
    check_damaged(content)
