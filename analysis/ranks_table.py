"""Expert parallelism as a table: what ranks wait for and send, and what target efficiency is lost to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from analysis.report import HEADERS
from analysis.rows import LONGEST, best_per_gamma, ordered, rounded
from analysis.series import axes, label, measured, of_role, setting
from moesd_dist.records import Measurement, Outcome, Role
from moesd_dist.sweep.statistics import metrics

_EP = "layout.ep_size"
_FIGURES = {  # columns of decoding and verification
    "load_imbalance": "{:.2f}",
    "max_rank_activated_experts": "{:.1f}",
    "communication_share": "{:.0%}",
    "waiting_share": "{:.0%}",
}
_LOSSES = {
    "te_loss_experts": "=\nexperts",
    "te_loss_imbalance": "+\nwait",
    "te_loss_communication": "+\ncomm.",
    "te_loss_packing": "+\npack",
    "te_loss_rest": "+\nrest",
}
_HEADERS = {
    **HEADERS,
    **_LOSSES,
    "load_imbalance": "load\nimbalance",
    "max_rank_activated_experts": "busiest\nexperts",
    "communication_share": "comm.",
    "waiting_share": "waiting",
    "loss": "1/TE\n- 1",
}
_CAPTION = (
    "load imbalance: load of the busiest rank over the mean rank's, a layer's forward at a time",
    "busiest experts: activated experts of a layer on the rank that has most of them",
    "comm., waiting: exposed shares of a target forward; communication without the waiting in it",
    "1/TE - 1: what verification takes longer, in decoding forwards, and the parts that take it",
)


def exchange_table(outcomes: Sequence[Outcome]) -> Table | None:
    """One row a point whose ranks were looked into, ordered as in the sweep's table.

    None where no point has more ranks than one; points of one stand beside those that have.
    """
    known = [m for m in measured(outcomes) if m.ranks]
    shown = of_role(known, Role.sd) or of_role(known, Role.baseline)
    if not any(m.ranks > 1 for m in shown):
        return None
    if len(shown) > LONGEST:
        shown = best_per_gamma(shown) or shown
    names = [_EP, *(name for name in axes(outcomes) if name != _EP)]
    table = Table(
        title=Text(_title(shown), style="not italic"),
        title_justify="left",
        caption=Text("\n".join(_CAPTION), style="not italic"),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
        min_width=60,
    )
    rows = [_cells(m, names) for m in ordered(shown[:LONGEST], names)]
    for name in rows[0]:
        _add_column(table, name, folds=name in map(label, names) and name != label(_EP))
    for row in rows:
        table.add_row(*map(Text, row.values()))
    return table


def _title(shown: Sequence[Measurement]) -> str:
    verifies = any(m.point.gamma for m in shown)
    return "Expert parallelism: decoding" + (" -> verification" if verifies else "")


def _add_column(table: Table, name: str, *, folds: bool) -> None:
    """Columns of axes may be folded: some hold long names."""
    table.add_column(
        _HEADERS.get(name, name),
        justify="left" if folds else "right",
        no_wrap=not folds,
        overflow="fold" if folds else "ellipsis",
        min_width=7 if folds else None,
    )


def _cells(m: Measurement, names: Sequence[str]) -> dict[str, str]:
    found, places = metrics(m), dict(setting(m.point, names))
    cells = {label(name): places.get(label(name), "") for name in names}
    cells |= {"B": str(m.point.batch_size), "gamma": str(m.point.gamma)}
    before = ("baseline_", "") if m.point.gamma else ("",)
    for name, form in _FIGURES.items():
        values = [form.format(found[f"{b}{name}"]) for b in before if f"{b}{name}" in found]
        cells[name] = "->".join(values) or "-"
    return cells | _losses(found)


def _losses(found: Mapping[str, float]) -> dict[str, str]:
    known = [found[name] for name in _LOSSES if name in found]
    cells = {"loss": rounded(sum(known)) if known else "-"}
    return cells | {name: rounded(found[name]) if name in found else "-" for name in _LOSSES}
