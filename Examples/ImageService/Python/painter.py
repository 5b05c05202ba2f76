"""The painter: a small random neural network that maps the place of a pixel to its colour.

    python painter.py "a harbour at night" 7 512 harbour.png

The prompt and the seed choose the network. Painter.swift paints the same pictures, byte for byte. Both use only + - * /,
square root, floor, absolute value and comparison of IEEE doubles, in the same order. A matrix product, a sum of an array
or a fused operation would round differently, and so would tanh or sin of another library.
"""
import struct
import sys
import zlib

import numpy as np

STRIDES = (32, 16, 8, 4)  # one preview each; the picture itself is the last pass
PASSES = len(STRIDES) + 1
SMALLEST = 32
WIDTH = 24
LAYERS = 7
BAND = 16  # rows of the picture between two reports of progress
FINE = 4  # a pixel is the mean of this number of samples, squared
CHUNK = 1024  # samples computed at once: the values of one layer stay in the processor's cache
MASK = (1 << 64) - 1


class Generator:
    """SplitMix64."""

    def __init__(self, prompt, seed):
        state = 14695981039346656037
        for byte in prompt.encode() + struct.pack("<q", seed):  # FNV-1a, 64 bits
            state = ((state ^ byte) * 1099511628211) & MASK
        self.state = state

    def next(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return z ^ (z >> 31)

    def uniform(self):
        return (self.next() >> 11) * 2.0**-53

    def symmetric(self):
        return self.uniform() * 2 - 1


def triangle(v):
    return np.abs(v - 2 * np.floor((v + 1) * 0.5)) * 2 - 1


ACTIVATIONS = (
    lambda v: v / (1 + np.abs(v)),
    lambda v: 2 / (1 + v * v) - 1,
    triangle,
    lambda v: v / np.sqrt(1 + v * v),
)


class Network:
    def __init__(self, prompt, seed):
        random = Generator(prompt, seed)
        self.fx = 1 + random.uniform()
        self.fy = 1 + random.uniform()
        self.layers = []
        for layer in range(LAYERS):
            inputs, gain = (6, 0.7) if layer == 0 else (WIDTH, 0.37)
            kinds, weights, biases = [], np.empty((WIDTH, inputs)), np.empty(WIDTH)
            for unit in range(WIDTH):
                kinds.append(random.next() % 4)
                for k in range(inputs):
                    weights[unit, k] = random.symmetric() * gain
                biases[unit] = random.symmetric()
            self.layers.append((kinds, weights, biases))
        self.out_weights, self.out_biases = np.empty((3, WIDTH)), np.empty(3)
        for unit in range(3):
            for k in range(WIDTH):
                self.out_weights[unit, k] = random.symmetric() * 0.45
            self.out_biases[unit] = random.symmetric() * 0.3

    def colours(self, side, first, last):
        """The colours, 0...1, of the rows `first` to before `last` of a picture of `side`: an array (3, rows, side)."""
        columns = ((np.arange(side) + 0.5) / side) * 2 - 1
        rows = ((np.arange(first, last) + 0.5) / side) * 2 - 1
        x = np.tile(columns, last - first)
        y = np.repeat(rows, side)
        colours = np.empty((3, x.size))
        for begin in range(0, x.size, CHUNK):
            here = slice(begin, begin + CHUNK)
            colours[:, here] = self.evaluate(x[here], y[here])
        return colours.reshape(3, last - first, side)

    def evaluate(self, x, y):
        values = np.empty((6, x.size))
        values[0], values[1], values[2] = x, y, np.sqrt(x * x + y * y)
        values[3], values[4], values[5] = triangle(x * self.fx), triangle(y * self.fy), 1.0
        for kinds, weights, biases in self.layers:
            values = weighted(weights, biases, values)
            for unit, kind in enumerate(kinds):
                values[unit] = ACTIVATIONS[kind](values[unit])
        acc = weighted(self.out_weights, self.out_biases, values)
        value = (acc / (1 + np.abs(acc)) + 1) * 0.5
        return value * value * (3 - 2 * value)


def weighted(weights, biases, values):
    """The bias and then the weighted inputs of each unit, added one input after the other."""
    acc = np.repeat(biases[:, None], values.shape[1], axis=1)
    product = np.empty_like(acc)
    for k in range(values.shape[0]):
        np.multiply(weights[:, k, None], values[k], out=product)
        np.add(acc, product, out=acc)
    return acc


def as_bytes(colours):
    return np.floor(colours * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0).tobytes()


def paint(prompt, seed, n, on_preview=None, on_progress=None):
    """Paints a picture of `n` times `n` pixels and returns its RGB bytes.

    on_preview(number, side, rgb) takes each preview, coarse to fine, numbered from 1. on_progress(fraction, number) is
    called when pass `number` of PASSES begins, and after each band of rows of the last one; what it raises ends the
    painting.
    """
    if n < SMALLEST:
        raise ValueError(f"the size is {n}; the smallest is {SMALLEST}")
    progress = on_progress or (lambda fraction, number: None)
    network = Network(prompt, seed)
    sides = [n // stride for stride in STRIDES]
    samples = sum(side * side for side in sides) + FINE * FINE * n * n
    done = 0
    for number, side in enumerate(sides, 1):
        progress(done / samples, number)
        rgb = as_bytes(network.colours(side, 0, side))
        done += side * side
        if on_preview:
            on_preview(number, side, rgb)
    progress(done / samples, PASSES)
    picture = bytearray()
    for first in range(0, n, BAND):
        last = min(first + BAND, n)
        fine = network.colours(FINE * n, FINE * first, FINE * last)
        total = np.zeros((3, last - first, n))
        for below in range(FINE):
            for beside in range(FINE):
                total += fine[:, below::FINE, beside::FINE]
        picture += as_bytes(total / (FINE * FINE))
        done += FINE * FINE * (last - first) * n
        progress(done / samples, PASSES)
    return bytes(picture)


def png(side, rgb):
    """The bytes of a PNG file of a square picture."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = 3 * side
    filtered = b"".join(b"\0" + rgb[begin:begin + row] for begin in range(0, len(rgb), row))
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(filtered, 6)) + chunk(b"IEND", b"")


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit('usage: painter.py "PROMPT" SEED SIZE FILE.png')
    _, prompt, seed, size, path = sys.argv
    rgb = paint(prompt, int(seed), int(size))
    with open(path, "wb") as file:
        file.write(png(int(size), rgb))
