"""The numbers that make work equal, against another implementation and published values."""

import hashlib
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.workload import generator

MASK = (1 << 64) - 1


def splitmix64(seed, count):
    """Vigna's C code (https://prng.di.unimi.it/splitmix64.c), in Python's unbounded integers."""
    state, out = seed, []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        out.append(z ^ (z >> 31))
    return out


def test_words_are_those_published_for_splitmix64():
    # https://rosettacode.org/wiki/Pseudo-random_numbers/Splitmix64, seed 1234567
    assert generator.words(1234567, 5).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


@given(seed=st.integers(0, MASK), count=st.integers(0, 40))
def test_words_agree_with_unbounded_integers(seed, count):
    assert generator.words(seed, count).tolist() == splitmix64(seed, count)


def test_words_go_on_across_the_chunks_they_are_made_in():
    count = 2 * generator._CHUNK + 3
    assert generator.words(MASK - 5, count)[-4:].tolist() == splitmix64(MASK - 5, count)[-4:]


def test_uniform_numbers_come_from_the_upper_bits_of_each_half_the_lower_half_first():
    seed = int.from_bytes(hashlib.sha256(b"a name").digest()[:8], "big")
    word = splitmix64(seed, 1)[0]
    expected = [((word & 0xFFFFFFFF) >> 8) * 2.0**-24, (word >> 40) * 2.0**-24]
    assert generator.uniform("a name", (2,), 0.0, 1.0).tolist() == expected


@given(
    low=st.floats(-4, 4, width=32),
    span=st.floats(0.125, 8, width=32),
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=4),
)
def test_uniform_numbers_stay_in_their_range_and_shape(low, span, shape):
    values = generator.uniform("range", tuple(shape), low, low + span)
    assert values.dtype == np.float32
    assert values.shape == tuple(shape)
    assert values.min() >= np.float32(low)
    assert values.max() <= np.float32(low + span)


def test_uniform_numbers_have_the_mean_and_variance_of_the_even_spread():
    values = generator.uniform("moments", (1_000_000,), 0.0, 1.0).astype(float)
    assert values.mean() == pytest.approx(1 / 2, abs=4 / (12 * 1_000_000) ** 0.5)
    assert values.var() == pytest.approx(1 / 12, rel=0.005)


def test_streams_of_different_names_have_nothing_in_common():
    a, b = (generator.uniform(name, (10_000,), -1.0, 1.0) for name in ("a", "b"))
    assert abs(np.corrcoef(a, b)[0, 1]) < 4 / 10_000**0.5


def test_images_are_evenly_spread_colours_normalised_as_imagenet_is():
    values = generator.images(2, 64).astype(float)
    assert values.shape == (2, 3, 64, 64)
    for channel, (mean, std) in enumerate(
        zip([0.485, 0.456, 0.406], [0.229, 0.224, 0.225], strict=True)
    ):
        assert values[:, channel].min() == pytest.approx((0 - mean) / std, abs=0.01)
        assert values[:, channel].max() == pytest.approx((1 - mean) / std, abs=0.01)
        assert values[:, channel].mean() == pytest.approx((0.5 - mean) / std, abs=0.06)


def test_hashes_are_those_of_the_little_endian_bytes():
    values = np.array([1.5, -2.25], np.float32)
    packed = struct.pack("<2f", 1.5, -2.25)
    assert generator.sha256(values) == hashlib.sha256(packed).hexdigest()
    expected = hashlib.sha256(b"a [2]\n" + packed + b"b [1]\n" + struct.pack("<f", 3.0))
    weights = {"b": np.array([3.0], np.float32), "a": values}
    assert generator.sha256_of_weights(weights) == expected.hexdigest()


def test_a_fingerprint_changes_in_proportion_to_its_logits():
    logits = generator.uniform("logits", (1, 1000), -1.0, 1.0)
    once, twice = (np.array(generator.fingerprint(logits * k)) for k in (1, 2))
    assert twice == pytest.approx(2 * once)
    assert len(once) == 8


def test_a_fingerprint_distinguishes_logits_in_another_order():
    logits = generator.uniform("logits", (1, 1000), -1.0, 1.0)
    difference = np.subtract(generator.fingerprint(logits), generator.fingerprint(logits[:, ::-1]))
    assert np.abs(difference).max() > 0.1


def test_a_fingerprint_has_the_size_of_the_logits():
    logits = generator.uniform("logits", (4, 1000), -3.0, 3.0)
    rms = float(np.sqrt((logits.astype(float) ** 2).mean()))
    # Projections on 64 random directions of variance 1/3, scaled by √3: their mean square is rms².
    found = np.array(generator.fingerprint(logits, count=64))
    assert np.sqrt((found**2).mean()) == pytest.approx(rms, rel=4 / (2 * 64) ** 0.5)
