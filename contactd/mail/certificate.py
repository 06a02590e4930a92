"""The certificate of STARTTLS: read anew when its files change."""

import ssl
from pathlib import Path

from contactd.errors import ConfigurationError
from contactd.log import get_logger

log = get_logger()


class Certificate:
    """The TLS context of two files, made again when they change.

    Raises:
        ConfigurationError: they cannot be used.
    """

    def __init__(self, chain: Path, key: Path) -> None:
        self._chain = chain
        self._key = key
        self._seen = self._stamp()
        self._fault = ""
        try:
            self._context = self._load()
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"smtp.certificate_file, smtp.key_file: {_said(error)}"
            ) from error

    @property
    def fault(self) -> str:
        """Why the files as they are now are not in use; "": they are."""
        return self._fault

    def context(self) -> ssl.SSLContext:
        """Return the context; the old one as long as new files do not fit each other."""
        stamp = self._stamp()
        if stamp != self._seen:
            self._seen = stamp
            try:
                self._context, self._fault = self._load(), ""
                log.info("smtp.certificate_loaded")
            except (OSError, ValueError) as error:
                self._fault = f"new certificate not used: {_said(error)}"
                log.warning("smtp.certificate_refused", reason=_said(error))
        return self._context

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Without the answer OpenSSL would ask a terminal for the password of an encrypted key.
        context.load_cert_chain(self._chain, self._key, password=lambda: b"")
        return context

    def _stamp(self) -> tuple[tuple[int, ...], ...]:
        return tuple(map(_file_stamp, (self._chain, self._key)))


def _file_stamp(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_size, status.st_ino


def _said(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
