"""The seam between a kernel's NumPy definition and its compiled twins.

`@kernel(example=…, numba="module:function", jax="module:function")` wraps the definition. A call runs the engine set by
`engine(name)` (a context), else the definition, unless the caller says that the work is long enough to pay for a twin
(`.best(work)`). Every twin is held to its definition by one parametrised test over `KERNELS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from ..errors import OptionError, UnknownOption

ENGINES = ("auto", "numpy", "numba", "jax")
_engine: ContextVar[str] = ContextVar("bossa_engine", default="auto")
KERNELS: dict[str, Kernel] = {}


@contextmanager
def engine(name: str) -> Iterator[None]:
    """Inside the block, kernels run on `name`: "numpy", "numba", "jax", or "auto" (whatever the size of the work pays for)."""
    if name not in ENGINES:
        raise UnknownOption(name, ENGINES, where="bossa.engine()", kind="engine")
    if name in ("numba", "jax") and find_spec(name) is None:
        raise OptionError(f"the engine {name!r} is not installed.", where="bossa.engine()", do=f"pip install 'bossa[{name}]'.")
    token = _engine.set(name)
    try:
        yield
    finally:
        _engine.reset(token)


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

    def best(self, work: float = 0.0) -> Callable:
        """The callable to use for `work` seconds of NumPy time: a twin only where compiling pays."""
        chosen = _engine.get()
        if chosen in ("numba", "jax"):
            return self.load(chosen) or self.definition
        if chosen == "auto" and work > 20.0 and "numba" in self.twins:
            return self.load("numba") or self.definition
        return self.definition

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.best()(*args, **kwargs)


def kernel(*, example: Callable, **twins: str) -> Callable[[Callable], Kernel]:
    """Register a definition; `example(rng)` gives arguments for the agreement test."""

    def wrap(definition: Callable) -> Kernel:
        made = Kernel(definition, example, twins)
        KERNELS[definition.__name__] = made
        return made

    return wrap
