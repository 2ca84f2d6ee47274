"""Style sheet of the report: dark text on white, on a phone, on a desk and on paper."""

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem 1.25rem 3rem; background: #fff; color: #1a1a1a;
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.5rem; margin: .5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.25rem 0 .5rem; border-bottom: 1px solid #bbb; }
p { margin: .4rem 0; max-width: 48rem; }
.headline { font-size: 1.15rem; font-weight: 600; padding: .4rem .8rem; border-left: .3rem solid #0072b2;
  background: #f2f6fa; }
.note, .left-out, figcaption { color: #444; font-size: .9rem; }
.left-out { font-style: italic; }
figure { margin: .5rem 0; }
figure img { max-width: 100%; height: auto; display: block; }
figure.single img { width: 44rem; }
.scroll { overflow-x: auto; margin: .5rem 0; max-width: 100%; }
.tables { display: flex; flex-wrap: wrap; gap: 0 2rem; align-items: flex-start; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .25rem 0; }
th, td { padding: .2rem .6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #ddd; }
th { background: #f4f4f4; vertical-align: bottom; white-space: normal; min-width: 4.5rem; }
th:first-child, td:first-child { text-align: left; }
.example { border: 1px solid #ccc; border-radius: .3rem; margin: 1rem 0; padding: .5rem .75rem; }
.prompt { font-weight: 600; white-space: pre-wrap; overflow-wrap: anywhere; max-height: 12rem; overflow-y: auto; }
.texts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 13rem), 1fr)); gap: .6rem; }
.pairs { grid-template-columns: 1fr; }
.pairs .text:first-child { grid-column: 1 / -1; }
@media (min-width: 34rem) { .pairs { grid-template-columns: repeat(2, 1fr); } }
@media (min-width: 64rem) { .pairs { grid-template-columns: repeat(4, 1fr); } }
.text { border: 1px solid #ddd; border-radius: .3rem; padding: .4rem .6rem; font-size: .88rem; }
.text.kept { border: 2px solid #00684d; background: #f3faf7; }
.text b { display: block; }
.text .body { white-space: pre-wrap; overflow-wrap: anywhere; max-height: 18rem; overflow-y: auto; margin-top: .3rem; }
.badge { display: inline-block; border: 1px solid #767676; border-radius: .8rem; font-size: .78rem; padding: 0 .5rem;
  margin: .1rem .2rem .1rem 0; }
.controls { display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: end; margin: .75rem 0; }
.controls label { display: flex; flex-direction: column; font-size: .85rem; color: #444; }
.controls select, .controls input, .pager button { font: inherit; padding: .25rem .4rem; color: #1a1a1a;
  background: #fff; border: 1px solid #767676; border-radius: .25rem; max-width: 100%; }
.controls input[type=number] { width: 7rem; }
.pager { display: flex; flex-wrap: wrap; gap: .5rem; align-items: center; max-width: none; }
.pager button:disabled { color: #767676; border-color: #ccc; }
.controls :focus-visible, .pager :focus-visible, .scroll:focus-visible {
  outline: .15rem solid #0072b2; outline-offset: 1px; }
.rewards { color: #444; font-size: .82rem; }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  .scroll, .prompt, .text .body { overflow: visible; max-height: none; }
  .controls, .pager button { display: none; }
  table { font-size: 8pt; }
  th, td { white-space: normal; padding: .15rem .3rem; }
  figure, tr, .text { break-inside: avoid; }
  h2, .prompt, .prompt + .note { break-after: avoid; }
}
"""
