"""What is known of some named numbers, handed on: a mean, a covariance operator, draws, and where they came from.

    post.interval(0.9)    post.transform(L)    post.predict(new_rows)    post.sample(1000, seed=1)    post.to_dict()
    model(…, prior=post)  uses it as the prior of the next fit

kind  "gaussian"   N(mean, cov)                      "student_t"  t_df about mean with SCALE matrix cov (covariance: × df/(df − 2))
      "ensemble"   moments of draws, which agree     "samples"    draws alone, cov None

`mean` is always there. `sigma` is the residual standard deviation that a Student-t's scale is in units of (cov = sigma² V): with df it
makes the Normal–inverse-gamma state, so that such a posterior is an exact prior. `back` maps to the scale on which an answer is shown
(link → response, log → ratio): mean, cov and draws are before it, `interval` is carried through it.

Source: Gelman et al. (2013) ch. 3, §14.2; Bernardo & Smith (1994) §5.1 on dividing a posterior by its prior.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from attrs import evolve, field, frozen

from .. import lazy
from ..errors import DataError, NotFitted, OptionError, Refused, UnknownOption
from ..kernels import covop, densities
from ..kernels.covop import CovOp
from ..kernels.intervals import t_quantile
from ..kernels.resample import percentile_interval
from ..kernels.streams import entropy, stream
from ..types import Floats, is_whole
from .fields import array, check_axes
from .provenance import Provenance, digest, hash_array

if TYPE_CHECKING:
    from ..report import streams as words
else:  # a posterior is held without a Model, and is asked for its words
    words = lazy.module("report.streams")

KINDS = ("gaussian", "student_t", "ensemble", "samples")


@frozen(kw_only=True, eq=False)
class Information:
    """What the data added to the prior.

    share    (k,)  diagonal of the averaging kernel: share of each coefficient that is data
    dfs            degrees of freedom for signal, its trace
    entropy        nats by which the prior's entropy was lowered, ½ log |B|/|P|; inf for a flat prior
    """

    names: tuple[str, ...]
    share: np.ndarray = array("k")
    dfs: float
    entropy: float


@frozen(kw_only=True, eq=False)
class Likelihood:
    """The posterior divided by its prior in natural form, which may be singular: precision (k, k), shift (k,) = precision · estimate."""

    names: tuple[str, ...]
    precision: np.ndarray = array("k", "k2")
    shift: np.ndarray = array("k")


def _named(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(names)


@frozen(kw_only=True, eq=False, repr=False)
class Posterior:
    """See the module. k numbers, S draws.

    names         (k,)
    mean          (k,)
    cov           CovOp (k, k), or None for draws alone
    samples       (S, k) or None
    df            of a Student-t;  sigma  as in the module docstring
    prior         the Posterior it started from, None: flat
    log_evidence  log p(data), where the prior is proper
    rows          turns new rows into (X (n, k), offset), for predict(); not stored
    notes         what was chosen, one sentence each
    """

    names: tuple[str, ...] = field(converter=_named)
    mean: np.ndarray = array("k")
    cov: Any = None
    samples: np.ndarray | None = array("S", "k", optional=True)
    kind: str = "gaussian"
    df: float | None = None
    sigma: float | None = None
    prior: Posterior | None = None
    log_evidence: float | None = None
    provenance: Provenance | None = None
    back: Any = None
    rows: Any = None
    notes: tuple[str, ...] = ()

    def __attrs_post_init__(self) -> None:
        check_axes(self)
        k = len(self.mean)
        if self.kind not in KINDS:
            raise UnknownOption(self.kind, KINDS, where="Posterior", kind="kind")
        if len(self.names) != k or (self.cov is not None and self.cov.size != k):
            raise DataError(
                f"{len(self.names)} names, {k} means and {'no' if self.cov is None else self.cov.size} variances.", where="Posterior"
            )
        if self.cov is None and self.samples is None:
            raise DataError("it has neither a covariance nor draws.", where="Posterior", do="Give cov= or samples=.")
        if (self.kind == "student_t") != (self.df is not None):
            raise DataError(
                f"kind {self.kind!r} with df={self.df!r}.", where="Posterior", do="A Student-t has degrees of freedom, others not."
            )

    # ---------------------------------------------------------------- moments
    def sd(self) -> Floats:
        """Standard deviation (k,): of a Student-t √(df/(df−2)) times its scale, inf up to two degrees of freedom."""
        if self.cov is None:
            return self._draws().std(axis=0, ddof=1)
        if self.df is None:
            return np.sqrt(self.cov.diag())
        return np.sqrt(self.cov.diag()) * (math.sqrt(self.df / (self.df - 2)) if self.df > 2 else math.inf)

    def scale(self) -> Floats:
        """√diag(cov) (k,): what limits are built from, estimate ± t_df · scale."""
        return self.sd() if self.cov is None else np.sqrt(self.cov.diag())

    def interval(self, level: float = 0.95, kind: str = "eti") -> Floats:
        """Limits (2, k) that hold `level`, on the scale shown.   kind  "eti" equal tails | "hdi" narrowest"""
        if kind not in ("eti", "hdi"):
            raise UnknownOption(kind, ("eti", "hdi"), where="interval()", kind="kind")
        if not 0 < level < 1:
            raise OptionError(f"level={level!r} is not between 0 and 1.", where="interval()", do="Use e.g. 0.95.")
        if self.back is not None and kind == "hdi":
            raise Refused(f"the narrowest interval is not carried through {self.back.name}.", where="interval()", do="Use kind='eti'.")
        if self.cov is None:
            draws = self._draws()
            limits = percentile_interval(draws, level) if kind == "eti" else densities.shortest_interval(draws, level)
        else:
            width = -t_quantile((1 - level) / 2, np.inf if self.df is None else self.df) * self.scale()
            limits = np.stack((self.mean - width, self.mean + width))
        return limits if self.back is None else np.sort(np.stack([np.asarray(self.back.value(row)) for row in limits]), axis=0)

    def gaussian(self) -> Posterior:
        """The Gaussian of the same mean and covariance."""
        if self.kind in ("gaussian", "ensemble"):
            return evolve(self, kind="gaussian", samples=None)
        if self.df is not None:
            if self.df <= 2:
                raise Refused(f"a Student-t of {self.df:g} degrees of freedom has no covariance.", where="gaussian()", do="Use .sample().")
            return evolve(self, kind="gaussian", df=None, sigma=None, cov=self.cov.scaled(self.df / (self.df - 2)))
        draws = self._draws()
        root = covop.from_root((draws - draws.mean(axis=0)).T / math.sqrt(len(draws) - 1))
        return evolve(self, kind="gaussian", mean=draws.mean(axis=0), cov=root, samples=None)

    def _draws(self) -> Floats:
        assert self.samples is not None
        return self.samples

    # ---------------------------------------------------------------- draws and densities
    def sample(self, n: int, seed: Any = None) -> Floats:
        """n draws (n, k), before `back`; of kind "samples": its own draws, with replacement."""
        if not is_whole(n) or n < 0:
            raise OptionError(
                f"n={n!r} is not a whole number of at least 0.", where="sample()", do="sample(1000, seed=1) draws a thousand."
            )
        rng = stream(entropy(seed), 0)
        if self.cov is None:
            draws = self._draws()
            return draws[rng.integers(len(draws), size=n)]
        z = self.cov.sqrt_mv(rng.standard_normal((self.cov.width, n))).T
        if self.df is not None:
            z = z / np.sqrt(rng.chisquare(self.df, size=n) / self.df)[:, None]
        return self.mean + z

    def logpdf(self, x: Any) -> Floats:
        """Log-density at x (…, k), before `back`."""
        if self.cov is None:
            raise Refused("draws alone have no density.", where="logpdf()", do="Use .gaussian().logpdf(x).")
        at = np.asarray(x, dtype=float)
        if at.ndim == 0 or at.shape[-1] != len(self.mean):
            raise DataError(f"x has shape {at.shape}.", where="logpdf()", do=f"Give (…, {len(self.mean)}): one number for each name.")
        return densities.log_density(at, self.mean, self.cov, self.df)

    def kl(self, other: Posterior) -> float:
        """KL(self ‖ other) in nats, of two Gaussians about the same names."""
        for post, which in ((self, "this one"), (other, "the other")):
            if post.kind not in ("gaussian", "ensemble"):
                raise Refused(f"{which} is of kind {post.kind!r}, for which there is no closed form.", where="kl()", do="Use .gaussian().")
            if post.cov.rank < post.cov.size:
                raise Refused(f"the covariance of {which} is singular.", where="kl()", do="Compare a .marginal() of full rank.")
        other = other.marginal(self.names)
        return densities.kl_normal(self.mean, self.cov, other.mean, other.cov)

    # ---------------------------------------------------------------- parts and images
    def marginal(self, names: Iterable[str]) -> Posterior:
        """The same for some of the names, in the order asked."""
        names = [names] if isinstance(names, str) else list(names)
        if tuple(names) == self.names:
            return self
        index = positions(names, self.names, "marginal()")
        return evolve(
            self,
            names=names,
            mean=self.mean[index],
            cov=None if self.cov is None else covop.subset(self.cov, index),
            samples=None if self.samples is None else self.samples[:, index],
            prior=None if self.prior is None else self.prior.marginal(names),
            log_evidence=None,
            rows=None,
        )

    def transform(self, L: Any, names: Iterable[str] | None = None, offset: Any = None) -> Posterior:
        """L θ + offset, exactly: mean L m, covariance L P Lᵀ.   L (K, k) or (k,)"""
        L = np.atleast_2d(np.asarray(L, dtype=float))
        if L.shape[1] != len(self.names):
            raise DataError(f"L has {L.shape[1]} columns, the posterior {len(self.names)} numbers.", where="transform()")
        add = 0.0 if offset is None else np.asarray(offset, dtype=float)
        return evolve(
            self,
            names=tuple(f"[{i}]" for i in range(len(L))) if names is None else names,
            mean=L @ self.mean + add,
            cov=None if self.cov is None else covop.transformed(self.cov, L),
            samples=None if self.samples is None else self.samples @ L.T + add,
            prior=None if self.prior is None else self.prior.marginal(self.names).image(L, names, add),
            log_evidence=None,
            rows=None,
            back=None,
        )

    def image(self, L: Floats, names: Iterable[str] | None = None, offset: Any = 0.0) -> Posterior | None:
        """`transform` of a prior, which may be flat about some combinations; None: about all those asked."""
        cov = None if self.cov is None else covop.image(self.cov, L)
        names = tuple(f"[{i}]" for i in range(len(L))) if names is None else names
        return None if cov is None else evolve(self, names=names, mean=L @ self.mean + offset, cov=cov, samples=None, prior=None, rows=None)

    def predict(self, newdata: Any, type: str = "response") -> Posterior:
        """Of the mean of each new row, shown on the response scale (type="link": of the linear predictor)."""
        if self.rows is None:
            raise NotFitted(
                "it does not know how rows become columns.", where="predict()", do="Use .transform(X), or the model's own .posterior."
            )
        if type not in ("response", "link"):
            raise UnknownOption(type, ("response", "link"), where="predict()", kind="type")
        X, offset, back = self.rows(newdata)
        return evolve(self.transform(X, [f"row {i}" for i in range(len(X))], offset), back=back if type == "response" else None)

    # ---------------------------------------------------------------- prior and likelihood
    def as_prior(self, inflate: float = 1.0) -> Posterior:
        """The same as a prior: draws and history dropped, covariance times `inflate`."""
        if not (np.isfinite(inflate) and inflate > 0):
            raise OptionError(f"inflate={inflate!r} is not a positive number.", where="as_prior()", do="Use 1 to keep the covariance.")
        base = self.gaussian() if self.cov is None else self
        kind = "gaussian" if base.kind == "ensemble" else base.kind
        plain = evolve(base, kind=kind, samples=None, prior=None, log_evidence=None, notes=())
        if inflate == 1.0:
            return plain
        made = evolve(plain, cov=plain.cov.scaled(inflate))
        if self.provenance is None:
            return made
        return evolve(made, provenance=evolve(self.provenance, adapter=f"as_prior({inflate!r})", parent_hash=self.hash))

    def likelihood_part(self) -> Likelihood:
        """What the data alone say: precision P⁻¹ − B⁻¹, shift P⁻¹m − B⁻¹m₀; of a Student-t, given σ at its estimate."""
        if self.cov is None:
            raise Refused("draws alone do not say what the prior was.", where="likelihood_part()", do="Use another adapter.")
        precision, shift = self.cov.solve(np.eye(len(self.mean))), self.cov.solve(self.mean)
        if self.prior is not None:
            before, mean = self._prior_cov(), self.prior.marginal(self.names).mean
            precision, shift = precision - before.solve(np.eye(len(self.mean))), shift - before.solve(mean)
        return Likelihood(names=self.names, precision=(precision + precision.T) / 2, shift=shift)

    def _prior_cov(self) -> CovOp:
        """The prior's covariance, in units of the same residual variance as this one's where it is told in units of one."""
        assert self.prior is not None
        before = self.prior.marginal(self.names).cov
        if self.sigma is not None and self.prior.sigma is not None:
            return before.scaled((self.sigma / self.prior.sigma) ** 2)
        return before

    def to_mark(self, event_id: str | None = None, time: Any = None, geometry: Any = None, **metadata: Any) -> dict[str, Any]:
        """A mark of a point process, in plain JSON: what is known here, its prior, and what the data alone say.

        event_id, time, geometry   of the event;  metadata: its covariates, for `bossa.assimilate.population`
        Draws alone have no likelihood part.
        """
        part = None if self.cov is None else self.likelihood_part()
        prior = (
            None
            if self.prior is None or self.cov is None
            else {"mean": self.prior.marginal(self.names).mean.tolist(), "cov": _mark_cov(self._prior_cov())}
        )
        return {
            "event_id": event_id,
            "time": time,
            "geometry": geometry,
            "event_metadata": metadata,
            "mean": self.mean.tolist(),
            "names": list(self.names),
            "kind": self.kind,
            "df": self.df,
            "cov": None if self.cov is None else _mark_cov(self.cov),
            "samples": None if self.samples is None else self.samples.tolist(),
            "provenance": None if self.provenance is None else self.provenance.to_dict(),
            "prior": prior,
            "likelihood": None if part is None else {"precision": part.precision.tolist(), "shift": part.shift.tolist()},
        }

    def information(self) -> Information:
        """Share of each coefficient that is data, degrees of freedom for signal, entropy reduction."""
        if self.cov is None:
            raise Refused("draws alone do not say what the prior was.", where="information()", do="Use another adapter.")
        if self.prior is None:
            return Information(names=self.names, share=np.ones(len(self.mean)), dfs=float(self.cov.rank), entropy=math.inf)
        if self.cov.rank < self.cov.size:
            what = "some of the numbers are combinations of others."
            raise Refused(what, where="information()", do="Ask a .marginal([…]) of full rank, or the coefficients.")
        before = self._prior_cov()
        A = densities.averaging_kernel(self.cov, before)
        return Information(names=self.names, share=np.diag(A), dfs=float(np.trace(A)), entropy=0.5 * (before.logdet() - self.cov.logdet()))

    # ---------------------------------------------------------------- storing
    @property
    def hash(self) -> str:
        """SHA-256 of names, moments (draws where there is no covariance) and provenance: what the next state's `parent_hash` names."""
        draws = self.samples if self.cov is None else None
        origin = None if self.provenance is None else self.provenance.hash
        return digest([self.names, self.mean, _described(self.cov, hash_array), draws, self.df, self.sigma, origin])

    def to_dict(self) -> dict[str, Any]:
        """As JSON, every number exactly (`float.hex`), sealed by a checksum. What `predict` needs is not stored."""
        document = {
            "schema": "bossa.posterior/1",
            "names": list(self.names),
            "mean": _hex(self.mean),
            "cov": _described(self.cov, _hex),
            "samples": None if self.samples is None else _hex(self.samples),
            "kind": self.kind,
            "df": _hex_or_none(self.df),
            "sigma": _hex_or_none(self.sigma),
            "prior": None if self.prior is None else self.prior.to_dict(),
            "log_evidence": _hex_or_none(self.log_evidence),
            "provenance": None if self.provenance is None else self.provenance.to_dict(),
            "scale": None if self.back is None else self.back.name,
            "notes": list(self.notes),
        }
        return document | {"checksum": digest(document)}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Posterior:
        """Read back, bit for bit; DataError where it was changed since it was stored."""
        if not isinstance(document, Mapping):
            raise DataError(
                f"{type(document).__name__} is not a stored posterior.", where="Posterior.from_dict()", do="Give the dict of .to_dict()."
            )
        content = {k: v for k, v in document.items() if k != "checksum"}
        if document.get("schema") != "bossa.posterior/1":
            raise DataError(f"schema {document.get('schema')!r} is not 'bossa.posterior/1'.", where="Posterior.from_dict()")
        if digest(content) != document.get("checksum"):
            raise DataError(
                "it was changed since it was stored.", where="Posterior.from_dict()", do="Get the original: its numbers cannot be trusted."
            )
        if content["scale"] is not None:
            raise Refused(
                f"it was shown through {content['scale']}, which is not stored.",
                where="Posterior.from_dict()",
                do="Store the coefficients' posterior.",
            )
        return cls(
            names=content["names"],
            mean=_unhex(content["mean"]),
            cov=_rebuilt(content["cov"]),
            samples=None if content["samples"] is None else _unhex(content["samples"]),
            kind=content["kind"],
            df=_number(content["df"]),
            sigma=_number(content["sigma"]),
            prior=None if content["prior"] is None else cls.from_dict(content["prior"]),
            log_evidence=_number(content["log_evidence"]),
            provenance=None if content["provenance"] is None else Provenance.from_dict(content["provenance"]),
            notes=tuple(content["notes"]),
        )

    def explain(self) -> Any:
        """What it is, what was known before, what the data alone say, and where it came from: in words and frames."""
        return words.of_posterior(self)

    def to_arviz(self, n: int = 1000, seed: Any = None) -> dict[str, dict[str, Floats]]:
        """`arviz.from_dict(**post.to_arviz())` (from arviz 1.0 on without the stars): one chain of the draws, or of n new ones.

        returns  {"posterior": {name: (1, S)}}
        """
        draws = self._draws() if self.samples is not None else self.sample(n, seed)
        return {"posterior": {name: draws[None, :, j] for j, name in enumerate(self.names)}}

    def __repr__(self) -> str:
        about = "" if self.df is None else f", df {self.df:.4g}"
        before = "" if self.back is None else f"; mean and sd before {self.back.name}"
        lines = [f"Posterior ({self.kind}{about}; {len(self.names)} numbers{before})"]
        low, high = self.interval()
        for name, m, s, a, b in list(zip(self.names, self.mean, self.sd(), low, high))[:20]:
            lines.append(f"  {name}: {m:.6g} (sd {s:.4g}), 95% [{a:.6g}, {b:.6g}]")
        if len(self.names) > 20:
            lines.append(f"  … {len(self.names) - 20} more")
        if self.log_evidence is not None:
            lines.append(f"log-evidence {self.log_evidence:.6g}")
        return "\n".join([*lines, *self.notes])


def positions(names: Iterable[str], known: tuple[str, ...], where: str) -> np.ndarray:
    """Index of each name; UnknownOption with the nearest where it is not known."""
    place = {name: i for i, name in enumerate(known)}
    for name in names:
        if name not in place:
            raise UnknownOption(name, known, where=where, kind="coefficient")
    return np.array([place[name] for name in names], dtype=np.intp)


# ---------------------------------------------------------------- exact numbers in JSON
def _hex(values: np.ndarray) -> dict[str, Any]:
    return {"shape": list(values.shape), "hex": [float(v).hex() for v in np.asarray(values).ravel()]}


def _unhex(stored: Mapping[str, Any]) -> np.ndarray:
    return np.array([float.fromhex(v) for v in stored["hex"]]).reshape(stored["shape"])


def _hex_or_none(value: float | None) -> str | None:
    return None if value is None else float(value).hex()


def _number(stored: str | None) -> float | None:
    return None if stored is None else float.fromhex(stored)


def _described(op: CovOp | None, write: Any) -> dict[str, Any] | None:
    """An operator as its kind and arrays, each written by `write`; nested for Kronecker products."""
    if op is None:
        return None
    return {"kind": op.kind} | {name: write(v) if isinstance(v, np.ndarray) else _described(v, write) for name, v in op.arrays().items()}


def _rebuilt(stored: Mapping[str, Any] | None) -> CovOp | None:
    if stored is None:
        return None
    if stored.get("kind") not in covop.KINDS:
        raise UnknownOption(stored.get("kind"), covop.KINDS, where="Posterior.from_dict()", kind="covariance kind")
    arrays = {name: _unhex(v) if "hex" in v else _rebuilt(v) for name, v in stored.items() if name != "kind"}
    return covop.rebuilt(stored["kind"], arrays)


def _mark_cov(op: CovOp) -> dict[str, Any]:
    """diag {d} | chol {L} | lowrank {d, Q, f} | dense {P}, as lists; what is none of these becomes its root."""
    if op.kind not in ("diag", "chol", "lowrank+diag", "dense", "flat"):
        op = covop.from_root(op.sqrt_mv(np.eye(op.width)))
    arrays = {name: [None if np.isinf(x) else x for x in v.tolist()] if v.ndim == 1 else v.tolist() for name, v in op.arrays().items()}
    return {"kind": op.kind.removesuffix("+diag")} | arrays


def describe(op: CovOp) -> dict[str, Any]:
    """An operator in exact numbers, as in `Posterior.to_dict()["cov"]`."""
    made = _described(op, _hex)
    assert made is not None
    return made
