"""Map in order with bounded work ahead, and leave a pool without waiting."""

import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from jaxlm.utils.workers import DaemonExecutor, map_ahead


@pytest.mark.parametrize("pool", [lambda _: None, ThreadPoolExecutor, DaemonExecutor])
def test_map_ahead_keeps_the_order_and_reads_little_ahead(pool):
    taken = []

    def items():
        for number in range(50):
            taken.append(number)
            yield number

    def square(number):
        time.sleep(0.002 * (number % 3))
        return number**2

    results = map_ahead(pool(3), square, items(), ahead=4)
    for number in range(50):
        assert next(results) == number**2
        assert len(taken) <= number + 1 + 4
    assert list(results) == []


def test_map_ahead_raises_the_error_of_a_call():
    with DaemonExecutor(2) as executor:
        results = map_ahead(executor, lambda number: 1 // (number - 3), range(9))
        assert [next(results) for _ in range(3)] == [-1, -1, -1]
        with pytest.raises(ZeroDivisionError):
            next(results)


def test_a_daemon_executor_does_not_wait():
    begun, release = threading.Event(), threading.Event()

    def call():
        begun.set()
        assert release.wait(30)

    with DaemonExecutor(1) as executor:
        future = executor.submit(call)
        assert begun.wait(30)
    assert not future.done()
    release.set()
    future.result(30)


def test_an_idle_daemon_executor_keeps_no_result():
    with DaemonExecutor(1) as executor:
        reference = weakref.ref(executor.submit(int))
        deadline = time.monotonic() + 2
        while reference() is not None and time.monotonic() < deadline:
            time.sleep(0.001)
        assert reference() is None
