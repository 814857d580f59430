"""One self-contained HTML page: its style, and the few kinds of parts that it is made of."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from typing import Literal

_CSS = """
:root{color-scheme:light dark;--ink:#1c2127;--soft:#5c6670;--line:#dfe3e8;--page:#fff;--card:#f7f8fa;--accent:#0072b2}
@media(prefers-color-scheme:dark){
 :root{--ink:#e6e9ed;--soft:#9aa4b0;--line:#30363d;--page:#14181d;--card:#1a1f26;--accent:#4ea8de}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:72rem;padding:2.2rem clamp(1rem,4vw,2.5rem) 4rem;background:var(--page);color:var(--ink);
 font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
h1,h2,h3{font-family:Charter,"Bitstream Charter","Iowan Old Style",Palatino,Georgia,serif;line-height:1.2;
 text-wrap:balance}
h1{font-size:1.9rem;margin:0}
h2{font-size:1.4rem;margin:3rem 0 .8rem;padding-top:1.1rem;border-top:1px solid var(--line)}
h3{font-size:1.08rem;margin:1.9rem 0 .5rem}
p,ul{max-width:46rem}
li{margin:.35rem 0}
.soft,figcaption{color:var(--soft)}
.soft{font-size:.92rem}
.answer{margin:1.4rem 0 1.8rem;padding:.1rem 0 .1rem 1.1rem;border-left:4px solid var(--accent);
 font-size:1.28rem;line-height:1.45;max-width:50rem;text-wrap:pretty}
.scroll{overflow-x:auto;-webkit-overflow-scrolling:touch}
table{border-collapse:separate;border-spacing:0;font-size:.9rem;font-variant-numeric:tabular-nums;width:100%}
th,td{padding:.45rem .55rem;text-align:right;vertical-align:top;border-bottom:1px solid var(--line);white-space:nowrap}
thead th{font-weight:600;font-size:.84rem;line-height:1.3;white-space:normal;vertical-align:bottom;
 border-bottom:1.5px solid var(--soft)}
tbody th{font-weight:500}
th:first-child{text-align:left}
th:first-child{position:sticky;left:0;background:var(--page);padding-left:0}
td small{display:block;color:var(--soft);font-size:.78rem}
.dot{display:inline-block;width:.62em;height:.62em;border-radius:50%;border:2px solid;margin-right:.5em}
.charts{columns:2 26rem;column-gap:1.2rem;margin-top:1.2rem}
figure{margin:0}
.charts figure{background:var(--card);border-radius:10px;padding:1rem 1rem .8rem;margin-bottom:1.2rem;
 break-inside:avoid}
.charts figure img{display:block;width:100%;height:auto}
.charts h3{margin:0 0 .6rem}
figcaption{font-size:.86rem;line-height:1.45;margin-top:.5rem}
.pictures{display:grid;gap:.8rem .6rem}
.pictures img{display:block;width:100%;height:auto;border-radius:4px;background:#000}
.pictures figcaption{margin-top:.25rem}
.pictures .head{font-weight:600;font-size:.9rem}
.pictures .head small{display:block;font-weight:400;color:var(--soft)}
.key{display:inline-block;width:1.5em;height:0;border-top:3px solid;vertical-align:middle;margin-right:.35em}
details{margin:1rem 0}
summary{cursor:pointer;color:var(--accent)}
pre{background:var(--card);border-radius:8px;padding:.9rem;overflow-x:auto;font-size:.82rem;line-height:1.45}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.3rem 1.2rem;font-size:.92rem;margin:0}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
@media(max-width:40rem){.pictures.wide{width:44rem}dl{grid-template-columns:1fr;gap:0}dd{margin:0 0 .5rem}
 tbody th{white-space:normal;min-width:7.5rem}}
@media print{body{max-width:none;padding:0}figure,table{break-inside:avoid}}
"""


def document(title: str, body: Sequence[str]) -> str:
    """A whole page. Nothing in it is fetched from anywhere; ``title`` is text, ``body`` is HTML."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{_CSS}</style></head>\n<body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that scrolls sideways on a narrow screen. Cells are HTML; the first of a row names it."""
    header = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    lines = [
        f'<tr><th scope="row">{name}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>' for name, *cells in rows
    ]
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr>{header}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def value_cell(value: str, below: str = "", strong: bool = False) -> str:
    """A number, with its interval in small print below."""
    shown = f"<strong>{value}</strong>" if strong else value
    return f"{shown}<small>{below}</small>" if below else shown


def image(content: bytes, kind: Literal["svg+xml", "png"], description: str) -> str:
    """An image whose bytes are in the page; ``description`` is for those who cannot see it."""
    encoded = base64.b64encode(content).decode("ascii")
    return f'<img src="data:image/{kind};base64,{encoded}" alt="{escape(description)}">'


def chart_card(title: str, svg: bytes, caption: str, csv: str) -> str:
    """A chart with its title, how to read it, and the file with its numbers."""
    return (
        f"<figure><h3>{escape(title)}</h3>{image(svg, 'svg+xml', f'{title}. {caption}')}"
        f"<figcaption>{escape(caption)} Numbers: <code>{escape(csv)}</code>.</figcaption></figure>"
    )


def picture(png: bytes, caption: str, description: str) -> str:
    """A picture with a short caption."""
    return f"<figure>{image(png, 'png', description)}<figcaption>{escape(caption)}</figcaption></figure>"


def picture_grid(columns: int, cells: Sequence[str]) -> str:
    """Pictures in equal columns; three or more columns scroll sideways on a phone."""
    wide = " wide" if columns > 2 else ""
    style = f"grid-template-columns:repeat({columns},minmax(0,1fr))"
    return f'<div class="scroll"><div class="pictures{wide}" style="{style}">{"".join(cells)}</div></div>'


def unbroken(text: str) -> str:
    """Text as HTML in which names such as U-Net, and a number and its %, stay on one line."""
    return escape(text).replace("-", "\N{NON-BREAKING HYPHEN}").replace(" %", "\N{NO-BREAK SPACE}%")


def bullet_list(items: Sequence[str]) -> str:
    """A list of sentences."""
    return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"


def facts(values: dict[str, str]) -> str:
    """Names and their values."""
    return f"<dl>{''.join(f'<dt>{escape(key)}</dt><dd>{escape(value)}</dd>' for key, value in values.items())}</dl>"
