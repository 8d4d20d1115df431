"""Generated cases: how many, what counts as a good answer to a bad argument, and values that break things."""
from __future__ import annotations

import functools
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

FACTOR = float(os.environ.get("VIX_CASES", "1"))  # VIX_CASES=10 generates ten times as many
TRIED: dict[str, int] = {}  # cases that each test has tried in this process

# What people and loops hand over by mistake: of any type, and far outside of what makes sense.
ODD = (0, -1, -10**9, 10**9, 2**40, 2**70, 2**1100, 1.5, 0.0, -0.5, float("nan"), float("inf"), True, None, "8", "no",
       "", (), (4,), (4, 4), [2, 2], {}, b"x", object)


class Refused(str):
    """The message of a call that was refused as it should be."""


def cases(count: int, **strategies):
    """A property over `strategies`, tried on up to `count` generated cases, the same ones in every run."""
    def decorate(test):
        TRIED[test.__name__] = 0

        @functools.wraps(test)
        def counted(*args, **kwargs):
            TRIED[test.__name__] += 1
            return test(*args, **kwargs)

        limits = settings(max_examples=max(1, int(FACTOR * count)), derandomize=True, deadline=None, database=None,
                          suppress_health_check=list(HealthCheck))
        return limits(given(**strategies)(counted))

    return decorate


def odd(*usual) -> st.SearchStrategy:
    """Half of the time one of the `usual` values (numbers, or strategies), else an odd one."""
    chosen = [value if isinstance(value, st.SearchStrategy) else st.just(value) for value in usual]
    return st.one_of(st.one_of(chosen), st.sampled_from(ODD))


def changed(usual: dict, most: int = 2, **strategies) -> st.SearchStrategy:
    """`usual` arguments with one to `most` of them replaced by values from their `strategies`."""
    some = st.lists(st.sampled_from(sorted(strategies)), min_size=1, max_size=most, unique=True)
    return some.flatmap(lambda names: st.fixed_dictionaries({name: strategies[name] for name in names})).map(
        lambda new: {**usual, **new})


def answer(call, given: dict):
    """What `call()` returns; or Refused, if it raised a ValueError or TypeError that names one of the arguments
    `given` and its value. Whatever else it raises fails the test."""
    try:
        return call()
    except (ValueError, TypeError) as error:
        text = " ".join(str(error).split())
        if any(name in text and any(one in text for one in spellings(value)) for name, value in given.items()):
            return Refused(text)
        pytest.fail(f"{type(error).__name__} names none of {given}: {text}")


def spellings(value: object) -> list[str]:
    """How a message may show a value: as it is, its first element, or the beginning of what is long; the argument's
    name, alone, where several values share one message."""
    texts = [str(value) if isinstance(value, (str, type)) else repr(value)]
    if isinstance(value, (tuple, list)) and value:
        texts += [repr(value[0]), repr(tuple(value)), repr(list(value))]
        if len(value) == 2:
            texts.append("x".join(map(repr, value)))
    return [text[:70] for text in texts]
