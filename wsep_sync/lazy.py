"""Imports that wait until they are needed, in a way that a fork does not hurt.

A child that was forked while another thread was importing a module has that module's lock, held by
a thread that it does not have: its own import of it would wait for ever. So what is imported within
a function is imported under one lock of this package, and a fork waits for that.
"""

from __future__ import annotations

# Before this registers anything: a fork calls the last one first, and while it held logging's lock,
# which those who are imported need, it could not wait for them.
import logging  # noqa: F401
import os
import threading

__all__ = [
    "importing",
]

#: Held while a function imports something; guards nothing else. Reentrant: what is imported may
#: import.
importing = threading.RLock()

if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=importing.acquire,
        after_in_parent=importing.release,
        after_in_child=importing.release,
    )
