"""Optuna's storages by URL: databases, a journal file, or the gRPC proxy."""

from __future__ import annotations

from urllib.parse import urlsplit

from optuna.storages import BaseStorage

from autoquant.errors import InputError, first_line

KINDS = (
    "sqlite:///FILE, journal:///FILE, postgresql+psycopg://USER:PASSWORD@HOST/DATABASE, "
    "mysql+pymysql://…, grpc://HOST:PORT"
)


def without_password(url: str) -> str:
    """``url`` as it may be shown."""
    try:
        parts = urlsplit(url)
        secret = parts.password
    except ValueError:
        return url.partition("://")[0] + "://…"
    return url if not secret else url.replace(f":{secret}@", ":***@", 1)


def open_storage(url: str) -> BaseStorage:
    """Open a storage; databases get their tables when they have none.

    Raises:
        InputError: The URL names no storage, or it cannot be reached.
    """
    kind, separator, rest = url.partition("://")
    if not separator:
        raise InputError(f"--storage {without_password(url)!r} is no URL; give one of: {KINDS}.")
    try:
        if kind == "journal":
            return _journal(rest)
        if kind == "grpc":
            return _proxy(rest)
        from optuna.storages import RDBStorage, get_storage

        # A connection that a server or a firewall has closed in an hour of silence is made anew.
        engine = {} if kind.startswith("sqlite") else {"pool_pre_ping": True}
        return get_storage(RDBStorage(url, engine_kwargs=engine))
    # The drivers' errors have no common root, and what is wrong is in their first line.
    except Exception as error:
        said = first_line(error).replace(url, without_password(url))
        raise InputError(f"Cannot open the storage {without_password(url)}: {said}") from error


def _journal(path: str) -> BaseStorage:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(path))


def _proxy(address: str) -> BaseStorage:
    from optuna.storages import GrpcStorageProxy

    host, _, port = address.rstrip("/").rpartition(":")
    return GrpcStorageProxy(host=host, port=int(port))
