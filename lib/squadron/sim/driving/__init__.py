"""Cars that meet: reference lines that cross or join, drivers of three styles, what they say, and recorded traffic."""
