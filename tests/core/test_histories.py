"""Random histories of a driver and a runner: the invariants hold at every step, and nothing hangs."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dflow.core.records import FlowStage, Need, Policy
from tests.core.simulation import Simulation, choose

number = st.integers(0, 99)
copies = st.integers(0, 2)
picks = st.lists(st.tuples(number, st.sampled_from(Need)), max_size=4)
policies = st.builds(
    Policy,
    retries=st.integers(0, 2),
    retry_delays=st.sampled_from([(0.0,), (3.0,), (1.0, 60.0)]),
    max_worker_losses=st.integers(0, 2),
    timeout=st.sampled_from([None, 5.0]),
)


def while_open(machine: Histories) -> bool:
    """The body of the flow is at work."""
    return machine.driver.open


def while_driven(machine: Histories) -> bool:
    """The driver lives, and there are task runs."""
    return machine.driver.flow.stage is not FlowStage.INTERRUPTED and bool(machine.driver.runs)


def while_between(machine: Histories) -> bool:
    """The body of the flow may begin again."""
    stage = machine.driver.flow.stage
    return stage in (FlowStage.INTERRUPTED, FlowStage.AWAITING_RETRY) or stage.final


class Histories(RuleBasedStateMachine):
    """What users, bodies, workers, the network and time may do, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.driver = Simulation()

    @precondition(while_open)
    @rule(picks=picks, policy=policies, cached=st.sampled_from([False, False, True]))
    def submit(self, picks, policy, cached):
        """A task is submitted."""
        self.driver.create(picks, policy, cached=cached)

    @precondition(while_open)
    @rule(picks=picks, count=st.integers(1, 4), policy=policies)
    def map(self, picks, count, policy):
        """A task is mapped."""
        self.driver.create_map(picks, count, policy)

    @precondition(while_driven)
    @rule(pick=number, copies=copies)
    def body_starts(self, pick, copies):
        """A body starts; its report may be lost or doubled."""
        self.driver.start(pick, copies)

    @precondition(while_driven)
    @rule(pick=number, new=st.sampled_from(["a", "b"]))
    def body_is_named(self, pick, new):
        """The name of a task run is made where its body runs."""
        self.driver.rename(pick, new)

    @precondition(while_driven)
    @rule(pick=number, how=number, copies=st.integers(1, 2))
    def body_ends(self, pick, how, copies):
        """A body ends."""
        self.driver.end(pick, how, copies)

    @precondition(while_driven)
    @rule(pick=number, cause=number, copies=st.integers(1, 2), partition=st.booleans())
    def worker_dies(self, pick, cause, copies, partition):
        """A worker dies, or seems to."""
        self.driver.lose(pick, cause, copies, partition=partition)

    @precondition(while_driven)
    @rule(pick=number, then=st.sampled_from(["recomputed", "reopened", "gone"]))
    def value_vanishes(self, pick, then):
        """A value is lost."""
        self.driver.lose_value(pick, then)

    @precondition(while_driven)
    @rule(pick=number)
    def asked_for_again(self, pick):
        """A task run that has completed is to run again."""
        self.driver.rerun(pick)

    @precondition(while_driven)
    @rule(several=st.lists(number, min_size=1, max_size=5))
    def news_arrives(self, several):
        """Some news arrives."""
        for pick in several:
            self.driver.deliver(pick)

    @precondition(while_driven)
    @rule(pick=number)
    def timer_rings(self, pick):
        """A timer rings."""
        self.driver.fire(pick)

    @precondition(while_driven)
    @rule(pick=number, what=st.sampled_from(["cancel", "pause", "pause", "unpause"]))
    def user_asks(self, pick, what):
        """Somebody wants something of a task run."""
        getattr(self.driver, what)(choose(self.driver.runs, pick))

    @precondition(lambda machine: machine.driver.closing is not None)
    @rule()
    def flow_ends(self):
        """The flow run ends when its task runs have."""
        self.driver.close()

    @precondition(while_open)
    @rule(
        retriable=st.booleans(),
        state_name=st.sampled_from(["Failed", "TimedOut", "Crashed", "Cancelled"]),
    )
    def flow_raises(self, retriable, state_name):
        """The body of the flow raises."""
        self.driver.raise_flow(retriable, state_name)

    @precondition(while_open)
    @rule()
    def flow_is_cancelled(self):
        """The flow run is cancelled."""
        self.driver.cancel_flow()

    @precondition(lambda machine: not machine.driver.flow.stage.final)
    @rule(runner_too=st.booleans())
    def driver_dies(self, runner_too):
        """The driver dies."""
        self.driver.interrupt(runner_too)

    @precondition(while_between)
    @rule(forgotten=st.integers(0, 20), fewer=st.booleans())
    def flow_begins_again(self, forgotten, fewer):
        """The flow is retried, resumed or run again."""
        self.driver.begin_again(forgotten, fewer)

    @invariant()
    def all_is_well(self):
        """No invariant is broken."""
        assert self.driver.broken() == []

    def teardown(self):
        """Everything comes to its end, and that breaks nothing."""
        self.driver.drain()
        assert self.driver.broken() == []


Histories.TestCase.settings = settings(
    max_examples=80,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestHistories = Histories.TestCase
TestHistories.__doc__ = "Whatever happens in whatever order, no invariant breaks and nothing hangs."
