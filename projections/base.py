"""What a projection is: a read table that is a fold of the log, written as SQL.

The fold runs inside PostgreSQL, straight from `events`: a batch of ten thousand events costs a few
statements and none of them travels. It is deterministic: no clock, no randomness, nothing but the
events between two positions and the table's own rows; what a decision depended on is in its event.
However the log is cut into batches, the table comes out the same.

A third party offers a `Projection` under the entry point group `ordinaut.projections`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

FEW = 100
"""So many events are read to learn of which types they are; of more, each type is looked for."""


@dataclass(frozen=True, slots=True)
class Fold:
    """One statement of a fold. `$1` and `$2` are positions: it handles the events after `$1` up to and
    including `$2`, of the types in `types`; with none of those among them it is not run. `wakes` says
    whether what it does is of interest to those who wait for the table."""

    types: frozenset[str]
    sql: str
    wakes: bool = True


@dataclass(frozen=True, slots=True)
class Projection:
    """A read table named `name` and how the log becomes it.

    `ddl` creates the table and its indexes by unqualified names, so that the same text makes a second
    one in another schema (search_path) to rebuild beside the live one. Raise `version` when the DDL
    or the fold changes: the table is then rebuilt by `ordinaut migrate`.

    `own` names the columns that are not the log's but somebody's who works on the table (leases):
    verification leaves them out, and `carry_over` (SQL with `{live}` and `{rebuilt}` for the two
    tables) takes them along in a rebuild. `notifies` says whether to wake those who wait for the table
    when a batch changed it. A `synchronous` table is folded in the transaction of the append itself: it is
    never behind, and a fold that fails refuses the append, so none but our own may be.
    """

    name: str
    version: int
    ddl: str
    folds: Sequence[Fold]
    own: Sequence[str] = ()
    carry_over: str | None = None
    notifies: bool = False
    synchronous: bool = False


def fold_function(projection: Projection) -> str:
    """The SQL that makes the function `ordinaut_fold_<name>(after, upto)`: it folds the events after one
    position up to another into the table the search path names, and says whether those who wait for the
    table should look.

    A function, so that a batch is one round trip and its plans are kept. `use_column`, because a fold's
    columns must not be taken for the function's variables.
    """
    concerned = frozenset[str]().union(*(fold.types for fold in projection.folds))
    folds = "\n".join(
        f"    IF present && ARRAY[{_listed(fold.types)}] THEN\n{fold.sql.strip()};\n"
        f"        changed := {'true' if fold.wakes else 'changed'};\n    END IF;"
        for fold in projection.folds
    )
    return f"""
CREATE OR REPLACE FUNCTION ordinaut_fold_{projection.name}(bigint, bigint) RETURNS boolean
LANGUAGE plpgsql AS $fold$
#variable_conflict use_column
DECLARE
    present text[];
    changed boolean := false;
BEGIN
    IF $2 - $1 <= {FEW} THEN
        SELECT array_agg(type) INTO present FROM events WHERE position > $1 AND position <= $2;
    ELSE
        present := types_between($1, $2, ARRAY[{_listed(concerned)}]);
    END IF;
{folds}
    RETURN changed;
END $fold$"""


def _listed(types: frozenset[str]) -> str:
    return ", ".join(f"'{name}'" for name in sorted(types))


def batch(types: frozenset[str], columns: str = "*") -> str:
    """The SQL of the events a fold is about: those of `types` between its two positions."""
    return (
        f"SELECT {columns} FROM events WHERE position > $1 AND position <= $2 AND type IN ({_listed(types)})"
    )


def last_of(types: frozenset[str], columns: str) -> str:
    """The SQL of each stream's last event of `types` between the two positions."""
    return (
        f"SELECT DISTINCT ON (stream) {columns} FROM events"
        f" WHERE position > $1 AND position <= $2 AND type IN ({_listed(types)})"
        " ORDER BY stream, version DESC"
    )
