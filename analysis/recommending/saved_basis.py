"""A recommendation's basis out of a fit.json: predictions alone, for what was never measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from analysis.recommending.basis import Basis, Model
from analysis.recommending.evidence import beyond, given_acceptance, outside, with_given
from analysis.recommending.selection import fits
from analysis.settings import RecommendConf
from moesd_dist.records import DraftMethod, ModelSource, ModelSpec, SdSpec
from moesd_dist.theory.acceptance_profile import AcceptanceProfile
from moesd_dist.theory.choices.conditioning import estimate
from moesd_dist.theory.steps import saved as saved_model
from moesd_dist.theory.steps.fit import StepFit
from moesd_dist.theory.steps.prediction_errors import Place


def of_fit(conf: RecommendConf) -> Basis:
    """What `analysis.fit` saved, at its own or the given acceptance; ValueError for what is missing."""
    path = Path(conf.fit)
    if not path.is_file():
        raise ValueError(f"no saved fit {conf.fit!r}; give the fit.json of analysis.fit")
    fit, about = _read(path)
    setting = _setting(conf, about)
    acceptance, notes = _acceptance(conf, setting)
    gammas = sorted({0, *(conf.gammas or _needed(about, "gammas", conf))})
    fitted = sorted(about.get("batch_sizes", ())) or sorted(
        _needed(vars(conf), "batch_sizes", conf)
    )
    sizes = sorted(set(conf.batch_sizes)) or list(range(1, fitted[-1] + 1))
    place = Place(
        top_k=float(conf.top_k or _top_k(setting) or fit.target.top_k),
        context_tokens=conf.context_tokens or float(_needed(setting, "mean_context", conf)),
    )
    return Basis(
        estimate=estimate(fit, acceptance, sizes, gammas, place),
        points=(),
        runs=(),
        model=Model(fit=fit, acceptance=acceptance, place=place),
        sd=_sd(str(about.get("draft", ""))),
        dp_size=conf.layout.dp_size or int(dict(about.get("layout", {})).get("dp_size", 1)),
        reference_sizes=tuple(b for b in fitted if b in sizes) or tuple(sizes),
        title=(f"predicted from {conf.fit}", _said(about)),
        labels=with_given(about.get("labels", ()), conf.acceptance),
        notes=(*notes, *beyond(acceptance, gammas), *outside(sizes, fitted)),
    )


def _read(path: Path) -> tuple[StepFit, dict[str, Any]]:
    """The fit and what was said of it; ValueError with the path."""
    try:
        text = path.read_text(encoding="utf-8")
        about = saved_model.about(text)
        for name in ("settings", "batch_sizes", "gammas", "labels"):
            if not isinstance(about.get(name, []), list):
                raise ValueError(f"a saved fit is damaged: {name} is a list, got {about[name]!r}")
        if not isinstance(about.get("layout", {}), dict):
            raise ValueError(f"a saved fit is damaged: layout has sizes, got {about['layout']!r}")
        return saved_model.load_fit(text), about
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text; give the fit.json of analysis.fit") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _setting(conf: RecommendConf, about: dict[str, Any]) -> dict[str, Any]:
    """The one setting of the fitted points that `where` leaves; empty if the file has none."""
    where = conf.where.wanted()
    settings = list(about.get("settings", ()))
    found = [s for s in settings if fits({k: str(v) for k, v in s.items()}, where)]
    if settings and len(found) != 1:
        names = [n for n in found[0] if len({str(s[n]) for s in found}) > 1] if found else []
        differ = [n for n in names if n in vars(conf.where)]
        listed = "; ".join(f"{n} {' and '.join(str(s[n]) for s in found)}" for n in differ)
        raise ValueError(
            f"{conf.fit} holds {len(settings)} settings, {len(found)} of them as asked for"
            + (
                f" ({listed}); choose one, such as where.{differ[0]}={found[0][differ[0]]}"
                if differ
                else ""
            )
        )
    return dict(found[0]) if found else {}


def _acceptance(
    conf: RecommendConf, setting: dict[str, Any]
) -> tuple[AcceptanceProfile, list[str]]:
    if conf.acceptance:
        return given_acceptance(conf.acceptance)
    return AcceptanceProfile(
        conditional=tuple(_needed(setting, "conditional", conf)),
        tried=tuple(setting.get("tried", ())),
        dispersion=float(setting.get("dispersion", 1.0)),
    ), []


def _top_k(setting: dict[str, Any]) -> float:
    """0 where the file says none, as for a dense target."""
    value = setting.get("top_k")
    return 0.0 if value in (None, "", "none") else float(value)


def _needed(values: dict[str, Any], name: str, conf: RecommendConf) -> Any:
    if not values.get(name):
        given = {"conditional": "acceptance=FILE", "mean_context": "context_tokens=..."}
        raise ValueError(f"{conf.fit} says no {name}; give {given.get(name, f'{name}=[...]')}")
    return values[name]


def _sd(draft: str) -> SdSpec:
    """A fit knows its draft by name alone."""
    if draft == DraftMethod.ngram.value:
        return SdSpec(method=DraftMethod.ngram)
    model = ModelSpec(name=draft, source=ModelSource.shape) if draft else None
    return SdSpec(method=DraftMethod.draft_model, draft=model)


def _said(about: dict[str, Any]) -> str:
    return ", ".join(
        f"{n} {about[n]}" for n in ("target", "draft", "engine", "hardware") if n in about
    )
