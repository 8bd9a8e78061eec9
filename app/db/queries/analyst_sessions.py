"""SQL of the watchdog: which sessions of analysts have gone too far, and their end."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, text

ROLE = "lookalike_analyst"
"""The role that `sql/` makes for analysts."""

# Who inherits the role or may become it is an analyst; who merely administers it is not, nor is who
# writes the catalogue and so has other work to do here. A superuser may do everything.
IS_ANALYST = """(pg_has_role({0}, r.oid, 'USAGE') OR pg_has_role({0}, r.oid, 'SET'))
        AND NOT has_table_privilege({0}, to_regclass('product'), 'INSERT')"""

# PostgreSQL counts the connections of each login and knows no limit of a group: who has no limit
# of its own gets that of the role.
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

# A procedure may commit again and again, so that its statement is older than its transaction.
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
    """A session of an analyst that was ended, and why."""

    pid: int
    user: str
    reason: str


def end_overdue(connection: Connection, limit_s: float) -> list[EndedSession]:
    """End the sessions of analysts in this database that hold or wait for advisory locks, whose
    statement or transaction has lasted longer than `limit_s` seconds, or that are too many."""
    values = {"role": ROLE, "limit": f"{limit_s} seconds"}
    rows = connection.execute(text(TERMINATE_OVERDUE), values)
    return [EndedSession(row.pid, row.usename, row.reason) for row in rows]


def uncontrolled_users(connection: Connection) -> list[str]:
    """The analysts connected now whose sessions this user may not watch or may not end."""
    sql = f"""SELECT DISTINCT usename FROM ({ANALYSTS}) AS a
        WHERE NOT (seen AND reached) ORDER BY usename"""
    return list(connection.execute(text(sql), {"role": ROLE}).scalars())


def prepared_transactions(connection: Connection) -> list[tuple[str, str]]:
    """Transactions that analysts prepared: name and owner. They have no session to be ended."""
    rows = connection.execute(text(PREPARED_TRANSACTIONS), {"role": ROLE})
    return [(row.gid, row.owner) for row in rows]
