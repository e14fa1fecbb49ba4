"""The log against a model of it in memory: a dictionary of streams and a head."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import asyncpg
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ordinaut.domain.errors import VersionConflict
from ordinaut.domain.events import Event, NewEvent
from ordinaut.log.append import Append, Appended, append
from ordinaut.log.appender import Appender
from ordinaut.log.database import create_pool
from ordinaut.log.read import LogFilter, head, read_after, read_log, read_stream, read_streams
from tests.support.servers import blocking, execute

STREAMS = ("task-a", "task-b", "run-c", "run-d", "event-e")
TYPES = ("TaskCreated", "TaskPaused", "RunStarted", "StepSucceeded")
ACTORS = ("clock", "key:ann")
EFFECT = "INSERT INTO effects (mark) SELECT * FROM unnest($1::bigint[])"


@dataclass(frozen=True)
class Wish:
    """What one caller wants, by distances from the truth: 0 is the version the stream really has."""

    stream: str
    off: int
    types: Sequence[str]
    requires: dict[str, int]
    actor: str
    effect: bool
    unstorable: bool = False


@dataclass
class Model:
    """Streams as lists of (type, actor, mark); `positions` is filled in from what the log answered."""

    streams: dict[str, list[tuple[str, str, int]]] = field(default_factory=dict)
    positions: dict[int, tuple[str, int]] = field(default_factory=dict)
    effects: set[int] = field(default_factory=set)

    def version(self, stream: str) -> int:
        return len(self.streams.get(stream, ()))


stream_names = st.sampled_from(STREAMS)
mostly_right = st.sampled_from((0, 0, 0, 0, -1, 1, 2))


def wishes(unstorable: bool) -> st.SearchStrategy[Wish]:
    return st.builds(
        Wish,
        stream_names,
        mostly_right,
        st.lists(st.sampled_from(TYPES), min_size=1, max_size=3),
        st.dictionaries(stream_names, mostly_right, max_size=2),
        st.sampled_from(ACTORS),
        st.booleans(),
        st.sampled_from((False, False, False, True)) if unstorable else st.just(False),
    )


@st.composite
def alike(draw: st.DrawFn) -> list[Wish]:
    """A batch as intake makes it: the same of several streams, of which what is common is sent once."""
    wish = draw(wishes(False))
    streams = draw(st.lists(stream_names, min_size=2, max_size=4, unique=True))
    requires = {stream: off for stream, off in wish.requires.items() if stream not in streams}
    return [replace(wish, stream=stream, requires=requires) for stream in streams]


class LogMachine(RuleBasedStateMachine):
    """Each example has a space and streams of its own behind whatever is in the log already."""

    examples = 0

    def __init__(self, loop: asyncio.AbstractEventLoop, pool: asyncpg.Pool) -> None:
        super().__init__()
        type(self).examples += 1
        self.space = f"space-{self.examples}"
        self.loop = loop
        self.pool = pool
        self.model = Model()
        self.marks = 0
        self.base = self.ask(head)

    def ask(self, question: Any, *arguments: Any, **options: Any) -> Any:
        async def asked() -> Any:
            async with self.pool.acquire() as connection:
                return await question(connection, *arguments, **options)

        return self.loop.run_until_complete(asked())

    def name(self, stream: str) -> str:
        return f"{stream}-{self.space}"

    def item(self, wish: Wish, versions: dict[str, int], requires: dict[str, int]) -> Append:
        self.marks += 1
        mark = self.examples * 1_000_000 + self.marks
        text = "a\u0000b" if wish.unstorable else "ab"
        return Append(
            self.name(wish.stream),
            max(0, versions.get(wish.stream, 0) + wish.off),
            [NewEvent(kind, {"mark": mark, "text": text}) for kind in wish.types],  # type: ignore[arg-type]
            self.space,
            wish.actor,
            correlation=f"c-{wish.stream}",
            requires={self.name(s): max(0, versions.get(s, 0) + off) for s, off in requires.items()},
            effects={EFFECT: (mark,)} if wish.effect else {},
        )

    def expected(self, item: Append, versions: dict[str, int]) -> VersionConflict | None:
        """The conflict the model foresees; its own stream before any other."""
        for stream, wanted in [(item.stream, item.expected), *item.requires.items()]:
            actual = versions.get(stream.removesuffix(f"-{self.space}"), 0)
            if actual != wanted:
                return VersionConflict(stream, wanted, actual)
        return None

    def learn(self, item: Append, outcome: Appended) -> None:
        short = item.stream.removesuffix(f"-{self.space}")
        stream = self.model.streams.setdefault(short, [])
        first = outcome.position - len(item.events) + 1
        for position, event in enumerate(item.events, first):
            stream.append((event.type, item.actor, event.data["mark"]))
            assert position not in self.model.positions
            self.model.positions[position] = (short, len(stream))
        assert outcome.version == len(stream)
        if item.effects:
            self.model.effects.add(item.events[0].data["mark"])

    def versions(self) -> dict[str, int]:
        return {stream: self.model.version(stream) for stream in STREAMS}

    @rule(
        batch=st.lists(wishes(False), min_size=1, max_size=4, unique_by=lambda w: w.stream) | alike(),
        keep=st.booleans(),
    )
    def append_a_batch_by_hand(self, batch: list[Wish], keep: bool) -> None:
        """Partial conflicts: all is checked against the log before the batch, what is met stands."""
        versions = self.versions()
        items = [
            self.item(w, versions, {s: o for s, o in w.requires.items() if s != w.stream}) for w in batch
        ]

        async def transact(connection: Any) -> Any:
            transaction = connection.transaction()
            await transaction.start()
            outcomes = await append(connection, items)
            await (transaction.commit() if keep else transaction.rollback())
            return outcomes

        outcomes = self.ask(transact)
        for item, outcome in zip(items, outcomes, strict=True):
            foreseen = self.expected(item, versions)
            if foreseen is not None:
                assert_same_conflict(outcome, foreseen, item)
            elif keep:
                # Effects are not this function's to carry out.
                self.learn(
                    Append(item.stream, item.expected, item.events, item.space, item.actor, ""), outcome
                )

    @rule(batch=st.lists(wishes(True), min_size=1, max_size=6), callers=st.sets(st.integers(1, 5)))
    def append_all_at_once(self, batch: list[Wish], callers: set[int]) -> None:
        """Group commit is one after the other, in the order of arrival, also for one stream and however
        the appends are divided among callers."""
        written = {w.stream for w in batch}
        versions, items, foreseen = self.versions(), [], []
        for wish in batch:
            # Requiring that a stream is not there does not wait for who begins it in the same batch, so
            # its outcome depends on the batch; see Appender._take.
            requires = {
                s: o
                for s, o in wish.requires.items()
                if s != wish.stream and not (s in written and max(0, versions[s] + o) == 0)
            }
            item = self.item(wish, versions, requires)
            conflict = self.expected(item, versions)
            items.append(item)
            foreseen.append(conflict)
            if conflict is None and not wish.unstorable:
                versions[wish.stream] += len(item.events)

        async def submit() -> list[Any]:
            appender = Appender(self.pool)
            shares = [items[start:end] for start, end in pairwise([0, *sorted(callers), len(items)])]
            answers = await asyncio.gather(*map(appender.attempt_all, shares))
            return [outcome for answer in answers for outcome in answer]

        outcomes = self.loop.run_until_complete(submit())
        for wish, item, conflict, outcome in zip(batch, items, foreseen, outcomes, strict=True):
            if conflict is not None:
                assert_same_conflict(outcome, conflict, item)
            elif wish.unstorable:
                assert isinstance(outcome, asyncpg.UntranslatableCharacterError), outcome
            else:
                assert isinstance(outcome, Appended), outcome
                self.learn(item, outcome)

    @precondition(lambda self: self.model.positions)
    @rule(stream=stream_names, after=st.integers(0, 5))
    def read_one_stream(self, stream: str, after: int) -> None:
        events = self.ask(read_stream, self.name(stream), after=after)
        assert [e.version for e in events] == list(range(after + 1, self.model.version(stream) + 1))
        self.agree(events)

    @rule()
    def read_all_streams(self) -> None:
        found = self.ask(read_streams, [self.name(s) for s in STREAMS])
        assert {s: len(events) for s, events in found.items()} == {
            self.name(s): len(events) for s, events in self.model.streams.items()
        }
        for events in found.values():
            self.agree(events)

    @rule(start=st.integers(0, 20), limit=st.integers(1, 20))
    def read_a_range(self, start: int, limit: int) -> None:
        events = self.ask(read_after, self.base + start, limit)
        positions = [p for p in sorted(self.model.positions) if p > self.base + start][:limit]
        assert [e.position for e in events] == positions
        assert [e.at for e in events] == sorted(e.at for e in events)
        self.agree(events)

    @rule(
        stream=st.none() | stream_names,
        types=st.none() | st.lists(st.sampled_from(TYPES), max_size=2),
        actor=st.none() | st.sampled_from(ACTORS),
        correlation=st.none() | stream_names,
        skip=st.integers(0, 10),
        limit=st.integers(1, 10),
        newest_first=st.booleans(),
    )
    def read_a_page(
        self,
        stream: str | None,
        types: list[str] | None,
        actor: str | None,
        correlation: str | None,
        skip: int,
        limit: int,
        newest_first: bool,
    ) -> None:
        wanted = LogFilter(
            self.space,
            stream and self.name(stream),
            types,
            correlation and f"c-{correlation}",
            actor,
        )
        matching = []
        for position, (short, version) in sorted(self.model.positions.items(), reverse=newest_first):
            kind, who, _ = self.model.streams[short][version - 1]
            if (
                stream in (None, short)
                and (types is None or kind in types)
                and actor in (None, who)
                and (correlation is None or short == correlation or correlation == "")
            ):
                matching.append(position)
        after = matching[skip - 1] if 0 < skip <= len(matching) else 0
        expected = matching[skip if after else 0 :][:limit]
        events = self.ask(read_log, wanted, after=after, limit=limit, newest_first=newest_first)
        assert [e.position for e in events] == expected
        self.agree(events)

    def agree(self, events: Sequence[Event]) -> None:
        for event in events:
            short, version = self.model.positions[event.position]
            assert (event.stream, event.version, event.space) == (self.name(short), version, self.space)
            assert (event.type, event.actor, event.data["mark"]) == self.model.streams[short][version - 1]

    @invariant()
    def positions_are_contiguous_up_to_the_head(self) -> None:
        end = self.ask(head)
        assert sorted(self.model.positions) == list(range(self.base + 1, end + 1))

    def teardown(self) -> None:
        low = self.examples * 1_000_000
        rows = self.loop.run_until_complete(
            self.pool.fetch("SELECT mark FROM effects WHERE mark BETWEEN $1 AND $2", low, low + 999_999)
        )
        assert {row[0] for row in rows} == self.model.effects, "effects stand or fall with their append"
        assert len(rows) == len(self.model.effects), "an effect was carried out twice"


def assert_same_conflict(outcome: Any, foreseen: VersionConflict, item: Append) -> None:
    assert isinstance(outcome, VersionConflict), (outcome, foreseen)
    if foreseen.stream == item.stream:
        assert (outcome.stream, outcome.expected, outcome.actual) == (
            foreseen.stream,
            foreseen.expected,
            foreseen.actual,
        )
    else:  # several may be unmet; which one is named is not promised
        assert outcome.stream in item.requires
        assert outcome.expected == item.requires[outcome.stream] != outcome.actual


def test_the_log_does_what_a_dictionary_of_lists_would(database_url: str) -> None:
    blocking(execute(database_url, "CREATE TABLE effects (mark bigint)"))
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        pool = runner.run(create_pool(database_url, size=2))
        try:
            run_state_machine_as_test(
                lambda: LogMachine(loop, pool), settings=settings(max_examples=40, stateful_step_count=12)
            )
        finally:
            runner.run(pool.close())
