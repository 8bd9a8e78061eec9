"""SQL of the analyst watchdog: finds and terminates sessions of analysts that exceed the limits."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, text

ROLE = "lookalike_analyst"
"""The role for analysts, created by `sql/90_role.sql`."""

# An analyst is a user that inherits the role or may SET ROLE to it. Excluded are users that only
# administer the role, and users that write the catalogue, superusers among them.
IS_ANALYST = """(pg_has_role({0}, r.oid, 'USAGE') OR pg_has_role({0}, r.oid, 'SET'))
        AND NOT has_table_privilege({0}, to_regclass('product'), 'INSERT')"""

# PostgreSQL limits connections per login, not per group. A login without its own limit gets the one
# of the analyst role.
ANALYSTS = f"""
    SELECT a.*, r.rolconnlimit AS most,
        row_number() OVER (PARTITION BY a.usesysid ORDER BY a.backend_start, a.pid) AS number,
        u.rolconnlimit >= 0 OR r.rolconnlimit < 0 AS unlimited,
        pg_has_role(a.usesysid, 'USAGE') OR pg_has_role('pg_read_all_stats', 'USAGE') AS seen,
        pg_has_role(a.usesysid, 'USAGE') OR pg_has_role('pg_signal_backend', 'USAGE') AS reached
    FROM pg_stat_activity AS a JOIN pg_roles AS u ON u.oid = a.usesysid
    JOIN pg_roles AS r ON r.rolname = :role
    WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.leader_pid IS NULL
        AND {IS_ANALYST.format("a.usesysid")}"""

# A procedure that commits has a statement older than its transaction, so both ages are checked.
TERMINATE_OVERDUE = f"""
WITH judged AS MATERIALIZED (
    SELECT pid, usename, CASE
        WHEN EXISTS (SELECT FROM pg_locks AS l WHERE l.pid = a.pid AND l.locktype = 'advisory')
            THEN 'it asked for an advisory lock'
        WHEN state = 'active' AND clock_timestamp() - query_start > CAST(:limit AS interval)
            THEN 'its statement ran too long'
        WHEN clock_timestamp() - xact_start > CAST(:limit AS interval)
            THEN 'its transaction was open too long'
        WHEN number > most AND NOT unlimited
            THEN format('it was one more than the %s connections a user of the role may have', most)
        END AS reason
    FROM ({ANALYSTS}) AS a WHERE reached)
SELECT pid, usename, reason FROM judged WHERE reason IS NOT NULL AND pg_terminate_backend(pid)"""

PREPARED_TRANSACTIONS = f"""
SELECT p.gid, p.owner FROM pg_prepared_xacts AS p
JOIN pg_roles AS u ON u.rolname = p.owner JOIN pg_roles AS r ON r.rolname = :role
WHERE p.database = current_database() AND {IS_ANALYST.format("u.oid")}
ORDER BY p.prepared"""


@dataclass(frozen=True, slots=True)
class EndedSession:
    """A terminated session of an analyst, with the reason."""

    pid: int
    user: str
    reason: str


def end_overdue(connection: Connection, limit_s: float) -> list[EndedSession]:
    """Terminate sessions of analysts in this database that break a rule.

    They hold or wait for an advisory lock, their statement or transaction is older than `limit_s`
    seconds, or their user has more connections than allowed.
    """
    values = {"role": ROLE, "limit": f"{limit_s} seconds"}
    rows = connection.execute(text(TERMINATE_OVERDUE), values)
    return [EndedSession(row.pid, row.usename, row.reason) for row in rows]


def uncontrolled_users(connection: Connection) -> list[str]:
    """Connected analysts (user names) whose sessions this user may not see or may not terminate."""
    sql = f"""SELECT DISTINCT usename FROM ({ANALYSTS}) AS a
        WHERE NOT (seen AND reached) ORDER BY usename"""
    return list(connection.execute(text(sql), {"role": ROLE}).scalars())


def prepared_transactions(connection: Connection) -> list[tuple[str, str]]:
    """Prepared transactions of analysts: name and owner. They have no session to terminate."""
    rows = connection.execute(text(PREPARED_TRANSACTIONS), {"role": ROLE})
    return [(row.gid, row.owner) for row in rows]
