"""Reading a video: frames in time, rotation, sound, and files that are not a video or are damaged."""

import itertools
import struct
import tracemalloc
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from drawn_videos import HEIGHT, WIDTH, brightness, clicks, grey, levels, onset, turned_by_a_phone
from PIL import Image

from encoders.footage import video_reader
from encoders.footage.video_reader import (
    VideoError,
    _deinterlaced,
    iter_frames,
    nearest_in_time,
    probe,
    read_audio,
)
from encoders.footage.video_writer import write_video


def timed(times, last):
    ends = [*times[1:], last]
    return [
        (Fraction(t), Fraction(e) - Fraction(t), i) for i, (t, e) in enumerate(zip(times, ends, strict=True))
    ]


@pytest.mark.parametrize(
    ("rate", "count", "expected"),
    [
        (25, 4, [0, 1, 2, 3]),
        (30, 6, [0, 1, 2, 4, 5]),
        (50, 6, [0, 2, 4]),
        (12.5, 3, [0, 0, 1, 1, 2, 2]),  # halfway between two frames the earlier is kept
        (24, 24, [*range(0, 13), *range(12, 24)]),
        (100, 1, [0]),
    ],
)
def test_constant_rates(rate, count, expected):
    times = [Fraction(i) / Fraction(rate) for i in range(count)]
    assert list(nearest_in_time(timed(times, Fraction(count) / Fraction(rate)))) == expected


def test_variable_rate_and_a_late_start():
    times = ["5", "5.01", "5.1", "5.3", "5.32"]
    # 0, .04, .08, ... .36 against 0, .01, .1, .3, .32
    assert list(nearest_in_time(timed(times, "5.4"))) == [0, 1, 2, 2, 2, 2, 3, 3, 4, 4]
    assert list(nearest_in_time([])) == []


def test_thirty_frames_a_second_become_25(tmp_path):
    path = tmp_path / "x.mp4"
    write_video(path, levels(60), fps=30)
    assert probe(path).fps == 30 and probe(path).frames == 60
    shown = brightness(path)
    assert len(shown) == 50
    assert max(abs(level - k * 30 / 25) for k, level in enumerate(shown)) <= 0.5


def at_times(path, *times_ms):
    """A video whose k-th picture, of grey level 40 k, is shown from the k-th of these times on."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for index, time in enumerate(times_ms):
            frame = av.VideoFrame.from_ndarray(grey(40 * index % 256), format="rgb24").reformat(
                format="yuv420p"
            )
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_variable_time_stamps_in_a_file(tmp_path):
    path = at_times(tmp_path / "x.mkv", 0, 40, 80, 400, 440, 480)
    assert brightness(path, 40) == [0, 1, 2, 2, 2, 2, 2, 3, 3, 3, 3, 4, 5]


def test_a_broken_time_stamp_is_refused(tmp_path):
    path = at_times(tmp_path / "x.mkv", 0, 40, 1_000_000_000)
    with pytest.raises(VideoError, match=r"x\.mkv shows no picture for 1000000 s after the first 0 s"):
        list(iter_frames(path))


def test_reading_holds_only_a_few_frames(tmp_path):
    path = tmp_path / "x.mp4"
    write_video(path, (grey(k, 240, 320) for k in range(120)))
    frame_bytes = 240 * 320 * 3
    tracemalloc.start()
    assert sum(1 for _ in iter_frames(path)) == 120
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * frame_bytes


def bar(place):
    """A red and grey picture with a white bar."""
    image = grey(60, 128, 192)
    image[:, :40] = 180, 20, 20
    image[:, place : place + 24] = 240
    return image


def fields(path, count=12, still=False, interlaced=True, matrix=1):
    """A video whose odd lines (the first field) show a bar, and whose even lines show it 20 ms later, 5 px further."""
    options = {"bf": "0", "qp": "4"} | ({"x264-params": "bff=1"} if interlaced else {})
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 192, 128, "yuv420p"
        stream.codec_context.colorspace = matrix
        for index in range(count):
            image = bar(48 if still else 44 + 10 * index)
            image[::2] = bar(48 if still else 44 + 10 * index + 5)[::2]
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace=matrix)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_interlaced_frames_have_no_combs(tmp_path):
    shown = np.stack(list(iter_frames(fields(tmp_path / "x.mp4"))))
    with av.open(str(tmp_path / "x.mp4")) as container:
        assert all(frame.interlaced_frame for frame in container.decode(video=0))
    expected = np.stack([bar(44 + 10 * index) for index in range(12)])  # at the time of the first field
    assert shown.shape == expected.shape
    even, odd = shown[:, 2:-2:2].astype(int), shown[:, 3:-1:2].astype(int)
    assert np.abs(even - odd).mean() < 4
    assert np.abs(odd - expected[:, 3:-1:2]).mean() < 2


@pytest.mark.parametrize("matrix", [1, 5])  # BT.709, BT.601
def test_interlaced_frames_keep_their_colours_and_turn(tmp_path, matrix):
    path = fields(tmp_path / "x.mp4", still=True, matrix=matrix)
    turned_by_a_phone(path, 0, 1, -1, 0)
    shown = np.stack(list(iter_frames(path))).astype(int)
    assert np.abs(shown - np.rot90(bar(48), -1)).mean() < 4


def test_progressive_frames_stay_as_decoded(tmp_path):
    path = fields(tmp_path / "x.mp4", interlaced=False)
    with av.open(str(path)) as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert np.array_equal(np.stack(list(iter_frames(path))), np.stack(decoded))


def test_a_video_may_change_between_interlaced_and_progressive_and_in_size(tmp_path):
    write_video(tmp_path / "small.mp4", levels(3))
    fields(tmp_path / "progressive.mp4", 4, interlaced=False)
    fields(tmp_path / "interlaced.mp4", 5)
    frames = []
    for name in ("progressive", "interlaced", "progressive", "small", "interlaced"):
        with av.open(str(tmp_path / f"{name}.mp4")) as container:
            frames += container.decode(video=0)
    items = [(Fraction(k), Fraction(1), frame) for k, frame in enumerate(frames)]
    reading: dict[str, str] = {}
    made = list(_deinterlaced(items, reading))
    assert reading == {"fields": "deinterlaced"}
    assert [item[:2] for item in made] == [item[:2] for item in items]
    for (*_, frame), (*_, picture) in zip(items, made, strict=True):
        assert (picture is frame) == (not frame.interlaced_frame)
        assert (picture.width, picture.height) == (frame.width, frame.height)


@pytest.mark.parametrize(("transfer", "code"), [(16, 0.5081), (18, 0.628)])  # PQ and HLG codes of 100 cd/m2
def test_hdr_video_is_read_as_sdr(tmp_path, transfer, code):
    path = tmp_path / "x.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p10le"
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace = 9, transfer, 9  # BT.2020
        for index in range(3):
            planes = np.full((HEIGHT * 3 // 2, WIDTH), 512, np.uint16)
            planes[:HEIGHT] = round(64 + 876 * code)
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p10le")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    reading: dict[str, str] = {}
    shown = next(iter_frames(path, reading=reading))
    assert list(reading.values()) == [f"tone-mapped from {'PQ' if transfer == 16 else 'HLG'}"]
    assert shown.dtype == np.uint8 and shown.shape == (HEIGHT, WIDTH, 3)
    linear = 100 / 203  # of white, which is 203 cd/m2
    assert np.abs(shown - 255 * (1.055 * linear ** (1 / 2.4) - 0.055)).max() <= 3


@pytest.mark.parametrize(
    ("matrix", "rotation", "turn"),
    [((0, 1, -1, 0), 90, -1), ((-1, 0, 0, -1), 180, 2), ((0, -1, 1, 0), 270, 1), ((1, 0, 0, 1), 0, 0)],
)
def test_rotation_of_a_phone(tmp_path, matrix, rotation, turn):
    image = grey(0)
    image[:32, :48] = 250  # the stored picture's top-left quarter
    path = tmp_path / "x.mp4"
    write_video(path, [image] * 3)
    turned_by_a_phone(path, *matrix)
    reading: dict[str, str] = {}
    frame = next(iter_frames(path, reading=reading))
    assert list(reading.values()) == ([f"turned by {rotation} degrees clockwise"] if rotation else [])
    expected = np.rot90(image, turn)
    assert frame.shape == expected.shape and frame.flags.c_contiguous
    assert np.abs(frame.astype(int) - expected).mean() < 6
    info = probe(path)
    assert (info.rotation, info.height, info.width) == (rotation, *expected.shape[:2])


def test_wide_pixels_become_square(tmp_path):
    path = tmp_path / "x.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        for index in range(3):
            frame = av.VideoFrame.from_ndarray(grey(100), format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert next(iter_frames(path)).shape == (HEIGHT, 128, 3)
    assert probe(path).width == 128


@pytest.mark.parametrize("rate", [16000, 44100, 48000])
@pytest.mark.parametrize("shift_ms", [-300, 0, 200])
def test_sound_that_starts_before_or_after_the_pictures(tmp_path, rate, shift_ms):
    """A click half a second into the sound, whose time stamps are shifted against the pictures."""
    path = tmp_path / "x.mkv"
    sound = np.zeros(rate * 2, np.float32)
    sound[rate // 2 : rate // 2 + 300] = 0.5
    late = 1000  # the pictures start at one second
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"bf": "0"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        track: Any = container.add_stream("pcm_s16le", rate=rate, layout="stereo")
        for index in range(50):
            frame = av.VideoFrame.from_ndarray(grey(index), format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = index + late // 40, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        data = np.repeat((sound * 32767).astype(np.int16)[None, :, None], 2, axis=2).reshape(1, -1)
        for begin in range(0, len(sound), 1000):
            part = av.AudioFrame.from_ndarray(
                data[:, 2 * begin : 2 * begin + 2000], format="s16", layout="stereo"
            )
            part.sample_rate, part.time_base = rate, Fraction(1, rate)
            part.pts = begin + (late + shift_ms) * rate // 1000
            container.mux(track.encode(part))
        container.mux(track.encode(None))
    assert probe(path).start == Fraction(late, 1000)
    samples = read_audio(path).samples
    assert onset(samples) / 16000 == pytest.approx(0.5 + shift_ms / 1000, abs=0.003)
    assert len(samples) / 16000 == pytest.approx(2 + shift_ms / 1000, abs=0.01)


def good_file(path, **options):
    write_video(
        path, (np.random.default_rng(k).integers(0, 256, (64, 96, 3), np.uint8) for k in range(40)), **options
    )
    return path.read_bytes()


def moov_last(content):
    """The same boxes with the index at the end, where recorders write it; offsets are not adjusted."""
    boxes: list[bytes] = []
    place = 0
    while place < len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        boxes.append(content[place : place + length])
        place += length
    return b"".join(sorted(boxes, key=lambda box: bytes(box)[4:8] == b"moov"))


def read_all(path):
    return sum(1 for _ in iter_frames(path))


def test_files_that_are_not_a_video(tmp_path):
    content = good_file(tmp_path / "good.mp4")
    Image.new("RGB", (64, 64)).save(tmp_path / "photo.png")
    soundfile.write(tmp_path / "sound.wav", np.zeros(16000), 16000)
    cases = {
        "empty.mp4": (b"", "is empty"),
        "text.mp4": (b"not a video, just words\n" * 50, "not a video file"),
        "text.txt": (b"not a video, just words\n" * 50, "not a video file"),
        "list.mp4": (b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n", "list.mp4"),
        "cut index.mp4": (moov_last(content)[: len(content) // 2], "is cut off"),
        "no index.mp4": (moov_last(content)[: moov_last(content).index(b"moov") - 4], "moov box, is missing"),
        "cut end.mp4": (content[: len(content) * 2 // 3], "is cut off"),
        "one byte.mp4": (content[:-1], "is cut off"),
        "photo.mp4": ((tmp_path / "photo.png").read_bytes(), "not a video file"),
        "sound.mp4": ((tmp_path / "sound.wav").read_bytes(), "has no video stream"),
        "noise.mp4": (np.random.default_rng(0).bytes(5000), "noise.mp4"),
        "head only.mp4": (content[:24], "head only.mp4 is"),
    }
    for name, (data, message) in cases.items():
        (tmp_path / name).write_bytes(data)
        for read in (read_all, probe):
            with pytest.raises(VideoError, match=message) as caught:
                read(tmp_path / name)
            assert name in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(VideoError, match=r"absent\.mp4 does not exist"):
        read_all(tmp_path / "absent.mp4")
    with pytest.raises(VideoError, match="is a folder"):
        read_all(tmp_path)


def box(kind, content=b""):
    return struct.pack(">I", 8 + len(content)) + kind + content


@pytest.mark.parametrize(
    "tail",
    [
        b"written by a phone",
        b"end",
        bytes(40),
        box(b"SEFH", b"notes"),
        box(b"free", bytes(9)) + b"more than a box",
        box(b"uuid", bytes(100))[:60],
    ],
)
def test_bytes_after_the_end_of_a_whole_file_are_left_unread(tmp_path, tail):
    index_first = good_file(tmp_path / "good.mp4")
    index_last = at_times(tmp_path / "x.mp4", *range(0, 1600, 40)).read_bytes()
    assert index_first.index(b"moov") < index_first.index(b"mdat")
    assert index_last.index(b"mdat") < index_last.index(b"moov")
    for content in (index_first, index_last):
        (tmp_path / "tail.mp4").write_bytes(content + tail)
        assert probe(tmp_path / "tail.mp4").frames == read_all(tmp_path / "tail.mp4") == 40


def test_a_file_that_is_cut_off_is_refused_whatever_boxes_are_complete(tmp_path):
    content = good_file(tmp_path / "good.mp4")
    cut = {
        "second data.mp4": content + box(b"mdat", bytes(100))[:50],
        "fragment.mp4": content + box(b"moof", bytes(100))[:50],
    }
    for name, data in cut.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(VideoError, match="is cut off"):
            read_all(tmp_path / name)


def test_missing_frames_are_noticed(tmp_path):
    """Damage inside the data leaves the boxes intact; it is detected by the number of frames and the declared end."""
    content = bytearray(good_file(tmp_path / "good.mp4"))
    start = content.index(b"mdat") + 4
    middle = start + (len(content) - start) // 2
    content[middle:] = bytes(len(content) - middle)
    (tmp_path / "hollow.mp4").write_bytes(content)
    with pytest.raises(VideoError, match=r"hollow\.mp4 is damaged or cut short: \d+ of its 40 frames"):
        read_all(tmp_path / "hollow.mp4")


def test_no_audio_track(tmp_path):
    good_file(tmp_path / "silent.mp4")
    assert not probe(tmp_path / "silent.mp4").has_audio
    with pytest.raises(VideoError, match=r"silent\.mp4 has no audio track"):
        read_audio(tmp_path / "silent.mp4")


def with_tracks(path, *tracks):
    """A video of two seconds with one audio track for each of these (C, S) arrays, 16 kHz."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"bf": "0"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        layouts = [{1: "mono", 2: "stereo"}[len(track)] for track in tracks]
        streams: list[Any] = [
            container.add_stream("pcm_s16le", rate=16000, layout=layout) for layout in layouts
        ]
        for index in range(50):
            frame = av.VideoFrame.from_ndarray(grey(index), format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for stream, layout, track in zip(streams, layouts, tracks, strict=True):
            for begin in range(0, track.shape[1], 1000):
                data = (track[:, begin : begin + 1000].T * 32767).astype(np.int16).reshape(1, -1)
                part = av.AudioFrame.from_ndarray(data, format="s16", layout=layout)
                part.sample_rate, part.time_base, part.pts = 16000, Fraction(1, 16000), begin
                container.mux(stream.encode(part))
            container.mux(stream.encode(None))
    return path


SILENCE = np.zeros((1, 32000), np.float32)


def click_at(place):
    return clicks(32000, place).samples[None]


@pytest.mark.parametrize(
    ("tracks", "number", "expected"),
    [
        ([SILENCE, click_at(8000)], 2, 8000),
        ([SILENCE + 0.0005, SILENCE, click_at(8000), click_at(4000)], 3, 8000),
        ([click_at(4000), click_at(8000)], 1, 4000),
        (
            [SILENCE, click_at(8000)[:, 8000:9000], click_at(9000)],
            3,
            9000,
        ),  # the second is too short to be used
    ],
)
def test_the_first_track_that_is_not_silent_is_read(tmp_path, tracks, number, expected):
    reading: dict[str, str] = {}
    samples = read_audio(with_tracks(tmp_path / "x.mkv", *tracks), reading).samples
    assert len(samples) == 32000 and onset(samples) == pytest.approx(expected, abs=8)
    assert list(reading.values()) == [f"sound track {number} of {len(tracks)}"]


def test_silent_tracks_alone_give_the_first(tmp_path):
    waveform = read_audio(with_tracks(tmp_path / "x.mkv", SILENCE, SILENCE[:, :16000]))
    assert waveform.silent and len(waveform.samples) == 32000


def test_channels_of_opposite_phase_give_the_loudest(tmp_path):
    click = click_at(8000)
    samples = read_audio(with_tracks(tmp_path / "x.mkv", np.concatenate([0.9 * click, -click]))).samples
    np.testing.assert_allclose(samples, -click[0], atol=1e-4)


def test_a_mean_that_is_not_silent_is_kept(tmp_path):
    click = click_at(8000)
    samples = read_audio(with_tracks(tmp_path / "x.mkv", np.concatenate([click, 0 * click]))).samples
    np.testing.assert_allclose(samples, click[0] / 2, atol=1e-4)


def test_a_number_of_channels_that_changes_in_the_track(tmp_path, monkeypatch):
    path, real = with_tracks(tmp_path / "x.mkv", np.repeat(click_at(8000), 2, 0)), video_reader._channels
    counts = itertools.cycle([1, 2])
    monkeypatch.setattr(video_reader, "_channels", lambda frame: real(frame)[: next(counts)])
    np.testing.assert_allclose(read_audio(path).samples, click_at(8000)[0], atol=1e-4)


def test_a_second_track_is_not_decoded_after_a_first_with_sound(tmp_path, monkeypatch):
    path, decoded = with_tracks(tmp_path / "x.mkv", click_at(4000), click_at(8000)), []
    real = video_reader._decoded

    def noted(container, stream):
        decoded.append(stream.index)
        return real(container, stream)

    monkeypatch.setattr(video_reader, "_decoded", noted)
    read_audio(path)
    assert 1 in decoded and 2 not in decoded


def test_a_sound_file_can_be_read(tmp_path):
    soundfile.write(tmp_path / "x.flac", clicks(16000, 4000).samples, 16000)
    assert onset(read_audio(tmp_path / "x.flac").samples) == pytest.approx(4000, abs=8)
