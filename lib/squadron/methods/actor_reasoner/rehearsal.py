"""What a language model says in a rehearsal of actor_reasoner: thoughts of each kind, in the form that is asked for."""

from __future__ import annotations

from squadron.core.rehearsal import Replies

REPLIES: Replies = (
    (
        "",
        (
            "Style: CONSERVATIVE\nIntention: DECELERATE\nDecision: FASTER\nDisplay: I go first",
            "Style: AGGRESSIVE\nIntention: ACCELERATE\nDecision: SLOWER\nDisplay: you go first",
            "Style: NORMAL\nIntention: DECELERATE\nDecision: IDLE\nDisplay: nothing",
        ),
    ),
)
