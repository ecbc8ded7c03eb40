"""Attacks by texts: to go on with, and to embed."""

from __future__ import annotations

from tests.attacks.attack import COMPLETE, EMBED, LIMITED, MODEL, Attack, attack, completion, drop, embedding, post
from tests.attacks.chats import LONG, WORKED

_PAGE = "all the words of a long page " * 60

ATTACKS: tuple[Attack, ...] = (
    attack("2,048 short texts", post(EMBED, embedding(["a text"] * 2048), times=2), WORKED),
    attack("2,048 long texts", post(EMBED, embedding([_PAGE] * 2048), times=2), WORKED),
    attack("40 times 100 long texts", post(EMBED, embedding([_PAGE] * 100), times=40), WORKED),
    attack("a text of 7 MB", post(EMBED, embedding("a word " * 10**6), times=2), WORKED),
    attack("a word of 7 MB", post(EMBED, embedding("a" * 7 * 10**6), times=2), WORKED),
    attack("one long text among 2,047 short ones", post(EMBED, embedding(["a"] * 2047 + [_PAGE]), times=2), WORKED),
    attack("more texts than may be", post(EMBED, embedding(["a"] * 2049), embedding(["a"] * 10**6)), "400 413 429"),
    attack(
        "empty and blank texts", post(EMBED, *map(embedding, ("", " ", [""], [], ["a", ""], "\0", "\u200b"))), WORKED
    ),
    attack(
        "odd characters",
        post(EMBED, embedding(["\U0010ffff" * 500, "\u202e" * 500, "a\u0301" * 500, "\ufdfa" * 500, "한" * 500])),
        WORKED,
    ),
    attack("tokens for an embedder of texts", post(EMBED, embedding([1, 2, 3]), embedding([[1], [2]])), "400 429"),
    attack(
        "tokens out of range for a language model",
        post(EMBED, *[embedding(ids, MODEL) for ids in ([300], [2**31], [-1], [[]], [1.5])]),
        "400 429",
    ),
    attack("2,048 long texts for a language model", post(EMBED, embedding([LONG] * 2048, MODEL), times=2), WORKED),
    attack(
        "one long text among 2,047 for a language model",
        post(EMBED, embedding(["a"] * 2047 + [LONG], MODEL), times=2),
        WORKED,
    ),
    attack(
        "40 times 100 long texts for a language model", post(EMBED, embedding([LONG] * 100, MODEL), times=40), WORKED
    ),
    attack(
        "vectors in base64 and other forms",
        post(
            EMBED, embedding(encoding_format="base64"), embedding(encoding_format="int8"), embedding(dimensions=10**9)
        ),
        WORKED,
    ),
    attack(
        "2,048 vectors in base64",
        post(EMBED, embedding(["a"] * 2048, MODEL, encoding_format="base64"), times=4),
        WORKED,
    ),
    attack("embeddings dropped at once", drop(EMBED, embedding([_PAGE] * 200), 60, 0.05), WORKED + " held"),
    attack(
        "embeddings of a language model dropped at once",
        drop(EMBED, embedding([LONG] * 500, MODEL), 60, 0.05),
        WORKED + " held",
    ),
    attack("one key's share of embeddings", post(EMBED, embedding(), times=100, key=LIMITED), "200 429"),
    attack(
        "256 prompts, 16 answers each",
        post(COMPLETE, completion(["say 3 words"] * 256, n=16, max_tokens=400), times=2),
        WORKED,
    ),
    attack("256 of the longest prompts", post(COMPLETE, completion([LONG] * 256, max_tokens=1), times=2), WORKED),
    attack(
        "100 completions dropped amid",
        drop(COMPLETE, completion([LONG] * 16, max_tokens=100), 100, 0.4),
        WORKED + " held",
    ),
    attack(
        "tokens out of range",
        post(
            COMPLETE,
            *[
                completion(ids)
                for ids in ([299, 300], [2**31 - 1], [2**31], [-1], [2**70], [[]], [], [[1], "a"], [1.5])
            ],
        ),
        "400 429",
    ),
    attack(
        "all tokens, special ones too",
        post(COMPLETE, completion(list(range(300))), completion([0] * 300), completion([1] * 300)),
        WORKED,
    ),
    attack(
        "empty and blank prompts",
        post(COMPLETE, completion(""), completion([""]), completion([]), completion("\0"), completion(" " * 400)),
        WORKED,
    ),
    attack("256 prompts, one of them empty", post(COMPLETE, completion(["a"] * 255 + [""]), times=4), "400 429"),
    attack(
        "prompts echoed, 16 times each",
        post(COMPLETE, completion([LONG] * 64, echo=True, n=16, max_tokens=1), times=2),
        WORKED,
    ),
)
