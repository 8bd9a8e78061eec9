"""Known mistakes, each as replacements in a copy of the code, and the checks that must fail.

`mutants.py` runs the checks; `tests/architecture/test_mutants.py` verifies that each applies.
"""

from __future__ import annotations

from dataclasses import dataclass

HORIZON = ("soak", "machine", "cases")

CATALOGUE = "alembic/versions/0001_catalogue.py"
DELTA = "app/db/queries/index_delta.py"
NEAREST = "app/db/queries/nearest.py"
SINGLE = "app/db/queries/single_statement.py"
LOCKS = "app/db/locks.py"
BUILDER = "app/index/builder.py"
READER = "app/index/embedding_reader.py"
FAISS_IO = "app/index/faiss_io.py"
FILE_STORE = "app/index/file_store.py"
PLANNER = "app/search/planner.py"
SWAP = "app/search/index_swap.py"
DEDUP = "app/search/dedup.py"
FILTER_SNAPSHOT = "app/db/queries/filter_snapshot.py"
BATCH = "app/catalog/batch_write.py"
ENTRIES = "app/catalog/entries.py"
UNDO = "app/catalog/undo.py"
LIFECYCLE = "app/models/lifecycle.py"
PICTURES = "app/db/queries/pictures.py"

HELD = "pg_visible_in_snapshot(e.changed_in, CAST(%(snapshot)s AS pg_snapshot))"
SINCE = "e.changed_in >= pg_snapshot_xmax(CAST(%(snapshot)s AS pg_snapshot))"
IN_PROGRESS = "e.changed_in = ANY(CAST(%(in_progress)s AS xid8[]))"
STARTED = (
    "(SELECT started_at FROM index_build"
    " WHERE snapshot::text = CAST(%(snapshot)s AS text) ORDER BY id DESC LIMIT 1)"
)
TRIGGER = """CREATE TRIGGER embedding_stamp BEFORE INSERT OR UPDATE ON embedding
    FOR EACH ROW EXECUTE FUNCTION stamp_embedding();
"""
ALWAYS = "ALTER TABLE embedding ENABLE ALWAYS TRIGGER embedding_stamp;"
STAMP = "NEW.changed_in := pg_current_xact_id();"
COLUMN = "changed_in xid8 NOT NULL,"
USABLE = "usable = index_builds.usable(request.connection, request.model.id)"


@dataclass(frozen=True)
class Mutant:
    """A mistake: its name, the replacements (file, old text, new text), and the checks to run."""

    name: str
    changes: tuple[tuple[str, str, str], ...]
    checks: tuple[str, ...] = HORIZON


NO_STAMP_CHECK = (READER, "        _check_stamp(connection)\n", "")
ORDINARY_TRIGGER = (CATALOGUE, ALWAYS, "")

UNCHANGED = Mutant("unchanged code", ())
MUTANTS = (
    Mutant(
        "changed_in is replaced by updated_at",
        (
            (CATALOGUE, COLUMN, COLUMN + "\n    updated_at timestamptz,"),
            (CATALOGUE, STAMP, f"NEW.updated_at := now();\n    {STAMP}"),
            (DELTA, SINCE, f"e.updated_at >= {STARTED}"),
            (DELTA, IN_PROGRESS, "false"),
            (DELTA, HELD, f"e.updated_at < {STARTED}"),
        ),
    ),
    Mutant(
        "the row condition is changed_in < xmax",
        (
            (DELTA, IN_PROGRESS, "false"),
            (DELTA, HELD, "e.changed_in < pg_snapshot_xmax(CAST(%(snapshot)s AS pg_snapshot))"),
        ),
    ),
    Mutant(
        "a search uses a build that its snapshot does not see",
        (
            (
                SWAP,
                USABLE,
                "with request.connection.engine.connect() as other:\n"
                "        usable = index_builds.usable(other, request.model.id)",
            ),
        ),
    ),
    Mutant(
        "the single statement trusts the build it knows",
        ((SINGLE, "(first.active, first.newest) !=", "False and (first.active, first.newest) !="),),
    ),
    Mutant(
        "the single statement knows a build by its id alone",
        (
            (
                SINGLE,
                "(first.active, first.newest) !=",
                "(first.active, first.newest.split()[0]) !=",
            ),
            (SINGLE, "index_builds.identity(request.build)", "str(request.build.id)"),
        ),
        ("drills",),
    ),
    # Keeps the trigger and gives it the effect of a column default, so that nothing else changes.
    Mutant(
        "the stamp acts like a column default",
        ((CATALOGUE, STAMP, "NEW.changed_in := coalesce(NEW.changed_in, pg_current_xact_id());"),),
    ),
    Mutant(
        "the stamp is a column default, and builds check the trigger",
        (
            (CATALOGUE, TRIGGER, ""),
            ORDINARY_TRIGGER,
            (CATALOGUE, COLUMN, "changed_in xid8 NOT NULL DEFAULT pg_current_xact_id(),"),
        ),
    ),
    Mutant("the stamp trigger is not ENABLE ALWAYS", (ORDINARY_TRIGGER, NO_STAMP_CHECK)),
    Mutant("changed rows stay among the nominees", ((DELTA, f"\n        AND {HELD}", ""),)),
    Mutant(
        "the distance up to which the index was searched is ignored",
        ((DELTA, "ends = [seen_to - TOLERANCE]", "ends = []"),),
    ),
    Mutant(
        "similarities of the index are taken as exact",
        ((NEAREST, "TOLERANCE = 2e-4", "TOLERANCE = 0.0"),),
        ("cases",),
    ),
    Mutant(
        "the end of what a compressed index knows is ignored",
        ((DELTA, "ends = [rows[0].reach if", "ends = [2.0 if"),),
        ("compressed",),
    ),
    Mutant(
        "what a compressed index knows does not shrink with the changed nominees",
        ((DELTA, "greatest((SELECT count(*) FROM nominee) *", "greatest(cardinality(CAST("
          "%(nominated)s AS bigint[])) *"),),
        ("compressed",),
    ),
    Mutant(
        "the distance up to which the delta was searched is ignored",
        ((DELTA, "if fresh >= n:", "if False:"),),
    ),
    Mutant(
        "the delta is counted without transactions in progress",
        ((DELTA, "CAST(:in_progress AS xid8[]))", "CAST(:in_progress AS xid8[])) AND false"),),
        ("worker", "cases"),
    ),
    Mutant(
        "vectors of a filter are taken from another server than its list",
        ((FILTER_SNAPSHOT, "one() is not True:", "one() is None:"),),
        ("filters",),
    ),
    Mutant(
        "the single statement uses an outdated filter list",
        ((SINGLE, "if not first.usable:", "if False:"),),
        ("filters",),
    ),
    Mutant(
        "a tie with the unseen counts as complete",
        ((NEAREST, ".distance < candidates.seen_to", ".distance <= candidates.seen_to"),),
        ("candidates",),
    ),
    # The index is on this cast, with the 49 dimensions of the test encoder.
    Mutant(
        "the exact scan may use pgvector's index",
        (
            (
                NEAREST,
                "ORDER BY (e.vec <=> CAST(%(q)s AS halfvec)) + 0, e.picture_id",
                "AND e.picture_id <> -1 ORDER BY e.vec::halfvec(49) <=> CAST(%(q)s AS halfvec(49))",
            ),
        ),
        ("plans",),
    ),
    Mutant(
        "the highest id wins ties",
        (
            (
                NEAREST,
                'PAGE = ", page AS (SELECT * FROM best ORDER BY distance, product_id LIMIT',
                'PAGE = ", page AS (SELECT * FROM best ORDER BY distance, product_id DESC LIMIT',
            ),
        ),
        ("cases", "pages"),
    ),
    Mutant(
        "a delta that was cut off is used",
        ((PLANNER, "if delta_rows > max_delta_rows:", "if False:"),),
        ("paths", "soak"),
    ),
    Mutant(
        "a filtered search does not look deeper",
        ((PLANNER, "if is_complete(candidates, search.request.k):", "if True:"),),
        ("filters", "cases"),
    ),
    Mutant(
        "near-duplicates of the query are dropped below the threshold only",
        ((DEDUP, "distance <= query.near_query", "distance < query.near_query"),),
        ("dedup",),
    ),
    Mutant(
        "kept products are ordered worst first",
        ((DEDUP, "groups.append(_Group(-score, ", "groups.append(_Group(score, "),),
        ("dedup", "pages"),
    ),
    Mutant(
        "the content of an index file is not verified",
        (
            (FAISS_IO, '"sha256").hexdigest() != sha256:', "\"sha256\").hexdigest() == 'wrong':"),
            (FAISS_IO, "if digest.hexdigest() != sha256:", "if digest.hexdigest() == 'wrong':"),
        ),
        ("files",),
    ),
    Mutant(
        "FAISS reads an index file that was not verified",
        ((FAISS_IO, '"sha256").hexdigest() != sha256:', "\"sha256\").hexdigest() == 'wrong':"),),
        ("files",),
    ),
    Mutant(
        "a fetched index file is kept before its hash is checked",
        ((FILE_STORE, "if digest.hexdigest() != build.sha256:", "if False:"),),
        ("files",),
    ),
    Mutant(
        "a fetched index file gets its name before its hash is checked",
        (
            (
                FILE_STORE,
                "if not _verified(read_file(build), build, draft.file.write):",
                "draft.file.writelines(read_file(build))\n"
                "                draft.publish(self.path(build.sha256))\n"
                "                if not _verified(read_file(build), build):",
            ),
            (
                FILE_STORE,
                "                draft.publish(self.path(build.sha256))\n"
                "                return True",
                "                return True",
            ),
        ),
        ("files",),
    ),
    Mutant(
        "files of retired builds are deleted before the commit",
        (
            (
                BUILDER,
                "        connection.commit()\n        for sha256 in unused_files:\n"
                "            self._files.remove(sha256)\n\n    def _model",
                "        for sha256 in unused_files:\n"
                "            self._files.remove(sha256)\n        connection.commit()\n\n"
                "    def _model",
            ),
        ),
        ("index",),
    ),
    Mutant(
        "builds with identical files share search parameters",
        ((FILE_STORE, "if index.parameters == build.parameters:", "if True:"),),
        ("index",),
    ),
    Mutant(
        "vectors of any length are indexed",
        ((READER, "~(deviation <= UNIT_TOLERANCE)", "deviation < 0"),),
        ("index",),
    ),
    Mutant(
        "vectors that are almost unit are indexed as they are",
        ((READER, "if fixable.any():", "if False:"),),
        ("index",),
    ),
    Mutant(
        "writers do not take turns",
        ((LOCKS, "SELECT pg_advisory_xact_lock(%(key)s)", "SELECT CAST(%(key)s AS bigint)"),),
        ("catalog", "models"),
    ),
    Mutant(
        "changes of models do not wait for writers",
        ((LIFECYCLE, "            locks.acquire(connection, LockKey.CATALOG_WRITE)\n", ""),),
        ("models",),
    ),
    Mutant(
        "two processes change pgvector's indexes at the same time",
        ((LOCKS, "pg_try_advisory_lock(:key, :m", "pg_try_advisory_lock_shared(:key, :m"),),
        ("locks",),
    ),
    Mutant(
        "changed pictures of a product are not written",
        ((ENTRIES, "[PICTURES] if pictures != after.pictures else []", ""),),
        ("catalog",),
    ),
    Mutant(
        "an absent column clears what is stored",
        ((ENTRIES, "for name in given.fields}", "for name in FIELDS}"),),
        ("partial sources",),
    ),
    Mutant(
        "an undo overwrites what was changed since",
        ((UNDO, "if row.after is not None and state == row.after:", "if row.after is not None:"),),
        ("undo",),
    ),
    Mutant(
        "an undo does not wait for writers",
        ((UNDO, "        history.lock_products(self._connection, skus)\n", ""),),
        ("undo",),
    ),
    Mutant(
        "swept pictures are not kept",
        ((PICTURES, "history.record_pictures(connection, run_id, ids)", "pass"),),
        ("undo",),
    ),
    Mutant(
        "a sweep does not lock the pictures",
        ((PICTURES, " ORDER BY id FOR UPDATE", ""),),
        ("catalog",),
    ),
    Mutant(
        "one embedded picture makes a batch complete",
        ((BATCH, "if not all(embedded", "if not any(embedded"),),
        ("catalog",),
    ),
    Mutant(
        "a batch may lack vectors of another maintained model",
        ((BATCH, "if not batch.vectors.keys() <= vectors.keys():", "if False:"),),
        ("models", "catalog"),
    ),
)  # fmt: skip
