"""Mixed-integer programmes of a coordination problem, by one solver each."""
