"""The demo page.

`capprune serve` captions uploaded photos. `capprune serve --static` writes a page with the model inside the browser.

limits, models ── workers ──┐
refused ───────── uploads ──┴─ app ── server          a page and POST /caption over HTTP
models, engine, page ───────── static                 the same page as files, with the model inside the browser
"""
