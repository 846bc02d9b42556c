"""What the errors of PostgreSQL and of its driver mean."""

from __future__ import annotations

from ..base import AGAIN, NOT_OUR_TABLES, Diagnosis, Fault, causes, diagnose_by_type

__all__ = ["diagnose"]


def diagnose(error: BaseException) -> Diagnosis:
    """Tell what an error means, by its code and never by its text."""
    for cause in causes(error):
        code = getattr(cause, "sqlstate", None)
        if isinstance(code, str):
            fault, advice = _SQLSTATES.get(code) or _SQLSTATES.get(code[:2]) or (Fault.OTHER, "")
            return Diagnosis(fault, f"SQLSTATE {code}", advice)
        if type(cause).__name__ == "ClientConfigurationError":
            return Diagnosis(
                Fault.OTHER,
                "the connection cannot be set up as the URL says",
                "Check the URL's parameters, and the files that they name.",
            )
        if type(cause).__name__ == "TargetServerAttributeNotMatched":
            return Diagnosis(
                Fault.UNAVAILABLE,
                "no server has the `target_session_attrs` of the URL",
                "While a standby takes over, call again later; else check the URL's hosts.",
            )
    return diagnose_by_type(error)


# https://www.postgresql.org/docs/current/errcodes-appendix.html, by code or by class
_SQLSTATES = {
    "08": (Fault.TRANSIENT, AGAIN),  # connection exception
    "23503": (Fault.RUN_MISSING, ""),  # foreign_key_violation
    "25006": (
        Fault.UNAVAILABLE,  # read_only_sql_transaction
        "The server is a standby or was made read-only: name the primary in the URL.",
    ),
    "26000": (
        Fault.TRANSIENT,  # invalid_sql_statement_name
        "Behind a pooler in transaction mode, open the store with transaction_pooler=True.",
    ),
    "28": (Fault.UNAVAILABLE, "Check the user and the password in the URL."),
    "3D000": (Fault.UNAVAILABLE, "There is no such database: create it, or check the URL."),
    "3F000": (Fault.SCHEMA, NOT_OUR_TABLES),  # invalid_schema_name
    "40001": (Fault.TRANSIENT, AGAIN),  # serialization_failure
    "40P01": (Fault.TRANSIENT, AGAIN),  # deadlock_detected
    "42501": (Fault.OTHER, "The database's user lacks a right: grant it, or use another user."),
    "42703": (Fault.SCHEMA, NOT_OUR_TABLES),  # undefined_column
    "42P01": (Fault.SCHEMA, NOT_OUR_TABLES),  # undefined_table
    "42P05": (
        Fault.TRANSIENT,  # duplicate_prepared_statement
        "Behind a pooler in transaction mode, open the store with transaction_pooler=True.",
    ),
    "53100": (Fault.OTHER, "The server's disk is full: nothing was written; free some space."),
    "53300": (
        Fault.TRANSIENT,  # too_many_connections
        "Raise the server's max_connections or lower `pool_size`.",
    ),
    "54000": (Fault.OTHER, "A value is larger than PostgreSQL takes (1 GB)."),
    "55000": (
        Fault.UNAVAILABLE,  # object_not_in_prerequisite_state
        "The database takes no connections now: allow them, or wait.",
    ),
    "55P03": (Fault.UNAVAILABLE, "A lock stayed taken: wait for the other session, or end it."),
    "57014": (Fault.UNAVAILABLE, "The statement ran into a time limit or was canceled."),
    "57P01": (Fault.TRANSIENT, AGAIN),  # admin_shutdown
    "57P02": (Fault.TRANSIENT, AGAIN),  # crash_shutdown
    "57P03": (Fault.TRANSIENT, AGAIN),  # cannot_connect_now
    "57P05": (Fault.TRANSIENT, AGAIN),  # idle_session_timeout
}
