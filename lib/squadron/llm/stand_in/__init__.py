"""A local server that takes and refuses what the providers' own servers do: for rehearsals and tests."""

from squadron.llm.stand_in.profiles import PROFILES, Profile, find_profile
from squadron.llm.stand_in.server import StandIn

__all__ = ["PROFILES", "Profile", "StandIn", "find_profile"]
