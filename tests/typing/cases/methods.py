"""Tasks and flows of methods, class methods and static methods."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import assert_type

from dflow import State, TaskFuture, TaskFutureList, flow, task


class Model:
    """A class whose methods are tasks and flows."""

    @task
    def fit(self, x: int) -> float:
        self.alone()
        assert_type(self.fit(x), float)
        return float(x)

    @task(retries=2)
    def fit_again(self, x: int) -> float:
        return float(x)

    @task
    def alone(self) -> str:
        return ""

    @task
    async def fetch(self, x: int) -> float:
        return float(x)

    @task
    async def stream(self, x: int) -> AsyncIterator[float]:
        yield float(x)

    @task
    @classmethod
    def load(cls, name: str) -> Model:
        return cls()

    @task(retries=2)
    @classmethod
    async def load_async(cls, name: str) -> Model:
        return cls()

    @task
    @staticmethod
    def scale(x: int) -> float:
        return float(x)

    @task(retries=2)
    @staticmethod
    def constant() -> float:
        return 1.0

    @flow
    def train(self, x: int) -> float:
        return self.fit(x)

    @flow(name="training")
    async def train_async(self, x: int) -> float:
        return await self.fetch(x)

    @flow
    @classmethod
    def train_new(cls, x: int) -> float:
        return cls().train(x)

    @flow
    @staticmethod
    def train_nothing(x: int) -> float:
        return float(x)


class Deep(Model):
    """A class that inherits them."""


def of_instances(model: Model, deep: Deep) -> None:
    """On an instance nobody gives self."""
    assert_type(model.fit(1), float)
    assert_type(model.fit_again(1), float)
    assert_type(model.alone(), str)
    assert_type(deep.fit(1), float)
    assert_type(model.fit(1, return_state=True), State)
    assert_type(model.fit.fn(1), float)
    assert_type(model.fit.submit(1), TaskFuture[float])
    assert_type(model.fit.map([1]), TaskFutureList[float])
    assert_type(model.fit.with_options(retries=1)(1), float)
    assert_type(model.fetch.submit(1), TaskFuture[float])
    assert_type(model.stream.submit(1), TaskFuture[list[float]])
    model.fit("x")  # error: call-overload, reportArgumentType
    model.fit()  # error: call-overload, reportCallIssue
    model.fit(model, 1)  # error: call-overload, reportCallIssue
    model.fit.fn("x")  # error: arg-type, reportArgumentType


def of_classes(model: Model) -> None:
    """On the class a method takes the instance first."""
    assert_type(Model.fit(model, 1), float)
    Model.fit(1)  # error: call-overload, reportCallIssue


async def of_async(model: Model) -> None:
    """Async methods are awaited."""
    assert_type(await model.fetch(1), float)
    async for item in model.stream(1):
        assert_type(item, float)
    await model.fetch("x")  # error: call-overload, reportArgumentType


async def class_methods(model: Model) -> None:
    """Nobody gives the class."""
    assert_type(Model.load("a"), Model)
    assert_type(Deep.load("a"), Model)
    assert_type(model.load("a"), Model)
    assert_type(Model.load.submit("a"), TaskFuture[Model])
    assert_type(await Model.load_async("a"), Model)
    assert_type(await model.load_async("a"), Model)
    Model.load(1)  # error: call-overload, reportArgumentType
    model.load(1)  # error: call-overload, reportArgumentType


def static_methods(model: Model) -> None:
    """Nothing is filled in."""
    assert_type(Model.scale(1), float)
    assert_type(model.scale(1), float)
    assert_type(model.constant(), float)
    assert_type(model.scale.submit(1), TaskFuture[float])
    Model.scale("x")  # error: call-overload, reportArgumentType
    model.scale("x")  # error: call-overload, reportArgumentType


async def flows(model: Model) -> None:
    """Flows of methods are bound as tasks are."""
    assert_type(model.train(1), float)
    assert_type(await model.train_async(1), float)
    assert_type(Model.train_new(1), float)
    assert_type(model.train_new(1), float)
    assert_type(Model.train_nothing(1), float)
    assert_type(model.train.start(1).result(), float)
    assert_type(model.train_async.start(1).result(), float)
    model.train("x")  # error: call-overload, reportArgumentType
    model.train.start("x")  # error: arg-type, reportArgumentType
