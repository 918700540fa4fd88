"""What the testbed refuses or fails at, in one line."""


class TestbedError(Exception):
    """The testbed cannot do what was asked; the message says why and what to do."""

    __test__ = False  # not a test class, whatever its name begins with
