"""Histories played from seeds, and two that luck rarely finds."""

from __future__ import annotations

from random import Random

from dflow.core import machine
from dflow.core.records import Cause, FlowStage, Need, Policy
from tests.core.simulated_runner import CAUSES, ENDS
from tests.core.simulation import Simulation, choose

STEPS = 140


def play(seed: int, rules: machine.Table) -> Simulation:
    """Play a random history with a table of rules, to its end."""
    luck = Random(seed)
    driver = Simulation(rules)
    for _ in range(STEPS):
        move(driver, luck)
    driver.drain()
    return driver


def move(driver: Simulation, luck: Random) -> None:
    """Let one thing happen that may happen now."""
    stage = driver.flow.stage
    if stage.final or stage in (FlowStage.INTERRUPTED, FlowStage.AWAITING_RETRY):
        driver.begin_again(luck.randrange(30), luck.random() < 0.2)
    elif driver.open and (not driver.runs or luck.random() < 0.12):
        submit(driver, luck)
    elif luck.random() < 0.015:
        luck.choice(
            [
                lambda: driver.interrupt(luck.random() < 0.5),
                driver.close,
                lambda: end_flow(driver, luck),
            ]
        )()
    else:
        go_on(driver, luck)


def end_flow(driver: Simulation, luck: Random) -> None:
    """Let the body of the flow raise, or be cancelled."""
    if driver.open:
        raised = luck.choice(["Failed", "Failed", "TimedOut", "Crashed", "Cancelled"])
        luck.choice([driver.cancel_flow, lambda: driver.raise_flow(luck.random() < 0.7, raised)])()


def submit(driver: Simulation, luck: Random) -> None:
    """Submit or map a task."""
    picks = [(luck.randrange(99), luck.choice(list(Need))) for _ in range(luck.randrange(4))]
    policy = Policy(
        retries=luck.randrange(3),
        max_worker_losses=luck.randrange(3),
        timeout=luck.choice([None, None, None, None, 5.0]),
    )
    if luck.random() < 0.3:
        driver.create_map(picks, luck.randrange(1, 4), policy)
    else:
        driver.create(picks, policy, cached=luck.random() < 0.2)


def go_on(driver: Simulation, luck: Random) -> None:
    """Let the runner, the network, time or a user do something."""
    pick, copies = luck.randrange(99), luck.choice([1, 1, 1, 2])
    asked = choose(driver.runs, pick)
    luck.choice(
        [
            *3 * [lambda: driver.start(pick, luck.randrange(3))],
            *2 * [lambda: driver.end(pick, luck.randrange(99), copies)],
            lambda: driver.rename(pick, f"name {luck.randrange(3)}"),
            lambda: driver.lose(pick, luck.randrange(99), copies, partition=luck.random() < 0.3),
            lambda: driver.lose_value(pick, luck.choice(["recomputed", "reopened", "gone"])),
            lambda: driver.rerun(pick),
            *4 * [lambda: driver.deliver(pick)],
            lambda: driver.fire(pick),
            lambda: driver.pause(asked),
            lambda: driver.unpause(asked),
            lambda: driver.cached.add(asked.id),
            *(luck.random() < 0.3) * [lambda: driver.cancel(asked)],
        ]
    )()


def play_second_thoughts(rules: machine.Table) -> Simulation:
    """Play how an upstream fails when it is asked for again, and what waits for it has been tried."""
    driver = Simulation(rules)
    driver.create([], Policy())
    run_body(driver, "succeed")
    driver.create([(0, Need.WAIT)], Policy())
    driver.create([(1, Need.WAIT)], Policy())
    driver.start(0)
    driver.deliver(0)
    driver.lose_value(0, "reopened")
    driver.lose(0, CAUSES.index(Cause.SCALED_DOWN))
    driver.deliver(0)
    run_body(driver, "raise for good")
    driver.drain()
    return driver


def play_a_partition(rules: machine.Table) -> Simulation:
    """Play how a worker that seemed dead, and with it a task run crashed, has news after all."""
    driver = Simulation(rules)
    driver.create([], Policy(max_worker_losses=0))
    driver.start(0)
    driver.deliver(0)
    driver.lose(0, CAUSES.index(Cause.WORKER_DIED), partition=True)
    driver.deliver(0)
    driver.end(0, ENDS.index("succeed"))
    driver.deliver(0)
    driver.drain()
    return driver


def run_body(driver: Simulation, how: str) -> None:
    """Let the body that is out run, and its news arrive."""
    driver.start(0)
    driver.end(0, ENDS.index(how))
    driver.deliver(0)
    driver.deliver(0)
