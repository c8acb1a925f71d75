"""Texts that are much alike, kept small: each as what tells it from a sample of them."""

from __future__ import annotations

import zlib

# Raw DEFLATE (RFC 1951), whose window the sample fills beforehand.
_RAW = -zlib.MAX_WBITS


class Alike:
    """Packs texts of one kind; of those that are like the sample little is left.

    Args:
        sample: One of them. The same one is needed to unpack them.
    """

    def __init__(self, sample: bytes) -> None:
        self.sample = sample

    def pack(self, text: bytes) -> bytes:
        """What tells a text from the sample."""
        packer = zlib.compressobj(wbits=_RAW, zdict=self.sample)
        return packer.compress(text) + packer.flush()

    def unpack(self, packed: bytes) -> bytes:
        """The text that `pack` was given.

        Raises:
            ValueError: It was packed with another sample, or is damaged.
        """
        unpacker = zlib.decompressobj(wbits=_RAW, zdict=self.sample)
        try:
            return unpacker.decompress(packed) + unpacker.flush()
        except zlib.error as error:
            raise ValueError(f"not packed with this sample: {error}") from None
