"""What is wrapped around an adapter whose medium is far away: each piece is a port itself.

    around.py    every call of an adapter goes through one place
    retry.py     asks again when a medium does not answer
    limits.py    so many calls at a time, so many bytes a second
    records.py   a line in the log for each call
    metrics.py   counts, bytes, seconds

`ObjectsAround(ObjectsAround(adapter, Metrics()), Retry())` counts each attempt. What is not needed
is not wrapped: a directory of this host has none of it. Not decided here: for which stores
(`wiring`).
"""

from mregfs.stores.wrapping.around import ObjectsAround, PacksAround, Through
from mregfs.stores.wrapping.limits import Limits
from mregfs.stores.wrapping.metrics import CallFigures, Metrics
from mregfs.stores.wrapping.records import Records
from mregfs.stores.wrapping.retry import Retry

__all__ = [
    "CallFigures",
    "Limits",
    "Metrics",
    "ObjectsAround",
    "PacksAround",
    "Records",
    "Retry",
    "Through",
]
