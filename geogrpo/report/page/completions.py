"""The page's table of completions sampled while training: a few groups of a few steps, as they were rewarded."""

from collections.abc import Mapping, Sequence
from itertools import groupby

from geogrpo.report.page.content import SampledCompletion, SampledGroup
from geogrpo.report.page.pieces import cut, escaped, framed, thumbnail
from geogrpo.report.tables import MISSING
from geogrpo.types import Example

HEADER = (
    '<th scope="col">Completion</th><th class="point" scope="col">Point</th><th class="number" scope="col">Error</th>'
    '<th class="number" scope="col">Reward</th><th scope="col">Components</th>'
    '<th class="number" scope="col">Advantage</th>'
)


def completions_section(groups: Sequence[SampledGroup]) -> str:
    """HTML of its own section, the last step open; "" without groups."""
    if not groups:
        return ""
    steps = [(step, list(of_step)) for step, of_step in groupby(groups, lambda group: group.step)]
    parts = [
        f"<details{' open' if step == steps[-1][0] else ''}><summary>Step {step:,}</summary>"
        f"{''.join(map(_group, of_step))}</details>"
        for step, of_step in steps
    ]
    note = "Of each step the first groups. completions.jsonl has every completion of every step."
    return f'<section><h2>Completions while training</h2>{"".join(parts)}<p class="note">{note}</p></section>'


def _group(group: SampledGroup) -> str:
    lines = [_line(completion) for completion in group.completions]
    shown = len(group.completions)
    left_out = f"<br>{shown} of {group.num_completions:,} completions" if shown < group.num_completions else ""
    caption = f"{escaped(cut(group.id))}<br>Truth {_point(group.true_latlon_deg)}{left_out}"
    figure = f"<figure>{_picture(group)}<figcaption>{caption}</figcaption></figure>"
    return f'<div class="sampled">{figure}{framed(HEADER, lines)}</div>'


def _picture(group: SampledGroup) -> str:
    if group.image is None:
        return '<span class="no-picture">not at hand any more</span>'
    encoded, problem = thumbnail(Example(group.id, group.image, group.true_latlon_deg))
    if encoded is None:
        return f'<span class="no-picture">{escaped(problem or "")}</span>'
    return f'<img src="data:image/jpeg;base64,{encoded}" alt="Image of {escaped(cut(group.id))}" loading="lazy">'


def _line(completion: SampledCompletion) -> str:
    distance = MISSING if completion.distance_km is None else f"{completion.distance_km:,.0f} km"
    point = MISSING if completion.predicted_latlon_deg is None else _point(completion.predicted_latlon_deg)
    return (
        f'<tr><td><pre>{escaped(cut(completion.text))}</pre></td><td class="point">{point}</td>'
        f'<td class="number">{distance}</td><td class="number">{_number(completion.reward)}</td>'
        f"<td>{_components(completion.rewards)}</td>"
        f'<td class="number">{_number(completion.advantage, "+.3f")}</td></tr>'
    )


def _components(rewards: Mapping[str, float | None]) -> str:
    return "<br>".join(f"{escaped(cut(name))} {_number(value)}" for name, value in rewards.items())


def _point(latlon_deg: tuple[float, float]) -> str:
    return f"{latlon_deg[0]:.2f}, {latlon_deg[1]:.2f}"


def _number(value: float | None, form: str = ".3f") -> str:
    return MISSING if value is None else format(value, form)
