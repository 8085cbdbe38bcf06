"""A PostgreSQL server for a test, where its programs are installed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path


def missing() -> str | None:
    """What is needed and not there."""
    if _program("initdb") is None:
        return "PostgreSQL is not installed (Debian: apt install postgresql)"
    if find_spec("psycopg") is None:
        return "the driver is not installed (pip install 'psycopg[binary]')"
    return None


@contextmanager
def server(directory: Path) -> Iterator[str]:
    """Run a server that only this machine's sockets reach; yields its URL for SQLAlchemy."""
    # A server does not run as root; the package makes a user for it.
    user = "postgres" if os.geteuid() == 0 else None
    data, socket = directory / "data", directory / "socket"
    for path in (data, socket):
        path.mkdir(parents=True)
        if user is not None:
            shutil.chown(path, user)
    as_user = {"user": user, "cwd": "/"} if user else {"cwd": "/"}
    initdb = [str(_program("initdb")), "-D", str(data), "-U", "me", "--auth=trust", "--no-sync"]
    subprocess.run(initdb, check=True, capture_output=True, **as_user)  # type: ignore[call-overload]
    process = subprocess.Popen(  # type: ignore[call-overload]
        [str(_program("postgres")), "-D", str(data), "-k", str(socket), "-c", "listen_addresses="],
        stderr=subprocess.DEVNULL,
        **as_user,
    )
    try:
        ready = [str(_program("pg_isready")), "-h", str(socket)]
        while subprocess.run(ready, capture_output=True, check=False).returncode:
            assert process.poll() is None, "the server ended"
        yield f"postgresql+psycopg://me@/postgres?host={socket}"
    finally:
        process.send_signal(signal.SIGINT)  # clients need not leave first
        process.wait()


def _program(name: str) -> Path | None:
    found = shutil.which(name)
    if found:
        return Path(found)
    return next(iter(sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))), None)
