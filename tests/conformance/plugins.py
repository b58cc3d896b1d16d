"""The plugin of the suite's "auth" broker."""


class Gatekeeper:
    """Allows and refuses by names that tests choose."""
