"""The parameters of a URL."""

from __future__ import annotations

from urllib.parse import parse_qsl

from sqlalchemy import URL

__all__ = ["check_parameters"]

# https://www.sqlite.org/uri.html; SQLite ignores what it does not know.
_VALUES: dict[str, tuple[str, ...] | None] = {
    "cache": ("shared", "private"),
    "immutable": None,
    "mode": ("ro", "rw", "rwc", "memory"),
    "nolock": None,
    "psow": None,
    "vfs": None,
}
_EXAMPLE = "sqlite:///file:runs.db?mode=ro&uri=true"


def check_parameters(url: URL) -> None:
    """Reject a host, and parameters that would have no effect.

    Raises:
        ValueError: there is one.
    """
    if url.username or url.password or url.host or url.port:
        raise ValueError(
            "A SQLite URL has no host: write three slashes before a relative path, as in "
            "sqlite:///runs.db, and four before an absolute one, as in sqlite:////var/runs.db."
        )
    path, _, own_query = (url.database or "").partition("?")
    parameters = [(name, value) for name, (value,) in url.normalized_query.items()]
    is_uri = ("uri", "true") in parameters
    if is_uri:
        parameters += parse_qsl(own_query)
    for name, value in parameters:
        if name == "uri":
            if not is_uri or not path.startswith("file:"):
                raise ValueError(
                    f"`uri` must be `true`, and the path begin with `file:`: {_EXAMPLE}."
                )
        elif name not in _VALUES:
            raise ValueError(
                f"{name!r} is not a parameter of a SQLite URL, which are {', '.join(_VALUES)}. "
                "Pass options of the store, such as `busy_timeout_s`, to the store."
            )
        elif not is_uri:
            raise ValueError(
                f"{name!r} has no effect without `uri=true` and a path that begins with `file:`: "
                f"{_EXAMPLE}."
            )
        elif value not in (_VALUES[name] or (value,)):
            raise ValueError(f"{name!r} must be one of {', '.join(_VALUES[name] or ())}.")
    if path.startswith("file:") and not is_uri:
        raise ValueError(f"A path that begins with `file:` needs `uri=true`: {_EXAMPLE}.")
