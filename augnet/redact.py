"""Keeping what opens doors out of files, logs and messages."""

from __future__ import annotations

import re

_USER = re.compile(r"(?<=://)[^/\s@'\"]*@")
_PASSWORD = re.compile(r"://[^/\s@]*:[^/\s@]*@")
_QUERY = re.compile(r"(://[^\s?'\"]*)\?[^\s'\";,)]*")


def without_secrets(text: str) -> str:
    """The text without the user, password and query of every URI in it: `s3://key:secret@bucket/x?token=y`."""
    return _QUERY.sub(r"\1", _USER.sub("", text)) if "://" in text else text


def has_password(address: str) -> bool:
    """Whether an address has a password, or a query as signed web addresses have: `https://host/x?signature=y`."""
    return bool(_PASSWORD.search(address) or (address.startswith("http") and _QUERY.search(address)))
