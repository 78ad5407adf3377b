"""The image rule: every mode, EXIF, deep grays, and everything that must be refused."""

from __future__ import annotations

import io
import pickle
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps

from residualign.data import BadImageError, read_image, to_rgb
from residualign.data.images import EXTENSIONS, decode, has_image_extension
from residualign.errors import BadInputError
from tests.data.make import noise, png


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "YCbCr", "HSV", "PA", "RGB"])
def test_every_mode_becomes_what_pillow_converts_it_to(mode: str) -> None:
    image = noise(1).convert("L").convert(mode) if mode == "PA" else noise(1).convert(mode)
    result = to_rgb(image)
    assert result.mode == "RGB"
    np.testing.assert_array_equal(result, image.convert("RGB"))


def test_a_transparent_palette_converts_without_a_warning_and_alpha_is_dropped() -> None:
    image = noise(2).convert("P")
    data = encoded(image, "png", transparency=bytes(range(256)))
    np.testing.assert_array_equal(decode(data, "k"), image.convert("RGB"))


@pytest.mark.parametrize("kind", ["png", "tiff", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int, kind: str) -> None:
    upright = np.asarray(noise(3, (5, 3)))
    # the stored pixels that each tag value declares, from the EXIF specification (rows and columns of the scene)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright[:, ::-1].transpose(1, 0, 2),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: upright[::-1].transpose(1, 0, 2),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"lossless": True} if kind == "webp" else {}
    data = encoded(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif, **lossless)
    np.testing.assert_array_equal(decode(data, "k"), upright)


def test_sixteen_bits_are_divided_by_257() -> None:
    values = np.array([[0, 257, 128 * 257], [65535, 128, 129]], dtype=np.uint16)
    result = np.asarray(decode(encoded(Image.fromarray(values), "png"), "k"))
    np.testing.assert_array_equal(result[..., 0], [[0, 1, 128], [255, 0, 1]])
    np.testing.assert_array_equal(result[..., 0], result[..., 2])


@pytest.mark.parametrize("kind", ["png", "tiff", "ppm"])
def test_every_format_of_16_bit_gray_gives_the_same_pixels(kind: str) -> None:
    values = np.linspace(0, 65535, 7 * 11, dtype=np.uint16).reshape(7, 11)
    result = np.asarray(decode(encoded(Image.fromarray(values), kind), "k"))[..., 0]
    np.testing.assert_array_equal(result, np.rint(values / 257))


def test_big_endian_16_bits() -> None:
    values = np.array([[0, 257, 65535]], dtype=">u2")
    image = Image.frombytes("I;16B", (3, 1), values.tobytes())
    np.testing.assert_array_equal(np.asarray(to_rgb(image))[..., 0], [[0, 1, 255]])


@pytest.mark.parametrize(("low", "high", "expected"), [(0.0, 1.0, [0, 128, 255]), (0.0, 255.0, [0, 128, 255])])
def test_floats_in_either_range(low: float, high: float, expected: list[int]) -> None:
    values = np.array([[low, (low + high) / 2 + 0.001, high]], dtype=np.float32)
    np.testing.assert_array_equal(np.asarray(to_rgb(Image.fromarray(values)))[0, :, 0], expected)


@pytest.mark.parametrize("values", [[[-1.0, 0.0]], [[0.0, 256.0]], [[float("nan"), 0.0]]])
def test_floats_of_unknown_range_are_refused(values: list[list[float]]) -> None:
    with pytest.raises(BadImageError, match=r"expected 0\.\.1 or 0\.\.255"):
        to_rgb(Image.fromarray(np.array(values, dtype=np.float32)))


def test_integers_of_unknown_range_are_refused() -> None:
    with pytest.raises(BadImageError, match=r"0\.\.70000, expected 0\.\.65535"):
        to_rgb(Image.fromarray(np.array([[0, 70000]], dtype=np.int32)))


def test_a_mode_that_pillow_cannot_convert_is_refused() -> None:
    with pytest.raises(BadImageError, match="conversion"):
        to_rgb(Image.new("La", (2, 3)))


# Pillow warns of damaged TIFF tags before it fails, or when it can go on without them
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "bmp", "tiff", "webp", "ppm", "tga", "jpeg2000"])
def test_damaged_files_of_every_format_are_refused_or_decoded_in_full(kind: str) -> None:
    data = encoded(noise(4, (31, 29)), kind)
    assert decode(data, "k").size == (31, 29)
    for end in range(0, len(data), max(1, len(data) // 40)):
        assert _refused_or_whole(data[:end])
    rng = np.random.default_rng(5)
    for _ in range(60):
        flipped = bytearray(data)
        flipped[rng.integers(len(data))] ^= int(rng.integers(1, 256))
        assert _refused_or_whole(bytes(flipped))


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@given(st.binary(max_size=200))
def test_any_bytes_give_an_image_or_a_bad_image_error(data: bytes) -> None:
    assert _refused_or_whole(data)


def _refused_or_whole(data: bytes) -> bool:
    """Whether the bytes give an RGB image, or an error of one line that names the image; no other error may come."""
    try:
        image = decode(data, "the/key.png")
    except BadImageError as error:
        return "the/key.png" in str(error) and "\n" not in str(error)
    return image.mode == "RGB"


@pytest.mark.parametrize(
    "kind",
    [
        *(OSError, RuntimeError, SyntaxError, ValueError, TypeError, KeyError, IndexError, OverflowError, EOFError),
        *(AttributeError, struct.error, zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning),
    ],
)
def test_whatever_a_decoder_raises_becomes_one_sentence(kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(image: Image.Image) -> Image.Image:
        raise kind("two\nlines.")

    monkeypatch.setattr(ImageOps, "exif_transpose", fail)
    for convert in (lambda: decode(png(noise(1)), "k"), lambda: to_rgb(noise(1), "k")):
        with pytest.raises(BadImageError, match=r"'k' cannot be used: '?two"):
            convert()


def test_the_pictures_of_a_phone_open() -> None:
    data = encoded(noise(8, (16, 16)), "mpo", save_all=True, append_images=[noise(9, (16, 16))])
    assert decode(data, "k").size == (16, 16)


def test_half_an_image_is_refused_whatever_other_code_set_in_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for kind in ("JPEG", "PNG"):
        buffer = io.BytesIO()
        Image.effect_noise((60, 40), 90).convert("RGB").save(buffer, kind)
        half = buffer.getvalue()[: buffer.tell() // 2]
        with pytest.raises(BadImageError):
            decode(half, "half")
        with pytest.raises(BadImageError):
            to_rgb(Image.open(io.BytesIO(half)))
        # also while another thread decodes, and afterwards the switch is as the other code left it
        with ThreadPoolExecutor(4) as pool:
            refused = [pool.submit(decode, half, "half") for _ in range(40)]
            assert all(isinstance(one.exception(), BadImageError) for one in refused)
        assert ImageFile.LOAD_TRUNCATED_IMAGES


def test_truncated_and_empty_files_name_key_and_reason(tmp_path: Path) -> None:
    whole = encoded(noise(6, (64, 64)), "jpeg")
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(BadImageError, match=r"'cats/cut\.jpg'.*truncated"):
        read_image(tmp_path / "cut.jpg", "cats/cut.jpg")
    with pytest.raises(BadImageError, match=r"empty\.png.*0 bytes"):
        read_image(tmp_path / "empty.png")
    with pytest.raises(BadImageError, match="cannot be read"):
        read_image(tmp_path / "gone.png")


def test_a_decompression_bomb_is_refused() -> None:
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0")), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in chunks)
    with pytest.raises(BadImageError, match="decompression bomb"):
        decode(b"\x89PNG\r\n\x1a\n" + body, "k")


def test_postscript_is_never_opened() -> None:
    with pytest.raises(BadImageError, match="image format is not supported"):
        decode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "k")


def test_the_error_is_bad_input_and_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(BadImageError("a/b.png", "it is empty")))
    assert isinstance(error, BadInputError)
    assert (error.key, error.reason) == ("a/b.png", "it is empty")


def test_the_first_frame_of_an_animation_counts() -> None:
    frames = [noise(i).quantize(32) for i in range(3)]
    data = encoded(frames[0], "gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode(data, "k"), frames[0].convert("RGB"))


def test_extensions_are_those_of_formats_that_pillow_opens() -> None:
    Image.init()
    known = Image.registered_extensions()
    assert {extension for extension in EXTENSIONS if known.get(extension) is None} <= {".avif"}
    assert has_image_extension("a.b.JPeG")
    assert not has_image_extension("png")
    assert not has_image_extension("a.eps")


def test_the_result_owns_its_pixels() -> None:
    """The file is closed again, so a later read must not need it."""
    result = decode(png(noise(7)), "k")
    np.testing.assert_array_equal(result, noise(7))
