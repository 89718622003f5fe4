"""What a report looks like: in light and in dark, on a screen and on paper."""

from collections.abc import Sequence
from html import escape

CSS = """\
:root {
  color-scheme: light dark;
  --page: #fbfaf8; --sheet: #ffffff; --ink: #23262b; --muted: #6c727c; --faint: #e6e4df; --band: #d9dfe3;
  --good: #14795a; --bad: #b8540c; --warn: #7a5600; --warn-sheet: #fdf5e2; --edge: #e7e3dc;
  --c0: #2f6f9f; --c1: #d0702a; --c2: #2e8b6b; --c3: #9a5fa5; --c4: #b3903a; --c5: #c4525f; --c6: #4aa3b5; --c7: #7d7f3c;
  --c8: #8a6d5b; --c9: #6f7bd0;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #15171a; --sheet: #1d2024; --ink: #e6e4e0; --muted: #9aa0a8; --faint: #31353b; --band: #3a424a;
    --good: #5cc8a0; --bad: #f0985a; --warn: #ecc878; --warn-sheet: #2d2718; --edge: #2d3137;
    --c0: #7fb5dd; --c1: #f0a065; --c2: #6cc9a6; --c3: #c99ad3; --c4: #dcc06c; --c5: #ea8a95; --c6: #82cfdf; --c7: #bcbe74;
    --c8: #c2a593; --c9: #a6b0f5;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1124px; margin: 0 auto; padding: 40px 28px 64px; }
header { border-bottom: 1px solid var(--edge); padding-bottom: 20px; margin-bottom: 26px; }
.brand { color: var(--muted); letter-spacing: .12em; text-transform: uppercase; font-size: 12px; }
h1 { font-size: 34px; line-height: 1.15; font-weight: 650; letter-spacing: -.015em; margin: 6px 0 8px; }
h1 small { font-weight: 400; color: var(--muted); font-size: .62em; letter-spacing: 0; }
h2 { font-size: 20px; font-weight: 620; margin: 44px 0 6px; letter-spacing: -.01em; }
h2 + p { margin-top: 0; }
p { max-width: 76ch; }
p.lead, .muted { color: var(--muted); }
.facts { display: flex; flex-wrap: wrap; gap: 4px 22px; color: var(--muted); font-size: 13.5px; }
.facts b { color: var(--ink); font-weight: 600; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(205px, 1fr)); gap: 14px; margin: 22px 0; }
.card { background: var(--sheet); border: 1px solid var(--edge); border-radius: 10px; padding: 14px 16px 12px; }
.card .name { color: var(--muted); font-size: 13px; line-height: 1.3; min-height: 2.6em; }
.card .value { font-size: 27px; font-weight: 620; font-variant-numeric: tabular-nums; letter-spacing: -.01em; }
.card .about { color: var(--muted); font-size: 12.5px; font-variant-numeric: tabular-nums; }
.card svg { width: 100%; height: 22px; margin-top: 6px; }
.say { background: var(--sheet); border: 1px solid var(--edge); border-left: 4px solid var(--c0); border-radius: 6px;
  padding: 10px 16px; margin: 12px 0; }
.say.yes { border-left-color: var(--good); } .say.no { border-left-color: var(--bad); }
.say p { margin: 4px 0; max-width: none; } .say .advice { color: var(--muted); }
.note { background: var(--warn-sheet); color: var(--warn); border-radius: 6px; padding: 9px 14px; margin: 10px 0;
  font-size: 14px; }
.sheet { background: var(--sheet); border: 1px solid var(--edge); border-radius: 10px; padding: 4px 16px 8px; margin: 12px 0;
  overflow-x: auto; }
table { border-collapse: collapse; width: 100%; min-width: 860px; table-layout: fixed; font-size: 14px; }
col.name { width: 36%; } col.plot { width: 190px; } col.value, col.floor { width: 10%; } col.mark { width: 132px; }
th { text-align: right; font-weight: 500; color: var(--muted); font-size: 12.5px; padding: 10px 10px 6px; }
td { text-align: right; padding: 7px 10px; border-top: 1px solid var(--faint); font-variant-numeric: tabular-nums;
  white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; white-space: normal; }
td.mark { text-align: left; font-size: 13px; padding-right: 0; white-space: nowrap; } th.mark { padding-right: 0; }
td.value { font-weight: 600; }
td svg { vertical-align: middle; }
.better { color: var(--muted); }
.good { color: var(--good); } .bad { color: var(--bad); }
sup a { color: var(--muted); text-decoration: none; padding-left: 3px; } sup a:hover { text-decoration: underline; }
.caution { display: block; color: var(--warn); font-size: 12.5px; line-height: 1.35; max-width: 52ch; }
.figures { display: flex; flex-wrap: wrap; gap: 22px 26px; align-items: flex-start; margin: 14px 0; }
figure { margin: 0; max-width: 100%; }
figcaption { font-size: 13.5px; color: var(--muted); margin-bottom: 6px; max-width: 64ch; }
figcaption .about { display: block; font-size: 12px; opacity: .85; }
figure img { display: block; max-width: 100%; border-radius: 4px; min-width: 0; }
.row { display: flex; gap: 12px; }
figure svg { max-width: 100%; height: auto; display: block; }
svg text { font: 11px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: var(--muted); }
.legend { display: flex; flex-wrap: wrap; gap: 2px 14px; font-size: 12.5px; color: var(--muted); margin-top: 4px;
  max-width: 440px; }
.key i { display: inline-block; width: 10px; height: 10px; border-radius: 5px; margin-right: 5px; }
ol.protocols { padding-left: 22px; font-size: 13px; color: var(--muted); }
ol.protocols li { margin: 5px 0; max-width: 96ch; } ol.protocols li:target { color: var(--ink); }
ol.protocols b { color: var(--ink); font-weight: 600; }
.settings { display: grid; grid-template-columns: repeat(auto-fit, minmax(260px, 1fr)); gap: 0 34px; font-size: 13px; }
.settings h3 { font-size: 13px; font-weight: 600; margin: 12px 0 4px; }
.settings dl { display: grid; grid-template-columns: auto 1fr; gap: 1px 14px; margin: 0; }
.settings dt { color: var(--muted); } .settings dd { margin: 0; text-align: right; overflow-wrap: anywhere; }
code { font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; background: var(--faint); padding: 1px 5px;
  border-radius: 4px; overflow-wrap: anywhere; }
code.command { line-height: 1.6; } code.command span { white-space: nowrap; }
footer { margin-top: 46px; padding-top: 14px; border-top: 1px solid var(--edge); color: var(--muted); font-size: 13px; }
@media (max-width: 640px) { main { padding: 24px 16px 40px; } h1 { font-size: 27px; } }
@media print {
  :root { --page: #fff; --sheet: #fff; --ink: #111; --muted: #555; --faint: #ddd; --band: #d9dfe3; --good: #0d6347;
    --bad: #9a4300; --warn: #5c4100; --warn-sheet: #fff; --edge: #ccc; }
  body { font-size: 10.5pt; } main { max-width: none; padding: 0; }
  h2 { break-after: avoid; margin-top: 26px; } figure, tr, .card, .say { break-inside: avoid; }
  .sheet { overflow: visible; border: 0; padding: 0; } table { font-size: 9.5pt; min-width: 0; } td, th { padding: 4px 7px; }
  col.name { width: 28%; } col.plot { width: 100px; } col.value, col.floor { width: 10%; } col.mark { width: 126px; }
  td svg { width: 100%; } td.mark { font-size: 9pt; } .figures { gap: 14px; } .figures figure { max-width: 48% !important; }
  * { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
}
"""


def document(title: str, parts: Sequence[str], more: str = "") -> str:
    """A page that stands alone.

    Args:
        title: of the page, as text.
        parts: its sections, as HTML; empty ones are left out.
        more: style that only this page has.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{CSS}{more}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main>\n</body>\n</html>\n"
    )
