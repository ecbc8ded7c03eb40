"""Playing a preset through in small: stand-ins for its models, data and servers, and `squadron rehearse`."""
