"""However entries reach an index, and whatever the store answers, all indexes say the same."""

import shutil
import tempfile

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mregfs.errors import ConflictError, ExistsError, InvalidError, NotFoundError
from mregfs.model.commands import (
    CreateCollection,
    DeleteVersion,
    DropAlias,
    LinkVersion,
    MoveAlias,
    Tag,
)
from mregfs.model.names import DEFAULT_PROJECT
from mregfs.model.reference import Location
from mregfs.model.state import STATE_TABLES
from mregfs.ports.index import Index
from mregfs.registry.log.log import Log
from mregfs.registry.read.content import CONTENT_TABLES
from mregfs.stores.index_lmdb import IndexLmdb
from mregfs.stores.index_memory import IndexMemory
from mregfs.stores.objects_memory import ObjectsMemory
from tests.registry.rig import PRINCIPAL, FlakyObjects, make_log, tables, version

names = st.sampled_from(("a", "b"))
numbers = st.integers(0, 3)
aliases = st.sampled_from(("best", "live"))
commands = st.one_of(
    st.builds(lambda name, number: version(name, number), names, st.integers(0, 30)),
    st.builds(
        lambda name, number, alias: MoveAlias(
            Location(DEFAULT_PROJECT, name, alias=alias),
            Location(DEFAULT_PROJECT, name, number=number),
        ),
        names,
        numbers,
        aliases,
    ),
    st.builds(
        lambda name, alias: DropAlias(Location(DEFAULT_PROJECT, name, alias=alias)), names, aliases
    ),
    st.builds(
        lambda name, number: DeleteVersion(
            Location(DEFAULT_PROJECT, name, number=number), force=True
        ),
        names,
        numbers,
    ),
    st.builds(
        lambda name, number, alias: LinkVersion(
            Location(DEFAULT_PROJECT, name, number=number),
            Location(DEFAULT_PROJECT, f"c-{name}", alias=alias),
        ),
        names,
        numbers,
        aliases,
    ),
    st.builds(lambda name: Tag(Location(DEFAULT_PROJECT, name), ("x",)), names),
    st.builds(lambda name: CreateCollection(DEFAULT_PROJECT, f"c-{name}"), names),
)
writers = st.integers(0, 2)
REFUSALS = (ConflictError, ExistsError, InvalidError, NotFoundError)


class LogMachine(RuleBasedStateMachine):
    """Three processes on one store: two share an index in memory, the third has one on LMDB."""

    def __init__(self) -> None:
        super().__init__()
        self.objects = ObjectsMemory()
        self.store = FlakyObjects(self.objects)
        self.directory = tempfile.mkdtemp()
        self.lmdb = IndexLmdb(self.directory, (*STATE_TABLES, *CONTENT_TABLES))
        shared = IndexMemory()
        self.indexes: list[Index] = [shared, shared, self.lmdb]
        self.logs: list[Log] = []
        for writer in range(3):
            self.logs.append(make_log(self.store, self.indexes[writer]))

    def teardown(self) -> None:
        self.lmdb.close()
        shutil.rmtree(self.directory)

    @rule(writer=writers, commands=st.lists(commands, min_size=1, max_size=3))
    def submit(self, writer: int, commands: list) -> None:
        try:
            self.logs[writer].submit(commands, PRINCIPAL)
        except REFUSALS:
            pass

    @rule(writer=writers, before=st.integers(0, 3), after=st.integers(0, 1), mute=st.integers(0, 2))
    def submit_over_a_bad_line(self, writer: int, before: int, after: int, mute: int) -> None:
        self.logs[writer].catch_up()
        self.store.before, self.store.after, self.store.mute = before, after, mute
        self.submit(writer, [version("a", 100 * before + 10 * after + mute)])
        self.store.before = self.store.after = self.store.mute = 0

    @rule(writer=writers)
    def catch_up(self, writer: int) -> None:
        self.logs[writer].catch_up()

    @rule(writer=writers)
    def checkpoint(self, writer: int) -> None:
        self.logs[writer].checkpoint()

    @rule(writer=writers)
    def lose_the_index(self, writer: int) -> None:
        self.indexes[writer].clear()

    @rule(writer=writers)
    def restart(self, writer: int) -> None:
        self.logs[writer].catch_up()
        self.logs[writer] = make_log(self.store, self.indexes[writer])

    @invariant()
    def all_say_the_same(self) -> None:
        heads = {log.catch_up() for log in self.logs}
        assert 1 == len(heads)
        fresh = IndexMemory()
        make_log(self.objects, fresh).catch_up()
        expected = tables(fresh)
        assert [expected] * 3 == [tables(index) for index in self.indexes]


TestLog = LogMachine.TestCase
TestLog.settings = settings(max_examples=10, stateful_step_count=20)
