"""Filling rows of a fixed number of tokens with several sequences each."""

from __future__ import annotations

from collections.abc import Sequence

from squadron.core.errors import InputError


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Bins of sequence numbers whose lengths sum to `capacity` at most, by best-fit decreasing.

    The result depends on the lengths alone. Bins are in the order of their first sequence, and so are the sequences of
    a bin, so that rows of one length keep the order they came in. Best fit needs at most 11/9 of the fewest bins plus
    a constant (Johnson 1974). Takes O(n log n + n·capacity/64).

    Raises InputError for a sequence longer than `capacity`.
    """
    bins: list[list[int]] = []
    open_bins: dict[int, list[int]] = {}  # free tokens → bins with exactly so many
    free_sizes = 0  # bit n is set where a bin has n free tokens
    for number in sorted(range(len(lengths)), key=lambda n: (-lengths[n], n)):
        length = lengths[number]
        if length > capacity:
            what = f"row {number} has {length} tokens, {length - capacity} more than a packed row holds"
            raise InputError(what, fix="raise max_length, or cut or leave out long rows")
        enough = free_sizes >> length
        if enough:
            free = length + (enough & -enough).bit_length() - 1
            place = open_bins[free].pop()
            if not open_bins[free]:
                free_sizes &= ~(1 << free)
        else:
            free, place = capacity, len(bins)
            bins.append([])
        bins[place].append(number)
        left = free - length
        if left:
            open_bins.setdefault(left, []).append(place)
            free_sizes |= 1 << left
    return sorted(sorted(bin) for bin in bins)
