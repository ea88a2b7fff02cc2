"""Writes several hundred broken and odd image files: what real folders hold, and what hostile ones might."""

import io
import os
import random
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK"),
    "WEBP": ("RGB", "RGBA"),
    "BMP": ("1", "L", "P", "RGB"),
    "GIF": ("L", "P", "RGB"),
    "TIFF": ("1", "L", "P", "RGB", "RGBA", "CMYK", "LAB", "I;16", "F", "I"),
}
SUFFIX = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp", "BMP": "bmp", "GIF": "gif", "TIFF": "tif"}


def write_broken_images(folder: Path, seed: int = 0) -> int:
    """Fill the folder; returns how many images an audit of it must account for."""
    chance = random.Random(seed)
    good = {(kind, mode): _encoded(kind, mode) for kind, modes in MODES.items() for mode in modes}
    files: dict[str, bytes] = {}
    for (kind, mode), data in good.items():
        name = f"{kind}-{mode.replace(';', '')}"
        files[f"whole/{name}.{SUFFIX[kind]}"] = data
        for share in (0.1, 0.5, 0.95):
            files[f"truncated/{name}-{share}.{SUFFIX[kind]}"] = data[: int(len(data) * share)]
        for number in range(4):
            flipped = bytearray(data)
            for _ in range(1 + 3 * number):
                flipped[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            files[f"flipped/{name}-{number}.{SUFFIX[kind]}"] = bytes(flipped)
        other = chance.choice([suffix for suffix in SUFFIX.values() if suffix != SUFFIX[kind]])
        files[f"wrong suffix/{name}.{other}"] = data
    files |= _odd(good["PNG", "RGB"], chance)
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return len(files) + _links(folder)


def _odd(png: bytes, chance: random.Random) -> dict[str, bytes]:
    files = {
        "odd/empty.png": b"",
        "odd/one byte.jpg": b"\xff",
        "odd/text.gif": b"no image at all",
        "odd/html.png": b"<script>alert(1)</script>" * 20,
        "odd/zeros.bmp": bytes(5000),
        "odd/bomb.png": _png_header(60_000, 60_000),
        "odd/wide.png": _png_header(2**31 - 1, 1),
        "odd/flat.png": _png_header(0, 5),
        "odd/one pixel.png": _saved(Image.new("RGB", (1, 1))),
        "odd/tall.png": _saved(Image.new("L", (1, 5000))),
        "odd/animated.gif": _saved(
            Image.new("P", (9, 9)), "GIF", save_all=True, append_images=[Image.new("P", (9, 9), 1)] * 4
        ),
        "odd/animated.webp": _saved(
            Image.new("RGB", (9, 9)), "WEBP", save_all=True, append_images=[Image.new("RGB", (9, 9), 9)] * 4
        ),
        "odd/pages.tif": _saved(
            Image.new("L", (9, 9)), "TIFF", save_all=True, append_images=[Image.new("L", (7, 7))]
        ),
        "odd/trailing.png": png + b"more" * 100,
        "odd/twice.png": png + png,
        "names/ünï cödé 猫 \u202e.png": png,
        "names/line\nbreak.png": png,
        "names/'quotes\" & <b>.png": png,
        "names/%s {0} $HOME `id`.png": png,
        f"names/{'long ' * 49}.png": png,
        "names/.hidden.png.png": png,
        "names/many.dots.in.name.PNG": png,
    }
    del files["names/.hidden.png.png"]  # hidden files are no images, by rule
    for orientation in (0, 1, 3, 6, 8, 9, 65535):
        exif = Image.Exif()
        exif[0x0112] = orientation
        files[f"exif/{orientation}.jpg"] = _saved(Image.new("RGB", (12, 10)), "JPEG", exif=exif)
    jpeg = bytearray(files["exif/6.jpg"])
    for number in range(10):
        jpeg[chance.randrange(4, 60)] = chance.randrange(256)
        files[f"exif/broken {number}.jpg"] = bytes(jpeg)
    for number in range(30):
        files[f"noise/{number}.{chance.choice(list(SUFFIX.values()))}"] = chance.randbytes(
            chance.randrange(1, 4000)
        )
    return files


def _links(folder: Path) -> int:
    links = folder / "links"
    links.mkdir()
    (links / "loop a.png").symlink_to("loop b.png")
    (links / "loop b.png").symlink_to("loop a.png")
    (links / "nowhere.png").symlink_to("gone.png")
    (links / "outside.png").symlink_to("/etc/hostname")
    (links / "device.png").symlink_to("/dev/zero")
    (links / "up").symlink_to("..")  # a folder that is listed at its own place
    os.mkfifo(links / "pipe.png")
    (links / "locked.png").write_bytes(b"x")
    (links / "locked.png").chmod(0)
    return 7


def _encoded(kind: str, mode: str) -> bytes:
    noise = np.random.default_rng(len(mode)).integers(0, 256, (12, 10, 3), np.uint8)
    if mode == "I;16":
        return _saved(Image.fromarray(noise[..., 0].astype(np.uint16) * 257), kind)
    image = Image.fromarray(noise)
    if mode == "LA":
        return _saved(image.convert("L").convert("LA"), kind)
    if mode == "LAB":
        return _saved(Image.merge("LAB", image.split()), kind)
    if mode in ("F", "I"):
        image = image.convert("L")
    return _saved(image.convert(mode), kind)


def _saved(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
