"""The seam between a kernel's NumPy definition and its compiled twins.

`@kernel(example=…, jax="module:function")` wraps the definition. A call runs the definition, so that nothing waits for a compiler,
unless `engine(name)` (a context) asks for twins; a kernel without one, or a call that a twin cannot take, runs the definition there too.
Every twin is held to its definition by one parametrised test over `KERNELS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from ..errors import OptionError, UnknownOption

ENGINES = ("numpy", "jax", "numba")
_engine: ContextVar[str] = ContextVar("bossa_engine", default="numpy")
KERNELS: dict[str, Kernel] = {}


@contextmanager
def engine(name: str) -> Iterator[None]:
    """Inside the block, kernels that have a twin for `name` run on it: "numpy" (the definitions; the default), "jax" or "numba"."""
    if name not in ENGINES:
        raise UnknownOption(name, ENGINES, where="bossa.engine()", kind="engine")
    if name != "numpy" and find_spec(name) is None:
        raise OptionError(f"the engine {name!r} is not installed.", where="bossa.engine()", do=f"pip install 'bossa[{name}]'.")
    token = _engine.set(name)
    try:
        yield
    finally:
        _engine.reset(token)


def chosen() -> str:
    """The engine of this context, for handing on to workers: they have contexts of their own."""
    return _engine.get()


class Kernel:
    """A NumPy definition and the places of its twins."""

    def __init__(self, definition: Callable, example: Callable, twins: dict[str, str]):
        self.definition, self.example, self.twins = definition, example, twins
        self.__name__, self.__doc__ = definition.__name__, definition.__doc__
        self._loaded: dict[str, Callable] = {}

    def load(self, engine_name: str) -> Callable | None:
        """The twin, or None where there is none or its library is not installed."""
        if engine_name not in self.twins or find_spec(engine_name) is None:
            return None
        if engine_name not in self._loaded:
            module, _, name = self.twins[engine_name].partition(":")
            self._loaded[engine_name] = getattr(import_module(module), name)
        return self._loaded[engine_name]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return (self.load(chosen()) or self.definition)(*args, **kwargs)


def kernel(*, example: Callable, **twins: str) -> Callable[[Callable], Kernel]:
    """Register a definition; `example(rng)` gives arguments for the agreement test."""

    def wrap(definition: Callable) -> Kernel:
        made = Kernel(definition, example, twins)
        KERNELS[definition.__name__] = made
        return made

    return wrap
