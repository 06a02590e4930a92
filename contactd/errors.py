"""The three kinds of failure: try again, never again, and (anything else) a bug."""


class ContactdError(Exception):
    """Anything contactd raises on purpose; its text is for the operator, without personal data."""


class TemporaryFailure(ContactdError):
    """Nothing was stored or sent; the same request may succeed later."""


class PermanentFailure(ContactdError):
    """The same request will never succeed; do not repeat it."""


class ActionNotAllowed(PermanentFailure):
    """The life cycle of the ticket has no such transition."""


class NotFound(PermanentFailure):
    """What was asked for does not exist."""


class ConfigurationError(ContactdError):
    """The configuration is wrong; the text lists every error found, one a line."""
